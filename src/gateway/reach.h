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
static inline const char *gw_replica_host(const struct gw_replica *replica)
{
    return replica->peer != NULL ? "localhost" : NULL; /* its agent's address is not its own */
}

#endif
