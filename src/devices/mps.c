#include "devices/mps.h"

#include "core/buf.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "devices/devices_priv.h"
#include "devices/nvml.h"
#include "sys/entry.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/process.h"
#include "sys/sys.h"

#include <signal.h>
#include <string.h>

#define COMMAND_NS (10 * AT_NS_PER_S)
#define UP_NS (5 * AT_NS_PER_S) /* from its start until it answers */
#define DOWN_NS (5 * AT_NS_PER_S)
#define LOOK_NS (20 * AT_NS_PER_MS)
#define TEXT_BYTES_MAX ((size_t)4096)
#define SERVERS_MAX 16
#define SOCKET_PATH_BYTES_MAX 100 /* of 108, less what it is bound as for a moment */
/* In the environment of its processes alone: clients have none of it. */
#define MARK "ATOLL_MPS_SERVICE"
#define PID_NAME "nvidia-cuda-mps-control.pid"
#define MIB (INT64_C(1) << 20)

static char *below(const char *dir, const char *name)
{
    return at_asprintf("%s/%s", dir, name);
}

/* A small file's text, without the end of its line; NULL: there is none. own: caller frees. */
static char *text_of(const char *dir, const char *name)
{
    AT_CLEANUP(at_cleanup_free) char *path = below(dir, name);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (at_file_read(path, TEXT_BYTES_MAX, &text, NULL) != AT_OK || text.len == 0) {
        return NULL;
    }
    return at_strndup(text.data, strcspn(text.data, "\n"));
}

static enum at_rc write_text(const char *dir, const char *name, const char *text,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = below(dir, name);
    return at_file_write_atomic(path, text, strlen(text), 0600, err);
}

enum at_rc at_mps_find(const char *given, char **ret, struct at_err *err)
{
    if (given != NULL) {
        *ret = at_file_executable(given) ? at_strdup(given) : NULL;
        return *ret != NULL
                   ? AT_OK
                   : at_err_set(err, AT_NOT_FOUND, "%s is no program that can be run", given);
    }
    const char *value = at_sys_getenv("PATH");
    struct at_str rest = at_str_of(value != NULL ? value : "");
    while (rest.len > 0) {
        struct at_str dir = at_str_cut(&rest, ':');
        char *path = at_asprintf("%.*s/" AT_MPS_PROGRAM, (int)dir.len, dir.ptr);
        if (dir.len > 0 && at_file_executable(path)) {
            *ret = path;
            return AT_OK;
        }
        at_free(path);
    }
    return at_err_set(err, AT_NOT_FOUND,
                      AT_MPS_PROGRAM " is not on PATH: install NVIDIA's compute utilities, or name "
                                     "it by --mps-control");
}

/* --- its program --- */

static enum at_rc run_control(const struct at_mps_service *mps, const char *option,
                              const char *input, struct at_buf *out, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free)
    char *pipe = at_asprintf("CUDA_MPS_PIPE_DIRECTORY=%s/" AT_MPS_PIPE_NAME, mps->dir);
    AT_CLEANUP(at_cleanup_free) char *log = at_asprintf("CUDA_MPS_LOG_DIRECTORY=%s/log", mps->dir);
    AT_CLEANUP(at_cleanup_free) char *gpu = at_asprintf("CUDA_VISIBLE_DEVICES=%s", mps->gpu);
    const char *libraries = at_sys_getenv("LD_LIBRARY_PATH"), *path = at_sys_getenv("PATH");
    AT_CLEANUP(at_cleanup_free)
    char *library_path = at_asprintf("LD_LIBRARY_PATH=%s", libraries != NULL ? libraries : "");
    AT_CLEANUP(at_cleanup_free)
    char *program_path = at_asprintf("PATH=%s", path != NULL ? path : "/usr/bin:/bin");
    AT_CLEANUP(at_cleanup_free) char *mark = at_asprintf(MARK "=%s", mps->dir);
    const char *const envp[] = {
        mark, program_path, pipe, log, gpu, libraries != NULL ? library_path : NULL, NULL};
    const char *const argv[] = {mps->control, option, NULL};
    int fds[2] = {-1, -1}, exit_code = -1;
    size_t len = strlen(input), sent = 0; /* fits into an empty pipe */
    enum at_rc rc = at_fd_pipe(fds, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = len > 0 ? at_fd_write(fds[1], input, len, &sent) : AT_OK;
    at_fd_close(fds[1]);
    struct at_process_options options = {
        .argv = argv, .envp = envp, .stdin_fd = fds[0], .uid = -1, .gid = -1};
    rc = rc == AT_OK ? at_process_run(&options, COMMAND_NS, out, &exit_code, err) : rc;
    at_fd_close(fds[0]);
    if (rc == AT_OK && exit_code != 0) {
        size_t end = out->data != NULL ? strcspn(out->data, "\r\n") : 0;
        return at_err_set(err, AT_UPSTREAM, AT_MPS_PROGRAM " %s: exit status %d%s%.*s",
                          option != NULL ? option : "", exit_code, end > 0 ? ": " : "",
                          (int)(end < 200 ? end : 200), out->data != NULL ? out->data : "");
    }
    return rc;
}

