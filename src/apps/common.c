#include "apps/apps.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "sys/fd.h"
#include "sys/file.h"
#include "sys/sys.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define TOKEN_BYTES_MAX 4096

static void print_usage(const char *role, const char *summary, const struct at_app_option *options)
{
    printf("atoll %s: %s\n\nUsage: atoll %s [options]\n\nOptions:\n", role, summary, role);
    const struct at_app_option *o = options;
    for (; o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->metavar != NULL ? " " : "",
                 o->metavar != NULL ? o->metavar : "");
        printf("  %-28s %s\n", left, o->help);
    }
    printf("  %-28s %s\n", "--help", "Show this.");
    if (o->help != NULL) {
        struct at_str rest = at_str_of(o->help);
        puts("\nExamples:");
        while (rest.len > 0) {
            struct at_str line = at_str_cut(&rest, '\n');
            printf("  %.*s\n", (int)line.len, line.ptr);
        }
    }
}

static bool list_add(const char **list, const char *value)
{
    size_t n = 0;
    while (list[n] != NULL) {
        n++;
    }
    if (n == AT_APP_LIST_MAX) {
        return false;
    }
    list[n] = value;
    list[n + 1] = NULL;
    return true;
}

/* "a,b" of a list; NULL when it is empty. own: caller at_free. */
static char *list_join(const char *const *list)
{
    char *all = at_strdup(list[0]);
    for (size_t i = 1; all != NULL && list[i] != NULL; i++) {
        char *longer = at_asprintf("%s,%s", all, list[i]);
        at_free(all);
        all = longer;
    }
    return all;
}

/* Store one option's value; false with a message when it cannot be. */
static bool option_take(const char *role, const struct at_app_option *o, const char *value)
{
    if (o->flag != NULL) {
        if (value != NULL) {
            fprintf(stderr, "atoll %s: --%s takes no value\n", role, o->name);
            return false;
        }
        *o->flag = true;
        return true;
    }
    if (value == NULL) {
        fprintf(stderr, "atoll %s: --%s needs a value (%s)\n", role, o->name, o->metavar);
        return false;
    }
    if (o->list != NULL) {
        if (!list_add(o->list, value)) {
            fprintf(stderr, "atoll %s: --%s may be given %d times at most\n", role, o->name,
                    AT_APP_LIST_MAX);
            return false;
        }
        return true;
    }
    *o->value = value;
    return true;
}

static const struct at_app_option *option_find(const struct at_app_option *options,
                                               struct at_str name)
{
    for (const struct at_app_option *o = options; o->name != NULL; o++) {
        if (at_str_eq(name, o->name)) {
            return o;
        }
    }
    return NULL;
}

bool at_app_options(const char *role, const char *summary, const struct at_app_option *options,
                    int argc, char **argv, int *ret_exit)
{
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            print_usage(role, summary, options);
            *ret_exit = 0;
            return false;
        }
        const char *equals = strchr(arg, '=');
        bool dashed = strncmp(arg, "--", 2) == 0;
        struct at_str name = {dashed ? arg + 2 : arg, 0};
        name.len = equals != NULL ? (size_t)(equals - name.ptr) : strlen(name.ptr);
        const struct at_app_option *o = dashed ? option_find(options, name) : NULL;
        o = strcmp(arg, "-o") == 0 ? option_find(options, AT_STR("output")) : o;
        if (o == NULL) {
            fprintf(stderr, "atoll %s: unknown option %s; see atoll %s --help\n", role, arg, role);
            *ret_exit = at_rc_exit_status(AT_BAD_REQUEST);
            return false;
        }
        const char *value = equals != NULL ? equals + 1 : NULL;
        if (value == NULL && o->flag == NULL && i + 1 < argc) {
            value = argv[++i];
        }
        if (!option_take(role, o, value)) {
            *ret_exit = at_rc_exit_status(AT_BAD_REQUEST);
            return false;
        }
    }
    return true;
}

bool at_app_duration(const char *option, const char *text, int64_t default_ns, int64_t *ret_ns)
{
    *ret_ns = default_ns;
    struct at_err err = {0};
    if (text == NULL || at_duration_ns(text, ret_ns, &err) == AT_OK) {
        return true;
    }
    fprintf(stderr, "atoll: --%s: %s\n", option, err.msg);
    return false;
}

static void log_to_stderr(void *ctx, const char *line, size_t len)
{
    (void)ctx;
    fwrite(line, 1, len, stderr);
}

static int64_t log_clock(void *ctx)
{
    (void)ctx;
    return at_sys_wall_ns(at_sys_real());
}

