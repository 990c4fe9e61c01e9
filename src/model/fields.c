/* Sets of fields: see fields.h. One walk over value and schema side by side, for each operation. */
#include "model/fields.h"

#include "core/mem.h"
#include "core/str.h"
#include "model/model_priv.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum shape {
    SHAPE_VALUE,
    SHAPE_TOP,
    SHAPE_META,
    SHAPE_STRUCT,
    SHAPE_MAP,
    SHAPE_FREE,
    SHAPE_KEYED,
    SHAPE_SET
};

/* What the schema says of a place in an object. */
struct node {
    enum shape shape;
    const struct at_model_struct *s; /* of TOP and STRUCT, and of KEYED's items; NULL: free-form */
    const char *const *keys;         /* of KEYED; NULL-terminated */
    bool holder;                     /* others write in it as well: never dropped as a whole */
};

static const char *const UID_KEYS[] = {"uid", NULL};

static bool is_identity(const char *key)
{
    static const char *const IDENTITY[] = {
        "name",          "namespace",         "uid",
        "generateName",  "resourceVersion",   "generation",
        "managedFields", "selfLink",          "creationTimestamp",
        "clusterName",   "deletionTimestamp", "deletionGracePeriodSeconds"};
    for (size_t i = 0; i < AT_ARRAY_LEN(IDENTITY); i++) {
        if (strcmp(key, IDENTITY[i]) == 0) {
            return true;
        }
    }
    return false;
}

static struct node top_of(const struct at_model_kind *kind)
{
    return (struct node){.shape = SHAPE_TOP, .s = kind->fields, .holder = true};
}

static struct node of_field(const struct at_model_field *f)
{
    switch (f->type) {
    case AT_MODEL_T_OBJECT:
        return (struct node){.shape = SHAPE_STRUCT, .s = f->sub};
    case AT_MODEL_T_EMBEDDED:
        return (struct node){.shape = SHAPE_STRUCT, .s = f->sub, .holder = true};
    case AT_MODEL_T_MAP:
        return (struct node){.shape = SHAPE_MAP, .holder = true};
    case AT_MODEL_T_FREE:
        return (struct node){.shape = SHAPE_FREE};
    case AT_MODEL_T_LIST:
    case AT_MODEL_T_STRINGS:
        if (f->list == AT_MODEL_LIST_MAP) {
            return (struct node){
                .shape = SHAPE_KEYED, .s = f->sub, .keys = f->list_keys, .holder = true};
        }
        return (struct node){.shape = f->list == AT_MODEL_LIST_SET ? SHAPE_SET : SHAPE_VALUE,
                             .holder = true};
    case AT_MODEL_T_STRING:
    case AT_MODEL_T_INT:
    case AT_MODEL_T_BOOL:
    case AT_MODEL_T_NUMBER:
    case AT_MODEL_T_UNIT:
        break;
    }
    return (struct node){.shape = SHAPE_VALUE};
}

static struct node meta_child(const char *key)
{
    if (strcmp(key, "labels") == 0 || strcmp(key, "annotations") == 0) {
        return (struct node){.shape = SHAPE_MAP, .holder = true};
    }
    if (strcmp(key, "finalizers") == 0) {
        return (struct node){.shape = SHAPE_SET, .holder = true};
    }
    if (strcmp(key, "ownerReferences") == 0) {
        return (struct node){.shape = SHAPE_KEYED, .keys = UID_KEYS, .holder = true};
    }
    return (struct node){.shape = SHAPE_VALUE};
}

/* What a field of an object is; key without its "f:". */
static struct node child_of(const struct node *n, const char *key)
{
    if (n->shape == SHAPE_META) {
        return meta_child(key);
    }
    if (n->shape == SHAPE_MAP) {
        return (struct node){.shape = SHAPE_VALUE};
    }
    if (n->shape == SHAPE_TOP && strcmp(key, "metadata") == 0) {
        return (struct node){.shape = SHAPE_META, .holder = true};
    }
    for (size_t i = 0; n->s != NULL && i < n->s->n_fields; i++) {
        if (strcmp(n->s->fields[i].name, key) == 0) {
            return of_field(&n->s->fields[i]);
        }
    }
    return (struct node){.shape = SHAPE_FREE};
}

static struct node item_of(const struct node *n)
{
    return (struct node){.shape = n->s != NULL ? SHAPE_STRUCT : SHAPE_FREE, .s = n->s};
}

