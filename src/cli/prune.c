/* prune: by labels and the annotation of apply, or by an apply set (KEP 3659), whose parent keeps
 * in its annotations which kinds and namespaces its members are of. */
#include "cli/apply.h"
#include "core/digest.h"
#include "core/str.h"

#include <string.h>

#define SET_ID "applyset.kubernetes.io/id"
#define SET_PART_OF "applyset.kubernetes.io/part-of"
#define SET_TOOLING "applyset.kubernetes.io/tooling"
#define SET_KINDS "applyset.kubernetes.io/contains-group-kinds"
#define SET_NAMESPACES "applyset.kubernetes.io/additional-namespaces"
#define TOOL "atoll/"

void cli_prune_done(struct cli_prune *prune)
{
    for (size_t i = 0; i < prune->n; i++) {
        json_decref(prune->items[i].object);
    }
    at_free(prune->items);
    json_decref(prune->set.kinds);
    json_decref(prune->set.namespaces);
    *prune = (struct cli_prune){0};
}

/* --- the set --- */

static const char *set_id(const struct cli *cli, const struct cli_prune *p)
{
    unsigned char digest[AT_SHA256_BYTES];
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    const char *name = at_arena_printf(cli->arena, "%s.%s.%s.%s", p->set.name, p->set.ns,
                                       p->set.kind->kind, p->set.kind->group);
    at_sha256(name, strlen(name), digest);
    if (at_base64_encode(digest, sizeof digest, &text) != AT_OK) {
        return "";
    }
    char *id = at_arena_printf(cli->arena, "applyset-%s-v1", text.data);
    char *out = id;
    for (const char *c = id; *c != '\0'; c++) {
        if (*c != '=') {
            *out++ = *c == '+' ? '-' : *c == '/' ? '_' : *c;
        }
    }
    *out = '\0';
    return id;
}

static json_t *words_of(const char *text)
{
    json_t *set = json_object();
    struct at_str rest = at_str_of(text);
    while (rest.len != 0) {
        struct at_str one = at_str_trim(at_str_cut(&rest, ','));
        if (one.len != 0) {
            json_object_setn_new(set, one.ptr, one.len, json_true());
        }
    }
    return set;
}

static const char *group_kind(const struct cli *cli, const struct at_model_kind *kind)
{
    return at_arena_printf(cli->arena, kind->group[0] != '\0' ? "%s.%s" : "%s%s", kind->kind,
                           kind->group);
}

