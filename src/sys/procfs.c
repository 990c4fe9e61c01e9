#include "sys/process.h"

#include "sys/file.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define STAT_BYTES_MAX 4096

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
