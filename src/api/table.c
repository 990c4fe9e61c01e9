/* meta.k8s.io/v1 Tables: what kubectl prints. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <string.h>

static bool str_has(struct at_str s, const char *needle)
{
    return s.ptr != NULL && memmem(s.ptr, s.len, needle, strlen(needle)) != NULL;
}

/* One choice of an Accept header asks for as=WHAT in version v1. */
static bool wants(struct at_str one, const char *what)
{
    bool as = false;
    bool v1 = false;
    while (one.len > 0) {
        struct at_str part = at_str_trim(at_str_cut(&one, ';'));
        as = as || (at_str_starts(part, "as=") &&
                    at_str_eq((struct at_str){part.ptr + 3, part.len - 3}, what));
        v1 = v1 || at_str_eq(part, "v=v1");
    }
    return as && v1;
}

static enum api_table table_mode(struct api_req *req)
{
    const char *include = api_query(req, "includeObject");
    if (at_streq(include, "None")) {
        return API_TABLE_OBJECT_NONE;
    }
    return at_streq(include, "Object") ? API_TABLE_FULL : API_TABLE_METADATA;
}

void api_table_wanted(struct api_req *req, struct at_str accept)
{
    req->table = API_TABLE_NONE;
    if (accept.ptr == NULL || req->route.target != API_RESOURCE) {
        return;
    }
    struct at_str rest = accept;
    while (rest.len > 0) {
        struct at_str one = at_str_trim(at_str_cut(&rest, ','));
        if (!str_has(one, "application/json") && !str_has(one, "*/*")) {
            continue; /* protobuf and the like: the next choice decides */
        }
        if (wants(one, "Table")) {
            req->table = table_mode(req);
            return;
        }
        req->partial =
            wants(one, "PartialObjectMetadata") || wants(one, "PartialObjectMetadataList");
        if (req->partial || !str_has(one, "as=")) {
            return;
        }
    }
}

bool api_acceptable(struct at_str accept)
{
    static const char *const FORMS[] = {"as=Table", "as=PartialObjectMetadata",
                                        "as=PartialObjectMetadataList", "as=APIGroupDiscoveryList"};
    if (at_str_trim(accept).len == 0) {
        return true;
    }
    while (accept.len > 0) {
        struct at_str one = at_str_cut(&accept, ',');
        struct at_str type = at_str_trim(at_str_cut(&one, ';'));
        bool json = at_str_eq_nocase(type, "application/json") ||
                    at_str_eq_nocase(type, "application/*") || at_str_eq(type, "*/*");
        bool form = true;
        while (one.len > 0) {
            struct at_str part = at_str_trim(at_str_cut(&one, ';'));
            bool known = !at_str_starts(part, "as=");
            for (size_t i = 0; !known && i < AT_ARRAY_LEN(FORMS); i++) {
                known = at_str_eq(part, FORMS[i]);
            }
            form = form && known;
        }
        if (json && form) {
            return true;
        }
    }
    return false;
}

static void column_add(json_t *list, const char *name, const char *type, const char *format,
                       const char *description, int priority)
{
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", name, "type", type,
                                          "format", format, "description", description, "priority",
                                          priority));
}

/* The name comes first, unless the kind puts it elsewhere. */
static bool names_itself(const struct at_model_kind *kind)
{
    for (size_t i = 0; i < kind->n_columns; i++) {
        if (at_streq(kind->columns[i].name, "Name")) {
            return true;
        }
    }
    return false;
}

json_t *api_table_new(const struct at_model_kind *kind, bool with_columns)
{
    json_t *columns = json_array();
    if (with_columns) {
        if (!names_itself(kind)) {
            column_add(columns, "Name", "string", "name", "Name within its namespace.", 0);
        }
        for (size_t i = 0; i < kind->n_columns; i++) {
            const struct at_model_column *c = &kind->columns[i];
            column_add(columns, c->name, at_streq(c->type, "date") ? "string" : c->type,
                       c->format != NULL ? c->format : "",
                       c->description != NULL ? c->description : "", c->priority);
        }
    }
    return json_pack("{s:s, s:s, s:{}, s:o, s:[]}", "kind", "Table", "apiVersion", "meta.k8s.io/v1",
                     "metadata", "columnDefinitions", columns, "rows");
}

static json_t *cell_json(const struct at_model_column *column, const char *text)
{
    int64_t number = 0;
    if (text == NULL) {
        return json_null();
    }
    if (at_streq(column->type, "integer") && at_str_to_i64(at_str_of(text), &number) == AT_OK) {
        return json_integer(number);
    }
    json_t *value = json_string(text);
    return value != NULL ? value : json_null();
}

void api_table_add(json_t *table, struct api_req *req, const json_t *object, enum api_table mode,
                   struct at_arena *arena)
{
    const struct at_model_kind *kind = api_view_kind(req);
    AT_CLEANUP(at_cleanup_json)
    json_t *from = req->route.pod ? api_pod_cells(object) : json_incref((json_t *)object);
    int64_t now = at_sys_wall_ns(req->api->sys);
    json_t *cells = json_array();
    if (!names_itself(kind)) {
        json_array_append_new(cells, json_string(at_json_str_at(object, "metadata.name", "")));
    }
    for (size_t i = 0; i < kind->n_columns; i++) {
        const char *text = at_model_cell(&kind->columns[i], from, now, arena);
        json_array_append_new(cells, cell_json(&kind->columns[i], text));
    }
    json_t *row = json_pack("{s:o}", "cells", cells);
    if (mode == API_TABLE_FULL) {
        json_object_set(row, "object", (json_t *)object);
    } else if (mode == API_TABLE_METADATA) {
        json_object_set_new(row, "object",
                            json_pack("{s:s, s:s, s:O}", "kind", "PartialObjectMetadata",
                                      "apiVersion", "meta.k8s.io/v1", "metadata",
                                      json_object_get(object, "metadata")));
    }
    json_array_append_new(json_object_get(table, "rows"), row);
}
