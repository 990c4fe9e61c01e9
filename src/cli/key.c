/* `atoll key`: keys for gateways. The secret is made here, shown once, and only its digest is sent.
 */
#include "cli/cli_priv.h"
#include "core/digest.h"
#include "metering/secret.h"
#include "sys/sys.h"

#include <string.h>

#define MERGE_PATCH "application/merge-patch+json"

static void make_secret(char secret[AT_METER_SECRET_BYTES + 1], char hash[AT_SHA256_HEX_BYTES])
{
    unsigned char random[AT_METER_SECRET_RANDOM_BYTES];
    at_sys_random(at_sys_real(), random, sizeof random);
    at_meter_secret_make(random, secret);
    at_sha256_hex(secret, AT_METER_SECRET_BYTES, hash);
}

static void set_text(json_t *object, const char *key, const char *text)
{
    if (text != NULL) {
        json_object_set_new(object, key, json_string(text));
    }
}

static void set_list(const struct cli *cli, json_t *spec, const char *key, enum cli_option option)
{
    const struct cli_values *values = &cli->values[option];
    if (values->n > 0) {
        json_t *list = json_array();
        for (size_t i = 0; i < values->n; i++) {
            json_array_append_new(list, json_string(values->items[i]));
        }
        json_object_set_new(spec, key, list);
    }
}

/* "5/day", "20/month"; without a window: for ever. */
static enum at_rc add_budget(json_t *list, const char *text, struct at_err *err)
{
    static const struct {
        const char *word, *window;
    } WINDOWS[] = {{"day", "Day"}, {"week", "Week"}, {"month", "Month"}, {"total", "Total"}};
    struct at_str rest = at_str_of(text), amount = at_str_cut(&rest, '/');
    const char *window = rest.len == 0 ? "Total" : NULL;
    for (size_t i = 0; i < AT_ARRAY_LEN(WINDOWS); i++) {
        window = at_str_eq_nocase(rest, WINDOWS[i].word) ? WINDOWS[i].window : window;
    }
    AT_CLEANUP(at_cleanup_free) char *money = at_strndup(amount.ptr, amount.len);
    int64_t microusd;
    if (window == NULL || at_money_microusd(money, &microusd, NULL) != AT_OK || microusd < 0) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--budget %s: write dollars and a window, such as 20/month, 1.50/day, "
                          "5/week or 100/total",
                          text);
    }
    json_array_append_new(list, json_pack("{s:s, s:s}", "window", window, "amount", money));
    return AT_OK;
}

static enum at_rc set_expiry(const struct cli *cli, json_t *spec, const char *key,
                             enum cli_option option, struct at_err *err)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    int64_t ns;
    if (cli->values[option].n == 0) {
        return AT_OK;
    }
    enum at_rc rc = cli_duration(cli, option, 0, &ns, err);
    if (rc == AT_OK) {
        int64_t at = at_sys_wall_ns(at_sys_real()) + ns;
        json_object_set_new(spec, key, json_string(at_time_format_micro(at, text)));
    }
    return rc;
}

static enum at_rc set_limits(const struct cli *cli, json_t *spec, struct at_err *err)
{
    json_t *limits = json_object();
    int64_t n;
    enum at_rc rc = AT_OK;
    if (cli->values[OPT_RPM].n > 0) {
        rc = cli_integer(cli, OPT_RPM, 1, 1000000000, &n, err);
        json_object_set_new(limits, "requestsPerMinute", json_integer(rc == AT_OK ? n : 0));
    }
    if (rc == AT_OK && cli->values[OPT_TPM].n > 0) {
        rc = cli_integer(cli, OPT_TPM, 1, 1000000000000, &n, err);
        json_object_set_new(limits, "tokensPerMinute", json_integer(rc == AT_OK ? n : 0));
    }
    if (json_object_size(limits) > 0) {
        json_object_set_new(spec, "limits", limits);
    } else {
        json_decref(limits);
    }
    return rc;
}

