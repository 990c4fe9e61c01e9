#include "scheduler/disruption.h"

#include "core/str.h"

/* "3" or "25%", rounded up; absent or unreadable: fallback. Validation has checked the form. */
static int64_t amount(const char *text, int64_t of, int64_t fallback)
{
    int64_t n = 0;
    if (text == NULL || text[0] == '\0') {
        return fallback;
    }
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        n = n > 999999999 ? n : n * 10 + (*at - '0');
    }
    if (at == text) {
        return fallback;
    }
    return *at == '%' ? (int64_t)(((__int128)n * of + 99) / 100) : n;
}

int64_t at_disruption_allowed(const struct at_disruption *budget, int64_t wanted, int64_t available)
{
    if (budget == NULL || (budget->max_unavailable == NULL && budget->min_available == NULL)) {
        return AT_DISRUPTION_UNLIMITED;
    }
    int64_t may_be_away = amount(budget->max_unavailable, wanted, wanted);
    int64_t must_stay = amount(budget->min_available, wanted, 0);
    int64_t keep = wanted - may_be_away > must_stay ? wanted - may_be_away : must_stay;
    return available > keep ? available - (keep > 0 ? keep : 0) : 0;
}

const struct at_disruption *at_disruption_of(const struct at_snapshot *snap,
                                             const struct at_instance *instance,
                                             int64_t *ret_wanted)
{
    const struct at_owner_ref *owner = at_meta_controller(&instance->meta);
    *ret_wanted = 0;
    if (owner == NULL) {
        return NULL;
    }
    if (at_streq(owner->kind, "Deployment")) {
        const struct at_deployment *d =
            at_snapshot_deployment(snap, instance->meta.ns, owner->name);
        if (d != NULL && at_streq(d->meta.uid, owner->uid)) {
            *ret_wanted = d->spec.replicas;
            return d->spec.disruption;
        }
    } else if (at_streq(owner->kind, "Job")) {
        const struct at_job *j = at_snapshot_job(snap, instance->meta.ns, owner->name);
        if (j != NULL && at_streq(j->meta.uid, owner->uid)) {
            int64_t left = j->spec.completions - j->status.succeeded;
            *ret_wanted = j->spec.parallelism < left ? j->spec.parallelism : left;
            return j->spec.disruption;
        }
    }
    return NULL;
}

bool at_disruption_is_available(const struct at_instance *instance)
{
    return instance->spec.node_name != NULL && instance->spec.node_name[0] != '\0' &&
           instance->status.ready && instance->meta.deletion_wall_ns == 0 &&
           !at_streq(instance->status.phase, "Succeeded") &&
           !at_streq(instance->status.phase, "Failed");
}

int64_t at_disruption_left(const struct at_snapshot *snap, const struct at_instance *instance)
{
    int64_t wanted = 0;
    const struct at_disruption *budget = at_disruption_of(snap, instance, &wanted);
    if (budget == NULL) {
        return AT_DISRUPTION_UNLIMITED;
    }
    const char *uid = at_meta_controller(&instance->meta)->uid;
    int64_t available = 0;
    for (size_t i = 0; i < snap->n_instances; i++) {
        const struct at_owner_ref *owner = at_meta_controller(&snap->instances[i]->meta);
        available += owner != NULL && at_streq(owner->uid, uid) &&
                     at_disruption_is_available(snap->instances[i]);
    }
    return at_disruption_allowed(budget, wanted, available);
}
