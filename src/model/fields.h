/* Sets of an object's fields, for saying who owns which (metadata.managedFields, server-side
 * apply).
 *
 * A set is a JSON tree as in Kubernetes' fieldsV1: {"f:spec":{"f:replicas":{}}}. An element is
 * f:<name> of an object, k:{"name":"x"} of a list with keys, v:"x" of a set of strings. An empty
 * object is a field that is in the set itself, "." says so of one that has others below it. What
 * is granular and what is one value comes from the kind's schema (x-kubernetes-list-type);
 * free-form JSON is granular down to its lists. Identity (apiVersion, kind, name, uid and what
 * else only the server writes) is never in a set.
 *
 * All functions are pure and share subtrees: a set must not be changed in place. NULL is the empty
 * set. own: callers decref what is returned. */
#ifndef AT_MODEL_FIELDS_H
#define AT_MODEL_FIELDS_H

#include "model/model.h"

/* All fields of an object. */
json_t *at_fields_of(const struct at_model_kind *kind, const json_t *object);
/* Fields that object has and old has not, or with another value. old NULL: all. */
json_t *at_fields_changed(const struct at_model_kind *kind, const json_t *old,
                          const json_t *object);
/* What of set is still in object; with old, less what has another value there. What cannot be a
 * field (a set is a client's word) is left out. */
json_t *at_fields_kept(const struct at_model_kind *kind, const json_t *set, const json_t *old,
                       const json_t *object);

json_t *at_fields_union(const json_t *a, const json_t *b);
json_t *at_fields_common(const json_t *a, const json_t *b);
json_t *at_fields_minus(const json_t *a, const json_t *b);
bool at_fields_equal(const json_t *a, const json_t *b);

/* Each field of the set as a path, ".spec.template.spec.env[name=\"A\"].value". */
void at_fields_each(const json_t *set, void (*fn)(void *ctx, const char *path), void *ctx);

/* Put what is applied into object: objects and lists with keys field by field, sets as their
 * union, all else as one value. Null counts as absent. */
void at_fields_merge(const struct at_model_kind *kind, json_t *object, const json_t *applied);
/* Take out of object what is in before and neither in now nor in others. */
void at_fields_drop(const struct at_model_kind *kind, json_t *object, const json_t *before,
                    const json_t *now, const json_t *others);

#endif
