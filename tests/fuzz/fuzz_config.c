/* fuzz_config.c - the file of options and the command line. All is well, or the start ends with exactly one line.
 *
 * config.c is included, so that what it holds when it ends in the middle can be given back. */
#include "commands.h"
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>

static jmp_buf ended;
static char **line_held;
static FILE *file_held;
static void *words_held;
static struct resp_parser *parser_held;
static int lines_said;

static ssize_t hold_line(char **line, size_t *cap, FILE *f) { return getline(line_held = line, cap, file_held = f); }
static int hold_file(FILE *f) {
    line_held = NULL;
    return fclose(f);
}
static void *hold_words(size_t n, size_t size) { return words_held = calloc(n, size); }
static void forget(void *p) {
    if (p == words_held) words_held = NULL;
    free(p);
}
static void hold_parser(struct resp_parser *p) { resp_parser_init(parser_held = p); }
static int say(FILE *f, const char *fmt, ...) {
    (void)f;
    lines_said += *fmt != '\0';
    return 0;
}

#define getline          hold_line
#define fclose           hold_file
#define calloc           hold_words
#define free             forget
#define fprintf          say
#define resp_parser_init hold_parser
#define server_log(...)  ((void)0)
#include "config.c"
#undef free
#undef calloc
#undef fclose

static void give_back(void) {
    if (line_held) {
        free(*line_held);
        fclose(file_held);
        resp_parser_free(parser_held);
    }
    free(words_held);
    longjmp(ended, 1);
}

/* What CONFIG GET says, CONFIG SET takes, and it stays the same; a share of the options each time, for speed. */
static void check_texts(size_t which) {
    for (const struct option *o = options + which % 16; o < options + OPTIONS; o += 16) {
        char *text = strdup(option_text(o));
        if (option_put(o, text) || strcmp(text, option_text(o)) != 0) abort();
        free(text);
    }
}

/* The input is a file, then, behind its last NUL, the words of a command line, one a line. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    char *argv[16] = {"echovault", "file"}, text[512], *save, *word;
    int argc = 2;
    const uint8_t *nul = n ? memrchr(data, 0, n) : NULL;
    size_t file = nul ? (size_t)(nul - data) : n, rest = nul ? n - file - 1 : 0;
    rest = rest < sizeof text - 1 ? rest : sizeof text - 1;
    if (rest) memcpy(text, nul + 1, rest);
    text[rest] = '\0';
    for (word = strtok_r(text, "\n", &save); word && argc < 15; word = strtok_r(NULL, "\n", &save)) argv[argc++] = word;
    seam_reset();
    seam_put("file", data, file);
    seam.on_exit = give_back;
    lines_said = 0;
    line_held = NULL;
    words_held = NULL;
    if (!setjmp(ended)) {
        config_load(argc, argv);
        check_texts(n);
    } else if (lines_said != 1) {
        abort();
    }
    free(config.file);
    config.file = NULL;
    save_given = loading = false;
    commands_forget();
    return 0;
}
