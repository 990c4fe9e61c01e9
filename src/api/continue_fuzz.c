#include "api/api_priv.h"
#include "core/mem.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = at_strndup((const char *)data, size);
    struct api_continue token;
    if (api_continue_decode(text, &token, NULL) == AT_OK) {
        assert(token.rev > 0);
        struct at_arena *arena = at_arena_new(1 << 20);
        struct api_continue again;
        char *encoded = api_continue_encode(arena, &token);
        assert(encoded != NULL);
        enum at_rc rc = api_continue_decode(encoded, &again, NULL);
        assert(rc == AT_OK);
        assert(again.rev == token.rev);
        assert(strcmp(again.start, token.start) == 0);
        at_arena_free(arena);
    }
    at_free(text);
    return 0;
}
