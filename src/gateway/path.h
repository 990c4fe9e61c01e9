/* What a request path asks of the gateway. Pure. */
#ifndef AT_GATEWAY_PATH_H
#define AT_GATEWAY_PATH_H

#include "core/str.h"
#include "gateway/json_scan.h"

enum gw_path_kind {
    GW_PATH_NONE, /* 404 */
    GW_PATH_HEALTHZ,
    GW_PATH_METRICS,
    GW_PATH_SERVER,     /* /v2 */
    GW_PATH_LIVE,       /* /v2/health/live */
    GW_PATH_READY,      /* /v2/health/ready */
    GW_PATH_MODEL_LIST, /* /v1/models */
    GW_PATH_INDEX,      /* /v2/repository/index, as Triton has it */
    GW_PATH_PLAYGROUND, /* /playground and what is below it: pages, for everybody */
    GW_PATH_MODEL,      /* /v2/models/M and everything below */
    GW_PATH_MODEL_CARD, /* /v1/models/M; M may have slashes */
    GW_PATH_OPENAI,     /* /v1/chat/completions and its kin: the body names the model */
};

struct gw_model;
struct gw_rule;

struct gw_path {
    enum gw_path_kind kind;
    bool infer;  /* .../infer, embeddings: safe to repeat, whatever the method says */
    bool stream; /* the body of a GW_PATH_OPENAI asks for a stream; not known from the path */
    char model[AT_GW_MODEL_BYTES_MAX];
    size_t model_len;
    struct gw_model *found; /* that is called so, when it was looked up already and may be asked */
    const struct gw_rule *rule; /* of a plain service: not from the path alone */
    struct at_str raw_model; /* the name as the path spells it; slices of the path; may be empty */
    struct at_str version;   /* /versions/V */
    struct at_str user, session, prompt, tools; /* of the body of a GW_PATH_OPENAI */
    struct gw_scan_more more;                   /* the same */
};

/* path: as at_http_head has it, percent-encoded. Segments that are empty, "." or ".." (encoded or
 * not) make it GW_PATH_NONE: two readers could take them differently. */
void gw_path_parse(struct at_str path, struct gw_path *ret);

#endif