static const struct at_model_kind *kind_of(const char *group_kind_text)
{
    size_t len = strcspn(group_kind_text, ".");
    const char *group = group_kind_text[len] == '.' ? group_kind_text + len + 1 : "";
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    for (size_t i = 0; i < count; i++) {
        if (strlen(kinds[i]->kind) == len && strncmp(kinds[i]->kind, group_kind_text, len) == 0 &&
            strcmp(kinds[i]->group, group) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

static const char *joined(const struct cli *cli, const json_t *words)
{
    AT_CLEANUP(at_cleanup_json) json_t *sorted = cli_sorted(words);
    const char *text = "";
    const char *key;
    json_t *value;
    json_object_foreach(sorted, key, value)
    {
        text = at_arena_printf(cli->arena, "%s%s%s", text, text[0] != '\0' ? "," : "", key);
    }
    return text;
}

/* The annotations say what is in the documents; with_old: and what was there before. */
static json_t *parent_annotations(const struct cli *cli, const struct cli_manifests *all,
                                  const struct cli_prune *p, bool with_old)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *kinds = with_old ? json_copy(p->set.kinds) : json_object();
    AT_CLEANUP(at_cleanup_json)
    json_t *namespaces = with_old ? json_copy(p->set.namespaces) : json_object();
    for (size_t i = 0; i < all->n; i++) {
        const struct cli_manifest *m = &all->items[i];
        json_object_set_new(kinds, group_kind(cli, m->kind), json_true());
        if (m->ns != NULL && strcmp(m->ns, p->set.ns) != 0) {
            json_object_set_new(namespaces, m->ns, json_true());
        }
    }
    return json_pack("{s:s, s:s, s:s}", SET_TOOLING, TOOL AT_VERSION, SET_KINDS, joined(cli, kinds),
                     SET_NAMESPACES, joined(cli, namespaces));
}

static enum at_rc parent_write(struct cli *cli, const struct cli_manifests *all,
                               struct cli_prune *p, bool with_old, struct at_err *err)
{
    json_t *annotations = parent_annotations(cli, all, p, with_old);
    AT_CLEANUP(at_cleanup_json)
    json_t *body = json_pack("{s:{s:{s:s}, s:o}}", "metadata", "labels", SET_ID, p->set.id,
                             "annotations", annotations);
    if (p->set.exists) {
        const char *path = cli_path_in(cli, p->set.kind, p->set.ns, p->set.name, NULL);
        return cli_call(cli, AT_HTTP_PATCH, path, "application/merge-patch+json", NULL, body, NULL,
                        err);
    }
    json_object_set_new(body, "apiVersion", json_string(p->set.kind->api_version));
    json_object_set_new(body, "kind", json_string(p->set.kind->kind));
    at_json_set_at(body, "metadata.name", json_string(p->set.name));
    at_json_set_at(body, "metadata.namespace", json_string(p->set.ns));
    const char *path = cli_path_in(cli, p->set.kind, p->set.ns, NULL, NULL);
    enum at_rc rc = cli_call(cli, AT_HTTP_POST, path, NULL, NULL, body, NULL, err);
    p->set.exists = rc == AT_OK;
    return rc;
}

static enum at_rc parent_read(struct cli *cli, struct cli_prune *p, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json) json_t *parent = NULL;
    const char *path = cli_path_in(cli, p->set.kind, p->set.ns, p->set.name, NULL);
    enum at_rc rc = cli_call(cli, AT_HTTP_GET, path, NULL, NULL, NULL, &parent, err);
    p->set.kinds = json_object();
    p->set.namespaces = json_object();
    if (rc != AT_OK) {
        parent = NULL;
        return rc == AT_NOT_FOUND ? AT_OK : rc;
    }
    const json_t *metadata = json_object_get(parent, "metadata");
    const json_t *notes = json_object_get(metadata, "annotations");
    const char *id =
        json_string_value(json_object_get(json_object_get(metadata, "labels"), SET_ID));
    const char *tool = json_string_value(json_object_get(notes, SET_TOOLING));
    const char *ref = cli_ref(cli, p->set.kind, p->set.name);
    if (id == NULL || strcmp(id, p->set.id) != 0) {
        return at_err_set(err, AT_CONFLICT, "%s is there and keeps no apply set; give another name",
                          ref);
    }
    if (tool == NULL || strncmp(tool, TOOL, strlen(TOOL)) != 0) {
        return at_err_set(
            err, AT_CONFLICT,
            "the apply set %s belongs to another tool (%s), which has to go on with it", ref,
            tool != NULL ? tool : "it does not say which");
    }
    json_decref(p->set.kinds);
    json_decref(p->set.namespaces);
    const char *kinds = json_string_value(json_object_get(notes, SET_KINDS));
    const char *namespaces = json_string_value(json_object_get(notes, SET_NAMESPACES));
    p->set.kinds = words_of(kinds != NULL ? kinds : "");
    p->set.namespaces = words_of(namespaces != NULL ? namespaces : "");
    p->set.exists = true;
    return AT_OK;
}

static enum at_rc set_name(struct cli *cli, struct cli_prune *p, struct at_err *err)
{
    const char *text = cli_value(cli, OPT_APPLYSET, "");
    const char *slash = strchr(text, '/');
    const char *word =
        slash != NULL ? at_arena_strndup(cli->arena, text, (size_t)(slash - text)) : "secret";
    p->set.name = slash != NULL ? slash + 1 : text;
    p->set.ns = cli->ns != NULL ? cli->ns : "default";
    enum at_rc rc = cli_kind(word, &p->set.kind, err);
    if (rc != AT_OK) {
        return rc;
    }
    bool keeper =
        strcmp(p->set.kind->kind, "Secret") == 0 || strcmp(p->set.kind->kind, "ConfigMap") == 0;
    if (!keeper || p->set.name[0] == '\0') {
        return at_err_set(err, AT_BAD_REQUEST,
                          "--applyset is NAME, secret/NAME or configmap/NAME, not \"%s\"", text);
    }
    p->set.id = set_id(cli, p);
    return AT_OK;
}

enum at_rc cli_prune_begin(struct cli *cli, struct cli_manifests *all, bool dry,
                           struct cli_prune *p, struct at_err *err)
{
    if (cli->values[OPT_APPLYSET].n == 0) {
        return AT_OK;
    }
    enum at_rc rc = set_name(cli, p, err);
    if (rc == AT_OK) {
        rc = parent_read(cli, p, err);
    }
    for (size_t i = 0; i < all->n && rc == AT_OK; i++) {
        struct cli_manifest *m = &all->items[i];
        json_t *labels = at_json_at(m->object, "metadata.labels");
        const char *had = json_string_value(json_object_get(labels, SET_PART_OF));
        if (had != NULL && strcmp(had, p->set.id) != 0) {
            at_err_set_field(err, AT_INVALID, "metadata.labels", "it belongs to another apply set");
            return cli_manifest_blame(m, err);
        }
        if (!json_is_object(labels)) {
            labels = json_object();
            at_json_set_at(m->object, "metadata.labels", labels);
        }
        json_object_set_new(labels, SET_PART_OF, json_string(p->set.id));
    }
    /* More than is there, never less: what is applied is found again whatever happens. */
    return rc == AT_OK && !dry ? parent_write(cli, all, p, true, err) : rc;
}

/* --- what is left over --- */

static bool is_in(const struct cli_manifests *all, const struct at_model_kind *kind, const char *ns,
                  const char *name)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct cli_manifest *m = &all->items[i];
        if (m->kind == kind && strcmp(m->name, name) == 0 &&
            (m->ns == NULL || strcmp(m->ns, ns) == 0)) {
            return true;
        }
    }
    return false;
}

