/* Rules of the kinds that say who may come in. */
#include "model/model_priv.h"

#include "core/mem.h"
#include "core/str.h"

#include <string.h>

#define PATH(up_, name_) (&(struct at_model_path){.up = (up_), .name = (name_)})

/* Names of this kind are given by certificates and service accounts alone. */
#define SYSTEM_PREFIX "system:"

void at_model_access_token_check(struct at_model_check *check, const json_t *object,
                                 const json_t *old)
{
    (void)old;
    const json_t *spec = json_object_get(object, "spec");
    const json_t *user = json_object_get(spec, "user");
    if (json_is_string(user) && at_str_starts(at_str_of(json_string_value(user)), SYSTEM_PREFIX)) {
        at_model_invalid_add(check, PATH(NULL, "spec"), "user", user,
                             "must not begin with system:");
    }
    size_t i;
    const json_t *group;
    json_array_foreach(json_object_get(spec, "groups"), i, group)
    {
        size_t len = json_string_length(group);
        if (json_is_string(group) && (len == 0 || len > AT_MODEL_GROUP_BYTES_MAX)) {
            at_model_invalid_add(check, PATH(NULL, "spec"), "groups",
                                 json_object_get(spec, "groups"),
                                 "a group has 1 to 127 characters");
        }
    }
}

void at_model_certificate_revocation_check(struct at_model_check *check, const json_t *object,
                                           const json_t *old)
{
    (void)old;
    static const char *const WAYS[] = {"serial", "fingerprint", "user"};
    const json_t *spec = json_object_get(object, "spec");
    size_t n = 0;
    for (size_t i = 0; i < AT_ARRAY_LEN(WAYS); i++) {
        n += json_object_get(spec, WAYS[i]) != NULL;
    }
    if (n != 1) {
        at_model_cause_add(
            check, NULL, "spec", "FieldValueInvalid",
            "Invalid value: exactly one of serial, fingerprint and user must be set");
    }
    if (json_object_get(spec, "issuedBefore") != NULL && json_object_get(spec, "user") == NULL) {
        at_model_cause_add(check, PATH(NULL, "spec"), "issuedBefore", "FieldValueForbidden",
                           "Forbidden: may only be set together with user");
    }
}
