/* Events about instances: what their agents report, as a history. A status shows only the last
 * reason; who looks later wants to know what went before. */
#include "controllers/controllers_priv.h"

#include <string.h>

/* Steps of an ordinary life, and what other controllers tell already. */
static bool ordinary(const char *reason)
{
    static const char *const REASONS[] = {"", "FetchingModel", "Stopping", "Unschedulable",
                                          CTL_REASON_NODE_LOST};
    for (size_t k = 0; k < sizeof REASONS / sizeof REASONS[0]; k++) {
        if (at_streq(reason, REASONS[k])) {
            return true;
        }
    }
    return strncmp(reason, "Queue", 5) == 0 || strncmp(reason, "Quota", 5) == 0; /* admission.c */
}

void ctl_tell_instance(struct at_controllers *c, const char *key, const struct at_instance *i)
{
    if (i == NULL) {
        at_free(at_map_remove(c->told, key));
        return;
    }
    const char *reason = ctl_text(i->status.reason);
    const char *message = ctl_text(i->status.message);
    char *now = at_asprintf("%s\n%s\n%lld", reason, message, (long long)i->status.restarts);
    char *old = at_map_put(c->told, key, now);
    bool news = old != NULL && strcmp(old, now) != 0; /* what was there at our start is old */
    at_free(old);
    if (!news || ordinary(reason) || i->meta.deletion_wall_ns != 0) {
        return;
    }
    at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, !at_streq(reason, "Completed"), reason,
                   "%s", message);
}
