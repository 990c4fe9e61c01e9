/* Some members of a part of a kind, found by name once and then looked at often. */
#ifndef AT_MODEL_MEMBERS_H
#define AT_MODEL_MEMBERS_H

#include "model/model.h"

#define AT_MODEL_MEMBERS_MAX 16

struct at_model_field;

struct at_model_members {
    const struct at_model_field *fields[AT_MODEL_MEMBERS_MAX];
    size_t offsets[AT_MODEL_MEMBERS_MAX]; /* in the object */
    size_t n;
};

/* names: NULL-terminated, at most AT_MODEL_MEMBERS_MAX of them; those that the part has not are
 * left out. */
void at_model_members_init(struct at_model_members *m, const struct at_model_kind *kind,
                           const char *part, const char *const *names);
/* Equal ones have equal hashes; not the hash of at_model_part_hash. */
uint64_t at_model_members_hash(const struct at_model_members *m, const void *object);
bool at_model_members_equal(const struct at_model_members *m, const void *a, const void *b);

#endif
