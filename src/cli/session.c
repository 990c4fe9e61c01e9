/* From the command's words to a server and its objects. */
#include "cli/cli_priv.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

#define TARGETS_MAX 1000
#define SIDE_FILE_BYTES_MAX 4096
#define RENEW_BEFORE_NS (10 * AT_NS_PER_S)
#define RENEW_NS_MIN (5 * AT_NS_PER_S)

static bool verb_has(const struct cli *cli, enum cli_option option)
{
    for (size_t i = 0; i < cli->verb->n_options; i++) {
        if (cli->verb->options[i] == option) {
            return true;
        }
    }
    return false;
}

/* What a plug-in gave ends while a watch or a log goes on: so it is asked again before. */
static void renew(void *ctx);

static void renew_later(struct cli *cli)
{
    int64_t expires = cli->config->expires_wall_ns;
    if (expires != 0 && at_client_kubeconfig_has_plugin(cli->config)) {
        int64_t left = expires - at_sys_wall_ns(cli->env->sys) - RENEW_BEFORE_NS;
        cli->renew_timer =
            at_loop_timer(cli->loop, left > RENEW_NS_MIN ? left : RENEW_NS_MIN, renew, cli);
    }
}

static void renew(void *ctx)
{
    struct cli *cli = ctx;
    struct at_err err = {0};
    cli->renew_timer = 0;
    if (at_client_kubeconfig_refresh(cli->config, cli->client, &err) != AT_OK) {
        fputs("warning: ", cli->env->err);
        cli_print_text(cli->env->err, err.msg);
        fputc('\n', cli->env->err);
    }
    renew_later(cli);
}

enum at_rc cli_connect(struct cli *cli, struct at_err *err)
{
    if (cli->client != NULL) {
        return AT_OK;
    }
    struct at_client_kubeconfig_choice choice = {.path = cli_value(cli, OPT_KUBECONFIG, NULL),
                                                 .context = cli_value(cli, OPT_CONTEXT, NULL),
                                                 .as = cli_value(cli, OPT_AS, NULL),
                                                 .as_groups = cli->values[OPT_AS_GROUP].items,
                                                 .n_as_groups = cli->values[OPT_AS_GROUP].n};
    enum at_rc rc = at_client_kubeconfig_choose(&choice, &cli->config, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (cli->config->warning != NULL) {
        fputs("warning: ", cli->env->err);
        cli_print_text(cli->env->err, cli->config->warning);
        fputc('\n', cli->env->err);
    }
    cli->config->options.user_agent = "atoll/" AT_VERSION;
    bool all = verb_has(cli, OPT_ALL_NAMESPACES) && cli_flag(cli, OPT_ALL_NAMESPACES);
    cli->ns = all ? NULL : cli_value(cli, OPT_NAMESPACE, cli->config->ns);
    cli->loop = at_loop_new(cli->env->sys);
    rc = at_client_new(cli->loop, &cli->config->options, &cli->client, err);
    if (rc == AT_OK) {
        renew_later(cli);
    }
    return rc;
}

void cli_disconnect(struct cli *cli)
{
    at_client_free(cli->client);
    if (cli->loop != NULL) {
        at_loop_timer_cancel(cli->loop, cli->renew_timer);
        at_loop_free(cli->loop);
    }
    at_client_kubeconfig_free(cli->config);
    cli->client = NULL;
    cli->loop = NULL;
    cli->config = NULL;
}

static enum at_rc call_once(struct cli *cli, enum at_http_method method, const char *path,
                            const char *content_type, const char *accept, const json_t *body,
                            json_t **ret, struct at_err *err)
{
    struct at_client_result result = {0};
    at_client_request_accept(cli->client, method, path, content_type, accept, body,
                             at_client_result_done, &result);
    enum at_rc rc = at_client_wait(cli->client, &result);
    if (rc != AT_OK && err != NULL) {
        *err = result.err;
        err->rc = rc;
    }
    if (rc == AT_OK && ret != NULL) {
        if (result.body == NULL) {
            rc = at_err_set(err, AT_UPSTREAM, "the server's answer to %s is no JSON", path);
        } else {
            *ret = json_incref(result.body);
        }
    }
    at_client_result_clear(&result);
    return rc;
}

enum at_rc cli_call(struct cli *cli, enum at_http_method method, const char *path,
                    const char *content_type, const char *accept, const json_t *body, json_t **ret,
                    struct at_err *err)
{
    enum at_rc rc = call_once(cli, method, path, content_type, accept, body, ret, err);
    if (rc == AT_UNAUTHENTICATED && at_client_kubeconfig_has_plugin(cli->config) && !cli->renewed) {
        cli->renewed = true; /* once: a plug-in may keep what is no good any more */
        if (at_client_kubeconfig_refresh(cli->config, cli->client, NULL) == AT_OK) {
            rc = call_once(cli, method, path, content_type, accept, body, ret, err);
        }
    }
    return rc;
}

const char *cli_path_in(const struct cli *cli, const struct at_model_kind *kind, const char *ns,
                        const char *name, const char *subresource)
{
    char path[1024];
    at_client_path(kind, ns, name, subresource, path, sizeof path);
    return at_arena_strdup(cli->arena, path);
}

const char *cli_path(const struct cli *cli, const struct at_model_kind *kind, const char *name,
                     const char *subresource)
{
    return cli_path_in(cli, kind, cli->ns, name, subresource);
}

const char *cli_query(const struct cli *cli, const char *path, const char *const *pairs)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    enum at_rc rc = at_buf_append_str(&text, path);
    const char *before = strchr(path, '?') != NULL ? "&" : "?";
    for (; pairs[0] != NULL && rc == AT_OK; pairs += 2) {
        if (pairs[1] == NULL) {
            continue;
        }
        rc = at_buf_printf(&text, "%s%s=", before, pairs[0]);
        if (rc == AT_OK) {
            rc = at_client_escape(pairs[1], &text);
        }
        before = "&";
    }
    return rc == AT_OK ? at_arena_strdup(cli->arena, text.data) : "";
}