static void leftover_add(struct cli *cli, struct cli_prune *p, const struct at_model_kind *kind,
                         json_t *item)
{
    if (p->n == p->room) {
        p->room = p->room != 0 ? p->room * 2 : 16;
        p->items = at_realloc(p->items, p->room * sizeof *p->items);
    }
    const char *ns = at_json_str_at(item, "metadata.namespace", NULL);
    p->items[p->n++] = (struct cli_leftover){
        .kind = kind,
        .ns = ns != NULL ? at_arena_strdup(cli->arena, ns) : NULL,
        .name = at_arena_strdup(cli->arena, at_json_str_at(item, "metadata.name", "")),
        .uid = at_arena_strdup(cli->arena, at_json_str_at(item, "metadata.uid", "")),
        .object = json_incref(item)};
}

/* Those of one kind in one namespace (NULL: of the whole cluster). */
static enum at_rc find_in(struct cli *cli, const struct cli_manifests *all, struct cli_prune *p,
                          const struct at_model_kind *kind, const char *ns, struct at_err *err)
{
    json_t *items = NULL;
    bool set = p->set.kind != NULL;
    const char *selector = set ? at_arena_printf(cli->arena, "%s=%s", SET_PART_OF, p->set.id)
                               : cli_value(cli, OPT_SELECTOR, NULL);
    const char *kept = cli->ns;
    cli->ns = ns;
    enum at_rc rc = cli_list(cli, kind, selector, &items, err);
    cli->ns = kept;
    for (size_t i = 0; rc == AT_OK && i < json_array_size(items); i++) {
        json_t *item = json_array_get(items, i);
        const char *name = at_json_str_at(item, "metadata.name", "");
        bool going = at_json_str_at(item, "metadata.deletionTimestamp", NULL) != NULL;
        bool applied =
            json_object_get(at_json_at(item, "metadata.annotations"), CLI_LAST_APPLIED) != NULL;
        if (!going && (set || applied) && !is_in(all, kind, ns != NULL ? ns : "", name)) {
            leftover_add(cli, p, kind, item);
        }
    }
    json_decref(items);
    return rc;
}

static bool is_allowed(const struct cli *cli, const struct at_model_kind *kind)
{
    const struct cli_values *list = &cli->values[OPT_PRUNE_ALLOWLIST];
    const char *group = kind->group[0] != '\0' ? kind->group : "core";
    const char *full = at_arena_printf(cli->arena, "%s/%s/%s", group, kind->version, kind->kind);
    for (size_t i = 0; i < list->n; i++) {
        if (strcmp(list->items[i], full) == 0) {
            return true;
        }
    }
    return list->n == 0;
}

static enum at_rc check_allowlist(const struct cli *cli, struct at_err *err)
{
    const struct cli_values *list = &cli->values[OPT_PRUNE_ALLOWLIST];
    for (size_t i = 0; i < list->n; i++) {
        struct at_str rest = at_str_of(list->items[i]);
        struct at_str group = at_str_cut(&rest, '/');
        struct at_str version = at_str_cut(&rest, '/');
        const char *g =
            at_str_eq(group, "core") ? "" : at_arena_strndup(cli->arena, group.ptr, group.len);
        const char *v = at_arena_strndup(cli->arena, version.ptr, version.len);
        if (rest.len == 0 || at_model_kind_find(g, v, rest.ptr) == NULL) {
            return at_err_set(err, AT_BAD_REQUEST,
                              "--prune-allowlist is GROUP/VERSION/KIND of a kind that there is, "
                              "such as atoll.dev/v1/Deployment or core/v1/ConfigMap, not \"%s\"",
                              list->items[i]);
        }
    }
    return AT_OK;
}

/* Namespaces of the documents, and with a set those that it was in. */
static json_t *namespaces_of(const struct cli *cli, const struct cli_manifests *all,
                             const struct cli_prune *p)
{
    json_t *names = json_object();
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].ns != NULL) {
            json_object_set_new(names, all->items[i].ns, json_true());
        }
    }
    if (p->set.kind != NULL) {
        json_object_update(names, p->set.namespaces);
        json_object_set_new(names, p->set.ns, json_true());
    } else if (cli->values[OPT_NAMESPACE].n != 0 && cli->ns != NULL) {
        json_object_set_new(names, cli->ns, json_true());
    }
    return names;
}

