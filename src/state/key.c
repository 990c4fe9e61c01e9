#include "state/state.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define ROOT "/atoll/"
#define CORE_GROUP "core"
#define NO_NAMESPACE "_"

void at_state_key(const struct at_model_kind *kind, const char *ns, const char *name, char *out,
                  size_t out_size)
{
    const char *group = kind->group[0] != '\0' ? kind->group : CORE_GROUP;
    const char *room = kind->namespaced ? ns : NO_NAMESPACE;
    assert(name == NULL || room != NULL);
    int n;
    if (room == NULL || (ns == NULL && name == NULL)) {
        n = snprintf(out, out_size, ROOT "%s/%s/", group, kind->plural);
    } else {
        n = snprintf(out, out_size, ROOT "%s/%s/%s/%s", group, kind->plural, room,
                     name != NULL ? name : "");
    }
    assert(n > 0);
    /* Names and namespaces are at most 253 bytes each (validated), so this cannot be cut. */
    assert((size_t)n < out_size);
}

static const struct at_model_kind *kind_of(const char *group, size_t group_len, const char *plural,
                                           size_t plural_len)
{
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        const char *g = kinds[i]->group[0] != '\0' ? kinds[i]->group : CORE_GROUP;
        if (strlen(g) == group_len && memcmp(g, group, group_len) == 0 &&
            strlen(kinds[i]->plural) == plural_len &&
            memcmp(kinds[i]->plural, plural, plural_len) == 0) {
            return kinds[i];
        }
    }
    return NULL;
}

enum at_rc at_state_key_parse(const char *key, const struct at_model_kind **ret_kind,
                              const char **ret_ns, size_t *ret_ns_len, const char **ret_name)
{
    if (strncmp(key, ROOT, sizeof ROOT - 1) != 0) {
        return AT_NOT_FOUND;
    }
    const char *group = key + sizeof ROOT - 1;
    const char *group_end = strchr(group, '/');
    const char *plural_end = group_end != NULL ? strchr(group_end + 1, '/') : NULL;
    const char *ns_end = plural_end != NULL ? strchr(plural_end + 1, '/') : NULL;
    if (ns_end == NULL || ns_end[1] == '\0') {
        return AT_NOT_FOUND;
    }
    const struct at_model_kind *kind = kind_of(group, (size_t)(group_end - group), group_end + 1,
                                               (size_t)(plural_end - group_end - 1));
    if (kind == NULL) {
        return AT_NOT_FOUND;
    }
    *ret_kind = kind;
    *ret_ns = kind->namespaced ? plural_end + 1 : NULL;
    *ret_ns_len = kind->namespaced ? (size_t)(ns_end - plural_end - 1) : 0;
    *ret_name = ns_end + 1;
    return AT_OK;
}
