/* The last word on room is the machine's own: two schedulers that did not see each other's bindings
 * may each have given away the same room. What would not fit beside what was taken on already ends
 * at once as Failed, NodeOvercommitted; its owner makes another one. */
#include "agent/agent_priv.h"
#include "agent/gpu.h"

#include <stdio.h>
#include <string.h>

#define GPU_MILLI 1000
#define AMOUNT_DIGITS_MAX 15 /* as the schema says */

/* Validation has checked the form: up to 15 digits, so that sums of thousands hold. */
static int64_t amount_of(const char *text)
{
    int64_t n = 0;
    for (int i = 0; text != NULL && i < AMOUNT_DIGITS_MAX && *text >= '0' && *text <= '9'; i++) {
        n = n * 10 + (*text++ - '0');
    }
    return n;
}

void agent_room_forget(struct at_agent *a)
{
    for (size_t i = 0; i < a->room.n_extended; i++) {
        at_free(a->room.extended[i].name);
    }
    at_free(a->room.extended);
    at_free(a->room.gpu_memory);
    a->room = (struct agent_room){0};
}

void agent_room_learn(struct at_agent *a, const json_t *status)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json)
    json_t *object = json_pack("{s:{s:s},s:{s:s},s:O}", "metadata", "name", a->name, "spec", "site",
                               a->site != NULL ? a->site : "", "status", (json_t *)status);
    struct at_node *node = at_arena_alloc(arena, sizeof *node);
    if (node == NULL || at_model_decode(&AT_KIND_NODE, object, arena, node, NULL) != AT_OK ||
        node->status.allocatable == NULL) {
        return;
    }
    const struct at_resources *r = node->status.allocatable;
    agent_room_forget(a);
    a->room = (struct agent_room){.known = true,
                                  .cpu_milli = r->cpu_milli,
                                  .memory_bytes = r->memory_bytes,
                                  .disk_bytes = r->disk_bytes,
                                  .gpu_milli = r->gpu_milli,
                                  .n_extended = r->extended.n};
    a->room.n_gpus = node->status.gpus.n;
    a->room.gpu_memory = at_alloc(sizeof(*a->room.gpu_memory) * (a->room.n_gpus + 1));
    for (size_t i = 0; i < a->room.n_gpus; i++) {
        a->room.gpu_memory[i] = node->status.gpus.items[i].memory_bytes;
    }
    a->room.extended = at_alloc(sizeof(*a->room.extended) * (r->extended.n + 1));
    for (size_t i = 0; i < r->extended.n; i++) {
        a->room.extended[i].name = at_strdup(r->extended.items[i].key);
        a->room.extended[i].amount = amount_of(r->extended.items[i].value);
    }
}

static bool takes_room(const struct agent_instance *i)
{
    return i->typed != NULL && i->typed->spec.resources != NULL &&
           (i->admitted || i->task != NULL) && i->phase != PHASE_ENDED && i->phase != PHASE_REMOVED;
}

static int64_t milli_of(const struct at_instance *i, int64_t index)
{
    int64_t sum = 0;
    for (size_t k = 0; k < i->status.gpus.n; k++) {
        sum += i->status.gpus.items[k].index == index ? i->status.gpus.items[k].milli : 0;
    }
    return sum;
}

/* What x holds of GPUs is no obstacle to i: it lies in host memory, and i goes there too when x is
 * wanted back. */
static bool gives_way(const struct agent_instance *x, bool parks)
{
    return agent_parked(x) && parks;
}

/* What the others hold; of GPUs in all, and of the one with this index. */
static struct agent_room held_beside(const struct agent_instance *i, bool parks, int64_t gpu,
                                     int64_t *ret_of_gpu)
{
    struct agent_room sum = {0};
    const char *uid;
    void *value;
    *ret_of_gpu = 0;
    for (size_t it = 0; at_map_next(i->agent->instances, &it, &uid, &value);) {
        const struct agent_instance *x = value;
        if (x == i || !takes_room(x)) {
            continue;
        }
        const struct at_resources *r = x->typed->spec.resources;
        sum.cpu_milli += r->cpu_milli;
        sum.memory_bytes += r->memory_bytes;
        sum.disk_bytes += r->disk_bytes;
        sum.gpu_milli += gives_way(x, parks) ? 0 : r->gpu_milli;
        *ret_of_gpu += gives_way(x, parks) ? 0 : milli_of(x->typed, gpu);
    }
    return sum;
}