static enum at_rc command(const struct at_mps_service *mps, const char *input, struct at_buf *out,
                          struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf own = {0};
    out = out != NULL ? out : &own;
    out->max = TEXT_BYTES_MAX;
    return run_control(mps, NULL, input, out, err);
}

/* Process ids of its servers, one a line. */
static size_t servers(const struct at_mps_service *mps, int64_t ret[SERVERS_MAX])
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {0};
    size_t n = 0;
    if (command(mps, "get_server_list\n", &out, NULL) != AT_OK || out.data == NULL) {
        return 0;
    }
    struct at_str rest = {out.data, out.len};
    while (rest.len > 0 && n < SERVERS_MAX) {
        struct at_str line = at_str_cut(&rest, '\n');
        if (at_str_to_i64(line, &ret[n]) == AT_OK && ret[n] > 1) {
            n++;
        }
    }
    return n;
}

/* --- is it there? --- */

static bool read_pid(const char *dir, int64_t *ret)
{
    AT_CLEANUP(at_cleanup_free) char *pipe = below(dir, AT_MPS_PIPE_NAME);
    AT_CLEANUP(at_cleanup_free) char *text = text_of(pipe, PID_NAME);
    return text != NULL && at_str_to_i64(at_str_of(text), ret) == AT_OK && *ret > 1;
}

/* The process that we noted, not another one with its number. */
static bool noted(const char *dir, struct at_process *ret)
{
    AT_CLEANUP(at_cleanup_free) char *text = text_of(dir, "process");
    int64_t pid, ticks;
    if (text == NULL) {
        return false;
    }
    struct at_str rest = at_str_of(text), first = at_str_cut(&rest, ' ');
    return at_str_to_i64(first, &pid) == AT_OK && at_str_to_i64(rest, &ticks) == AT_OK && pid > 1 &&
           at_process_adopt((pid_t)pid, (uint64_t)ticks, ret, NULL) == AT_OK;
}

bool at_mps_is_alive(const char *dir)
{
    struct at_process p;
    if (!noted(dir, &p)) {
        return false;
    }
    bool ended = at_process_has_ended(&p);
    at_process_close(&p);
    return !ended;
}

static enum at_rc note(const char *dir, struct at_err *err)
{
    int64_t pid = 0;
    uint64_t ticks = read_pid(dir, &pid) ? at_process_start_ticks((pid_t)pid) : 0;
    if (ticks == 0) {
        return at_err_set(err, AT_UPSTREAM, AT_MPS_PROGRAM " -d ended at once: see %s/log", dir);
    }
    AT_CLEANUP(at_cleanup_free)
    char *text = at_asprintf("%lld %llu", (long long)pid, (unsigned long long)ticks);
    return write_text(dir, "process", text, err);
}

char *at_mps_gpu_of(const char *dir)
{
    return text_of(dir, "gpu");
}

/* --- who else may use the GPU --- */

/* The mode before ours is kept in a file, so that whoever ends the service can put it back. */
static void exclude_others(const struct at_mps_service *mps, bool exclude)
{
    struct nvml nvml;
    nvml_handle device;
    int mode = 0;
    if (!nvml_open(mps->nvml != NULL ? mps->nvml : AT_DEVICES_NVML, &nvml)) {
        return;
    }
    bool can = nvml.by_uuid != NULL && nvml.compute_mode != NULL && nvml.set_compute_mode != NULL &&
               nvml.by_uuid(mps->gpu, &device) == 0 && nvml.compute_mode(device, &mode) == 0;
    AT_CLEANUP(at_cleanup_free) char *before = text_of(mps->dir, "mode");
    int64_t was = 0;
    if (can && exclude && mode != NVML_COMPUTE_EXCLUSIVE_PROCESS) {
        char text[16] = {(char)('0' + mode), '\0'};
        if (mode >= 0 && mode <= 9 && write_text(mps->dir, "mode", text, NULL) == AT_OK) {
            (void)nvml.set_compute_mode(device, NVML_COMPUTE_EXCLUSIVE_PROCESS);
        }
    } else if (can && !exclude && before != NULL &&
               at_str_to_i64(at_str_of(before), &was) == AT_OK &&
               mode == NVML_COMPUTE_EXCLUSIVE_PROCESS) {
        (void)nvml.set_compute_mode(device, (int)was);
    }
    nvml_close(&nvml);
}

/* --- limits --- */

