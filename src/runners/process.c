#include "runners/process.h"

#include "core/mem.h"
#include "core/str.h"
#include "runners/limits.h"
#include "sys/fd.h"
#include "sys/sys.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDERS_UP_MAX 4 /* from the executable to where third_party/ or lib/atoll is */

enum at_rc runner_options(int argc, char **argv, const struct runner_option *rows, size_t n,
                          struct at_err *err)
{
    for (int i = 1; i < argc; i++) {
        size_t row = 0, len = 0;
        for (; row < n; row++) {
            len = strlen(rows[row].name);
            if (strncmp(argv[i], rows[row].name, len) == 0 &&
                (argv[i][len] == '=' || argv[i][len] == '\0')) {
                break;
            }
        }
        if (row == n) {
            return at_err_set(err, AT_BAD_REQUEST, "unknown option %s", argv[i]);
        }
        if (argv[i][len] == '=') {
            *rows[row].value = argv[i] + len + 1;
        } else if (i + 1 < argc) {
            *rows[row].value = argv[++i];
        } else {
            return at_err_set(err, AT_BAD_REQUEST, "%s needs a value", argv[i]);
        }
    }
    return *rows[0].value != NULL ? AT_OK
                                  : at_err_set(err, AT_BAD_REQUEST, "%s is needed", rows[0].name);
}

char *runner_library_find(const struct runner_library *library)
{
    const char *told = at_sys_getenv(library->variable);
    if (told != NULL && told[0] != '\0') {
        return at_strdup(told);
    }
    AT_CLEANUP(at_cleanup_free) char *dir = at_sys_self_exe();
    char *found = NULL;
    for (int level = 0; level < FOLDERS_UP_MAX && dir != NULL && found == NULL; level++) {
        char *slash = strrchr(dir, '/');
        if (slash == NULL) {
            break;
        }
        *slash = '\0';
        found = library->try_take(
            level == 0 ? at_asprintf("%s/%s", dir, library->name)
                       : at_asprintf("%s/third_party/%s", dir, library->third_party));
        found = found != NULL
                    ? found
                    : library->try_take(at_asprintf("%s/lib/atoll/%s", dir, library->name));
    }
    return found != NULL ? found
                         : library->try_take(at_asprintf("/usr/lib/atoll/%s", library->name));
}

char *runner_model_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    const char *dot = strrchr(base, '.');
    return at_strndup(base, dot != NULL && dot != base ? (size_t)(dot - base) : strlen(base));
}

int runner_say(const char *kind, int status, const struct at_err *err, const char *advice)
{
    fprintf(stderr, "atoll runner %s: %s%s\n", kind, err->msg, advice);
    return status;
}

void runner_say_ready(const char *addr)
{
    printf("ready runner %s%s\n", strncmp(addr, "unix:", 5) == 0 ? "" : "http://", addr);
    fflush(stdout);
}

/* The C++ runtime that the engine brought along; NULL: it has none of its own. */
static void *cxx_symbol(const char *name)
{
    void *runtime = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
    return runtime != NULL ? dlsym(runtime, name) : NULL;
}

void runner_on_throw(void (*on_end)(void))
{
    void (*(*set)(void (*)(void)))(void) = NULL;
    *(void **)&set = cxx_symbol("_ZSt13set_terminatePFvvE"); /* std::set_terminate */
    if (set != NULL) {
        (void)set(on_end);
    }
}

/* Memory may be what there is none of: nothing is allocated here but by dlsym, which gives NULL
 * then. */
void runner_engine_threw(const char *kind, const char *less)
{
    /* Of the Itanium C++ ABI: the type of what is being handled, whose second word is its name. */
    const void *(*current)(void) = NULL;
    *(void **)&current = cxx_symbol("__cxa_current_exception_type");
    const void *type = current != NULL ? current() : NULL;
    const char *name = type != NULL ? ((const char *const *)type)[1] : "";
    bool memory = strstr(name, "bad_alloc") != NULL || strstr(name, "bad_array_new") != NULL ||
                  strstr(name, "length_error") != NULL;
    char line[512];
    int n = memory ? snprintf(line, sizeof line,
                              "atoll runner %s: the engine ran out of memory in the midst of its "
                              "work (%.64s). Give the runner more memory, or %s.\n",
                              kind, name, less)
                   : snprintf(line, sizeof line,
                              "atoll runner %s: the engine gave up in the midst of its work: it "
                              "threw %.64s\n",
                              kind, name[0] != '\0' ? name : "what is not known here");
    size_t written;
    (void)!at_fd_write(STDERR_FILENO, line, (size_t)n, &written);
    _Exit(memory ? RUNNER_NO_MEMORY : RUNNER_ENGINE);
}

static void stop_loop(void *ctx)
{
    struct runner_process *p = ctx;
    at_loop_stop(p->loop);
}

static void on_signal(void *ctx, int signal_number)
{
    struct runner_process *p = ctx;
    (void)signal_number;
    if (p->stopping) {
        at_loop_stop(p->loop);
        return;
    }
    p->stopping = true;
    at_loop_timer(p->loop, AT_RUNNER_DRAIN_NS, stop_loop, p);
    p->drain(p->service, stop_loop, p);
}

enum at_rc runner_process_signals(struct runner_process *p, struct at_err *err)
{
    enum at_rc rc = at_loop_signal(p->loop, SIGTERM, on_signal, p, err);
    return rc == AT_OK ? at_loop_signal(p->loop, SIGINT, on_signal, p, err) : rc;
}
