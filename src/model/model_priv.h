/* Field tables: what tools/generate-model writes into kinds.gen.c and the interpreter reads. Seen
 * by this folder and its tests only. */
#ifndef AT_MODEL_MODEL_PRIV_H
#define AT_MODEL_MODEL_PRIV_H

#include "model/model.h"

#include <stddef.h>

enum at_model_type {
    AT_MODEL_T_STRING,   /* const char * */
    AT_MODEL_T_INT,      /* int64_t */
    AT_MODEL_T_BOOL,     /* bool */
    AT_MODEL_T_NUMBER,   /* double */
    AT_MODEL_T_UNIT,     /* int64_t, text in JSON */
    AT_MODEL_T_OBJECT,   /* const struct * */
    AT_MODEL_T_EMBEDDED, /* struct; spec and status of a kind */
    AT_MODEL_T_LIST,     /* struct { struct at_x *items; size_t n; } */
    AT_MODEL_T_STRINGS,  /* struct at_model_strings */
    AT_MODEL_T_MAP,      /* struct at_model_map */
    AT_MODEL_T_FREE,     /* json_t * */
};

enum at_model_unit {
    AT_MODEL_UNIT_NONE,
    AT_MODEL_UNIT_CPU,
    AT_MODEL_UNIT_GPU,
    AT_MODEL_UNIT_BYTES,
    AT_MODEL_UNIT_DURATION,
    AT_MODEL_UNIT_TIME,
    AT_MODEL_UNIT_MONEY,
};

#define AT_MODEL_F_REQUIRED 1u
#define AT_MODEL_F_IMMUTABLE 2u
#define AT_MODEL_F_INT_OR_STRING 4u
#define AT_MODEL_F_DEFAULT 8u

enum at_model_list_type {
    AT_MODEL_LIST_ATOMIC, /* one value */
    AT_MODEL_LIST_SET,    /* strings, each once */
    AT_MODEL_LIST_MAP,    /* objects, told apart by list_keys */
};

struct at_model_field {
    const char *name; /* in JSON */
    enum at_model_type type;
    enum at_model_unit unit;
    unsigned flags;
    size_t offset;
    const struct at_model_struct *sub;
    enum at_model_list_type list;
    const char *const *list_keys; /* NULL-terminated */
    const char *const *enums;     /* of the value, or of each item or map value; NULL-terminated */
    const char *pattern;          /* POSIX extended; of the same */
    int64_t min, max;
    size_t min_len, max_len; /* characters of the value, or of each item or map value */
    size_t min_items, max_items;
    const char *default_text;
    int64_t default_int;
};

struct at_model_struct {
    const char *name;
    size_t size;
    const struct at_model_field *fields;
    size_t n_fields;
    bool is_status; /* zeroes are written too, so that a merge patch of a status resets them */
};

/* What a T_LIST member looks like. */
struct at_model_list {
    void *items;
    size_t n;
};

extern const struct at_model_kind *const AT_MODEL_KINDS[];
extern const size_t AT_MODEL_KINDS_COUNT;

/* unit.c: JSON string or number of a unit to the integer, and back. */
enum at_rc at_model_unit_parse(enum at_model_unit unit, const json_t *value, int64_t *ret,
                               struct at_err *err) AT_WARN_UNUSED;
json_t *at_model_unit_json(enum at_model_unit unit, int64_t value);

/* meta.c: metadata both ways. */
enum at_rc at_meta_decode(const json_t *json, struct at_arena *arena, struct at_meta *ret,
                          struct at_err *err) AT_WARN_UNUSED;
json_t *at_meta_encode(const struct at_meta *meta);

/* fields.c: by what an item of a list that is no atomic one is told apart, "k:{...}" or "v:...";
 * false: it has none, or f is atomic. */
bool at_model_item_name(const struct at_model_field *f, const json_t *item, struct at_buf *out);