void at_app_log_start(const char *component)
{
    const char *level = at_sys_getenv("ATOLL_LOG");
    static const char *const NAMES[] = {"debug", "info", "warn", "error"};
    enum at_log_level chosen = AT_LOG_INFO;
    for (size_t i = 0; level != NULL && i < AT_ARRAY_LEN(NAMES); i++) {
        if (strcmp(level, NAMES[i]) == 0) {
            chosen = (enum at_log_level)i;
        }
    }
    struct at_log_options options = {
        .level = chosen,
        .text = at_fd_is_terminal(2),
        .sink = log_to_stderr,
        .wall_ns = log_clock,
        .component = component,
    };
    at_log_start(&options);
}

int at_app_fail(const char *role, const struct at_err *err)
{
    const char *colon = err->field[0] != '\0' ? ": " : "";
    fprintf(stderr, "atoll %s: %s%s%s\n", role, err->field, colon, err->msg);
    return at_rc_exit_status(err->rc);
}

void at_app_ready(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

enum at_rc at_app_on_stop(struct at_loop *loop, at_signal_fn *fn, void *ctx, struct at_err *err)
{
    at_fd_ignore_sigpipe();
    enum at_rc rc = at_loop_signal(loop, SIGINT, fn, ctx, err);
    return rc == AT_OK ? at_loop_signal(loop, SIGTERM, fn, ctx, err) : rc;
}

bool at_app_began(struct at_loop *loop, enum at_rc rc, const struct at_err *err,
                  struct at_err *ret_err)
{
    if (rc != AT_OK) {
        *ret_err = *err;
        ret_err->rc = rc;
        at_loop_stop(loop);
    }
    return rc == AT_OK;
}

void at_app_stopped(void *loop)
{
    at_loop_stop(loop);
}

struct stdin_watch {
    struct at_loop *loop;
    at_watch_id id;
    at_signal_fn *fn;
    void *ctx;
};

static void on_stdin(void *ctx, int fd, unsigned events)
{
    (void)events;
    struct stdin_watch *w = ctx;
    char scratch[256];
    size_t len = 0;
    if (at_fd_read(fd, scratch, sizeof scratch, &len) == AT_OK) {
        return;
    }
    at_loop_unwatch(w->loop, w->id);
    w->fn(w->ctx, SIGTERM);
}

/* A file or /dev/null cannot be waited for: nobody holds the other end. */
static void stdin_unwatchable(void *ctx)
{
    struct stdin_watch *w = ctx;
    w->fn(w->ctx, SIGTERM);
}

void at_app_on_stdin_eof(struct at_loop *loop, at_signal_fn *fn, void *ctx)
{
    static struct stdin_watch watch; /* a process has one standard input */
    struct stdin_watch *w = &watch;
    *w = (struct stdin_watch){.loop = loop, .fn = fn, .ctx = ctx};
    w->id = at_loop_watch(loop, 0, AT_LOOP_READ, on_stdin, w);
    if (w->id == 0) {
        at_loop_timer(loop, 0, stdin_unwatchable, w);
    }
}

/* The token itself, or the first line of a file. own: caller at_free. */
static enum at_rc read_token(const char *token, const char *file, char **ret, struct at_err *err)
{
    *ret = NULL;
    if (file == NULL) {
        *ret = at_strdup(token);
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_file_read(file, TOKEN_BYTES_MAX, &text, err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_str rest = {text.data, text.len};
    struct at_str line = at_str_trim(at_str_cut(&rest, '\n'));
    *ret = at_strndup(line.ptr, line.len);
    return AT_OK;
}

char *at_app_state_dir(const char *role)
{
    const char *base = at_sys_getenv("ATOLL_STATE");
    if (base != NULL && base[0] != '\0') {
        return at_asprintf("%s/%s", base, role);
    }
    const char *xdg = at_sys_getenv("XDG_STATE_HOME");
    if (xdg != NULL && xdg[0] != '\0') {
        return at_asprintf("%s/atoll/%s", xdg, role);
    }
    if (at_sys_is_root()) { /* not under /root, which is closed to the users that instances get */
        return at_asprintf("/var/lib/atoll/%s", role);
    }
    const char *home = at_sys_getenv("HOME");
    return at_asprintf("%s/.local/state/atoll/%s", home != NULL ? home : "/var/lib", role);
}

enum at_rc at_app_join_read(const char *role, struct at_app_join *join, struct at_err *err)
{
    join->server = list_join(join->servers);
    join->dir = join->state_dir != NULL ? at_strdup(join->state_dir) : at_app_state_dir(role);
    return read_token(join->token, join->token_file, &join->secret, err);
}

void at_app_join_done(struct at_app_join *join)
{
    at_free(join->server);
    at_free(join->secret);
    at_free(join->dir);
}
