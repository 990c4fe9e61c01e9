/* What requests select, and in which form they are shown it; a part of api_priv.h. */
#ifndef AT_API_VIEW_PRIV_H
#define AT_API_VIEW_PRIV_H

#include "api/api_priv.h"

/* --- selector.c --- */
struct api_field_term {
    const char *path, *value;
    bool negate;
};
struct api_filter {
    struct at_selector *labels; /* NULL: all */
    struct api_field_term fields[AT_API_FIELD_TERMS_MAX];
    size_t n_fields;
};
enum at_rc api_filter_parse(struct api_req *req, struct api_filter *ret,
                            struct at_err *err) AT_WARN_UNUSED;
bool api_filter_is_empty(const struct api_filter *filter);
bool api_filter_match(const struct api_filter *filter, const json_t *object);
/* False when the stored text cannot match, found without parsing. */
bool api_filter_may_match(const struct api_filter *filter, const char *value, size_t len);
/* Value that the filter demands of a field, NULL when it does not. */
const char *api_filter_demands(const struct api_filter *filter, const char *path);

/* --- pod.c: Instances as core v1 Pods --- */
extern const struct at_model_kind API_POD_KIND;
void api_pod_schemas(json_t *schemas);      /* pod_schema.c: into components.schemas */
json_t *api_pod_of(const json_t *instance); /* own: caller decrefs */
json_t *api_pod_cells(const json_t *pod);   /* what the columns name; own: caller decrefs */

/* --- view.c: in which form a request is shown objects --- */
const struct at_model_kind *api_view_kind(const struct api_req *req);
bool api_view_is_stored(const struct api_req *req); /* as stored: nothing is parsed */
/* own: takes object, caller decrefs the result. */
json_t *api_view_object(const struct api_req *req, json_t *object_take);
enum at_rc api_view_append(const struct api_req *req, const char *value, size_t len, int64_t rev,
                           struct at_buf *out) AT_WARN_UNUSED;
bool api_view_matches(const struct api_req *req, const struct api_filter *filter,
                      const struct at_store_kv *kv);

/* --- table.c --- */
json_t *api_table_new(const struct at_model_kind *kind, bool with_columns);
/* arena: for the cells. */
void api_table_add(json_t *table, struct api_req *req, const json_t *object, enum api_table mode,
                   struct at_arena *arena);
/* Does a client that accepts this take JSON, as what it is? */
bool api_acceptable(struct at_str accept);
/* Sets req->table and req->partial. */
void api_table_wanted(struct api_req *req, struct at_str accept);

#endif