/* The schema's shape, or VALUE where the value is not of that shape. */
static enum shape shape_of(const struct node *n, const json_t *value)
{
    bool list = n->shape == SHAPE_KEYED || n->shape == SHAPE_SET;
    return (list ? json_is_array(value) : json_is_object(value)) ? n->shape : SHAPE_VALUE;
}

static bool is_list(enum shape shape)
{
    return shape == SHAPE_KEYED || shape == SHAPE_SET;
}

static bool is_stripped(enum shape shape, const char *key)
{
    return (shape == SHAPE_TOP && (strcmp(key, "apiVersion") == 0 || strcmp(key, "kind") == 0)) ||
           (shape == SHAPE_META && is_identity(key));
}

/* --- lists by their items' keys --- */

static const char *default_of(const struct at_model_struct *s, const char *key)
{
    for (size_t i = 0; s != NULL && i < s->n_fields; i++) {
        if (strcmp(s->fields[i].name, key) == 0) {
            return s->fields[i].default_text;
        }
    }
    return NULL;
}

/* "k:{...}" or "v:..."; false: the item has no key. */
static bool item_name(const struct node *n, const json_t *item, struct at_buf *out)
{
    at_buf_clear(out);
    if (n->shape == SHAPE_SET) {
        return json_is_string(item) && at_buf_append(out, "v:", 2) == AT_OK &&
               at_json_dump(item, out) == AT_OK;
    }
    AT_CLEANUP(at_cleanup_json) json_t *key = json_object();
    for (size_t i = 0; n->keys[i] != NULL; i++) {
        const json_t *value = json_object_get(item, n->keys[i]);
        const char *otherwise = default_of(n->s, n->keys[i]);
        if (json_is_string(value)) {
            json_object_set(key, n->keys[i], (json_t *)value);
        } else if (otherwise != NULL) {
            json_object_set_new(key, n->keys[i], json_string(otherwise));
        } else {
            return false;
        }
    }
    return at_buf_append(out, "k:", 2) == AT_OK && at_json_dump_sorted(key, out) == AT_OK;
}

/* Items by their names; of several with one name the first. own: caller decrefs. */
static json_t *index_of(const struct node *n, const json_t *list)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf name = {0};
    json_t *index = json_object();
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)list, i, item)
    {
        if (item_name(n, item, &name) && json_object_get(index, name.data) == NULL) {
            json_object_set(index, name.data, item);
        }
    }
    return index;
}

bool at_model_item_name(const struct at_model_field *f, const json_t *item, struct at_buf *out)
{
    struct node n = of_field(f);
    return item_name(&n, item, out);
}

/* --- one way to walk objects and lists --- */

struct walk {
    struct node node; /* with the value's own shape */
    const json_t *value;
    json_t *index; /* of a list: its items by name */
    void *at;
    struct at_buf name;
};

static void walk_begin(struct walk *w, const struct node *n, const json_t *value)
{
    *w = (struct walk){.node = *n, .value = value};
    w->node.shape = value != NULL ? shape_of(n, value) : SHAPE_VALUE;
    if (is_list(w->node.shape)) {
        w->index = index_of(&w->node, value);
        w->value = w->index;
    }
}

static void walk_end(struct walk *w)
{
    json_decref(w->index);
    at_buf_done(&w->name);
}

static bool is_inner(const struct walk *w)
{
    return w->node.shape != SHAPE_VALUE;
}

/* The next element's name, value and place in the schema; false: no more. */
static bool walk_next(struct walk *w, const char **ret_name, const json_t **ret_value,
                      struct node *ret_node)
{
    do {
        w->at = w->at == NULL ? json_object_iter((json_t *)w->value)
                              : json_object_iter_next((json_t *)w->value, w->at);
        if (w->at == NULL) {
            return false;
        }
    } while (w->index == NULL && is_stripped(w->node.shape, json_object_iter_key(w->at)));
    const char *key = json_object_iter_key(w->at);
    *ret_value = json_object_iter_value(w->at);
    if (w->index != NULL) {
        *ret_name = key;
        *ret_node = w->node.shape == SHAPE_KEYED ? item_of(&w->node) : (struct node){0};
        return true;
    }
    at_buf_clear(&w->name);
    enum at_rc rc = at_buf_append(&w->name, "f:", 2);
    rc = rc == AT_OK ? at_buf_append_str(&w->name, key) : rc;
    assert(rc == AT_OK); /* a key is far below the cap of a buffer */
    *ret_name = w->name.data;
    *ret_node = child_of(&w->node, key);
    return true;
}