/* A kind that may not be listed and is in no document is left out, and that is said. */
static bool may_be_skipped(struct cli *cli, const struct cli_manifests *all,
                           const struct cli_prune *p, const struct at_model_kind *kind,
                           enum at_rc rc, struct at_err *err)
{
    if (rc != AT_FORBIDDEN || p->set.kind != NULL || cli->values[OPT_PRUNE_ALLOWLIST].n != 0) {
        return false;
    }
    for (size_t i = 0; i < all->n; i++) {
        if (all->items[i].kind == kind) {
            return false;
        }
    }
    fprintf(cli->env->err, "not pruned: %s, which you may not list\n", kind->plural);
    *err = (struct at_err){0};
    return true;
}

static enum at_rc find_kind(struct cli *cli, const struct cli_manifests *all, struct cli_prune *p,
                            const struct at_model_kind *kind, json_t *namespaces,
                            struct at_err *err)
{
    const char *ns;
    json_t *value;
    enum at_rc rc = AT_OK;
    if (!kind->namespaced) {
        /* --namespace says that the rest of the cluster is none of its business. */
        bool skip = p->set.kind == NULL && cli->values[OPT_NAMESPACE].n != 0;
        rc = skip ? AT_OK : find_in(cli, all, p, kind, NULL, err);
        return rc != AT_OK && may_be_skipped(cli, all, p, kind, rc, err) ? AT_OK : rc;
    }
    json_object_foreach(namespaces, ns, value)
    {
        rc = find_in(cli, all, p, kind, ns, err);
        if (rc != AT_OK && may_be_skipped(cli, all, p, kind, rc, err)) {
            return AT_OK;
        }
        if (rc == AT_NOT_FOUND) {
            *err = (struct at_err){0}; /* the namespace is not there (yet) */
            rc = AT_OK;
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return AT_OK;
}

enum at_rc cli_prune_find(struct cli *cli, const struct cli_manifests *all, struct cli_prune *p,
                          struct at_err *err)
{
    size_t count;
    const struct at_model_kind *const *kinds = at_model_kinds(&count);
    enum at_rc rc = check_allowlist(cli, err);
    AT_CLEANUP(at_cleanup_json) json_t *namespaces = namespaces_of(cli, all, p);
    const char *key;
    json_t *value;
    if (rc == AT_OK && p->set.kind != NULL) {
        json_object_foreach(p->set.kinds, key, value)
        {
            const struct at_model_kind *kind = kind_of(key);
            rc = rc == AT_OK && kind != NULL ? find_kind(cli, all, p, kind, namespaces, err) : rc;
        }
        return rc;
    }
    for (size_t i = 0; i < count && rc == AT_OK; i++) {
        if (is_allowed(cli, kinds[i])) {
            rc = find_kind(cli, all, p, kinds[i], namespaces, err);
        }
    }
    return rc;
}

static enum at_rc delete_one(struct cli *cli, const struct cli_leftover *l, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_json)
    json_t *options = json_pack("{s:s, s:{s:s}}", "propagationPolicy", "Background",
                                "preconditions", "uid", l->uid);
    enum at_rc rc = cli_call(cli, AT_HTTP_DELETE, cli_path_in(cli, l->kind, l->ns, l->name, NULL),
                             NULL, NULL, options, NULL, err);
    if (rc == AT_NOT_FOUND) {
        *err = (struct at_err){0};
        return AT_OK;
    }
    return rc;
}

enum at_rc cli_prune_delete(struct cli *cli, struct cli_prune *p, bool dry, enum cli_format format,
                            struct at_err *err)
{
    bool values = format == CLI_JSON || format == CLI_YAML;
    for (size_t i = 0; i < p->n; i++) {
        const struct cli_leftover *l = &p->items[i];
        const char *ref = cli_ref(cli, l->kind, l->name);
        enum at_rc rc = dry ? AT_OK : delete_one(cli, l, err);
        if (rc != AT_OK) {
            return at_err_wrap(err, rc, "prune %s", ref);
        }
        if (!values) {
            fprintf(cli->env->out,
                    format == CLI_NAME ? "%s\n"
                    : dry              ? "%s pruned (server dry run)\n"
                                       : "%s pruned\n",
                    ref);
        }
    }
    return AT_OK;
}

enum at_rc cli_prune_end(struct cli *cli, const struct cli_manifests *all, struct cli_prune *p,
                         struct at_err *err)
{
    return p->set.kind != NULL ? parent_write(cli, all, p, false, err) : AT_OK;
}
