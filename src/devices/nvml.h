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
    nvml_processes_fn *compute, *graphics;
};

/* False: there is none that works. own: nvml_close. */
bool nvml_open(const char *library, struct nvml *ret);
void nvml_close(struct nvml *nvml);
unsigned nvml_devices(const struct nvml *nvml); /* AT_DEVICES_GPUS_MAX at most */
/* How many parts MIG may have made of it; 0: it is whole. Not each index has one. */
unsigned nvml_parts(const struct nvml *nvml, nvml_handle device);

#endif
