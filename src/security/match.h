/* Does a rule say that something may be done? One matcher for built-in rules, which are words in a
 * text, and stored ones, which are arrays of JSON. Pure. */
#ifndef AT_SECURITY_MATCH_H
#define AT_SECURITY_MATCH_H

#include "security/security.h"

/* Words of one kind: of a text, parted by blanks ("": one that is empty), or an array of strings;
 * neither: none. */
struct at_words {
    const char *text;
    const json_t *array;
};

/* As in Kubernetes' RBAC: "*" is any word, a star before a slash any resource, a
 * path may end in a star; without names it is for all. */
struct at_rule {
    struct at_words verbs, groups, resources, names, paths;
};
bool at_rule_allows(const struct at_rule *rule, const struct at_access *what);

#endif
