#include "devices/devices.h"

#include "core/mem.h"
#include "core/units.h"
#include "devices/devices_priv.h"
#include "sys/file.h"
#include "sys/machine.h"

#include <stdio.h>

#define MIB (INT64_C(1) << 20)
/* Held back for the system and the agent: a twentieth, between these. */
#define RESERVE_MEMORY_MIN (128 * MIB)
#define RESERVE_MEMORY_MAX (1024 * MIB)

static int64_t reserve_memory(int64_t total)
{
    int64_t reserve = total / 20;
    reserve = reserve < RESERVE_MEMORY_MIN ? RESERVE_MEMORY_MIN : reserve;
    reserve = reserve > RESERVE_MEMORY_MAX ? RESERVE_MEMORY_MAX : reserve;
    return reserve < total / 2 ? reserve : total / 2;
}

static void set_bytes(json_t *object, const char *key, int64_t bytes)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    int64_t whole = bytes > 16 * MIB ? bytes / MIB * MIB : bytes; /* short to read */
    json_object_set_new(object, key, json_string(at_quantity_format_bytes(whole, text)));
}

static json_t *resources(int64_t cpus, int64_t memory, int64_t disk, size_t gpus)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    json_t *r = json_object();
    json_object_set_new(r, "cpu", json_string(at_quantity_format_milli(cpus * 1000, text)));
    set_bytes(r, "memory", memory);
    set_bytes(r, "disk", disk);
    json_object_set_new(r, "gpu",
                        json_string(at_quantity_format_milli((int64_t)gpus * 1000, text)));
    return r;
}

static enum at_rc apply_file(json_t *inventory, const char *file, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    AT_CLEANUP(at_cleanup_json) json_t *given = NULL;
    enum at_rc rc = at_file_read(file, AT_DEVICES_FILE_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = at_json_parse(text.data != NULL ? text.data : "", text.len, &given, err);
    if (rc != AT_OK) {
        at_err_wrap(err, rc, "devices file %s", file);
        if (err != NULL) {
            err->rc = AT_INVALID;
        }
        return AT_INVALID;
    }
    rc = at_devices_override(inventory, given, err);
    return rc == AT_OK ? AT_OK : at_err_wrap(err, rc, "devices file %s", file);
}

enum at_rc at_devices_inventory(const char *state_dir, const char *file, json_t **ret,
                                struct at_err *err)
{
    struct at_machine machine;
    int64_t disk_total, disk_free;
    at_machine_read(&machine);
    enum at_rc rc = at_machine_disk(state_dir, &disk_total, &disk_free, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_t *gpus = json_array();
    at_devices_nvml(AT_DEVICES_NVML, gpus);
    at_devices_sysfs(AT_DEVICES_DRM_DIR, gpus);
    size_t n_gpus = json_array_size(gpus);
    json_t *numa = json_array();
    at_devices_numa(AT_DEVICES_NUMA_DIR, numa);
    int64_t memory = machine.memory_bytes;
    AT_CLEANUP(at_cleanup_json)
    json_t *inventory = json_pack(
        "{s:o, s:o, s:o, s:o, s:s, s:s}", "capacity",
        resources(machine.cpus, memory, disk_total, n_gpus), "allocatable",
        resources(machine.cpus, memory - reserve_memory(memory), disk_free / 20 * 19, n_gpus),
        "gpus", gpus, "numaNodes", numa, "arch", machine.arch, "kernel", machine.kernel);
    if (file != NULL) {
        rc = apply_file(inventory, file, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    *ret = json_incref(inventory);
    return AT_OK;
}
