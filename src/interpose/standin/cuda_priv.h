/* Shared by the files of the stand-in for libcuda. */
#ifndef AT_INTERPOSE_STANDIN_CUDA_PRIV_H
#define AT_INTERPOSE_STANDIN_CUDA_PRIV_H

#include "interpose/cuda_abi.h"
#include "interpose/standin/state.h"

#include <stdbool.h>

#define SHOWN __attribute__((visibility("default")))
#define CU_NOT_INITIALIZED 3

struct standin_state *standin_shared(void); /* NULL: not initialised */
int64_t standin_now_ns(void);
void standin_sleep_until(int64_t at);
bool standin_is_alive(int64_t pid);
int64_t standin_used_of(struct standin_device *device);

/* checkpoint.c. The row of a process; make: a new one when it has none. NULL: none. */
struct standin_checkpoint *standin_checkpoint_of(int64_t pid, bool make);
void standin_wait_unlocked(void); /* calls of a process that is locked wait */

#endif
