/* What objects use of what quotas bound, and what a namespace holds. */
#include "core/mem.h"
#include "core/str.h"
#include "state/quota_priv.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *canonical;
} NAMES[] = {
    {"pods", "instances"},     {"count/pods", "count/instances.atoll.dev"},
    {"storage", "disk"},       {"ephemeral-storage", "disk"},
    {"nvidia.com/gpu", "gpu"}, {"amd.com/gpu", "gpu"},
};

void quota_canonical(const char *name, char out[QUOTA_NAME_BYTES_MAX])
{
    struct at_str text = at_str_of(name);
    if (at_str_starts(text, "requests.")) {
        text = at_str_of(name + strlen("requests."));
    } else if (at_str_starts(text, "limits.")) {
        text = at_str_of(name + strlen("limits."));
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(NAMES); i++) {
        if (at_str_eq(text, NAMES[i].name)) {
            text = at_str_of(NAMES[i].canonical);
            break;
        }
    }
    const struct at_model_kind *kind = at_model_kind_by_plural("", "v1", text.ptr);
    snprintf(out, QUOTA_NAME_BYTES_MAX, "%s%.*s", kind != NULL ? "count/" : "", (int)text.len,
             text.ptr);
}

enum at_rc quota_parse(const char *canonical, const char *text, int64_t *ret)
{
    const char *unit = at_streq(canonical, "gpuMemory") ? "memory" : canonical;
    return at_model_amount_parse(unit, text, ret, NULL);
}

char *quota_format(const char *canonical, int64_t amount, char *out)
{
    return at_model_amount_format(at_streq(canonical, "gpuMemory") ? "memory" : canonical, amount,
                                  out);
}

static int64_t extended(const struct at_resources *r, const char *name)
{
    const char *text = at_model_map_get(&r->extended, name);
    int64_t amount = 0;
    return text != NULL && at_model_amount_parse(name, text, &amount, NULL) == AT_OK ? amount : 0;
}

static int64_t of_resources(const struct at_resources *r, const char *canonical)
{
    static const struct {
        const char *name;
        size_t offset;
    } FIELDS[] = {
        {"cpu", offsetof(struct at_resources, cpu_milli)},
        {"memory", offsetof(struct at_resources, memory_bytes)},
        {"disk", offsetof(struct at_resources, disk_bytes)},
        {"gpu", offsetof(struct at_resources, gpu_milli)},
    };
    if (r == NULL) {
        return 0;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(FIELDS); i++) {
        if (at_streq(canonical, FIELDS[i].name)) {
            int64_t value;
            memcpy(&value, (const char *)r + FIELDS[i].offset, sizeof value);
            return value;
        }
    }
    if (at_streq(canonical, "gpuMemory")) { /* of each GPU that it is on */
        int64_t gpus = (r->gpu_milli + 999) / 1000;
        int64_t all;
        return __builtin_mul_overflow(r->gpu_memory_bytes, gpus, &all) ? INT64_MAX : all;
    }
    return extended(r, canonical);
}

int64_t quota_of_instance(const struct at_instance *i, const char *canonical)
{
    if (at_streq(canonical, "count/instances.atoll.dev")) {
        return 1;
    }
    if (at_streq(i->status.phase, "Succeeded") || at_streq(i->status.phase, "Failed")) {
        return 0;
    }
    return at_streq(canonical, "instances") ? 1 : of_resources(i->spec.resources, canonical);
}

/* --- of one object --- */

static bool is_best_effort(const struct at_instance *i)
{
    const struct at_resources *r = i->spec.resources;
    return r == NULL || (r->cpu_milli == 0 && r->memory_bytes == 0);
}

static void put(json_t *use, const char *name, int64_t amount)
{
    if (amount != 0) {
        json_object_set_new(use, name, json_integer(amount));
    }
}

static void instance_use(json_t *use, const json_t *object)
{
    static const char *const NAMED[] = {"instances", "cpu", "memory", "disk", "gpu", "gpuMemory"};
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_instance i = {0};
    if (at_model_decode(&AT_KIND_INSTANCE, object, arena, &i, NULL) != AT_OK) {
        return; /* it does not pass validation either */
    }
    put(use, QUOTA_IS_INSTANCE, 1);
    put(use, QUOTA_IS_BEST_EFFORT, is_best_effort(&i));
    for (size_t k = 0; k < AT_ARRAY_LEN(NAMED); k++) {
        put(use, NAMED[k], quota_of_instance(&i, NAMED[k]));
    }
    const struct at_resources *r = i.spec.resources;
    for (size_t k = 0; r != NULL && k < r->extended.n; k++) {
        const char *name = r->extended.items[k].key;
        put(use, name, quota_of_instance(&i, name));
    }
}

