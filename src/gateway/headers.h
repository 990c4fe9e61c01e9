/* Header lines that pass through, in both directions. Pure. */
#ifndef AT_GATEWAY_HEADERS_H
#define AT_GATEWAY_HEADERS_H

#include "core/buf.h"
#include "gateway/trace.h"
#include "net/http1.h"

/* What a plain service is told of its client, in X-Forwarded-For, -Proto and -Host. */
struct gw_forwarded {
    struct at_str client, host;
    bool is_tls;
    bool keeps_authorization; /* it is not for us */
};

struct gw_ids {
    const struct gw_forwarded *forwarded; /* NULL: nothing is told */
    struct gw_trace trace;                /* the span below becomes the replica's parent */
    uint64_t span, request;
    bool grpc;         /* leave out what describes a gRPC body */
    const char *lines; /* put these instead; may be NULL */
};

/* Lines for the replica: what the client sent without hop-by-hop fields, Host, Content-Length,
 * Expect and Authorization (RFC 9110 §7.6.1); traceparent is of ids, tracestate passes when the
 * trace was begun by the client, X-Request-Id is made from ids when absent. ret_request_id:
 * borrowed from head or from out_id. The first line but lines is traceparent (GW_HEADERS_SPAN_AT).
 * err: AT_TOO_LARGE. */
#define GW_HEADERS_SPAN_AT (sizeof "traceparent: " - 1 + GW_TRACE_SPAN_AT) /* behind ids->lines */
enum at_rc gw_headers_up(const struct at_http_head *head, const struct gw_ids *ids, char out_id[17],
                         struct at_str *ret_request_id, struct at_buf *out) AT_WARN_UNUSED;
/* Lines for the client: what the replica sent without hop-by-hop fields, Content-Length and Date;
 * x-atoll-instance, x-atoll-site and X-Request-Id are added. err: AT_TOO_LARGE. */
enum at_rc gw_headers_down(const struct at_http_head *head, const char *instance, const char *site,
                           struct at_str request_id, struct at_buf *out) AT_WARN_UNUSED;

#endif
