/* The kinds. Types, field tables and constants are generated from schema/ into "model/kinds.gen.h"
 * (included here); decode, encode, default and validate are one interpreter over those tables.
 * Pure. */
#ifndef AT_MODEL_MODEL_H
#define AT_MODEL_MODEL_H

#include "core/arena.h"
#include "core/json.h"
#include "core/units.h"

struct at_model_kv {
    const char *key;
    const char *value;
};
struct at_model_map {
    struct at_model_kv *items;
    size_t n;
};
struct at_model_strings {
    const char **items;
    size_t n;
};
struct at_owner_ref {
    const char *api_version, *kind, *name, *uid;
    bool controller, block_owner_deletion;
};
/* metadata of every object. Absent strings are NULL, absent times 0. */
struct at_meta {
    const char *name, *generate_name, *ns, *uid, *resource_version;
    int64_t generation;
    int64_t creation_wall_ns, deletion_wall_ns;
    int64_t deletion_grace_s;
    struct at_model_map labels, annotations;
    struct at_model_strings finalizers;
    struct {
        struct at_owner_ref *items;
        size_t n;
    } owners;
};

struct at_model_struct; /* field table of one generated struct */

/* How the values at a column's paths (one, or several with commas between) make its cell. */
enum at_model_show {
    AT_MODEL_SHOW_FIRST,  /* the first that is there; of times the age */
    AT_MODEL_SHOW_COUNT,  /* members of the lists and maps together */
    AT_MODEL_SHOW_LIST,   /* all, with commas */
    AT_MODEL_SHOW_SLASH,  /* the first of each path with slashes, then the second ones... */
    AT_MODEL_SHOW_OBJECT, /* kind in lower case and name, with a slash */
    AT_MODEL_SHOW_TIME,   /* the time itself */
};

struct at_model_column {
    const char *name, *type, *format, *path, *description;
    int priority;
    enum at_model_show show;
};

struct at_model_kind {
    const char *group; /* "" for the core group */
    const char *version, *kind, *list_kind, *plural, *singular;
    const char *api_version;        /* "v1" or "atoll.dev/v1" */
    const char *const *short_names; /* NULL-terminated */
    const char *const *categories;
    bool namespaced, has_status, has_scale;
    const char *scale_spec_path, *scale_status_path, *scale_selector_path;
    const struct at_model_column *columns; /* Name is not in it */
    size_t n_columns;
    size_t struct_size;
    const struct at_model_struct *fields; /* spec, status and other top-level fields */
    const char *description;
    const char
        *openapi_schema_json; /* components.schemas of this kind and of what it refers to: an object
                                 {name: schema}; the kind's own is named by openapi_name */
    const char *openapi_name; /* "dev.atoll.v1.Site" */
};

/* All kinds, in a fixed order. */
const struct at_model_kind *const *at_model_kinds(size_t *ret_count);
const struct at_model_kind *at_model_kind_find(const char *group, const char *version,
                                               const char *kind);
const struct at_model_kind *at_model_kind_by_plural(const char *group, const char *version,
                                                    const char *plural);
/* By kind, plural, singular or short name, ASCII case ignored; for the command line. NULL when
 * unknown. */
const struct at_model_kind *at_model_kind_by_any_name(const char *name);
/* "v1" or "atoll.dev/v1". own: static. */
const char *at_model_api_version(const struct at_model_kind *kind);

/* Typed object from JSON. ret points to a struct at_<kind> (kind->struct_size bytes), filled;
 * everything hangs on arena (json_t fields of free-form parts are borrowed from json, which must
 * outlive it). Unknown fields are ignored here: validation reports them. err: AT_INVALID with the
 * field path. */
enum at_rc at_model_decode(const struct at_model_kind *kind, const json_t *json,
                           struct at_arena *arena, void *ret, struct at_err *err) AT_WARN_UNUSED;
/* JSON of a typed object, with apiVersion and kind. err: AT_NOMEM. own:
 * caller decrefs. */
enum at_rc at_model_encode(const struct at_model_kind *kind, const void *object, json_t **ret,
                           struct at_err *err) AT_WARN_UNUSED;
/* JSON of one generated struct, such as a status:
 * at_model_encode_struct(&AT_DEPLOYMENT_STATUS_FIELDS, &status, ...). */
enum at_rc at_model_encode_struct(const struct at_model_struct *fields, const void *value,
                                  json_t **ret, struct at_err *err) AT_WARN_UNUSED;

