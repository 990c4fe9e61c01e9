#include "security/book.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"
#include "security/match.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define KEY_BYTES 1024
#define AUTHENTICATED "system:authenticated"
#define UNAUTHENTICATED "system:unauthenticated"

struct role {
    json_t *rules;     /* array; immutable */
    json_t *labels;    /* may be NULL */
    json_t *selectors; /* of an aggregated one; NULL */
    json_t *all;       /* of its parts; NULL: to be made */
};
struct binding {
    char *role_key;
    char **subjects; /* keys of lists */
    size_t n;
};
struct list {
    struct binding **items;
    size_t n, cap;
};
struct at_book {
    struct at_map *roles;    /* "r/<ns>/<name>", "c/<name>" -> struct role * */
    struct at_map *bindings; /* "<ns>/<name>" ("" of the cluster) -> struct binding * */
    struct at_map *subjects; /* "<ns>\n<u|g>\n<name>" -> struct list * */
};

struct at_book *at_book_new(void)
{
    struct at_book *book = AT_NEW(struct at_book);
    book->roles = at_map_new();
    book->bindings = at_map_new();
    book->subjects = at_map_new();
    return book;
}

static void role_free(struct role *role)
{
    if (role != NULL) {
        json_decref(role->rules);
        json_decref(role->labels);
        json_decref(role->selectors);
        json_decref(role->all);
        at_free(role);
    }
}

static void binding_free(struct binding *b)
{
    for (size_t i = 0; i < b->n; i++) {
        at_free(b->subjects[i]);
    }
    at_free(b->subjects);
    at_free(b->role_key);
    at_free(b);
}

void at_book_free(struct at_book *book)
{
    if (book == NULL) {
        return;
    }
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(book->roles, &it, &key, &value);) {
        role_free(value);
    }
    for (size_t it = 0; at_map_next(book->bindings, &it, &key, &value);) {
        binding_free(value);
    }
    for (size_t it = 0; at_map_next(book->subjects, &it, &key, &value);) {
        at_free(((struct list *)value)->items);
        at_free(value);
    }
    at_map_free(book->roles);
    at_map_free(book->bindings);
    at_map_free(book->subjects);
    at_free(book);
}

size_t at_book_bindings(const struct at_book *book)
{
    return at_map_count(book->bindings);
}

/* --- what is stored --- */

static void role_key(const char *kind, const char *ns, const char *name, char out[KEY_BYTES])
{
    bool cluster = at_streq(kind, "ClusterRole");
    snprintf(out, KEY_BYTES, "%s%s/%s", cluster ? "c" : "r/", cluster ? "" : ns, name);
}

static void roles_changed(struct at_book *book)
{
    const char *key;
    void *value;
    for (size_t it = 0; at_map_next(book->roles, &it, &key, &value);) {
        struct role *role = value;
        json_decref(role->all);
        role->all = NULL;
    }
}

static void role_put(struct at_book *book, const char *key, const json_t *object)
{
    struct role *role = NULL;
    if (object != NULL) {
        json_t *rules = json_object_get(object, "rules");
        role = AT_NEW(struct role);
        role->rules = json_is_array(rules) ? json_incref(rules) : json_array();
        role->labels = json_incref(at_json_at(object, "metadata.labels"));
        role->selectors = json_incref(at_json_at(object, "aggregationRule.clusterRoleSelectors"));
    }
    role_free(role != NULL ? at_map_put(book->roles, key, role) : at_map_remove(book->roles, key));
    roles_changed(book);
}

static void list_drop(struct at_book *book, const char *key, const struct binding *b)
{
    struct list *list = at_map_get(book->subjects, key);
    size_t kept = 0;
    for (size_t i = 0; list != NULL && i < list->n; i++) {
        if (list->items[i] != b) {
            list->items[kept++] = list->items[i];
        }
    }
    if (list != NULL && kept == 0) {
        at_map_remove(book->subjects, key);
        at_free(list->items);
        at_free(list);
    } else if (list != NULL) {
        list->n = kept;
    }
}