static enum at_rc spec_of(const struct cli *cli, json_t *spec, struct at_err *err)
{
    json_t *budgets = json_array();
    enum at_rc rc = AT_OK;
    set_text(spec, "team", cli_value(cli, OPT_TEAM, NULL));
    set_text(spec, "description", cli_value(cli, OPT_DESCRIPTION, NULL));
    set_text(spec, "priority", cli_value(cli, OPT_PRIORITY, NULL));
    set_list(cli, spec, "models", OPT_MODEL);
    set_list(cli, spec, "namespaces", OPT_OPEN_NAMESPACE);
    for (size_t i = 0; i < cli->values[OPT_BUDGET].n && rc == AT_OK; i++) {
        rc = add_budget(budgets, cli->values[OPT_BUDGET].items[i], err);
    }
    if (json_array_size(budgets) > 0) {
        json_object_set_new(spec, "budgets", budgets);
    } else {
        json_decref(budgets);
    }
    rc = rc == AT_OK ? set_limits(cli, spec, err) : rc;
    return rc == AT_OK ? set_expiry(cli, spec, "expires", OPT_EXPIRES, err) : rc;
}

static enum at_rc show(struct cli *cli, enum cli_format format, const json_t *object,
                       const char *secret, struct at_err *err)
{
    FILE *out = cli->env->out;
    if (format == CLI_NAME) {
        fprintf(out, "%s\n", secret);
        return AT_OK;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        AT_CLEANUP(at_cleanup_json)
        json_t *both = json_pack("{s:s, s:O}", "secret", secret, "key", object);
        return cli_print_value(cli, format, both, err);
    }
    fprintf(out, "key %s/%s\n\n  %s\n\nIt is shown this once. Clients bring it as their API key:\n",
            at_json_str_at(object, "metadata.namespace", ""),
            at_json_str_at(object, "metadata.name", ""), secret);
    fprintf(out, "  export OPENAI_BASE_URL=https://GATEWAY/v1 OPENAI_API_KEY=...\n");
    return AT_OK;
}

static enum at_rc create(struct cli *cli, enum cli_format format, struct at_err *err)
{
    char secret[AT_METER_SECRET_BYTES + 1], hash[AT_SHA256_HEX_BYTES];
    AT_CLEANUP(at_cleanup_json) json_t *spec = json_object();
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    enum at_rc rc = spec_of(cli, spec, err);
    if (rc != AT_OK) {
        return rc;
    }
    make_secret(secret, hash);
    json_object_set_new(spec, "hash", json_string(hash));
    json_object_set_new(spec, "hint", json_stringn(secret, AT_METER_HINT_BYTES));
    AT_CLEANUP(at_cleanup_json)
    json_t *object = json_pack("{s:s, s:s, s:{s:s}, s:O}", "apiVersion", "atoll.dev/v1", "kind",
                               "APIKey", "metadata", "name", cli->args[1], "spec", spec);
    if (object == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "the arguments are not UTF-8");
    }
    rc = cli_call(cli, AT_HTTP_POST, cli_path(cli, &AT_KIND_API_KEY, NULL, NULL), NULL, NULL,
                  object, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    return show(cli, format, answer, secret, err);
}

/* The answer is the key as it is then; own: caller decrefs. */
static enum at_rc change(struct cli *cli, const json_t *patch, json_t **ret, struct at_err *err)
{
    return cli_call(cli, AT_HTTP_PATCH, cli_path(cli, &AT_KIND_API_KEY, cli->args[1], NULL),
                    MERGE_PATCH, NULL, patch, ret, err);
}

