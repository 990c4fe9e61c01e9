#include "core/buf.h"
#include "core/units.h"
#include "sys/process.h"
#include "sys/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#define OUTPUT_BYTES_MAX 65536

static void keep(struct at_buf *out, const char *data, size_t len)
{
    size_t max = out->max != 0 ? out->max : OUTPUT_BYTES_MAX;
    if (len >= max) {
        data += len - max;
        len = max;
    }
    if (out->len + len > max) {
        at_buf_consume(out, out->len + len - max);
    }
    enum at_rc rc = at_buf_append(out, data, len);
    (void)rc; /* fits: made room above */
}

/* Take what is there; false at the end of the pipe. */
static bool drain(int fd, struct at_buf *out)
{
    char piece[4096];
    for (;;) {
        ssize_t n = read(fd, piece, sizeof piece);
        if (n == 0 || (n < 0 && errno != EINTR)) {
            return n < 0 && errno == EAGAIN;
        }
        if (n > 0 && out != NULL) {
            keep(out, piece, (size_t)n);
        }
    }
}

#define CANCEL_POLL_MS 100

static bool is_cancelled(const bool *cancelled)
{
    return cancelled != NULL && __atomic_load_n(cancelled, __ATOMIC_ACQUIRE);
}

static enum at_rc wait_for_end(struct at_process *p, int fd, int64_t timeout_ns,
                               const bool *cancelled, struct at_buf *out)
{
    const struct at_sys *sys = at_sys_real();
    int64_t deadline = at_sys_mono_ns(sys) + timeout_ns;
    bool open = true;
    for (;;) {
        int64_t left_ms = (deadline - at_sys_mono_ns(sys)) / AT_NS_PER_MS;
        struct pollfd fds[2] = {{.fd = p->pidfd, .events = POLLIN},
                                {.fd = open ? fd : -1, .events = POLLIN}};
        int step_ms = cancelled != NULL ? CANCEL_POLL_MS : 60000;
        int n = poll(fds, 2, left_ms < 0 ? 0 : left_ms > step_ms ? step_ms : (int)left_ms);
        if (open && fds[1].revents != 0) {
            open = drain(fd, out);
        }
        if (n > 0 && fds[0].revents != 0) {
            drain(fd, out);
            return AT_OK;
        }
        if (is_cancelled(cancelled)) {
            return AT_CANCELLED;
        }
        if (n == 0 && left_ms <= 0) {
            return AT_TIMEOUT;
        }
    }
}

enum at_rc at_process_run(const struct at_process_options *options, int64_t timeout_ns,
                          struct at_buf *out, int *ret_exit_code, struct at_err *err)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return at_err_set_errno(err, errno, "cannot make a pipe");
    }
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    struct at_process_options own = *options;
    own.stdout_fd = own.stderr_fd = fds[1];
    own.new_session = true;
    struct at_process p;
    enum at_rc rc = at_process_start(&own, false, &p, NULL, err);
    close(fds[1]);
    if (rc != AT_OK) {
        close(fds[0]);
        return rc;
    }
    rc = wait_for_end(&p, fds[0], timeout_ns, options->cancelled, out);
    if (rc != AT_OK) {
        at_process_signal_group(&p, SIGKILL);
        struct pollfd end = {.fd = p.pidfd, .events = POLLIN};
        poll(&end, 1, -1);
        rc = rc == AT_CANCELLED
                 ? at_err_set(err, rc, "%s was cancelled", options->argv[0])
                 : at_err_set(err, rc, "%s took longer than %lld s", options->argv[0],
                              (long long)(timeout_ns / AT_NS_PER_S));
    }
    close(fds[0]);
    int signal_number;
    int exit_code = -1;
    enum at_rc reaped = at_process_reap(&p, &exit_code, &signal_number);
    at_process_close(&p);
    if (rc == AT_OK && reaped == AT_OK) {
        *ret_exit_code = exit_code;
    }
    return rc != AT_OK ? rc : reaped;
}
