/* What client.c and informer.c share. */
#ifndef AT_CLIENT_CLIENT_PRIV_H
#define AT_CLIENT_CLIENT_PRIV_H

#include "client/client.h"
#include "client/limits.h"
#include "net/tls.h"
#include "net/url.h"

struct at_client_server {
    char *text;
    struct at_url url;
    uint32_t id; /* in calls: the entry may be gone by then */
    bool configured, learned;
    unsigned failures; /* in a row */
    int64_t rest_until_ns;
};

struct at_client {
    struct at_loop *loop;
    struct at_http_client *http;
    struct at_tls_config *tls; /* NULL: plain http, for tests and sidecars */
    struct at_client_server *servers[AT_CLIENT_SERVERS_MAX];
    size_t n_servers;
    struct at_client_server *current;
    uint32_t last_server_id;
    void (*on_servers)(void *ctx);
    void *on_servers_ctx;
    char *ca_pem, *ca_pin, *cert_pem, *key_pem;
    char *tls_name; /* to be named by the server's certificate; NULL: its address */
    char *agent, *more_headers;
    char *headers; /* Authorization and User-Agent lines */
    struct call *calls;
    at_client_call_id last_id;
    at_timer_id cut_timer;
    uint32_t suspect; /* the server that is being asked whether it lives; 0: none */
};

/* servers.c */
enum at_rc at_client_servers_open(struct at_client *client, const char *list, bool prefer_first,
                                  struct at_err *err) AT_WARN_UNUSED;
void at_client_servers_done(struct at_client *client);
struct at_client_server *at_client_server_find(struct at_client *client, uint32_t id);
/* text NULL: the one in use; NULL: not known. */
struct at_client_server *at_client_server_for(struct at_client *client, const char *text);
void at_client_server_failed(struct at_client *client, uint32_t id);
void at_client_server_works(struct at_client *client, uint32_t id);

struct at_client_call {
    const char *server; /* NULL: the one in use, and the next when it fails */
    int64_t timeout_ns; /* 0: the default */
    enum at_http_method method;
    const char *path, *content_type, *accept; /* the last two may be NULL */
    const json_t *body;                       /* may be NULL */
    const char *text;                         /* instead of body: sent as it is */
    size_t text_len;
    bool no_timeout, slow_to_begin;
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
