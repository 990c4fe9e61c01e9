/* What processes really hold of each GPU: asked from the driver, not from them. */
#include "core/mem.h"
#include "devices/devices_priv.h"
#include "devices/nvml.h"
#include "devices/share.h"

#include <string.h>

#define PROCESSES_MAX 256

/* Opening NVML costs a driver tens of milliseconds: it stays open. */
struct at_gpu_watch {
    char *library;
    bool is_open;
    struct nvml nvml;
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
    if (p->used > total || list->n == list->max) {
        return;
    }
    struct at_gpu_use *use = &list->items[list->n++];
    memcpy(use->id, id, sizeof use->id);
    use->pid = (pid_t)p->pid;
    use->memory_bytes = (int64_t)p->used;
}

static void ask(const struct nvml *nvml, nvml_handle device, struct list *list)
{
    char id[sizeof list->items[0].id] = "";
    struct nvml_memory memory;
    if (nvml->uuid(device, id, sizeof id) != 0 || nvml->memory(device, &memory) != 0) {
        return; /* lost, or of no use */
    }
    id[sizeof id - 1] = '\0';
    nvml_processes_fn *const kinds[] = {nvml->compute, nvml->graphics};
    for (size_t k = 0; k < 2; k++) {
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

enum at_rc at_gpu_watch_look(struct at_gpu_watch *w, struct at_gpu_use *ret, size_t max,
                             size_t *ret_n)
{
    struct list list = {.items = ret, .max = max};
    w->is_open = w->is_open || nvml_open(w->library, &w->nvml);
    if (!w->is_open) {
        return AT_NOT_FOUND;
    }
    for (unsigned i = 0; i < nvml_devices(&w->nvml); i++) {
        nvml_handle device;
        if (w->nvml.handle(i, &device) == 0) {
            ask(&w->nvml, device, &list);
        }
    }
    *ret_n = list.n;
    return AT_OK;
}
