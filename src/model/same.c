/* Hash, comparison and copy of parts of a spec, by the field tables. */
#include "core/str.h"
#include "model/members.h"
#include "model/model_priv.h"

#include <assert.h>
#include <string.h>

static uint64_t mix(uint64_t h, uint64_t v)
{
    unsigned __int128 m = (unsigned __int128)(h ^ v) * 0x9e3779b97f4a7c15u;
    return (uint64_t)m ^ (uint64_t)(m >> 64) ^ 0xa0761d6478bd642fu;
}

static uint64_t mix_text(uint64_t h, const char *text)
{
    if (text == NULL) {
        return mix(h, 1);
    }
    size_t len = strlen(text);
    h = mix(h, len + 2);
    for (; len >= 8; len -= 8, text += 8) {
        uint64_t v;
        memcpy(&v, text, 8);
        h = mix(h, v);
    }
    uint64_t rest = 0;
    memcpy(&rest, text, len);
    return len > 0 ? mix(h, rest) : h;
}

static uint64_t hash_struct(const struct at_model_struct *s, const void *object, uint64_t h);

static uint64_t hash_field(const struct at_model_field *f, const void *at, uint64_t h)
{
    switch (f->type) {
    case AT_MODEL_T_STRING:
        return mix_text(h, *(const char *const *)at);
    case AT_MODEL_T_BOOL:
        return mix(h, *(const bool *)at);
    case AT_MODEL_T_INT:
    case AT_MODEL_T_UNIT:
    case AT_MODEL_T_NUMBER: {
        uint64_t v;
        memcpy(&v, at, sizeof v);
        return mix(h, v);
    }
    case AT_MODEL_T_OBJECT: {
        const void *sub = *(const void *const *)at;
        return sub != NULL ? hash_struct(f->sub, sub, mix(h, 2)) : mix(h, 1);
    }
    case AT_MODEL_T_EMBEDDED:
        return hash_struct(f->sub, at, h);
    case AT_MODEL_T_LIST: {
        const struct at_model_list *list = at;
        h = mix(h, list->n);
        for (size_t i = 0; i < list->n; i++) {
            h = hash_struct(f->sub, (const char *)list->items + i * f->sub->size, h);
        }
        return h;
    }
    case AT_MODEL_T_STRINGS: {
        const struct at_model_strings *list = at;
        h = mix(h, list->n);
        for (size_t i = 0; i < list->n; i++) {
            h = mix_text(h, list->items[i]);
        }
        return h;
    }
    case AT_MODEL_T_MAP: {
        const struct at_model_map *map = at;
        h = mix(h, map->n);
        for (size_t i = 0; i < map->n; i++) {
            h = mix_text(mix_text(h, map->items[i].key), map->items[i].value);
        }
        return h;
    }
    case AT_MODEL_T_FREE: /* told apart by comparison only */
        return h;
    }
    return h;
}

static uint64_t hash_struct(const struct at_model_struct *s, const void *object, uint64_t h)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        h = hash_field(&s->fields[i], (const char *)object + s->fields[i].offset, h);
    }
    return h;
}

static bool equal_struct(const struct at_model_struct *s, const void *a, const void *b);

static bool equal_map(const struct at_model_map *x, const struct at_model_map *y)
{
    bool same = x->n == y->n;
    for (size_t i = 0; same && i < x->n; i++) {
        same = at_streq(x->items[i].key, y->items[i].key) &&
               at_streq(x->items[i].value, y->items[i].value);
    }
    return same;
}

static bool equal_list(const struct at_model_struct *sub, const struct at_model_list *x,
                       const struct at_model_list *y)
{
    bool same = x->n == y->n;
    for (size_t i = 0; same && i < x->n; i++) {
        same = equal_struct(sub, (const char *)x->items + i * sub->size,
                            (const char *)y->items + i * sub->size);
    }
    return same;
}

