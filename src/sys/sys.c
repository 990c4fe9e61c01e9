#include "sys/sys.h"

#include "core/mem.h"
#include "core/units.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t clock)
{
    struct timespec ts;
    int rc = clock_gettime(clock, &ts);
    assert(rc == 0);
    return (int64_t)ts.tv_sec * AT_NS_PER_S + ts.tv_nsec;
}

static int64_t real_mono_ns(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_MONOTONIC);
}

static int64_t real_wall_ns(void *ctx)
{
    (void)ctx;
    return clock_ns(CLOCK_REALTIME);
}

static void real_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    unsigned char *p = out;
    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            assert(errno == EINTR);
            continue;
        }
        p += n;
        len -= (size_t)n;
    }
}

/* For kernels before 5.11 and sandboxes without epoll_pwait2: milliseconds, rounded up. */
static int poll_coarse(int epfd, struct epoll_event *events, int n_max, int64_t wait_ns)
{
    int timeout_ms = -1;
    if (wait_ns >= 0) {
        int64_t ms = (wait_ns + AT_NS_PER_MS - 1) / AT_NS_PER_MS;
        timeout_ms = ms > 86400000 ? 86400000 : (int)ms;
    }
    int n = epoll_wait(epfd, events, n_max, timeout_ms);
    return n < 0 ? 0 : n;
}

static int real_poll(void *ctx, int epfd, void *epoll_events, int n_events_max,
                     int64_t deadline_mono_ns)
{
    int64_t wait_ns = -1;
    if (deadline_mono_ns != INT64_MAX) {
        wait_ns = deadline_mono_ns - real_mono_ns(ctx);
        wait_ns = wait_ns < 0 ? 0 : wait_ns;
    }
    struct timespec ts = {.tv_sec = wait_ns / AT_NS_PER_S, .tv_nsec = wait_ns % AT_NS_PER_S};
    int n = epoll_pwait2(epfd, epoll_events, n_events_max, wait_ns < 0 ? NULL : &ts, NULL);
    if (n >= 0) {
        return n;
    }
    if (errno == ENOSYS || errno == EPERM) {
        return poll_coarse(epfd, epoll_events, n_events_max, wait_ns);
    }
    assert(errno == EINTR);
    return 0;
}

static const struct at_sys REAL = {
    .mono_ns = real_mono_ns,
    .wall_ns = real_wall_ns,
    .random = real_random,
    .poll = real_poll,
};

const struct at_sys *at_sys_real(void)
{
    return &REAL;
}

const char *at_sys_getenv(const char *name)
{
    return getenv(name);
}

void at_sys_setenv(const char *name, const char *value)
{
    int rc = setenv(name, value, 1);
    assert(rc == 0); /* it fails on a name with '=' in it only, and when memory is gone */
    (void)rc;
}

/* Filled once and constant from then on: callers borrow it for the life of the process. */
static char the_hostname[256];
static pthread_once_t hostname_once = PTHREAD_ONCE_INIT;

static void hostname_fill(void)
{
    if (gethostname(the_hostname, sizeof the_hostname - 1) != 0 || the_hostname[0] == '\0') {
        memcpy(the_hostname, "localhost", sizeof "localhost");
    }
}

const char *at_sys_hostname(void)
{
    pthread_once(&hostname_once, hostname_fill);
    return the_hostname;
}

char *at_sys_self_exe(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    if (n <= 0) {
        return at_strdup("/proc/self/exe");
    }
    return at_strndup(path, (size_t)n);
}

const char *const *at_sys_environ(void)
{
    return (const char *const *)environ;
}

bool at_sys_is_root(void)
{
    return geteuid() == 0;
}