static void list_add(struct at_book *book, const char *key, struct binding *b)
{
    struct list *list = at_map_get(book->subjects, key);
    if (list == NULL) {
        list = AT_NEW(struct list);
        at_map_put(book->subjects, key, list);
    }
    if (list->n > 0 && list->items[list->n - 1] == b) {
        return; /* named twice */
    }
    if (list->n == list->cap) {
        list->cap = list->cap > 0 ? 2 * list->cap : 2;
        list->items = at_realloc(list->items, list->cap * sizeof(struct binding *));
    }
    list->items[list->n++] = b;
}

static void subject_key(const char *ns, char sort, const char *name, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, "%s\n%c\n%s", ns, sort, name);
}

static bool subject_of(const json_t *subject, const char *binding_ns, char out[KEY_BYTES])
{
    const char *kind = at_json_str_at(subject, "kind", "");
    const char *name = at_json_str_at(subject, "name", "");
    if (at_streq(kind, "ServiceAccount")) {
        char user[KEY_BYTES / 2];
        snprintf(user, sizeof user, "system:serviceaccount:%s:%s",
                 at_json_str_at(subject, "namespace", binding_ns), name);
        subject_key(binding_ns, 'u', user, out);
        return true;
    }
    bool user = at_streq(kind, "User");
    subject_key(binding_ns, user ? 'u' : 'g', name, out);
    return user || at_streq(kind, "Group");
}

static void binding_put(struct at_book *book, const char *ns, const char *name,
                        const json_t *object)
{
    char key[KEY_BYTES];
    char text[KEY_BYTES];
    snprintf(key, sizeof key, "%s/%s", ns, name);
    struct binding *old = at_map_remove(book->bindings, key);
    for (size_t i = 0; old != NULL && i < old->n; i++) {
        list_drop(book, old->subjects[i], old);
    }
    if (old != NULL) {
        binding_free(old);
    }
    if (object == NULL) {
        return;
    }
    struct binding *b = AT_NEW(struct binding);
    const json_t *subjects = json_object_get(object, "subjects");
    role_key(at_json_str_at(object, "roleRef.kind", ""), ns,
             at_json_str_at(object, "roleRef.name", ""), text);
    b->role_key = at_strdup(text);
    b->subjects = at_alloc((json_array_size(subjects) + 1) * sizeof(char *));
    size_t i;
    const json_t *subject;
    json_array_foreach(subjects, i, subject)
    {
        if (subject_of(subject, ns, text)) {
            b->subjects[b->n++] = at_strdup(text);
            list_add(book, text, b);
        }
    }
    at_map_put(book->bindings, key, b);
}

void at_book_put(struct at_book *book, const char *kind, const char *ns, const char *name,
                 const json_t *object)
{
    char key[KEY_BYTES];
    if (at_streq(kind, "Role") || at_streq(kind, "ClusterRole")) {
        role_key(kind, ns != NULL ? ns : "", name, key);
        role_put(book, key, object);
    } else if (at_streq(kind, "RoleBinding") || at_streq(kind, "ClusterRoleBinding")) {
        binding_put(book, ns != NULL ? ns : "", name, object);
    }
}

/* --- aggregation --- */

static bool has(const json_t *array, const char *word)
{
    size_t i;
    const json_t *item;
    json_array_foreach(array, i, item)
    {
        if (at_streq(json_string_value(item), word)) {
            return true;
        }
    }
    return false;
}

static bool expression_holds(const json_t *expression, const json_t *labels)
{
    const char *op = at_json_str_at(expression, "operator", "");
    const json_t *values = json_object_get(expression, "values");
    const char *have =
        json_string_value(json_object_get(labels, at_json_str_at(expression, "key", "")));
    if (at_streq(op, "Exists") || at_streq(op, "DoesNotExist")) {
        return (have != NULL) == at_streq(op, "Exists");
    }
    if (at_streq(op, "NotIn")) {
        return have == NULL || !has(values, have);
    }
    return at_streq(op, "In") && have != NULL && has(values, have);
}