/* Where validation collects what it finds. */
struct at_model_check {
    struct at_arena *arena;
    struct at_model_report *report;
    bool drop_unknown;
    bool exhausted;  /* the arena is full: the result would be incomplete */
    size_t overflow; /* causes beyond AT_MODEL_CAUSES_MAX */
};

/* A place in an object, chained on the stack; text is only made for errors. */
struct at_model_path {
    const struct at_model_path *up;
    const char *name; /* NULL: an index */
    size_t index;
    bool is_key; /* key of a map: written [name] */
};
const char *at_model_path_text(const struct at_model_path *path, const char *leaf,
                               struct at_arena *arena);

void at_model_cause_add(struct at_model_check *check, const struct at_model_path *path,
                        const char *leaf, const char *reason, const char *fmt, ...) AT_PRINTF(5, 6);
void at_model_unknown_add(struct at_model_check *check, const struct at_model_path *path,
                          const char *leaf);
/* "Invalid value: <value as JSON>: <why>" with reason FieldValueInvalid. */
void at_model_invalid_add(struct at_model_check *check, const struct at_model_path *path,
                          const char *leaf, const json_t *value, const char *fmt, ...)
    AT_PRINTF(5, 6);

/* names.c: names, labels and annotations. NULL when good, otherwise what is wrong. */
const char *at_model_name_problem(const char *name);
const char *at_model_dns_label_problem(const char *name);
const char *at_model_qualified_name_problem(const char *name);
const char *at_model_label_value_problem(const char *value);
void at_model_labels_check(struct at_model_check *check, const struct at_model_path *path,
                           const char *leaf, const json_t *labels);
void at_model_annotations_check(struct at_model_check *check, const struct at_model_path *path,
                                const char *leaf, const json_t *annotations);
void at_model_meta_check(struct at_model_check *check, const struct at_model_kind *kind,
                         json_t *object);

/* rules_placement.c, for rules.c. */
void at_model_placement_check(struct at_model_check *check, const struct at_model_path *path,
                              const json_t *placement);
void at_model_placement_default(json_t *spec);
void at_model_selector_check(struct at_model_check *check, const struct at_model_path *path,
                             const json_t *selector);

/* rules.c: what a schema cannot say. Called only when the schema's own checks found nothing. */
void at_model_rules_check(struct at_model_check *check, const struct at_model_kind *kind,
                          const json_t *object, const json_t *old);
/* rules_capacity.c */
#define AT_MODEL_GROUP_BYTES_MAX 127 /* of a group that someone is in */
void at_model_access_token_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old);
void at_model_certificate_revocation_check(struct at_model_check *check, const json_t *object,
                                           const json_t *old);
void at_model_api_key_check(struct at_model_check *check, const json_t *object, const json_t *old);
void at_model_budget_check(struct at_model_check *check, const json_t *object, const json_t *old);
void at_model_price_check(struct at_model_check *check, const json_t *object); /* a Deployment's */
void at_model_queue_check(struct at_model_check *check, const json_t *object, const json_t *old);
void at_model_reservation_check(struct at_model_check *check, const json_t *object,
                                const json_t *old);
/* rules_rbac.c */
void at_model_quota_check(struct at_model_check *check, const json_t *object, const json_t *old);
void at_model_limit_range_check(struct at_model_check *check, const json_t *object,
                                const json_t *old);
void at_model_network_policy_check(struct at_model_check *check, const json_t *object,
                                   const json_t *old);
void at_model_role_check(struct at_model_check *check, const json_t *object, const json_t *old);
void at_model_cluster_role_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old);
void at_model_role_binding_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old);
void at_model_cluster_role_binding_check(struct at_model_check *check, const json_t *object,
                                         const json_t *old);
void at_model_binding_default(json_t *object);
const char *at_model_rbac_name_problem(const char *name);
void at_model_rules_default(const struct at_model_kind *kind, json_t *object);

#endif
