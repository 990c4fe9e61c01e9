#include "cli/cli_priv.h"
#include "core/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define ACCEPT_TABLE "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"

struct get {
    struct cli *cli;
    enum cli_format format;
    bool headers;
    size_t printed; /* rows */
};

static const char *item_path(struct cli *cli, const struct cli_target *target, const char *next)
{
    const char *pairs[] = {"limit",
                           "500",
                           "continue",
                           next,
                           "labelSelector",
                           cli_value(cli, OPT_SELECTOR, NULL),
                           "fieldSelector",
                           cli_value(cli, OPT_FIELD_SELECTOR, NULL),
                           NULL};
    const char *path = cli_path(cli, target->kind, target->name, NULL);
    return target->name != NULL ? path : cli_query(cli, path, pairs);
}

/* Columns of a server's Table that are shown: their indices. */
static size_t table_columns(const json_t *table, bool wide, size_t *out, size_t max)
{
    const json_t *definitions = json_object_get(table, "columnDefinitions");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(definitions) && n < max; i++) {
        int64_t priority = at_json_int_at(json_array_get(definitions, i), "priority", 0);
        if (wide || priority == 0) {
            out[n++] = i;
        }
    }
    return n;
}

static const char *cell_text(const struct cli *cli, const json_t *cell)
{
    if (json_is_string(cell)) {
        return json_string_value(cell);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (cell == NULL || json_is_null(cell) || at_json_dump(cell, &text) != AT_OK) {
        return "";
    }
    return at_arena_strdup(cli->arena, text.data);
}

#define COLUMNS_MAX 64

/* --show-labels and -L KEY,KEY: more columns, whatever made the others. */
static size_t label_columns(const struct cli *cli, const char **keys, size_t max)
{
    struct at_str rest = at_str_of(cli_value(cli, OPT_LABEL_COLUMNS, ""));
    size_t n = 0;
    while (rest.len != 0 && n < max) {
        struct at_str one = at_str_cut(&rest, ',');
        keys[n++] = at_arena_strndup(cli->arena, one.ptr, one.len);
    }
    return n;
}

#define LABEL_COLUMNS_MAX 16

static size_t more_columns(const struct cli *cli)
{
    const char *keys[LABEL_COLUMNS_MAX];
    return label_columns(cli, keys, LABEL_COLUMNS_MAX) + (cli_flag(cli, OPT_SHOW_LABELS) ? 1 : 0);
}

static void add_label_header(const struct cli *cli, struct cli_table *table)
{
    const char *keys[LABEL_COLUMNS_MAX];
    size_t n = label_columns(cli, keys, LABEL_COLUMNS_MAX);
    for (size_t i = 0; i < n; i++) {
        const char *slash = strrchr(keys[i], '/');
        char *upper = at_arena_strdup(cli->arena, slash != NULL ? slash + 1 : keys[i]);
        for (char *c = upper; *c != '\0'; c++) {
            *c = (char)toupper((unsigned char)*c);
        }
        cli_table_add(table, upper);
    }
    if (cli_flag(cli, OPT_SHOW_LABELS)) {
        cli_table_add(table, "LABELS");
    }
}

static void add_label_cells(const struct cli *cli, struct cli_table *table, const json_t *object)
{
    const char *keys[LABEL_COLUMNS_MAX];
    json_t *labels = at_json_at(object, "metadata.labels");
    size_t n = label_columns(cli, keys, LABEL_COLUMNS_MAX);
    for (size_t i = 0; i < n; i++) {
        const char *value = json_string_value(json_object_get(labels, keys[i]));
        cli_table_add(table, value != NULL ? value : "");
    }
    if (cli_flag(cli, OPT_SHOW_LABELS)) {
        const char *text = "";
        const char *key;
        json_t *value;
        json_object_foreach(labels, key, value)
        {
            text = at_arena_printf(cli->arena, "%s%s%s=%s", text, text[0] != '\0' ? "," : "", key,
                                   json_string_value(value));
        }
        cli_table_add(table, text[0] != '\0' ? text : "<none>");
    }
}

struct rows {
    struct cli_table table;
    size_t columns[COLUMNS_MAX];
    size_t n_columns;
    bool started;
};

static void rows_from_table(struct get *get, const struct at_model_kind *kind, const json_t *answer,
                            struct rows *rows)
{
    const struct cli *cli = get->cli;
    const json_t *definitions = json_object_get(answer, "columnDefinitions");
    bool with_ns = cli->ns == NULL && kind->namespaced;
    if (!rows->started) {
        rows->started = true;
        rows->n_columns =
            table_columns(answer, get->format == CLI_WIDE, rows->columns, COLUMNS_MAX);
        cli_table_init(&rows->table, cli->arena,
                       rows->n_columns + (with_ns ? 1 : 0) + more_columns(cli));
        if (with_ns && get->headers) {
            cli_table_add(&rows->table, "NAMESPACE");
        }
        for (size_t i = 0; i < rows->n_columns && get->headers; i++) {
            const char *name =
                at_json_str_at(json_array_get(definitions, rows->columns[i]), "name", "");
            char *upper = at_arena_strdup(cli->arena, name);
            for (char *c = upper; *c != '\0'; c++) {
                *c = (char)toupper((unsigned char)*c);
            }
            cli_table_add(&rows->table, upper);
        }
        if (get->headers) {
            add_label_header(cli, &rows->table);
        }
    }
    size_t at;
    json_t *row;
    json_array_foreach(json_object_get(answer, "rows"), at, row)
    {
        const json_t *cells = json_object_get(row, "cells");
        get->printed++;
        if (with_ns) {
            cli_table_add(&rows->table, at_json_str_at(row, "object.metadata.namespace", ""));
        }
        for (size_t i = 0; i < rows->n_columns; i++) {
            const char *text = cell_text(cli, json_array_get(cells, rows->columns[i]));
            cli_table_add(&rows->table,
                          i == 0 && cli->many_kinds ? cli_ref(cli, kind, text) : text);
        }
        add_label_cells(cli, &rows->table, json_object_get(row, "object"));
    }
}

static void add_object(struct get *get, const struct at_model_kind *kind, const json_t *object,
                       struct rows *rows)
{
    get->printed++;
    cli_kind_row(get->cli, kind, get->format == CLI_WIDE, object, &rows->table);
    add_label_cells(get->cli, &rows->table, object);
}

/* A server that makes no Tables, or rows that are sorted here: by the kind's own columns. */
static void rows_from_objects(struct get *get, const struct at_model_kind *kind,
                              const json_t *answer, struct rows *rows)
{
    bool wide = get->format == CLI_WIDE;
    const json_t *items = json_object_get(answer, "items");
    if (!rows->started) {
        rows->started = true;
        cli_table_init(&rows->table, get->cli->arena,
                       cli_kind_columns(get->cli, kind, wide) + more_columns(get->cli));
        if (get->headers) {
            cli_kind_header(get->cli, kind, wide, &rows->table);
            add_label_header(get->cli, &rows->table);
        }
    }
    if (!json_is_array(items)) {
        add_object(get, kind, answer, rows);
        return;
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        add_object(get, kind, json_array_get(items, i), rows);
    }
}

/* All pages of one target into take. */
static enum at_rc fetch(struct get *get, const struct cli_target *target, const char *accept,
                        void (*take)(struct get *get, const struct at_model_kind *kind,
                                     const json_t *answer, void *ctx),
                        void *ctx, struct at_err *err)
{
    struct cli *cli = get->cli;
    const char *next = NULL;
    do {
        json_t *answer = NULL;
        enum at_rc rc = cli_call(cli, AT_HTTP_GET, item_path(cli, target, next), NULL, accept, NULL,
                                 &answer, err);
        if (rc == AT_NOT_FOUND && target->name != NULL && cli_flag(cli, OPT_IGNORE_NOT_FOUND)) {
            *err = (struct at_err){0};
            return AT_OK;
        }
        if (rc != AT_OK) {
            return rc;
        }
        take(get, target->kind, answer, ctx);
        next = at_json_str_at(answer, "metadata.continue", "");
        next = next[0] != '\0' && target->name == NULL ? at_arena_strdup(cli->arena, next) : NULL;
        json_decref(answer);
    } while (next != NULL);
    return AT_OK;
}

static void take_rows(struct get *get, const struct at_model_kind *kind, const json_t *answer,
                      void *ctx)
{
    if (strcmp(at_json_str_at(answer, "kind", ""), "Table") == 0) {
        rows_from_table(get, kind, answer, ctx);
    } else {
        rows_from_objects(get, kind, answer, ctx);
    }
}

/* Targets of one kind that stand together share a table. */
static enum at_rc get_tables(struct get *get, const struct cli_target *targets, size_t n,
                             struct at_err *err)
{
    enum at_rc rc = AT_OK;
    size_t tables = 0;
    for (size_t i = 0; i < n && rc == AT_OK;) {
        struct rows rows = {0};
        size_t before = get->printed;
        const struct at_model_kind *kind = targets[i].kind;
        for (; i < n && targets[i].kind == kind && rc == AT_OK; i++) {
            rc = fetch(get, &targets[i], ACCEPT_TABLE, take_rows, &rows, err);
        }
        if (get->printed != before) {
            fputs(tables++ != 0 ? "\n" : "", get->cli->env->out);
            cli_table_print(get->cli, &rows.table, get->headers);
        }
    }
    if (rc == AT_OK && get->printed == 0 && !cli_flag(get->cli, OPT_IGNORE_NOT_FOUND)) {
        fflush(get->cli->env->out);
        fprintf(get->cli->env->err,
                get->cli->ns != NULL && targets[0].kind->namespaced
                    ? "No resources found in namespace %s.\n"
                    : "No resources found.\n",
                get->cli->ns);
    }
    return rc;
}

static void take_items(struct get *get, const struct at_model_kind *kind, const json_t *answer,
                       void *ctx)
{
    json_t *items = ctx;
    const json_t *page = json_object_get(answer, "items");
    (void)kind;
    (void)get;
    if (json_is_array(page)) {
        json_array_extend(items, (json_t *)page);
    } else {
        json_array_append(items, (json_t *)answer);
    }
}

struct sortable {
    json_t *item;
    json_t *key; /* own; NULL: the path finds nothing */
};

static int by_key(const void *a, const void *b)
{
    const json_t *x = ((const struct sortable *)a)->key;
    const json_t *y = ((const struct sortable *)b)->key;
    int64_t m = 0;
    int64_t n = 0;
    if (x == NULL || y == NULL) {
        return (x != NULL) - (y != NULL);
    }
    bool numbers = json_is_number(x) && json_is_number(y);
    if (!numbers && json_is_string(x) && json_is_string(y)) {
        const char *s = json_string_value(x);
        const char *t = json_string_value(y);
        if (at_quantity_milli(s, &m, NULL) != AT_OK || at_quantity_milli(t, &n, NULL) != AT_OK) {
            return strcmp(s, t);
        }
        return m < n ? -1 : m > n ? 1 : 0;
    }
    double d = json_number_value(x);
    double e = json_number_value(y);
    return d < e ? -1 : d > e ? 1 : 0;
}

/* --sort-by: text by its bytes, numbers and quantities by their value; what has none comes first.
 */
static enum at_rc sort_items(const struct cli *cli, json_t *items, struct at_err *err)
{
    const char *path = cli_value(cli, OPT_SORT_BY, NULL);
    size_t n = json_array_size(items);
    enum at_rc rc = AT_OK;
    if (path == NULL) {
        return AT_OK;
    }
    struct sortable *all = at_alloc((n + 1) * sizeof *all);
    for (size_t i = 0; i < n; i++) {
        json_t *found = NULL;
        all[i].item = json_incref(json_array_get(items, i));
        rc = rc == AT_OK ? cli_jsonpath_find(path, all[i].item, &found, err) : rc;
        if (rc == AT_OK) {
            all[i].key = json_incref(json_array_get(found, 0));
            json_decref(found);
        }
    }
    if (rc == AT_OK) {
        qsort(all, n, sizeof *all, by_key);
        json_array_clear(items);
    }
    for (size_t i = 0; i < n; i++) {
        if (rc == AT_OK) {
            json_array_append(items, all[i].item);
        }
        json_decref(all[i].item);
        json_decref(all[i].key);
    }
    at_free(all);
    return rc == AT_OK ? rc : at_err_wrap(err, rc, "--sort-by");
}

/* Sorted here: the objects themselves are asked for, kind by kind. */
static enum at_rc get_sorted(struct get *get, const struct cli_target *targets, size_t n,
                             struct at_err *err)
{
    enum at_rc rc = AT_OK;
    size_t tables = 0;
    for (size_t i = 0; i < n && rc == AT_OK;) {
        struct rows rows = {0};
        const struct at_model_kind *kind = targets[i].kind;
        AT_CLEANUP(at_cleanup_json) json_t *items = json_array();
        for (; i < n && targets[i].kind == kind && rc == AT_OK; i++) {
            rc = fetch(get, &targets[i], NULL, take_items, items, err);
        }
        rc = rc == AT_OK ? sort_items(get->cli, items, err) : rc;
        if (rc == AT_OK && json_array_size(items) != 0) {
            AT_CLEANUP(at_cleanup_json) json_t *list = json_pack("{s:O}", "items", items);
            rows_from_objects(get, kind, list, &rows);
            fputs(tables++ != 0 ? "\n" : "", get->cli->env->out);
            cli_table_print(get->cli, &rows.table, get->headers);
        }
    }
    return rc;
}

static enum at_rc get_values(struct get *get, const struct cli_target *targets, size_t n,
                             struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *items = json_array();
    for (size_t i = 0; i < n; i++) {
        enum at_rc rc = fetch(get, &targets[i], NULL, take_items, items, err);
        if (rc != AT_OK) {
            return rc;
        }
    }
    enum at_rc rc = sort_items(get->cli, items, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (n == 1 && targets[0].name != NULL) {
        const json_t *one = json_array_get(items, 0);
        return one != NULL ? cli_print_value(get->cli, get->format, one, err) : AT_OK;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *list = json_pack("{sssss{ss}sO}", "apiVersion", "v1", "kind", "List", "metadata",
                             "resourceVersion", "", "items", items);
    return cli_print_value(get->cli, get->format, list, err);
}

/* get -w: an informer, so that the watch survives the server's restart. */

struct watching {
    struct get get;
    const struct cli_target *target;
    bool header_done, stop;
    size_t widths[COLUMNS_MAX]; /* rows come one by one, and stay in line */
    enum at_rc rc;
    struct at_err *err;
};

static void watch_object(void *ctx, json_t *object, bool deleted)
{
    struct watching *w = ctx;
    struct cli *cli = w->get.cli;
    const char *name = at_json_str_at(object, "metadata.name", "");
    if (w->target->name != NULL && strcmp(name, w->target->name) != 0) {
        return;
    }
    if (w->get.format == CLI_TABLE || w->get.format == CLI_WIDE) {
        bool wide = w->get.format == CLI_WIDE;
        struct at_arena *kept = cli->arena;
        cli->arena = at_arena_new(0); /* a watch has no end, so its rows must not pile up */
        struct cli_table table;
        cli_table_init(&table, cli->arena,
                       cli_kind_columns(cli, w->target->kind, wide) + more_columns(cli));
        table.widths = table.columns <= COLUMNS_MAX ? w->widths : NULL;
        bool header = w->get.headers && !w->header_done;
        if (header) {
            cli_kind_header(cli, w->target->kind, wide, &table);
            add_label_header(cli, &table);
        }
        cli_kind_row(cli, w->target->kind, wide, object, &table);
        add_label_cells(cli, &table, object);
        cli_table_print(cli, &table, header);
        w->header_done = true;
        at_arena_free(cli->arena);
        cli->arena = kept;
    } else if (cli_print_value(cli, w->get.format, object, w->err) != AT_OK) {
        w->stop = true;
    }
    if (deleted) {
        fprintf(cli->env->err, "deleted: %s\n", name);
    }
    fflush(cli->env->out);
    w->stop = w->stop || ferror(cli->env->out) != 0;
}

static void watch_connection(void *ctx, bool connected, const struct at_err *err)
{
    struct watching *w = ctx;
    if (connected) {
        return;
    }
    if (err->rc == AT_UNAUTHENTICATED || err->rc == AT_FORBIDDEN || err->rc == AT_BAD_REQUEST) {
        *w->err = *err;
        w->rc = err->rc;
        w->stop = true;
    } else {
        fprintf(w->get.cli->env->err, "connection lost, trying again: %s\n", err->msg);
    }
}

static enum at_rc get_watch(struct get *get, const struct cli_target *target, struct at_err *err)
{
    struct cli *cli = get->cli;
    struct watching w = {.get = *get, .target = target, .err = err};
    const char *name_field = target->name != NULL
                                 ? at_arena_printf(cli->arena, "metadata.name=%s", target->name)
                                 : cli_value(cli, OPT_FIELD_SELECTOR, NULL);
    const char *pairs[] = {"labelSelector", cli_value(cli, OPT_SELECTOR, NULL), "fieldSelector",
                           name_field, NULL};
    const char *query = cli_query(cli, "", pairs);
    struct at_informer_events events = {
        .ctx = &w, .on_object = watch_object, .on_connection = watch_connection};
    struct at_informer *informer = at_informer_new(cli->client, target->kind, cli->ns,
                                                   query[0] == '?' ? query + 1 : NULL, &events);
    while (!w.stop && at_loop_turn(cli->loop, INT64_MAX)) {
    }
    at_informer_free(informer);
    return w.rc;
}

enum at_rc cli_get(struct cli *cli, struct at_err *err)
{
    struct get get = {.cli = cli, .headers = !cli_flag(cli, OPT_NO_HEADERS)};
    struct cli_target *targets = NULL;
    size_t n = 0;
    enum at_rc rc = cli_format_of(cli, &get.format, err);
    if (rc == AT_OK) {
        rc = cli_connect(cli, err);
    }
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, false, &targets, &n, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    for (size_t i = 0; i < n; i++) {
        cli->many_kinds = cli->many_kinds || targets[i].kind != targets[0].kind;
        if (targets[i].name != NULL && cli->ns == NULL && targets[i].kind->namespaced) {
            return at_err_set(err, AT_BAD_REQUEST,
                              "a name needs one namespace: leave out --all-namespaces");
        }
    }
    if (cli_flag(cli, OPT_WATCH)) {
        return n == 1 ? get_watch(&get, &targets[0], err)
                      : at_err_set(err, AT_BAD_REQUEST, "--watch takes one kind or one object");
    }
    bool table = get.format == CLI_TABLE || get.format == CLI_WIDE;
    if (table && cli->values[OPT_SORT_BY].n != 0) {
        return get_sorted(&get, targets, n, err);
    }
    return table ? get_tables(&get, targets, n, err) : get_values(&get, targets, n, err);
}
