/* What is reserved on each node, or by each instance: from the objects' status, once. */
#include "cli/cli_priv.h"

#include <string.h>

static const char *cores(const struct cli *cli, int64_t milli)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return at_arena_strdup(cli->arena, at_quantity_format_milli(milli, text));
}

static const char *mebibytes(const struct cli *cli, int64_t milli)
{
    return at_arena_printf(cli->arena, "%lldMi", (long long)(milli / 1000 / (1 << 20)));
}

static const char *percent(const struct cli *cli, int64_t part, int64_t whole)
{
    return whole > 0 ? at_arena_printf(cli->arena, "%lld%%", (long long)(part * 100 / whole)) : "-";
}

static const char *ready_of(const json_t *node)
{
    size_t at;
    json_t *item;
    json_array_foreach(at_json_at(node, "status.conditions"), at, item)
    {
        if (strcmp(at_json_str_at(item, "type", ""), "Ready") == 0) {
            return at_json_str_at(item, "status", "Unknown");
        }
    }
    return "Unknown";
}

static void add_node(const struct cli *cli, const json_t *node, struct cli_table *table)
{
    int64_t cpu = cli_milli(at_json_at(node, "status.allocated.cpu"));
    int64_t cpu_all = cli_milli(at_json_at(node, "status.allocatable.cpu"));
    int64_t memory = cli_milli(at_json_at(node, "status.allocated.memory"));
    int64_t memory_all = cli_milli(at_json_at(node, "status.allocatable.memory"));
    int64_t gpu = cli_milli(at_json_at(node, "status.allocated.gpu"));
    int64_t gpu_all = cli_milli(at_json_at(node, "status.allocatable.gpu"));
    cli_table_add(table, at_json_str_at(node, "metadata.name", ""));
    cli_table_add(table, at_json_str_at(node, "spec.site", ""));
    cli_table_add(table, ready_of(node));
    cli_table_add(table,
                  at_arena_printf(cli->arena, "%s/%s", cores(cli, cpu), cores(cli, cpu_all)));
    cli_table_add(table, percent(cli, cpu, cpu_all));
    cli_table_add(table, at_arena_printf(cli->arena, "%s/%s", mebibytes(cli, memory),
                                         mebibytes(cli, memory_all)));
    cli_table_add(table, percent(cli, memory, memory_all));
    cli_table_add(table, gpu_all > 0 ? at_arena_printf(cli->arena, "%s/%s", cores(cli, gpu),
                                                       cores(cli, gpu_all))
                                     : "-");
    cli_table_add(table, at_arena_printf(cli->arena, "%lld",
                                         (long long)at_json_int_at(node, "status.instances", 0)));
}

static void add_instance(const struct cli *cli, const json_t *instance, struct cli_table *table)
{
    int64_t cpu = cli_milli(at_json_at(instance, "spec.resources.cpu"));
    int64_t memory = cli_milli(at_json_at(instance, "spec.resources.memory"));
    int64_t gpu = cli_milli(at_json_at(instance, "spec.resources.gpu"));
    if (cli->ns == NULL) {
        cli_table_add(table, at_json_str_at(instance, "metadata.namespace", ""));
    }
    cli_table_add(table, at_json_str_at(instance, "metadata.name", ""));
    cli_table_add(table, at_json_str_at(instance, "spec.nodeName", "-"));
    cli_table_add(table, at_json_str_at(instance, "status.phase", "Pending"));
    cli_table_add(table, at_json_bool_at(instance, "status.ready", false) ? "true" : "false");
    cli_table_add(table, cores(cli, cpu));
    cli_table_add(table, mebibytes(cli, memory));
    cli_table_add(table, gpu > 0 ? cores(cli, gpu) : "-");
    cli_table_add(table,
                  at_arena_printf(cli->arena, "%lld",
                                  (long long)at_json_int_at(instance, "status.restarts", 0)));
    cli_table_add(table,
                  cli_age(cli, at_json_str_at(instance, "metadata.creationTimestamp", NULL)));
}

static const char *const NODE_HEADER[] = {"NAME",   "SITE", "READY", "CPU",      "CPU%",
                                          "MEMORY", "MEM%", "GPU",   "INSTANCES"};
static const char *const INSTANCE_HEADER[] = {"NAME",   "NODE", "PHASE",    "READY", "CPU",
                                              "MEMORY", "GPU",  "RESTARTS", "AGE"};

enum at_rc cli_top(struct cli *cli, struct at_err *err)
{
    const struct at_model_kind *kind = NULL;
    json_t *items = NULL;
    enum at_rc rc = cli_kind(cli->n_args != 0 ? cli->args[0] : "nodes", &kind, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool nodes = strcmp(kind->plural, "nodes") == 0;
    if (!nodes && strcmp(kind->plural, "instances") != 0) {
        return at_err_set(err, AT_BAD_REQUEST, "top shows nodes or instances, not %s",
                          kind->plural);
    }
    rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        rc = cli_list(cli, kind, cli_value(cli, OPT_SELECTOR, NULL), &items, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    struct cli_table table;
    bool with_ns = !nodes && cli->ns == NULL;
    bool header = !cli_flag(cli, OPT_NO_HEADERS);
    cli_table_init(&table, cli->arena, AT_ARRAY_LEN(NODE_HEADER) + (with_ns ? 1 : 0));
    if (header && with_ns) {
        cli_table_add(&table, "NAMESPACE");
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(NODE_HEADER) && header; i++) {
        cli_table_add(&table, nodes ? NODE_HEADER[i] : INSTANCE_HEADER[i]);
    }
    for (size_t i = 0; i < json_array_size(items); i++) {
        (nodes ? add_node : add_instance)(cli, json_array_get(items, i), &table);
    }
    cli_table_print(cli, &table, header);
    json_decref(items);
    return AT_OK;
}
