/* A devices file gives a machine another size: its members replace what was found. */
#include "core/units.h"
#include "devices/devices_priv.h"

#include <stdio.h>
#include <string.h>

static const char *const RESOURCES[] = {"cpu", "memory", "disk", "gpu"};
#define N_RESOURCES (sizeof RESOURCES / sizeof RESOURCES[0])

static enum at_rc check_quantity(const json_t *value, const char *field, struct at_err *err)
{
    struct at_err inner = {0};
    int64_t unused;
    const char *text = json_string_value(value);
    if (text == NULL) {
        return at_err_set_field(err, AT_INVALID, field, "must be a quantity in quotes, as \"2\"");
    }
    if (at_quantity_milli(text, &unused, &inner) != AT_OK) {
        return at_err_set_field(err, AT_INVALID, field, "%s", inner.msg);
    }
    return AT_OK;
}

static enum at_rc check_resources(const json_t *given, const char *name, struct at_err *err)
{
    if (!json_is_object(given)) {
        return at_err_set_field(err, AT_INVALID, name, "must be an object");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)given, key, value)
    {
        char field[AT_ERR_FIELD_BYTES_MAX];
        snprintf(field, sizeof field, "%s.%s", name, key);
        bool known = false;
        for (size_t i = 0; i < N_RESOURCES; i++) {
            known = known || strcmp(key, RESOURCES[i]) == 0;
        }
        if (!known) {
            return at_err_set_field(err, AT_INVALID, field, "unknown resource");
        }
        enum at_rc rc = check_quantity(value, field, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static enum at_rc check_gpus(const json_t *gpus, struct at_err *err)
{
    if (!json_is_array(gpus) || json_array_size(gpus) > AT_DEVICES_GPUS_MAX) {
        return at_err_set_field(err, AT_INVALID, "gpus", "must be a list of at most %d GPUs",
                                AT_DEVICES_GPUS_MAX);
    }
    size_t i;
    json_t *gpu;
    json_array_foreach((json_t *)gpus, i, gpu)
    {
        char field[64];
        snprintf(field, sizeof field, "gpus[%zu].id", i);
        if (at_json_str_at(gpu, "id", NULL) == NULL) {
            return at_err_set_field(err, AT_INVALID, field, "is required");
        }
        snprintf(field, sizeof field, "gpus[%zu].memory", i);
        const json_t *memory = json_object_get(gpu, "memory");
        if (memory != NULL) {
            enum at_rc rc = check_quantity(memory, field, err);
            if (rc != AT_OK) {
                return rc;
            }
        }
    }
    return AT_OK;
}

static enum at_rc check(const json_t *file, struct at_err *err)
{
    if (!json_is_object(file)) {
        return at_err_set(err, AT_INVALID, "must be a JSON object");
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)file, key, value)
    {
        enum at_rc rc = AT_OK;
        if (strcmp(key, "capacity") == 0 || strcmp(key, "allocatable") == 0) {
            rc = check_resources(value, key, err);
        } else if (strcmp(key, "gpus") == 0) {
            rc = check_gpus(value, err);
        } else if ((strcmp(key, "arch") != 0 && strcmp(key, "kernel") != 0) ||
                   !json_is_string(value)) {
            rc = at_err_set_field(err, AT_INVALID, key,
                                  "unknown, or not text; capacity, allocatable, gpus, arch and "
                                  "kernel can be given");
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

enum at_rc at_devices_override(json_t *inventory, const json_t *file, struct at_err *err)
{
    enum at_rc rc = check(file, err);
    if (rc != AT_OK) {
        return rc;
    }
    json_t *capacity = json_object_get(inventory, "capacity");
    json_t *allocatable = json_object_get(inventory, "allocatable");
    json_t *gpus = json_object_get(file, "gpus");
    if (gpus != NULL) {
        char count[24];
        snprintf(count, sizeof count, "%zu", json_array_size(gpus));
        json_object_set(inventory, "gpus", gpus);
        json_object_set_new(capacity, "gpu", json_string(count));
        json_object_set_new(allocatable, "gpu", json_string(count));
    }
    /* A pretend machine keeps nothing back: what capacity says is allocatable, unless the file says
     * otherwise. */
    json_object_update(capacity, json_object_get(file, "capacity"));
    json_object_update(allocatable, json_object_get(file, "capacity"));
    json_object_update(allocatable, json_object_get(file, "allocatable"));
    for (size_t i = 0; i < 2; i++) {
        const char *name = i == 0 ? "arch" : "kernel";
        if (json_object_get(file, name) != NULL) {
            json_object_set(inventory, name, json_object_get(file, name));
        }
    }
    return AT_OK;
}
