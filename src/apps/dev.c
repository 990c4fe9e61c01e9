/* `atoll dev`: the control plane in this process, and real agents and a real gateway as its
 * children, joined by token over mutual TLS as on other machines. Children end with us, however we
 * end: they watch our end of a pipe. */
#include "apps/apps.h"
#include "apps/server.h"
#include "client/client.h"
#include "core/digest.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/str.h"
#include "sys/fd.h"
#include "sys/file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define DEV_CHILDREN_MAX (AT_APP_LIST_MAX + 1)
#define DEV_STOP_TIMEOUT_NS (15 * AT_NS_PER_S)
#define DEV_RESTART_NS AT_NS_PER_S /* from the gateway's end to its next start */
#define DEV_LINE_BYTES_MAX 512
#define DEV_ARGS_MAX 24
#define DEV_LOG_BYTES_MAX ((size_t)4 << 20)

enum child_state { CHILD_WAITING, CHILD_STARTING, CHILD_SERVING, CHILD_ENDED };

struct dev;

struct child {
    struct dev *dev;
    char *name;    /* "edge-1", "gateway" */
    char *site;    /* of agents; NULL for the gateway */
    char *devices; /* file, or NULL */
    char *dir, *token_file, *pid_file, *log_file;
    enum child_state state;
    bool crashed; /* an agent that did not end in order: what it ran may still run */
    bool swept;   /* its successor was started, to end what it left */
    struct at_process process;
    int out_fd;  /* its standard output */
    int hold_fd; /* our end of its standard input: closing it ends the child */
    at_watch_id out_watch;
    char line[DEV_LINE_BYTES_MAX];
    size_t line_len;
    at_client_call_id call;
};

struct dev {
    struct at_loop *loop;
    struct at_server *server;
    struct at_client *client;
    struct at_client_kubeconfig *config;
    const char *models_dir, *listen, *gateway_listen, *gateway_threads;
    char *state_dir, *exe, *inference_token_file, *gateway_file;
    struct child children[DEV_CHILDREN_MAX];
    size_t n_children;
    bool stopping;
    int exit_status;
    at_timer_id restart_timer;
    char *gateway_addr; /* where it served first, and serves again when it was restarted */
    bool told;
};

static void dev_fail(struct dev *d, const struct at_err *err);
static void gateway_again(void *child);
static bool child_sweep(struct child *c);

/* --- children --- */

static bool children_all(const struct dev *d, enum child_state state)
{
    for (size_t i = 0; i < d->n_children; i++) {
        if (d->children[i].state != state) {
            return false;
        }
    }
    return true;
}

static bool children_running(const struct dev *d)
{
    for (size_t i = 0; i < d->n_children; i++) {
        if (d->children[i].state == CHILD_STARTING || d->children[i].state == CHILD_SERVING) {
            return true;
        }
    }
    return false;
}

