#include "devices/nvml.h"

#include "core/units.h"
#include "devices/devices_priv.h"

#include <dlfcn.h>

#define P2P_BY_NVLINK 2 /* NVML_P2P_CAPS_INDEX_NVLINK; status 0: it works */

/* What older ones lack. */
static void load_rest(struct nvml *nvml)
{
    const struct {
        const char *symbol;
        void **to;
    } rows[] = {
        {"nvmlDeviceGetPciInfo_v3", (void **)&nvml->pci},
        {"nvmlDeviceGetP2PStatus", (void **)&nvml->p2p},
        {"nvmlDeviceGetMigMode", (void **)&nvml->mig_mode},
        {"nvmlDeviceGetMaxMigDeviceCount", (void **)&nvml->mig_max},
        {"nvmlDeviceGetMigDeviceHandleByIndex", (void **)&nvml->mig_part},
        {"nvmlDeviceGetMinorNumber", (void **)&nvml->minor},
        {"nvmlEventSetCreate", (void **)&nvml->events_new},
        {"nvmlEventSetFree", (void **)&nvml->events_free},
        {"nvmlDeviceRegisterEvents", (void **)&nvml->events_of},
        {"nvmlEventSetWait_v2", (void **)&nvml->events_wait},
        {"nvmlDeviceGetComputeRunningProcesses_v3", (void **)&nvml->compute},
        {"nvmlDeviceGetGraphicsRunningProcesses_v3", (void **)&nvml->graphics},
        {"nvmlDeviceGetMPSComputeRunningProcesses_v3", (void **)&nvml->mps},
        {"nvmlDeviceGetHandleByUUID", (void **)&nvml->by_uuid},
        {"nvmlDeviceGetComputeMode", (void **)&nvml->compute_mode},
        {"nvmlDeviceSetComputeMode", (void **)&nvml->set_compute_mode},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].to = dlsym(nvml->lib, rows[i].symbol);
    }
}

/* What making parts takes: all of it, or it is not done. */
static void load_mig(struct nvml *nvml)
{
    struct nvml_mig *mig = &nvml->mig;
    const struct {
        const char *symbol;
        void **to;
    } rows[] = {
        {"nvmlDeviceSetMigMode", (void **)&mig->set},
        {"nvmlDeviceGetGpuInstanceProfileInfo", (void **)&mig->profile},
        {"nvmlDeviceGetGpuInstancePossiblePlacements_v2", (void **)&mig->places},
        {"nvmlDeviceCreateGpuInstanceWithPlacement", (void **)&mig->make},
        {"nvmlDeviceGetGpuInstances", (void **)&mig->list},
        {"nvmlGpuInstanceGetInfo", (void **)&mig->info},
        {"nvmlGpuInstanceDestroy", (void **)&mig->destroy},
        {"nvmlGpuInstanceGetComputeInstanceProfileInfo", (void **)&mig->ci_profile},
        {"nvmlGpuInstanceCreateComputeInstance", (void **)&mig->ci_make},
        {"nvmlGpuInstanceGetComputeInstances", (void **)&mig->ci_list},
        {"nvmlComputeInstanceDestroy", (void **)&mig->ci_destroy},
    };
    bool all = true;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        *rows[i].to = dlsym(nvml->lib, rows[i].symbol);
        all = all && *rows[i].to != NULL;
    }
    mig->set = all ? mig->set : NULL;
}

static bool load(struct nvml *nvml)
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
        *rows[i].to = dlsym(nvml->lib, rows[i].symbol);
        if (*rows[i].to == NULL) {
            return false;
        }
    }
    load_rest(nvml);
    load_mig(nvml);
    return true;
}

bool nvml_open(const char *library, struct nvml *ret)
{
    struct nvml nvml = {.lib = dlopen(library, RTLD_NOW | RTLD_LOCAL)};
    if (nvml.lib == NULL) {
        return false;
    }
    if (!load(&nvml) || nvml.init() != 0) {
        dlclose(nvml.lib);
        return false;
    }
    *ret = nvml;
    return true;
}

void nvml_close(struct nvml *nvml)
{
    nvml->shutdown();
    dlclose(nvml->lib);
}

unsigned nvml_devices(const struct nvml *nvml)
{
    unsigned n = 0;
    return nvml->count(&n) != 0 ? 0 : n < AT_DEVICES_GPUS_MAX ? n : AT_DEVICES_GPUS_MAX;
}

