/* The part of CUDA's driver interface that is looked at here, as its public header declares it
 * (CUDA 11 and 12); names and numbers are part of the ABI. Handles are opaque. */
#ifndef AT_INTERPOSE_CUDA_ABI_H
#define AT_INTERPOSE_CUDA_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef int cu_result;
#define CU_OK 0
#define CU_INVALID_VALUE 1
#define CU_OUT_OF_MEMORY 2
#define CU_NOT_READY 600
#define CU_NOT_PERMITTED 800
#define CU_NOT_SUPPORTED 801
#define CU_SYSTEM_NOT_READY 802

typedef int cu_device;
typedef uint64_t cu_ptr; /* an address on a device */
typedef uint64_t cu_alloc_handle;
typedef void *cu_handle; /* context, stream, event, function, graph, array, pool */

struct cu_uuid {
    uint8_t bytes[16];
};

struct cu_location {
    int type; /* CU_LOCATION_DEVICE */
    int id;
};
#define CU_LOCATION_DEVICE 1

struct cu_alloc_prop { /* CUmemAllocationProp */
    int type;
    int handle_types;
    struct cu_location location;
    void *win32;
    uint8_t flags[8];
};

struct cu_pool_props { /* CUmemPoolProps, its beginning */
    int type;
    int handle_types;
    struct cu_location location;
};

struct cu_node_alloc { /* CUDA_MEM_ALLOC_NODE_PARAMS */
    uint8_t pool_props[88];
    const void *access;
    size_t n_access;
    size_t bytes;
    cu_ptr ret_ptr;
};

struct cu_array_desc { /* CUDA_ARRAY_DESCRIPTOR */
    size_t width, height;
    int format;
    unsigned channels;
};
struct cu_array3d_desc { /* CUDA_ARRAY3D_DESCRIPTOR */
    size_t width, height, depth;
    int format;
    unsigned channels;
    unsigned flags;
};

/* Of the checkpoint calls (CUDA 12.8 on). */
#define CU_PROCESS_RUNNING 0
#define CU_PROCESS_LOCKED 1
#define CU_PROCESS_CHECKPOINTED 2
#define CU_PROCESS_FAILED 3
#define CU_ILLEGAL_STATE 401
struct cu_checkpoint_args { /* CUcheckpointLockArgs; the others are as large, and may be zeros */
    unsigned timeout_ms;    /* 0: none */
    unsigned reserved0;
    uint64_t reserved1[7];
};

#define CU_ATTACH_GLOBAL 1
#define CU_ADVISE_PREFERRED_LOCATION 3
#define CU_DEVICE_CPU (-1)
#define CU_CAPTURE_RELAXED 2

#endif
