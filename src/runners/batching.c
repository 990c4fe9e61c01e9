#include "runners/batching.h"

#include "core/mem.h"
#include "core/units.h"
#include "core/yaml.h"

#include <assert.h>
#include <string.h>

void at_batching_init(struct at_batching_options *ret)
{
    *ret = (struct at_batching_options){
        .batch_max = AT_BATCH_ROWS_DEFAULT,
        .instances = 1,
        .compute_threads = 1,
        .warm_up = true,
    };
    for (size_t i = 0; i < AT_BATCH_LEVELS_MAX; i++) {
        ret->bounds[i].queue_max = AT_RUNNER_QUEUE_MAX;
    }
}

static enum at_rc take_count(const char *key, const json_t *value, size_t least, size_t most,
                             size_t *ret, struct at_err *err)
{
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || (size_t)number < least || (size_t)number > most) {
        return at_err_set_field(err, AT_BAD_REQUEST, key, "%s must be a number of %zu to %zu", key,
                                least, most);
    }
    *ret = (size_t)number;
    return AT_OK;
}

static enum at_rc take_duration(const char *key, const json_t *value, int64_t *ret,
                                struct at_err *err)
{
    if (json_is_integer(value) && json_integer_value(value) == 0) {
        *ret = 0;
        return AT_OK;
    }
    const char *text = json_string_value(value);
    if (text == NULL || at_duration_ns(text, ret, NULL) != AT_OK || *ret > AT_RUNNER_WAIT_NS_MAX) {
        return at_err_set_field(err, AT_BAD_REQUEST, key,
                                "%s must be a duration such as \"2ms\", at most an hour", key);
    }
    return AT_OK;
}

static enum at_rc take_bool(const char *key, const json_t *value, bool *ret, struct at_err *err)
{
    if (!json_is_boolean(value)) {
        return at_err_set_field(err, AT_BAD_REQUEST, key, "%s must be true or false", key);
    }
    *ret = json_is_true(value);
    return AT_OK;
}

static enum at_rc take_bound(const char *key, const json_t *value,
                             struct at_batching_bounds *bounds, struct at_err *err)
{
    if (strcmp(key, "maxSize") == 0) {
        size_t size = 0;
        enum at_rc rc = take_count(key, value, 0, AT_RUNNER_QUEUE_LIMIT, &size, err);
        bounds->queue_max = size != 0 ? size : bounds->queue_max;
        return rc;
    }
    if (strcmp(key, "timeout") == 0) {
        return take_duration(key, value, &bounds->timeout_ns, err);
    }
    if (strcmp(key, "allowTimeoutOverride") == 0) {
        return take_bool(key, value, &bounds->allow_override, err);
    }
    if (strcmp(key, "timeoutAction") == 0) {
        const char *action = json_string_value(value);
        bool delay = action != NULL && strcmp(action, "Delay") == 0;
        if (action == NULL || (!delay && action[0] != '\0' && strcmp(action, "Reject") != 0)) {
            return at_err_set_field(err, AT_BAD_REQUEST, key, "%s must be Reject or Delay", key);
        }
        bounds->action = delay ? AT_BATCHING_DELAY : AT_BATCHING_REJECT;
        return AT_OK;
    }
    return at_err_set_field(err, AT_BAD_REQUEST, key, "there is no member %s", key);
}

static enum at_rc take_bounds(const json_t *object, struct at_batching_bounds *bounds,
                              struct at_err *err)
{
    const char *key;
    json_t *value;
    enum at_rc rc = AT_OK;
    json_object_foreach((json_t *)object, key, value)
    {
        if (rc == AT_OK && strcmp(key, "level") != 0) {
            rc = take_bound(key, value, bounds, err);
        }
    }
    return rc;
}

static enum at_rc take_queue(struct at_batching_options *options, const json_t *value,
                             struct at_err *err)
{
    if (!json_is_object(value)) {
        return at_err_set_field(err, AT_BAD_REQUEST, "queue", "queue must be an object");
    }
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_BATCH_LEVELS_MAX && rc == AT_OK; i++) {
        rc = take_bounds(value, &options->bounds[i], err);
    }
    return rc;
}

static enum at_rc take_levels(struct at_batching_options *options, const json_t *value,
                              struct at_err *err)
{
    if (!json_is_array(value)) {
        return at_err_set_field(err, AT_BAD_REQUEST, "levels", "levels must be a list");
    }
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < json_array_size(value) && rc == AT_OK; i++) {
        const json_t *item = json_array_get(value, i);
        size_t level = 0;
        rc = take_count("level", json_object_get(item, "level"), 1, AT_BATCH_LEVELS_MAX, &level,
                        err);
        rc = rc != AT_OK ? rc : take_bounds(item, &options->bounds[level - 1], err);
    }
    return rc;
}

