#include "gateway/trace.h"

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_hex(const char *at, size_t digits, uint64_t *ret)
{
    uint64_t value = 0;
    for (size_t i = 0; i < digits; i++) {
        int digit = hex(at[i]);
        if (digit < 0) {
            return false;
        }
        value = value << 4 | (uint64_t)digit;
    }
    *ret = value;
    return true;
}

bool gw_trace_parse(struct at_str text, struct gw_trace *ret)
{
    uint64_t version, high, low, parent, flags;
    if (text.len < GW_TRACE_TEXT_BYTES || text.ptr[2] != '-' || text.ptr[35] != '-' ||
        text.ptr[52] != '-') {
        return false;
    }
    if (!take_hex(text.ptr, 2, &version) || !take_hex(text.ptr + 3, 16, &high) ||
        !take_hex(text.ptr + 19, 16, &low) || !take_hex(text.ptr + GW_TRACE_SPAN_AT, 16, &parent) ||
        !take_hex(text.ptr + 53, 2, &flags)) {
        return false;
    }
    bool longer = text.len > GW_TRACE_TEXT_BYTES;
    if (version == 0xff || (version == 0 && longer) ||
        (longer && text.ptr[GW_TRACE_TEXT_BYTES] != '-') || (high | low) == 0 || parent == 0) {
        return false;
    }
    ret->id[0] = high;
    ret->id[1] = low;
    ret->parent = parent;
    ret->flags = (unsigned char)(flags & 3); /* sampled, random: no others are known */
    ret->sampled = (flags & 1) != 0;
    return true;
}

void gw_trace_take(const struct at_http_head *head, const uint64_t random[3], uint64_t ratio,
                   struct gw_trace *ret)
{
    struct at_str text = {NULL, 0};
    size_t n = 0;
    for (size_t i = 0; i < head->n_headers; i++) {
        if (head->headers[i].name.len == 11 &&
            at_str_eq_nocase(head->headers[i].name, "traceparent")) {
            text = head->headers[i].value;
            n++;
        }
    }
    ret->span = random[2] != 0 ? random[2] : 1;
    if (n == 1 && gw_trace_parse(text, ret)) {
        return;
    }
    ret->id[0] = random[0];
    ret->id[1] = random[1] | 1; /* all zeros is no id */
    ret->parent = 0;
    /* By the trace's own bits, so that every place that decides by ratio decides alike. */
    ret->sampled = ret->id[1] >> 32 < ratio;
    ret->flags = ret->sampled;
}

void gw_trace_put_hex(uint64_t value, char to[16])
{
    for (int i = 0; i < 16; i++) {
        to[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
    }
}

void gw_trace_put(const struct gw_trace *trace, uint64_t span, char *to)
{
    to[0] = to[1] = '0';
    to[2] = to[35] = to[52] = '-';
    gw_trace_put_hex(trace->id[0], to + 3);
    gw_trace_put_hex(trace->id[1], to + 19);
    gw_trace_put_hex(span, to + GW_TRACE_SPAN_AT);
    to[53] = '0';
    to[54] = (char)('0' + (trace->flags & 3));
}
