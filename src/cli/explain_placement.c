/* explain placement: why something runs where it runs, or why it runs nowhere yet. */
#include "cli/explain.h"
#include "core/str.h"

#include <string.h>

#define DETAILS_MAX 3 /* instances told in full; of more a table */

static const char GREEN[] = "\033[32m", YELLOW[] = "\033[33m", RED[] = "\033[31m";

struct report {
    struct cli *cli;
    const char *object; /* "Deployment default/web" */
    json_t *instances;  /* as they are told in JSON; own */
};

/* --- what is told --- */

static const char *at(const json_t *object, const char *path)
{
    return at_json_str_at(object, path, "");
}

/* Controlled by the Deployment or Job of this name. */
static bool is_owned(const json_t *instance, const struct cli_target *owner)
{
    size_t i;
    json_t *ref;
    json_array_foreach(at_json_at(instance, "metadata.ownerReferences"), i, ref)
    {
        if (json_is_true(json_object_get(ref, "controller")) &&
            strcmp(at(ref, "kind"), owner->kind->kind) == 0 &&
            strcmp(at(ref, "name"), owner->name) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_over(const json_t *instance)
{
    const char *phase = at(instance, "status.phase");
    return strcmp(phase, "Succeeded") == 0 || strcmp(phase, "Failed") == 0;
}

static void tell(struct report *r, const json_t *instance)
{
    const json_t *decision = at_json_at(instance, "status.decision");
    json_t *one =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", at(instance, "metadata.name"), "namespace",
                  at(instance, "metadata.namespace"), "phase", at(instance, "status.phase"), "node",
                  at(instance, "spec.nodeName"), "site", at(instance, "status.site"));
    json_object_set_new(one, "decision", decision != NULL ? json_deep_copy(decision) : json_null());
    json_array_append_new(r->instances, one);
}

static enum at_rc collect(struct report *r, const struct cli_target *target, struct at_err *err)
{
    struct cli *cli = r->cli;
    r->object = at_arena_printf(cli->arena, "%s %s/%s", target->kind->kind,
                                cli->ns != NULL ? cli->ns : "", target->name);
    AT_CLEANUP(at_cleanup_json) json_t *object = NULL;
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, cli_path(cli, target->kind, target->name, NULL),
                             NULL, NULL, NULL, &object, err);
    if (rc != AT_OK || target->kind == &AT_KIND_INSTANCE) {
        if (rc == AT_OK) {
            tell(r, object);
        }
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *items = NULL;
    rc = cli_list(cli, &AT_KIND_INSTANCE, NULL, &items, err);
    for (size_t i = 0; rc == AT_OK && i < json_array_size(items); i++) {
        const json_t *instance = json_array_get(items, i);
        if (is_owned(instance, target) && !is_over(instance)) {
            tell(r, instance);
        }
    }
    return rc;
}

/* --- for people --- */

static void put(const struct cli *cli, const char *text)
{
    cli_print_text(cli->env->out, text);
}

static void put_painted(const struct cli *cli, const char *colour, const char *text)
{
    bool paint = cli_colour_wanted(cli);
    fputs(paint ? colour : "", cli->env->out);
    put(cli, text);
    fputs(paint ? "\033[0m" : "", cli->env->out);
}

static const char *number(const struct cli *cli, const json_t *value)
{
    return json_is_integer(value)
               ? at_arena_printf(cli->arena, "%lld", (long long)json_integer_value(value))
               : "";
}

static void put_parts(const struct cli *cli, const json_t *one, const json_t *decision)
{
    struct cli_table table;
    const char *second = at(decision, "runnerUp");
    bool two = second[0] != '\0';
    cli_table_init(&table, cli->arena, two ? 4 : 3);
    cli_table_add(&table, "OBJECTIVE");
    cli_table_add(&table, "WEIGHT");
    cli_table_add(&table, at(one, "node"));
    if (two) {
        cli_table_add(&table, second);
    }
    size_t i;
    json_t *part;
    json_array_foreach(json_object_get(decision, "parts"), i, part)
    {
        cli_table_add(&table, at(part, "name"));
        cli_table_add(&table, number(cli, json_object_get(part, "weight")));
        cli_table_add(&table, number(cli, json_object_get(part, "score")));
        if (two) {
            cli_table_add(&table, number(cli, json_object_get(part, "runnerUp")));
        }
    }
    cli_table_add(&table, "weighted mean");
    cli_table_add(&table, "");
    cli_table_add(&table, number(cli, json_object_get(decision, "score")));
    if (two) {
        cli_table_add(&table, number(cli, json_object_get(decision, "runnerUpScore")));
    }
    cli_table_print(cli, &table, true);
}

static void put_refusals(const struct cli *cli, const json_t *decision)
{
    struct cli_table table;
    const json_t *list = json_object_get(decision, "refusals");
    if (json_array_size(list) == 0) {
        return;
    }
    cli_table_init(&table, cli->arena, 3);
    cli_table_add(&table, "REFUSED BY");
    cli_table_add(&table, "NODES");
    cli_table_add(&table, "FOR EXAMPLE");
    size_t i;
    json_t *refusal;
    json_array_foreach((json_t *)list, i, refusal)
    {
        cli_table_add(&table, at(refusal, "rule"));
        cli_table_add(&table, number(cli, json_object_get(refusal, "nodes")));
        cli_table_add(&table, at(refusal, "example"));
    }
    fputc('\n', cli->env->out);
    cli_table_print(cli, &table, true);
}

static void put_remedies(const struct cli *cli, const json_t *decision)
{
    struct cli_table table;
    const json_t *list = json_object_get(decision, "remedies");
    if (json_array_size(list) == 0) {
        return;
    }
    cli_table_init(&table, cli->arena, 2);
    cli_table_add(&table, "WOULD HELP");
    cli_table_add(&table, "HOW");
    size_t i;
    json_t *remedy;
    json_array_foreach((json_t *)list, i, remedy)
    {
        cli_table_add(&table, at(remedy, "kind"));
        cli_table_add(&table, at(remedy, "message"));
    }
    fputc('\n', cli->env->out);
    cli_table_print(cli, &table, true);
}

static void put_waits(const struct cli *cli, const json_t *decision)
{
    const json_t *list = json_object_get(decision, "waitsFor");
    size_t i;
    json_t *word;
    if (json_array_size(list) > 0) {
        fputs("\ntried again after:", cli->env->out);
    }
    json_array_foreach((json_t *)list, i, word)
    {
        fprintf(cli->env->out, "%s ", i > 0 ? "," : "");
        put(cli, json_string_value(word) != NULL ? json_string_value(word) : "");
    }
    if (json_array_size(list) > 0) {
        fputc('\n', cli->env->out);
    }
}

static const char *word_of(const json_t *one)
{
    const json_t *decision = json_object_get(one, "decision");
    if (at(one, "node")[0] != '\0') {
        return "placed";
    }
    return !json_is_object(decision)                         ? "undecided"
           : strcmp(at(decision, "state"), "NeverFits") == 0 ? "can never fit"
                                                             : "pending";
}

static const char *colour_of(const char *word)
{
    return strcmp(word, "placed") == 0 ? GREEN : strcmp(word, "can never fit") == 0 ? RED : YELLOW;
}

static void put_head(const struct cli *cli, const json_t *one, const char *names)
{
    const json_t *decision = json_object_get(one, "decision");
    const char *word = word_of(one);
    put(cli, names);
    fputs(": ", cli->env->out);
    put_painted(cli, colour_of(word), word);
    if (json_is_object(decision)) {
        put(cli, at_arena_printf(cli->arena, ", %s",
                                 at(one, "node")[0] != '\0' &&
                                         json_array_size(json_object_get(decision, "parts")) > 0
                                     ? at_arena_printf(cli->arena, "on %s at site %s",
                                                       at(one, "node"), at(one, "site"))
                                     : at(decision, "message")));
    } else {
        put(cli, at(one, "node")[0] != '\0' ? ", and nobody noted why"
                                            : ": the scheduler has not looked at it yet");
    }
    fputc('\n', cli->env->out);
}

static void put_one(const struct cli *cli, const json_t *one, const char *names)
{
    const json_t *decision = json_object_get(one, "decision");
    put_head(cli, one, names);
    const char *nearest = at(decision, "nearest");
    if (nearest[0] != '\0') {
        fputs("nearest: ", cli->env->out);
        put_painted(cli, YELLOW, nearest);
        fputc('\n', cli->env->out);
    }
    if (at(one, "node")[0] == '\0') {
        put_refusals(cli, decision);
        put_remedies(cli, decision);
        put_waits(cli, decision);
    } else if (json_array_size(json_object_get(decision, "parts")) > 0) {
        fputc('\n', cli->env->out);
        put_parts(cli, one, decision);
    }
    const char *time = at(decision, "time");
    if (time[0] != '\0') {
        fprintf(cli->env->out, "decided %s ago\n", cli_age(cli, time));
    }
}

static const char *full_name(const struct cli *cli, const json_t *one)
{
    return at_arena_printf(cli->arena, "%s/%s", at(one, "namespace"), at(one, "name"));
}

/* Placed ones in one table; pending ones once for each reason. */
static void put_many(const struct cli *cli, const json_t *list)
{
    struct cli_table table;
    size_t i, rows = 0;
    json_t *one;
    cli_table_init(&table, cli->arena, 6);
    static const char *const HEADER[] = {"INSTANCE", "NODE", "SITE", "SCORE", "AHEAD OF", "BY"};
    for (size_t k = 0; k < AT_ARRAY_LEN(HEADER); k++) {
        cli_table_add(&table, HEADER[k]);
    }
    json_array_foreach((json_t *)list, i, one)
    {
        const json_t *decision = json_object_get(one, "decision");
        if (at(one, "node")[0] == '\0') {
            continue;
        }
        int64_t ahead =
            at_json_int_at(decision, "score", 0) - at_json_int_at(decision, "runnerUpScore", 0);
        bool second = at(decision, "runnerUp")[0] != '\0';
        rows++;
        cli_table_add(&table, at(one, "name"));
        cli_table_add(&table, at(one, "node"));
        cli_table_add(&table, at(one, "site"));
        cli_table_add(&table, number(cli, json_object_get(decision, "score")));
        cli_table_add(&table, at(decision, "runnerUp"));
        cli_table_add(&table, second ? at_arena_printf(cli->arena, "%lld", (long long)ahead) : "");
    }
    if (rows > 0) {
        fputc('\n', cli->env->out);
        cli_table_print(cli, &table, true);
    }
    AT_CLEANUP(at_cleanup_json) json_t *told = json_object();
    json_array_foreach((json_t *)list, i, one)
    {
        const char *message = at(one, "decision.message");
        if (at(one, "node")[0] == '\0' && json_object_get(told, message) == NULL) {
            size_t alike = 0;
            for (size_t k = i; k < json_array_size(list); k++) {
                const json_t *other = json_array_get(list, k);
                alike += at(other, "node")[0] == '\0' &&
                         strcmp(at(other, "decision.message"), message) == 0;
            }
            json_object_set_new(told, message, json_true());
            fputc('\n', cli->env->out);
            put_one(cli, one,
                    alike > 1 ? at_arena_printf(cli->arena, "%s and %zu more", full_name(cli, one),
                                                alike - 1)
                              : full_name(cli, one));
        }
    }
}

static void put_report(const struct report *r, bool one_instance)
{
    const struct cli *cli = r->cli;
    size_t n = json_array_size(r->instances), placed = 0;
    for (size_t i = 0; i < n; i++) {
        placed += at(json_array_get(r->instances, i), "node")[0] != '\0';
    }
    if (!one_instance) {
        put(cli, at_arena_printf(cli->arena, "%s: %zu of %zu instance%s placed\n", r->object,
                                 placed, n, n == 1 ? "" : "s"));
    }
    if (n > DETAILS_MAX) {
        put_many(cli, r->instances);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *one = json_array_get(r->instances, i);
        fputs(one_instance && i == 0 ? "" : "\n", cli->env->out);
        put_one(cli, one, full_name(cli, one));
    }
}

/* --- the verb --- */

static enum at_rc explainable(const struct cli_target *target, struct at_err *err)
{
    if (target->kind == &AT_KIND_INSTANCE || target->kind == &AT_KIND_DEPLOYMENT ||
        target->kind == &AT_KIND_JOB) {
        return AT_OK;
    }
    return at_err_set(err, AT_BAD_REQUEST,
                      "a %s is not placed: name an instance, a deployment or a job",
                      target->kind->singular);
}

/* KIND NAME or KIND/NAME; a bare name is an instance. */
static enum at_rc target_of(struct cli *cli, struct cli_target *ret, struct at_err *err)
{
    struct cli_target *targets = NULL;
    size_t n = 0;
    if (cli->n_args == 2 && strchr(cli->args[1], '/') == NULL) {
        *ret = (struct cli_target){&AT_KIND_INSTANCE, cli->args[1]};
        return AT_OK;
    }
    enum at_rc rc = cli_targets(cli, cli->args + 1, cli->n_args - 1, true, &targets, &n, err);
    if (rc == AT_OK) {
        *ret = targets[0];
        rc = explainable(ret, err);
    }
    return rc;
}

enum at_rc cli_explain_placement(struct cli *cli, struct at_err *err)
{
    struct report r = {.cli = cli};
    struct cli_target target = {0};
    enum cli_format format = CLI_TABLE;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc == AT_OK && cli->n_args < 2) {
        rc = at_err_set(err, AT_BAD_REQUEST,
                        "explain placement needs an object, such as deployment/web");
    }
    rc = rc == AT_OK ? target_of(cli, &target, err) : rc;
    rc = rc == AT_OK ? cli_connect(cli, err) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *instances = json_array();
    r.instances = instances;
    rc = collect(&r, &target, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (format == CLI_TABLE || format == CLI_WIDE) {
        put_report(&r, target.kind == &AT_KIND_INSTANCE);
        return AT_OK;
    }
    if (format == CLI_NAME) {
        for (size_t i = 0; i < json_array_size(instances); i++) {
            const json_t *one = json_array_get(instances, i);
            fprintf(cli->env->out, "%s\n", cli_ref(cli, &AT_KIND_INSTANCE, at(one, "name")));
        }
        return AT_OK;
    }
    AT_CLEANUP(at_cleanup_json)
    json_t *value =
        json_pack("{s:s, s:s, s:s, s:s, s:O}", "kind", target.kind->kind, "name", target.name,
                  "namespace", cli->ns != NULL ? cli->ns : "", "apiVersion",
                  at_model_api_version(target.kind), "instances", instances);
    return cli_print_value(cli, format, value, err);
}
