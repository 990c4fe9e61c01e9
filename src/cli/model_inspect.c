/* What a package or a folder is. */
#include "cli/model_priv.h"
#include "core/str.h"
#include "sys/file.h"

#include <string.h>

/* model.yaml of a package, as JSON; NULL when it has none. */
static enum at_rc description(struct model_work *w, struct at_pkg_registry *registry,
                              const struct at_pkg_manifest *m, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    struct at_pkg_model model = {0};
    const struct at_pkg_descriptor *layer = NULL;
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < m->n_layers && layer == NULL; i++) {
        const char *path = at_pkg_layer_path(&m->layers[i]);
        layer = at_streq(path, AT_PKG_YAML) ? &m->layers[i] : NULL;
    }
    if (layer == NULL) {
        return AT_OK;
    }
    if (layer->bytes > (int64_t)PKG_YAML_BYTES_MAX) {
        return at_err_set(err, AT_TOO_LARGE, AT_PKG_YAML " is too large");
    }
    if (registry != NULL) {
        struct at_pkg_session *s = at_pkg_session_new(registry);
        rc = at_pkg_blob_get(s, layer, w->store, err);
        at_pkg_session_free(s);
    }
    rc = rc != AT_OK ? rc
                     : at_pkg_store_read(w->store, layer->digest, PKG_YAML_BYTES_MAX, &text, err);
    rc = rc != AT_OK
             ? rc
             : at_pkg_model_parse(text.data != NULL ? text.data : "", text.len, &model, err);
    if (rc == AT_OK) {
        *ret = json_incref(model.json);
    }
    at_pkg_model_done(&model);
    return rc;
}

static enum at_rc manifest_of(struct model_work *w, const char *text,
                              struct at_pkg_registry **registry, struct at_buf *out,
                              char digest[AT_PKG_DIGEST_BYTES], struct at_err *err)
{
    struct at_pkg_ref ref;
    bool asked = strncmp(text, "oci://", 6) == 0;
    enum at_rc rc = asked ? AT_NOT_FOUND : model_find(w, text, digest, err);
    if (rc == AT_OK) {
        return at_pkg_store_read(w->store, digest, PKG_DOCUMENT_BYTES_MAX, out, err);
    }
    struct at_err why = {0};
    if (at_pkg_ref_parse(text, &ref, &why) != AT_OK) {
        if (asked) {
            *err = why;
            rc = why.rc;
        }
        return rc;
    }
    if (ref.place != AT_PKG_REGISTRY) {
        rc = model_fetch(w, text, NULL, digest, err);
        return rc != AT_OK ? rc
                           : at_pkg_store_read(w->store, digest, PKG_DOCUMENT_BYTES_MAX, out, err);
    }
    rc = model_registry(w, &ref, false, registry, err);
    return rc != AT_OK ? rc : at_pkg_resolve(*registry, at_pkg_ref_wanted(&ref), out, digest, err);
}

static json_t *layers_json(const struct at_pkg_manifest *m, int64_t *sum)
{
    json_t *list = json_array();
    for (size_t i = 0; i < m->n_layers; i++) {
        const struct at_pkg_descriptor *d = &m->layers[i];
        const char *path = at_pkg_layer_path(d);
        json_t *one = json_pack("{s:s,s:s,s:I}", "mediaType", d->media_type, "digest", d->digest,
                                "size", (json_int_t)d->bytes);
        if (path != NULL) {
            json_object_set_new(one, "path", json_string(path));
        }
        json_array_append_new(list, one);
        *sum += d->bytes;
    }
    return list;
}

static void row(const struct cli *cli, const char *name, const char *text)
{
    if (text[0] != '\0') {
        fprintf(cli->env->out, "%-12s ", name);
        cli_print_text(cli->env->out, text);
        fputc('\n', cli->env->out);
    }
}

static void tensors(const struct cli *cli, const json_t *model, const char *which)
{
    const json_t *list = json_object_get(json_object_get(model, "signature"), which);
    size_t i, k;
    const json_t *entry, *dim;
    json_array_foreach(list, i, entry)
    {
        const char *shape = "";
        json_array_foreach(json_object_get(entry, "shape"), k, dim)
        {
            shape = at_arena_printf(cli->arena, "%s%s%lld", shape, k > 0 ? "," : "",
                                    (long long)json_integer_value(dim));
        }
        row(cli, i == 0 ? which : "",
            at_arena_printf(cli->arena, "%s %s [%s]", at_json_str_at(entry, "name", ""),
                            at_json_str_at(entry, "datatype", ""), shape));
    }
}