static void dev_ready(struct dev *d)
{
    printf("control plane  %s\n", at_server_url(d->server));
    for (size_t i = 0; i < d->n_children; i++) {
        const struct child *c = &d->children[i];
        if (c->site != NULL) {
            printf("agent          %s (site %s)\n", c->name, c->site);
        }
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf url = {0};
    if (at_file_read(d->gateway_file, 4096, &url, NULL) == AT_OK) {
        printf("gateway        %s\n", url.data);
        printf("playground     %s/playground (its key: cat %s)\n", url.data,
               d->inference_token_file);
    }
    printf("\nexport KUBECONFIG=%s\n", at_server_kubeconfig(d->server));
    at_app_ready("ready dev");
}

/* A child's line on standard output: it serves. */
static void child_line(struct child *c)
{
    struct dev *d = c->dev;
    if (strncmp(c->line, "ready ", 6) != 0 || c->state != CHILD_STARTING) {
        return;
    }
    struct at_err err = {0};
    const char *url = strstr(c->line, "http://");
    if (c->site == NULL && url != NULL) {
        at_free(d->gateway_addr);
        d->gateway_addr = at_strdup(url + strlen("http://"));
        if (at_file_write_atomic(d->gateway_file, url, strlen(url), 0644, &err) != AT_OK) {
            dev_fail(d, &err);
            return;
        }
    }
    c->state = CHILD_SERVING;
    if (children_all(d, CHILD_SERVING) && !d->stopping && !d->told) {
        d->told = true;
        dev_ready(d);
    }
}

static void child_output(void *ctx, int fd, unsigned events)
{
    (void)events;
    struct child *c = ctx;
    char piece[256];
    size_t len = 0;
    enum at_rc rc = at_fd_read(fd, piece, sizeof piece, &len);
    if (rc == AT_AGAIN) {
        return;
    }
    if (rc != AT_OK) {
        at_loop_unwatch(c->dev->loop, c->out_watch);
        at_fd_close(c->out_fd);
        c->out_fd = -1;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (piece[i] == '\n') {
            c->line[c->line_len] = '\0';
            child_line(c);
            c->line_len = 0;
        } else if (c->line_len + 1 < sizeof c->line) {
            c->line[c->line_len++] = piece[i];
        }
    }
}

/* The last line that a child logged: most often the reason of its end. */
static void child_last_words(const struct child *c, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf log = {0};
    (void)at_err_set(err, AT_INTERNAL, "it said nothing");
    if (at_file_read(c->log_file, DEV_LOG_BYTES_MAX, &log, NULL) != AT_OK) {
        return;
    }
    while (log.len > 0 && log.data[log.len - 1] == '\n') {
        log.data[--log.len] = '\0';
    }
    const char *line = log.data != NULL ? strrchr(log.data, '\n') : NULL;
    line = line != NULL ? line + 1 : log.data;
    if (line != NULL && line[0] != '\0') {
        (void)at_err_set(err, AT_INTERNAL, "%s", line);
    }
}

static void child_ended(void *ctx, pid_t pid, int exit_code, int signal_number)
{
    (void)pid;
    struct child *c = ctx;
    struct dev *d = c->dev;
    bool served = c->state == CHILD_SERVING;
    c->crashed = c->site != NULL && exit_code != 0 && !c->swept;
    c->state = CHILD_ENDED;
    at_fd_close(c->hold_fd);
    c->hold_fd = -1;
    struct at_err ignored;
    if (at_tree_remove(c->pid_file, &ignored) != AT_OK) {
        at_log(AT_LOG_WARN, "dev.pid_file", "%s", ignored.msg);
    }
    if (d->stopping) {
        if (!child_sweep(c) && !children_running(d)) {
            at_loop_stop(d->loop);
        }
        return;
    }
    if (!served && !d->told) {
        struct at_err err = {0};
        child_last_words(c, &err);
        (void)at_err_wrap(&err, AT_INTERNAL, "%s ended before it served (exit %d); its log: %s",
                          c->name, exit_code, c->log_file);
        dev_fail(d, &err);
        return;
    }
    at_log(AT_LOG_WARN, "dev.child_ended", "%s ended (exit %d, signal %d); its log: %s", c->name,
           exit_code, signal_number, c->log_file);
    if (c->site == NULL) { /* an agent that is killed stays away: that is how a site is lost */
        d->restart_timer = at_loop_timer(d->loop, DEV_RESTART_NS, gateway_again, c);
    }
}

/* Standard input and output of a child: ours are hold_fd and out_fd, its own are closed here after
 * the start. */
static enum at_rc child_spawn(struct child *c, const char *const *argv, struct at_err *err)
{
    struct dev *d = c->dev;
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    int log_fd = -1;
    enum at_rc rc = at_fd_pipe(in, err);
    if (rc == AT_OK) {
        rc = at_fd_pipe(out, err);
    }
    if (rc == AT_OK) {
        rc = at_file_open_append(c->log_file, 0600, &log_fd, err);
    }
    if (rc == AT_OK) {
        struct at_process_options o = {.argv = argv,
                                       .envp = at_sys_environ(),
                                       .stdin_fd = in[0],
                                       .stdout_fd = out[1],
                                       .stderr_fd = log_fd,
                                       .uid = -1,
                                       .gid = -1,
                                       .new_session = true};
        rc = at_process_start(&o, true, &c->process, NULL, err);
    }
    at_fd_close(in[0]);
    at_fd_close(out[1]);
    at_fd_close(log_fd);
    if (rc != AT_OK) {
        at_fd_close(in[1]);
        at_fd_close(out[0]);
        return rc;
    }
    c->hold_fd = in[1];
    c->out_fd = out[0];
    c->state = CHILD_STARTING;
    c->out_watch = at_loop_watch(d->loop, c->out_fd, AT_LOOP_READ, child_output, c);
    char pid[24];
    int len = snprintf(pid, sizeof pid, "%d\n", (int)c->process.pid);
    rc = at_loop_child(d->loop, &c->process, child_ended, c);
    return rc == AT_OK ? at_file_write_atomic(c->pid_file, pid, (size_t)len, 0644, err) : rc;
}

static enum at_rc child_start(struct child *c, struct at_err *err)
{
    struct dev *d = c->dev;
    AT_CLEANUP(at_cleanup_free) char *pin = at_asprintf("sha256:%s", at_server_ca_pin(d->server));
    const char *argv[DEV_ARGS_MAX] = {d->exe,
                                      c->site != NULL ? "agent" : "gateway",
                                      "--server",
                                      at_server_url(d->server),
                                      "--token-file",
                                      c->token_file,
                                      "--ca-pin",
                                      pin,
                                      "--name",
                                      c->name,
                                      "--state",
                                      c->dir,
                                      "--exit-with-stdin"};
    size_t n = 13;
    if (c->site != NULL) {
        argv[n++] = "--stop-instances";
        if (c->devices != NULL) {
            argv[n++] = "--devices";
            argv[n++] = c->devices;
        }
        if (d->models_dir != NULL) {
            argv[n++] = "--models";
            argv[n++] = d->models_dir;
        }
    } else {
        argv[n++] = "--listen";
        argv[n++] = d->gateway_addr != NULL ? d->gateway_addr : d->gateway_listen;
        argv[n++] = "--auth-token-file";
        argv[n++] = d->inference_token_file;
        argv[n++] = "--threads";
        argv[n++] = d->gateway_threads;
    }
    return child_spawn(c, argv, err);
}

static void gateway_again(void *child)
{
    struct child *c = child;
    struct dev *d = c->dev;
    struct at_err err = {0};
    d->restart_timer = 0;
    if (child_start(c, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "dev.restart", "%s: %s", c->name, err.msg);
        d->restart_timer = at_loop_timer(d->loop, DEV_RESTART_NS, gateway_again, c);
    }
}

/* An agent's tasks outlive it when it crashes. At our own end its successor takes them over and,
 * as its standard input is at its end already, ends them. False: there is nothing to sweep. */
static bool child_sweep(struct child *c)
{
    struct at_err err = {0};
    if (!c->crashed) {
        return false;
    }
    c->crashed = false;
    c->swept = true; /* once: what made it crash may make its successor crash too */
    if (child_start(c, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "dev.sweep", "%s: %s", c->name, err.msg);
        return false;
    }
    at_fd_close(c->hold_fd);
    c->hold_fd = -1;
    return true;
}

static enum at_rc child_first_start(struct child *c, const char *token, struct at_err *err)
{
    enum at_rc rc = at_dir_make(c->dir, 0711, err);
    if (rc == AT_OK) {
        rc = at_file_write_atomic(c->token_file, token, strlen(token), 0600, err);
    }
    return rc == AT_OK ? child_start(c, err) : rc;
}

static void on_token(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    struct child *c = ctx;
    c->call = 0;
    struct at_err own = {0};
    if (rc != AT_OK) {
        dev_fail(c->dev, err);
    } else if (child_first_start(c, at_json_str_at(body, "token", ""), &own) != AT_OK) {
        dev_fail(c->dev, &own);
    }
}

static void child_join(struct child *c)
{
    json_t *ask = json_pack("{s:s, s:s, s:s}", "role", c->site != NULL ? "agent" : "gateway",
                            "site", c->site != NULL ? c->site : "", "ttl", "10m");
    if (c->site != NULL) { /* its folder may have been lost while its Node is there */
        json_object_set_new(ask, "node", json_string(c->name));
    }
    c->call = at_client_request(c->dev->client, AT_HTTP_POST, "/join/v1/tokens", "application/json",
                                ask, on_token, c);
    json_decref(ask);
}

/* --- the whole --- */

static void stop_late(void *ctx)
{
    struct dev *d = ctx;
    for (size_t i = 0; i < d->n_children; i++) {
        struct child *c = &d->children[i];
        if (c->state == CHILD_STARTING || c->state == CHILD_SERVING) {
            at_log(AT_LOG_WARN, "dev.kill", "%s did not end in time", c->name);
            at_process_signal(&c->process, SIGKILL);
        }
    }
}

static void dev_stop(void *ctx, int signal_number)
{
    struct dev *d = ctx;
    if (d->stopping) {
        return;
    }
    (void)signal_number;
    d->stopping = true;
    if (d->server != NULL) {
        at_server_rest(d->server);
    }
    at_loop_timer_cancel(d->loop, d->restart_timer);
    for (size_t i = 0; i < d->n_children; i++) {
        struct child *c = &d->children[i];
        if (d->client != NULL) { /* else the server does not serve yet */
            at_client_cancel(d->client, c->call);
        }
        if (c->state == CHILD_STARTING || c->state == CHILD_SERVING) {
            at_process_signal(&c->process, SIGTERM);
        } else {
            (void)child_sweep(c);
        }
    }
    if (!children_running(d)) {
        at_loop_stop(d->loop);
        return;
    }
    at_loop_timer(d->loop, DEV_STOP_TIMEOUT_NS, stop_late, d);
}

static void dev_fail(struct dev *d, const struct at_err *err)
{
    if (d->exit_status == 0) {
        d->exit_status = at_app_fail("dev", err);
    }
    dev_stop(d, 0);
}

/* A site exists before its agent joins, so that the first picture is whole; a manifest may say more
 * of it later. */
static void on_site_made(void *ctx, enum at_rc rc, int status, json_t *body,
                         const struct at_err *err)
{
    (void)status;
    (void)body;
    struct child *c = ctx;
    c->call = 0;
    if (rc != AT_OK && rc != AT_EXISTS) {
        struct at_err own = *err;
        (void)at_err_wrap(&own, rc, "--site %s", c->site);
        dev_fail(c->dev, &own);
        return;
    }
    child_join(c);
}

static void site_make(struct child *c)
{
    json_t *site =
        json_pack("{s:s, s:s, s:{s:s}, s:{s:s, s:s}}", "apiVersion", "atoll.dev/v1", "kind", "Site",
                  "metadata", "name", c->site, "spec", "class", "onprem", "jurisdiction", "local");
    c->call = at_client_create(c->dev->client, &AT_KIND_SITE, NULL, site, on_site_made, c);
    json_decref(site);
}

static void on_server_ready(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct dev *d = ctx;
    if (rc != AT_OK) {
        dev_fail(d, err);
        return;
    }
    struct at_err own = {0};
    rc = at_client_kubeconfig_load(at_server_kubeconfig(d->server), NULL, &d->config, &own);
    if (rc == AT_OK) {
        rc = at_client_new(d->loop, &d->config->options, &d->client, &own);
    }
    if (rc != AT_OK) {
        dev_fail(d, &own);
        return;
    }
    for (size_t i = 0; i < d->n_children; i++) {
        struct child *c = &d->children[i];
        if (c->site != NULL) {
            site_make(c);
        } else {
            child_join(c);
        }
    }
}

/* site: "name" or "name=devices.json"; NULL makes the gateway's child. */
static void child_add(struct dev *d, const char *site)
{
    struct child *c = &d->children[d->n_children++];
    *c = (struct child){.dev = d, .out_fd = -1, .hold_fd = -1};
    if (site == NULL) {
        c->name = at_strdup("gateway");
    } else {
        struct at_str rest = at_str_of(site);
        struct at_str name = at_str_cut(&rest, '=');
        c->site = at_strndup(name.ptr, name.len);
        c->name = at_asprintf("%s-1", c->site);
        c->devices = rest.len != 0 ? at_strndup(rest.ptr, rest.len) : NULL;
    }
    c->dir = at_asprintf("%s/machines/%s", d->state_dir, c->name);
    c->token_file = at_asprintf("%s/join.token", c->dir);
    c->pid_file = at_asprintf("%s/run/%s.pid", d->state_dir, c->name);
    c->log_file = at_asprintf("%s/log/%s.log", d->state_dir, c->name);
}

static void child_done(struct child *c)
{
    at_fd_close(c->out_fd);
    at_fd_close(c->hold_fd);
    at_free(c->name);
    at_free(c->site);
    at_free(c->devices);
    at_free(c->dir);
    at_free(c->token_file);
    at_free(c->pid_file);
    at_free(c->log_file);
}

/* The token that inference requests carry; made once, kept over restarts. */
static enum at_rc inference_token_make(struct dev *d, struct at_err *err)
{
    if (at_file_exists(d->inference_token_file)) {
        return AT_OK;
    }
    unsigned char raw[24];
    char hex[2 * sizeof raw + 1];
    at_sys_random(at_loop_sys(d->loop), raw, sizeof raw);
    at_hex_encode(raw, sizeof raw, hex);
    return at_file_write_atomic(d->inference_token_file, hex, strlen(hex), 0600, err);
}

static enum at_rc dev_open(struct dev *d, bool reset, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *run = at_asprintf("%s/run", d->state_dir);
    AT_CLEANUP(at_cleanup_free) char *log = at_asprintf("%s/log", d->state_dir);
    AT_CLEANUP(at_cleanup_free) char *lock = at_asprintf("%s/lock", d->state_dir);
    enum at_rc rc = AT_OK;
    if (reset && at_file_exists(lock)) {
        /* Only what this command made, and only while nobody uses it. */
        int fd = -1;
        rc = at_file_lock(lock, &fd, err);
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "--reset of %s", d->state_dir);
        }
        rc = at_tree_remove(d->state_dir, err);
        at_file_unlock(fd);
    }
    if (rc == AT_OK) {
        /* Passable: instances run as users of their own, below it. */
        rc = at_dir_make(d->state_dir, 0711, err);
    }
    if (rc == AT_OK) {
        rc = at_dir_make(run, 0700, err);
    }
    if (rc == AT_OK) {
        rc = at_dir_make(log, 0700, err);
    }
    if (rc == AT_OK) {
        rc = inference_token_make(d, err);
    }
    return rc;
}

