/* What a gateway must know of a JSON request body: which model, and whether the answer is to be
 * streamed. One pass that checks all of the text and builds nothing. Pure. */
#ifndef AT_GATEWAY_JSON_SCAN_H
#define AT_GATEWAY_JSON_SCAN_H

#include "core/err.h"
#include "core/str.h"
#include "gateway/limits.h"

/* Values of members, as they are written; empty when absent. */
struct gw_scan_more {
    struct at_str max_tokens, max_completion_tokens, n, best_of, temperature, seed, stream_options;
};

struct gw_scan {
    char model[AT_GW_MODEL_BYTES_MAX];
    size_t model_len;
    bool stream;
    /* Slices of the text; empty when absent or of another type. Strings without their quotes and
     * with their escapes. */
    struct at_str raw_model;
    struct at_str user;    /* user or safety_identifier */
    struct at_str session; /* session_id or prompt_cache_key */
    struct at_str prompt;  /* the value of messages or prompt */
    struct at_str tools;   /* of tools, which stand before the messages in most templates */
    struct gw_scan_more more;
};

/* Read the members "model" (a string that must be there) and "stream" (true, false, null or absent)
 * of the object that text is. What another reader could take otherwise is refused: a member named
 * twice at the top, however its name is escaped. Numbers of any size, \u0000 and half surrogate
 * pairs below it are the replica's affair.
 * out:  *ret, only on AT_OK
 * err:  AT_BAD_REQUEST no JSON object, or past a limit: the message begins with line and column |
 *       AT_INVALID one of the two members, named as the field
 * own:  nothing retained.  cost: one pass, no allocation. */
enum at_rc gw_json_scan(struct at_str text, struct gw_scan *ret, struct at_err *err) AT_WARN_UNUSED;

#endif
