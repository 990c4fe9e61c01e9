/* An instance's share of GPUs: the folder that libatoll-gpu.so reads its limits from
 * (share_page.h), and what NVML says that processes really use. Any thread; blocking. */
#ifndef AT_DEVICES_SHARE_H
#define AT_DEVICES_SHARE_H

#include "core/err.h"
#include "devices/share_page.h"

#include <sys/types.h>

struct at_share_want {
    const char *id; /* "GPU-..." or "MIG-...", as NVML names it */
    int64_t memory_bytes, spill_bytes;
};

/* What the instance's own processes say. */
struct at_share_seen {
    int64_t memory_bytes,
        spill_bytes; /* of all of them, dead ones included until they are missed */
    int64_t launches, waited_ns, refused;
};

/* Can a share of that device be enforced here? Pretended devices have other names. */
bool at_share_is_enforceable(const char *id);

/* Make the folder, or take up the one of an earlier run with its usage page; limits are written
 * anew. The folder holds the library, both pages, and `preload`, which is to be shown to the
 * instance as /etc/ld.so.preload. err: AT_INVALID more than AT_SHARE_DEVICES_MAX or no such id. */
enum at_rc at_share_make(const char *dir, const struct at_share_want *wants, size_t n,
                         struct at_err *err) AT_WARN_UNUSED;
/* These hold at once for processes that run. device: position in wants. */
enum at_rc at_share_set_memory(const char *dir, size_t device, int64_t memory_bytes,
                               int64_t spill_bytes, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_share_set_beside(const char *dir, size_t device, int64_t bytes,
                               struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_share_set_slot(const char *dir, size_t device, int64_t offset_us, int64_t length_us,
                             struct at_err *err) AT_WARN_UNUSED;
/* Its processes are clients of NVIDIA's service (mps.h) from the next start of one on. pipe NULL:
 * they are not. err: AT_TOO_LARGE pipe. */
enum at_rc at_share_set_mps(const char *dir, const char *pipe, int64_t percent,
                            int64_t memory_bytes, struct at_err *err) AT_WARN_UNUSED;
#define AT_SHARE_PERIOD_US 100000
/* What it says is only bounded, not believed. A page that was cut off reads as zeros. */
void at_share_see(const char *dir, size_t n, struct at_share_seen ret[AT_SHARE_DEVICES_MAX]);

/* NVIDIA's device files (/dev/nvidia0, ...) of GPUs other than these, which names whole ones, as
 * paths below dev_dir; all of them for n = 0. Nothing when the driver does not tell which files
 * those of ids are. own: caller frees each. */
#define AT_GPU_FILES_MAX 64
#define AT_GPU_PROC_DIR "/proc/driver/nvidia/gpus"
size_t at_gpu_files_of_others(const char *proc_dir, const char *dev_dir, const char *const *ids,
                              size_t n, char *ret[AT_GPU_FILES_MAX]);

/* Memory of one process on one device, as the driver knows it. */
struct at_gpu_use {
    char id[96];
    pid_t pid;
    int64_t memory_bytes;
};
#define AT_GPU_USES_MAX 1024
/* A GPU on which nothing can run any more. */
struct at_gpu_fault {
    char id[96];
    char why[96];
};
#define AT_GPU_FAULTS_MAX 64
/* own: at_gpu_watch_free. library NULL: NVIDIA's. */
struct at_gpu_watch;
struct at_gpu_watch *at_gpu_watch_new(const char *library);
void at_gpu_watch_free(struct at_gpu_watch *watch);
/* What runs on each device, to ret[0..max). One call at a time; may take long when a driver hangs.
 * A value that cannot be (more than the device has) is left out. AT_NOT_FOUND: this machine has no
 * NVML. */
enum at_rc at_gpu_watch_look(struct at_gpu_watch *watch, struct at_gpu_use *ret, size_t max,
                             size_t *ret_n) AT_WARN_UNUSED;
/* Devices of which the looks so far found that they are lost, or told of a fault (XID) that no
 * program can have caused. A lost one that answers again is none; an XID stays until the watch is
 * made anew. */
size_t at_gpu_watch_faults(const struct at_gpu_watch *watch,
                           struct at_gpu_fault ret[AT_GPU_FAULTS_MAX]);

#endif
