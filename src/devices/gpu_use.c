/* What processes really hold of each GPU: asked from the driver, not from them. */
#include "devices/devices_priv.h"
#include "devices/share.h"

#include <dlfcn.h>
#include <string.h>

#define PROCESSES_MAX 256

struct process_v3 { /* nvmlProcessInfo_v2_t, which version 3 of the call fills in */
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};
struct memory {
    unsigned long long total, free, used;
};

struct calls {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *ret);
    int (*handle)(unsigned index, void **ret);
    int (*uuid)(void *device, char *out, unsigned size);
    int (*memory)(void *device, struct memory *ret);
    int (*compute)(void *device, unsigned *count, struct process_v3 *ret);
    int (*graphics)(void *device, unsigned *count, struct process_v3 *ret); /* may be NULL */
};

static bool load(void *lib, struct calls *c)
{
    *(void **)&c->init = dlsym(lib, "nvmlInit_v2");
    *(void **)&c->shutdown = dlsym(lib, "nvmlShutdown");
    *(void **)&c->count = dlsym(lib, "nvmlDeviceGetCount_v2");
    *(void **)&c->handle = dlsym(lib, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&c->uuid = dlsym(lib, "nvmlDeviceGetUUID");
    *(void **)&c->memory = dlsym(lib, "nvmlDeviceGetMemoryInfo");
    *(void **)&c->compute = dlsym(lib, "nvmlDeviceGetComputeRunningProcesses_v3");
    *(void **)&c->graphics = dlsym(lib, "nvmlDeviceGetGraphicsRunningProcesses_v3");
    return c->init != NULL && c->shutdown != NULL && c->count != NULL && c->handle != NULL &&
           c->uuid != NULL && c->memory != NULL && c->compute != NULL;
}

struct list {
    struct at_gpu_use *items;
    size_t n, max;
};

static void add(struct list *list, const char *id, const struct process_v3 *p,
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

static void ask(const struct calls *c, void *device, struct list *list)
{
    char id[sizeof list->items[0].id] = "";
    struct memory memory;
    if (c->uuid(device, id, sizeof id) != 0 || c->memory(device, &memory) != 0) {
        return; /* lost, or of no use */
    }
    id[sizeof id - 1] = '\0';
    int (*const kinds[])(void *, unsigned *, struct process_v3 *) = {c->compute, c->graphics};
    for (size_t k = 0; k < 2 && kinds[k] != NULL; k++) {
        struct process_v3 found[PROCESSES_MAX];
        unsigned n = PROCESSES_MAX;
        if (kinds[k](device, &n, found) != 0) {
            continue;
        }
        for (unsigned i = 0; i < n && i < PROCESSES_MAX; i++) {
            add(list, id, &found[i], memory.total);
        }
    }
}

enum at_rc at_gpu_uses(const char *library, struct at_gpu_use *ret, size_t max, size_t *ret_n)
{
    struct calls c;
    struct list list = {.items = ret, .max = max};
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        return AT_NOT_FOUND;
    }
    unsigned count = 0;
    bool there = load(lib, &c) && c.init() == 0;
    if (there && c.count(&count) == 0) {
        for (unsigned i = 0; i < count && i < AT_DEVICES_GPUS_MAX; i++) {
            void *device;
            if (c.handle(i, &device) == 0) {
                ask(&c, device, &list);
            }
        }
    }
    if (there) {
        c.shutdown();
    }
    dlclose(lib);
    *ret_n = list.n;
    return there ? AT_OK : AT_NOT_FOUND;
}
