/* Inside of the API server, for this folder and its tests.
 *
 * A request lives in a struct api_req from at_api_handle until one of the api_respond_* functions,
 * which answer and free it. Store calls may be asynchronous; when the client goes away meanwhile,
 * ex becomes NULL, the work is finished and the answer dropped. Streams (watch, log, tunnel) take
 * the exchange over and free the request. */
#ifndef AT_API_PRIV_H
#define AT_API_PRIV_H

#include "api/api.h"
#include "api/limits.h"
#include "api/line.h"
#include "api/route.h"
#include "core/map.h"
#include "core/metrics.h"
#include "security/book.h"
#include "state/object.h"

struct api_fair;
struct api_fair_user;
struct api_stream;
struct api_tunnels;
struct api_link;
struct api_backup;
struct api_held;
struct api_oidc;
struct api_guesses;
struct api_reseal;
struct api_entry;

struct api_doc { /* a text made once at start */
    char *key;   /* path, or group/version */
    char *text;
    size_t len;
    char hash[17];
};

struct api_decoded { /* of view.c */
    int64_t rev;
    bool pod;
    json_t *object; /* NULL: none */
};

struct at_api {
    char *advertise_url; /* NULL: the others are not told of this server */
    at_timer_id servers_timer;
    json_t *servers_told; /* to on_servers */
    struct at_api_options options;
    const struct at_sys *sys;
    struct api_doc *discovery; /* by path; aggregated ones by "aggregated:/apis" */
    size_t n_discovery;
    struct api_doc *openapi; /* by "apis/atoll.dev/v1"; the first is the index, key "" */
    size_t n_openapi;
    struct api_doc openapi_v2[2]; /* JSON and protobuf, made when they are first asked for */
    struct api_stream *streams;   /* list of all open watches */
    size_t n_streams;
    struct at_map *watchers;     /* how many of them each user has: (void *)(uintptr_t)n */
    size_t streams_queue_bytes;  /* as last seen, each at its last write */
    int64_t streams_measured_ns; /* when all were looked at */
    struct api_tunnels *tunnels;
    struct api_link *links; /* list of all upgraded connections */
    struct api_fair *fair;
    struct api_held *held; /* answers that wait for their record, by ticket */
    struct api_held *held_last;
    uint64_t audit_settled; /* tickets up to it are safe */
    struct api_oidc *oidc;  /* NULL: no provider */
    struct api_guesses *guesses;
    struct at_metric *guesses_total;
    struct at_book *book;    /* rights that are stored */
    struct api_entry *entry; /* who may come in */
    const char *trust_pem, *pin;
    at_timer_id recheck_timer, recheck_again_timer;
    struct api_reseal *reseal; /* under way; NULL */
    struct at_buf audit_text;  /* kept between records */
    uint64_t next_id;          /* of requests */
    char id_prefix[17];
    struct at_service_key *service_key; /* NULL: no CA */
    struct api_decoded decoded[AT_API_DECODED_MAX];
    struct api_line lines[AT_API_LINES_MAX];
    uint64_t failed_batches;   /* of the store, at the last good check of readiness */
    struct api_backup *backup; /* the one being made; NULL */
    struct at_metric_family *requests_total, *request_seconds;
    struct api_store_metrics *store_metrics; /* NULL without metrics */
    struct at_metric *streams_now, *streams_cut_total, *streams_refused_total, *sessions_now,
        *tunnels_now, *watch_events_total, *streams_queue_bytes_now;
};

enum api_table { API_TABLE_NONE, API_TABLE_OBJECT_NONE, API_TABLE_METADATA, API_TABLE_FULL };

struct api_req;
typedef void api_handler_fn(struct api_req *req);

struct api_req {
    struct at_api *api;
    struct at_http_exchange *ex; /* NULL: the client is gone */
    struct at_arena *arena;
    struct at_identity who;
    const char *real_user; /* who acts as who; NULL: nobody does */
    json_t *as;            /* uid and extra of who, as the other says; NULL: none */
    enum at_http_method method;
    struct api_route route;
    struct at_str query; /* on arena */
    const char *verb;
    api_handler_fn *handler;
    bool by_certificate;
    const char *auth_how; /* "certificate", "token", ...; NULL: not at all */
    const char *from;     /* the client's address, on arena */
    const char *user_agent;
    const char *refusal; /* why it may not, on arena; NULL */
    char id[40];
    bool audited;
    uint64_t audit_ticket;          /* of a record that was made ahead of the outcome; 0: none */
    int audit_status;               /* what it says */
    bool waited_for_keys;           /* of an OpenID provider */
    int64_t expires_ns;             /* wall clock: of what it came in by; 0: never */
    const char *token_id;           /* of an access token, on arena; NULL */
    json_t *claims;                 /* of a service account's token; NULL */
    const struct at_identity *real; /* who acts as who, on arena; NULL: nobody does */
    enum api_table table;
    bool partial; /* metadata alone */
    bool dry_run;
    enum at_model_unknown unknown;
    struct at_str content_type; /* without parameters, on arena */
    json_t *body;               /* decoded by api_body_read; NULL: none */
    json_t *old, *object;       /* of a write: what is stored, what shall be */
    json_t *managed;            /* metadata.managedFields: of an apply to be, else as sent */
    const char *manager;        /* who owns what is written; NULL: nobody */
    bool applies, managed_reset;
    struct at_buf text; /* of a write: object in stored form */
    const char *warnings[AT_API_WARNINGS_MAX];
    size_t n_warnings;
    int64_t begin_ns;
    void *op;                   /* of the handler, on arena */
    struct api_fair_user *user; /* whose share it counts for; NULL: nobody's, any more */
    struct api_req *next;       /* waiting behind it */
};