static enum at_rc take_preferred(struct at_batching_options *options, const json_t *value,
                                 struct at_err *err)
{
    if (!json_is_array(value) || json_array_size(value) > AT_BATCH_PREFERRED_MAX) {
        return at_err_set_field(err, AT_BAD_REQUEST, "preferredBatchSizes",
                                "preferredBatchSizes must be a list of at most %d numbers",
                                AT_BATCH_PREFERRED_MAX);
    }
    options->n_preferred = 0;
    size_t last = 0;
    for (size_t i = 0; i < json_array_size(value); i++) {
        enum at_rc rc = take_count("preferredBatchSizes", json_array_get(value, i), last + 1,
                                   AT_BATCH_ROWS_MAX, &last, err);
        if (rc != AT_OK) {
            return rc;
        }
        options->preferred[options->n_preferred++] = last;
    }
    return AT_OK;
}

static enum at_rc take_member(struct at_batching_options *o, const char *key, const json_t *value,
                              struct at_err *err)
{
    const struct {
        const char *key;
        size_t least, most;
        size_t *place;
    } counts[] = {
        {"maxBatchSize", 1, AT_BATCH_ROWS_MAX, &o->batch_max},
        {"instances", 0, AT_RUNNER_THREADS_MAX, &o->instances},
        {"computeThreads", 1, AT_RUNNER_THREADS_MAX, &o->compute_threads},
        {"priorityLevels", 0, AT_BATCH_LEVELS_MAX, &o->levels},
        {"defaultPriority", 0, AT_BATCH_LEVELS_MAX, &o->default_level},
        {"maxSequences", 1, AT_LLM_SEQUENCES_MAX, &o->sequences_max},
        {"maxBatchTokens", 1, AT_LLM_STEP_TOKENS_MAX, &o->step_tokens_max},
        {"contextTokens", 0, AT_LLM_CONTEXT_TOKENS_MAX, &o->context_tokens},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(counts); i++) {
        if (strcmp(key, counts[i].key) == 0) {
            return take_count(key, value, counts[i].least, counts[i].most, counts[i].place, err);
        }
    }
    if (strcmp(key, "maxQueueDelay") == 0) {
        return take_duration(key, value, &o->delay_ns, err);
    }
    if (strcmp(key, "preferredBatchSizes") == 0) {
        return take_preferred(o, value, err);
    }
    if (strcmp(key, "queue") == 0) {
        return take_queue(o, value, err);
    }
    if (strcmp(key, "levels") == 0) {
        return take_levels(o, value, err);
    }
    if (strcmp(key, "warmUp") == 0) {
        return take_bool(key, value, &o->warm_up, err);
    }
    return at_err_set_field(err, AT_BAD_REQUEST, key, "there is no member %s", key);
}

enum at_rc at_batching_apply(struct at_batching_options *options, const json_t *value,
                             struct at_err *err)
{
    if (!json_is_object(value)) {
        return at_err_set(err, AT_BAD_REQUEST, "batching must be an object");
    }
    const char *key;
    json_t *member;
    enum at_rc rc = AT_OK;
    json_t *levels = json_object_get(value, "levels"); /* go over what queue says for all */
    json_object_foreach((json_t *)value, key, member)
    {
        if (rc == AT_OK && member != levels) {
            rc = take_member(options, key, member, err);
        }
    }
    return rc != AT_OK || levels == NULL ? rc : take_levels(options, levels, err);
}

enum at_rc at_batching_apply_text(struct at_batching_options *options, const char *text, size_t len,
                                  struct at_err *err)
{
    struct at_yaml_doc *docs = NULL;
    size_t n = 0;
    enum at_rc rc = at_yaml_parse(text, len, &docs, &n, err);
    if (rc == AT_OK && n != 1) {
        rc = at_err_set(err, AT_BAD_REQUEST, "one document is needed, there are %zu", n);
    }
    if (rc == AT_OK) {
        const json_t *inner = json_object_get(docs[0].value, "batching");
        rc = at_batching_apply(options, inner != NULL ? inner : docs[0].value, err);
    }
    at_yaml_docs_free(docs, n);
    return rc;
}

enum at_rc at_batching_check(struct at_batching_options *options, struct at_err *err)
{
    struct at_batching_options *o = options;
    if (o->n_preferred != 0 && o->preferred[o->n_preferred - 1] > o->batch_max) {
        return at_err_set_field(err, AT_BAD_REQUEST, "preferredBatchSizes",
                                "preferredBatchSizes: %zu is over maxBatchSize %zu",
                                o->preferred[o->n_preferred - 1], o->batch_max);
    }
    if (o->default_level > o->levels) {
        return at_err_set_field(err, AT_BAD_REQUEST, "defaultPriority",
                                "defaultPriority %zu: there are %zu priorityLevels",
                                o->default_level, o->levels);
    }
    if (o->default_level == 0) {
        o->default_level = o->levels != 0 ? (o->levels + 1) / 2 : 1;
    }
    return AT_OK;
}
