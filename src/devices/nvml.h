/* NVIDIA's management library, loaded when it is there (its driver brings it). Any thread, one at a
 * time; calls may take long when a driver hangs. */
#ifndef AT_DEVICES_NVML_H
#define AT_DEVICES_NVML_H

#include <stdbool.h>

typedef struct nvml_device *nvml_handle;
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};
struct nvml_process { /* nvmlProcessInfo_t, as version 3 of the calls fills it in */
    unsigned pid;
    unsigned long long used;
    unsigned gpu_instance, compute_instance;
};
struct nvml_event { /* nvmlEventData_t */
    nvml_handle device;
    unsigned long long type, data; /* NVML_EVENT_XID: data is the number */
    unsigned gpu_instance, compute_instance;
};
#define NVML_EVENT_XID 8ull
#define NVML_LOST 15 /* NVML_ERROR_GPU_IS_LOST */
typedef struct nvml_set *nvml_events;
typedef int nvml_processes_fn(nvml_handle device, unsigned *count, struct nvml_process *ret);

/* MIG: a GPU is cut into GPU instances (memory and engines), each of these into compute instances;
 * a pair of both is what programs see as a device. */
typedef struct nvml_gi *nvml_gi;
typedef struct nvml_ci *nvml_ci;
struct nvml_place { /* nvmlGpuInstancePlacement_t, in slices of memory */
    unsigned start, size;
};
struct nvml_gi_info { /* nvmlGpuInstanceInfo_t */
    nvml_handle device;
    unsigned id, profile;
    struct nvml_place place;
};
struct nvml_ci_info { /* nvmlComputeInstanceInfo_t, as version 2 of the call fills it in */
    nvml_handle device;
    nvml_gi gi;
    unsigned id, profile;
    struct nvml_place place;
};
struct nvml_gi_profile { /* nvmlGpuInstanceProfileInfo_t */
    unsigned id, p2p, slices, instances, multiprocessors, copies, decoders, encoders, jpegs, ofas;
    unsigned long long memory_mb;
};
struct nvml_ci_profile { /* nvmlComputeInstanceProfileInfo_t */
    unsigned id, slices, instances, multiprocessors, copies, decoders, encoders, jpegs, ofas;
};
#define NVML_GI_PROFILES                                                                           \
    16 /* kinds asked for; those that a GPU lacks are an error of their own                        \
        */
#define NVML_CI_PROFILES 8
struct nvml_mig { /* set is NULL unless all are there */
    int (*set)(nvml_handle device, unsigned mode, int *ret_activation);
    int (*profile)(nvml_handle device, unsigned kind, struct nvml_gi_profile *ret);
    int (*places)(nvml_handle device, unsigned profile, struct nvml_place *ret, unsigned *count);
    int (*make)(nvml_handle device, unsigned profile, const struct nvml_place *at, nvml_gi *ret);
    int (*list)(nvml_handle device, unsigned profile, nvml_gi *ret, unsigned *count);
    int (*info)(nvml_gi gi, struct nvml_gi_info *ret);
    int (*destroy)(nvml_gi gi);
    int (*ci_profile)(nvml_gi gi, unsigned kind, unsigned engines, struct nvml_ci_profile *ret);
    int (*ci_make)(nvml_gi gi, unsigned profile, nvml_ci *ret);
    int (*ci_list)(nvml_gi gi, unsigned profile, nvml_ci *ret, unsigned *count);
    int (*ci_destroy)(nvml_ci ci);
};

/* The calls in use, as nvml.h of CUDA 12 declares them. 0 is success. */
struct nvml {
    void *lib;
    int (*init)(void);
    int (*shutdown)(void);
    int (*count)(unsigned *ret);
    int (*handle)(unsigned index, nvml_handle *ret);
    int (*uuid)(nvml_handle device, char *out, unsigned size);
    int (*name)(nvml_handle device, char *out, unsigned size);
    int (*memory)(nvml_handle device, struct nvml_memory *ret);
    /* NULL where the library is too old: */
    int (*pci)(nvml_handle device, struct nvml_pci *ret);
    int (*p2p)(nvml_handle a, nvml_handle b, int how, int *ret_status);
    int (*mig_mode)(nvml_handle device, unsigned *ret_now, unsigned *ret_pending);
    int (*mig_max)(nvml_handle device, unsigned *ret);
    int (*mig_part)(nvml_handle device, unsigned index, nvml_handle *ret);
    int (*minor)(nvml_handle device, unsigned *ret);
    int (*events_new)(nvml_events *ret);
    int (*events_free)(nvml_events events);
    int (*events_of)(nvml_handle device, unsigned long long types, nvml_events events);
    int (*events_wait)(nvml_events events, struct nvml_event *ret, unsigned timeout_ms);
    nvml_processes_fn *compute, *graphics, *mps; /* mps: clients of NVIDIA's service */
    int (*by_uuid)(const char *uuid, nvml_handle *ret);
    int (*compute_mode)(nvml_handle device, int *ret);
    int (*set_compute_mode)(nvml_handle device, int mode);
    struct nvml_mig mig;
};
#define NVML_COMPUTE_EXCLUSIVE_PROCESS 3

/* False: there is none that works. own: nvml_close. */
bool nvml_open(const char *library, struct nvml *ret);
void nvml_close(struct nvml *nvml);
unsigned nvml_devices(const struct nvml *nvml); /* AT_DEVICES_GPUS_MAX at most */
/* How many parts MIG may have made of it; 0: it is whole. Not each index has one. */
unsigned nvml_parts(const struct nvml *nvml, nvml_handle device);

#endif
