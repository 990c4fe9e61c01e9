/* The pretended GPUs of the tests: one file that the stand-ins for libcuda and libnvidia-ml map, so
 * that processes share devices as they share real ones. Its path is in $STANDIN_GPU_STATE. */
#ifndef AT_INTERPOSE_STANDIN_STATE_H
#define AT_INTERPOSE_STANDIN_STATE_H

#include <stdint.h>

#define STANDIN_DEVICES_MAX 8
#define STANDIN_PROCESSES_MAX 64
#define STANDIN_CONTEXT_BYTES (INT64_C(8) << 20) /* what a context takes beside allocations */

struct standin_process {
    int64_t pid; /* 0: free */
    int64_t used_bytes;
};

struct standin_device {
    char uuid[48]; /* "GPU-00000000-0000-0000-0000-000000000001" */
    char name[32];
    int64_t total_bytes;
    int64_t busy_until_ns; /* monotonic: the device does one thing after the other */
    int64_t busy_ns;       /* in all */
    int64_t lost;          /* fell off the bus: every call fails */
    int64_t lies; /* NVML: 1: says that nothing is used; 2: hangs for a second; 3: garbage */
    struct standin_process processes[STANDIN_PROCESSES_MAX];
    int64_t mig;    /* divided by MIG: only its parts can be used */
    int64_t parent; /* 1 + the device that this is a part of; parts stand after whole devices */
    int64_t xid;    /* NVML tells of it once */
    int64_t compute_mode; /* 3: one process only, which is the server of MPS */
    /* Of a part: its GPU instance is there (1), its compute instance too (2); its profile; where.
     */
    int64_t made, profile, start, slices;
    int64_t mig_fails; /* of a whole one: so many makings of parts fail from now on */
};

/* A process that has called cuInit, as the driver's checkpoint calls see it. */
struct standin_checkpoint {
    int64_t pid;     /* 0: free */
    int64_t state;   /* CU_PROCESS_... */
    int64_t managed; /* it has managed memory, which cannot be parked */
    int64_t saved_bytes[STANDIN_DEVICES_MAX];
};

struct standin_state {
    int64_t n_devices;
    struct standin_device devices[STANDIN_DEVICES_MAX];
    int64_t bytes_per_us;  /* that parking copies; 0: at once */
    int64_t no_checkpoint; /* a driver that is too old for it */
    struct standin_checkpoint checkpoints[STANDIN_PROCESSES_MAX];
};

/* cuda_mps.c: becomes a client of the MPS service that CUDA_MPS_PIPE_DIRECTORY names. Bytes that
 * this process may hold; 0: there is no service, -1: it takes nobody now. */
int64_t standin_mps_join(void);

#endif
