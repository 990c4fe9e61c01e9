/* explain: the kinds' fields, from the OpenAPI schemas that are built into the program. */
#include "cli/explain.h"
#include "core/str.h"

#include <string.h>

#define DEPTH_MAX 12

/* Follows $ref, also the one inside allOf that carries a description of its own. */
static const json_t *resolve(const json_t *all, const json_t *schema)
{
    for (int hops = 0; hops < DEPTH_MAX && schema != NULL; hops++) {
        const char *ref = at_json_str_at(schema, "$ref", NULL);
        const json_t *all_of = json_object_get(schema, "allOf");
        if (ref == NULL && json_array_size(all_of) != 0) {
            ref = at_json_str_at(json_array_get(all_of, 0), "$ref", NULL);
        }
        if (ref == NULL) {
            return schema;
        }
        const char *slash = strrchr(ref, '/');
        schema = json_object_get(all, slash != NULL ? slash + 1 : ref);
    }
    return schema;
}

/* What a path steps into: an array's items, a map's values, or the object itself. */
static const json_t *element(const json_t *all, const json_t *schema)
{
    schema = resolve(all, schema);
    for (int hops = 0; hops < DEPTH_MAX && schema != NULL; hops++) {
        const json_t *items = json_object_get(schema, "items");
        const json_t *values = json_object_get(schema, "additionalProperties");
        if (items != NULL) {
            schema = resolve(all, items);
        } else if (json_is_object(values) && json_object_get(schema, "properties") == NULL) {
            schema = resolve(all, values);
        } else {
            break;
        }
    }
    return schema;
}

static const char *type_text(const struct cli *cli, const json_t *all, const json_t *schema)
{
    const json_t *real = resolve(all, schema);
    const char *type = at_json_str_at(real, "type", "object");
    const json_t *values = json_object_get(real, "additionalProperties");
    if (strcmp(type, "array") == 0) {
        return at_arena_printf(cli->arena, "[]%s",
                               type_text(cli, all, json_object_get(real, "items")));
    }
    if (json_is_object(values)) {
        return at_arena_printf(cli->arena, "map[string]%s", type_text(cli, all, values));
    }
    return type;
}

static void put_wrapped(FILE *out, const char *text, int indent)
{
    size_t width = 88 - (size_t)indent;
    while (*text != '\0') {
        size_t len = strlen(text);
        if (len > width) {
            len = width;
            while (len != 0 && text[len] != ' ') {
                len--;
            }
            len = len != 0 ? len : strcspn(text, " ");
        }
        fprintf(out, "%*s%.*s\n", indent, "", (int)len, text);
        text += len;
        text += strspn(text, " ");
    }
}

static bool is_required(const json_t *schema, const char *name)
{
    size_t at;
    json_t *item;
    json_array_foreach(json_object_get(schema, "required"), at, item)
    {
        if (strcmp(json_string_value(item), name) == 0) {
            return true;
        }
    }
    return false;
}

static void put_limits(FILE *out, const json_t *schema, int indent)
{
    static const char *const WORDS[] = {"enum",      "default",   "minimum",  "maximum",
                                        "minLength", "maxLength", "maxItems", "pattern"};
    for (size_t i = 0; i < AT_ARRAY_LEN(WORDS); i++) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
        const json_t *value = json_object_get(schema, WORDS[i]);
        if (value != NULL && at_json_dump(value, &text) == AT_OK) {
            fprintf(out, "%*s%s: %s\n", indent, "", WORDS[i], text.data);
        }
    }
}

static void put_fields(const struct cli *cli, const json_t *all, const json_t *schema, int depth)
{
    FILE *out = cli->env->out;
    bool recursive = cli_flag(cli, OPT_RECURSIVE);
    int indent = 2 + 2 * depth;
    const char *name;
    json_t *field;
    json_object_foreach(json_object_get(schema, "properties"), name, field)
    {
        const json_t *real = resolve(all, field);
        const char *about = at_json_str_at(field, "description", NULL);
        fprintf(out, "%*s%s  <%s>%s\n", indent, "", name, type_text(cli, all, field),
                is_required(schema, name) ? "  -required-" : "");
        if (recursive && depth < DEPTH_MAX) {
            const json_t *inner = element(all, field);
            put_fields(cli, all, inner, depth + 1);
        } else if (!recursive) {
            about = about != NULL ? about : at_json_str_at(real, "description", "");
            put_wrapped(out, about, indent + 4);
            put_limits(out, real, indent + 4);
            fputc('\n', out);
        }
    }
}

