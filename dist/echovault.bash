# Completion for bash: the options that the server itself names, and what they may be set to.
_echovault() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} line
    COMPREPLY=()
    if [[ $before == --* ]]; then
        line=$("$1" --help 2>/dev/null | grep -E "^  $before ")
        case $before in
        --dir) mapfile -t COMPREPLY < <(compgen -d -- "$word") && return ;;
        --logfile | --pidfile | --unixsocket) mapfile -t COMPREPLY < <(compgen -f -- "$word") && return ;;
        esac
        # "...: debug, verbose, notice [notice]" or, of two, "[yes]"
        if [[ $line =~ :\ ([a-z-]+(,\ [a-z-]+)+)\ \[ ]]; then
            line=${BASH_REMATCH[1]//,/}
        elif [[ $line =~ \[(yes|no)\]$ ]]; then
            line="yes no"
        else
            return
        fi
        mapfile -t COMPREPLY < <(compgen -W "$line" -- "$word")
    elif [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "--help --version $("$1" --help 2>/dev/null | grep -oE '^  --[a-z-]+')" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}
complete -F _echovault echovault