enum at_rc at_mps_limit(const struct at_mps_service *mps, struct at_err *err)
{
    int64_t pids[SERVERS_MAX], mib = (mps->memory_bytes + MIB - 1) / MIB;
    size_t n = servers(mps, pids);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_buf_printf(&text,
                                  "set_default_active_thread_percentage %lld\n"
                                  "set_default_device_pinned_mem_limit 0 %lldM\n",
                                  (long long)mps->percent, (long long)mib);
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = at_buf_printf(&text,
                           "set_active_thread_percentage %lld %lld\n"
                           "set_device_pinned_mem_limit %lld 0 %lldM\n",
                           (long long)pids[i], (long long)mps->percent, (long long)pids[i],
                           (long long)mib);
    }
    return rc == AT_OK ? command(mps, text.data, NULL, err) : rc;
}

/* --- life --- */

static enum at_rc make_dirs(const struct at_mps_service *mps, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *pipe = below(mps->dir, AT_MPS_PIPE_NAME);
    AT_CLEANUP(at_cleanup_free) char *log = below(mps->dir, "log");
    if (strlen(pipe) + sizeof "/control_privileged" > SOCKET_PATH_BYTES_MAX) {
        return at_err_set(
            err, AT_TOO_LARGE,
            "%s is too long a path for the sockets of MPS: take a shorter state folder", pipe);
    }
    enum at_rc rc = at_dir_make(mps->dir, 0711, err);
    rc = rc == AT_OK ? at_dir_make(pipe, 0755, err) : rc;
    rc = rc == AT_OK ? at_dir_make(log, 0755, err) : rc;
    return rc == AT_OK ? write_text(mps->dir, "gpu", mps->gpu, err) : rc;
}

/* Servers outlive a control process that was killed, and hold the GPU. */
static void end_leftovers(const char *dir)
{
    AT_CLEANUP(at_cleanup_free) char *mark = at_asprintf(MARK "=%s", dir);
    (void)at_process_kill_marked(mark);
}

static bool ends_within(const char *dir, int64_t ns)
{
    const struct at_sys *sys = at_sys_real();
    int64_t deadline = at_sys_mono_ns(sys) + ns;
    while (at_mps_is_alive(dir)) {
        if (at_sys_mono_ns(sys) > deadline) {
            return false;
        }
        at_sleep_ns(LOOK_NS);
    }
    return true;
}

static void end_by_force(const char *dir)
{
    struct at_process p;
    if (noted(dir, &p)) {
        at_process_signal(&p, SIGKILL);
        at_process_close(&p);
    }
}

enum at_rc at_mps_stop(const struct at_mps_service *mps, struct at_err *err)
{
    if (at_mps_is_alive(mps->dir)) {
        enum at_rc rc = command(mps, "quit\n", NULL, NULL);
        if (rc != AT_OK || !ends_within(mps->dir, DOWN_NS)) {
            end_by_force(mps->dir);
            if (!ends_within(mps->dir, DOWN_NS)) {
                return at_err_set(err, AT_TIMEOUT, AT_MPS_PROGRAM " of %s does not end", mps->gpu);
            }
        }
    }
    end_leftovers(mps->dir);
    exclude_others(mps, false);
    return at_tree_remove(mps->dir, err);
}

static enum at_rc start_anew(const struct at_mps_service *mps, struct at_err *err)
{
    const struct at_sys *sys = at_sys_real();
    AT_CLEANUP(at_cleanup_buf) struct at_buf out = {.max = TEXT_BYTES_MAX};
    AT_CLEANUP(at_cleanup_free) char *pipe = below(mps->dir, AT_MPS_PIPE_NAME);
    end_leftovers(mps->dir);
    enum at_rc rc = at_tree_remove(pipe, err); /* of one that ended without a word */
    rc = rc == AT_OK ? make_dirs(mps, err) : rc;
    rc = rc == AT_OK ? run_control(mps, "-d", "", &out, err) : rc;
    int64_t deadline = at_sys_mono_ns(sys) + UP_NS;
    while (rc == AT_OK) {
        rc = command(mps, "get_server_list\n", NULL, err);
        if (rc == AT_OK || at_sys_mono_ns(sys) > deadline) {
            break;
        }
        at_sleep_ns(LOOK_NS);
        rc = AT_OK;
    }
    return rc == AT_OK ? note(mps->dir, err) : rc;
}

enum at_rc at_mps_start(const struct at_mps_service *mps, struct at_err *err)
{
    bool runs = at_mps_is_alive(mps->dir);
    if (runs && at_mps_limit(mps, err) != AT_OK) { /* it lives, and does not answer */
        enum at_rc stopped = at_mps_stop(mps, err);
        if (stopped != AT_OK) {
            return stopped;
        }
        runs = false;
    }
    enum at_rc rc = runs ? AT_OK : start_anew(mps, err);
    rc = rc == AT_OK && !runs ? at_mps_limit(mps, err) : rc;
    if (rc == AT_OK) {
        exclude_others(mps, true);
    }
    return rc;
}
