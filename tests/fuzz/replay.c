/* replay.c - runs a target once for each file named, or in a folder named: found cases as a test, with any compiler. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

static int files;

static void replay_file(const char *path) {
    FILE *f = fopen(path, "rb");
    static uint8_t buf[4 << 20];
    size_t n = f ? fread(buf, 1, sizeof buf, f) : 0;
    if (!f) perror(path), exit(1);
    fclose(f);
    uint8_t *exact = malloc(n + 1);
    memcpy(exact, buf, n);
    fprintf(stderr, "\r%s\r", path); /* the last one stands there if it ends badly */
    LLVMFuzzerTestOneInput(exact, n);
    fprintf(stderr, "\r%*s\r", (int)strlen(path), "");
    free(exact);
    files++;
}

static void replay(const char *path) {
    DIR *folder = opendir(path);
    char inner[4096];
    if (!folder) {
        replay_file(path);
        return;
    }
    for (struct dirent *e; (e = readdir(folder));) {
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        if (e->d_name[0] != '.') replay_file(inner);
    }
    closedir(folder);
}

int main(int argc, char **argv) {
    if (LLVMFuzzerInitialize) LLVMFuzzerInitialize(&argc, &argv);
    for (int i = 1; i < argc; i++) replay(argv[i]);
    printf("%s: %d inputs\n", argv[0], files);
    return 0;
}