static bool selects(const json_t *selector, const json_t *labels)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(selector, "matchLabels"), key, value)
    {
        if (!at_streq(json_string_value(json_object_get(labels, key)), json_string_value(value))) {
            return false;
        }
    }
    size_t i;
    const json_t *expression;
    json_array_foreach(json_object_get(selector, "matchExpressions"), i, expression)
    {
        if (!expression_holds(expression, labels)) {
            return false;
        }
    }
    return true;
}

bool at_role_is_picked(const json_t *selectors, const json_t *labels)
{
    size_t i;
    const json_t *selector;
    json_array_foreach(selectors, i, selector)
    {
        if (selects(selector, labels)) {
            return true;
        }
    }
    return false;
}

/* An aggregated role's are those of its parts: what it holds itself is written by a controller
 * after them. Of a part only its own, so that no circle is walked. */
static json_t *rules_of(const struct at_book *book, struct role *role)
{
    if (role->selectors == NULL) {
        return role->rules;
    }
    if (role->all == NULL) {
        const char *key;
        void *value;
        role->all = json_array();
        for (size_t it = 0; at_map_next(book->roles, &it, &key, &value);) {
            struct role *part = value;
            if (key[0] == 'c' && part != role && at_role_is_picked(role->selectors, part->labels)) {
                json_array_extend(role->all, part->rules);
            }
        }
    }
    return role->all;
}

json_t *at_book_role_rules(const struct at_book *book, const char *kind, const char *ns,
                           const char *name)
{
    char key[KEY_BYTES];
    role_key(kind, ns, name, key);
    struct role *role = at_map_get(book->roles, key);
    return role != NULL ? json_incref(rules_of(book, role)) : NULL;
}

/* --- decisions --- */

static bool rule_allows(const json_t *rule, const struct at_access *what)
{
    const struct at_rule words = {.verbs = {.array = json_object_get(rule, "verbs")},
                                  .groups = {.array = json_object_get(rule, "apiGroups")},
                                  .resources = {.array = json_object_get(rule, "resources")},
                                  .names = {.array = json_object_get(rule, "resourceNames")},
                                  .paths = {.array = json_object_get(rule, "nonResourceURLs")}};
    return at_rule_allows(&words, what);
}

typedef bool rule_fn(void *ctx, const json_t *rule); /* true: enough */

static bool list_walk(const struct at_book *book, const char *key, rule_fn *fn, void *ctx)
{
    const struct list *list = at_map_get(book->subjects, key);
    for (size_t i = 0; list != NULL && i < list->n; i++) {
        struct role *role = at_map_get(book->roles, list->items[i]->role_key);
        const json_t *rules = role != NULL ? rules_of(book, role) : NULL;
        size_t k;
        const json_t *rule;
        json_array_foreach(rules, k, rule)
        {
            if (fn(ctx, rule)) {
                return true;
            }
        }
    }
    return false;
}

static bool subject_walk(const struct at_book *book, const char *ns, char sort, const char *name,
                         rule_fn *fn, void *ctx)
{
    char key[KEY_BYTES];
    subject_key("", sort, name, key);
    if (list_walk(book, key, fn, ctx)) {
        return true;
    }
    if (ns == NULL || ns[0] == '\0') {
        return false;
    }
    subject_key(ns, sort, name, key);
    return list_walk(book, key, fn, ctx);
}

/* Every rule that holds for who in ns. */
static bool rules_walk(const struct at_book *book, const struct at_identity *who, const char *ns,
                       rule_fn *fn, void *ctx)
{
    bool named = who->user[0] != '\0' && !at_streq(who->user, AT_USER_ANONYMOUS);
    if (subject_walk(book, ns, 'u', who->user, fn, ctx)) {
        return true;
    }
    for (size_t i = 0; i < who->n_groups && i < AT_IDENTITY_GROUPS_MAX; i++) {
        if (subject_walk(book, ns, 'g', who->groups[i], fn, ctx)) {
            return true;
        }
    }
    return subject_walk(book, ns, 'g', named ? AUTHENTICATED : UNAUTHENTICATED, fn, ctx);
}

