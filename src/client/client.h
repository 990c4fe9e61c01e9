/* Typed access to the API server: get, list, watch with resume, create, patch, apply, delete.
 * Asynchronous on a loop; at_client_wait turns one call into a blocking one for the command line.
 */
#ifndef AT_CLIENT_CLIENT_H
#define AT_CLIENT_CLIENT_H

#include "model/model.h"
#include "net/http_client.h"

struct at_client;

struct at_client_options {
    /* https://host:port; several servers of one control plane with commas between them. One is
     * used, the next when it fails: a call that has not reached it, and any GET without an answer,
     * goes on there by itself. */
    const char *server;
    bool prefer_first;  /* not one at random: for people, who chose it */
    const char *ca_pem; /* trust; NULL with ca_pin at join */
    const char *ca_pin_sha256_hex;
    const char *cert_pem, *key_pem; /* client certificate, or NULL */
    const char *token;              /* bearer token, or NULL */
    const char *user_agent;         /* "atoll-agent/0.1" */
    const char *tls_server_name;    /* what the certificate must name; NULL: the host of server */
    const char *more_headers;       /* "Name: value\r\n" lines for each call, or NULL */
};
/* err: AT_INVALID no server, a malformed address, token or certificate. own: at_client_free, which
 * ends all calls without telling. Options are copied. */
enum at_rc at_client_new(struct at_loop *loop, const struct at_client_options *options,
                         struct at_client **ret, struct at_err *err) AT_WARN_UNUSED;
void at_client_free(struct at_client *client);
/* New credentials for calls that start from now on (certificate renewal). err: AT_INVALID they do
 * not fit together; the old ones stay. */
enum at_rc at_client_set_identity(struct at_client *client, const char *cert_pem,
                                  const char *key_pem, struct at_err *err) AT_WARN_UNUSED;
/* The same with a bearer token; NULL: none. err: AT_INVALID it holds a line break. */
enum at_rc at_client_set_token(struct at_client *client, const char *token,
                               struct at_err *err) AT_WARN_UNUSED;

/* Options from kubeconfig files (path NULL: those of $KUBECONFIG, merged, then ~/.kube/config;
 * context NULL: the current one). A user's exec plug-in is run. err: AT_NOT_FOUND no such file or
 * context | AT_INVALID, AT_BAD_REQUEST with the place in the file | AT_FORBIDDEN anyone may change
 * it | those of at_kubeconfig_exec. own: at_client_kubeconfig_free. */
struct at_client_kubeconfig {
    struct at_client_options options;
    char *ns;                /* the context's namespace, or "default" */
    char *warning;           /* for people: a file that others may read; NULL: none */
    int64_t expires_wall_ns; /* of what a plug-in gave; 0: not said */
};
enum at_rc at_client_kubeconfig_load(const char *path, const char *context,
                                     struct at_client_kubeconfig **ret,
                                     struct at_err *err) AT_WARN_UNUSED;
struct at_client_kubeconfig_choice {
    const char *path, *context;
    const char *as; /* act as that user instead of the one in the file; NULL: as the file says */
    const char *const *as_groups;
    size_t n_as_groups;
};
enum at_rc at_client_kubeconfig_choose(const struct at_client_kubeconfig_choice *choice,
                                       struct at_client_kubeconfig **ret,
                                       struct at_err *err) AT_WARN_UNUSED;
bool at_client_kubeconfig_has_plugin(const struct at_client_kubeconfig *config);
/* Run the plug-in once more, for calls of client that start from now on. Blocking. */
enum at_rc at_client_kubeconfig_refresh(struct at_client_kubeconfig *config,
                                        struct at_client *client,
                                        struct at_err *err) AT_WARN_UNUSED;
/* The file that kubeconfig_load would read. own: caller at_free. */
char *at_client_kubeconfig_path(const char *path);
void at_client_kubeconfig_free(struct at_client_kubeconfig *config);

/* rc AT_OK: a 2xx answer, body its JSON (borrowed; NULL when it is no JSON). Otherwise the server's
 * Status is in err: rc from reason and code, msg the message, field the first cause's field; body
 * the Status itself when there is one. */
typedef void at_client_done_fn(void *ctx, enum at_rc rc, int status, json_t *body,
                               const struct at_err *err);
typedef uint64_t at_client_call_id;

/* The one request that the others are made of. path: "/apis/atoll.dev/v1/sites?limit=500". body may
 * be NULL. */
at_client_call_id at_client_request(struct at_client *client, enum at_http_method method,
                                    const char *path, const char *content_type, const json_t *body,
                                    at_client_done_fn *done, void *ctx);
/* The same with an Accept header of its own (NULL: application/json), for Tables. */
at_client_call_id at_client_request_accept(struct at_client *client, enum at_http_method method,
                                           const char *path, const char *content_type,
                                           const char *accept, const json_t *body,
                                           at_client_done_fn *done, void *ctx);
