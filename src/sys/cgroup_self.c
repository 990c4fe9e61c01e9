#include "sys/cgroup.h"

#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <stdint.h>

#define LIST_BYTES_MAX ((size_t)64 << 10)
#define LIMIT_BYTES_MAX 64
#define NO_LIMIT (UINT64_C(1) << 60) /* version 1 says "none" by a number near the largest */

static int64_t limit_in(const char *path)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    uint64_t bytes;
    if (at_file_read(path, LIMIT_BYTES_MAX, &text, NULL) != AT_OK) {
        return 0;
    }
    struct at_str rest = {text.data, text.len};
    struct at_str line = at_str_cut(&rest, '\n');
    return at_str_to_u64(line, &bytes) == AT_OK && bytes < NO_LIMIT ? (int64_t)bytes : 0;
}

/* The group at its place in the tree, or, seen from inside a container, at the tree's root. */
static int64_t limit_of(const char *tree, const char *file, struct at_str group)
{
    AT_CLEANUP(at_cleanup_free)
    char *own = at_asprintf("%s%.*s/%s", tree, (int)group.len, group.ptr, file);
    AT_CLEANUP(at_cleanup_free) char *root = at_asprintf("%s/%s", tree, file);
    int64_t limit = limit_in(own);
    return limit != 0 ? limit : limit_in(root);
}

int64_t at_cgroup_self_memory(void)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf list = {0};
    int64_t least = 0;
    if (at_file_read("/proc/self/cgroup", LIST_BYTES_MAX, &list, NULL) != AT_OK) {
        return 0;
    }
    struct at_str rest = {list.data, list.len};
    while (rest.len != 0) { /* number:controllers:group */
        struct at_str group = at_str_cut(&rest, '\n');
        at_str_cut(&group, ':');
        struct at_str controllers = at_str_cut(&group, ':');
        int64_t limit = 0;
        if (at_str_eq(controllers, "memory")) {
            limit = limit_of("/sys/fs/cgroup/memory", "memory.limit_in_bytes", group);
        } else if (controllers.len == 0) {
            limit = limit_of("/sys/fs/cgroup", "memory.max", group);
        }
        least = limit != 0 && (least == 0 || limit < least) ? limit : least;
    }
    return least;
}
