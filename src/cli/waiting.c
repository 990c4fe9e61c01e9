/* Waiting for one object to become something: an informer on it, a deadline, a progress line. */
#include "cli/waiting.h"
#include "core/str.h"

#include <string.h>
#include <strings.h>

#define TICK_NS (100 * AT_NS_PER_MS)

enum at_rc cli_condition_parse(const struct cli *cli, const char *text, struct cli_condition *ret,
                               struct at_err *err)
{
    struct cli_condition condition = {0};
    if (strcmp(text, "delete") == 0) {
        condition.what = CLI_UNTIL_DELETED;
    } else if (strcmp(text, "create") == 0) {
        condition.what = CLI_UNTIL_CREATED;
    } else if (strncmp(text, "condition=", 10) == 0 && text[10] != '\0') {
        struct at_str rest = at_str_of(text + 10);
        struct at_str type = at_str_cut(&rest, '=');
        condition.what = CLI_UNTIL_CONDITION;
        condition.type = at_arena_strndup(cli->arena, type.ptr, type.len);
        condition.status = rest.len != 0 ? rest.ptr : "True";
    } else if (strncmp(text, "jsonpath=", 9) == 0 && text[9] != '\0') {
        /* The value stands behind the first '=' after the path. */
        const char *path = text + 9;
        const char *close = path[0] == '{' ? strchr(path, '}') : NULL;
        const char *equals = strchr(close != NULL ? close : path, '=');
        size_t len = equals != NULL ? (size_t)(equals - path) : strlen(path);
        condition.what = CLI_UNTIL_JSONPATH;
        condition.path = at_arena_strndup(cli->arena, path, len);
        condition.value = equals != NULL ? equals + 1 : NULL;
        AT_CLEANUP(at_cleanup_buf) struct at_buf nothing = {0};
        enum at_rc rc = cli_jsonpath(condition.path, NULL, &nothing, err);
        if (rc != AT_OK) {
            return rc;
        }
    } else {
        return at_err_set(
            err, AT_BAD_REQUEST,
            "--for is condition=TYPE[=STATUS], create, delete, or jsonpath={.a.b}=VALUE, "
            "not \"%s\"",
            text);
    }
    *ret = condition;
    return AT_OK;
}

static bool condition_holds(const struct cli_condition *c, const json_t *object, char *why,
                            size_t why_size)
{
    size_t at;
    json_t *item;
    json_array_foreach(at_json_at(object, "status.conditions"), at, item)
    {
        if (strcasecmp(at_json_str_at(item, "type", ""), c->type) != 0) {
            continue;
        }
        const char *status = at_json_str_at(item, "status", "");
        const char *message = at_json_str_at(item, "message", "");
        int64_t seen = at_json_int_at(item, "observedGeneration", INT64_MAX);
        bool stale = seen < at_json_int_at(object, "metadata.generation", 0);
        snprintf(why, why_size, "%s is %s%s%s%s", c->type, status, message[0] != '\0' ? ": " : "",
                 message, stale ? " (of an older version)" : "");
        return !stale && strcasecmp(status, c->status) == 0;
    }
    snprintf(why, why_size, "no condition %s yet", c->type);
    return false;
}

static bool path_holds(const struct cli_condition *c, const json_t *object, char *why,
                       size_t why_size)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf found = {0};
    if (cli_jsonpath(c->path, object, &found, NULL) != AT_OK) {
        return false;
    }
    const char *text = found.data != NULL ? found.data : "";
    snprintf(why, why_size, "%s is %s", c->path, text[0] != '\0' ? text : "not set");
    return c->value != NULL ? strcmp(text, c->value) == 0 : text[0] != '\0';
}

bool cli_condition_met(const struct cli_condition *condition, const json_t *object, char *why,
                       size_t why_size)
{
    if (condition->what == CLI_UNTIL_DELETED) {
        bool other = condition->uid != NULL &&
                     strcmp(at_json_str_at(object, "metadata.uid", ""), condition->uid) != 0;
        const json_t *finalizers = at_json_at(object, "metadata.finalizers");
        const char *first = json_string_value(json_array_get(finalizers, 0));
        snprintf(why, why_size, first != NULL ? "still there, held by finalizer %s" : "still there",
                 first);
        return object == NULL || other;
    }
    if (object == NULL) {
        snprintf(why, why_size, "not there yet");
        return false;
    }
    if (condition->what == CLI_UNTIL_CREATED) {
        return true;
    }
    return condition->what == CLI_UNTIL_CONDITION
               ? condition_holds(condition, object, why, why_size)
               : path_holds(condition, object, why, why_size);
}

