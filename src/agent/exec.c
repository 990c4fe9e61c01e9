/* Commands that clients run beside an instance (kubectl exec), and connections to its port (kubectl
 * port-forward), which are the same but for a socket in place of pipes. The server's lines start
 * them and bring their input; their output goes back in POSTs, one at a time for each, so that a
 * slow client holds them back and nothing piles up here. */
#include "agent/agent_priv.h"
#include "agent/reach.h"

#include "core/digest.h"
#include "core/log.h"
#include "sys/fd.h"
#include "sys/socket.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { OUT, ERR, OUTPUTS };

struct exec {
    struct agent_execs *owner;
    size_t slot;
    char *id;
    char *server;              /* that asked */
    struct at_process process; /* pid 0: it has ended, or never began */
    at_watch_id process_watch;
    bool ended, last;
    bool abandoned; /* nobody listens any more: freed once the process is gone */
    bool terminal, socket;
    bool broken; /* a socket that ended in an error */
    int exit_code;
    int in_fd, out_fds[OUTPUTS]; /* -1: closed */
    at_watch_id in_watch, out_watches[OUTPUTS];
    struct at_buf input;
    bool input_over;
    size_t taken_bytes; /* of input, not yet told */
    at_client_call_id call;
    at_timer_id kill_timer;
};

struct agent_execs {
    struct at_agent *agent;
    struct exec *items[AGENT_EXECS_MAX];
};

static void pump(struct exec *e);

static struct at_loop *loop_of(const struct exec *e)
{
    return e->owner->agent->loop;
}

static void unwatch(struct exec *e, at_watch_id *watch)
{
    if (*watch != 0) {
        at_loop_unwatch(loop_of(e), *watch);
        *watch = 0;
    }
}

static void close_output(struct exec *e, int which)
{
    unwatch(e, &e->out_watches[which]);
    at_fd_close(e->out_fds[which]);
    e->out_fds[which] = -1;
}

static void close_input(struct exec *e)
{
    unwatch(e, &e->in_watch);
    if (e->socket && e->in_fd >= 0) {
        at_sock_shutdown_write(e->in_fd);
    }
    at_fd_close(e->in_fd);
    e->in_fd = -1;
    e->taken_bytes += e->input.len;
    at_buf_done(&e->input);
}

static void exec_free(struct exec *e)
{
    close_input(e);
    close_output(e, OUT);
    close_output(e, ERR);
    unwatch(e, &e->process_watch);
    at_loop_timer_cancel(loop_of(e), e->kill_timer);
    at_client_cancel(e->owner->agent->client, e->call);
    if (e->process.pid > 0) {
        at_process_close(&e->process);
    }
    e->owner->items[e->slot] = NULL;
    at_free(e->id);
    at_free(e->server);
    at_free(e);
}

static void kill_hard(void *ctx)
{
    struct exec *e = ctx;
    e->kill_timer = 0;
    if (e->process.pid > 0) {
        at_process_signal_group(&e->process, SIGKILL);
    }
}

/* Nobody waits for its answers: politely first, since runc passes only that on. */
static void abandon(struct exec *e)
{
    e->abandoned = true;
    at_client_cancel(e->owner->agent->client, e->call);
    e->call = 0;
    close_input(e);
    close_output(e, OUT);
    close_output(e, ERR);
    if (e->process.pid <= 0) {
        exec_free(e);
        return;
    }
    at_process_signal_group(&e->process, SIGTERM);
    if (e->kill_timer == 0) {
        e->kill_timer = at_loop_timer(loop_of(e), AGENT_EXEC_KILL_NS, kill_hard, e);
    }
}

static void on_posted(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    (void)body;
    (void)err;
    struct exec *e = ctx;
    e->call = 0;
    if (e->last) {
        exec_free(e);
    } else if (rc != AT_OK) {
        abandon(e);
    } else {
        pump(e);
    }
}

static void post(struct exec *e, const char *query, const char *data, size_t len)
{
    struct at_agent *a = e->owner->agent;
    char node[512];
    char path[2048];
    assert(e->call == 0);
    at_client_path(&AT_KIND_NODE, NULL, a->name, "tunnel", node, sizeof node);
    snprintf(path, sizeof path, "%s/%s%s&taken=%zu", node, e->id, query, e->taken_bytes);
    e->taken_bytes = 0;
    e->call = at_client_post_text_to(a->client, e->server, path, data, len, on_posted, e);
}

