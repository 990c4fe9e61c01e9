#include "model/model_priv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct at_arena *arena = at_arena_new(0);
    struct at_model_kv kv[] = {{"app", "web"}, {"a.b/c", ""}};
    struct at_model_map map = {kv, 2};
    char *text = at_arena_strndup(arena, (const char *)data, len);
    struct at_selector *selector = NULL;
    if (text != NULL && at_selector_parse(text, arena, &selector, NULL) == AT_OK) {
        (void)at_selector_match(selector, &map);
        if (selector == NULL || strlen(text) > 8192) {
            abort();
        }
    }
    at_arena_free(arena);
    return 0;
}
