/* A request under way, as those see it who help it on (waiting, hedging). */
#ifndef AT_GATEWAY_PROXY_PRIV_H
#define AT_GATEWAY_PROXY_PRIV_H

#include "gateway/gateway_priv.h"
#include "gateway/grpc.h"
#include "gateway/hedge.h"

/* A body that is passed on as it comes (upload.c). */
struct gw_upload {
    bool is;
    bool begun;          /* some of it was taken from the client: no other replica can have it */
    int problem;         /* status: the client did not send it as it should; 0: none */
    const char *message; /* while it is being told */
};

struct gw_request {
    struct gw_worker *worker;
    struct gw_request *next_free;
    struct at_http_exchange *ex; /* NULL: answered, or the client has gone */
    struct gw_model *model;
    uint64_t asked;             /* hash of the model's name as it was asked for; 0: as it is */
    struct at_str raw_model;    /* in the body of an OpenAI request, without its quotes */
    struct at_buf body;         /* the body with another name in it */
    char cookie[17];            /* of a session that begins; "": none */
    struct gw_wish wish;        /* which replicas may have it */
    struct gw_replica *replica; /* that has it now */
    struct gw_replica *tried[AT_GW_ATTEMPTS_MAX]; /* only compared, never followed */
    size_t n_tried;
    at_http_call_id call;
    enum at_http_method method;
    bool safe;      /* may be sent again although a replica may have got it */
    bool infer;     /* answers come whole: hold them back even without a length */
    bool discard;   /* this answer (502, 503) is not passed on; another replica is asked */
    bool streaming; /* the answer's head is on its way to the client */
    bool begun;     /* the answer's head has come */
    bool paused;
    bool unreached; /* its agent says that the replica has seen nothing of it */
    bool sse;       /* a stream of events: passed on event by event */
    bool has_length;
    int status;
    uint64_t length;
    int64_t start_ns;
    struct at_str request_id;
    char id_text[17];
    struct at_buf up, down, hold; /* lines to the replica; lines and body to the client */
    enum gw_grpc_kind grpc_kind;
    struct gw_grpc_call *grpc;  /* what the gRPC request became; NULL: none */
    size_t json_bytes;          /* of a binary answer, before the tensors */
    int64_t timeout_ns;         /* the client's own; 0: none */
    bool timing;                /* Server-Timing is wanted */
    bool openai;                /* errors are objects; only 503 is safe to ask another about */
    struct at_buf target, host; /* of a plain service; else empty */
    struct gw_observation obs;
    struct at_buf line; /* of the access log, as far as it is known; empty: not wanted */
    bool stream;        /* asked for: the first byte is timed */
    struct gw_meter meter;
    struct gw_parked *parked; /* NULL: it does not wait for money */
    struct gw_kept kept;
    struct gw_upload upload;
    struct gw_hedge hedge;
    struct gw_turn turn; /* in the model's queue */
};

struct gw_handlers {
    void (*on_head)(void *ctx, const struct at_http_head *head);
    void (*on_body)(void *ctx, const char *data, size_t len);
    void (*on_done)(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err);
};
/* proxy.c: what comes of the call that counts */
void gw_request_on_head(void *ctx, const struct at_http_head *head);
void gw_request_on_body(void *ctx, const char *data, size_t len);
void gw_request_on_done(void *ctx, enum at_rc rc, bool bytes_sent, const struct at_err *err);
/* send.c: replica has it from now on, until gw_request_unsend. */
at_http_call_id gw_request_send(struct gw_request *r, struct gw_replica *replica,
                                const struct gw_handlers *handlers);
void gw_request_fail_version(struct gw_request *r); /* pinned to one that there is not */
void gw_request_unsend(struct gw_request *r, struct gw_replica *replica, enum gw_outcome outcome);

/* upload.c: what the call says of the body that comes later. */
void gw_upload_call(struct gw_request *r, struct at_http_call *call);
/* The call is over: was that the client's doing? Then r is answered, and gone. */
bool gw_upload_failed(struct gw_request *r);

/* Of a plain service: the target and the Host that its replicas get. */
enum at_rc gw_request_aim(struct gw_request *r, const struct gw_rule *rule,
                          const struct gw_forwarded *forwarded) AT_WARN_UNUSED;

/* Whether a replica would take it now; and then it goes. */
bool gw_request_may_go(struct gw_request *r);
void gw_request_go(struct gw_request *r);
/* Answer it with an error that is the gateway's own. */
void gw_request_fail(struct gw_request *r, int status, const char *message);

/* proxy.c, for those that answer themselves: count it; free it; send it on its way. */
void gw_request_answered(struct gw_request *r, int status);
void gw_request_over(struct gw_request *r);
void gw_request_start(struct gw_request *r);
/* The client's body, or what was made of it for replicas. */
static inline struct at_str gw_request_body(const struct gw_request *r)
{
    return r->meter.body.len > 0 ? (struct at_str){r->meter.body.data, r->meter.body.len}
                                 : at_http_request_body(r->ex);
}

/* Its answer has tokens of its own. */
static inline bool gw_request_completes(const struct gw_request *r)
{
    return r->openai && !r->infer;
}

/* observe_text.c */
void gw_access_begin(const struct at_http_exchange *ex, struct at_buf *out);
void gw_access_end(struct gw_request *r, int status, const struct gw_replica *replica,
                   int64_t took_ns);

/* A request for a model. grpc: what a gRPC request became, taken; NULL: path says it all. */
void gw_request_begin(struct gw_worker *w, struct at_http_exchange *ex, const struct gw_path *path,
                      enum gw_grpc_kind grpc_kind, struct gw_grpc_call *grpc_take);
/* rename.c */
enum at_rc gw_rename(struct gw_request *r, const struct gw_replica *replica, struct at_str target,
                     const char **ret_target, struct at_str *body) AT_WARN_UNUSED;
/* shadow.c: send copies to the Deployments that want some; nobody waits for them. */
void gw_shadow(struct gw_request *r);

#endif
