/* The two pages between the agent and libatoll-gpu.so: what an instance may use of its GPUs, and
 * what its processes say that they use.
 *
 *   limits  written by the agent, mapped read-only by the instance's processes. Changes of a field
 *           hold at once: a share is resized while it runs.
 *   usage   written by the instance's processes. Nothing that is decided for others rests on it:
 *           the agent measures by itself (NVML) and believes that.
 *
 * Both lie in one folder beside the library that reads them: it finds them by its own path, so that
 * no variable of the environment has a say. Plain 64-bit words, one machine, one byte order.
 * thread: all fields by atomic loads and stores; a page needs no lock. */
#ifndef AT_DEVICES_SHARE_PAGE_H
#define AT_DEVICES_SHARE_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define AT_SHARE_MAGIC UINT64_C(0x31657261685f7461) /* "at_share1" cut to a word */
#define AT_SHARE_DEVICES_MAX 16
#define AT_SHARE_PROCESSES_MAX 256
#define AT_SHARE_UUID_BYTES 16

#define AT_SHARE_LIBRARY_NAME "libatoll-gpu.so"
#define AT_SHARE_LIMITS_NAME "limits"
#define AT_SHARE_USAGE_NAME "usage"

/* Compute is shared by turns: of each period a device's instances get a slot each, cut by
 * CLOCK_MONOTONIC, the same clock for all processes of a machine. One word, so that a reader never
 * sees half of a change. A slot of 0 length: no turns, the whole period is open. */
#define AT_SHARE_SLOT(offset_us, length_us) ((uint64_t)(offset_us) << 32 | (uint32_t)(length_us))
#define AT_SHARE_SLOT_OFFSET_US(slot) ((uint32_t)((slot) >> 32))
#define AT_SHARE_SLOT_LENGTH_US(slot) ((uint32_t)(slot))

struct at_share_limit {
    uint8_t uuid[AT_SHARE_UUID_BYTES];
    uint64_t memory_bytes; /* all that its processes may hold together */
    uint64_t beside_bytes; /* of these, what the agent measured beside their allocations: contexts,
                              code, pools that keep what was freed */
    uint64_t spill_bytes; /* what may go to host memory when memory_bytes are used up; 0: nothing */
    uint64_t slot;        /* AT_SHARE_SLOT */
    uint64_t reserved[9];
};

/* NVIDIA's Multi-Process Service, for an instance that runs under it: what the driver takes from
 * the environment when it is initialised, put there by the library, whatever the program had put.
 */
struct at_share_mps {
    uint64_t percent; /* of the processors; 0: no service */
    uint64_t memory_mib;
    char pipe[240]; /* folder of its pipes */
};

struct at_share_limits {
    uint64_t magic;
    uint64_t n_devices;
    uint64_t period_us; /* of the slots */
    uint64_t reserved[5];
    struct at_share_limit devices[AT_SHARE_DEVICES_MAX];
    struct at_share_mps mps;
};

/* Of one device, by one process. */
struct at_share_use {
    int64_t memory_bytes; /* allocated and not freed */
    int64_t spill_bytes;
};

/* A process holds an open-file-description write lock on byte 1 + its index of the file: the kernel
 * lets go of it however the process ends. Whoever gets the lock may set the row to zero. */
struct at_share_process {
    int64_t pid; /* 0: free. In the process's own PID namespace */
    struct at_share_use devices[AT_SHARE_DEVICES_MAX];
};

/* Of one device, by all processes since the share was made. */
struct at_share_count {
    uint64_t launches;    /* kernels and graphs */
    uint64_t waited_ns;   /* time that launches waited for their turn */
    uint64_t refused;     /* allocations that found no room */
    uint64_t allocations; /* made */
    uint64_t reserved[4];
};

struct at_share_usage {
    uint64_t magic;
    uint64_t rows; /* of processes that were ever in use: later ones need no look */
    uint64_t reserved[6];
    struct at_share_count counts[AT_SHARE_DEVICES_MAX];
    struct at_share_process processes[AT_SHARE_PROCESSES_MAX];
};

/* "GPU-..." or "MIG-...", as NVML names a device: the identity in hexadecimal digits with dashes.
 * In the header, as the library is linked with nothing of Atoll. */
static inline bool at_share_parse_id(const char *id, uint8_t uuid[AT_SHARE_UUID_BYTES])
{
    unsigned n = 0;
    if (id == NULL || (strncmp(id, "GPU-", 4) != 0 && strncmp(id, "MIG-", 4) != 0)) {
        return false;
    }
    for (const char *c = id + 4; *c != '\0'; c++) {
        int lower = *c | 0x20;
        int digit = *c >= '0' && *c <= '9'         ? *c - '0'
                    : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10
                                                   : -1;
        if (*c == '-') {
            continue;
        }
        if (digit < 0 || n == 2 * AT_SHARE_UUID_BYTES) {
            return false;
        }
        uuid[n / 2] = (uint8_t)(uuid[n / 2] << 4 | digit);
        n++;
    }
    return n == 2 * AT_SHARE_UUID_BYTES;
}

#endif
