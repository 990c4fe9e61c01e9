/* W3C Trace Context (level 2): what a request brings, and what goes on to the replica. Pure. */
#ifndef AT_GATEWAY_TRACE_H
#define AT_GATEWAY_TRACE_H

#include "net/http1.h"

#define GW_TRACE_TEXT_BYTES 55 /* "00-<32>-<16>-<2>" */
#define GW_TRACE_SPAN_AT 36    /* where the span's 16 digits stand in it */

struct gw_trace {
    uint64_t id[2];  /* not both 0 */
    uint64_t parent; /* the caller's span; 0: the trace begins here */
    uint64_t span;   /* of this request at this gateway; not 0 */
    unsigned char flags;
    bool sampled;
};

/* "00-<trace>-<parent>-<flags>", lower case; of versions to come what version 00 knows of them.
 * False: it is none, and ret is as it was. */
bool gw_trace_parse(struct at_str text, struct gw_trace *ret);
/* Of the request: goes on what its one traceparent says, else begins a trace by random, sampled in
 * ratio of 2^32 cases. span is of random in both cases. */
void gw_trace_take(const struct at_http_head *head, const uint64_t random[3], uint64_t ratio,
                   struct gw_trace *ret);
/* GW_TRACE_TEXT_BYTES at to, with span as the parent. No NUL. */
void gw_trace_put(const struct gw_trace *trace, uint64_t span, char *to);
void gw_trace_put_hex(uint64_t value, char to[16]);

#endif
