/* What the files of libatoll-gpu.so share. The library is loaded into programs that know nothing of
 * it, so it keeps to itself: it allocates by mmap, touches no signal and no descriptor but its own,
 * and does nothing at all until the program makes its first call to the driver. Its few globals
 * stand for the process that it lives in; there is no caller that could hold them. */
#ifndef AT_INTERPOSE_INTERPOSE_H
#define AT_INTERPOSE_INTERPOSE_H

#include "devices/share_page.h"
#include "interpose/cuda_abi.h"

#include <stdbool.h>

struct cu_launch_config;
struct nvml_memory;
struct nvml_memory_v2;

#define EXPORTED __attribute__((visibility("default")))

/* Calls that are taken over: name, then parameters. Each is exported under its own name, and
 * answered for wherever the program asks for an address of the real one. */
#define TAKEN_OVER(X)                                                                              \
    X(cuInit, (unsigned flags))                                                                    \
    X(cuMemAlloc, (uint32_t * ret, unsigned bytes))                                                \
    X(cuMemAlloc_v2, (cu_ptr * ret, size_t bytes))                                                 \
    X(cuMemAllocPitch,                                                                             \
      (uint32_t * ret, unsigned *pitch, unsigned width, unsigned height, unsigned element))        \
    X(cuMemAllocPitch_v2,                                                                          \
      (cu_ptr * ret, size_t * pitch, size_t width, size_t height, unsigned element))               \
    X(cuMemAllocManaged, (cu_ptr * ret, size_t bytes, unsigned flags))                             \
    X(cuMemFree_v2, (cu_ptr at))                                                                   \
    X(cuMemAllocAsync, (cu_ptr * ret, size_t bytes, cu_handle stream))                             \
    X(cuMemAllocAsync_ptsz, (cu_ptr * ret, size_t bytes, cu_handle stream))                        \
    X(cuMemAllocFromPoolAsync, (cu_ptr * ret, size_t bytes, cu_handle pool, cu_handle stream))     \
    X(cuMemAllocFromPoolAsync_ptsz,                                                                \
      (cu_ptr * ret, size_t bytes, cu_handle pool, cu_handle stream))                              \
    X(cuMemFreeAsync, (cu_ptr at, cu_handle stream))                                               \
    X(cuMemFreeAsync_ptsz, (cu_ptr at, cu_handle stream))                                          \
    X(cuMemCreate, (cu_alloc_handle * ret, size_t bytes, const struct cu_alloc_prop *prop,         \
                    unsigned long long flags))                                                     \
    X(cuMemRelease, (cu_alloc_handle handle))                                                      \
    X(cuMemRetainAllocationHandle, (cu_alloc_handle * ret, void *at))                              \
    X(cuMemMap,                                                                                    \
      (cu_ptr at, size_t bytes, size_t offset, cu_alloc_handle handle, unsigned long long flags))  \
    X(cuMemUnmap, (cu_ptr at, size_t bytes))                                                       \
    X(cuArrayCreate_v2, (cu_handle * ret, const struct cu_array_desc *desc))                       \
    X(cuArray3DCreate_v2, (cu_handle * ret, const struct cu_array3d_desc *desc))                   \
    X(cuArrayDestroy, (cu_handle array))                                                           \
    X(cuMipmappedArrayCreate,                                                                      \
      (cu_handle * ret, const struct cu_array3d_desc *desc, unsigned levels))                      \
    X(cuMipmappedArrayDestroy, (cu_handle array))                                                  \
    X(cuGraphAddMemAllocNode, (cu_handle * ret, cu_handle graph, const cu_handle *after,           \
                               size_t n_after, struct cu_node_alloc *params))                      \
    X(cuMemGetInfo, (unsigned *ret_free, unsigned *ret_total))                                     \
    X(cuMemGetInfo_v2, (size_t * ret_free, size_t * ret_total))                                    \
    X(cuDeviceTotalMem_v2, (size_t * ret, cu_device device))                                       \
    X(cuCtxDestroy, (cu_handle context))                                                           \
    X(cuCtxDestroy_v2, (cu_handle context))                                                        \
    X(cuDevicePrimaryCtxRetain, (cu_handle * ret, cu_device device))                               \
    X(cuDevicePrimaryCtxRelease, (cu_device device))                                               \
    X(cuDevicePrimaryCtxRelease_v2, (cu_device device))                                            \
    X(cuDevicePrimaryCtxReset, (cu_device device))                                                 \
    X(cuDevicePrimaryCtxReset_v2, (cu_device device))                                              \
    X(cuLaunchKernel, (LAUNCH_PARAMETERS))                                                         \
    X(cuLaunchKernel_ptsz, (LAUNCH_PARAMETERS))                                                    \
    X(cuLaunchKernelEx, (const struct cu_launch_config *how, cu_handle f, void **p, void **extra)) \
    X(cuLaunchKernelEx_ptsz,                                                                       \
      (const struct cu_launch_config *how, cu_handle f, void **p, void **extra))                   \
    X(cuLaunchCooperativeKernel, (COOPERATIVE_PARAMETERS))                                         \
    X(cuLaunchCooperativeKernel_ptsz, (COOPERATIVE_PARAMETERS))                                    \
    X(cuGraphLaunch, (cu_handle graph, cu_handle stream))                                          \
    X(cuGraphLaunch_ptsz, (cu_handle graph, cu_handle stream))                                     \
    X(cuGetProcAddress, (const char *name, void **ret, int version, uint64_t flags))               \
    X(cuGetProcAddress_v2,                                                                         \
      (const char *name, void **ret, int version, uint64_t flags, int *ret_why))                   \
    X(nvmlDeviceGetMemoryInfo, (cu_handle device, struct nvml_memory * ret))                       \
    X(nvmlDeviceGetMemoryInfo_v2, (cu_handle device, struct nvml_memory_v2 * ret))

