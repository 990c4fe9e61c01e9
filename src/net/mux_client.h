/* The client's side of atoll-mux/1; for http_client.c. */
#ifndef AT_NET_MUX_CLIENT_H
#define AT_NET_MUX_CLIENT_H

#include "net/http_client_int.h"
#include "net/mux.h"

enum mux_state {
    MUX_TRYING,
    MUX_OPEN,
    MUX_LEAVING, /* no more calls; closed when the last one is over */
    MUX_CLOSED,
};

struct mux_conn {
    struct client_pool *pool;
    struct mux_conn *prev, *next; /* of the client */
    struct at_stream *stream;
    enum mux_state state;
    bool in_data; /* memory stays until it returns */
    struct at_loop_task send_task;
    uint32_t last_id;
    size_t n_calls;
    int64_t idle_until_ns; /* without calls; for the answer to the Upgrade */
    struct client_call *calls[AT_MUX_SLOTS];
};

/* Send the call on the pool's connection. False: there is none, or it is full. */
bool at_mux_client_take(struct client_call *call);
void at_mux_client_try(struct client_pool *pool); /* begin to open one, if that may work */
/* The call is over. tell: the other side still works on it. */
void at_mux_client_leave(struct client_call *call, bool tell);
void at_mux_client_resume(struct client_call *call);
void at_mux_client_sweep(struct at_http_client *client, int64_t now_ns, int64_t *first_ns);
void at_mux_client_free(struct at_http_client *client); /* no call is under way any more */

#endif
