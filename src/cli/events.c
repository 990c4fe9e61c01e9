/* events: what happened, the newest last; of all objects or of one. */
#include "cli/cli_priv.h"
#include "core/str.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS 5

struct events {
    struct cli *cli;
    const char *query; /* what the server is asked for; "": everything */
    bool header;
    bool with_ns;
    enum cli_format format;
    size_t widths[COLUMNS + 1];
    json_t *items;
    bool live; /* the list is complete: what comes now is new */
    enum at_rc rc;
    struct at_err *err;
};

static const char *time_of(const json_t *event)
{
    static const char *const PLACES[] = {"series.lastObservedTime", "lastTimestamp", "eventTime",
                                         "metadata.creationTimestamp"};
    for (size_t i = 0; i < AT_ARRAY_LEN(PLACES); i++) {
        const char *text = at_json_str_at(event, PLACES[i], NULL);
        if (text != NULL) {
            return text;
        }
    }
    return "";
}

static int by_time(const void *a, const void *b)
{
    int64_t x = 0;
    int64_t y = 0;
    if (at_time_parse(time_of(*(json_t *const *)a), &x, NULL) != AT_OK ||
        at_time_parse(time_of(*(json_t *const *)b), &y, NULL) != AT_OK) {
        return 0;
    }
    return x < y ? -1 : x > y ? 1 : 0;
}

/* --types Normal,Warning */
static bool is_wanted(const struct cli *cli, const json_t *event)
{
    struct at_str rest = at_str_of(cli_value(cli, OPT_TYPES, ""));
    bool any = rest.len == 0;
    while (rest.len != 0 && !any) {
        any = at_str_eq_nocase(at_str_cut(&rest, ','), at_json_str_at(event, "type", ""));
    }
    return any;
}

static void add_row(const struct events *e, struct cli_table *table, const json_t *event)
{
    const struct cli *cli = e->cli;
    int64_t count = at_json_int_at(event, "count", 1);
    const char *age = cli_age(cli, time_of(event));
    char kind[64];
    snprintf(kind, sizeof kind, "%s", at_json_str_at(event, "involvedObject.kind", ""));
    for (char *c = kind; *c != '\0'; c++) {
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
    }
    if (e->with_ns) {
        cli_table_add(table, at_json_str_at(event, "metadata.namespace", ""));
    }
    cli_table_add(
        table, count > 1 ? at_arena_printf(cli->arena, "%s (x%lld)", age, (long long)count) : age);
    cli_table_add(table, at_json_str_at(event, "type", ""));
    cli_table_add(table, at_json_str_at(event, "reason", ""));
    cli_table_add(table, at_arena_printf(cli->arena, "%s/%s", kind,
                                         at_json_str_at(event, "involvedObject.name", "")));
    cli_table_add(table, at_json_str_at(event, "message", ""));
}

static void table_begin(struct events *e, struct cli_table *table)
{
    static const char *const HEADER[] = {"NAMESPACE", "LAST SEEN", "TYPE",
                                         "REASON",    "OBJECT",    "MESSAGE"};
    size_t from = e->with_ns ? 0 : 1;
    cli_table_init(table, e->cli->arena, AT_ARRAY_LEN(HEADER) - from);
    table->widths = e->widths;
    for (size_t i = from; i < AT_ARRAY_LEN(HEADER) && e->header; i++) {
        cli_table_add(table, HEADER[i]);
    }
}

/* All at once, in order of time. */
static enum at_rc put_all(struct events *e)
{
    size_t n = json_array_size(e->items);
    json_t **sorted = at_alloc((n + 1) * sizeof(*sorted));
    for (size_t i = 0; i < n; i++) {
        sorted[i] = json_array_get(e->items, i);
    }
    qsort(sorted, n, sizeof(json_t *), by_time);
    enum at_rc rc = AT_OK;
    if (e->format == CLI_TABLE || e->format == CLI_WIDE) {
        struct cli_table table;
        table_begin(e, &table);
        for (size_t i = 0; i < n; i++) {
            add_row(e, &table, sorted[i]);
        }
        if (n != 0) {
            cli_table_print(e->cli, &table, e->header);
            e->header = false;
        }
    } else {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append(list, sorted[i]);
        }
        AT_CLEANUP(at_cleanup_json)
        json_t *value =
            json_pack("{s:s, s:s, s:o}", "apiVersion", "v1", "kind", "List", "items", list);
        rc = cli_print_value(e->cli, e->format, value, e->err);
    }
    at_free(sorted);
    fflush(e->cli->env->out);
    return rc;
}