enum at_rc cli_kind(const char *word, const struct at_model_kind **ret, struct at_err *err)
{
    /* "deployments.atoll.dev" is the full name that kubectl prints. */
    char bare[64];
    snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word, "."), word);
    *ret = at_model_kind_by_any_name(bare);
    /* What runs is shown to other clients as Pods: people used to them mean instances. */
    if (*ret == NULL &&
        (strcmp(bare, "pod") == 0 || strcmp(bare, "pods") == 0 || strcmp(bare, "po") == 0)) {
        *ret = &AT_KIND_INSTANCE;
    }
    if (*ret != NULL) {
        return AT_OK;
    }
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    const char *names[64];
    size_t n = 0;
    for (size_t i = 0; i < count && n < AT_ARRAY_LEN(names); i++) {
        names[n++] = kinds[i]->plural;
    }
    const char *near = cli_nearest(bare, names, n);
    return at_err_set(err, AT_BAD_REQUEST, "unknown kind \"%s\"%s%s; see atoll api-resources", word,
                      near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

struct targets {
    struct cli_target *items;
    size_t n;
    struct at_err *err;
};

static enum at_rc target_add(struct targets *t, const struct at_model_kind *kind, const char *name)
{
    if (t->n == TARGETS_MAX) {
        return at_err_set(t->err, AT_BAD_REQUEST, "more than %d objects are named", TARGETS_MAX);
    }
    if (name != NULL && name[0] == '\0') {
        return at_err_set(t->err, AT_BAD_REQUEST, "a name is empty");
    }
    t->items[t->n++] = (struct cli_target){kind, name};
    return AT_OK;
}

static enum at_rc add_category(struct targets *t, const char *word, bool *ret_any)
{
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    for (size_t i = 0; i < count; i++) {
        for (const char *const *c = kinds[i]->categories; c != NULL && *c != NULL; c++) {
            if (strcmp(*c, word) == 0) {
                *ret_any = true;
                enum at_rc rc = target_add(t, kinds[i], NULL);
                if (rc != AT_OK) {
                    return rc;
                }
                break;
            }
        }
    }
    return AT_OK;
}

/* KIND,KIND without names. */
static enum at_rc add_kinds(const struct cli *cli, struct targets *t, const char *words)
{
    struct at_str rest = at_str_of(words);
    while (rest.len != 0) {
        struct at_str part = at_str_cut(&rest, ',');
        const char *word = at_arena_strndup(cli->arena, part.ptr, part.len);
        bool any = false;
        enum at_rc rc = add_category(t, word, &any);
        if (rc == AT_OK && !any) {
            const struct at_model_kind *kind;
            rc = cli_kind(word, &kind, t->err);
            rc = rc == AT_OK ? target_add(t, kind, NULL) : rc;
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

static enum at_rc add_slashed(const struct cli *cli, struct targets *t, const char *word)
{
    const char *slash = strchr(word, '/');
    if (slash == NULL) {
        return at_err_set(t->err, AT_BAD_REQUEST, "\"%s\" is not KIND/NAME like the others", word);
    }
    const struct at_model_kind *kind;
    const char *kind_word = at_arena_strndup(cli->arena, word, (size_t)(slash - word));
    enum at_rc rc = cli_kind(kind_word, &kind, t->err);
    return rc == AT_OK ? target_add(t, kind, slash + 1) : rc;
}

enum at_rc cli_targets(const struct cli *cli, const char *const *args, size_t n_args,
                       bool names_needed, struct cli_target **ret, size_t *ret_n,
                       struct at_err *err)
{
    struct targets t = {.err = err};
    t.items = at_arena_alloc(cli->arena, TARGETS_MAX * sizeof *t.items);
    enum at_rc rc = AT_OK;
    if (n_args == 0) {
        return at_err_set(err, AT_BAD_REQUEST, "say which objects: atoll %s %s", cli->verb->name,
                          cli->verb->synopsis);
    }
    if (strchr(args[0], '/') != NULL) {
        for (size_t i = 0; i < n_args && rc == AT_OK; i++) {
            rc = add_slashed(cli, &t, args[i]);
        }
    } else if (n_args == 1 && !names_needed) {
        rc = add_kinds(cli, &t, args[0]);
    } else if (n_args == 1) {
        rc = at_err_set(err, AT_BAD_REQUEST, "which %s? atoll %s %s", args[0], cli->verb->name,
                        cli->verb->synopsis);
    } else {
        const struct at_model_kind *kind;
        rc = cli_kind(args[0], &kind, err);
        for (size_t i = 1; i < n_args && rc == AT_OK; i++) {
            rc = target_add(&t, kind, args[i]);
        }
    }
    *ret = t.items;
    *ret_n = t.n;
    return rc;
}

const char *cli_ref(const struct cli *cli, const struct at_model_kind *kind, const char *name)
{
    return at_arena_printf(cli->arena, "%s%s%s/%s", kind->singular,
                           kind->group[0] != '\0' ? "." : "", kind->group, name);
}

enum at_rc cli_read(const struct cli *cli, const char *path, size_t max_bytes, struct at_buf *out,
                    struct at_err *err)
{
    if (strcmp(path, "-") != 0) {
        return at_file_read(path, max_bytes, out, err);
    }
    out->max = max_bytes;
    char piece[4096];
    size_t got;
    while ((got = fread(piece, 1, sizeof piece, cli->env->in)) != 0) {
        if (at_buf_append(out, piece, got) != AT_OK) {
            return at_err_set(err, AT_TOO_LARGE, "standard input is over %zu bytes", max_bytes);
        }
    }
    return AT_OK;
}

const char *cli_beside_kubeconfig(const struct cli *cli, const char *file)
{
    AT_CLEANUP(at_cleanup_free)
    char *config = at_client_kubeconfig_path(cli_value(cli, OPT_KUBECONFIG, NULL));
    const char *slash = strrchr(config, '/');
    AT_CLEANUP(at_cleanup_free)
    char *path = slash != NULL ? at_asprintf("%.*s/%s", (int)(slash - config), config, file)
                               : at_strdup(file);
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    if (!at_file_exists(path) || at_file_read(path, SIDE_FILE_BYTES_MAX, &text, NULL) != AT_OK ||
        text.len == 0) {
        return NULL;
    }
    return at_arena_strndup(cli->arena, text.data, strcspn(text.data, "\r\n"));
}

enum at_rc cli_list(struct cli *cli, const struct at_model_kind *kind, const char *selector,
                    json_t **ret_items, struct at_err *err)
{
    json_t *items = json_array();
    const char *next = NULL;
    do {
        json_t *page = NULL;
        const char *pairs[] = {"limit",
                               "500",
                               "continue",
                               next,
                               "labelSelector",
                               selector,
                               "fieldSelector",
                               cli_value(cli, OPT_FIELD_SELECTOR, NULL),
                               NULL};
        enum at_rc rc =
            cli_call(cli, AT_HTTP_GET, cli_query(cli, cli_path(cli, kind, NULL, NULL), pairs), NULL,
                     NULL, NULL, &page, err);
        if (rc != AT_OK) {
            json_decref(items);
            return rc;
        }
        json_array_extend(items, json_object_get(page, "items"));
        next = at_json_str_at(page, "metadata.continue", "");
        next = next[0] != '\0' ? at_arena_strdup(cli->arena, next) : NULL;
        json_decref(page);
    } while (next != NULL);
    *ret_items = items;
    return AT_OK;
}

enum at_rc cli_expand(struct cli *cli, struct cli_target **targets, size_t *n, struct at_err *err)
{
    struct cli_target *named = *targets;
    struct cli_target *all = at_arena_alloc(cli->arena, TARGETS_MAX * sizeof *all);
    const char *selector = cli_value(cli, OPT_SELECTOR, NULL);
    size_t count = 0;
    for (size_t i = 0; i < *n; i++) {
        if (named[i].name != NULL) {
            all[count++] = named[i];
            continue;
        }
        if (selector == NULL && !cli_flag(cli, OPT_ALL)) {
            return at_err_set(err, AT_BAD_REQUEST, "which %s? Give names, --selector or --all",
                              named[i].kind->plural);
        }
        json_t *items = NULL;
        enum at_rc rc = cli_list(cli, named[i].kind, selector, &items, err);
        if (rc != AT_OK) {
            return rc;
        }
        for (size_t at = 0; at < json_array_size(items) && count < TARGETS_MAX; at++) {
            const char *name = at_json_str_at(json_array_get(items, at), "metadata.name", "");
            all[count++] = (struct cli_target){named[i].kind, at_arena_strdup(cli->arena, name)};
        }
        json_decref(items);
    }
    *targets = all;
    *n = count;
    return AT_OK;
}

int64_t cli_milli(const json_t *value)
{
    int64_t milli = 0;
    if (json_is_number(value)) {
        return (int64_t)(json_number_value(value) * 1000);
    }
    if (!json_is_string(value) || at_quantity_milli(json_string_value(value), &milli, NULL)) {
        return 0;
    }
    return milli;
}
