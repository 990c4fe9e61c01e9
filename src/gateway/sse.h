/* Counts what goes by in an answer: events of a server-sent stream, and the tokens that usage
 * objects name. Nothing is kept or copied but the beginning of a line. Pure. */
#ifndef AT_GATEWAY_SSE_H
#define AT_GATEWAY_SSE_H

#include "core/str.h"

struct gw_sse {
    char head[16];   /* of the line that has begun */
    size_t head_len; /* bytes of it in head */
    size_t line_len; /* and in all */
    bool has_data;   /* the event that has begun */
};

/* How many events with data ended in data[0..len), "[DONE]" not counted (HTML standard, 9.2.6).
 * cost: one memchr per line. */
size_t gw_sse_events(struct gw_sse *sse, const char *data, size_t len);

struct gw_usage {
    uint64_t prompt, completion; /* tokens; 0: not said */
};
/* The last whole usage object in text, as OpenAI's answers have it. False: there is none. A quote
 * inside a JSON string is escaped, so what a model says is never taken for one. */
bool gw_usage_find(struct at_str text, struct gw_usage *ret);

#endif
