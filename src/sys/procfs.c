#include "sys/process.h"

#include "sys/file.h"

#include "core/mem.h"
#include "core/str.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define STAT_BYTES_MAX 4096
#define CGROUP_BYTES_MAX 65536
#define ENVIRON_BYTES_MAX ((size_t)4 << 20)
#define MARKED_ROUNDS_MAX 100
#define MARKED_ROUND_NS 10000000
#define FIELD_ENVIRON_START 50
#define FLAG_KERNEL_THREAD 0x00200000u

/* Fields of /proc/PID/stat by their numbers in proc(5): 14 utime, 15 stime, 22 starttime, 24 rss.
 */
struct proc_stat {
    uint64_t utime_ticks, stime_ticks, start_ticks;
    int64_t rss_pages;
};

static bool read_stat(pid_t pid, struct proc_stat *ret)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, STAT_BYTES_MAX, &text, NULL);
    /* The program's name may hold spaces and brackets: count from the last one. */
    const char *rest = rc == AT_OK && text.data != NULL ? strrchr(text.data, ')') : NULL;
    unsigned long long utime, stime, start;
    long long rss;
    bool ok = rest != NULL &&
              sscanf(rest,
                     ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d "
                     "%*d %llu %*u %lld",
                     &utime, &stime, &start, &rss) == 4;
    if (ok) {
        *ret = (struct proc_stat){utime, stime, start, rss};
    }
    at_buf_done(&text);
    return ok;
}

bool at_process_in_cgroup(pid_t pid, const char *word)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_file_read(path, CGROUP_BYTES_MAX, &text, NULL) != AT_OK || text.data == NULL) {
        return false;
    }
    size_t len = strlen(word);
    for (const char *at = text.data; (at = strstr(at, word)) != NULL; at += len) {
        bool whole = at > text.data && at[-1] == '/' &&
                     (at[len] == '\0' || at[len] == '\n' || at[len] == '/');
        if (whole) {
            return true;
        }
    }
    return false;
}

uint64_t at_process_start_ticks(pid_t pid)
{
    struct proc_stat st;
    return read_stat(pid, &st) ? st.start_ticks : 0;
}

enum at_rc at_process_usage(pid_t pid, int64_t *ret_rss_bytes, int64_t *ret_cpu_ns)
{
    struct proc_stat st;
    if (!read_stat(pid, &st)) {
        return AT_NOT_FOUND;
    }
    int64_t ns_per_tick = INT64_C(1000000000) / sysconf(_SC_CLK_TCK);
    *ret_rss_bytes = st.rss_pages * sysconf(_SC_PAGESIZE);
    *ret_cpu_ns = (int64_t)(st.utime_ticks + st.stime_ticks) * ns_per_tick;
    return AT_OK;
}

/* Was its environment read as empty only because exec was under way? Until that is done the kernel
 * shows an empty one, and 0 for where it ends (field 51). An ended process and a thread of the
 * kernel (field 9) show the same for ever. */
static bool was_in_exec(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_file_read(path, STAT_BYTES_MAX, &text, NULL) != AT_OK || text.data == NULL) {
        return false;
    }
    const char *rest = strrchr(text.data, ')');
    char state;
    unsigned flags;
    unsigned long long start, end;
    if (rest == NULL || sscanf(rest, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2) {
        return false;
    }
    for (int field = 2; field < FIELD_ENVIRON_START && rest != NULL; field++) {
        rest = strchr(rest + 1, ' ');
    }
    return rest != NULL && sscanf(rest, "%llu %llu", &start, &end) == 2 &&
           (end == 0 || end > start) && (flags & FLAG_KERNEL_THREAD) == 0 &&
           strchr("ZXx", state) == NULL;
}

enum marked { MARKED_NO, MARKED_YES, MARKED_UNKNOWN };

/* Was it started with this entry in its environment, and does it still run? */
static enum marked is_marked(pid_t pid, const char *entry)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_file_read(path, ENVIRON_BYTES_MAX, &text, NULL) != AT_OK) {
        return MARKED_NO;
    }
    if (text.len == 0) {
        return was_in_exec(pid) ? MARKED_UNKNOWN : MARKED_NO;
    }
    struct at_str rest = {text.data, text.len};
    while (rest.len > 0) {
        if (at_str_eq(at_str_cut(&rest, '\0'), entry)) {
            return MARKED_YES;
        }
    }
    return MARKED_NO;
}