static void on_object(void *ctx, json_t *object, bool deleted)
{
    struct events *e = ctx;
    if (deleted || !is_wanted(e->cli, object)) {
        return;
    }
    json_array_append(e->items, object);
    if (e->live) {
        e->rc = put_all(e);
        json_array_clear(e->items);
    }
}

static void on_synced(void *ctx)
{
    struct events *e = ctx;
    e->rc = put_all(e);
    json_array_clear(e->items);
    e->live = true;
}

static void on_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct events *e = ctx;
    if (!connected && !at_rc_retryable(err->rc)) {
        *e->err = *err;
        e->rc = err->rc;
    }
}

static void on_signal(void *ctx, int signal_number)
{
    struct events *e = ctx;
    (void)signal_number;
    e->cli->interrupted = true;
}

static enum at_rc watch(struct events *e, const char *ns)
{
    struct cli *cli = e->cli;
    struct at_informer_events on = {
        .ctx = e, .on_object = on_object, .on_synced = on_synced, .on_connection = on_connection};
    enum at_rc rc = at_loop_signal(cli->loop, SIGINT, on_signal, e, e->err);
    if (rc != AT_OK) {
        return rc;
    }
    struct at_informer *informer = at_informer_new(cli->client, &AT_KIND_EVENT, ns,
                                                   e->query[0] == '?' ? e->query + 1 : NULL, &on);
    while (e->rc == AT_OK && !cli->interrupted && !ferror(cli->env->out) &&
           at_loop_turn(cli->loop, INT64_MAX)) {
    }
    at_informer_free(informer);
    return e->rc;
}

static enum at_rc list(struct events *e, const char *ns, struct at_err *err)
{
    struct cli *cli = e->cli;
    const char *next = NULL;
    do {
        const char *pairs[] = {"limit", "500", "continue", next, NULL};
        json_t *page = NULL;
        const char *path = at_arena_printf(
            cli->arena, "%s%s", cli_path_in(cli, &AT_KIND_EVENT, ns, NULL, NULL), e->query);
        enum at_rc rc =
            cli_call(cli, AT_HTTP_GET, cli_query(cli, path, pairs), NULL, NULL, NULL, &page, err);
        if (rc != AT_OK) {
            return rc;
        }
        size_t at;
        json_t *item;
        json_array_foreach(json_object_get(page, "items"), at, item)
        {
            if (is_wanted(cli, item)) {
                json_array_append(e->items, item);
            }
        }
        next = at_json_str_at(page, "metadata.continue", "");
        next = next[0] != '\0' ? at_arena_strdup(cli->arena, next) : NULL;
        json_decref(page);
    } while (next != NULL);
    if (json_array_size(e->items) == 0 && (e->format == CLI_TABLE || e->format == CLI_WIDE)) {
        fputs(ns != NULL ? "No events found in namespace " : "No events found", cli->env->err);
        fprintf(cli->env->err, "%s.\n", ns != NULL ? ns : "");
        return AT_OK;
    }
    return put_all(e);
}

/* --for KIND/NAME. Those of what has no namespace are kept in one: so all are looked at. */
static enum at_rc query_of(struct events *e, const char **ns, struct at_err *err)
{
    struct cli *cli = e->cli;
    const char *words[] = {cli_value(cli, OPT_FOR_OBJECT, NULL)};
    struct cli_target *targets = NULL;
    size_t n = 0;
    e->query = "";
    if (words[0] == NULL) {
        return AT_OK;
    }
    enum at_rc rc = cli_targets(cli, words, 1, true, &targets, &n, err);
    if (rc != AT_OK) {
        return rc;
    }
    const char *pairs[] = {"fieldSelector",
                           at_arena_printf(cli->arena,
                                           "involvedObject.kind=%s,involvedObject.name=%s",
                                           targets[0].kind->kind, targets[0].name),
                           NULL};
    e->query = cli_query(cli, "", pairs);
    if (!targets[0].kind->namespaced) {
        *ns = NULL;
    }
    return AT_OK;
}

enum at_rc cli_events(struct cli *cli, struct at_err *err)
{
    struct events e = {.cli = cli, .header = !cli_flag(cli, OPT_NO_HEADERS), .err = err};
    enum at_rc rc = cli_format_of(cli, &e.format, err);
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    const char *ns = cli->ns;
    e.with_ns = cli->ns == NULL;
    if (rc == AT_OK) {
        rc = query_of(&e, &ns, err);
    }
    e.items = json_array();
    if (rc == AT_OK) {
        rc = cli_flag(cli, OPT_WATCH) ? watch(&e, ns) : list(&e, ns, err);
    }
    json_decref(e.items);
    return rc;
}
