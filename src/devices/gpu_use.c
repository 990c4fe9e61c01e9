/* What processes really hold of each GPU, and which GPUs have failed: asked from the driver, not
 * from them. */
#include "core/mem.h"
#include "devices/devices_priv.h"
#include "devices/nvml.h"
#include "devices/share.h"

#include <stdio.h>
#include <string.h>

#define PROCESSES_MAX 256
#define EVENTS_PER_LOOK 64

/* One that was there at some look: a lost one cannot be asked for its name. */
struct seen {
    char id[96], parent[96];
    unsigned index; /* of the whole device */
    bool lost;
    unsigned long long xid; /* 0: none */
};

/* Opening NVML costs a driver tens of milliseconds: it stays open. */
struct at_gpu_watch {
    char *library;
    bool is_open;
    struct nvml nvml;
    nvml_events events; /* NULL: this library has none */
    bool listens[AT_DEVICES_GPUS_MAX];
    struct seen seen[AT_GPU_FAULTS_MAX];
    size_t n_seen;
};

struct at_gpu_watch *at_gpu_watch_new(const char *library)
{
    struct at_gpu_watch *w = AT_NEW(struct at_gpu_watch);
    w->library = at_strdup(library != NULL ? library : AT_DEVICES_NVML);
    return w;
}

void at_gpu_watch_free(struct at_gpu_watch *w)
{
    if (w == NULL) {
        return;
    }
    if (w->events != NULL) {
        w->nvml.events_free(w->events);
    }
    if (w->is_open) {
        nvml_close(&w->nvml);
    }
    at_free(w->library);
    at_free(w);
}

struct list {
    struct at_gpu_use *items;
    size_t n, max;
};

static void add(struct list *list, const char *id, const struct nvml_process *p,
                unsigned long long total)
{
    /* "Not available" is a number too, the largest. */
    if (p->used > total) {
        return;
    }
    for (size_t i = 0; i < list->n; i++) { /* of two kinds: told of twice, held once */
        struct at_gpu_use *known = &list->items[i];
        if (known->pid == (pid_t)p->pid && strcmp(known->id, id) == 0) {
            int64_t used = (int64_t)p->used;
            known->memory_bytes = used > known->memory_bytes ? used : known->memory_bytes;
            return;
        }
    }
    if (list->n == list->max) {
        return;
    }
    struct at_gpu_use *use = &list->items[list->n++];
    memcpy(use->id, id, sizeof use->id);
    use->pid = (pid_t)p->pid;
    use->memory_bytes = (int64_t)p->used;
}

static struct seen *seen_of(struct at_gpu_watch *w, const char *id)
{
    for (size_t i = 0; i < w->n_seen; i++) {
        if (strcmp(w->seen[i].id, id) == 0) {
            return &w->seen[i];
        }
    }
    if (w->n_seen == AT_GPU_FAULTS_MAX) {
        return NULL;
    }
    struct seen *s = &w->seen[w->n_seen++];
    *s = (struct seen){0};
    memcpy(s->id, id, strlen(id) + 1);
    return s;
}

/* parent: NULL, or the whole that device is a part of. ret_id: room for one, may be NULL. */
static void ask(struct at_gpu_watch *w, unsigned index, nvml_handle device, const char *parent,
                struct list *list, char *ret_id)
{
    const struct nvml *nvml = &w->nvml;
    char id[sizeof list->items[0].id] = "";
    struct nvml_memory memory;
    if (nvml->uuid(device, id, sizeof id) != 0 || nvml->memory(device, &memory) != 0) {
        return; /* lost, or of no use */
    }
    id[sizeof id - 1] = '\0';
    struct seen *seen = seen_of(w, id);
    if (seen != NULL) {
        seen->index = index;
        seen->lost = false;
        snprintf(seen->parent, sizeof seen->parent, "%s", parent != NULL ? parent : "");
    }
    if (ret_id != NULL) {
        memcpy(ret_id, id, sizeof id);
    }
    nvml_processes_fn *const kinds[] = {nvml->compute, nvml->graphics, nvml->mps};
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        struct nvml_process found[PROCESSES_MAX];
        unsigned n = PROCESSES_MAX;
        if (kinds[k] == NULL || kinds[k](device, &n, found) != 0) {
            continue;
        }
        for (unsigned i = 0; i < n && i < PROCESSES_MAX; i++) {
            add(list, id, &found[i], memory.total);
        }
    }
}