/* GPUs that reach each other over NVLink share a group, named by the first of them. */
static void set_link_group(const struct nvml *nvml, unsigned index, nvml_handle device,
                           json_t *gpus, json_t *gpu)
{
    if (json_array_size(gpus) != index) {
        return; /* one before could not be asked: who is who is not certain */
    }
    for (unsigned k = 0; nvml->p2p != NULL && k < index; k++) {
        nvml_handle other;
        int status = -1;
        json_t *before = json_array_get(gpus, k);
        if (before == NULL || nvml->handle(k, &other) != 0 ||
            nvml->p2p(device, other, P2P_BY_NVLINK, &status) != 0 || status != 0) {
            continue;
        }
        if (json_object_get(before, "linkGroup") == NULL) {
            json_object_set_new(before, "linkGroup", json_sprintf("nvlink-%u", k));
        }
        json_object_set(gpu, "linkGroup", json_object_get(before, "linkGroup"));
        return;
    }
}

static void set_numa_node(const struct nvml *nvml, nvml_handle device, json_t *gpu)
{
    struct nvml_pci pci = {.domain = 0};
    if (nvml->pci == NULL || nvml->pci(device, &pci) != 0) {
        return;
    }
    pci.bus_id[sizeof pci.bus_id - 1] = '\0';
    int64_t numa = at_devices_numa_of_pci(AT_DEVICES_PCI_DIR, pci.bus_id);
    if (numa >= 0) {
        json_object_set_new(gpu, "numaNode", json_integer((json_int_t)numa));
    }
}

unsigned nvml_parts(const struct nvml *nvml, nvml_handle device)
{
    unsigned now = 0, pending = 0, max = 0;
    return nvml->mig_mode != NULL && nvml->mig_max != NULL && nvml->mig_part != NULL &&
                   nvml->mig_mode(device, &now, &pending) == 0 && now == 1 &&
                   nvml->mig_max(device, &max) == 0
               ? max
               : 0;
}

static json_t *describe(const struct nvml *nvml, nvml_handle device)
{
    char uuid[96], name[96], memory[AT_UNITS_TEXT_BYTES_MAX];
    struct nvml_memory bytes;
    if (nvml->uuid(device, uuid, sizeof uuid) != 0 || nvml->name(device, name, sizeof name) != 0 ||
        nvml->memory(device, &bytes) != 0) {
        return NULL;
    }
    at_quantity_format_bytes((int64_t)(bytes.total >> 20 << 20), memory);
    return json_pack("{s:s, s:s, s:s, s:s}", "id", uuid, "model", name, "memory", memory, "vendor",
                     "NVIDIA");
}

/* MIG's parts, each as a device of its own: the whole cannot be used beside them. */
static void add_parts(const struct nvml *nvml, nvml_handle device, unsigned max, json_t *gpus)
{
    char parent[96];
    if (nvml->uuid(device, parent, sizeof parent) != 0) {
        return;
    }
    for (unsigned k = 0; k < max && json_array_size(gpus) < AT_DEVICES_GPUS_MAX; k++) {
        nvml_handle part;
        json_t *gpu = nvml->mig_part(device, k, &part) == 0 ? describe(nvml, part) : NULL;
        if (gpu != NULL) {
            json_object_set_new(gpu, "parent", json_string(parent));
            set_numa_node(nvml, device, gpu);
            json_array_append_new(gpus, gpu);
        }
    }
}

static void add_gpu(const struct nvml *nvml, unsigned index, json_t *gpus)
{
    nvml_handle device;
    if (nvml->handle(index, &device) != 0) {
        return;
    }
    unsigned parts = nvml_parts(nvml, device);
    if (parts > 0) {
        add_parts(nvml, device, parts, gpus);
        return;
    }
    json_t *gpu = describe(nvml, device);
    if (gpu != NULL && json_array_size(gpus) < AT_DEVICES_GPUS_MAX) {
        set_numa_node(nvml, device, gpu);
        set_link_group(nvml, index, device, gpus, gpu);
        at_devices_mig_profiles(nvml, device, gpu);
        json_array_append_new(gpus, gpu);
    } else {
        json_decref(gpu);
    }
}

void at_devices_nvml(const char *library, json_t *gpus)
{
    struct nvml nvml;
    if (!nvml_open(library, &nvml)) {
        return;
    }
    for (unsigned i = 0; i < nvml_devices(&nvml); i++) {
        add_gpu(&nvml, i, gpus);
    }
    nvml_close(&nvml);
}