struct waiting {
    struct cli *cli;
    const struct at_model_kind *kind;
    const char *name;
    const struct cli_condition *condition;
    json_t *object; /* last seen, NULL: absent */
    bool synced, done;
    enum at_rc rc;
    struct at_err err;
    char why[256];
    int64_t start_ns;
    unsigned ticks;
    at_timer_id timer;
};

static void check(struct waiting *w)
{
    if (w->done || !w->synced) {
        return;
    }
    if (cli_condition_met(w->condition, w->object, w->why, sizeof w->why)) {
        w->done = true;
    } else if (w->object == NULL && w->condition->what != CLI_UNTIL_CREATED) {
        w->done = true;
        w->rc =
            at_err_set(&w->err, AT_NOT_FOUND, "%s is not there", cli_ref(w->cli, w->kind, w->name));
    }
}

static void on_object(void *ctx, json_t *object, bool deleted)
{
    struct waiting *w = ctx;
    if (strcmp(at_json_str_at(object, "metadata.name", ""), w->name) != 0) {
        return;
    }
    json_decref(w->object);
    w->object = deleted ? NULL : json_incref(object);
    check(w);
}

static void on_synced(void *ctx)
{
    struct waiting *w = ctx;
    w->synced = true;
    check(w);
}

static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct waiting *w = ctx;
    if (connected || w->done) {
        return;
    }
    snprintf(w->why, sizeof w->why, "connection lost: %.200s", err->msg);
    if (!w->synced || !at_rc_retryable(err->rc)) {
        w->done = true;
        w->err = *err;
        w->rc = err->rc;
    }
}

static void clear_line(const struct waiting *w)
{
    if (w->cli->env->err_is_terminal && w->ticks != 0) {
        fputs("\r\033[K", w->cli->env->err);
        fflush(w->cli->env->err);
    }
}

static void on_tick(void *ctx)
{
    static const char *const SPIN[] = {"|", "/", "-", "\\"};
    struct waiting *w = ctx;
    FILE *out = w->cli->env->err;
    int64_t elapsed = at_loop_now_ns(w->cli->loop) - w->start_ns;
    fprintf(out, "\r\033[K%s %s/%s: ", SPIN[w->ticks++ % 4], w->kind->singular, w->name);
    cli_print_text(out, w->why);
    fprintf(out, " (%llds)", (long long)(elapsed / AT_NS_PER_S));
    fflush(out);
    w->timer = at_loop_timer(w->cli->loop, TICK_NS, on_tick, w);
}

static enum at_rc outcome(struct waiting *w, struct at_err *err)
{
    if (!w->done) {
        char wanted[128];
        const struct cli_condition *c = w->condition;
        if (c->what == CLI_UNTIL_DELETED) {
            snprintf(wanted, sizeof wanted, "its end");
        } else if (c->what == CLI_UNTIL_CREATED) {
            snprintf(wanted, sizeof wanted, "the making");
        } else {
            snprintf(wanted, sizeof wanted, "%s=%s",
                     c->what == CLI_UNTIL_CONDITION ? c->type : c->path,
                     c->what == CLI_UNTIL_CONDITION ? c->status
                     : c->value                     ? c->value
                                                    : "*");
        }
        return at_err_set(err, AT_TIMEOUT, "time is up while waiting for %s of %s: %s", wanted,
                          cli_ref(w->cli, w->kind, w->name), w->why);
    }
    if (w->rc != AT_OK && err != NULL) {
        *err = w->err;
        err->rc = w->rc;
    }
    return w->rc;
}

enum at_rc cli_wait_until(struct cli *cli, const struct at_model_kind *kind, const char *ns,
                          const char *name, const struct cli_condition *condition,
                          int64_t deadline_mono_ns, struct at_err *err)
{
    struct waiting w = {.cli = cli,
                        .kind = kind,
                        .name = name,
                        .condition = condition,
                        .why = "no answer yet",
                        .start_ns = at_sys_mono_ns(cli->env->sys)};
    const char *pairs[] = {"fieldSelector", at_arena_printf(cli->arena, "metadata.name=%s", name),
                           NULL};
    struct at_informer_events events = {
        .ctx = &w, .on_object = on_object, .on_synced = on_synced, .on_connection = on_connection};
    struct at_informer *informer =
        at_informer_new(cli->client, kind, ns, cli_query(cli, "", pairs) + 1, &events);
    if (cli->env->err_is_terminal) {
        w.timer = at_loop_timer(cli->loop, 2 * TICK_NS, on_tick, &w);
    }
    while (!w.done && at_sys_mono_ns(cli->env->sys) < deadline_mono_ns) {
        if (!at_loop_turn(cli->loop, deadline_mono_ns)) {
            break;
        }
    }
    at_loop_timer_cancel(cli->loop, w.timer);
    at_informer_free(informer);
    clear_line(&w);
    json_decref(w.object);
    return outcome(&w, err);
}