/* The element of that name; NULL: none. */
static const json_t *walk_get(const struct walk *w, const char *name)
{
    if (!is_inner(w)) {
        return NULL;
    }
    if (w->index != NULL) {
        return json_object_get(w->index, name);
    }
    bool field = strncmp(name, "f:", 2) == 0 && !is_stripped(w->node.shape, name + 2);
    return field ? json_object_get(w->value, name + 2) : NULL;
}

static struct node walk_node(const struct walk *w, const char *name)
{
    if (w->node.shape == SHAPE_KEYED) {
        return item_of(&w->node);
    }
    return w->node.shape == SHAPE_SET ? (struct node){0} : child_of(&w->node, name + 2);
}

/* --- sets from objects --- */

static json_t *leaf(void)
{
    return json_object();
}

static bool is_self(const char *name)
{
    return name[0] == '.' && name[1] == '\0';
}

static json_t *empty_is_null(json_t *set_take)
{
    if (json_object_size(set_take) > 0) {
        return set_take;
    }
    json_decref(set_take);
    return NULL;
}

/* An item of a list is itself in the set, beside its fields. */
static void add(json_t *out, const struct walk *w, const char *name, json_t *sub_take, bool whole)
{
    if (sub_take == NULL) {
        return;
    }
    if (whole && w->node.shape == SHAPE_KEYED && json_object_size(sub_take) > 0) {
        json_object_set_new(sub_take, ".", leaf()); /* made just now, so nobody else's */
    }
    json_object_set_new(out, name, sub_take);
}

/* old NULL: the whole value is new. NULL: nothing changed. */
static json_t *changed(const struct node *n, const json_t *old, const json_t *value)
{
    struct walk now, before;
    walk_begin(&now, n, value);
    walk_begin(&before, n, old);
    json_t *out = NULL;
    if (!is_inner(&now)) {
        out = old != NULL && json_equal(old, value) == 1 ? NULL : leaf();
    } else {
        const char *name;
        const json_t *v;
        struct node sub;
        out = json_object();
        while (walk_next(&now, &name, &v, &sub)) {
            const json_t *was = walk_get(&before, name);
            add(out, &now, name, changed(&sub, was, v), was == NULL);
        }
        /* An empty object or list is a field; one that was there is no change. */
        if (json_object_size(out) == 0 && old != NULL && is_inner(&before)) {
            json_decref(out);
            out = NULL;
        }
    }
    walk_end(&now);
    walk_end(&before);
    return out;
}

json_t *at_fields_changed(const struct at_model_kind *kind, const json_t *old, const json_t *object)
{
    struct node top = top_of(kind);
    json_t *set = changed(&top, old, object);
    const json_t *meta = json_object_get(set, "f:metadata");
    if (meta != NULL && json_object_size(meta) == 0) {
        json_object_del(set, "f:metadata"); /* identity alone */
    }
    return empty_is_null(set);
}

json_t *at_fields_of(const struct at_model_kind *kind, const json_t *object)
{
    return at_fields_changed(kind, NULL, object);
}

static json_t *kept(const struct node *n, const json_t *set, const json_t *old, const json_t *value,
                    bool compare)
{
    if (value == NULL || !json_is_object(set)) {
        return NULL;
    }
    struct walk now, before;
    walk_begin(&now, n, value);
    if (!is_inner(&now)) {
        bool same = !compare || (old != NULL && json_equal(old, value) == 1);
        walk_end(&now);
        return same && json_object_size(set) == 0 ? json_incref((json_t *)set) : NULL;
    }
    walk_begin(&before, n, old);
    bool replaced = compare && !is_inner(&before); /* another sort of value: all is new */
    json_t *out = json_object();
    const char *name;
    json_t *sub;
    json_object_foreach((json_t *)set, name, sub)
    {
        const json_t *v = replaced ? NULL : walk_get(&now, name);
        if (is_self(name)) {
            json_object_set_new(out, ".", leaf());
        } else if (v != NULL) {
            struct node at = walk_node(&now, name);
            json_t *rest = kept(&at, sub, walk_get(&before, name), v, compare);
            if (rest != NULL) {
                json_object_set_new(out, name, rest);
            }
        }
    }
    walk_end(&now);
    walk_end(&before);
    return json_object_size(set) > 0 || replaced ? empty_is_null(out) : out;
}

