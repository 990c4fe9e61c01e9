/* NVIDIA's Multi-Process Service (MPS) for one GPU or one part made by MIG: its programs run at the
 * same time, each within a part of the processors and of the memory. The service is NVIDIA's own
 * program, nvidia-cuda-mps-control, which starts a server for the first client and answers commands
 * on its standard input. Any thread; blocking, for the worker pool. */
#ifndef AT_DEVICES_MPS_H
#define AT_DEVICES_MPS_H

#include "core/err.h"

#include <stdbool.h>
#include <stdint.h>

#define AT_MPS_PROGRAM "nvidia-cuda-mps-control"
#define AT_MPS_PIPE_NAME "p" /* below `dir`: what clients take as CUDA_MPS_PIPE_DIRECTORY */

struct at_mps_service {
    const char *control; /* path of the program */
    const char *dir;  /* of this service alone: its pipes, its log, what the GPU was like before */
    const char *gpu;  /* "GPU-..." or "MIG-..." */
    const char *nvml; /* library; NULL: NVIDIA's */
    /* The most that any client may have: a client's own words make it less, never more. */
    int64_t percent, memory_bytes;
};

/* The program: given, or found on PATH. err: AT_NOT_FOUND with where it was looked for. own: caller
 * frees. */
enum at_rc at_mps_find(const char *given, char **ret, struct at_err *err) AT_WARN_UNUSED;
/* Start it, or take up one that runs from before; then GPU's other users are kept out (compute mode
 * EXCLUSIVE_PROCESS, of whole GPUs). err: AT_UPSTREAM with what it said; AT_TIMEOUT; AT_TOO_LARGE
 * the folder's name is too long for a socket. */
enum at_rc at_mps_start(const struct at_mps_service *mps, struct at_err *err) AT_WARN_UNUSED;
/* Does its control process live? Cheap, for any thread. */
bool at_mps_is_alive(const char *dir);
/* Put percent and memory_bytes in force: for servers to come, and for new clients of those that
 * run. */
enum at_rc at_mps_limit(const struct at_mps_service *mps, struct at_err *err) AT_WARN_UNUSED;
/* End it, by force if need be, and give the GPU back its compute mode. Nothing there: AT_OK. */
enum at_rc at_mps_stop(const struct at_mps_service *mps, struct at_err *err) AT_WARN_UNUSED;
/* The GPU whose service a folder is; NULL: none. own: caller frees. */
char *at_mps_gpu_of(const char *dir);

#endif
