#include "sys/cgroup.h"

#include "core/mem.h"
#include "core/str.h"
#include "sys/file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CPU_PERIOD_US 100000
#define DIRS_MAX 5
#define KILL_ROUNDS_MAX 200
#define ROUND_NS 5000000
#define SWEEP_AGE_S 10

/* Version 1 keeps one tree per controller; version 2 one tree for all (only DIR_V2 is used). */
enum dir_kind { DIR_CPU, DIR_CPUACCT, DIR_MEMORY, DIR_PIDS, DIR_V2 };
static const char *const V1_CONTROLLERS[] = {"cpu", "cpuacct", "memory", "pids"};

struct at_cgroup {
    char *dirs[DIRS_MAX];
    char *procs[DIRS_MAX + 1];
    size_t n_procs;
    char *root[DIRS_MAX]; /* mount points */
    char *name;
    char *lack; /* what could not be limited, or NULL */
};

static bool write_text(const char *dir, const char *file, const char *text)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text);
}

static bool read_text(const char *dir, const char *file, struct at_buf *out)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, file);
    at_buf_clear(out);
    return at_file_read(path, 1 << 20, out, NULL) == AT_OK && out->data != NULL;
}

/* Value after key in "key value" lines; -1 when absent. */
static int64_t keyed_value(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *p = text; p != NULL && *p != '\0';) {
        if (strncmp(p, key, len) == 0 && p[len] == ' ') {
            long long value;
            return sscanf(p + len + 1, "%lld", &value) == 1 ? value : -1;
        }
        p = strchr(p, '\n');
        p = p != NULL ? p + 1 : NULL;
    }
    return -1;
}

static int64_t read_number(const char *dir, const char *file, const char *key)
{
    struct at_buf text = {0};
    int64_t value = -1;
    if (dir != NULL && read_text(dir, file, &text)) {
        long long number;
        value = key != NULL                               ? keyed_value(text.data, key)
                : sscanf(text.data, "%lld", &number) == 1 ? number
                                                          : -1;
    }
    at_buf_done(&text);
    return value;
}

static bool has_option(const char *options, const char *want)
{
    struct at_str rest = at_str_of(options);
    while (rest.len > 0) {
        if (at_str_eq(at_str_cut(&rest, ','), want)) {
            return true;
        }
    }
    return false;
}

/* Mount points of the hierarchies, from /proc/self/mounts. */
static void find_roots(struct at_cgroup *cg)
{
    struct at_buf mounts = {0};
    if (at_file_read("/proc/self/mounts", 1 << 20, &mounts, NULL) != AT_OK) {
        at_buf_done(&mounts);
        return;
    }
    struct at_str rest = {mounts.data, mounts.len};
    while (rest.len > 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        AT_CLEANUP(at_cleanup_free) char *text = at_strndup(line.ptr, line.len);
        char path[256];
        char type[32];
        char options[512];
        if (sscanf(text, "%*s %255s %31s %511s", path, type, options) != 3) {
            continue;
        }
        for (size_t i = 0; i < DIR_V2 && strcmp(type, "cgroup") == 0; i++) {
            if (cg->root[i] == NULL && has_option(options, V1_CONTROLLERS[i])) {
                cg->root[i] = at_strdup(path);
            }
        }
        if (strcmp(type, "cgroup2") == 0 && cg->root[DIR_V2] == NULL) {
            cg->root[DIR_V2] = at_strdup(path);
        }
    }
    at_buf_done(&mounts);
    bool has_v1 = cg->root[DIR_CPU] != NULL || cg->root[DIR_MEMORY] != NULL;
    if (has_v1) {
        /* A hybrid machine: its version 2 tree has no controllers. */
        at_free(cg->root[DIR_V2]);
        cg->root[DIR_V2] = NULL;
    }
}

static void note_lack(struct at_cgroup *cg, const char *what)
{
    char *longer = cg->lack != NULL ? at_asprintf("%s, %s", cg->lack, what) : at_strdup(what);
    at_free(cg->lack);
    cg->lack = longer;
}

