/* The client's side of HTTP/2 (RFC 9113); for http_client.c. Calls share a pool's connections,
 * which are opened when those that there are have no room. */
#ifndef AT_NET_H2_CLIENT_H
#define AT_NET_H2_CLIENT_H

#include "net/http_client_int.h"

#include <nghttp2/nghttp2.h>

enum h2_state {
    H2_TRYING,
    H2_OPEN,
    H2_LEAVING, /* no more calls; closed when the last one is over */
    H2_CLOSED,
};

struct h2_conn {
    struct client_pool *pool;
    struct h2_conn *prev, *next; /* of the pool */
    struct at_stream *stream;
    nghttp2_session *session; /* NULL until the connection is open */
    enum h2_state state;
    bool in_data; /* memory stays until it returns */
    struct at_loop_task send_task;
    struct client_call *first, *last; /* those on it, oldest first */
    size_t n_calls;
    int64_t idle_until_ns;
};

/* Put the call on a connection of its pool, a new one if need be. False: there may be no more. */
bool at_h2_client_take(struct client_call *call);
bool at_h2_client_has_room(const struct client_pool *pool);
/* The call is over. tell: the other side still works on it. */
void at_h2_client_leave(struct client_call *call, bool tell);
void at_h2_client_body(struct client_call *call); /* there is more of it, or no more comes */
void at_h2_client_resume(struct client_call *call);
void at_h2_client_sweep(struct client_pool *pool, int64_t now_ns, int64_t *first_ns);
void at_h2_client_close(struct client_pool *pool); /* no call is under way any more */

#endif
