#include "sys/file.h"

#include "core/mem.h"
#include "sys/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Deeper trees are refused by at_tree_remove: each level holds a descriptor. */
#define TREE_DEPTH_MAX 200

static bool is_dot(const char *name)
{
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

enum at_rc at_dir_make(const char *path, mode_t mode, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(path);
    for (char *p = copy + 1; copy[0] != '\0'; p++) {
        if (*p != '/' && *p != '\0') {
            continue;
        }
        char kept = *p;
        *p = '\0';
        if (mkdir(copy, mode) != 0) {
            int why = errno;
            struct stat st;
            if (stat(copy, &st) != 0) {
                return at_err_set_errno(err, why, "cannot make folder %s", copy);
            }
            if (!S_ISDIR(st.st_mode)) {
                return at_err_set_errno(err, ENOTDIR, "cannot make folder %s", copy);
            }
        }
        *p = kept;
        if (kept == '\0') {
            break;
        }
    }
    return AT_OK;
}

enum at_rc at_dir_make_temp(const char *prefix, char **ret, struct at_err *err)
{
    const char *base = at_sys_getenv("TMPDIR");
    char *path =
        at_asprintf("%s/%s-XXXXXX", base != NULL && base[0] != '\0' ? base : "/tmp", prefix);
    if (mkdtemp(path) == NULL) {
        enum at_rc rc = at_err_set_errno(err, errno, "cannot make folder %s", path);
        at_free(path);
        return rc;
    }
    *ret = path;
    return AT_OK;
}

static int remove_at(int dir_fd, const char *name, int depth);

static int remove_children(int fd, int depth)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        close(fd);
        return -1;
    }
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (entry = readdir(dir)) != NULL) {
        if (!is_dot(entry->d_name)) {
            result = remove_at(dirfd(dir), entry->d_name, depth + 1);
        }
    }
    int why = errno;
    closedir(dir);
    errno = why;
    return result;
}

static int remove_at(int dir_fd, const char *name, int depth)
{
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return -1;
    }
    if (depth > TREE_DEPTH_MAX) {
        errno = ELOOP;
        return -1;
    }
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || remove_children(fd, depth) != 0) {
        return -1;
    }
    return unlinkat(dir_fd, name, AT_REMOVEDIR);
}

enum at_rc at_tree_remove(const char *path, struct at_err *err)
{
    if (remove_at(AT_FDCWD, path, 0) != 0) {
        return at_err_set_errno(err, errno, "cannot remove %s", path);
    }
    return AT_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum at_rc at_dir_list(const char *path, char ***ret_names, size_t *ret_count, struct at_err *err)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return at_err_set_errno(err, errno, "cannot list %s", path);
    }
    char **names = NULL;
    size_t count = 0;
    size_t room = 0;
    struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (is_dot(entry->d_name)) {
            continue;
        }
        if (count == room) {
            room = room != 0 ? room * 2 : 16;
            names = at_realloc(names, room * sizeof *names);
        }
        names[count++] = at_strdup(entry->d_name);
    }
    closedir(dir);
    if (count > 1) {
        qsort(names, count, sizeof *names, by_name);
    }
    *ret_names = names;
    *ret_count = count;
    return AT_OK;
}
