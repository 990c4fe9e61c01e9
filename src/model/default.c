/* Defaults, in place. null means absent everywhere, and is taken out here. */
#include "model/model_priv.h"

static enum at_rc default_struct(const struct at_model_struct *s, json_t *json);

static json_t *default_json(const struct at_model_field *f)
{
    if (f->type == AT_MODEL_T_INT) {
        return json_integer(f->default_int);
    }
    if (f->type == AT_MODEL_T_BOOL) {
        return json_boolean(f->default_int != 0);
    }
    return json_string(f->default_text);
}

/* A required object is made when all it needs has defaults; otherwise "Required value" says more.
 */
static bool may_be_made(const struct at_model_struct *s)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        unsigned flags = s->fields[i].flags;
        if ((flags & AT_MODEL_F_REQUIRED) != 0 && (flags & AT_MODEL_F_DEFAULT) == 0) {
            return false;
        }
    }
    return true;
}

static bool is_object(const struct at_model_field *f)
{
    return f->type == AT_MODEL_T_OBJECT || f->type == AT_MODEL_T_EMBEDDED;
}

static enum at_rc default_absent(const struct at_model_field *f, json_t *json)
{
    json_t *made = NULL;
    if ((f->flags & AT_MODEL_F_DEFAULT) != 0) {
        made = default_json(f);
    } else if (is_object(f) && (f->flags & AT_MODEL_F_REQUIRED) != 0 && may_be_made(f->sub)) {
        made = json_object();
        enum at_rc rc = default_struct(f->sub, made);
        if (rc != AT_OK) {
            json_decref(made);
            return rc;
        }
    } else {
        return AT_OK;
    }
    return json_object_set_new(json, f->name, made) == 0 ? AT_OK : AT_NOMEM;
}

static enum at_rc default_present(const struct at_model_field *f, json_t *v)
{
    if (is_object(f)) {
        return default_struct(f->sub, v);
    }
    enum at_rc rc = AT_OK;
    if (f->type == AT_MODEL_T_LIST) {
        for (size_t i = 0; i < json_array_size(v) && rc == AT_OK; i++) {
            rc = default_struct(f->sub, json_array_get(v, i));
        }
    }
    return rc;
}

/* What has a wrong type is left alone: validation reports it. */
static enum at_rc default_struct(const struct at_model_struct *s, json_t *json)
{
    enum at_rc rc = AT_OK;
    if (!json_is_object(json)) {
        return rc;
    }
    for (size_t i = 0; i < s->n_fields && rc == AT_OK; i++) {
        const struct at_model_field *f = &s->fields[i];
        json_t *v = json_object_get(json, f->name);
        if (json_is_null(v)) {
            json_object_del(json, f->name);
            v = NULL;
        }
        rc = v == NULL ? default_absent(f, json) : default_present(f, v);
    }
    return rc;
}

enum at_rc at_model_default(const struct at_model_kind *kind, json_t *json, struct at_err *err)
{
    at_model_rules_default(kind, json); /* first: a kind may have another default */
    enum at_rc rc = default_struct(kind->fields, json);
    return rc == AT_OK ? AT_OK : at_err_set(err, rc, "out of memory");
}
