/* How a replica is connected to. */
#ifndef AT_GATEWAY_REACH_H
#define AT_GATEWAY_REACH_H

#include "gateway/gateway_priv.h"

bool gw_is_loopback(const char *addr); /* or a Unix socket; gateway.c */
/* NULL: plain. */
static inline struct at_tls_config *gw_replica_tls(const struct gw_worker *worker,
                                                   const struct gw_replica *replica)
{
    return replica->peer != NULL ? worker->peer_tls : replica->tls;
}
/* The address and its ways, of a call that says the rest. */
static inline void gw_reach(const struct gw_worker *worker, const struct gw_replica *replica,
                            struct at_http_call *call)
{
    call->addr = replica->addr;
    call->tls = gw_replica_tls(worker, replica);
    call->server_name = replica->peer;
    call->http2 = replica->http2                                  ? AT_HTTP2_ALWAYS
                  : replica->peer == NULL && replica->tls != NULL ? AT_HTTP2_IF_OFFERED
                                                                  : AT_HTTP2_NEVER;
    if (call->host == NULL && replica->peer != NULL) {
        call->host = "localhost"; /* its agent's address is not its own */
    }
}

#endif
