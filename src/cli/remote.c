/* A command beside an instance: its three streams over channels, and how it ended. */
#include "cli/reach.h"
#include "client/channels.h"
#include "sys/fd.h"

#include <string.h>

#define STATUS_BYTES_MAX ((size_t)64 << 10)
#define PIECE_BYTES ((size_t)16 << 10)
#define AHEAD_BYTES_MAX ((size_t)256 << 10)

enum channel { CHANNEL_STDIN, CHANNEL_STDOUT, CHANNEL_STDERR, CHANNEL_STATUS, CHANNEL_RESIZE };

struct cli_remote {
    struct cli *cli;
    const struct cli_remote_options *options;
    struct at_channels *channels;
    struct at_buf status;
    at_watch_id watch;
    at_timer_id timer; /* for input that cannot be watched: a file */
    bool open, input_over, done, broken_out;
    enum at_rc rc;
    struct at_err err;
};

static void read_more(struct cli_remote *r);

static void on_input(void *ctx, int fd, unsigned events)
{
    (void)fd;
    (void)events;
    read_more(ctx);
}

static void on_turn(void *ctx)
{
    struct cli_remote *r = ctx;
    r->timer = 0;
    read_more(r);
}

static void input_stop(struct cli_remote *r)
{
    at_loop_unwatch(r->cli->loop, r->watch);
    at_loop_timer_cancel(r->cli->loop, r->timer);
    r->watch = 0;
    r->timer = 0;
}

static void input_start(struct cli_remote *r)
{
    int fd = r->options->stdin_fd;
    if (fd < 0 || r->input_over || r->watch != 0 || r->timer != 0) {
        return;
    }
    r->watch = at_loop_watch(r->cli->loop, fd, AT_LOOP_READ, on_input, r);
    if (r->watch == 0) {
        r->timer = at_loop_timer(r->cli->loop, 0, on_turn, r);
    }
}

/* One piece; the loop calls again while there is more. */
static void read_more(struct cli_remote *r)
{
    char piece[PIECE_BYTES];
    size_t n = 0;
    enum at_rc rc = at_fd_read(r->options->stdin_fd, piece, sizeof piece, &n);
    if (rc == AT_AGAIN) {
        return;
    }
    if (rc != AT_OK) {
        r->input_over = true;
        input_stop(r);
        (void)!at_channels_send_end(r->channels, CHANNEL_STDIN);
        return;
    }
    if (at_channels_send(r->channels, CHANNEL_STDIN, piece, n) != AT_OK) {
        r->input_over = true;
        input_stop(r);
        return;
    }
    if (at_channels_queued_bytes(r->channels) > AHEAD_BYTES_MAX) {
        input_stop(r);
    } else if (r->watch == 0) {
        r->timer = at_loop_timer(r->cli->loop, 0, on_turn, r);
    }
}

static void tell_size(struct cli_remote *r)
{
    unsigned columns;
    unsigned rows;
    char text[64];
    if (r->options->tty && at_fd_terminal_size(r->options->terminal_fd, &columns, &rows)) {
        int n = snprintf(text, sizeof text, "{\"Width\":%u,\"Height\":%u}", columns, rows);
        (void)!at_channels_send(r->channels, CHANNEL_RESIZE, text, (size_t)n);
    }
}

void cli_remote_resized(struct cli_remote *r)
{
    if (r->open) {
        tell_size(r);
    }
}

static void on_open(void *ctx)
{
    struct cli_remote *r = ctx;
    r->open = true;
    tell_size(r);
    input_start(r);
}

static void on_data(void *ctx, unsigned channel, const char *data, size_t len)
{
    struct cli_remote *r = ctx;
    if (channel == CHANNEL_STATUS) {
        r->status.max = STATUS_BYTES_MAX;
        (void)!at_buf_append(&r->status, data, len);
    } else if (channel == CHANNEL_STDOUT || channel == CHANNEL_STDERR) {
        bool good = r->options->put(r->options->ctx, channel == CHANNEL_STDERR, data, len);
        if (!good) {
            r->broken_out = true;
            r->done = true;
        }
    }
}

