/* Which of NVIDIA's device files belong to which GPU, so that an instance sees its own only. */
#include "core/mem.h"
#include "core/str.h"
#include "devices/devices_priv.h"
#include "devices/share.h"
#include "sys/file.h"

#include <stdlib.h>
#include <string.h>

#define MINORS_MAX 256

/* The value of "Name:   value" among the lines. own: caller frees; NULL: it is not there. */
static char *value_of(const char *text, const char *name)
{
    struct at_str rest = at_str_of(text);
    while (rest.len > 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        if (at_str_starts(line, name) && line.ptr[strlen(name)] == ':') {
            const char *at = line.ptr + strlen(name) + 1, *end = line.ptr + line.len;
            while (at < end && (*at == ' ' || *at == '\t')) {
                at++;
            }
            return at_strndup(at, (size_t)(end - at));
        }
    }
    return NULL;
}

static bool is_among(const char *id, const char *const *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(id, ids[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Marks the minors of these GPUs; how many were found. */
static size_t find_minors(const char *proc_dir, const char *const *ids, size_t n,
                          bool ret[MINORS_MAX])
{
    char **names = NULL;
    size_t n_names = 0, found = 0;
    if (at_dir_list(proc_dir, &names, &n_names, NULL) != AT_OK) {
        return 0;
    }
    for (size_t i = 0; i < n_names; i++) {
        AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/%s", proc_dir, names[i]);
        AT_CLEANUP(at_cleanup_free) char *text = at_devices_text(dir, "information");
        AT_CLEANUP(at_cleanup_free) char *id = text != NULL ? value_of(text, "GPU UUID") : NULL;
        AT_CLEANUP(at_cleanup_free)
        char *minor = text != NULL ? value_of(text, "Device Minor") : NULL;
        uint64_t number;
        if (id != NULL && minor != NULL && is_among(id, ids, n) &&
            at_str_to_u64(at_str_of(minor), &number) == AT_OK && number < MINORS_MAX) {
            ret[number] = true;
            found++;
        }
        at_free(names[i]);
    }
    at_free(names);
    return found;
}

/* "nvidia" and a number. */
static bool is_gpu_file(const char *name, uint64_t *ret)
{
    return strncmp(name, "nvidia", 6) == 0 && name[6] >= '0' && name[6] <= '9' &&
           at_str_to_u64(at_str_of(name + 6), ret) == AT_OK;
}

size_t at_gpu_files_of_others(const char *proc_dir, const char *dev_dir, const char *const *ids,
                              size_t n, char *ret[AT_GPU_FILES_MAX])
{
    bool own[MINORS_MAX] = {false};
    char **names = NULL;
    size_t n_names = 0, count = 0;
    if (find_minors(proc_dir, ids, n, own) < n ||
        at_dir_list(dev_dir, &names, &n_names, NULL) != AT_OK) {
        return 0; /* rather all than not its own */
    }
    for (size_t i = 0; i < n_names; i++) {
        uint64_t minor;
        if (is_gpu_file(names[i], &minor) && (minor >= MINORS_MAX || !own[minor]) &&
            count < AT_GPU_FILES_MAX) {
            ret[count++] = at_asprintf("%s/%s", dev_dir, names[i]);
        }
        at_free(names[i]);
    }
    at_free(names);
    return count;
}