static enum at_rc rotate(struct cli *cli, enum cli_format format, struct at_err *err)
{
    char secret[AT_METER_SECRET_BYTES + 1], hash[AT_SHA256_HEX_BYTES];
    AT_CLEANUP(at_cleanup_json) json_t *before = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *answer = NULL;
    AT_CLEANUP(at_cleanup_json) json_t *spec = json_object();
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, cli_path(cli, &AT_KIND_API_KEY, cli->args[1], NULL),
                             NULL, NULL, NULL, &before, err);
    if (rc != AT_OK) {
        before = NULL;
        return rc;
    }
    make_secret(secret, hash);
    json_object_set_new(spec, "hash", json_string(hash));
    json_object_set_new(spec, "hint", json_stringn(secret, AT_METER_HINT_BYTES));
    json_object_set_new(spec, "previousHash", json_null());
    json_object_set_new(spec, "previousUntil", json_null());
    if (cli->values[OPT_GRACE].n > 0) {
        set_text(spec, "previousHash", at_json_str_at(before, "spec.hash", ""));
        rc = set_expiry(cli, spec, "previousUntil", OPT_GRACE, err);
    }
    if (rc != AT_OK) {
        return rc;
    }
    /* Of two who rotate at once one is refused: else the other's secret would be lost. */
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s:{s:s}, s:O}", "metadata", "uid",
                              at_json_str_at(before, "metadata.uid", ""), "spec", spec);
    rc = change(cli, patch, &answer, err);
    if (rc != AT_OK) {
        answer = NULL;
        return rc;
    }
    return show(cli, format, answer, secret, err);
}

static enum at_rc set_disabled(struct cli *cli, bool disabled, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s:{s:b}}", "spec", "disabled", (int)disabled);
    enum at_rc rc = change(cli, patch, NULL, err);
    if (rc == AT_OK) {
        fprintf(cli->env->out, "key %s/%s %s\n", cli->ns != NULL ? cli->ns : "default",
                cli->args[1],
                disabled ? "revoked: gateways refuse it within a second" : "opens again");
    }
    return rc;
}

/* As `atoll get apikeys`, which has watching and selectors too. */
static enum at_rc list(struct cli *cli, enum cli_format format, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *items = NULL;
    struct cli_table table;
    bool wide = format == CLI_WIDE;
    size_t i;
    json_t *item;
    enum at_rc rc = cli_list(cli, &AT_KIND_API_KEY, NULL, &items, err);
    if (rc != AT_OK) {
        items = NULL;
        return rc;
    }
    if (format != CLI_TABLE && !wide) {
        return cli_print_value(cli, format, items, err);
    }
    cli_table_init(&table, cli->arena, cli_kind_columns(cli, &AT_KIND_API_KEY, wide));
    cli_kind_header(cli, &AT_KIND_API_KEY, wide, &table);
    json_array_foreach(items, i, item)
    {
        cli_kind_row(cli, &AT_KIND_API_KEY, wide, item, &table);
    }
    cli_table_print(cli, &table, true);
    return AT_OK;
}

enum at_rc cli_key(struct cli *cli, struct at_err *err)
{
    static const char *const WORDS[] = {"create", "list", "revoke", "restore", "rotate"};
    const char *word = cli->args[0];
    enum cli_format format;
    size_t i = 0;
    while (i < AT_ARRAY_LEN(WORDS) && strcmp(WORDS[i], word) != 0) {
        i++;
    }
    if (i == AT_ARRAY_LEN(WORDS)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "atoll key %s: there are create, list, revoke, restore and rotate; to "
                          "take one away: atoll delete apikey NAME",
                          word);
    }
    if ((i != 1) != (cli->n_args == 2)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          i == 1 ? "atoll key list takes no name" : "which key? atoll key %s NAME",
                          word);
    }
    enum at_rc rc = cli_format_of(cli, &format, err);
    rc = rc == AT_OK ? cli_connect(cli, err) : rc;
    if (rc != AT_OK) {
        return rc;
    }
    if (i != 1 && cli->ns == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "a key is in one namespace: --namespace NAME");
    }
    switch (i) {
    case 0:
        return create(cli, format, err);
    case 1:
        return list(cli, format, err);
    case 4:
        return rotate(cli, format, err);
    default:
        return set_disabled(cli, i == 2, err);
    }
}
