/* Logs and commands: the server asks over a request that the agent holds open, one JSON object a
 * line; answers are posted back. */
#include "agent/agent_priv.h"
#include "agent/reach.h"

#include "core/log.h"

#include <stdio.h>
#include <string.h>

struct follow {
    struct agent_tunnel *tunnel;
    char *server; /* that asked, and gets the answers */
    char *id, *ns, *name, *path;
    int64_t offset;
    at_timer_id timer;
    at_client_call_id call;
    bool follow, last;
    bool timestamps, mid_line;
};

/* One held open. */
struct line {
    struct agent_tunnel *tunnel; /* NULL: the slot is free */
    char *server;                /* of the line any: the one in use when it was opened */
    at_client_call_id call;
    at_timer_id timer;
    struct at_buf text;
    bool open;
};

/* One to each server that the control plane names, so that any of them can ask; where none is named
 * or can be reached by its name, one to the server in use. */
struct agent_tunnel {
    struct at_agent *agent;
    struct line any;
    struct line named[AGENT_TUNNELS_MAX];
    struct follow *follows[AGENT_FOLLOWS_MAX];
    struct agent_execs *execs;
};

static void line_open(void *ctx);
static void follow_more(void *ctx);

static void follow_free(struct follow *f)
{
    struct agent_tunnel *t = f->tunnel;
    for (size_t i = 0; i < AGENT_FOLLOWS_MAX; i++) {
        if (t->follows[i] == f) {
            t->follows[i] = NULL;
        }
    }
    at_loop_timer_cancel(t->agent->loop, f->timer);
    at_client_cancel(t->agent->client, f->call);
    at_free(f->server);
    at_free(f->id);
    at_free(f->ns);
    at_free(f->name);
    at_free(f->path);
    at_free(f);
}

static void on_posted(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)status;
    (void)body;
    (void)err;
    struct follow *f = ctx;
    f->call = 0;
    if (rc != AT_OK || f->last) { /* answered, or nobody listens any more */
        follow_free(f);
        return;
    }
    f->timer = at_loop_timer(f->tunnel->agent->loop, AGENT_LOG_POLL_NS, follow_more, f);
}

static void post(struct follow *f, const char *query, const struct at_buf *text)
{
    struct at_agent *a = f->tunnel->agent;
    char node[512];
    char path[1024];
    at_client_path(&AT_KIND_NODE, NULL, a->name, "tunnel", node, sizeof node);
    snprintf(path, sizeof path, "%s/%s%s", node, f->id, query);
    f->call = at_client_post_text_to(a->client, f->server, path,
                                     text->data != NULL ? text->data : "", text->len, on_posted, f);
}

/* The instance may still write to its log. */
static bool still_writes(const struct follow *f)
{
    const struct agent_instance *i = agent_instance_find(f->tunnel->agent, f->ns, f->name);
    return i != NULL && i->phase != PHASE_ENDED && i->phase != PHASE_REMOVED;
}

/* Leave out what was written before since, and put times before lines, as was asked. text ends at
 * f->offset. */
static enum at_rc follow_dress(struct follow *f, int64_t since_s, struct at_buf *text)
{
    int64_t now = at_sys_wall_ns(at_loop_sys(f->tunnel->agent->loop));
    struct agent_log_times times;
    enum at_rc rc = AT_OK;
    if (text->len == 0 || (since_s < 0 && !f->timestamps)) {
        return AT_OK;
    }
    agent_log_times_load(f->path, now, &times);
    int64_t from = f->offset - (int64_t)text->len;
    int64_t since = since_s >= 0 ? agent_log_since_offset(&times, now - since_s * AT_NS_PER_S) : 0;
    if (since > from) {
        size_t skip = (size_t)(since - from) < text->len ? (size_t)(since - from) : text->len;
        const char *line = text->data[skip - 1] == '\n'
                               ? text->data + skip - 1
                               : memchr(text->data + skip, '\n', text->len - skip);
        skip = line != NULL ? (size_t)(line - text->data) + 1 : text->len;
        at_buf_consume(text, skip);
        from += (int64_t)skip;
    }
    if (f->timestamps && text->len > 0) {
        struct at_buf stamped = {0};
        rc = agent_log_stamp(&times, from, text->data, text->len, &f->mid_line, &stamped);
        at_buf_done(text);
        *text = stamped;
    }
    agent_log_times_done(&times);
    return rc;
}

