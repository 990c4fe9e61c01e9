#include "security/match.h"

#include "core/str.h"

#include <stdio.h>
#include <string.h>

struct walk {       /* over words */
    const char *at; /* NULL: the text is at its end */
    const json_t *array;
    size_t i;
};

static struct walk walk_begin(const struct at_words *words)
{
    return (struct walk){.at = words->text, .array = words->array};
}

static bool walk_next(struct walk *w, struct at_str *ret)
{
    while (w->array != NULL && w->i < json_array_size(w->array)) {
        const json_t *item = json_array_get(w->array, w->i++);
        if (json_is_string(item)) {
            *ret = (struct at_str){json_string_value(item), json_string_length(item)};
            return true;
        }
    }
    if (w->at == NULL) {
        return false;
    }
    *ret = (struct at_str){w->at, strcspn(w->at, " ")};
    w->at = w->at[ret->len] != '\0' ? w->at + ret->len + 1 : NULL;
    return true;
}

static bool none(const struct at_words *words)
{
    return words->text == NULL && json_array_size(words->array) == 0;
}

static bool has(const struct at_words *words, const char *word, bool star)
{
    struct walk w = walk_begin(words);
    size_t len = strlen(word);
    struct at_str one;
    while (walk_next(&w, &one)) {
        if ((one.len == len && memcmp(one.ptr, word, len) == 0) ||
            (star && one.len == 1 && one.ptr[0] == '*')) {
            return true;
        }
    }
    return false;
}

static bool has_path(const struct at_words *words, const char *path)
{
    struct walk w = walk_begin(words);
    size_t len = strlen(path);
    struct at_str one;
    while (walk_next(&w, &one)) {
        bool star = one.len > 0 && one.ptr[one.len - 1] == '*';
        if ((one.len == len && memcmp(one.ptr, path, len) == 0) ||
            (star && one.len - 1 <= len && memcmp(one.ptr, path, one.len - 1) == 0)) {
            return true;
        }
    }
    return false;
}

static bool has_resource(const struct at_words *words, const char *resource, const char *sub)
{
    char word[256];
    char any[160];
    bool whole = sub == NULL || sub[0] == '\0';
    int len = snprintf(word, sizeof word, "%s%s%s", resource, whole ? "" : "/", whole ? "" : sub);
    int any_len = snprintf(any, sizeof any, "*/%s", whole ? "" : sub);
    if ((size_t)len >= sizeof word || (size_t)any_len >= sizeof any) {
        return false; /* no rule has so long a name, not even one that is cut to it */
    }
    return has(words, word, true) || (!whole && has(words, any, false));
}

bool at_rule_allows(const struct at_rule *rule, const struct at_access *what)
{
    if (what->verb == NULL || what->verb[0] == '\0' || !has(&rule->verbs, what->verb, true)) {
        return false;
    }
    if (what->resource == NULL || what->resource[0] == '\0') {
        return what->path != NULL && what->path[0] != '\0' && has_path(&rule->paths, what->path);
    }
    return has(&rule->groups, what->group != NULL ? what->group : "", true) &&
           has_resource(&rule->resources, what->resource, what->subresource) &&
           (none(&rule->names) || (what->name != NULL && has(&rule->names, what->name, false)));
}