/* Version 2: let the groups below dir have the controllers. Refusals show when limits are set. */
static void hand_down(const char *dir)
{
    write_text(dir, "cgroup.subtree_control", "+cpu");
    write_text(dir, "cgroup.subtree_control", "+memory");
    write_text(dir, "cgroup.subtree_control", "+pids");
}

/* Make root/name with its parents. errno tells why not. own: caller at_free. */
static char *make_dirs_once(const char *root, const char *name, bool v2)
{
    char *dir = at_strdup(root);
    struct at_str rest = at_str_of(name);
    while (rest.len > 0) {
        struct at_str part = at_str_cut(&rest, '/');
        if (v2) {
            hand_down(dir);
        }
        char *longer = at_asprintf("%s/%.*s", dir, (int)part.len, part.ptr);
        at_free(dir);
        dir = longer;
        if (mkdir(dir, 0755) != 0 && errno != EEXIST) {
            int why = errno;
            at_free(dir);
            errno = why;
            return NULL;
        }
    }
    return dir;
}

/* A parent may vanish meanwhile, by at_cgroup_remove of a neighbour: then try again. */
static char *make_dirs(const char *root, const char *name, bool v2)
{
    char *dir = NULL;
    for (int attempt = 0; attempt < 5 && dir == NULL; attempt++) {
        dir = make_dirs_once(root, name, v2);
        if (dir == NULL && errno != ENOENT) {
            return NULL;
        }
    }
    return dir;
}

static void add_procs(struct at_cgroup *cg, const char *dir)
{
    char *path = at_asprintf("%s/cgroup.procs", dir);
    for (size_t i = 0; i < cg->n_procs; i++) {
        if (strcmp(cg->procs[i], path) == 0) {
            at_free(path);
            return;
        }
    }
    assert(cg->n_procs < DIRS_MAX);
    cg->procs[cg->n_procs++] = path;
}

static void set_limits_v1(struct at_cgroup *cg, const struct at_cgroup_limits *limits)
{
    char text[32];
    if (limits->cpu_milli > 0) {
        int64_t quota_us = limits->cpu_milli * CPU_PERIOD_US / 1000;
        snprintf(text, sizeof text, "%lld", (long long)(quota_us < 1000 ? 1000 : quota_us));
        if (cg->dirs[DIR_CPU] == NULL || !write_text(cg->dirs[DIR_CPU], "cpu.cfs_quota_us", text)) {
            note_lack(cg, "cpu");
        }
    }
    if (limits->memory_bytes > 0) {
        snprintf(text, sizeof text, "%lld", (long long)limits->memory_bytes);
        if (cg->dirs[DIR_MEMORY] == NULL ||
            !write_text(cg->dirs[DIR_MEMORY], "memory.limit_in_bytes", text)) {
            note_lack(cg, "memory");
        } else {
            /* Swap counts too, where the kernel accounts it. */
            write_text(cg->dirs[DIR_MEMORY], "memory.memsw.limit_in_bytes", text);
        }
    }
    if (limits->pids > 0) {
        snprintf(text, sizeof text, "%lld", (long long)limits->pids);
        if (cg->dirs[DIR_PIDS] == NULL || !write_text(cg->dirs[DIR_PIDS], "pids.max", text)) {
            note_lack(cg, "pids");
        }
    }
}

static void set_limits_v2(struct at_cgroup *cg, const struct at_cgroup_limits *limits)
{
    const char *dir = cg->dirs[DIR_V2];
    char text[64];
    if (limits->cpu_milli > 0) {
        int64_t quota_us = limits->cpu_milli * CPU_PERIOD_US / 1000;
        snprintf(text, sizeof text, "%lld %d", (long long)(quota_us < 1000 ? 1000 : quota_us),
                 CPU_PERIOD_US);
        if (!write_text(dir, "cpu.max", text)) {
            note_lack(cg, "cpu");
        }
    }
    if (limits->memory_bytes > 0) {
        snprintf(text, sizeof text, "%lld", (long long)limits->memory_bytes);
        if (!write_text(dir, "memory.max", text)) {
            note_lack(cg, "memory");
        }
        write_text(dir, "memory.swap.max", "0");
    }
    if (limits->pids > 0) {
        snprintf(text, sizeof text, "%lld", (long long)limits->pids);
        if (!write_text(dir, "pids.max", text)) {
            note_lack(cg, "pids");
        }
    }
}

