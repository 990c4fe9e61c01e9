/* GPUs of other makers, from the kernel's files: amdgpu, i915 and xe tell what they have. */
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "devices/devices_priv.h"
#include "sys/file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VENDOR_AMD 0x1002
#define VENDOR_INTEL 0x8086
#define BAR_MEMORY 2 /* region of an Intel GPU through which its memory shows */
#define OWN_MEMORY_MIN (INT64_C(1) << 30) /* less: it lives on the machine's memory */

static int64_t number_at(const char *folder, const char *name, int base)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_devices_text(folder, name);
    return text != NULL ? strtoll(text, NULL, base) : -1;
}

/* "PCI_SLOT_NAME=0000:03:00.0" among the lines of uevent. own: caller frees. */
static char *slot_of(const char *folder)
{
    static const char KEY[] = "PCI_SLOT_NAME=";
    AT_CLEANUP(at_cleanup_free) char *text = at_devices_text(folder, "uevent");
    struct at_str rest = at_str_of(text != NULL ? text : "");
    while (rest.len > 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        if (at_str_starts(line, KEY)) {
            return at_strndup(line.ptr + strlen(KEY), line.len - strlen(KEY));
        }
    }
    return NULL;
}

/* Lines of `resource` are first and last address and flags of each region. */
static int64_t region_bytes(const char *folder, int region)
{
    AT_CLEANUP(at_cleanup_free) char *text = at_devices_text(folder, "resource");
    struct at_str rest = at_str_of(text != NULL ? text : "");
    for (int i = 0; rest.len > 0; i++) {
        struct at_str line = at_str_cut(&rest, '\n');
        AT_CLEANUP(at_cleanup_free) char *row = at_strndup(line.ptr, line.len);
        char *end;
        unsigned long long first = strtoull(row, &end, 16), last = strtoull(end, NULL, 16);
        if (i == region) {
            return last > first && last - first < 1ull << 50 ? (int64_t)(last - first + 1) : 0;
        }
    }
    return 0;
}

struct found {
    const char *vendor;
    char *id;
    int64_t memory_bytes;
};

/* Its identity is the one that ROCR_VISIBLE_DEVICES takes. */
static bool look_amd(const char *folder, struct found *ret)
{
    AT_CLEANUP(at_cleanup_free) char *unique = at_devices_text(folder, "unique_id");
    AT_CLEANUP(at_cleanup_free) char *slot = slot_of(folder);
    ret->vendor = "AMD";
    ret->memory_bytes = number_at(folder, "mem_info_vram_total", 10);
    ret->id = unique != NULL && unique[0] != '\0' ? at_asprintf("GPU-%s", unique)
              : slot != NULL                      ? at_asprintf("AMD-%s", slot)
                                                  : NULL;
    return ret->id != NULL && ret->memory_bytes >= OWN_MEMORY_MIN;
}

static bool look_intel(const char *card, const char *folder, struct found *ret)
{
    AT_CLEANUP(at_cleanup_free) char *slot = slot_of(folder);
    int64_t told = number_at(card, "lmem_total_bytes", 10);
    ret->vendor = "Intel";
    ret->memory_bytes = told > 0 ? told : region_bytes(folder, BAR_MEMORY);
    ret->id = slot != NULL ? at_asprintf("INTEL-%s", slot) : NULL;
    /* The same region of a built-in GPU shows the machine's memory, 256 MiB of it. */
    return ret->id != NULL && ret->memory_bytes >= OWN_MEMORY_MIN;
}

static json_t *describe(const char *folder, const struct found *found)
{
    char memory[AT_UNITS_TEXT_BYTES_MAX];
    AT_CLEANUP(at_cleanup_free) char *product = at_devices_text(folder, "product_name");
    AT_CLEANUP(at_cleanup_free) char *device = at_devices_text(folder, "device");
    AT_CLEANUP(at_cleanup_free)
    char *model = product != NULL && product[0] != '\0'
                      ? at_strdup(product)
                      : at_asprintf("%s %s", found->vendor, device != NULL ? device : "GPU");
    at_quantity_format_bytes(found->memory_bytes >> 20 << 20, memory);
    json_t *gpu = json_pack("{s:s, s:s, s:s, s:s}", "id", found->id, "model", model, "memory",
                            memory, "vendor", found->vendor);
    int64_t numa = number_at(folder, "numa_node", 10);
    if (gpu != NULL && numa >= 0) {
        json_object_set_new(gpu, "numaNode", json_integer((json_int_t)numa));
    }
    return gpu;
}

/* "card" and a number: connectors stand beside it as card0-DP-1. */
static bool is_card(const char *name)
{
    const char *digits = strncmp(name, "card", 4) == 0 ? name + 4 : "";
    return digits[0] != '\0' && strspn(digits, "0123456789") == strlen(digits);
}

static void add_card(const char *drm_dir, const char *name, json_t *gpus)
{
    AT_CLEANUP(at_cleanup_free) char *card = at_asprintf("%s/%s", drm_dir, name);
    AT_CLEANUP(at_cleanup_free) char *folder = at_asprintf("%s/device", card);
    int64_t vendor = number_at(folder, "vendor", 16);
    struct found found = {0};
    bool ok = vendor == VENDOR_AMD     ? look_amd(folder, &found)
              : vendor == VENDOR_INTEL ? look_intel(card, folder, &found)
                                       : false;
    json_t *gpu = ok ? describe(folder, &found) : NULL; /* NULL too for a name that is no UTF-8 */
    if (gpu != NULL) {
        json_array_append_new(gpus, gpu);
    }
    at_free(found.id);
}

/* card2 before card10. */
static int by_number(const void *a, const void *b)
{
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    size_t n = strlen(x), m = strlen(y);
    return n != m ? (n > m) - (n < m) : strcmp(x, y);
}

void at_devices_sysfs(const char *drm_dir, json_t *gpus)
{
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(drm_dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    if (n > 0) {
        qsort(names, n, sizeof *names, by_number);
    }
    for (size_t i = 0; i < n; i++) {
        if (is_card(names[i]) && json_array_size(gpus) < AT_DEVICES_GPUS_MAX) {
            add_card(drm_dir, names[i], gpus);
        }
        at_free(names[i]);
    }
    at_free(names);
}
