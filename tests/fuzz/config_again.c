/* config_again.c - config.c, and a way to have all options again as they were, without looking for them by name. */
#include "config.c"

#include "harness.h"

static char *kept[OPTIONS];

static void set(const struct option *o, const char *text) {
    if (option_put(o, text)) abort();
}

void config_keep(void) {
    for (size_t i = 0; i < OPTIONS; i++) kept[i] = resp_need(strdup(option_text(&options[i])));
}

void config_back(void) {
    for (size_t i = 0; i < OPTIONS; i++)
        if (strcmp(option_text(&options[i]), kept[i]) != 0) set(&options[i], kept[i]);
}

void harness_set(const char *name, const char *value) {
    size_t i = 0;
    while (strcmp(options[i].name, name) != 0) i++;
    set(&options[i], value);
}
