#!/bin/sh
# Sees to it that the tests have what they need and prints the Python that has it: Debian's packages where apt
# may be used, else a virtual environment for the Python part (tests that miss a program are then skipped). The client
# libraries for Node.js come from npm into clients/node_modules; without them, their tests are skipped.
# EXTRA_PACKAGES names more that are needed, OPTIONAL_PACKAGES what can be done without. What it says goes to stderr.
set -eu
cd "$(dirname "$0")"

packages="python3-pytest python3-pytest-timeout python3-pytest-xdist python3-redis python3-hypothesis
    redis-server redis-tools redis-sentinel nutcracker iproute2 netcat-openbsd groff-base make
    python3-hiredis python3-django-redis php-cli php-redis ruby-redis gcc libc6-dev libhiredis-dev
    prometheus-redis-exporter iredis ${EXTRA_PACKAGES-}"
command -v npm >/dev/null || packages="$packages npm"

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

installed() {
    dpkg-query -W -f '${Status}' "$1" 2>/dev/null | grep -q 'ok installed'
}

# Which of these are not installed?
missing() {
    for package in "$@"; do
        installed "$package" || printf '%s ' "$package"
    done
}

# Debian starts a service right after its installation; redis-server's would take port 6379.
install_without_starting() {
    policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap 'as_root rm -f $policy' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
        as_root chmod +x $policy
    fi
    echo "installing $*" >&2
    set -- env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
    as_root "$@" >&2 || { as_root apt-get update -qq >&2 && as_root "$@" >&2; }
}

# Unless what is there is what package.json asks for.
install_node_clients() {
    cmp -s clients/package.json clients/node_modules/installed.json && return
    echo "installing clients for Node.js" >&2
    timeout 300 npm install --prefix clients --no-package-lock --no-audit --no-fund --loglevel=error >&2 &&
        cp clients/package.json clients/node_modules/installed.json
}

# shellcheck disable=SC2086  # lists of words
if command -v apt-get >/dev/null && { [ -z "$(missing $packages)" ] || as_root true 2>/dev/null; }; then
    list=$(missing $packages)
    [ -z "$list" ] || install_without_starting $list
    list=$(missing ${OPTIONAL_PACKAGES-})
    [ -z "$list" ] || install_without_starting $list || echo "could not install $list" >&2
    install_node_clients || echo "npm could not install them; their tests will be skipped" >&2
    echo /usr/bin/python3
elif python3 -c 'import hypothesis, pytest, pytest_timeout, redis, xdist' 2>/dev/null; then
    command -v python3
else
    if [ ! -x .venv/bin/pytest ]; then
        echo "making a virtual environment in tests/.venv" >&2
        python3 -m venv .venv >&2
        .venv/bin/pip install -q pytest pytest-timeout pytest-xdist hypothesis 'redis>=4.3,<5' >&2
    fi
    echo "$PWD/.venv/bin/python3"
fi
