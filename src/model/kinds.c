#include "model/model_priv.h"

#include "core/str.h"

#include <string.h>
#include <strings.h>

const struct at_model_kind *const *at_model_kinds(size_t *ret_count)
{
    if (ret_count != NULL) {
        *ret_count = AT_MODEL_KINDS_COUNT;
    }
    return AT_MODEL_KINDS;
}

static bool in_version(const struct at_model_kind *kind, const char *group, const char *version)
{
    return strcmp(kind->group, group) == 0 && strcmp(kind->version, version) == 0;
}

const struct at_model_kind *at_model_kind_find(const char *group, const char *version,
                                               const char *kind)
{
    for (size_t i = 0; i < AT_MODEL_KINDS_COUNT; i++) {
        const struct at_model_kind *k = AT_MODEL_KINDS[i];
        if (in_version(k, group, version) && strcmp(k->kind, kind) == 0) {
            return k;
        }
    }
    return NULL;
}

const struct at_model_kind *at_model_kind_by_plural(const char *group, const char *version,
                                                    const char *plural)
{
    for (size_t i = 0; i < AT_MODEL_KINDS_COUNT; i++) {
        const struct at_model_kind *k = AT_MODEL_KINDS[i];
        if (in_version(k, group, version) && strcmp(k->plural, plural) == 0) {
            return k;
        }
    }
    return NULL;
}

static bool has_name(const struct at_model_kind *kind, const char *name)
{
    if (strcasecmp(kind->kind, name) == 0 || strcasecmp(kind->plural, name) == 0 ||
        strcasecmp(kind->singular, name) == 0) {
        return true;
    }
    for (const char *const *s = kind->short_names; *s != NULL; s++) {
        if (strcasecmp(*s, name) == 0) {
            return true;
        }
    }
    return false;
}

const struct at_model_kind *at_model_kind_by_any_name(const char *name)
{
    for (size_t i = 0; i < AT_MODEL_KINDS_COUNT; i++) {
        if (has_name(AT_MODEL_KINDS[i], name)) {
            return AT_MODEL_KINDS[i];
        }
    }
    return NULL;
}

const char *at_model_api_version(const struct at_model_kind *kind)
{
    return kind->api_version;
}
