/* Events about instances: what their agents report, as a history. A status shows only the last
 * reason; who looks later wants to know what went before. */
#include "controllers/controllers_priv.h"

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

static uint64_t digest_add(uint64_t digest, const char *text)
{
    do { /* FNV-1a, with the NUL */
        digest = (digest ^ (unsigned char)*text) * 1099511628211u;
    } while (*text++ != '\0');
    return digest;
}

void ctl_tell_instance(struct at_controllers *c, struct ctl_seen *seen, const struct at_instance *i)
{
    const char *reason = ctl_text(i->status.reason);
    const char *message = ctl_text(i->status.message);
    uint64_t now = digest_add(digest_add(14695981039346656037u, reason), message);
    now = (now ^ (uint64_t)i->status.restarts) * 1099511628211u | 1;
    bool news = seen->told != 0 && seen->told != now; /* what was there at our start is old */
    seen->told = now;
    if (!news || ordinary(reason) || i->meta.deletion_wall_ns != 0) {
        return;
    }
    at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, !at_streq(reason, "Completed"), reason,
                   "%s", message);
}