/* Fill in defaults, in place. Defaults apply inside objects that are present; a `$ref` or object
 * property whose own fields have defaults is not created unless it is required. err: AT_NOMEM. */
enum at_rc at_model_default(const struct at_model_kind *kind, json_t *json,
                            struct at_err *err) AT_WARN_UNUSED;

enum at_model_unknown { AT_MODEL_UNKNOWN_REFUSE, AT_MODEL_UNKNOWN_WARN, AT_MODEL_UNKNOWN_DROP };
struct at_model_cause {
    const char *reason; /* FieldValueInvalid, FieldValueRequired, FieldValueNotSupported,
                           FieldValueTypeInvalid, FieldValueForbidden,
                           FieldValueDuplicate */
    const char *field;  /* "spec.template.spec.resources.cpu" or "spec.links[2].site" */
    const char *message;
};
struct at_model_report {
    struct at_model_cause *causes; /* errors, on arena; at most AT_MODEL_CAUSES_MAX */
    size_t n_causes;
    const char **unknown; /* paths of unknown fields */
    size_t n_unknown;
};
#define AT_MODEL_CAUSES_MAX 50
/* Check an object against its kind: types, required, enums, ranges, patterns, quantities, metadata
 * (name as an RFC 1123 subdomain, labels), then the kind's hand-written rules
 * (src/model/rules_*.c). Unknown fields: listed in report in all modes, removed from json with DROP
 * and WARN. old (may be NULL) is the stored object: immutable fields are compared. err: AT_INVALID
 * report->n_causes > 0; AT_BAD_REQUEST unknown fields under REFUSE ("strict decoding error: unknown
 * field \"spec.x\""). */
enum at_rc at_model_validate(const struct at_model_kind *kind, json_t *json, const json_t *old,
                             enum at_model_unknown unknown, struct at_arena *arena,
                             struct at_model_report *ret_report, struct at_err *err) AT_WARN_UNUSED;

/* Text of a column's cell for an object; now for ages. NULL-safe; integers as decimal. Into arena.
 */
const char *at_model_cell(const struct at_model_column *column, const json_t *object,
                          int64_t now_wall_ns, struct at_arena *arena);

/* Members of an object's spec (named in members, NULL-terminated; others are not looked at): equal
 * ones have equal hashes (model/members.h compares them). The hash also of another part ("status"),
 * and of all (NULL). copy: only those members, on ret (kind->struct_size bytes, all else zero),
 * with everything they point to; values of any JSON are left out. err: AT_NOMEM */
uint64_t at_model_part_hash(const struct at_model_kind *kind, const char *part, const void *object,
                            const char *const *members);
enum at_rc at_model_spec_copy(const struct at_model_kind *kind, const void *object,
                              const char *const *members, struct at_arena *arena,
                              void *ret) AT_WARN_UNUSED;

/* Label selector, Kubernetes grammar: =, ==, !=, in (), notin (), key, !key. err:
 * AT_BAD_REQUEST with the place. own: arena. */
struct at_selector;
enum at_rc at_selector_parse(const char *text, struct at_arena *arena, struct at_selector **ret,
                             struct at_err *err) AT_WARN_UNUSED;
bool at_selector_match_json(const struct at_selector *selector,
                            const json_t *labels); /* labels may be NULL */
bool at_selector_match(const struct at_selector *selector, const struct at_model_map *labels);

/* Small things every reader of objects needs. */
const char *at_model_map_get(const struct at_model_map *map,
                             const char *key); /* NULL when absent */
bool at_meta_has_finalizer(const struct at_meta *meta, const char *finalizer);
const struct at_owner_ref *at_meta_controller(const struct at_meta *meta); /* NULL when none */

/* Amount of a resource as quotas name it: cpu and gpu in thousandths, memory and disk in bytes,
 * everything else in whole units. err: AT_INVALID not a quantity, negative, above the maximum. */
#define AT_MODEL_AMOUNT_MAX (INT64_C(1) << 57)
enum at_rc at_model_amount_parse(const char *resource, const char *text, int64_t *ret,
                                 struct at_err *err) AT_WARN_UNUSED;
/* Back to text into out[AT_UNITS_TEXT_BYTES_MAX]; returns out. */
char *at_model_amount_format(const char *resource, int64_t amount, char *out);

/* Conditions as JSON arrays (status.conditions): set one, keeping lastTransitionTime when status is
 * unchanged. */
void at_condition_set(json_t *object, const char *type, bool status, const char *reason,
                      const char *message, int64_t now_wall_ns);

#include "model/kinds.gen.h"

#endif
