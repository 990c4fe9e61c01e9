/* `atoll usage`: what keys used, summed up from the usage records of all gateways. */
#include "cli/cli_priv.h"
#include "core/map.h"

#include <stdlib.h>
#include <string.h>

struct sum {
    const char *parts[5]; /* what it is by, as texts */
    int64_t requests, errors, cached, prompt, completion, microusd;
};

static const char *const BY[] = {"day", "namespace", "team", "key", "model"};

struct query {
    bool by[AT_ARRAY_LEN(BY)];
    const char *from, *until, *team, *key, *model;
};

static enum at_rc read_by(const struct cli *cli, struct query *q, struct at_err *err)
{
    const struct cli_values *values = &cli->values[OPT_BY];
    for (size_t v = 0; v < values->n; v++) {
        struct at_str rest = at_str_of(values->items[v]);
        while (rest.len > 0) {
            struct at_str word = at_str_cut(&rest, ',');
            bool found = false;
            for (size_t i = 0; i < AT_ARRAY_LEN(BY); i++) {
                found |= at_str_eq(word, BY[i]);
                q->by[i] |= at_str_eq(word, BY[i]);
            }
            if (!found) {
                return at_err_set(err, AT_BAD_REQUEST,
                                  "--by %.*s: there are day, namespace, team, key and model",
                                  (int)word.len, word.ptr);
            }
        }
    }
    if (values->n == 0) {
        q->by[1] = q->by[2] = q->by[3] = q->by[4] = true;
    }
    return AT_OK;
}

static bool is_day(const char *text)
{
    static const char FORM[] = "0000-00-00";
    bool ok = strlen(text) == sizeof FORM - 1;
    for (size_t i = 0; ok && i < sizeof FORM - 1; i++) {
        ok = FORM[i] == '0' ? text[i] >= '0' && text[i] <= '9' : text[i] == '-';
    }
    return ok;
}

static enum at_rc read_query(const struct cli *cli, struct query *q, struct at_err *err)
{
    q->from = cli_value(cli, OPT_FROM, "");
    q->until = cli_value(cli, OPT_UNTIL, "");
    q->team = cli_value(cli, OPT_TEAM, NULL);
    q->key = cli_value(cli, OPT_KEY_NAME, NULL);
    q->model = cli_value(cli, OPT_MODEL, NULL);
    if ((q->from[0] != '\0' && !is_day(q->from)) || (q->until[0] != '\0' && !is_day(q->until))) {
        return at_err_set(err, AT_BAD_REQUEST, "--from and --until are days, such as 2026-11-24");
    }
    return read_by(cli, q, err);
}

static bool wanted(const struct query *q, const char *day, const json_t *row)
{
    const char *model = at_json_str_at(row, "model", "");
    const char *slash = strchr(model, '/');
    return (q->from[0] == '\0' || strcmp(day, q->from) >= 0) &&
           (q->until[0] == '\0' || strcmp(day, q->until) <= 0) &&
           (q->team == NULL || strcmp(q->team, at_json_str_at(row, "team", "")) == 0) &&
           (q->key == NULL || strcmp(q->key, at_json_str_at(row, "key", "")) == 0) &&
           (q->model == NULL || strcmp(q->model, model) == 0 ||
            (slash != NULL && strcmp(q->model, slash + 1) == 0));
}

static void add(struct cli *cli, const struct query *q, struct at_map *sums, const json_t *record,
                const json_t *row)
{
    const char *day = at_json_str_at(record, "spec.day", "");
    const char *const parts[] = {day, at_json_str_at(record, "metadata.namespace", ""),
                                 at_json_str_at(row, "team", ""), at_json_str_at(row, "key", ""),
                                 at_json_str_at(row, "model", "")};
    const char *name = "";
    for (size_t i = 0; i < AT_ARRAY_LEN(BY); i++) {
        name = at_arena_printf(cli->arena, "%s\t%s", name, q->by[i] ? parts[i] : "");
    }
    struct sum *sum = at_map_get(sums, name);
    if (sum == NULL) {
        sum = AT_NEW(struct sum);
        for (size_t i = 0; i < AT_ARRAY_LEN(BY); i++) {
            sum->parts[i] = at_arena_strdup(cli->arena, parts[i]);
        }
        at_map_put(sums, name, sum);
    }
    int64_t microusd = 0;
    (void)!at_money_microusd(at_json_str_at(row, "cost", "0"), &microusd, NULL);
    sum->requests += at_json_int_at(row, "requests", 0);
    sum->errors += at_json_int_at(row, "errors", 0);
    sum->cached += at_json_int_at(row, "cached", 0);
    sum->prompt += at_json_int_at(row, "promptTokens", 0);
    sum->completion += at_json_int_at(row, "completionTokens", 0);
    sum->microusd += microusd;
}

static int by_parts(const void *a, const void *b)
{
    const struct sum *x = *(struct sum *const *)a, *y = *(struct sum *const *)b;
    int order = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(BY) && order == 0; i++) {
        order = strcmp(x->parts[i], y->parts[i]);
    }
    return order;
}

static json_t *to_json(const struct query *q, struct sum *const *all, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        char cost[AT_UNITS_TEXT_BYTES_MAX];
        json_t *one = json_object();
        for (size_t k = 0; k < AT_ARRAY_LEN(BY); k++) {
            if (q->by[k]) {
                json_object_set_new(one, BY[k], json_string(all[i]->parts[k]));
            }
        }
        json_object_set_new(one, "requests", json_integer(all[i]->requests));
        json_object_set_new(one, "errors", json_integer(all[i]->errors));
        json_object_set_new(one, "cached", json_integer(all[i]->cached));
        json_object_set_new(one, "promptTokens", json_integer(all[i]->prompt));
        json_object_set_new(one, "completionTokens", json_integer(all[i]->completion));
        json_object_set_new(one, "cost", json_string(at_money_format(all[i]->microusd, cost)));
        json_array_append_new(list, one);
    }
    return list;
}

