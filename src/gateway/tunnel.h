/* WebSocket connections through to replicas of plain services. */
#ifndef AT_GATEWAY_TUNNEL_H
#define AT_GATEWAY_TUNNEL_H

#include "net/http_server.h"

struct gw_worker;
struct gw_model;
struct gw_rule;

bool gw_tunnel_wanted(const struct at_http_head *head);
/* Connects to a replica of model (to another one when that fails, as nothing was sent), passes the
 * request on, and once the replica has agreed, bytes both ways: each side's end is passed on while
 * the other goes on, reading stops while the other side does not take, and who says nothing for
 * AT_GW_TUNNEL_IDLE_NS is cut. A replica's other answer is passed on as it is. ex is answered by
 * it. rule: borrowed until return. */
void gw_tunnel_start(struct gw_worker *worker, struct at_http_exchange *ex, struct gw_model *model,
                     const struct gw_rule *rule);

#endif