static void follow_more(void *ctx)
{
    struct follow *f = ctx;
    f->timer = 0;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    bool more = still_writes(f); /* asked before reading, so that the last words are not lost */
    enum at_rc rc = agent_log_since(f->path, &f->offset, &text);
    if (rc == AT_OK) {
        rc = follow_dress(f, -1, &text);
    }
    f->last = !more || rc != AT_OK;
    if (text.len == 0 && !f->last) {
        f->timer = at_loop_timer(f->tunnel->agent->loop, AGENT_LOG_POLL_NS, follow_more, f);
        return;
    }
    post(f, f->last ? "" : "?more=1", &text);
}

static void follow_begin(struct follow *f, int64_t lines, int64_t since_s)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    const struct agent_instance *i = agent_instance_find(f->tunnel->agent, f->ns, f->name);
    if (i == NULL) {
        f->last = true;
        post(f, "?error=no%20such%20instance%20on%20this%20node", &text);
        return;
    }
    f->path = at_strdup(i->log_path);
    enum at_rc rc = agent_log_tail(f->path, lines, &text, &f->offset);
    if (rc == AT_OK) {
        rc = follow_dress(f, since_s, &text);
    }
    f->last = !f->follow || rc != AT_OK;
    post(f,
         rc != AT_OK ? "?error=the%20log%20cannot%20be%20read"
         : f->last   ? ""
                     : "?more=1",
         &text);
}

static void follow_new(struct agent_tunnel *t, const char *server, const json_t *ask)
{
    size_t slot = 0;
    while (slot < AGENT_FOLLOWS_MAX && t->follows[slot] != NULL) {
        slot++;
    }
    if (slot == AGENT_FOLLOWS_MAX) {
        at_log(AT_LOG_WARN, "tunnel.full", "too many logs are being read from this node");
        return; /* the server tells its client that no answer came */
    }
    struct follow *f = AT_NEW(struct follow);
    *f = (struct follow){.tunnel = t,
                         .server = at_strdup(server),
                         .id = at_strdup(at_json_str_at(ask, "id", "")),
                         .ns = at_strdup(at_json_str_at(ask, "namespace", "")),
                         .name = at_strdup(at_json_str_at(ask, "name", "")),
                         .follow = at_json_bool_at(ask, "follow", false),
                         .timestamps = at_json_bool_at(ask, "timestamps", false)};
    t->follows[slot] = f;
    follow_begin(f, at_json_int_at(ask, "tailLines", -1), at_json_int_at(ask, "sinceSeconds", -1));
}

/* It becomes part of a path. */
static bool id_is_plain(const char *id)
{
    size_t len = strlen(id);
    return len > 0 && len <= 64 &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == len;
}

static void on_ask(struct line *l, const char *text, size_t len)
{
    struct agent_tunnel *t = l->tunnel;
    AT_CLEANUP(at_cleanup_json) json_t *ask = NULL;
    struct at_err err = {0};
    if (len == 0) {
        return; /* keep-alive */
    }
    if (at_json_parse(text, len, &ask, &err) != AT_OK) {
        at_log(AT_LOG_WARN, "tunnel.line", "%s", err.msg);
        return;
    }
    const char *op = at_json_str_at(ask, "op", "");
    const char *id = at_json_str_at(ask, "id", "");
    if (!id_is_plain(id)) {
        at_log(AT_LOG_WARN, "tunnel.id", "a request has no usable id");
        return;
    }
    if (strcmp(op, "log") == 0) {
        follow_new(t, l->server, ask);
        return;
    }
    agent_execs_ask(t->execs, l->server, op, id, ask);
    for (size_t i = 0; strcmp(op, "cancel") == 0 && i < AGENT_FOLLOWS_MAX; i++) {
        if (t->follows[i] != NULL && strcmp(t->follows[i]->id, id) == 0) {
            follow_free(t->follows[i]);
        }
    }
}

static void on_body(void *ctx, const char *data, size_t len)
{
    struct line *l = ctx;
    if (at_buf_append(&l->text, data, len) != AT_OK) {
        at_buf_clear(&l->text);
        return;
    }
    for (char *end; l->text.len != 0 && (end = memchr(l->text.data, '\n', l->text.len)) != NULL;) {
        size_t n = (size_t)(end - l->text.data);
        on_ask(l, l->text.data, n);
        at_buf_consume(&l->text, n + 1);
    }
}

