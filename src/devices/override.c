/* A devices file gives a machine another size: its members replace what was found. */
#include "core/units.h"
#include "devices/devices_priv.h"

#include <stdio.h>
#include <string.h>

static const char *const RESOURCES[] = {"cpu", "memory", "disk", "gpu"};
#define EXTENDED_MAX 16 /* as many as the scheduler looks at */
#define EXTENDED_NAME_MAX 128
#define EXTENDED_DIGITS_MAX 15
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
        snprintf(field, sizeof field, "gpus[%zu].linkGroup", i);
        const json_t *link = json_object_get(gpu, "linkGroup");
        if (link != NULL && !json_is_string(link)) {
            return at_err_set_field(err, AT_INVALID, field, "must be text");
        }
        snprintf(field, sizeof field, "gpus[%zu].numaNode", i);
        const json_t *numa = json_object_get(gpu, "numaNode");
        if (numa != NULL && !json_is_integer(numa)) {
            return at_err_set_field(err, AT_INVALID, field, "must be a number");
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

/* Small whole numbers and quantities of each NUMA node. */
static enum at_rc check_numa(const json_t *list, struct at_err *err)
{
    if (!json_is_array(list) || json_array_size(list) > AT_DEVICES_NUMA_MAX) {
        return at_err_set_field(err, AT_INVALID, "numaNodes", "must be a list of at most %d nodes",
                                AT_DEVICES_NUMA_MAX);
    }
    size_t i;
    json_t *numa;
    json_array_foreach((json_t *)list, i, numa)
    {
        char field[64];
        snprintf(field, sizeof field, "numaNodes[%zu].id", i);
        json_int_t id = json_integer_value(json_object_get(numa, "id"));
        if (!json_is_integer(json_object_get(numa, "id")) || id < 0 || id > 1023) {
            return at_err_set_field(err, AT_INVALID, field, "must be a number from 0 to 1023");
        }
        static const char *const AMOUNTS[] = {"cpu", "memory"};
        for (size_t k = 0; k < 2; k++) {
            snprintf(field, sizeof field, "numaNodes[%zu].%s", i, AMOUNTS[k]);
            const json_t *value = json_object_get(numa, AMOUNTS[k]);
            enum at_rc rc = value != NULL ? check_quantity(value, field, err) : AT_OK;
            if (rc != AT_OK) {
                return rc;
            }
        }
    }
    return AT_OK;
}

/* Whole numbers of anything: FPGAs, licences, instruments. */
static enum at_rc check_extended(const json_t *given, struct at_err *err)
{
    if (!json_is_object(given) || json_object_size(given) > EXTENDED_MAX) {
        return at_err_set_field(err, AT_INVALID, "extended",
                                "must be an object of at most %d resources", EXTENDED_MAX);
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)given, key, value)
    {
        char field[AT_ERR_FIELD_BYTES_MAX];
        snprintf(field, sizeof field, "extended.%s", key);
        const char *slash = strchr(key, '/'), *text = json_string_value(value);
        if (slash == NULL || slash == key || slash[1] == '\0' || strlen(key) > EXTENDED_NAME_MAX) {
            return at_err_set_field(err, AT_INVALID, field,
                                    "the name must have a maker and a resource: example.com/fpga");
        }
        if (text == NULL || text[0] == '\0' || strlen(text) > EXTENDED_DIGITS_MAX ||
            strspn(text, "0123456789") != strlen(text)) {
            return at_err_set_field(err, AT_INVALID, field,
                                    "must be a whole number in quotes, as \"2\"");
        }
    }
    return AT_OK;
}

static enum at_rc check_member(const char *key, const json_t *value, struct at_err *err)
{
    if (strcmp(key, "capacity") == 0 || strcmp(key, "allocatable") == 0) {
        return check_resources(value, key, err);
    }
    if (strcmp(key, "gpus") == 0) {
        return check_gpus(value, err);
    }
    if (strcmp(key, "numaNodes") == 0) {
        return check_numa(value, err);
    }
    if (strcmp(key, "extended") == 0) {
        return check_extended(value, err);
    }
    if ((strcmp(key, "arch") == 0 || strcmp(key, "kernel") == 0) && json_is_string(value)) {
        return AT_OK;
    }
    return at_err_set_field(
        err, AT_INVALID, key,
        "unknown, or not text; capacity, allocatable, gpus, extended, numaNodes, "
        "arch and kernel can be given");
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
        enum at_rc rc = check_member(key, value, err);
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
    json_t *extended = json_object_get(file, "extended");
    if (extended != NULL) {
        json_object_set(capacity, "extended", extended);
        json_object_set(allocatable, "extended", extended);
    }
    /* A pretend machine keeps nothing back: what capacity says is allocatable, unless the file says
     * otherwise. */
    json_object_update(capacity, json_object_get(file, "capacity"));
    json_object_update(allocatable, json_object_get(file, "capacity"));
    json_object_update(allocatable, json_object_get(file, "allocatable"));
    static const char *const REPLACED[] = {"arch", "kernel", "numaNodes"};
    for (size_t i = 0; i < sizeof REPLACED / sizeof REPLACED[0]; i++) {
        const char *name = REPLACED[i];
        if (json_object_get(file, name) != NULL) {
            json_object_set(inventory, name, json_object_get(file, name));
        }
    }
    return AT_OK;
}
