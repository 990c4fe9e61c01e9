/* What the gateway answers and counts itself. */
#ifndef AT_GATEWAY_OWN_H
#define AT_GATEWAY_OWN_H

#include "core/buf.h"
#include "core/str.h"
#include "gateway/choose.h"
#include "loop/loop.h"

struct at_http_exchange;
struct at_http_head;
struct gw_metrics;
struct gw_path;

/* openai.c: paths below /v1/ */
struct gw_openai_error { /* all may be NULL */
    const char *param;   /* the member of the request that is wrong */
    const char *code;    /* NULL: by the status */
    const char *type;    /* the same */
    bool says_when;      /* headers tell when to come again */
    const char *headers; /* more lines */
    struct at_str request_id;
};
bool gw_openai_is(const struct at_http_head *head);
void gw_openai_answer_error(struct gw_worker *worker, struct at_http_exchange *ex, int status,
                            const struct gw_openai_error *error, const char *fmt, ...)
    AT_PRINTF(5, 6);
/* Which model the body asks for, into path; false: answered with what is wrong. */
bool gw_openai_route(struct gw_worker *worker, struct at_http_exchange *ex, struct gw_path *path);
void gw_openai_answer_models(struct gw_worker *worker, struct at_http_exchange *ex);
void gw_openai_answer_model(struct gw_worker *worker, struct at_http_exchange *ex,
                            const struct gw_path *path);
/* own.c: what the gateway answers itself */
void gw_answer_error(struct at_http_exchange *ex, int status, const char *headers, const char *fmt,
                     ...) AT_PRINTF(4, 5);
/* One message and status 0. headers: the replica's, of which what described its body goes. */
void gw_answer_grpc(struct at_http_exchange *ex, const char *headers, const struct at_buf *message);
void gw_answer_own(struct gw_worker *worker, struct at_http_exchange *ex,
                   const struct gw_path *path);
void gw_metrics_init(struct gw_metrics *metrics, enum at_loop_backend backend);
void gw_count(struct gw_worker *worker, const char *model, const char *site, int status);
void gw_count_choice(struct gw_worker *worker, const struct gw_model *model,
                     struct gw_replica *replica, enum gw_why why);
/* The prompt that was chosen for last has gone to this replica. */
void gw_learn_prefix(struct gw_worker *worker, struct gw_model *model, struct gw_replica *replica);

#endif