#define LAUNCH_PARAMETERS                                                                          \
    cu_handle f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,     \
        unsigned shared, cu_handle stream, void **p, void **extra
#define COOPERATIVE_PARAMETERS                                                                     \
    cu_handle f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,     \
        unsigned shared, cu_handle stream, void **p

/* Calls that are only made. */
#define MADE(X)                                                                                    \
    X(cuDeviceGetUuid, (struct cu_uuid * ret, cu_device device))                                   \
    X(cuDeviceGetUuid_v2, (struct cu_uuid * ret, cu_device device))                                \
    X(cuCtxGetCurrent, (cu_handle * ret))                                                          \
    X(cuCtxGetDevice, (cu_device * ret))                                                           \
    X(cuMemAdvise, (cu_ptr at, size_t bytes, int advice, cu_device device))                        \
    X(cuEventCreate, (cu_handle * ret, unsigned flags))                                            \
    X(cuEventRecord, (cu_handle event, cu_handle stream))                                          \
    X(cuEventRecord_ptsz, (cu_handle event, cu_handle stream))                                     \
    X(cuEventQuery, (cu_handle event))                                                             \
    X(cuEventElapsedTime, (float *ret_ms, cu_handle from, cu_handle to))                           \
    X(cuStreamIsCapturing, (cu_handle stream, int *ret))                                           \
    X(cuStreamIsCapturing_ptsz, (cu_handle stream, int *ret))                                      \
    X(cuThreadExchangeStreamCaptureMode, (int *mode))                                              \
    X(nvmlDeviceGetUUID, (cu_handle device, char *out, unsigned size))

struct cu_launch_config { /* CUlaunchConfig, its beginning */
    unsigned grid[3], block[3], shared_bytes;
    cu_handle stream;
};
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_memory_v2 {
    unsigned version;
    unsigned long long total, reserved, free, used;
};

/* The addresses of the real calls; NULL: this driver has no such call. */
struct real_calls {
#define FIELD(name, parameters) cu_result(*name) parameters;
    TAKEN_OVER(FIELD)
    MADE(FIELD)
#undef FIELD
};
#define DECLARE(name, parameters) EXPORTED cu_result name parameters;
TAKEN_OVER(DECLARE)
#undef DECLARE

/* resolve.c. The real calls, looked up once. Never NULL; all fields NULL without a driver. */
const struct real_calls *real(void);
const struct real_calls *real_nvml(void);
void *real_symbol(void *handle, const char *name);

/* share.c: the pages. */
#define NO_DEVICE (-1)
struct at_share_limits;
/* Map them and take a row. False: there is no share for this process; nothing is allowed then. */
bool share_attach(void);
/* The environment that NVIDIA's service (MPS) is found by, as the agent wants it. */
void share_mps_environment(void);
/* Position of a device in the pages. NO_DEVICE: it is not among what this instance was given. */
int share_device(cu_device device);
int share_device_of_uuid(const uint8_t uuid[AT_SHARE_UUID_BYTES]);
int share_device_current(void);                 /* of the calling thread's context */
int share_device_of_context(cu_handle context); /* which is the calling thread's; remembered */
void share_forget_contexts(void);               /* one is gone: its handle may mean another */
const struct at_share_limit *share_limit(int device);
uint64_t share_period_ns(void);
struct at_share_count *share_count(int device);
struct at_share_use *share_own(int device); /* this process's row */
int64_t share_used(int device, bool spill); /* by all processes of the instance */
bool share_reclaim(void); /* rows of processes that ended; true: some were given back */

enum book_kind { BOOK_ADDRESS, BOOK_SPILLED, BOOK_HANDLE, BOOK_MAPPING, BOOK_ARRAY };

/* memory.c. Take room before it is allocated, give it back when the allocation failed. */
bool memory_take(int device, uint64_t bytes);
void memory_give(int device, uint64_t bytes);
/* After the driver's answer: what was made stands in the book, what was refused gives back its
 * room. `inside`, set before the call, ends. Returns result. */
cu_result memory_made(enum book_kind kind, int device, uint64_t bytes, uint64_t key,
                      cu_result result);
int64_t memory_free_bytes(int device);
void memory_forget_context(cu_handle context); /* it is gone, with all that it held */

/* book.c: what this process holds, by address or handle. */
struct book_entry {
    uint64_t key; /* address or handle; never 0 */
    uint64_t bytes;
    uint64_t owner; /* context; of a mapping its handle */
    uint16_t device;
    uint8_t kind;
    uint8_t dead;   /* a tomb */
    uint32_t holds; /* of a handle: references and mappings */
};
void book_put(const struct book_entry *entry);
bool book_take(enum book_kind kind, uint64_t key, struct book_entry *ret);
bool book_change(enum book_kind kind, uint64_t key, int holds, struct book_entry *ret);
/* The next entry of owner from *cursor (0 at first) on, taken out; false: none left. */
bool book_take_of(uint64_t owner, size_t *cursor, struct book_entry *ret);
void book_forget_all(void); /* in the child of a fork */

/* launch.c */
void launch_forget_all(void);
void launch_forget_context(cu_handle context);

/* True while a call of ours is under way in this thread: what the driver calls then is its own
 * business. */
extern __thread bool inside __attribute__((tls_model("initial-exec")));

#endif