/* Kills those that can be seen; *unknown is how many may be marked and cannot be told yet. */
static int kill_marked_once(const char *entry, int *unknown)
{
    char **names = NULL;
    size_t n = 0;
    int killed = 0;
    *unknown = 0;
    if (at_dir_list("/proc", &names, &n, NULL) != AT_OK) {
        return 0;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t pid;
        if (at_str_to_u64(at_str_of(names[i]), &pid) == AT_OK && pid > 1) {
            enum marked marked = is_marked((pid_t)pid, entry);
            killed += marked == MARKED_YES && kill((pid_t)pid, SIGKILL) == 0;
            *unknown += marked == MARKED_UNKNOWN;
        }
        at_free(names[i]);
    }
    at_free(names);
    return killed;
}

int at_process_kill_marked(const char *entry)
{
    int total = 0;
    for (int round = 0; round < MARKED_ROUNDS_MAX; round++) {
        int unknown = 0;
        int killed = kill_marked_once(entry, &unknown);
        total = killed > total ? killed : total;
        if (killed == 0 && unknown == 0) {
            break;
        }
        struct timespec ts = {.tv_nsec = MARKED_ROUND_NS};
        nanosleep(&ts, NULL);
    }
    return total;
}

/* The effective ids stand second in "Uid:" and "Gid:". */
static bool read_ids(pid_t pid, struct at_process_look *look)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    struct at_buf text = {0};
    bool ok = at_file_read(path, 2 * STAT_BYTES_MAX, &text, NULL) == AT_OK && text.data != NULL;
    const char *uid = ok ? strstr(text.data, "\nUid:") : NULL;
    const char *gid = ok ? strstr(text.data, "\nGid:") : NULL;
    unsigned u = 0;
    unsigned g = 0;
    ok = uid != NULL && gid != NULL && sscanf(uid, "\nUid:\t%*u\t%u", &u) == 1 &&
         sscanf(gid, "\nGid:\t%*u\t%u", &g) == 1;
    look->uid = u;
    look->gid = g;
    at_buf_done(&text);
    return ok;
}

static enum at_rc read_environment(pid_t pid, struct at_process_look *look)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    struct at_buf text = {0};
    enum at_rc rc = at_file_read(path, ENVIRON_BYTES_MAX, &text, NULL);
    size_t entries = 0;
    for (size_t i = 0; rc == AT_OK && i < text.len; i++) {
        entries += text.data[i] == '\0';
    }
    look->envp = at_alloc((entries + 1) * sizeof *look->envp);
    look->env_text = rc == AT_OK && text.len > 0 ? at_buf_steal(&text, NULL) : NULL;
    const char *at = look->env_text;
    for (size_t i = 0; i < entries; i++) {
        look->envp[i] = at;
        at += strlen(at) + 1;
    }
    look->envp[entries] = NULL;
    at_buf_done(&text);
    return rc;
}

enum at_rc at_process_look(pid_t pid, struct at_process_look *ret, struct at_err *err)
{
    struct at_process_look look = {0};
    char path[64];
    char cwd[4096];
    if (!read_ids(pid, &look)) {
        return at_err_set(err, AT_NOT_FOUND, "process %d is gone", (int)pid);
    }
    enum at_rc rc = read_environment(pid, &look);
    snprintf(path, sizeof path, "/proc/%d/cwd", (int)pid);
    ssize_t n = readlink(path, cwd, sizeof cwd - 1);
    if (rc != AT_OK || n < 0) {
        at_process_look_done(&look);
        return at_err_set(err, AT_FORBIDDEN, "process %d cannot be looked at", (int)pid);
    }
    cwd[n] = '\0';
    look.cwd = at_strdup(cwd);
    *ret = look;
    return AT_OK;
}

void at_process_look_done(struct at_process_look *look)
{
    at_free(look->cwd);
    at_free(look->env_text);
    at_free(look->envp);
}
