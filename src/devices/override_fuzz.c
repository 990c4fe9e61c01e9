#include "devices/devices_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A devices file, over a plain inventory: refused, or what comes out is an inventory still. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *file = NULL;
    struct at_err err;
    if (at_json_parse((const char *)data, size, &file, &err) != AT_OK) {
        return 0;
    }
    json_t *inventory = json_pack("{s:{s:s}, s:{s:s}, s:[], s:s, s:s}", "capacity", "cpu", "1",
                                  "allocatable", "cpu", "1", "gpus", "arch", "a", "kernel", "k");
    if (at_devices_override(inventory, file, &err) == AT_OK &&
        (!json_is_string(at_json_at(inventory, "capacity.cpu")) ||
         !json_is_string(at_json_at(inventory, "allocatable.cpu")) ||
         !json_is_array(json_object_get(inventory, "gpus")))) {
        abort();
    }
    json_decref(inventory);
    json_decref(file);
    return 0;
}