static bool equal_strings(const struct at_model_strings *x, const struct at_model_strings *y)
{
    bool same = x->n == y->n;
    for (size_t i = 0; same && i < x->n; i++) {
        same = at_streq(x->items[i], y->items[i]);
    }
    return same;
}

static bool equal_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool equal_field(const struct at_model_field *f, const void *a, const void *b)
{
    switch (f->type) {
    case AT_MODEL_T_STRING:
        return equal_text(*(const char *const *)a, *(const char *const *)b);
    case AT_MODEL_T_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case AT_MODEL_T_INT:
    case AT_MODEL_T_UNIT:
    case AT_MODEL_T_NUMBER:
        return memcmp(a, b, sizeof(int64_t)) == 0;
    case AT_MODEL_T_OBJECT: {
        const void *x = *(const void *const *)a, *y = *(const void *const *)b;
        return x == NULL || y == NULL ? x == y : equal_struct(f->sub, x, y);
    }
    case AT_MODEL_T_EMBEDDED:
        return equal_struct(f->sub, a, b);
    case AT_MODEL_T_LIST:
        return equal_list(f->sub, a, b);
    case AT_MODEL_T_STRINGS:
        return equal_strings(a, b);
    case AT_MODEL_T_MAP:
        return equal_map(a, b);
    case AT_MODEL_T_FREE:
        return json_equal(*(json_t *const *)a, *(json_t *const *)b) ||
               *(json_t *const *)a == *(json_t *const *)b;
    }
    return false;
}

static bool equal_struct(const struct at_model_struct *s, const void *a, const void *b)
{
    bool same = true;
    for (size_t i = 0; same && i < s->n_fields; i++) {
        size_t at = s->fields[i].offset;
        same = equal_field(&s->fields[i], (const char *)a + at, (const char *)b + at);
    }
    return same;
}

static const struct at_model_field *part_of(const struct at_model_kind *kind, const char *part)
{
    for (size_t i = 0; i < kind->fields->n_fields; i++) {
        if (strcmp(kind->fields->fields[i].name, part) == 0) {
            return &kind->fields->fields[i];
        }
    }
    return NULL;
}

static bool is_named(const char *name, const char *const *members)
{
    for (; *members != NULL; members++) {
        if (strcmp(*members, name) == 0) {
            return true;
        }
    }
    return false;
}

uint64_t at_model_part_hash(const struct at_model_kind *kind, const char *part, const void *object,
                            const char *const *members)
{
    const struct at_model_field *spec = part_of(kind, part);
    uint64_t h = 0;
    for (size_t i = 0; spec != NULL && i < spec->sub->n_fields; i++) {
        const struct at_model_field *f = &spec->sub->fields[i];
        if (members == NULL || is_named(f->name, members)) {
            h = hash_field(f, (const char *)object + spec->offset + f->offset, h);
        }
    }
    return h;
}

void at_model_members_init(struct at_model_members *m, const struct at_model_kind *kind,
                           const char *part, const char *const *names)
{
    const struct at_model_field *p = part_of(kind, part);
    *m = (struct at_model_members){0};
    for (size_t i = 0; p != NULL && i < p->sub->n_fields; i++) {
        const struct at_model_field *f = &p->sub->fields[i];
        if (is_named(f->name, names)) {
            assert(m->n < AT_MODEL_MEMBERS_MAX);
            m->fields[m->n] = f;
            m->offsets[m->n++] = p->offset + f->offset;
        }
    }
}

uint64_t at_model_members_hash(const struct at_model_members *m, const void *object)
{
    uint64_t h = 0;
    for (size_t i = 0; i < m->n; i++) {
        h = hash_field(m->fields[i], (const char *)object + m->offsets[i], h);
    }
    return h;
}

bool at_model_members_equal(const struct at_model_members *m, const void *a, const void *b)
{
    bool same = true;
    for (size_t i = 0; same && i < m->n; i++) {
        same = equal_field(m->fields[i], (const char *)a + m->offsets[i],
                           (const char *)b + m->offsets[i]);
    }
    return same;
}

