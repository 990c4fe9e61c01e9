/* Events about instances: what their agents report, as a history. A status shows only the last
 * reason; who looks later wants to know what went before. */
#include "controllers/controllers_priv.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/units.h"

/* Steps of an ordinary life, and what other controllers tell already. */
static bool ordinary(const char *reason)
{
    static const char *const REASONS[] = {
        "", "FetchingModel", "Stopping", "Unschedulable", "Parked", CTL_REASON_NODE_LOST};
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

/* Allocations that found no room in a share of a GPU. */
static void tell_refused(struct at_controllers *c, struct ctl_seen *seen,
                         const struct at_instance *i)
{
    const struct at_instance_gpu_use *full = NULL;
    int64_t refused = 0;
    for (size_t k = 0; k < i->status.gpu_use.n; k++) {
        const struct at_instance_gpu_use *use = &i->status.gpu_use.items[k];
        refused += use->refused;
        full = full == NULL || use->refused > full->refused ? use : full;
    }
    bool news = seen->told != 0 && refused > seen->gpu_refused; /* the first look is old */
    seen->gpu_refused = refused;
    if (news && i->meta.deletion_wall_ns == 0) {
        char used[AT_UNITS_TEXT_BYTES_MAX], limit[AT_UNITS_TEXT_BYTES_MAX];
        at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, true, "GPUMemoryRefused",
                       "%lld allocations found no room in its share of GPU %s: it holds %s of %s",
                       (long long)full->refused, ctl_text(full->id),
                       at_quantity_format_bytes(full->used_bytes, used),
                       at_quantity_format_bytes(full->memory_bytes, limit));
    }
}

void ctl_tell_node(struct at_controllers *c, const struct at_node *node)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    for (size_t k = 0; k < node->status.gpus.n; k++) {
        const struct at_node_gpu *gpu = &node->status.gpus.items[k];
        if (ctl_text(gpu->fault)[0] != '\0' &&
            at_buf_printf(&text, "%sGPU %s: %s", text.len > 0 ? "; " : "", gpu->id, gpu->fault) !=
                AT_OK) {
            return;
        }
    }
    const char *now = text.len > 0 ? text.data : "";
    const char *was = at_map_get(c->node_faults, node->meta.name);
    if (at_streq(was != NULL ? was : "", now)) {
        return;
    }
    at_state_event(c->state, &AT_KIND_NODE, &node->meta, now[0] != '\0',
                   now[0] != '\0' ? "GPUFailed" : "GPUBack", "%s",
                   now[0] != '\0' ? now : "all its GPUs answer again");
    at_free(at_map_put(c->node_faults, node->meta.name, at_strdup(now)));
}

void ctl_tell_instance(struct at_controllers *c, struct ctl_seen *seen, const struct at_instance *i)
{
    const char *reason = ctl_text(i->status.reason);
    const char *message = ctl_text(i->status.message);
    uint64_t now = digest_add(digest_add(14695981039346656037u, reason), message);
    now = (now ^ (uint64_t)i->status.restarts) * 1099511628211u | 1;
    bool news = seen->told != 0 && seen->told != now; /* what was there at our start is old */
    tell_refused(c, seen, i);
    ctl_park_tell(c, seen, i);
    seen->told = now;
    if (!news || ordinary(reason) || i->meta.deletion_wall_ns != 0) {
        return;
    }
    at_state_event(c->state, &AT_KIND_INSTANCE, &i->meta, !at_streq(reason, "Completed"), reason,
                   "%s", message);
}
