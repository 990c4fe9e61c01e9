/* LimitRange: defaults and bounds of each single instance. */
#include "core/mem.h"
#include "core/str.h"
#include "state/quota_priv.h"

#include <string.h>

static const char *const FIELDS[] = {"cpu", "memory", "disk", "gpu", "gpuMemory"};

/* What a range calls ephemeral-storage is disk here. */
static bool is_field(const char *name, char canonical[QUOTA_NAME_BYTES_MAX])
{
    quota_canonical(name, canonical);
    for (size_t i = 0; i < AT_ARRAY_LEN(FIELDS); i++) {
        if (at_streq(canonical, FIELDS[i])) {
            return true;
        }
    }
    return false;
}

static void fill(json_t *instance, const struct at_model_map *defaults)
{
    for (size_t i = 0; i < defaults->n; i++) {
        char canonical[QUOTA_NAME_BYTES_MAX];
        json_t *resources = at_json_at(instance, "spec.resources");
        if (is_field(defaults->items[i].key, canonical) &&
            json_object_get(resources, canonical) == NULL) {
            json_t *spec = json_object_get(instance, "spec");
            if (resources == NULL && json_is_object(spec)) {
                resources = json_object();
                json_object_set_new(spec, "resources", resources);
            }
            if (json_is_object(resources)) {
                json_object_set_new(resources, canonical, json_string(defaults->items[i].value));
            }
        }
    }
}

void at_limit_range_default(struct at_state *state, const char *ns, json_t *instance)
{
    const struct at_snapshot *snap = at_state_snapshot(state);
    for (size_t i = 0; i < snap->n_limit_ranges; i++) {
        const struct at_limit_range *range = snap->limit_ranges[i];
        for (size_t k = 0; at_streq(range->meta.ns, ns) && k < range->spec.limits.n; k++) {
            fill(instance, &range->spec.limits.items[k].default_);
            fill(instance, &range->spec.limits.items[k].default_request);
        }
    }
    at_snapshot_unref(snap);
}

static enum at_rc bound_check(const struct at_limit_range_item *item,
                              const struct at_instance *instance, bool max, struct at_err *err)
{
    const struct at_model_map *bounds = max ? &item->max : &item->min;
    for (size_t i = 0; i < bounds->n; i++) {
        char canonical[QUOTA_NAME_BYTES_MAX], field[QUOTA_NAME_BYTES_MAX + 24];
        int64_t bound;
        if (!is_field(bounds->items[i].key, canonical) ||
            quota_parse(canonical, bounds->items[i].value, &bound) != AT_OK) {
            continue;
        }
        int64_t amount = quota_of_instance(instance, canonical);
        bool optional = at_streq(canonical, "gpu") || at_streq(canonical, "gpuMemory");
        snprintf(field, sizeof field, "spec.resources.%s", canonical);
        if (amount == 0 && !optional) {
            return at_err_set_field(err, AT_FORBIDDEN, field,
                                    "%s %s usage per %s is %s. No limit is specified",
                                    max ? "maximum" : "minimum", bounds->items[i].key, item->type,
                                    bounds->items[i].value);
        }
        if (amount != 0 && (max ? amount > bound : amount < bound)) {
            char text[AT_UNITS_TEXT_BYTES_MAX];
            return at_err_set_field(err, AT_FORBIDDEN, field,
                                    "%s %s usage per %s is %s, but limit is %s",
                                    max ? "maximum" : "minimum", bounds->items[i].key, item->type,
                                    bounds->items[i].value, quota_format(canonical, amount, text));
        }
    }
    return AT_OK;
}

enum at_rc at_limit_range_check(struct at_state *state, const char *ns, const json_t *instance,
                                struct at_err *err)
{
    const struct at_snapshot *snap = at_state_snapshot(state);
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    struct at_instance typed = {0};
    enum at_rc rc = AT_OK;
    bool decoded = false;
    for (size_t i = 0; i < snap->n_limit_ranges && rc == AT_OK; i++) {
        const struct at_limit_range *range = snap->limit_ranges[i];
        if (!at_streq(range->meta.ns, ns)) {
            continue;
        }
        if (!decoded &&
            at_model_decode(&AT_KIND_INSTANCE, instance, arena, &typed, NULL) != AT_OK) {
            break; /* it does not pass validation either */
        }
        decoded = true;
        for (size_t k = 0; k < range->spec.limits.n && rc == AT_OK; k++) {
            rc = bound_check(&range->spec.limits.items[k], &typed, true, err);
            rc = rc == AT_OK ? bound_check(&range->spec.limits.items[k], &typed, false, err) : rc;
        }
    }
    at_snapshot_unref(snap);
    return rc;
}
