/* What a machine has: CPUs, memory, disk, GPUs (NVML by dlopen; or a JSON file that describes
 * pretend ones). */
#ifndef AT_DEVICES_DEVICES_H
#define AT_DEVICES_DEVICES_H

#include "core/json.h"

/* JSON for Node.status: {"capacity": {cpu, memory, disk, gpu}, "allocatable": {...}, "gpus": [{id,
 * model, memory, numaNode, linkGroup}], "numaNodes", "arch", "kernel"}. file (may be NULL): a JSON
 * file whose members replace what was found, so that a test or a demo can give a machine another
 * size: {"capacity": {"cpu": "2"}, "gpus": [...]}. reserve: held back from allocatable. own: caller
 * decrefs. err: AT_INVALID the file, with field. Blocking, tens of ms. */
enum at_rc at_devices_inventory(const char *state_dir, const char *file, json_t **ret,
                                struct at_err *err) AT_WARN_UNUSED;

#endif
