/* How a model server puts requests together: the settings, from JSON (a Deployment's batching
 * section, or a file beside the model). Pure. */
#ifndef AT_RUNNERS_BATCHING_H
#define AT_RUNNERS_BATCHING_H

#include "core/json.h"
#include "runners/limits.h"

enum at_batching_timeout { AT_BATCHING_REJECT, AT_BATCHING_DELAY };

/* Bounds of what waits, of all or of one priority level. */
struct at_batching_bounds {
    size_t queue_max;   /* requests */
    int64_t timeout_ns; /* 0: for ever */
    enum at_batching_timeout action;
    bool allow_override; /* a request may shorten its timeout */
};

struct at_batching_options {
    size_t batch_max; /* rows in one run; 1: no batching */
    int64_t delay_ns;
    size_t preferred[AT_BATCH_PREFERRED_MAX]; /* rising */
    size_t n_preferred;
    size_t instances;
    size_t compute_threads;
    size_t levels;        /* 0: requests name no priority; served as one level */
    size_t default_level; /* 1 to levels */
    struct at_batching_bounds bounds[AT_BATCH_LEVELS_MAX]; /* of level 1 first */
    bool warm_up;
    /* of language models; 0: the runner decides */
    size_t sequences_max;
    size_t step_tokens_max;
    size_t context_tokens;
};

void at_batching_init(struct at_batching_options *ret);
/* What value, an object as in schema/common.json's Batching, says instead of what options has.
 * err: AT_BAD_REQUEST names the member; options is then half changed. */
enum at_rc at_batching_apply(struct at_batching_options *options, const json_t *value,
                             struct at_err *err) AT_WARN_UNUSED;
/* The same from YAML (or JSON) text of one document. */
enum at_rc at_batching_apply_text(struct at_batching_options *options, const char *text, size_t len,
                                  struct at_err *err) AT_WARN_UNUSED;
/* What holds across members. err: AT_BAD_REQUEST. */
enum at_rc at_batching_check(struct at_batching_options *options,
                             struct at_err *err) AT_WARN_UNUSED;

#endif
