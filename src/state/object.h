/* What a write means: the rules that Kubernetes clients expect of every object, as pure functions
 * on its JSON. The API and the controllers' planned writes share them, so that both behave alike.
 *
 * An object is stored as the JSON text that at_object_encode makes: apiVersion, kind and metadata
 * come first, and metadata.resourceVersion is never in it, for it is the key's mod_rev. That fixed
 * start lets list and watch answers put the version in without parsing (at_object_splice). */
#ifndef AT_STATE_OBJECT_H
#define AT_STATE_OBJECT_H

#include "core/str.h"
#include "model/model.h"
#include "sys/sys.h"

/* Random version 4 UUID in lower case. cost: one call of sys->random. */
#define AT_OBJECT_UID_BYTES 37 /* with the NUL */
void at_object_uid(const struct at_sys *sys, char out[AT_OBJECT_UID_BYTES]);
/* n letters (with out[n] = NUL) of Kubernetes' alphabet for generated names, without vowels. */
void at_object_suffix(const struct at_sys *sys, char *out, size_t n);
/* When metadata.name is absent and generateName is not: name = generateName + 5 letters, cut so
 * that it stays within 253 bytes. */
void at_object_generate_name(const struct at_sys *sys, json_t *object);

/* Which part of the object the writer may change. */
enum at_object_part {
    AT_OBJECT_MAIN,   /* everything but status (of kinds that have the status subresource) */
    AT_OBJECT_STATUS, /* status only */
    AT_OBJECT_ALL,    /* both: controllers */
};

/* What must happen in the store now. */
enum at_object_outcome {
    AT_OBJECT_UNCHANGED, /* nothing to write: a no-op must not make a revision */
    AT_OBJECT_WRITE,     /* put the object */
    AT_OBJECT_REMOVE,    /* delete the key: it is being deleted and its last finalizer is gone */
};

/* Stamp a new object in place: apiVersion, kind, namespace (ns NULL or a cluster-scoped kind: taken
 * out), uid, creationTimestamp, generation 1. Takes out resourceVersion, deletionTimestamp,
 * deletionGracePeriodSeconds, selfLink, managedFields and, with AT_OBJECT_MAIN, a status of kinds
 * that have the subresource. Call it after validation and defaults.
 * in:   object with a metadata object; now_wall_ns is cut to seconds. */
void at_object_stamp_create(const struct at_model_kind *kind, json_t *object, const char *ns,
                            const char uid[AT_OBJECT_UID_BYTES], int64_t now_wall_ns,
                            enum at_object_part part);

/* Make object (the new version that a client sent or a controller edited; changed in place) ready
 * to replace old. Server-owned fields are taken from old: apiVersion, kind, name, namespace, uid,
 * creationTimestamp, deletionTimestamp, deletionGracePeriodSeconds, generation, managedFields;
 * resourceVersion and selfLink are taken out; MAIN keeps old's status, STATUS keeps everything but
 * status. generation goes up by one when anything outside metadata and status differs.
 * out:  *ret: UNCHANGED when equal to old (order of keys does not matter); REMOVE when old is being
 *       deleted and object has no finalizers left; else WRITE.
 * err:  AT_CONFLICT metadata.uid is given and is another | AT_INVALID a finalizer is added to an
 *       object that is being deleted, field metadata.finalizers.
 * The version that the client named (at_object_rv) is the caller's to compare, before the call. */
enum at_rc at_object_prepare_update(const struct at_model_kind *kind, const json_t *old,
                                    json_t *object, enum at_object_part part,
                                    enum at_object_outcome *ret, struct at_err *err) AT_WARN_UNUSED;

/* DELETE: REMOVE when there are no finalizers; UNCHANGED when it is being deleted already; else
 * sets deletionTimestamp, deletionGracePeriodSeconds 0 and raises generation in object: WRITE. */
enum at_object_outcome at_object_begin_delete(json_t *object, int64_t now_wall_ns);

bool at_object_deleting(const json_t *object);    /* deletionTimestamp is set */
const char *at_object_name(const json_t *object); /* metadata.name, NULL when absent; borrowed */
const char *at_object_ns(const json_t *object);
const char *at_object_uid_of(const json_t *object);
bool at_object_has_finalizer(const json_t *object, const char *finalizer);
/* Put on (no effect when there) and take off. An emptied list goes away. */
void at_object_add_finalizer(json_t *object, const char *finalizer);
void at_object_drop_finalizer(json_t *object, const char *finalizer);

/* metadata.resourceVersion: 0 when absent or empty, -1 when it is no decimal number. */
int64_t at_object_rv(const json_t *object);
void at_object_set_rv(json_t *object, int64_t rev);
void at_object_strip_rv(json_t *object);

/* The stored form, appended to out. err: AT_TOO_LARGE over AT_OBJECT_BYTES_MAX, names the size. */
#define AT_OBJECT_BYTES_MAX ((size_t)1 << 20) /* the store's limit for a value */
enum at_rc at_object_encode(const json_t *object, struct at_buf *out,
                            struct at_err *err) AT_WARN_UNUSED;
/* Stored form plus `"resourceVersion":"<rev>"` as metadata's first field, appended to out; parses
 * nothing. err: AT_CORRUPT value is not in stored form | AT_TOO_LARGE out is full. */
enum at_rc at_object_splice(const char *value, size_t len, int64_t rev,
                            struct at_buf *out) AT_WARN_UNUSED;
/* Offset just after `"metadata":{` of a stored value; 0: it is not in stored form. */
size_t at_object_metadata_start(const char *value, size_t len);
/* A member of metadata, spec or status as it shall be: its JSON text, or no text (ptr NULL) when it
 * shall not be there. */
struct at_object_edit {
    const char *part, *name;
    struct at_str text;
};
#define AT_OBJECT_EDITS_MAX 32
/* Stored form with these members put, replaced or taken out, appended to out; parses nothing.
 * in:   0 <= n <= AT_OBJECT_EDITS_MAX; no member is named twice.
 * err:  AT_CORRUPT value is not in stored form | AT_TOO_LARGE out is full; nothing is appended
 *       then. */
enum at_rc at_object_edit(const char *value, size_t len, const struct at_object_edit *edits,
                          size_t n, struct at_buf *out) AT_WARN_UNUSED;
/* The text of a member in stored form; ptr NULL: it is not there. Borrowed of value. */
struct at_str at_object_member(const char *value, size_t len, const char *part, const char *name);
/* Stored form without metadata.annotations, metadata.managedFields and, of what is bound to a node,
 * status.decision, appended to out; parses nothing. err: as at_object_edit. */
enum at_rc at_object_trim(const char *value, size_t len, struct at_buf *out) AT_WARN_UNUSED;
/* Parse a stored value and put the version in. own: caller decrefs. */
enum at_rc at_object_decode(const char *value, size_t len, int64_t rev, json_t **ret,
                            struct at_err *err) AT_WARN_UNUSED;

#endif