/* --- status.c: answers --- */
void api_respond_text(struct api_req *req, int status, const char *content_type,
                      const char *headers, const void *text, size_t len);
void api_respond_json(struct api_req *req, int status, json_t *value_take);
/* Stored bytes with the version put in, or the Table of them when one was asked for. */
void api_respond_object(struct api_req *req, int status, const char *value, size_t len,
                        int64_t rev);
/* The object as it is (it holds its own resourceVersion, or none on a dry run). */
void api_respond_object_json(struct api_req *req, int status, json_t *object_take);
void api_respond_error(struct api_req *req, enum at_rc rc, const char *fmt, ...) AT_PRINTF(3, 4);
void api_respond_err(struct api_req *req, const struct at_err *err);
/* Errors about the object that the route names. */
void api_respond_not_found(struct api_req *req);
void api_respond_exists(struct api_req *req, const char *name);
void api_respond_conflict(struct api_req *req, const char *why);
void api_respond_forbidden(struct api_req *req, const char *reason);
void api_respond_invalid(struct api_req *req, const char *name, const struct at_model_cause *causes,
                         size_t n);
/* A Status object. details_take may be NULL. */
json_t *api_status(bool success, const char *reason, int code, const char *message,
                   json_t *details_take);
json_t *api_status_of(enum at_rc rc, const char *message);
json_t *api_details(const struct api_req *req, const char *name);
/* "sites.atoll.dev", "namespaces". */
const char *api_qualified_resource(struct api_req *req);
void api_warn(struct api_req *req, const char *fmt, ...) AT_PRINTF(2, 3);
void api_req_free(struct api_req *req); /* without an answer: streams */
void api_req_measure(struct api_req *req, int status);
/* Who sends the request, whomever it acts as. */
const char *api_asker(const struct api_req *req);

/* --- fair.c --- */
struct api_fair *api_fair_new(const struct at_api_options *options);
void api_fair_free(struct api_fair *fair); /* what waits is answered 503 */
void api_fair_take(struct api_req *req);   /* serve it now, later, or refuse it */
void api_fair_leave(struct api_req *req);  /* answered, or a stream from now on */
void api_serve(struct api_req *req);       /* api.c */

/* --- query parameters; text on req->arena --- */
/* NULL when absent. A bad escape counts as absent. */
const char *api_query(struct api_req *req, const char *key);
bool api_query_bool(struct api_req *req, const char *key);
enum at_rc api_query_int(struct api_req *req, const char *key, int64_t otherwise, int64_t *ret,
                         struct at_err *err) AT_WARN_UNUSED;

/* --- authn.c --- */
enum at_rc api_authenticate(struct api_req *req, struct at_err *err) AT_WARN_UNUSED;
/* Make req->who the one whom the client asks to act as. False: answered. */
bool api_impersonate(struct api_req *req); /* impersonate.c */
/* May the one who asks still act as the other? True when he acts as himself. */
bool api_still_acts(const struct api_req *req);
/* Whose token is it, of those that are none of a service account? False: nobody's. */
bool api_token_identity(const struct at_api *api, struct at_str token, struct at_identity *ret);
/* False: answered with 403. */
bool api_authorize(struct api_req *req);
/* Node to which the thing belongs, for an agent's rights; NULL: unknown. own: on arena. */
const char *api_node_of(struct api_req *req, const struct api_route *route, bool use_selector);
/* Rights to Pods are those to Instances. */
void api_access_map(struct at_access *what);
bool api_is_agent(const struct api_req *req, const char **ret_node);
/* Have both objects the same under key, or neither anything? */
bool api_same_member(const json_t *a, const json_t *b, const char *key);
/* What agents may not change of their own objects. object is the new version, old may be NULL. */
enum at_rc api_agent_admits(struct api_req *req, const json_t *old, const json_t *object,
                            struct at_err *err) AT_WARN_UNUSED;