static void on_writable(void *ctx)
{
    input_start(ctx);
}

static void on_close(void *ctx, enum at_rc rc, const struct at_err *err)
{
    struct cli_remote *r = ctx;
    r->done = true;
    r->rc = rc == AT_EOF ? AT_OK : rc;
    if (err != NULL) {
        r->err = *err;
    }
}

/* What the last channel said: a Status, with the command's exit status among its causes. */
static enum at_rc outcome(struct cli_remote *r, int *ret_exit, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *status = NULL;
    if (r->rc != AT_OK) {
        *err = r->err;
        err->rc = r->rc;
        return r->rc;
    }
    if (r->broken_out) {
        return AT_IO; /* nobody reads it any more, and nobody wants to be told */
    }
    if (r->status.len == 0 ||
        at_json_parse(r->status.data, r->status.len, &status, NULL) != AT_OK) {
        status = NULL;
        return at_err_set(err, AT_UPSTREAM, "the connection ended before the command did");
    }
    if (strcmp(at_json_str_at(status, "status", ""), "Success") == 0) {
        *ret_exit = 0;
        return AT_OK;
    }
    if (strcmp(at_json_str_at(status, "reason", ""), "NonZeroExitCode") == 0) {
        const json_t *cause = json_array_get(at_json_at(status, "details.causes"), 0);
        int64_t code = 1;
        if (at_str_to_i64(at_str_of(at_json_str_at(cause, "message", "")), &code) != AT_OK) {
            code = 1;
        }
        *ret_exit = (int)code;
        return AT_OK;
    }
    return at_err_set(err, AT_UPSTREAM, "%s", at_json_str_at(status, "message", "it failed"));
}

static const char *path_of(struct cli *cli, const char *instance,
                           const struct cli_remote_options *options)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf path = {0};
    enum at_rc rc = at_buf_append_str(&path, cli_path(cli, &AT_KIND_INSTANCE, instance, "exec"));
    const char *before = "?command=";
    for (size_t i = 0; i < options->n_command && rc == AT_OK; i++) {
        rc = at_buf_append_str(&path, before);
        rc = rc == AT_OK ? at_client_escape(options->command[i], &path) : rc;
        before = "&command=";
    }
    if (rc == AT_OK) {
        rc = at_buf_printf(
            &path, "&stdout=true&stderr=%s&stdin=%s&tty=%s", options->tty ? "false" : "true",
            options->stdin_fd >= 0 ? "true" : "false", options->tty ? "true" : "false");
    }
    return rc == AT_OK ? at_arena_strdup(cli->arena, path.data) : "";
}

enum at_rc cli_remote_run(struct cli *cli, const char *instance,
                          const struct cli_remote_options *options, struct cli_remote **handle,
                          int *ret_exit, struct at_err *err)
{
    struct cli_remote *r = at_arena_alloc(cli->arena, sizeof *r);
    struct at_channels_events events = {.ctx = r,
                                        .on_open = on_open,
                                        .on_data = on_data,
                                        .on_writable = on_writable,
                                        .on_close = on_close};
    r->cli = cli;
    r->options = options;
    r->channels = at_channels_open(cli->client, path_of(cli, instance, options),
                                   AT_CHANNELS_V5 "," AT_CHANNELS_V4, &events);
    if (handle != NULL) {
        *handle = r;
    }
    while (!r->done && !cli->interrupted && at_loop_turn(cli->loop, INT64_MAX)) {
    }
    input_stop(r);
    at_channels_free(r->channels);
    if (handle != NULL) {
        *handle = NULL;
    }
    enum at_rc rc =
        cli->interrupted ? at_err_set(err, AT_CANCELLED, "interrupted") : outcome(r, ret_exit, err);
    at_buf_done(&r->status);
    return rc;
}