void at_client_cancel(struct at_client *client, at_client_call_id id); /* done is not called */
/* A request that must be answered soon: after timeout_ns the next server is used. When the one that
 * was in use does not even say that it lives, what else waits for it is cut (AT_UNAVAILABLE). */
at_client_call_id at_client_request_within(struct at_client *client, int64_t timeout_ns,
                                           enum at_http_method method, const char *path,
                                           const json_t *body, at_client_done_fn *done, void *ctx);

/* The servers that the control plane names (an array of URLs): used beside the configured ones,
 * until another list is learned. Borrowed. */
void at_client_learn_servers(struct at_client *client, const json_t *urls);
/* fn when the list has changed; one at a time, NULL ends it. */
void at_client_on_servers(struct at_client *client, void (*fn)(void *ctx), void *ctx);
/* The i-th that was learned, NULL at the end. Borrowed until the list changes. */
const char *at_client_learned_server(const struct at_client *client, size_t i);
const char *at_client_server_in_use(const struct at_client *client); /* borrowed, as above */
size_t at_client_server_count(const struct at_client *client);       /* configured and learned */

/* Path of a kind's collection (name NULL) or object, subresource may be NULL; parts are
 * percent-encoded. out: at least 512 bytes; empty when it does not fit, which every call refuses.
 */
void at_client_path(const struct at_model_kind *kind, const char *ns, const char *name,
                    const char *subresource, char *out, size_t out_size);

/* Percent-encode everything but unreserved characters, for path parts and query values. err:
 * AT_TOO_LARGE. */
enum at_rc at_client_escape(const char *text, struct at_buf *out) AT_WARN_UNUSED;

at_client_call_id at_client_get(struct at_client *client, const struct at_model_kind *kind,
                                const char *ns, const char *name, at_client_done_fn *done,
                                void *ctx);
at_client_call_id at_client_create(struct at_client *client, const struct at_model_kind *kind,
                                   const char *ns, const json_t *object, at_client_done_fn *done,
                                   void *ctx);
/* RFC 7386 merge patch, of the object or of subresource "status". */
at_client_call_id at_client_patch(struct at_client *client, const struct at_model_kind *kind,
                                  const char *ns, const char *name, const char *subresource,
                                  const json_t *patch, at_client_done_fn *done, void *ctx);

/* Blocking calls, for the command line only (they turn the loop):
 *     struct at_client_result result = {0};
 *     at_client_get(client, kind, ns, name, at_client_result_done, &result);
 *     rc = at_client_wait(client, &result);
 * body is the result's: at_client_result_clear. */
struct at_client_result {
    bool done;
    enum at_rc rc;
    int status;
    json_t *body;
    struct at_err err;
};
void at_client_result_done(void *ctx, enum at_rc rc, int status, json_t *body,
                           const struct at_err *err);
enum at_rc at_client_wait(struct at_client *client, struct at_client_result *result) AT_WARN_UNUSED;
void at_client_result_clear(struct at_client_result *result);

/* Informer: list, then watch, for ever; reconnects with back-off, resumes by resourceVersion,
 * relists on 410. */
struct at_informer;
struct at_informer_events {
    void *ctx;
    /* put or deleted; object is borrowed. After a relist, objects that are gone are reported as
     * deleted. */
    void (*on_object)(void *ctx, json_t *object, bool deleted);
    void (*on_synced)(void *ctx); /* the first list is complete; once */
    void (*on_connection)(void *ctx, bool connected, const struct at_err *err); /* may be NULL */
    /* For many objects: they are not kept, only known by name. One that goes while nobody watched
     * is reported with its name and namespace alone. */
    bool names_only;
};
/* query: extra parameters such as "fieldSelector=spec.nodeName%3Dn1", may be NULL. ns NULL: all
 * namespaces. */
struct at_informer *at_informer_new(struct at_client *client, const struct at_model_kind *kind,
                                    const char *ns, const char *query,
                                    const struct at_informer_events *events);
void at_informer_free(struct at_informer *informer);

/* Raw streaming GET (logs): on_body pieces, then done. */
at_client_call_id at_client_stream(struct at_client *client, const char *path,
                                   void (*on_body)(void *ctx, const char *data, size_t len),
                                   at_client_done_fn *done, void *ctx);
/* The same, and a POST of plain text instead of JSON (log pieces; text is copied), at exactly this
 * server (NULL: the one in use). done with AT_UNAVAILABLE when it is not among those that are known
 * any more. */
at_client_call_id at_client_stream_from(struct at_client *client, const char *server,
                                        const char *path, void (*on_open)(void *ctx),
                                        void (*on_body)(void *ctx, const char *data, size_t len),
                                        at_client_done_fn *done, void *ctx);
at_client_call_id at_client_post_text_to(struct at_client *client, const char *server,
                                         const char *path, const char *text, size_t len,
                                         at_client_done_fn *done, void *ctx);

#endif