static void post_error(struct exec *e, const char *message)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf query = {.max = 1200};
    e->last = true;
    if (at_buf_append_str(&query, "?error=") != AT_OK ||
        at_client_escape(message, &query) != AT_OK) {
        post(e, "?error=the%20command%20cannot%20be%20started", "", 0);
        return;
    }
    post(e, query.data, "", 0);
}

/* True when something was posted. */
static bool post_output(struct exec *e, int which)
{
    char *piece = at_alloc(AGENT_EXEC_PIECE_BYTES);
    size_t n = 0;
    enum at_rc rc = at_fd_read(e->out_fds[which], piece, AGENT_EXEC_PIECE_BYTES, &n);
    if (rc == AT_OK) {
        post(e, which == OUT ? "?more=1&stream=1" : "?more=1&stream=2", piece, n);
    } else if (rc != AT_AGAIN || e->ended) {
        /* A terminal whose last user is gone reads as an error. What the command left running may
         * hold the pipe open for ever: its own end is the end. */
        close_output(e, which);
        e->ended = e->ended || e->socket;
        e->broken = e->socket && rc != AT_EOF;
    }
    at_free(piece);
    return rc == AT_OK;
}

static void on_output(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    pump(ctx);
}

/* Post what there is to tell, or wait until there is something. */
static void pump(struct exec *e)
{
    if (e->call != 0 || e->abandoned) {
        return;
    }
    for (int i = 0; i < OUTPUTS; i++) {
        unwatch(e, &e->out_watches[i]);
    }
    for (int i = 0; i < OUTPUTS; i++) {
        if (e->out_fds[i] >= 0 && post_output(e, i)) {
            return;
        }
    }
    if (e->broken) {
        post_error(e, "the connection to the instance is refused or broken");
        return;
    }
    if (e->ended && e->out_fds[OUT] < 0 && e->out_fds[ERR] < 0) {
        char query[64];
        snprintf(query, sizeof query, "?exit=%d", e->exit_code);
        e->last = true;
        post(e, query, "", 0);
        return;
    }
    if (e->taken_bytes >= AGENT_EXEC_ACK_BYTES) {
        post(e, "?more=1", "", 0);
        return;
    }
    for (int i = 0; i < OUTPUTS; i++) {
        if (e->out_fds[i] >= 0) {
            e->out_watches[i] =
                at_loop_watch(loop_of(e), e->out_fds[i], AT_LOOP_READ, on_output, e);
        }
    }
}

static void on_process(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    struct exec *e = ctx;
    int signal_number = 0;
    if (at_process_reap(&e->process, &e->exit_code, &signal_number) == AT_AGAIN) {
        return;
    }
    unwatch(e, &e->process_watch);
    at_process_close(&e->process);
    e->process.pid = 0;
    e->ended = true;
    if (e->abandoned) {
        exec_free(e);
        return;
    }
    close_input(e);
    pump(e);
}

/* --- input --- */

static void on_input_writable(void *ctx, int fd, unsigned events);

static void write_input(struct exec *e)
{
    bool blocked = false;
    while (e->in_fd >= 0 && e->input.len > 0 && !blocked) {
        size_t n = 0;
        enum at_rc rc = at_fd_write(e->in_fd, e->input.data, e->input.len, &n);
        if (rc == AT_OK) {
            at_buf_consume(&e->input, n);
            e->taken_bytes += n;
        } else if (rc == AT_AGAIN) {
            blocked = true;
        } else {
            close_input(e); /* the command reads no more; that is its right */
        }
    }
    if (blocked && e->in_watch == 0) {
        e->in_watch = at_loop_watch(loop_of(e), e->in_fd, AT_LOOP_WRITE, on_input_writable, e);
    } else if (!blocked) {
        unwatch(e, &e->in_watch);
        if (e->input_over && e->input.len == 0) {
            close_input(e);
        }
    }
    pump(e);
}

static void on_input_writable(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    write_input(ctx);
}