static enum at_rc dev_run(struct dev *d, bool reset, int64_t node_timeout_ns, bool with_stdin,
                          struct at_err *err)
{
    enum at_rc rc = at_app_on_stop(d->loop, dev_stop, d, err);
    if (rc == AT_OK) {
        rc = dev_open(d, reset, err);
    }
    struct at_server_options o = {.audit = {.level = AT_AUDIT_REQUESTS},
                                  .state_dir = d->state_dir,
                                  .store = "sqlite",
                                  .listen = d->listen,
                                  .node_timeout_ns = node_timeout_ns,
                                  .on_ready = on_server_ready,
                                  .ctx = d};
    if (rc == AT_OK) {
        rc = at_server_new(d->loop, &o, &d->server, err);
    }
    if (rc == AT_OK) {
        if (with_stdin) {
            at_app_on_stdin_eof(d->loop, dev_stop, d);
        }
        at_loop_run(d->loop);
    }
    return rc;
}

static void dev_done(struct dev *d)
{
    at_client_free(d->client);
    at_client_kubeconfig_free(d->config);
    at_server_free(d->server);
    for (size_t i = 0; i < d->n_children; i++) {
        child_done(&d->children[i]);
    }
    at_loop_free(d->loop);
    at_free(d->state_dir);
    at_free(d->exe);
    at_free(d->inference_token_file);
    at_free(d->gateway_file);
    at_free(d->gateway_addr);
}