json_t *at_fields_kept(const struct at_model_kind *kind, const json_t *set, const json_t *old,
                       const json_t *object)
{
    struct node top = top_of(kind);
    json_t *out = kept(&top, set, old, object, old != NULL);
    return out != NULL ? empty_is_null(out) : NULL;
}

/* --- sets and sets --- */

static bool has_itself(const json_t *set)
{
    return set != NULL && (json_object_size(set) == 0 || json_object_get(set, ".") != NULL);
}

json_t *at_fields_union(const json_t *a, const json_t *b)
{
    if (a == NULL || b == NULL) {
        return json_incref((json_t *)(a != NULL ? a : b));
    }
    json_t *out = json_copy((json_t *)a);
    const char *name;
    json_t *sub;
    json_object_foreach((json_t *)b, name, sub)
    {
        json_t *have = json_object_get(a, name);
        if (have != sub) {
            json_object_set_new(out, name, at_fields_union(have, sub));
        }
    }
    if (json_object_size(out) > 0 && (has_itself(a) || has_itself(b))) {
        json_object_set_new(out, ".", leaf());
    }
    return out;
}

json_t *at_fields_common(const json_t *a, const json_t *b)
{
    if (a == NULL || b == NULL) {
        return NULL;
    }
    if (json_object_size(b) == 0) {
        return json_incref((json_t *)a); /* the one value stands for all below it */
    }
    json_t *out = json_object();
    const char *name;
    json_t *sub;
    json_object_foreach((json_t *)a, name, sub)
    {
        json_t *both = at_fields_common(sub, json_object_get(b, name));
        if (both != NULL) {
            json_object_set_new(out, name, both);
        }
    }
    return empty_is_null(out);
}

json_t *at_fields_minus(const json_t *a, const json_t *b)
{
    if (a == NULL || b == NULL) {
        return json_incref((json_t *)a);
    }
    if (json_object_size(a) == 0 || json_object_size(b) == 0) {
        return NULL;
    }
    json_t *out = json_object();
    const char *name;
    json_t *sub;
    json_object_foreach((json_t *)a, name, sub)
    {
        json_t *rest = at_fields_minus(sub, json_object_get(b, name));
        if (rest != NULL) {
            json_object_set_new(out, name, rest);
        }
    }
    return empty_is_null(out);
}

bool at_fields_equal(const json_t *a, const json_t *b)
{
    return a == b || (a != NULL && b != NULL && json_equal(a, b) == 1);
}

/* --- paths --- */

static enum at_rc path_add(struct at_buf *path, const char *name)
{
    if (strncmp(name, "f:", 2) == 0) {
        return at_buf_printf(path, ".%s", name + 2);
    }
    if (strncmp(name, "k:", 2) != 0) {
        return at_buf_printf(path, "[%s%s]", name[0] == 'v' ? "=" : "", name + 2);
    }
    AT_CLEANUP(at_cleanup_json) json_t *keys = json_loads(name + 2, 0, NULL);
    const char *key;
    json_t *value;
    const char *before = "[";
    enum at_rc rc = AT_OK;
    json_object_foreach(keys, key, value)
    {
        rc = rc == AT_OK ? at_buf_printf(path, "%s%s=", before, key) : rc;
        rc = rc == AT_OK ? at_json_dump(value, path) : rc;
        before = ",";
    }
    return rc == AT_OK ? at_buf_append_str(path, "]") : rc;
}

static void each(const json_t *set, struct at_buf *path, void (*fn)(void *ctx, const char *path),
                 void *ctx)
{
    if (has_itself(set)) {
        fn(ctx, path->data != NULL ? path->data : "");
    }
    const char *name;
    json_t *sub;
    size_t len = path->len;
    json_object_foreach((json_t *)set, name, sub)
    {
        if (!is_self(name) && strlen(name) > 2 && path_add(path, name) == AT_OK) {
            each(sub, path, fn, ctx);
        }
        path->len = len;
        if (path->data != NULL) {
            path->data[len] = '\0';
        }
    }
}

void at_fields_each(const json_t *set, void (*fn)(void *ctx, const char *path), void *ctx)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf path = {0};
    if (set != NULL) {
        each(set, &path, fn, ctx);
    }
}

/* --- changing objects --- */

