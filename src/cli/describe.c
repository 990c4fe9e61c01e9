#include "cli/cli_priv.h"
#include "core/digest.h"
#include "core/str.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static void put_line(const struct cli *cli, const char *label, const char *text)
{
    fprintf(cli->env->out, "%-13s ", label);
    cli_print_text(cli->env->out, text);
    fputc('\n', cli->env->out);
}

static void put_map(const struct cli *cli, const char *label, const json_t *map)
{
    const char *key;
    json_t *value;
    size_t shown = 0;
    json_object_foreach((json_t *)map, key, value)
    {
        if (strcmp(key, CLI_LAST_APPLIED) != 0 && json_is_string(value)) {
            put_line(cli, shown++ == 0 ? label : "",
                     at_arena_printf(cli->arena, "%s=%s", key, json_string_value(value)));
        }
    }
    if (shown == 0) {
        put_line(cli, label, "<none>");
    }
}

/* YAML, two blanks further in, under a title. */
static void put_yaml(const struct cli *cli, const char *title, const json_t *value)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (value == NULL || (json_object_size(value) == 0 && json_array_size(value) == 0) ||
        at_yaml_dump(value, &text) != AT_OK) {
        return;
    }
    fprintf(cli->env->out, "%c%s:\n", toupper((unsigned char)title[0]), title + 1);
    struct at_str rest = {text.data, text.len};
    while (rest.len != 0) {
        struct at_str line = at_str_cut(&rest, '\n');
        char *copy = at_strndup(line.ptr, line.len);
        fputs("  ", cli->env->out);
        cli_print_text(cli->env->out, copy);
        fputc('\n', cli->env->out);
        at_free(copy);
    }
}

static void put_header(const struct cli *cli, const json_t *object)
{
    const json_t *metadata = json_object_get(object, "metadata");
    const char *created = at_json_str_at(metadata, "creationTimestamp", NULL);
    const char *deleted = at_json_str_at(metadata, "deletionTimestamp", NULL);
    const char *ns = at_json_str_at(metadata, "namespace", NULL);
    put_line(cli, "Name:", at_json_str_at(metadata, "name", ""));
    if (ns != NULL) {
        put_line(cli, "Namespace:", ns);
    }
    put_map(cli, "Labels:", json_object_get(metadata, "labels"));
    put_map(cli, "Annotations:", json_object_get(metadata, "annotations"));
    put_line(cli, "API Version:", at_json_str_at(object, "apiVersion", ""));
    put_line(cli, "Kind:", at_json_str_at(object, "kind", ""));
    if (created != NULL) {
        put_line(cli, "Created:",
                 at_arena_printf(cli->arena, "%s (%s ago)", created, cli_age(cli, created)));
    }
    if (deleted != NULL) {
        put_line(cli, "Deleting:",
                 at_arena_printf(cli->arena, "since %s (%s)", deleted, cli_age(cli, deleted)));
    }
    size_t at;
    json_t *owner;
    json_array_foreach(json_object_get(metadata, "ownerReferences"), at, owner)
    {
        put_line(cli, "Owner:",
                 at_arena_printf(cli->arena, "%s/%s", at_json_str_at(owner, "kind", ""),
                                 at_json_str_at(owner, "name", "")));
    }
    json_array_foreach(json_object_get(metadata, "finalizers"), at, owner)
    {
        put_line(cli, at == 0 ? "Finalizers:" : "", json_string_value(owner));
    }
}

static void put_conditions(const struct cli *cli, const json_t *conditions)
{
    struct cli_table table;
    size_t at;
    json_t *c;
    if (json_array_size(conditions) == 0) {
        return;
    }
    fputs("Conditions:\n", cli->env->out);
    cli_table_init(&table, cli->arena, 5);
    static const char *const HEADER[] = {"  TYPE", "STATUS", "SINCE", "REASON", "MESSAGE"};
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER); i++) {
        cli_table_add(&table, HEADER[i]);
    }
    json_array_foreach(conditions, at, c)
    {
        cli_table_add(&table, at_arena_printf(cli->arena, "  %s", at_json_str_at(c, "type", "")));
        cli_table_add(&table, at_json_str_at(c, "status", ""));
        cli_table_add(&table, cli_age(cli, at_json_str_at(c, "lastTransitionTime", NULL)));
        cli_table_add(&table, at_json_str_at(c, "reason", ""));
        cli_table_add(&table, at_json_str_at(c, "message", ""));
    }
    cli_table_print(cli, &table, true);
}

/* Why it is where it is. */
static void put_decision(const struct cli *cli, json_t *decision)
{
    const char *message = at_json_str_at(decision, "message", NULL);
    if (message != NULL) {
        put_line(cli, "Why:", message);
        json_object_del(decision, "message");
    }
    put_yaml(cli, "decision", decision);
}

static void hide_secrets(json_t *data)
{
    const char *key;
    json_t *value;
    json_object_foreach(data, key, value)
    {
        char text[48];
        AT_CLEANUP(at_cleanup_buf) struct at_buf bytes = {0};
        bool readable =
            json_is_string(value) &&
            at_base64_decode(json_string_value(value), json_string_length(value), &bytes) == AT_OK;
        snprintf(text, sizeof text, readable ? "%zu bytes" : "no base64", bytes.len);
        json_object_set_new(data, key, json_string(text));
    }
}