static bool any_named_is_open(const struct agent_tunnel *t)
{
    for (size_t i = 0; i < AGENT_TUNNELS_MAX; i++) {
        if (t->named[i].tunnel != NULL && t->named[i].open) {
            return true;
        }
    }
    return false;
}

static void line_later(struct line *l)
{
    if (l->timer == 0) {
        l->timer = at_loop_timer(l->tunnel->agent->loop, AGENT_RETRY_NS, line_open, l);
    }
}

static void on_open(void *ctx)
{
    struct line *l = ctx;
    l->open = true;
}

static void on_closed(void *ctx, enum at_rc rc, int status, json_t *body, const struct at_err *err)
{
    (void)rc;
    (void)status;
    (void)body;
    (void)err;
    struct line *l = ctx;
    l->call = 0;
    l->open = false;
    at_buf_clear(&l->text);
    agent_execs_end(l->tunnel->execs, l->server);
    line_later(l);
}

static void line_open(void *ctx)
{
    struct line *l = ctx;
    struct agent_tunnel *t = l->tunnel;
    char path[512];
    l->timer = 0;
    if (l == &t->any && any_named_is_open(t)) {
        line_later(l); /* not needed now */
        return;
    }
    if (l == &t->any) {
        at_free(l->server);
        l->server = at_strdup(at_client_server_in_use(t->agent->client));
    }
    at_client_path(&AT_KIND_NODE, NULL, t->agent->name, "tunnel", path, sizeof path);
    l->call =
        at_client_stream_from(t->agent->client, l->server, path, on_open, on_body, on_closed, l);
}

static void line_begin(struct agent_tunnel *t, struct line *l, const char *server)
{
    *l = (struct line){.tunnel = t, .server = at_strdup(server)};
    at_buf_init(&l->text, AGENT_TUNNEL_LINE_BYTES_MAX);
}

static void line_end(struct line *l)
{
    if (l->tunnel == NULL) {
        return;
    }
    struct at_agent *a = l->tunnel->agent;
    at_client_cancel(a->client, l->call);
    at_loop_timer_cancel(a->loop, l->timer);
    at_buf_done(&l->text);
    at_free(l->server);
    *l = (struct line){0};
}

static bool is_named(const struct agent_tunnel *t, const char *server)
{
    const char *one;
    for (size_t i = 0; (one = at_client_learned_server(t->agent->client, i)) != NULL; i++) {
        if (strcmp(one, server) == 0) {
            return true;
        }
    }
    return false;
}

static void name_begin(struct agent_tunnel *t, const char *server)
{
    struct line *room = NULL;
    for (size_t i = 0; i < AGENT_TUNNELS_MAX; i++) {
        struct line *l = &t->named[i];
        if (l->tunnel != NULL && strcmp(l->server, server) == 0) {
            return;
        }
        room = room == NULL && l->tunnel == NULL ? l : room;
    }
    if (room != NULL) {
        line_begin(t, room, server);
        line_open(room);
    }
}

/* The list of servers is another one. */
static void on_servers(void *ctx)
{
    struct agent_tunnel *t = ctx;
    for (size_t i = 0; i < AGENT_TUNNELS_MAX; i++) {
        struct line *l = &t->named[i];
        if (l->tunnel != NULL && !is_named(t, l->server)) {
            agent_execs_end(t->execs, l->server);
            line_end(l);
        }
    }
    const char *one;
    for (size_t i = 0; (one = at_client_learned_server(t->agent->client, i)) != NULL; i++) {
        name_begin(t, one);
    }
}

struct agent_tunnel *agent_tunnel_new(struct at_agent *a)
{
    struct agent_tunnel *t = AT_NEW(struct agent_tunnel);
    t->agent = a;
    t->execs = agent_execs_new(a);
    line_begin(t, &t->any, NULL);
    on_servers(t);
    if (t->named[0].tunnel != NULL) {
        line_later(&t->any); /* after those had their chance */
    } else {
        line_open(&t->any);
    }
    at_client_on_servers(a->client, on_servers, t);
    return t;
}

void agent_tunnel_free(struct agent_tunnel *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i < AGENT_FOLLOWS_MAX; i++) {
        if (t->follows[i] != NULL) {
            follow_free(t->follows[i]);
        }
    }
    at_client_on_servers(t->agent->client, NULL, NULL);
    agent_execs_free(t->execs);
    line_end(&t->any);
    for (size_t i = 0; i < AGENT_TUNNELS_MAX; i++) {
        line_end(&t->named[i]);
    }
    at_free(t);
}