static json_t *merged(const struct node *n, json_t *have, const json_t *applied);

static void merge_object(const struct node *n, json_t *have, const json_t *applied)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)applied, key, value)
    {
        if (!json_is_null(value)) {
            struct node sub = child_of(n, key);
            json_object_set_new(have, key, merged(&sub, json_object_get(have, key), value));
        }
    }
}

/* Items stay where they are, new ones come at the end. */
static void merge_list(const struct node *n, json_t *have, const json_t *applied)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf name = {0};
    AT_CLEANUP(at_cleanup_json) json_t *index = index_of(n, have);
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)applied, i, item)
    {
        json_t *old = item_name(n, item, &name) ? json_object_get(index, name.data) : NULL;
        if (old == NULL) {
            struct node sub = item_of(n);
            json_array_append_new(have, n->shape == SHAPE_SET ? json_deep_copy(item)
                                                              : merged(&sub, NULL, item));
        } else if (n->shape == SHAPE_KEYED && json_is_object(old)) {
            struct node sub = item_of(n);
            merge_object(&sub, old, item);
        }
    }
}

/* have (changed in place) with what is applied, or the applied value. own: caller decrefs. */
static json_t *merged(const struct node *n, json_t *have, const json_t *applied)
{
    enum shape shape = shape_of(n, applied);
    if (shape == SHAPE_VALUE) {
        return json_deep_copy((json_t *)applied);
    }
    bool list = is_list(shape);
    json_t *out = list ? json_array() : json_object();
    if (have != NULL && shape_of(n, have) == shape) {
        json_decref(out);
        out = json_incref(have);
    }
    if (list) {
        merge_list(n, out, applied);
    } else {
        merge_object(n, out, applied);
    }
    return out;
}

void at_fields_merge(const struct at_model_kind *kind, json_t *object, const json_t *applied)
{
    struct node top = top_of(kind);
    merge_object(&top, object, applied);
}

/* Remove the items whose names are in gone. */
static void items_remove(const struct node *n, json_t *list, const json_t *gone)
{
    AT_CLEANUP(at_cleanup_buf) struct at_buf name = {0};
    for (size_t i = json_array_size(list); i > 0; i--) {
        if (item_name(n, json_array_get(list, i - 1), &name) &&
            json_object_get(gone, name.data) != NULL) {
            json_array_remove(list, i - 1);
        }
    }
}

static bool is_key(const char *const *keys, const char *name)
{
    for (size_t i = 0; keys != NULL && keys[i] != NULL; i++) {
        if (strcmp(keys[i], name + 2) == 0) {
            return true;
        }
    }
    return false;
}

/* keys: fields that must stay, for the item itself does. */
static void drop(const struct node *n, json_t *value, const json_t *before, const json_t *now,
                 const json_t *others, const char *const *keys)
{
    struct walk w;
    walk_begin(&w, n, value);
    AT_CLEANUP(at_cleanup_json) json_t *gone = json_object();
    const char *name;
    json_t *sub;
    json_object_foreach((json_t *)before, name, sub)
    {
        json_t *child = is_self(name) ? NULL : (json_t *)walk_get(&w, name);
        if (child == NULL || (w.index == NULL && is_key(keys, name))) {
            continue;
        }
        struct node at = walk_node(&w, name);
        const json_t *still = json_object_get(now, name);
        const json_t *other = json_object_get(others, name);
        bool inner = json_object_size(sub) > 0 && shape_of(&at, child) != SHAPE_VALUE;
        if (inner && (at.holder || still != NULL || other != NULL)) {
            drop(&at, child, sub, still, other, w.node.shape == SHAPE_KEYED ? w.node.keys : NULL);
            bool emptied =
                json_is_array(child) ? json_array_size(child) == 0 : json_object_size(child) == 0;
            if (!emptied) {
                continue;
            }
        }
        if (still == NULL && other == NULL) {
            json_object_set_new(gone, name, json_null());
        }
    }
    if (w.index != NULL) {
        items_remove(&w.node, value, gone);
    } else {
        json_object_foreach(gone, name, sub)
        {
            json_object_del(value, name + 2);
        }
    }
    walk_end(&w);
}

void at_fields_drop(const struct at_model_kind *kind, json_t *object, const json_t *before,
                    const json_t *now, const json_t *others)
{
    struct node top = top_of(kind);
    if (before != NULL) {
        drop(&top, object, before, now, others, NULL);
    }
}