static enum at_rc sites_check(const struct dev *d, struct at_err *err)
{
    for (size_t i = 0; i < d->n_children; i++) {
        for (size_t k = 0; k < i; k++) {
            if (at_streq(d->children[i].site, d->children[k].site)) {
                return at_err_set_field(err, AT_INVALID, "site", "%s is given twice",
                                        d->children[i].site);
            }
        }
    }
    return AT_OK;
}

int at_app_dev(int argc, char **argv)
{
    const char *state_dir = NULL;
    const char *node_timeout = NULL;
    const char *sites[AT_APP_LIST_MAX + 1] = {NULL};
    bool reset = false;
    bool free_ports = false;
    bool with_stdin = false;
    struct dev d = {
        .listen = "127.0.0.1:7443", .gateway_listen = "127.0.0.1:7080", .gateway_threads = "1"};
    const struct at_app_option options[] = {
        {"state", &state_dir, NULL, NULL, "DIR",
         "Where everything is kept (default /var/lib/atoll/dev as root, else "
         "~/.local/state/atoll/dev)."},
        {"reset", NULL, &reset, NULL, NULL, "Forget the state first."},
        {"listen", &d.listen, NULL, NULL, "ADDR", "Control plane (default 127.0.0.1:7443)."},
        {"gateway-listen", &d.gateway_listen, NULL, NULL, "ADDR",
         "Gateway (default 127.0.0.1:7080)."},
        {"free-ports", NULL, &free_ports, NULL, NULL,
         "Take free ports for both; the output tells which."},
        {"site", NULL, NULL, sites, "NAME[=FILE]",
         "A site with one agent; FILE describes its machine. Repeat. (default local)"},
        {"models", &d.models_dir, NULL, NULL, "DIR",
         "Folder in which file:NAME models are looked up."},
        {"gateway-threads", &d.gateway_threads, NULL, NULL, "N",
         "Event loops of the gateway (default 1)."},
        {"node-timeout", &node_timeout, NULL, NULL, "TIME",
         "Silence after which a node is lost (default 2s)."},
        {"exit-with-stdin", NULL, &with_stdin, NULL, NULL, "End when standard input is closed."},
        {NULL, NULL, NULL, NULL, NULL, NULL}};
    int exit_status = 0;
    int64_t node_timeout_ns = 0;
    if (!at_app_options("dev", "a whole Atoll on this machine", options, argc, argv,
                        &exit_status)) {
        return exit_status;
    }
    if (!at_app_duration("node-timeout", node_timeout, 0, &node_timeout_ns)) {
        return at_rc_exit_status(AT_INVALID);
    }
    if (free_ports) {
        d.listen = d.gateway_listen = "127.0.0.1:0";
    }
    at_app_log_start("dev");
    d.state_dir = state_dir != NULL ? at_strdup(state_dir) : at_app_state_dir("dev");
    d.exe = at_sys_self_exe();
    d.inference_token_file = at_asprintf("%s/inference.token", d.state_dir);
    d.gateway_file = at_asprintf("%s/gateway", d.state_dir);
    d.loop = at_loop_new(at_sys_real());
    for (size_t i = 0; sites[i] != NULL; i++) {
        child_add(&d, sites[i]);
    }
    if (sites[0] == NULL) {
        child_add(&d, "local");
    }
    child_add(&d, NULL);
    struct at_err err = {0};
    enum at_rc rc = sites_check(&d, &err);
    rc = rc != AT_OK ? rc : dev_run(&d, reset, node_timeout_ns, with_stdin, &err);
    if (rc != AT_OK) {
        d.exit_status = at_app_fail("dev", &err);
    }
    exit_status = d.exit_status;
    dev_done(&d);
    return exit_status;
}
