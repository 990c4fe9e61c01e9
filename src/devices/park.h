/* What processes hold of GPUs, put away into the machine's memory and brought back: by the
 * checkpoint calls of NVIDIA's driver (570 or newer, x86-64), from outside, whatever the processes
 * are. Between the two their calls to the driver wait. Blocking, for as long as the copies take;
 * each call may be repeated, also after one that was cut off: what is where it should be stays. */
#ifndef AT_DEVICES_PARK_H
#define AT_DEVICES_PARK_H

#include "core/err.h"

#include <sys/types.h>

#define AT_GPU_PARK_PIDS_MAX 1024
#define AT_GPU_PARK_LOCK_MS 10000 /* work that is under way may take so long */

/* How it ended, also as the exit status of the process that does it. */
enum at_gpu_park_end {
    AT_GPU_PARK_DONE,
    AT_GPU_PARK_NOTHING = 10, /* none of the processes uses a GPU */
    AT_GPU_PARK_UNSUPPORTED,  /* this driver cannot */
    AT_GPU_PARK_BUSY,         /* work on the GPU did not end in time; all as before */
    AT_GPU_PARK_REFUSED,      /* the driver refused; all as before */
    AT_GPU_PARK_NO_ROOM,      /* to come back; all is still parked */
    AT_GPU_PARK_BROKEN,       /* some process cannot go on: end them */
};

/* library NULL: NVIDIA's. why: for people. Processes that use no GPU may be among pids. */
enum at_gpu_park_end at_gpu_park(const char *library, const pid_t *pids, size_t n,
                                 struct at_err *why);
enum at_gpu_park_end at_gpu_unpark(const char *library, const pid_t *pids, size_t n,
                                   struct at_err *why);

#endif
