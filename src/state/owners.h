/* Who owns which field: the entries of metadata.managedFields, as pure functions on them. Every
 * writer through the API owns what it wrote, as in Kubernetes: one entry per manager, operation
 * (Apply or Update) and subresource. An object without entries (controllers make such) is not
 * tracked until the first apply. */
#ifndef AT_STATE_OWNERS_H
#define AT_STATE_OWNERS_H

#include "model/fields.h"
#include "state/object.h"

#define AT_OWNERS_MANAGER_BYTES_MAX 128
/* Entries of operation Update; past it the oldest become one, AT_OWNERS_ANCIENT. */
#define AT_OWNERS_UPDATES_MAX 10
#define AT_OWNERS_ANCIENT "ancient-changes"
#define AT_OWNERS_BEFORE_APPLY "before-first-apply" /* of what was there untracked */
#define AT_OWNERS_CONTROLLERS "atoll-controllers"

struct at_owner {
    const char *manager;
    bool apply;
    const char *subresource; /* "": the object itself */
    enum at_object_part part;
    int64_t now_wall_ns;
};

/* Entries that a client sent: a list of well-formed ones, NULL otherwise. *ret_reset: it is the one
 * empty entry that asks for none to be kept. Borrowed. */
const json_t *at_owners_sent(const json_t *object, bool *ret_reset);

/* Entries after a plain write of object (as it will be stored) over old (NULL: made anew), where
 * base (may be NULL) are those before. NULL: the object is not tracked. own: caller decrefs. */
json_t *at_owners_of_write(const struct at_model_kind *kind, const json_t *base, const json_t *old,
                           const json_t *object, const struct at_owner *who);

/* The entry of who for the fields that differ between old and object; NULL: none does. own: caller
 * decrefs. */
json_t *at_owners_entry(const struct at_model_kind *kind, const json_t *old, const json_t *object,
                        const struct at_owner *who);

struct at_apply {
    struct at_owner who;
    bool force;
    const json_t *old;     /* NULL: nothing is there */
    const json_t *applied; /* of the whole object, or the fields that a subresource stands for */
    /* out, all owned by the caller: */
    json_t *object;    /* what comes of it, not yet defaulted */
    json_t *entries;   /* managedFields then */
    json_t *conflicts; /* [{"manager" in words,"field"}]; not empty: the apply is refused */
};
void at_apply_make(const struct at_model_kind *kind, struct at_apply *apply);
/* The entries, less fields that did not make it into the object. own: caller decrefs. */
json_t *at_owners_of_apply(const struct at_model_kind *kind, const json_t *entries,
                           const json_t *object, const struct at_owner *who);
/* Do they say the same, but for times? */
bool at_owners_same(const json_t *a, const json_t *b);
/* Put entries (may be NULL or empty) into metadata.managedFields. */
void at_owners_put(json_t *object, const json_t *entries);

#endif
