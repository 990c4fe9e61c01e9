/* `atoll revoke`: certificates are refused before they end. */
#include "cli/cli_priv.h"

#include "core/str.h"

#include <string.h>

static const struct {
    const char *word, *member, *prefix;
} WAYS[] = {
    {"user", "user", ""},
    {"node", "user", "system:node:"},
    {"gateway", "user", "system:gateway:"},
    {"serial", "serial", ""},
    {"fingerprint", "fingerprint", ""},
};

/* As openssl shows them: digits with colons, zeros in front. own: at_free. */
static char *number_of(const char *text)
{
    char *out = at_strdup(text);
    size_t n = 0;
    for (const char *c = text; *c != '\0'; c++) {
        if (*c != ':') {
            out[n++] = *c;
        }
    }
    out[n] = '\0';
    return out;
}

static char *value_of(size_t way, const char *text)
{
    if (WAYS[way].member[0] == 'u') {
        return at_asprintf("%s%s", WAYS[way].prefix, text);
    }
    char *digits = number_of(text);
    if (WAYS[way].member[0] == 's') {
        size_t zeros = strspn(digits, "0");
        memmove(digits, digits + zeros, strlen(digits + zeros) + 1);
    }
    return digits;
}

/* Only what was issued up to now, by the server's clock: before that all of the name was refused,
 * so there is no gap. */
static enum at_rc narrow(struct cli *cli, json_t **object, struct at_err *err)
{
    const char *name = at_json_str_at(*object, "metadata.name", "");
    json_t *after = NULL;
    AT_CLEANUP(at_cleanup_json)
    json_t *patch = json_pack("{s:{s:s}}", "spec", "issuedBefore",
                              at_json_str_at(*object, "metadata.creationTimestamp", ""));
    enum at_rc rc =
        cli_call(cli, AT_HTTP_PATCH, cli_path(cli, &AT_KIND_CERTIFICATE_REVOCATION, name, NULL),
                 "application/merge-patch+json", NULL, patch, &after, err);
    if (rc == AT_OK) {
        json_decref(*object);
        *object = after;
    }
    return rc;
}

static enum at_rc make(struct cli *cli, size_t way, json_t **ret, struct at_err *err)
{
    const char *reason = cli_value(cli, OPT_REASON, NULL);
    AT_CLEANUP(at_cleanup_free) char *value = value_of(way, cli->args[1]);
    AT_CLEANUP(at_cleanup_json)
    json_t *object = json_pack("{s:s, s:s, s:{s:s}, s:{s:s, s:s*}}", "apiVersion", "atoll.dev/v1",
                               "kind", "CertificateRevocation", "metadata", "generateName",
                               "revoked-", "spec", WAYS[way].member, value, "reason", reason);
    if (object == NULL) {
        return at_err_set(err, AT_BAD_REQUEST, "the arguments are not UTF-8");
    }
    enum at_rc rc =
        cli_call(cli, AT_HTTP_POST, cli_path(cli, &AT_KIND_CERTIFICATE_REVOCATION, NULL, NULL),
                 NULL, NULL, object, ret, err);
    return rc == AT_OK && WAYS[way].member[0] == 'u' ? narrow(cli, ret, err) : rc;
}

enum at_rc cli_revoke(struct cli *cli, struct at_err *err)
{
    enum cli_format format;
    size_t way = 0;
    while (way < AT_ARRAY_LEN(WAYS) && strcmp(WAYS[way].word, cli->args[0]) != 0) {
        way++;
    }
    if (way == AT_ARRAY_LEN(WAYS)) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "\"%.40s\": give user, node, gateway, serial or fingerprint, and which",
                          cli->args[0]);
    }
    enum at_rc rc = cli_format_of(cli, &format, err);
    rc = rc == AT_OK ? cli_connect(cli, err) : rc;
    json_t *object = NULL;
    rc = rc == AT_OK ? make(cli, way, &object, err) : rc;
    AT_CLEANUP(at_cleanup_json) json_t *made = rc == AT_OK ? object : NULL;
    if (rc != AT_OK) {
        return rc;
    }
    if (format != CLI_TABLE && format != CLI_WIDE) {
        return cli_print_value(cli, format, made, err);
    }
    fprintf(cli->env->out,
            "certificaterevocation.atoll.dev/%s created: %s %s is refused from now on\n",
            at_json_str_at(made, "metadata.name", ""), cli->args[0], cli->args[1]);
    return AT_OK;
}