static bool allows(void *ctx, const json_t *rule)
{
    return rule_allows(rule, ctx);
}

bool at_book_allowed(const struct at_book *book, const struct at_identity *who,
                     const struct at_access *what, char *out_reason, size_t out_size)
{
    if (at_rbac_allowed(who, what, out_reason, out_size)) {
        return true;
    }
    if (book == NULL || what->verb == NULL || who->user[0] == '\0') {
        return false;
    }
    bool on_resource = what->resource != NULL && what->resource[0] != '\0';
    if (!rules_walk(book, who, on_resource ? what->ns : "", allows, (void *)what)) {
        return false;
    }
    if (out_reason != NULL && out_size > 0) {
        out_reason[0] = '\0';
    }
    return true;
}

struct cover {
    const struct at_book *book;
    const struct at_identity *who;
    const char *ns;
    char *out;
    size_t size;
};

static bool covered(struct cover *c, struct at_access *what, const json_t *names)
{
    what->ns = c->ns;
    if (json_array_size(names) == 0) {
        what->name = "";
        return at_book_allowed(c->book, c->who, what, c->out, c->size);
    }
    size_t i;
    const json_t *name;
    json_array_foreach(names, i, name)
    {
        what->name = json_string_value(name);
        if (!at_book_allowed(c->book, c->who, what, c->out, c->size)) {
            return false;
        }
    }
    return true;
}

static bool resources_covered(struct cover *c, const json_t *rule, const char *verb)
{
    size_t g;
    size_t r;
    const json_t *group;
    const json_t *resource;
    json_array_foreach(json_object_get(rule, "apiGroups"), g, group)
    {
        json_array_foreach(json_object_get(rule, "resources"), r, resource)
        {
            char text[256];
            snprintf(text, sizeof text, "%s", json_string_value(resource));
            char *slash = strchr(text, '/');
            if (slash != NULL) {
                *slash++ = '\0';
            }
            struct at_access what = {.verb = verb,
                                     .group = json_string_value(group),
                                     .resource = text,
                                     .subresource = slash != NULL ? slash : ""};
            if (!covered(c, &what, json_object_get(rule, "resourceNames"))) {
                return false;
            }
        }
    }
    return true;
}

bool at_book_covers(const struct at_book *book, const struct at_identity *who, const char *ns,
                    const json_t *rules, char *out_missing, size_t out_size)
{
    struct cover c = {.book = book, .who = who, .ns = ns, .out = out_missing, .size = out_size};
    size_t i;
    size_t v;
    size_t p;
    const json_t *rule;
    const json_t *verb;
    const json_t *path;
    json_array_foreach(rules, i, rule)
    {
        json_array_foreach(json_object_get(rule, "verbs"), v, verb)
        {
            const char *word = json_string_value(verb);
            if (word == NULL || !resources_covered(&c, rule, word)) {
                return false;
            }
            json_array_foreach(json_object_get(rule, "nonResourceURLs"), p, path)
            {
                struct at_access what = {
                    .verb = word, .resource = "", .path = json_string_value(path)};
                /* In a namespace a path gives nothing; who has it there may pass it on there. */
                if (!at_book_allowed(book, who, &what, out_missing, out_size) &&
                    (book == NULL || !rules_walk(book, who, ns, allows, &what))) {
                    return false;
                }
            }
        }
    }
    return true;
}

static bool collect(void *ctx, const json_t *rule)
{
    json_array_append(ctx, (json_t *)rule);
    return false;
}

json_t *at_book_rules(const struct at_book *book, const struct at_identity *who, const char *ns)
{
    json_t *list = at_rbac_rules(who);
    if (book != NULL && who->user[0] != '\0') {
        (void)rules_walk(book, who, ns, collect, list);
    }
    return list;
}