/* --- copies --- */

static bool copy_struct(const struct at_model_struct *s, void *object, struct at_arena *arena);

static bool copy_text(const char **text, struct at_arena *arena)
{
    *text = *text != NULL ? at_arena_strdup(arena, *text) : NULL;
    return true;
}

static void *copy_bytes(const void *from, size_t n, struct at_arena *arena)
{
    void *to = at_arena_alloc(arena, n > 0 ? n : 1);
    if (to != NULL && n > 0) {
        memcpy(to, from, n);
    }
    return to;
}

static bool copy_list(const struct at_model_struct *sub, struct at_model_list *list,
                      struct at_arena *arena)
{
    list->items = copy_bytes(list->items, list->n * sub->size, arena);
    bool ok = list->items != NULL;
    for (size_t i = 0; ok && i < list->n; i++) {
        ok = copy_struct(sub, (char *)list->items + i * sub->size, arena);
    }
    return ok;
}

static bool copy_strings(struct at_model_strings *list, struct at_arena *arena)
{
    list->items = copy_bytes(list->items, list->n * sizeof *list->items, arena);
    for (size_t i = 0; list->items != NULL && i < list->n; i++) {
        (void)copy_text(&list->items[i], arena);
    }
    return list->items != NULL;
}

static bool copy_map(struct at_model_map *map, struct at_arena *arena)
{
    map->items = copy_bytes(map->items, map->n * sizeof *map->items, arena);
    for (size_t i = 0; map->items != NULL && i < map->n; i++) {
        (void)copy_text(&map->items[i].key, arena);
        (void)copy_text(&map->items[i].value, arena);
    }
    return map->items != NULL;
}

/* What a member points to, in place of what the original points to. */
static bool copy_field(const struct at_model_field *f, void *at, struct at_arena *arena)
{
    switch (f->type) {
    case AT_MODEL_T_STRING:
        return copy_text(at, arena);
    case AT_MODEL_T_OBJECT: {
        void **sub = at;
        if (*sub == NULL) {
            return true;
        }
        *sub = copy_bytes(*sub, f->sub->size, arena);
        return *sub != NULL && copy_struct(f->sub, *sub, arena);
    }
    case AT_MODEL_T_EMBEDDED:
        return copy_struct(f->sub, at, arena);
    case AT_MODEL_T_LIST:
        return copy_list(f->sub, at, arena);
    case AT_MODEL_T_STRINGS:
        return copy_strings(at, arena);
    case AT_MODEL_T_MAP:
        return copy_map(at, arena);
    case AT_MODEL_T_FREE:
        *(json_t **)at = NULL;
        return true;
    default:
        return true;
    }
}

static bool copy_struct(const struct at_model_struct *s, void *object, struct at_arena *arena)
{
    bool ok = true;
    for (size_t i = 0; ok && i < s->n_fields; i++) {
        ok = copy_field(&s->fields[i], (char *)object + s->fields[i].offset, arena);
    }
    return ok;
}

enum at_rc at_model_spec_copy(const struct at_model_kind *kind, const void *object,
                              const char *const *members, struct at_arena *arena, void *ret)
{
    const struct at_model_field *spec = part_of(kind, "spec");
    memset(ret, 0, kind->struct_size);
    for (size_t i = 0; spec != NULL && i < spec->sub->n_fields; i++) {
        const struct at_model_field *f = &spec->sub->fields[i];
        size_t at = spec->offset + f->offset;
        size_t end = spec->offset + spec->sub->size;
        for (size_t k = 0; k < spec->sub->n_fields; k++) { /* up to the member that follows */
            size_t start = spec->offset + spec->sub->fields[k].offset;
            end = start > at && start < end ? start : end;
        }
        if (is_named(f->name, members)) {
            memcpy((char *)ret + at, (const char *)object + at, end - at);
            if (!copy_field(f, (char *)ret + at, arena)) {
                return AT_NOMEM;
            }
        }
    }
    return AT_OK;
}
