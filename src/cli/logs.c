#include "cli/reach.h"

#include <string.h>

#define STREAMS_MAX 100
#define LINE_BYTES_MAX ((size_t)64 << 10)

struct logs;

struct stream {
    struct logs *logs;
    const char *name;
    struct at_buf line; /* what has no line end yet */
};

struct logs {
    struct cli *cli;
    bool prefix;
    const char *since; /* seconds; NULL: from the beginning */
    struct stream streams[STREAMS_MAX];
    size_t n, running;
    enum at_rc rc;
    struct at_err *err;
};

/* Only a terminal can be steered; files get the bytes as they are. */
static void put(const struct logs *logs, const char *data, size_t len)
{
    FILE *out = logs->cli->env->out;
    if (!logs->cli->env->out_is_terminal) {
        fwrite(data, 1, len, out);
        return;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)data[i];
        bool keep = c >= ' ' || c == '\n' || c == '\t' || c == '\r' || c == 033;
        fputc(keep ? c : '?', out);
    }
}

static void put_line(const struct stream *s, const char *data, size_t len)
{
    fprintf(s->logs->cli->env->out, "[%s] ", s->name);
    put(s->logs, data, len);
    fputc('\n', s->logs->cli->env->out);
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct stream *s = ctx;
    if (!s->logs->prefix) {
        put(s->logs, data, len);
    }
    while (s->logs->prefix && len != 0) {
        const char *newline = memchr(data, '\n', len);
        size_t part = newline != NULL ? (size_t)(newline - data) : len;
        bool full = at_buf_append(&s->line, data, part) != AT_OK;
        if (newline != NULL || full) {
            put_line(s, s->line.data != NULL ? s->line.data : "", s->line.len);
            at_buf_clear(&s->line);
        }
        part += newline != NULL ? 1 : 0;
        data += part;
        len -= part;
    }
    fflush(s->logs->cli->env->out);
}

static void on_done(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    struct stream *s = ctx;
    struct logs *logs = s->logs;
    (void)status;
    (void)body;
    if (s->line.len != 0) {
        put_line(s, s->line.data, s->line.len);
        at_buf_clear(&s->line);
    }
    if (rc != AT_OK && logs->rc == AT_OK) {
        *logs->err = *err;
        logs->rc = rc;
        at_err_wrap(logs->err, rc, "logs of %s", s->name);
        logs->err->rc = rc;
    }
    logs->running--;
}

static void start(struct logs *logs, struct stream *s)
{
    struct cli *cli = logs->cli;
    const char *tail = cli_value(cli, OPT_TAIL, NULL);
    const char *pairs[] = {"tailLines",
                           at_streq(tail, "-1") ? NULL : tail, /* all, as with kubectl */
                           "sinceTime",
                           cli_value(cli, OPT_SINCE_TIME, NULL),
                           "follow",
                           cli_flag(cli, OPT_FOLLOW) ? "true" : NULL,
                           "sinceSeconds",
                           logs->since,
                           "timestamps",
                           cli_flag(cli, OPT_TIMESTAMPS) ? "true" : NULL,
                           NULL};
    const char *path = cli_query(cli, cli_path(cli, &AT_KIND_INSTANCE, s->name, "log"), pairs);
    logs->running++;
    at_client_stream(cli->client, path, on_body, on_done, s);
}

static void add(struct logs *logs, const char *name)
{
    if (logs->n < STREAMS_MAX) {
        struct stream *s = &logs->streams[logs->n++];
        s->logs = logs;
        s->name = at_arena_strdup(logs->cli->arena, name);
        s->line.max = LINE_BYTES_MAX;
    }
}

/* The instances that the words mean. */
static enum at_rc find(struct logs *logs, struct at_err *err)
{
    struct cli *cli = logs->cli;
    struct cli_target target = {0};
    json_t *items = NULL;
    const char *selector = cli_value(cli, OPT_SELECTOR, NULL);
    if (cli->n_args == 0 && selector == NULL) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "whose logs? atoll logs NAME, KIND/NAME or -l LABELS");
    }
    if (cli->n_args != 0 && selector != NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "either a name or --selector");
    }
    enum at_rc rc = AT_OK;
    if (selector != NULL) {
        rc = cli_list(cli, &AT_KIND_INSTANCE, selector, &items, err);
        if (rc == AT_OK && json_array_size(items) == 0) {
            rc = at_err_set(err, AT_NOT_FOUND, "no instance has the labels %s", selector);
        }
    } else {
        rc = cli_instance_target(cli, cli->args, cli->n_args, &target, err);
        rc = rc == AT_OK ? cli_instances(cli, &target, &items, err) : rc;
    }
    for (size_t i = 0; i < json_array_size(items) && rc == AT_OK; i++) {
        add(logs, at_json_str_at(json_array_get(items, i), "metadata.name", ""));
    }
    if (json_array_size(items) > STREAMS_MAX) {
        fprintf(cli->env->err, "only %d of %zu instances are shown; choose some with -l\n",
                STREAMS_MAX, json_array_size(items));
    }
    json_decref(items);
    return rc;
}

/* --since as whole seconds, at least one. */
static enum at_rc since_of(struct logs *logs, struct at_err *err)
{
    int64_t ns = 0;
    if (logs->cli->values[OPT_SINCE].n != 0 && logs->cli->values[OPT_SINCE_TIME].n != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "either --since or --since-time");
    }
    enum at_rc rc = cli_duration(logs->cli, OPT_SINCE, 0, &ns, err);
    if (rc == AT_OK && ns > 0) {
        int64_t seconds = (ns + AT_NS_PER_S - 1) / AT_NS_PER_S;
        logs->since = at_arena_printf(logs->cli->arena, "%lld", (long long)seconds);
    }
    return rc;
}

enum at_rc cli_logs(struct cli *cli, struct at_err *err)
{
    struct logs *logs = at_arena_alloc(cli->arena, sizeof *logs);
    int64_t lines = 0;
    logs->cli = cli;
    logs->err = err;
    enum at_rc rc = since_of(logs, err);
    if (rc == AT_OK && cli->values[OPT_TAIL].n != 0) {
        rc = cli_integer(cli, OPT_TAIL, -1, INT32_MAX, &lines, err);
    }
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = find(logs, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    logs->prefix = logs->n > 1;
    for (size_t i = 0; i < logs->n; i++) {
        start(logs, &logs->streams[i]);
        while (!cli_flag(cli, OPT_FOLLOW) && logs->running != 0 &&
               at_loop_turn(cli->loop, INT64_MAX)) {
        }
    }
    while (logs->running != 0 && !ferror(cli->env->out) && at_loop_turn(cli->loop, INT64_MAX)) {
    }
    for (size_t i = 0; i < logs->n; i++) {
        at_buf_done(&logs->streams[i].line);
    }
    return logs->rc;
}