/* --- body.c: request bodies to JSON by content type --- */
enum at_rc api_body_read(struct api_req *req, struct at_err *err) AT_WARN_UNUSED;
/* Paths of fields that the text of valid JSON names twice. own: caller decrefs. */
json_t *api_duplicates(const char *text, size_t len);
enum at_rc api_protobuf_decode(const void *data, size_t len, json_t **ret,
                               struct at_err *err) AT_WARN_UNUSED;

#include "api/view_priv.h"
/* --- read.c, watch.c --- */
api_handler_fn api_get, api_list, api_watch;
/* Range of keys that a request for a collection reads; to[0] == '\0': from is a single key. */
struct api_span {
    char from[AT_STORE_KEY_BYTES_MAX];
    char to[AT_STORE_KEY_BYTES_MAX];
    bool single;
};
void api_span_of(const struct api_req *req, const struct api_filter *filter, struct api_span *ret);
struct api_continue {
    int64_t rev;
    int64_t left; /* objects that follow; 0: not known */
    char start[AT_STORE_KEY_BYTES_MAX];
};
enum at_rc api_continue_decode(const char *text, struct api_continue *ret,
                               struct at_err *err) AT_WARN_UNUSED;
char *api_continue_encode(struct at_arena *arena, const struct api_continue *token);
void api_streams_close(struct at_api *api);

/* --- admit.c: what a client may send --- */
/* apiVersion, kind, metadata of object against the route; fills in what is absent. */
enum at_rc api_admit_shape(struct api_req *req, json_t *object, struct at_err *err) AT_WARN_UNUSED;
/* Defaults, validation, unknown fields, agents' limits. False: answered. */
bool api_admit(struct api_req *req, json_t *object, const json_t *old);

#include "api/tenancy_priv.h"
/* --- apply.c --- */
/* req->manager from the query or the client's name. False: answered. */
bool api_manager_read(struct api_req *req, bool needed);
/* Before server-owned fields are put right: what the client says of owners. */
void api_owners_sent(struct api_req *req);
/* Put managedFields into req->object, which is as it will be stored but for them; changed: it
 * differs from req->old. True when they differ from the old ones. */
bool api_owners_stamp(struct api_req *req, bool changed);
/* req->object and req->managed from what is applied (req->body) and req->old, which may be NULL.
 * False: answered with the conflicts. */
bool api_apply_make(struct api_req *req);

/* --- write.c --- */
api_handler_fn api_create, api_update, api_patch, api_delete, api_delete_collection;
/* --- sweep.c --- */
struct api_delete_options {
    const char *uid;       /* precondition; NULL: none */
    int64_t rv;            /* precondition; 0: none */
    const char *finalizer; /* what waits for owned objects; NULL: nothing */
};
/* From the body and the query; sets req->dry_run too. */
enum at_rc api_delete_options_read(struct api_req *req, struct api_delete_options *ret,
                                   struct at_err *err) AT_WARN_UNUSED;
/* --- subresource.c --- */
api_handler_fn api_scale_get;
json_t *api_scale_of(const struct at_model_kind *kind, const json_t *object);
enum at_rc api_scale_apply(const struct at_model_kind *kind, const json_t *scale, json_t *object,
                           struct at_err *err) AT_WARN_UNUSED;
api_handler_fn api_heartbeat;
/* --- tunnel.c --- */
api_handler_fn api_tunnel_open, api_tunnel_answer, api_instance_log;
api_handler_fn api_instance_exec;         /* exec.c */
api_handler_fn api_instance_forward;      /* forward.c */
api_handler_fn api_instance_attach;       /* exec.c */
void api_links_close(struct at_api *api); /* link.c */
struct api_tunnels *api_tunnels_new(void);
void api_tunnels_free(struct api_tunnels *tunnels);
/* --- backup.c --- */
api_handler_fn api_backup;
void api_backup_cut(struct at_api *api);
#include "api/access_priv.h"

/* --- metrics.c --- */
struct api_store_metrics *api_store_metrics_new(struct at_metrics *metrics); /* own: at_free */
/* --- join.c, review.c, discovery.c, openapi.c --- */
api_handler_fn api_join, api_join_tokens, api_join_renew, api_join_servers;
void api_join_node_made(struct at_api *api, const char *name);
/* servers.c */
void api_servers_done(struct at_api *api);
json_t *api_servers_json(struct at_api *api); /* URLs of all; own: caller */
api_handler_fn api_review;
api_handler_fn api_discovery, api_openapi, api_version, api_health, api_metrics_show;
void api_discovery_build(struct at_api *api);
void api_openapi_build(struct at_api *api);
void api_docs_free(struct api_doc *docs, size_t n);

#endif