static const char *nearest_in(const json_t *schema, const char *name)
{
    const char *names[256];
    size_t n = 0;
    const char *key;
    json_t *field;
    json_object_foreach(json_object_get(schema, "properties"), key, field)
    {
        if (n < AT_ARRAY_LEN(names)) {
            names[n++] = key;
        }
    }
    return cli_nearest(name, names, n);
}

static enum at_rc unknown_field(const json_t *schema, const char *path, const char *name,
                                struct at_err *err)
{
    const char *near = nearest_in(schema, name);
    return at_err_set(err, AT_NOT_FOUND, "there is no field \"%s\" in %s%s%s", name, path,
                      near != NULL ? ", did you mean " : "", near != NULL ? near : "");
}

const char *cli_nearest_field(const struct cli *cli, const struct at_model_kind *kind,
                              const char *path)
{
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    const char *text = kind->openapi_schema_json;
    if (at_json_parse(text, strlen(text), &all, NULL) != AT_OK) {
        all = NULL;
        return NULL;
    }
    const json_t *owner = element(all, json_object_get(all, kind->openapi_name));
    struct at_str rest = at_str_of(path);
    for (;;) {
        struct at_str part = at_str_cut(&rest, '.');
        const char *open = part.len != 0 ? memchr(part.ptr, '[', part.len) : NULL;
        size_t len = open != NULL ? (size_t)(open - part.ptr) : part.len;
        const char *name = at_arena_strndup(cli->arena, part.ptr, len);
        if (rest.len == 0) {
            const char *near = nearest_in(owner, name);
            return near != NULL ? at_arena_strdup(cli->arena, near) : NULL;
        }
        owner = element(all, json_object_get(json_object_get(owner, "properties"), name));
    }
}

static enum at_rc explain_path(struct cli *cli, const struct at_model_kind *kind,
                               struct at_str rest, const json_t *all, struct at_err *err)
{
    FILE *out = cli->env->out;
    const json_t *field = json_object_get(all, kind->openapi_name);
    const json_t *owner = resolve(all, field);
    const char *path = kind->singular;
    const char *name = NULL;
    while (rest.len != 0) {
        struct at_str part = at_str_cut(&rest, '.');
        owner = element(all, field);
        name = at_arena_strndup(cli->arena, part.ptr, part.len);
        field = json_object_get(json_object_get(owner, "properties"), name);
        if (field == NULL) {
            return unknown_field(owner, path, name, err);
        }
        path = at_arena_printf(cli->arena, "%s.%s", path, name);
    }
    const json_t *inner = element(all, field);
    const char *about = at_json_str_at(field, "description", NULL);
    about = about != NULL ? about : at_json_str_at(resolve(all, field), "description", "");
    fprintf(out, "KIND:     %s\nVERSION:  %s\n\n", kind->kind, kind->api_version);
    if (name != NULL) {
        fprintf(out, "FIELD: %s <%s>%s\n\n", name, type_text(cli, all, field),
                is_required(owner, name) ? " -required-" : "");
    }
    fputs("DESCRIPTION:\n", out);
    put_wrapped(out, name == NULL ? kind->description : about, 4);
    put_limits(out, resolve(all, field), 4);
    if (json_object_size(json_object_get(inner, "properties")) != 0) {
        fputs("\nFIELDS:\n", out);
        put_fields(cli, all, inner, 0);
    }
    return AT_OK;
}

enum at_rc cli_explain(struct cli *cli, struct at_err *err)
{
    if (strcmp(cli->args[0], "placement") == 0) {
        return cli_explain_placement(cli, err);
    }
    if (cli->n_args > 1) {
        return at_err_set(err, AT_BAD_REQUEST,
                          "one KIND[.FIELD...] at a time; or: explain placement KIND/NAME");
    }
    const struct at_model_kind *kind = NULL;
    struct at_str rest = at_str_of(cli->args[0]);
    struct at_str word = at_str_cut(&rest, '.');
    enum at_rc rc = cli_kind(at_arena_strndup(cli->arena, word.ptr, word.len), &kind, err);
    if (rc != AT_OK) {
        return rc;
    }
    AT_CLEANUP(at_cleanup_json) json_t *all = NULL;
    const char *text = kind->openapi_schema_json;
    rc = at_json_parse(text, strlen(text), &all, err);
    if (rc != AT_OK) {
        all = NULL;
        return at_err_wrap(err, AT_INTERNAL, "the built-in schema of %s", kind->kind);
    }
    return explain_path(cli, kind, rest, all, err);
}