/* Of a named resource. */
static int64_t extended_beside(const struct agent_instance *i, const char *name)
{
    int64_t sum = 0;
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(i->agent->instances, &it, &uid, &value);) {
        const struct agent_instance *x = value;
        if (x != i && takes_room(x)) {
            sum += amount_of(at_model_map_get(&x->typed->spec.resources->extended, name));
        }
    }
    return sum;
}

/* What is not asked for is never short. */
static bool is_short(int64_t all, int64_t held, int64_t wanted)
{
    return wanted > 0 && wanted > all - held;
}

/* The first named resource of which there is not enough left; NULL: none. What the machine does not
 * name, it does not have. */
static const char *short_extended(const struct agent_instance *i)
{
    const struct agent_room *all = &i->agent->room;
    const struct at_model_map *wanted = &i->typed->spec.resources->extended;
    for (size_t k = 0; k < wanted->n; k++) {
        int64_t have = 0;
        for (size_t e = 0; e < all->n_extended; e++) {
            have = strcmp(all->extended[e].name, wanted->items[k].key) == 0
                       ? all->extended[e].amount
                       : have;
        }
        if (is_short(have, extended_beside(i, wanted->items[k].key),
                     amount_of(wanted->items[k].value))) {
            return wanted->items[k].key;
        }
    }
    return NULL;
}

/* Shares without a word on memory hold their part of it; schedulers count only what was asked. */
static bool is_short_of_gpu_memory(const struct agent_instance *i, bool parks,
                                   const struct at_instance_gpu *gpu)
{
    int64_t all =
        (size_t)gpu->index < i->agent->room.n_gpus ? i->agent->room.gpu_memory[gpu->index] : 0;
    int64_t held = 0;
    const char *uid;
    void *value;
    for (size_t it = 0; at_map_next(i->agent->instances, &it, &uid, &value);) {
        const struct agent_instance *x = value;
        for (size_t k = 0;
             x != i && takes_room(x) && !gives_way(x, parks) && k < x->typed->status.gpus.n; k++) {
            const struct at_instance_gpu *g = &x->typed->status.gpus.items[k];
            held += g->index == gpu->index ? agent_share_limit(x, g) : 0;
        }
    }
    return all > 0 && is_short(all, held, agent_share_memory(i->agent, gpu));
}

static const char *short_gpu(const struct agent_instance *i, bool parks)
{
    int64_t of_gpu;
    for (size_t k = 0; k < i->typed->status.gpus.n; k++) {
        int64_t index = i->typed->status.gpus.items[k].index;
        (void)held_beside(i, parks, index, &of_gpu);
        if (is_short(GPU_MILLI, of_gpu, milli_of(i->typed, index))) {
            return "GPU";
        }
        if (is_short_of_gpu_memory(i, parks, &i->typed->status.gpus.items[k])) {
            return "GPU memory";
        }
    }
    return NULL;
}

bool agent_gpu_room(const struct agent_instance *i, bool returns, char *why, size_t why_size)
{
    const char *what = short_gpu(i, returns || agent_parks(i));
    if (what != NULL) {
        snprintf(why, why_size, "others hold the %s that it needs", what);
    }
    return what == NULL;
}

bool agent_admit(struct agent_instance *i, char *why, size_t why_size)
{
    const struct agent_room *all = &i->agent->room;
    const struct at_resources *r = i->typed->spec.resources;
    int64_t of_gpu;
    if (i->admitted || !all->known || r == NULL) {
        i->admitted = true;
        return true;
    }
    struct agent_room held = held_beside(i, agent_parks(i), -1, &of_gpu);
    const char *what = is_short(all->cpu_milli, held.cpu_milli, r->cpu_milli)            ? "CPU"
                       : is_short(all->memory_bytes, held.memory_bytes, r->memory_bytes) ? "memory"
                       : is_short(all->disk_bytes, held.disk_bytes, r->disk_bytes)       ? "disk"
                       : is_short(all->gpu_milli, held.gpu_milli, r->gpu_milli)          ? "GPU"
                                                                                         : NULL;
    what = what == NULL ? short_gpu(i, agent_parks(i)) : what;
    what = what == NULL ? short_extended(i) : what;
    i->admitted = what == NULL;
    if (what != NULL) {
        snprintf(why, why_size, "others on %s hold the %s already that it was given",
                 i->agent->name, what);
    }
    return i->admitted;
}