json_t *quota_use(const struct at_model_kind *kind, const json_t *object)
{
    char count[QUOTA_NAME_BYTES_MAX];
    json_t *use = json_object();
    snprintf(count, sizeof count, "count/%s%s%s", kind->plural, kind->group[0] != '\0' ? "." : "",
             kind->group);
    put(use, count, 1);
    if (kind == &AT_KIND_INSTANCE) {
        instance_use(use, object);
    }
    return use;
}

bool quota_in_scope(const struct at_resource_quota *quota, const json_t *use)
{
    bool best = json_object_get(use, QUOTA_IS_BEST_EFFORT) != NULL;
    for (size_t i = 0; i < quota->spec.scopes.n; i++) {
        if (json_object_get(use, QUOTA_IS_INSTANCE) == NULL ||
            best != at_streq(quota->spec.scopes.items[i], "BestEffort")) {
            return false;
        }
    }
    return true;
}

/* --- of a namespace --- */

static bool instance_in_scope(const struct at_resource_quota *quota, const struct at_instance *i)
{
    bool best = is_best_effort(i);
    for (size_t k = 0; k < quota->spec.scopes.n; k++) {
        if (best != at_streq(quota->spec.scopes.items[k], "BestEffort")) {
            return false;
        }
    }
    return true;
}

/* The first instance whose namespace is ns, or comes after it. */
static size_t instances_from(const struct at_snapshot *snap, const char *ns)
{
    size_t low = 0, high = snap->n_instances;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const char *at = snap->instances[mid]->meta.ns;
        if (strcmp(at != NULL ? at : "", ns) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static void on_count(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs, size_t n,
                     bool more, const struct at_err *err)
{
    (void)rev;
    (void)kvs;
    (void)more;
    (void)err;
    *(int64_t *)ctx = rc == AT_OK ? (int64_t)n : 0;
}

static int64_t count_of(struct at_state *state, const char *ns, const char *resource)
{
    const char *dot = strchr(resource, '.');
    AT_CLEANUP(at_cleanup_free)
    char *plural = at_strndup(resource, dot != NULL ? (size_t)(dot - resource) : strlen(resource));
    const struct at_model_kind *kind =
        at_model_kind_by_plural(dot != NULL ? dot + 1 : "", "v1", plural);
    if (kind == NULL || !kind->namespaced) {
        return 0; /* there are none of what is not known */
    }
    char from[AT_STORE_KEY_BYTES_MAX], to[AT_STORE_KEY_BYTES_MAX];
    int64_t n = 0;
    at_state_key(kind, ns, NULL, from, sizeof from);
    at_store_prefix_end(from, to, sizeof to);
    at_store_range(at_state_store(state), from, to, 0, 0, on_count, &n);
    return n;
}

int64_t quota_held(struct at_state *state, const struct at_snapshot *snap,
                   const struct at_resource_quota *quota, const char *canonical)
{
    const char *ns = quota->meta.ns;
    if (strncmp(canonical, "count/", 6) == 0 && quota->spec.scopes.n == 0) {
        return count_of(state, ns, canonical + 6);
    }
    int64_t sum = 0;
    for (size_t i = instances_from(snap, ns);
         i < snap->n_instances && at_streq(snap->instances[i]->meta.ns, ns); i++) {
        int64_t amount = instance_in_scope(quota, snap->instances[i])
                             ? quota_of_instance(snap->instances[i], canonical)
                             : 0;
        sum = __builtin_add_overflow(sum, amount, &sum) ? INT64_MAX : sum;
    }
    return sum;
}

json_t *at_quota_used(struct at_state *state, const struct at_resource_quota *quota)
{
    json_t *used = json_object();
    const struct at_snapshot *snap = at_state_snapshot(state);
    for (size_t i = 0; i < quota->spec.hard.n; i++) {
        char canonical[QUOTA_NAME_BYTES_MAX], text[AT_UNITS_TEXT_BYTES_MAX];
        quota_canonical(quota->spec.hard.items[i].key, canonical);
        int64_t held = quota_held(state, snap, quota, canonical);
        json_object_set_new(used, quota->spec.hard.items[i].key,
                            json_string(quota_format(canonical, held, text)));
    }
    at_snapshot_unref(snap);
    return used;
}