static void input_add(struct exec *e, const char *base64)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf bytes = {0};
    if (at_base64_decode(base64, strlen(base64), &bytes) != AT_OK || bytes.len == 0) {
        return;
    }
    if (e->in_fd < 0) {
        e->taken_bytes += bytes.len;
        pump(e);
    } else if (at_buf_append(&e->input, bytes.data, bytes.len) == AT_OK) {
        write_input(e);
    } else {
        at_log(AT_LOG_WARN, "exec.input", "the server sent more input than was agreed on");
        abandon(e);
    }
}

static void input_end(struct exec *e)
{
    static const char END_OF_INPUT = 4; /* what a terminal takes for the end */
    e->input_over = !e->terminal;
    if (e->terminal && at_buf_append(&e->input, &END_OF_INPUT, 1) != AT_OK) {
        return;
    }
    write_input(e);
}

/* --- start --- */

struct ends {
    int theirs[3];
};

static enum at_rc open_pipes(struct exec *e, const json_t *ask, struct ends *ends,
                             struct at_err *err)
{
    static const char *const WANTED[] = {"stdin", "stdout", "stderr"};
    int *const mine[] = {&e->in_fd, &e->out_fds[OUT], &e->out_fds[ERR]};
    for (size_t i = 0; i < 3; i++) {
        int fds[2];
        if (!at_json_bool_at(ask, WANTED[i], false)) {
            continue;
        }
        enum at_rc rc = at_fd_pipe(fds, err);
        if (rc != AT_OK) {
            return rc;
        }
        ends->theirs[i] = fds[i == 0 ? 0 : 1];
        *mine[i] = fds[i == 0 ? 1 : 0];
        at_fd_set_nonblocking(*mine[i]);
    }
    return AT_OK;
}

static enum at_rc open_terminal(struct exec *e, const json_t *ask, struct ends *ends,
                                struct at_err *err)
{
    int master;
    enum at_rc rc = at_fd_terminal(&master, &ends->theirs[0], err);
    if (rc != AT_OK) {
        return rc;
    }
    at_fd_set_nonblocking(master);
    e->terminal = true;
    e->out_fds[OUT] = master;
    e->in_fd = at_json_bool_at(ask, "stdin", false) ? at_fd_dup(master) : -1;
    ends->theirs[1] = at_fd_dup(ends->theirs[0]);
    ends->theirs[2] = at_fd_dup(ends->theirs[0]);
    return AT_OK;
}

static enum at_rc start(struct exec *e, const json_t *ask, struct at_err *err)
{
    const char *argv[AGENT_EXEC_ARGS_MAX + 1];
    const json_t *command = json_object_get(ask, "command");
    size_t n = json_array_size(command);
    if (n == 0 || n > AGENT_EXEC_ARGS_MAX) {
        return at_err_set(err, AT_INVALID, "the command has no words, or more than %d",
                          AGENT_EXEC_ARGS_MAX);
    }
    for (size_t i = 0; i <= n; i++) {
        argv[i] = i < n ? json_string_value(json_array_get(command, i)) : NULL;
    }
    const struct agent_instance *i = agent_instance_find(
        e->owner->agent, at_json_str_at(ask, "namespace", ""), at_json_str_at(ask, "name", ""));
    if (i == NULL || i->task == NULL || (i->phase != PHASE_RUNNING && i->phase != PHASE_DRAINING)) {
        return at_err_set(err, AT_NOT_FOUND, "the instance does not run on this node now");
    }
    if (i->driver->ops->exec == NULL) {
        return at_err_set(err, AT_UNSUPPORTED, "driver %s runs no commands beside an instance",
                          i->driver->ops->name);
    }
    struct ends ends = {{-1, -1, -1}};
    bool terminal = at_json_bool_at(ask, "tty", false);
    enum at_rc rc = terminal ? open_terminal(e, ask, &ends, err) : open_pipes(e, ask, &ends, err);
    if (rc == AT_OK) {
        struct at_runtime_exec what = {argv, ends.theirs[0], ends.theirs[1], ends.theirs[2],
                                       terminal};
        rc = i->driver->ops->exec(i->task, &what, &e->process, err);
    }
    for (size_t k = 0; k < 3; k++) {
        at_fd_close(ends.theirs[k]);
    }
    return rc;
}

