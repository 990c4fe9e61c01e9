/* GPUs by NVIDIA's management library, which is loaded when it is there (its driver brings it). */
#include "core/units.h"
#include "devices/devices_priv.h"

#include <dlfcn.h>

typedef struct nvml_device *nvml_handle;
struct nvml_memory {
    unsigned long long total, free, used;
};

/* The few calls in use, as nvml.h of CUDA 12 declares them. 0 is success. */
struct nvml {
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *ret);
    int (*handle)(unsigned index, nvml_handle *ret);
    int (*uuid)(nvml_handle device, char *out, unsigned size);
    int (*name)(nvml_handle device, char *out, unsigned size);
    int (*memory)(nvml_handle device, struct nvml_memory *ret);
};

static bool load(void *lib, struct nvml *nvml)
{
    const struct {
        const char *symbol;
        void **to;
    } rows[] = {
        {"nvmlInit_v2", (void **)&nvml->init},
        {"nvmlShutdown", (void **)&nvml->shutdown},
        {"nvmlDeviceGetCount_v2", (void **)&nvml->count},
        {"nvmlDeviceGetHandleByIndex_v2", (void **)&nvml->handle},
        {"nvmlDeviceGetUUID", (void **)&nvml->uuid},
        {"nvmlDeviceGetName", (void **)&nvml->name},
        {"nvmlDeviceGetMemoryInfo", (void **)&nvml->memory},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].to = dlsym(lib, rows[i].symbol);
        if (*rows[i].to == NULL) {
            return false;
        }
    }
    return true;
}

static void add_gpu(const struct nvml *nvml, unsigned index, json_t *gpus)
{
    nvml_handle device;
    char uuid[96], name[96], memory[AT_UNITS_TEXT_BYTES_MAX];
    struct nvml_memory bytes;
    if (nvml->handle(index, &device) == 0 && nvml->uuid(device, uuid, sizeof uuid) == 0 &&
        nvml->name(device, name, sizeof name) == 0 && nvml->memory(device, &bytes) == 0) {
        at_quantity_format_bytes((int64_t)(bytes.total >> 20 << 20), memory);
        json_array_append_new(
            gpus, json_pack("{s:s, s:s, s:s}", "id", uuid, "model", name, "memory", memory));
    }
}

void at_devices_nvml(const char *library, json_t *gpus)
{
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (lib == NULL) {
        return;
    }
    struct nvml nvml;
    if (load(lib, &nvml) && nvml.init() == 0) {
        unsigned count = 0;
        if (nvml.count(&count) == 0) {
            for (unsigned i = 0; i < count && i < AT_DEVICES_GPUS_MAX; i++) {
                add_gpu(&nvml, i, gpus);
            }
        }
        nvml.shutdown();
    }
    dlclose(lib);
}