static void put_body(const struct cli *cli, json_t *object)
{
    const char *key;
    json_t *value;
    if (strcmp(at_json_str_at(object, "kind", ""), "Secret") == 0) {
        hide_secrets(json_object_get(object, "data"));
        hide_secrets(json_object_get(object, "stringData"));
    }
    json_t *status = json_object_get(object, "status");
    json_t *conditions = json_incref(json_object_get(status, "conditions"));
    json_t *decision = json_incref(json_object_get(status, "decision"));
    json_object_del(status, "conditions");
    json_object_del(status, "decision");
    json_object_foreach(object, key, value)
    {
        if (strcmp(key, "apiVersion") != 0 && strcmp(key, "kind") != 0 &&
            strcmp(key, "metadata") != 0) {
            if (json_is_object(value) || json_is_array(value)) {
                put_yaml(cli, key, value);
            } else if (json_is_string(value)) {
                put_line(cli, at_arena_printf(cli->arena, "%s:", key), json_string_value(value));
            }
        }
    }
    put_conditions(cli, conditions);
    if (decision != NULL) {
        put_decision(cli, decision);
    }
    json_decref(conditions);
    json_decref(decision);
}

static const char *event_time(const json_t *event)
{
    const char *last = at_json_str_at(event, "lastTimestamp", NULL);
    const char *created = at_json_str_at(event, "metadata.creationTimestamp", "");
    return last != NULL ? last : at_json_str_at(event, "eventTime", created);
}

static int by_time(const void *a, const void *b)
{
    return strcmp(event_time(*(json_t *const *)a), event_time(*(json_t *const *)b));
}

static void put_event_table(const struct cli *cli, const json_t *items)
{
    size_t n = json_array_size(items);
    json_t **events = at_arena_alloc(cli->arena, (n + 1) * sizeof *events);
    for (size_t i = 0; i < n; i++) {
        events[i] = json_array_get(items, i);
    }
    qsort(events, n, sizeof(json_t *), by_time);
    struct cli_table table;
    cli_table_init(&table, cli->arena, 4);
    static const char *const HEADER[] = {"  AGE", "TYPE", "REASON", "MESSAGE"};
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER); i++) {
        cli_table_add(&table, HEADER[i]);
    }
    for (size_t i = 0; i < n; i++) {
        int64_t count = at_json_int_at(events[i], "count", 1);
        const char *age = cli_age(cli, event_time(events[i]));
        cli_table_add(&table,
                      count > 1 ? at_arena_printf(cli->arena, "  %s (x%lld)", age, (long long)count)
                                : at_arena_printf(cli->arena, "  %s", age));
        cli_table_add(&table, at_json_str_at(events[i], "type", ""));
        cli_table_add(&table, at_json_str_at(events[i], "reason", ""));
        cli_table_add(&table, at_json_str_at(events[i], "message", ""));
    }
    cli_table_print(cli, &table, true);
}

static void put_events(struct cli *cli, const json_t *object)
{
    const struct at_model_kind *kind = at_model_kind_find("", "v1", "Event");
    const char *uid = at_json_str_at(object, "metadata.uid", "");
    const char *name = at_json_str_at(object, "metadata.name", "");
    json_t *answer = NULL;
    if (kind == NULL) {
        return;
    }
    const char *ns = at_json_str_at(object, "metadata.namespace", NULL);
    const char *pairs[] = {
        "fieldSelector",
        at_arena_printf(cli->arena, "involvedObject.name=%s,involvedObject.uid=%s", name, uid),
        NULL};
    const char *path = cli_query(cli, cli_path_in(cli, kind, ns, NULL, NULL), pairs);
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, path, NULL, NULL, NULL, &answer, NULL);
    if (rc != AT_OK) {
        fprintf(cli->env->out, "Events:       <not readable: %s>\n", at_rc_name(rc));
        return;
    }
    const json_t *items = json_object_get(answer, "items");
    fputs(json_array_size(items) != 0 ? "Events:\n" : "Events:       <none>\n", cli->env->out);
    if (json_array_size(items) != 0) {
        put_event_table(cli, items);
    }
    json_decref(answer);
}

static void describe_object(struct cli *cli, json_t *object, bool first)
{
    json_t *copy = json_deep_copy(object);
    fputs(first ? "" : "\n\n", cli->env->out);
    put_header(cli, copy);
    put_body(cli, copy);
    put_events(cli, copy);
    json_decref(copy);
}

static enum at_rc describe_target(struct cli *cli, const struct cli_target *target, size_t *shown,
                                  struct at_err *err)
{
    if (target->name != NULL) {
        json_t *object = NULL;
        enum at_rc rc = cli_call(cli, AT_HTTP_GET, cli_path(cli, target->kind, target->name, NULL),
                                 NULL, NULL, NULL, &object, err);
        if (rc == AT_OK) {
            describe_object(cli, object, (*shown)++ == 0);
            json_decref(object);
        }
        return rc;
    }
    json_t *items = NULL;
    enum at_rc rc = cli_list(cli, target->kind, cli_value(cli, OPT_SELECTOR, NULL), &items, err);
    for (size_t i = 0; rc == AT_OK && i < json_array_size(items); i++) {
        json_t *item = json_array_get(items, i);
        describe_object(cli, item, (*shown)++ == 0);
    }
    json_decref(items);
    return rc;
}

enum at_rc cli_describe(struct cli *cli, struct at_err *err)
{
    struct cli_target *targets = NULL;
    size_t n = 0;
    size_t shown = 0;
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_targets(cli, cli->args, cli->n_args, false, &targets, &n, err);
    }
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        rc = describe_target(cli, &targets[i], &shown, err);
    }
    if (rc == AT_OK && shown == 0) {
        fputs("No resources found.\n", cli->env->err);
    }
    return rc;
}