enum at_rc at_cgroup_open(const char *name, const struct at_cgroup_limits *limits,
                          struct at_cgroup **ret, struct at_err *err)
{
    struct at_cgroup *cg = AT_NEW(struct at_cgroup);
    cg->name = at_strdup(name);
    find_roots(cg);
    int why = 0;
    bool mounted = false;
    for (size_t i = 0; i < DIRS_MAX; i++) {
        mounted = mounted || cg->root[i] != NULL;
        if (cg->root[i] == NULL) {
            continue;
        }
        cg->dirs[i] = make_dirs(cg->root[i], name, i == DIR_V2);
        if (cg->dirs[i] != NULL) {
            add_procs(cg, cg->dirs[i]);
        } else {
            why = errno;
        }
    }
    if (cg->n_procs == 0) {
        at_cgroup_free(cg);
        return at_err_set(err, AT_UNSUPPORTED, "no writable control group hierarchy: %s",
                          mounted ? strerror(why) : "none is mounted");
    }
    if (cg->dirs[DIR_V2] != NULL) {
        set_limits_v2(cg, limits);
    } else {
        set_limits_v1(cg, limits);
    }
    *ret = cg;
    return AT_OK;
}

void at_cgroup_free(struct at_cgroup *cg)
{
    if (cg == NULL) {
        return;
    }
    for (size_t i = 0; i < DIRS_MAX; i++) {
        at_free(cg->dirs[i]);
        at_free(cg->root[i]);
        at_free(cg->procs[i]);
    }
    at_free(cg->name);
    at_free(cg->lack);
    at_free(cg);
}

const char *const *at_cgroup_procs_files(const struct at_cgroup *cg)
{
    return (const char *const *)cg->procs;
}

const char *at_cgroup_lack(const struct at_cgroup *cg)
{
    return cg->lack;
}

static int64_t at_least_0(int64_t value)
{
    return value > 0 ? value : 0;
}

enum at_rc at_cgroup_read(const struct at_cgroup *cg, struct at_cgroup_usage *ret)
{
    const char *v2 = cg->dirs[DIR_V2];
    struct at_cgroup_usage usage;
    if (v2 != NULL) {
        usage.cpu_ns = read_number(v2, "cpu.stat", "usage_usec") * 1000;
        usage.memory_bytes = read_number(v2, "memory.current", NULL);
        usage.oom_kills = read_number(v2, "memory.events", "oom_kill");
    } else {
        usage.cpu_ns = read_number(cg->dirs[DIR_CPUACCT], "cpuacct.usage", NULL);
        usage.memory_bytes = read_number(cg->dirs[DIR_MEMORY], "memory.usage_in_bytes", NULL);
        usage.oom_kills = read_number(cg->dirs[DIR_MEMORY], "memory.oom_control", "oom_kill");
    }
    if (usage.cpu_ns < 0 && usage.memory_bytes < 0) {
        return AT_NOT_FOUND;
    }
    usage.cpu_ns = at_least_0(usage.cpu_ns);
    usage.memory_bytes = at_least_0(usage.memory_bytes);
    usage.oom_kills = at_least_0(usage.oom_kills);
    *ret = usage;
    return AT_OK;
}

/* SIGKILL to each member named in one cgroup.procs file; how many there were. */
static int kill_members(const char *procs_file)
{
    struct at_buf text = {0};
    int count = 0;
    if (at_file_read(procs_file, 4 << 20, &text, NULL) == AT_OK) {
        struct at_str rest = {text.data, text.len};
        while (rest.len > 0) {
            uint64_t pid;
            if (at_str_to_u64(at_str_cut(&rest, '\n'), &pid) == AT_OK && pid > 1 &&
                pid <= INT32_MAX) {
                count++;
                kill((pid_t)pid, SIGKILL);
            }
        }
    }
    at_buf_done(&text);
    return count;
}

