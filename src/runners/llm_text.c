#include "runners/llm_text.h"

#include <string.h>

#define REPLACEMENT "\xef\xbf\xbd"

static void give(struct at_buf *out, const char *bytes, size_t len)
{
    /* A text is bound by its tokens, far below any buffer's cap. */
    (void)!at_buf_append(out, bytes, len);
}

/* Is rest the beginning of a character that is not all there yet? */
static bool begins_character(struct at_str rest)
{
    unsigned char lead = (unsigned char)rest.ptr[0];
    size_t need = lead >= 0xf0 && lead <= 0xf4   ? 4
                  : lead >= 0xe0 && lead <= 0xef ? 3
                  : lead >= 0xc2 && lead <= 0xdf ? 2
                                                 : 0;
    if (rest.len >= need) {
        return false;
    }
    for (size_t i = 1; i < rest.len; i++) {
        if (((unsigned char)rest.ptr[i] & 0xc0) != 0x80) {
            return false;
        }
    }
    return true;
}

/* Give out the first n held bytes as far as they are whole characters; all: broken ones at the end
 * too. Returns how many were used up. */
static size_t give_characters(struct at_llm_text *text, size_t n, bool all, struct at_buf *out)
{
    size_t used = 0;
    while (used < n) {
        struct at_str rest = {text->held.data + used, n - used};
        size_t good = at_str_utf8_prefix(rest);
        give(out, rest.ptr, good);
        used += good;
        rest = (struct at_str){rest.ptr + good, rest.len - good};
        if (rest.len == 0 || (!all && begins_character(rest))) {
            break;
        }
        give(out, REPLACEMENT, sizeof REPLACEMENT - 1);
        used++;
        while (used < n && ((unsigned char)text->held.data[used] & 0xc0) == 0x80) {
            used++;
        }
    }
    return used;
}

static size_t find_stop(const struct at_llm_text *text)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < text->n_stops; i++) {
        const char *at =
            memmem(text->held.data, text->held.len, text->stops[i], strlen(text->stops[i]));
        if (at != NULL && (size_t)(at - text->held.data) < found) {
            found = (size_t)(at - text->held.data);
        }
    }
    return found;
}

/* How many bytes at the end could be the beginning of a stop word. */
static size_t maybe_stop(const struct at_llm_text *text)
{
    size_t most = 0;
    for (size_t i = 0; i < text->n_stops; i++) {
        size_t len = strlen(text->stops[i]) - 1;
        len = len < text->held.len ? len : text->held.len;
        for (; len > most; len--) {
            if (memcmp(text->held.data + text->held.len - len, text->stops[i], len) == 0) {
                most = len;
            }
        }
    }
    return most;
}

bool at_llm_text_push(struct at_llm_text *text, const char *bytes, size_t len, struct at_buf *out)
{
    if (text->stopped || len == 0) {
        return text->stopped;
    }
    give(&text->held, bytes, len);
    size_t stop = find_stop(text);
    if (stop != SIZE_MAX) {
        (void)give_characters(text, stop, true, out);
        at_buf_clear(&text->held);
        text->stopped = true;
        return true;
    }
    size_t used = give_characters(text, text->held.len - maybe_stop(text), false, out);
    at_buf_consume(&text->held, used);
    return false;
}

void at_llm_text_end(struct at_llm_text *text, struct at_buf *out)
{
    if (text->held.len != 0) {
        (void)give_characters(text, text->held.len, true, out);
        at_buf_clear(&text->held);
    }
}

void at_llm_text_done(struct at_llm_text *text)
{
    at_buf_done(&text->held);
}
