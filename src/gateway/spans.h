/* Spans to a collector by OTLP over HTTP (protobuf), in batches, one loop's own. A request waits
 * for none of it: what does not fit is dropped and counted. */
#ifndef AT_GATEWAY_SPANS_H
#define AT_GATEWAY_SPANS_H

#include "core/metrics.h"
#include "gateway/trace.h"
#include "net/http_client.h"

struct gw_spans;

enum gw_span_kind { GW_SPAN_SERVER = 2, GW_SPAN_CLIENT = 3 }; /* as OTLP numbers them */

struct gw_span {
    uint64_t trace[2], span, parent; /* parent 0: none */
    int64_t start_ns, end_ns;        /* the loop's monotonic clock */
    enum gw_span_kind kind;
    int status;        /* HTTP's; 0: no answer */
    unsigned attempts; /* of the request; of an attempt: which one */
    char method[8];
    char model[64], instance[64], site[32], key[32], addr[64], request_id[40];
};

struct gw_spans_options {
    struct at_loop *loop;
    struct at_http_client *client; /* outlives the spans */
    struct at_metrics *metrics;
    const char *addr, *target;  /* of the collector; copied */
    struct at_tls_config *tls;  /* NULL: plain */
    const char *headers;        /* more lines, such as a key for the collector; copied */
    const char *service, *host; /* names of the resource; copied */
};

struct gw_spans *gw_spans_new(const struct gw_spans_options *options);
void gw_spans_free(struct gw_spans *spans); /* what is under way is given up; accepts NULL */
/* A place to write the next span into, zeroed; NULL: full, and counted. It is sent after
 * AT_GW_SPANS_NS, or when enough have come. */
struct gw_span *gw_spans_next(struct gw_spans *spans);
/* Is there anything that was not sent yet? Sends it now. false: no, or nobody takes it. */
bool gw_spans_flush(struct gw_spans *spans);

#endif