static void pause_round(void)
{
    struct timespec ts = {.tv_nsec = ROUND_NS};
    nanosleep(&ts, NULL);
}

void at_cgroup_kill(const struct at_cgroup *cg)
{
    if (cg->dirs[DIR_V2] != NULL) {
        write_text(cg->dirs[DIR_V2], "cgroup.kill", "1");
    }
    for (int round = 0; round < KILL_ROUNDS_MAX; round++) {
        int left = 0;
        for (size_t i = 0; i < cg->n_procs; i++) {
            left += kill_members(cg->procs[i]);
        }
        if (left == 0) {
            return;
        }
        pause_round();
    }
}

/* Best effort: the groups above go too when nobody else is in them. */
static void remove_parents(const char *root, const char *dir)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_strdup(dir);
    size_t root_len = strlen(root);
    for (char *slash = strrchr(path, '/'); slash != NULL && (size_t)(slash - path) > root_len;
         slash = strrchr(path, '/')) {
        *slash = '\0';
        if (rmdir(path) != 0) {
            return;
        }
    }
}

/* Groups of the same name that a container runtime made in the other hierarchies. */
static void remove_elsewhere(const char *name)
{
    struct at_buf mounts = {0};
    if (at_file_read("/proc/self/mounts", 1 << 20, &mounts, NULL) == AT_OK) {
        struct at_str rest = {mounts.data, mounts.len};
        while (rest.len > 0) {
            struct at_str line = at_str_cut(&rest, '\n');
            at_str_cut(&line, ' ');
            struct at_str root = at_str_cut(&line, ' ');
            if (!at_str_starts(at_str_cut(&line, ' '), "cgroup")) {
                continue;
            }
            AT_CLEANUP(at_cleanup_free) char *top = at_strndup(root.ptr, root.len);
            AT_CLEANUP(at_cleanup_free) char *dir = at_asprintf("%s/%s", top, name);
            if (rmdir(dir) == 0) {
                remove_parents(top, dir);
            }
        }
    }
    at_buf_done(&mounts);
}

enum at_rc at_cgroup_remove(const struct at_cgroup *cg, struct at_err *err)
{
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < DIRS_MAX; i++) {
        if (cg->dirs[i] == NULL) {
            continue;
        }
        int result = -1;
        for (int round = 0; round < KILL_ROUNDS_MAX / 4; round++) {
            result = rmdir(cg->dirs[i]);
            if (result == 0 || errno != EBUSY) {
                break;
            }
            pause_round();
        }
        if (result != 0 && errno != ENOENT) {
            rc = at_err_set_errno(err, errno, "cannot remove control group %s", cg->dirs[i]);
            continue;
        }
        remove_parents(cg->root[i], cg->dirs[i]);
    }
    remove_elsewhere(cg->name);
    return rc;
}

/* rmdir refuses a group with members; the age spares one whose first member is on its way. */
static void sweep_dir(const char *dir)
{
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, names[i]);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
            now.tv_sec - st.st_ctim.tv_sec > SWEEP_AGE_S) {
            rmdir(path);
        }
        at_free(names[i]);
    }
    at_free(names);
    rmdir(dir); /* when that was the last */
}

void at_cgroup_sweep(const char *parent)
{
    struct at_buf mounts = {0};
    if (at_file_read("/proc/self/mounts", 1 << 20, &mounts, NULL) == AT_OK) {
        struct at_str rest = {mounts.data, mounts.len};
        while (rest.len > 0) {
            struct at_str line = at_str_cut(&rest, '\n');
            at_str_cut(&line, ' ');
            struct at_str root = at_str_cut(&line, ' ');
            if (at_str_starts(at_str_cut(&line, ' '), "cgroup")) {
                AT_CLEANUP(at_cleanup_free)
                char *dir = at_asprintf("%.*s/%s", (int)root.len, root.ptr, parent);
                sweep_dir(dir);
            }
        }
    }
    at_buf_done(&mounts);
}