static void ask_whole(struct at_gpu_watch *w, unsigned index, struct list *list)
{
    nvml_handle device, part;
    if (w->nvml.handle(index, &device) != 0) {
        return;
    }
    if (w->events != NULL && !w->listens[index]) {
        w->listens[index] = w->nvml.events_of(device, NVML_EVENT_XID, w->events) == 0;
    }
    char id[sizeof list->items[0].id] = "";
    ask(w, index, device, NULL, list, id);
    unsigned parts = id[0] != '\0' ? nvml_parts(&w->nvml, device) : 0;
    for (unsigned k = 0; k < parts; k++) {
        if (w->nvml.mig_part(device, k, &part) == 0) {
            ask(w, index, part, id, list, NULL);
        }
    }
}

/* These come from what a program did: the next one runs. Numbers by NVIDIA's XID catalogue, as the
 * device plug-in for Kubernetes takes them. */
static bool is_of_program(unsigned long long xid)
{
    static const unsigned OF_PROGRAM[] = {13, 31, 43, 45, 68, 109};
    for (size_t i = 0; i < sizeof OF_PROGRAM / sizeof OF_PROGRAM[0]; i++) {
        if (xid == OF_PROGRAM[i]) {
            return true;
        }
    }
    return false;
}

static void take_events(struct at_gpu_watch *w)
{
    struct nvml_event event;
    char id[sizeof w->seen[0].id];
    for (int i = 0;
         w->events != NULL && i < EVENTS_PER_LOOK && w->nvml.events_wait(w->events, &event, 0) == 0;
         i++) {
        if ((event.type & NVML_EVENT_XID) == 0 || is_of_program(event.data) ||
            w->nvml.uuid(event.device, id, sizeof id) != 0) {
            continue;
        }
        id[sizeof id - 1] = '\0';
        for (size_t k = 0; k < w->n_seen; k++) {
            struct seen *s = &w->seen[k];
            if (strcmp(s->id, id) == 0 || strcmp(s->parent, id) == 0) {
                s->xid = event.data;
            }
        }
    }
}

enum at_rc at_gpu_watch_look(struct at_gpu_watch *w, struct at_gpu_use *ret, size_t max,
                             size_t *ret_n)
{
    struct list list = {.items = ret, .max = max};
    if (!w->is_open && nvml_open(w->library, &w->nvml)) {
        w->is_open = true;
        bool has_events = w->nvml.events_new != NULL && w->nvml.events_free != NULL &&
                          w->nvml.events_of != NULL && w->nvml.events_wait != NULL;
        if (!has_events || w->nvml.events_new(&w->events) != 0) {
            w->events = NULL;
        }
    }
    if (!w->is_open) {
        return AT_NOT_FOUND;
    }
    for (size_t i = 0; i < w->n_seen; i++) {
        w->seen[i].lost = true;
    }
    for (unsigned i = 0; i < nvml_devices(&w->nvml); i++) {
        ask_whole(w, i, &list);
    }
    take_events(w);
    *ret_n = list.n;
    return AT_OK;
}

size_t at_gpu_watch_faults(const struct at_gpu_watch *w, struct at_gpu_fault ret[AT_GPU_FAULTS_MAX])
{
    size_t n = 0;
    for (size_t i = 0; i < w->n_seen; i++) {
        const struct seen *s = &w->seen[i];
        if (!s->lost && s->xid == 0) {
            continue;
        }
        struct at_gpu_fault *fault = &ret[n++];
        memcpy(fault->id, s->id, sizeof fault->id);
        if (s->xid != 0) {
            snprintf(fault->why, sizeof fault->why, "its driver told of XID %llu", s->xid);
        } else {
            snprintf(fault->why, sizeof fault->why, "its driver does not find it any more");
        }
    }
    return n;
}
