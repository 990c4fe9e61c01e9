/* JSON for tests, written with ' instead of ". */
#ifndef AT_MODEL_TEST_JSON_H
#define AT_MODEL_TEST_JSON_H

#include "core/json.h"
#include "core/mem.h"

#include <string.h>

static inline json_t *J(const char *text)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(text);
    for (char *c = copy; *c != '\0'; c++) {
        *c = *c == '\'' ? '"' : *c;
    }
    json_t *value = NULL;
    struct at_err err = {0};
    if (at_json_parse(copy, strlen(copy), &value, &err) != AT_OK) {
        fail_msg("test JSON %s: %s", text, err.msg);
    }
    return value;
}

#endif