static void print(const struct cli *cli, const json_t *all)
{
    const json_t *model = json_object_get(all, "model");
    static const char *const FIELDS[] = {"name",   "version", "format",  "model",
                                         "runner", "licence", "license", "dataClass"};
    size_t i;
    const json_t *layer;
    for (i = 0; i < AT_ARRAY_LEN(FIELDS); i++) {
        row(cli, FIELDS[i], at_json_str_at(model, FIELDS[i], ""));
    }
    tensors(cli, model, "inputs");
    tensors(cli, model, "outputs");
    row(cli, "digest", at_json_str_at(all, "digest", ""));
    row(cli, "type", at_json_str_at(all, "artifactType", ""));
    if (json_object_get(all, "size") != NULL) {
        row(cli, "size", model_bytes(cli, at_json_int_at(all, "size", 0)));
    }
    json_array_foreach(json_object_get(all, "layers"), i, layer)
    {
        row(cli, i == 0 ? "layers" : "",
            at_arena_printf(cli->arena, "%.19s  %9s  %s", at_json_str_at(layer, "digest", ""),
                            model_bytes(cli, at_json_int_at(layer, "size", 0)),
                            at_json_str_at(layer, "path", at_json_str_at(layer, "mediaType", ""))));
    }
}

static enum at_rc show(const struct cli *cli, const json_t *all, struct at_err *err)
{
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc != AT_OK || (format != CLI_TABLE && format != CLI_WIDE && format != CLI_NAME)) {
        return rc != AT_OK ? rc : cli_print_value(cli, format, all, err);
    }
    print(cli, all);
    return AT_OK;
}

static enum at_rc inspect_folder(struct cli *cli, const char *folder, struct at_err *err)
{
    struct at_pkg_model m = {0};
    enum at_rc rc = at_pkg_model_read(folder, &m, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *all = json_pack("{s:O}", "model", m.json);
    rc = show(cli, all, err);
    at_pkg_model_done(&m);
    return rc;
}

enum at_rc model_inspect(struct cli *cli, struct at_err *err)
{
    struct model_work w;
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {.max = PKG_DOCUMENT_BYTES_MAX};
    struct at_pkg_registry *registry = NULL;
    struct at_pkg_manifest m = {0};
    AT_CLEANUP(at_cleanup_json) json_t *all = json_object();
    json_t *model = NULL;
    char digest[AT_PKG_DIGEST_BYTES];
    int64_t sum = 0;
    if (model_is_folder(cli->args[1])) {
        return inspect_folder(cli, cli->args[1], err);
    }
    enum at_rc rc = model_open(cli, &w, err);
    if (rc != AT_OK) {
        return rc;
    }
    rc = manifest_of(&w, cli->args[1], &registry, &text, digest, err);
    rc = rc != AT_OK ? rc : at_pkg_manifest_parse(text.data, text.len, cli->arena, &m, err);
    rc = rc != AT_OK ? rc : description(&w, registry, &m, &model, err);
    if (rc == AT_OK) {
        const char *type = m.artifact_type != NULL ? m.artifact_type : m.config.media_type;
        json_object_set_new(all, "name", json_string(cli->args[1]));
        json_object_set_new(all, "digest", json_string(digest));
        json_object_set_new(all, "artifactType", json_string(type));
        json_object_set_new(all, "layers", layers_json(&m, &sum));
        json_object_set_new(all, "size", json_integer(sum));
        if (json_object_get(m.json, "annotations") != NULL) {
            json_object_set(all, "annotations", json_object_get(m.json, "annotations"));
        }
        if (model != NULL) {
            json_object_set(all, "model", model);
        }
        rc = show(cli, all, err);
    }
    json_decref(model);
    at_pkg_manifest_done(&m);
    at_pkg_registry_free(registry);
    model_close(&w);
    return rc;
}
