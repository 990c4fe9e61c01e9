/* Which replica a request goes to. Pure: no clock, no I/O; random numbers come from the caller. */
#ifndef AT_GATEWAY_CHOOSE_H
#define AT_GATEWAY_CHOOSE_H

#include "core/buf.h"
#include "core/str.h"
#include "gateway/route.h"
#include "net/http1.h"

struct gw_model;
struct gw_replica;
struct gw_worker;

/* Why this one: the label of a metric. */
enum gw_why {
    GW_WHY_ONLY,    /* there was no other */
    GW_WHY_LOAD,    /* least loaded of those looked at */
    GW_WHY_SESSION, /* its session has been there */
    GW_WHY_MOVED,   /* its session's replica has too much to do */
    GW_WHY_PREFIX,  /* it has most of the prompt in its cache */
    GW_WHY_FAR,     /* nearer ones have too much to do */
    GW_WHY_LAST,    /* all others cannot be reached either */
    GW_WHY_COUNT,
};

/* What a request asks of the choice; slices point into its head and body. */
struct gw_wish {
    uint64_t draw;               /* decides between shares: random, or made of who asks */
    uint64_t pin;                /* hash of the one version that it may go to; 0: any */
    uint64_t session;            /* hash of its session; 0: none */
    struct at_str version;       /* what pin was made of */
    struct at_str data_class;    /* of its data; empty: none said */
    struct at_str jurisdictions; /* "EU, CH": where its data may be; empty: anywhere */
    struct at_str prompt;        /* JSON text of an LLM's prompt; empty: none */
    uint64_t prompt_seed;        /* of what stands before the prompt: tools */
    bool named;                  /* the draw was made of who asks, or of the session */
    unsigned cost_milli;         /* how much work it is, in thousandths of an ordinary request */
};

/* What the choice came to when there is no replica. */
enum gw_choice {
    GW_CHOICE_MADE,
    GW_CHOICE_NONE,    /* nobody who may take it is ready */
    GW_CHOICE_BUSY,    /* those who may take it have as many requests as they take */
    GW_CHOICE_VERSION, /* the model has no such version as it is pinned to */
    GW_CHOICE_PLACE,   /* none is where its data may be */
};

/* Hash of a text; never 0. */
uint64_t gw_hash(struct at_str text);
uint64_t gw_hash_mix(uint64_t a, uint64_t b);

/* What the lines of a request say of all this. random: for a draw when nobody says who asks. */
void gw_wish_read(const struct at_http_head *head, const struct gw_model *model, uint64_t random,
                  struct gw_wish *ret);
/* What the path and the body of an OpenAI request say besides, and how much work it is. */
struct gw_path;
void gw_wish_add(struct gw_wish *wish, const struct gw_model *model, const struct gw_path *path,
                 size_t body_bytes);
/* A session begins, where the model's are known by a cookie; "": none does. */
void gw_wish_cookie(struct gw_wish *wish, const struct gw_model *model, char cookie[17],
                    uint64_t random);
/* Let its slices point to copies, for when the head will be gone. */
enum at_rc gw_wish_keep(struct gw_wish *wish, struct at_buf *words) AT_WARN_UNUSED;
bool gw_model_has_version(const struct gw_model *model, struct at_str version);
/* The version named by a path or a gRPC message: obeyed if the model has it, else the replica says
 * what it thinks of it. */
void gw_wish_pin(struct gw_wish *wish, const struct gw_model *model, struct at_str version);

/* A replica that is not among tried.
 * out: *ret_replica and *ret_why, only with GW_CHOICE_MADE. cost: no allocation; a pass over the
 * replicas only where there are few, or where pins, places or sessions ask for it. */
enum gw_choice gw_choose(struct gw_worker *worker, struct gw_model *model,
                         const struct gw_wish *wish, struct gw_replica *const *tried,
                         size_t n_tried, int64_t now_ns, struct gw_replica **ret_replica,
                         enum gw_why *ret_why);
/* The same, and one of the places of a replica that has a limit is taken, which gw_replica_leave
 * gives back. */
enum gw_choice gw_choose_take(struct gw_worker *worker, struct gw_model *model,
                              const struct gw_wish *wish, struct gw_replica *const *tried,
                              size_t n_tried, int64_t now_ns, struct gw_replica **ret_replica,
                              enum gw_why *ret_why);
/* The same of a replica that was chosen otherwise; false: it is full. */
bool gw_replica_take_place(struct gw_replica *replica);
void gw_replica_give_place(struct gw_replica *replica);
/* Is there a replica that may take it, beside those tried? Says nothing about now: it may be full.
 */
bool gw_choose_has_more(const struct gw_worker *worker, const struct gw_model *model,
                        const struct gw_wish *wish, struct gw_replica *const *tried,
                        size_t n_tried);

#endif
