/* What client.c and informer.c share. */
#ifndef AT_CLIENT_CLIENT_PRIV_H
#define AT_CLIENT_CLIENT_PRIV_H

#include "client/client.h"

struct at_client_call {
    enum at_http_method method;
    const char *path, *content_type, *accept; /* the last two may be NULL */
    const json_t *body;                       /* may be NULL */
    const char *text;                         /* instead of body: sent as it is */
    size_t text_len;
    bool no_timeout;
    /* Streams: pieces of a 2xx answer; on_open when its head has come. Both may be NULL: then the
     * answer is collected and parsed. */
    void (*on_open)(void *ctx);
    void (*on_body)(void *ctx, const char *data, size_t len);
    at_client_done_fn *done;
    void *ctx;
};
at_client_call_id at_client_start(struct at_client *client, const struct at_client_call *call);
struct at_loop *at_client_loop(const struct at_client *client);
/* Fill err from a Kubernetes Status (may be NULL) and the HTTP status; returns err->rc. */
enum at_rc at_client_status_err(const json_t *status, int http_status, struct at_err *err);

#endif