/* RFC 4180. A text that a spreadsheet would take for a formula is led by an apostrophe. */
static void put_csv(FILE *out, const char *text)
{
    bool formula = text[0] != '\0' && strchr("=+-@\t\r", text[0]) != NULL;
    if (!formula && strpbrk(text, ",\"\r\n") == NULL) {
        fputs(text, out);
        return;
    }
    fputs(formula ? "\"'" : "\"", out);
    for (const char *p = text; *p != '\0'; p++) {
        fputs(*p == '"' ? "\"\"" : (char[2]){*p, '\0'}, out);
    }
    fputc('"', out);
}

static void print_csv(const struct cli *cli, const json_t *list)
{
    FILE *out = cli->env->out;
    size_t i;
    json_t *one;
    json_array_foreach(list, i, one)
    {
        const char *key;
        json_t *value;
        const char *sep = "";
        if (i == 0 && !cli_flag(cli, OPT_NO_HEADERS)) {
            json_object_foreach(one, key, value)
            {
                fprintf(out, "%s%s", sep, key);
                sep = ",";
            }
            fputs("\r\n", out);
        }
        sep = "";
        json_object_foreach(one, key, value)
        {
            fputs(sep, out);
            if (json_is_integer(value)) {
                fprintf(out, "%lld", (long long)json_integer_value(value));
            } else {
                put_csv(out, json_string_value(value));
            }
            sep = ",";
        }
        fputs("\r\n", out);
    }
}

static void print_table(const struct cli *cli, const struct query *q, const json_t *list)
{
    static const struct {
        const char *title, *key;
    } NUMBERS[] = {{"REQUESTS", "requests"},
                   {"ERRORS", "errors"},
                   {"CACHED", "cached"},
                   {"PROMPT", "promptTokens"},
                   {"COMPLETION", "completionTokens"}};
    static const char *const TITLES[] = {"DAY", "NAMESPACE", "TEAM", "KEY", "MODEL"};
    struct cli_table table;
    size_t columns = AT_ARRAY_LEN(NUMBERS) + 1, i;
    json_t *one;
    for (size_t k = 0; k < AT_ARRAY_LEN(BY); k++) {
        columns += q->by[k];
    }
    cli_table_init(&table, cli->arena, columns);
    for (size_t k = 0; k < AT_ARRAY_LEN(BY); k++) {
        if (q->by[k]) {
            cli_table_add(&table, TITLES[k]);
        }
    }
    for (size_t k = 0; k < AT_ARRAY_LEN(NUMBERS); k++) {
        cli_table_add(&table, NUMBERS[k].title);
    }
    cli_table_add(&table, "COST");
    json_array_foreach(list, i, one)
    {
        for (size_t k = 0; k < AT_ARRAY_LEN(BY); k++) {
            if (q->by[k]) {
                cli_table_add(&table, at_json_str_at(one, BY[k], ""));
            }
        }
        for (size_t k = 0; k < AT_ARRAY_LEN(NUMBERS); k++) {
            cli_table_add(&table,
                          at_arena_printf(cli->arena, "%lld",
                                          (long long)at_json_int_at(one, NUMBERS[k].key, 0)));
        }
        cli_table_add(&table, at_json_str_at(one, "cost", ""));
    }
    cli_table_print(cli, &table, true);
}

static json_t *sums_of(struct cli *cli, const struct query *q, const json_t *records)
{
    struct at_map *sums = at_map_new();
    size_t i, j, n = 0;
    json_t *record, *row;
    void *value;
    json_array_foreach(records, i, record)
    {
        json_array_foreach(at_json_at(record, "spec.rows"), j, row)
        {
            if (wanted(q, at_json_str_at(record, "spec.day", ""), row)) {
                add(cli, q, sums, record, row);
            }
        }
    }
    struct sum **all = at_alloc((at_map_count(sums) + 1) * sizeof(struct sum *));
    for (size_t it = 0; at_map_next(sums, &it, NULL, &value);) {
        all[n++] = value;
    }
    qsort(all, n, sizeof(struct sum *), by_parts);
    json_t *list = to_json(q, all, n);
    for (size_t k = 0; k < n; k++) {
        at_free(all[k]);
    }
    at_free(all);
    at_map_free(sums);
    return list;
}

enum at_rc cli_usage(struct cli *cli, struct at_err *err)
{
    struct query q = {0};
    enum cli_format format = CLI_TABLE;
    bool csv = at_streq(cli_value(cli, OPT_OUTPUT, ""), "csv");
    enum at_rc rc = read_query(cli, &q, err);
    if (rc == AT_OK && !csv) {
        rc = cli_format_of(cli, &format, err);
    }
    rc = rc == AT_OK ? cli_connect(cli, err) : rc;
    AT_CLEANUP(at_cleanup_json) json_t *records = NULL;
    if (rc == AT_OK) {
        rc = cli_list(cli, &AT_KIND_USAGE_RECORD, NULL, &records, err);
    }
    if (rc != AT_OK) {
        records = NULL;
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *list = sums_of(cli, &q, records);
    if (csv) {
        print_csv(cli, list);
    } else if (format == CLI_TABLE || format == CLI_WIDE || format == CLI_NAME) {
        print_table(cli, &q, list);
    } else {
        return cli_print_value(cli, format, list, err);
    }
    return AT_OK;
}
