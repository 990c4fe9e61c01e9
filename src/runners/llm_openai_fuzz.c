/* Any bytes as the body of a request: parsed, or refused with a message that can be told. */
#include "core/mem.h"
#include "runners/llm_openai.h"
#include "runners/llm_text.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Cut into tokens of any length, the text that comes out is the same but for stop words. */
static void text_holds(const struct at_openai_request *r, const char *bytes, size_t len)
{
    struct at_llm_text text = {.stops = r->stops, .n_stops = r->n_stops};
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    for (size_t at = 0; at < len;) {
        size_t n = 1 + (unsigned char)bytes[at] % 5;
        n = n < len - at ? n : len - at;
        (void)at_llm_text_push(&text, bytes + at, n, &out);
        at += n;
    }
    at_llm_text_end(&text, &out);
    at_llm_text_done(&text);
    assert(at_str_utf8_prefix((struct at_str){out.data, out.len}) == out.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int kind = AT_OPENAI_CHAT; kind <= AT_OPENAI_EMBED; kind++) {
        struct at_openai_request request;
        struct at_openai_error error;
        enum at_rc rc =
            at_openai_parse((enum at_openai_kind)kind, (const char *)data, size, &request, &error);
        if (rc != AT_OK) {
            AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
            assert(error.err.msg[0] != '\0');
            assert(at_openai_encode_error(&error, &text) == AT_OK);
        } else {
            assert(request.n_prompts >= 1 && request.n >= 1);
            for (size_t i = 0; kind != AT_OPENAI_CHAT && i < request.n_prompts; i++) {
                const json_t *tokens = NULL;
                const char *text = at_openai_prompt(&request, i, &tokens);
                assert((text != NULL) != (tokens != NULL));
            }
            text_holds(&request, (const char *)data, size);
        }
        at_openai_request_done(&request);
    }
    return 0;
}