/* A connection to the port where the instance serves: to no other, for behind loopback there may
 * be what is none of the client's business. */
static enum at_rc connect_port(struct exec *e, const json_t *ask, struct at_err *err)
{
    int64_t port = at_json_int_at(ask, "port", 0);
    const struct agent_instance *i = agent_instance_find(
        e->owner->agent, at_json_str_at(ask, "namespace", ""), at_json_str_at(ask, "name", ""));
    if (i == NULL || i->endpoint == NULL || i->task == NULL) {
        return at_err_set(err, AT_NOT_FOUND, "the instance serves no port on this node now");
    }
    if (port != i->port && (i->typed == NULL || port != i->typed->spec.port)) {
        return at_err_set(err, AT_INVALID, "the instance serves port %d, not %lld", i->port,
                          (long long)port);
    }
    int fd = -1;
    enum at_rc rc = at_sock_connect(i->endpoint, &fd, err);
    if (rc == AT_OK) {
        e->socket = true;
        e->in_fd = fd;
        e->out_fds[OUT] = at_fd_dup(fd);
    }
    return rc;
}

static void exec_new(struct agent_execs *x, const char *server, const char *op, const char *id,
                     const json_t *ask)
{
    size_t slot = 0;
    while (slot < AGENT_EXECS_MAX && x->items[slot] != NULL) {
        slot++;
    }
    if (slot == AGENT_EXECS_MAX) {
        at_log(AT_LOG_WARN, "exec.full", "too many commands run beside instances of this node");
        return; /* the server tells its client that no answer came */
    }
    struct exec *e = AT_NEW(struct exec);
    *e = (struct exec){.owner = x,
                       .slot = slot,
                       .id = at_strdup(id),
                       .server = at_strdup(server),
                       .in_fd = -1,
                       .out_fds = {-1, -1}};
    at_buf_init(&e->input, AGENT_EXEC_INPUT_BYTES_MAX);
    x->items[slot] = e;
    struct at_err err = {0};
    bool forward = strcmp(op, "forward") == 0;
    if ((forward ? connect_port(e, ask, &err) : start(e, ask, &err)) != AT_OK) {
        e->process.pid = 0;
        post_error(e, err.msg);
        return;
    }
    if (forward) {
        post(e, "?more=1", "", 0); /* pump() sees whether it is connected */
        return;
    }
    e->process_watch = at_loop_watch(loop_of(e), e->process.pidfd, AT_LOOP_READ, on_process, e);
    post(e, "?more=1", "", 0); /* it runs */
}

struct agent_execs *agent_execs_new(struct at_agent *a)
{
    struct agent_execs *x = AT_NEW(struct agent_execs);
    x->agent = a;
    return x;
}

void agent_execs_ask(struct agent_execs *x, const char *server, const char *op, const char *id,
                     const json_t *ask)
{
    if (strcmp(op, "exec") == 0 || strcmp(op, "forward") == 0) {
        exec_new(x, server, op, id, ask);
        return;
    }
    for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
        struct exec *e = x->items[i];
        if (e == NULL || e->abandoned || strcmp(e->id, id) != 0) {
            continue;
        }
        if (strcmp(op, "stdin") == 0) {
            input_add(e, at_json_str_at(ask, "data", ""));
        } else if (strcmp(op, "stdin-close") == 0) {
            input_end(e);
        } else if (strcmp(op, "resize") == 0 && e->terminal && e->out_fds[OUT] >= 0) {
            at_fd_terminal_resize(e->out_fds[OUT], (unsigned)at_json_int_at(ask, "width", 80),
                                  (unsigned)at_json_int_at(ask, "height", 24));
        } else if (strcmp(op, "cancel") == 0) {
            abandon(e);
        }
        return;
    }
}

void agent_execs_end(struct agent_execs *x, const char *server)
{
    for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
        if (x->items[i] != NULL && !x->items[i]->abandoned &&
            at_streq(x->items[i]->server, server)) {
            abandon(x->items[i]);
        }
    }
}

void agent_execs_free(struct agent_execs *x)
{
    for (size_t i = 0; i < AGENT_EXECS_MAX; i++) {
        if (x->items[i] != NULL) {
            kill_hard(x->items[i]);
            exec_free(x->items[i]);
        }
    }
    at_free(x);
}
