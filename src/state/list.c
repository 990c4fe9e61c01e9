/* The objects of one kind, in order: how changes get into what snapshots share. */
#include "core/mem.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define LIST_CAP_MIN 16

static struct at_state_entry *entry_of(const void *object)
{
    return (void *)((uintptr_t)object - offsetof(struct at_state_entry, object));
}

int at_state_compare(const struct at_meta *meta, const char *ns, const char *name)
{
    int order = strcmp(meta->ns != NULL ? meta->ns : "", ns != NULL ? ns : "");
    return order != 0 ? order : strcmp(meta->name, name);
}

/* --- lists --- */

/* What no list newer than this one shows. */
static void list_retire(struct at_state_list *older, struct at_state_entry *entry)
{
    if (older == NULL) {
        at_free(entry);
        return;
    }
    entry->next_dead = older->dead;
    older->dead = entry;
}

void at_state_list_unref(struct at_state_list *list)
{
    if (list == NULL) {
        return;
    }
    assert(list->refs > 0);
    if (--list->refs != 0) {
        return;
    }
    if (list->older != NULL) {
        list->older->newer = list->newer;
    }
    if (list->newer != NULL) {
        list->newer->older = list->older;
    }
    for (size_t i = 0; list->last && i < list->n; i++) {
        list_retire(list->older, entry_of(list->objects[i]));
    }
    for (struct at_state_entry *entry = list->dead; entry != NULL;) {
        struct at_state_entry *next = entry->next_dead;
        list_retire(list->older, entry);
        entry = next;
    }
    at_free(list->objects);
    at_free(list);
}

static void list_room(struct at_state_list *list, size_t n)
{
    if (n > list->cap) {
        list->cap = n > list->cap * 2 ? n : list->cap * 2;
        list->cap = list->cap < LIST_CAP_MIN ? LIST_CAP_MIN : list->cap;
        list->objects = at_realloc(list->objects, list->cap * sizeof(list->objects[0]));
    }
}

/* Position of (ns, name), or where it belongs. */
static size_t position(const struct at_state_list *list, const char *ns, const char *name,
                       bool *ret_there)
{
    size_t low = 0;
    size_t high = list->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (at_state_compare(list->objects[mid], ns, name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *ret_there = low < list->n && at_state_compare(list->objects[low], ns, name) == 0;
    return low;
}

/* A list that only the kind holds, so that it may be edited. */
static struct at_state_list *list_own(struct at_state_kind *k)
{
    struct at_state_list *list = k->list;
    if (list != NULL && list->refs == 1) {
        return list;
    }
    struct at_state_list *copy = AT_NEW(struct at_state_list);
    copy->refs = 1;
    if (list != NULL) {
        list_room(copy, list->n);
        copy->n = list->n;
        if (list->n != 0) {
            memcpy(copy->objects, list->objects, list->n * sizeof(list->objects[0]));
        }
        copy->older = list;
        list->newer = copy;
        list->refs--;
    }
    k->list = copy;
    return copy;
}

/* --- edits --- */

static void edit_done(struct at_state_edit *edit)
{
    if (edit->entry == NULL) {
        at_free((void *)(uintptr_t)edit->ns);
        at_free((void *)(uintptr_t)edit->name);
    }
}

static int edit_compare(const void *a, const void *b)
{
    const struct at_state_edit *x = a;
    const struct at_state_edit *y = b;
    int order = strcmp(x->ns != NULL ? x->ns : "", y->ns != NULL ? y->ns : "");
    order = order != 0 ? order : strcmp(x->name, y->name);
    if (order != 0) {
        return order;
    }
    return x->number < y->number ? -1 : 1;
}

static bool same_object(const struct at_state_edit *x, const struct at_state_edit *y)
{
    return strcmp(x->name, y->name) == 0 &&
           strcmp(x->ns != NULL ? x->ns : "", y->ns != NULL ? y->ns : "") == 0;
}

/* In order, one for each object: the newest. */
static void edits_sort(struct at_state_kind *k)
{
    if (k->n_edits > 1) {
        qsort(k->edits, k->n_edits, sizeof(k->edits[0]), edit_compare);
    }
    size_t kept = 0;
    for (size_t i = 0; i < k->n_edits; i++) {
        if (i + 1 < k->n_edits && same_object(&k->edits[i], &k->edits[i + 1])) {
            edit_done(&k->edits[i]);
            at_free(k->edits[i].entry); /* nobody has seen it */
        } else {
            k->edits[kept++] = k->edits[i];
        }
    }
    k->n_edits = kept;
}

/* Objects that are there are replaced or taken out; the edits that stay are new objects, each with
 * the place where it belongs once the others have gone. */
static void edits_replace(struct at_state_kind *k, struct at_state_list *list)
{
    size_t kept = 0;
    size_t removed = 0;
    size_t in = 0; /* what lies before is where it belongs, in [0, out) */
    size_t out = 0;
    for (size_t i = 0; i < k->n_edits; i++) {
        struct at_state_edit *edit = &k->edits[i];
        if (!edit->there) {
            if (edit->entry != NULL) {
                edit->at -= removed;
                k->edits[kept++] = *edit;
            } else {
                edit_done(edit);
            }
            continue;
        }
        struct at_state_entry *old = entry_of(list->objects[edit->at]);
        if (edit->entry != NULL) {
            list->objects[edit->at] = edit->entry->object;
        } else {
            out = removed++ == 0 ? edit->at : out;
            memmove(list->objects + out, list->objects + in,
                    (in != 0 ? edit->at - in : 0) * sizeof(list->objects[0]));
            out += in != 0 ? edit->at - in : 0;
            in = edit->at + 1;
        }
        list_retire(list->older, old);
        edit_done(edit);
    }
    if (removed != 0) {
        memmove(list->objects + out, list->objects + in, (list->n - in) * sizeof(list->objects[0]));
        list->n -= removed;
    }
    k->n_edits = kept;
}

static void edits_insert(struct at_state_kind *k, struct at_state_list *list)
{
    size_t end = list->n;
    list_room(list, list->n + k->n_edits);
    for (size_t i = k->n_edits; i-- > 0;) {
        size_t at = k->edits[i].at;
        memmove(list->objects + at + i + 1, list->objects + at,
                (end - at) * sizeof(list->objects[0]));
        list->objects[at + i] = k->edits[i].entry->object;
        end = at;
    }
    list->n += k->n_edits;
    k->n_edits = 0;
}

struct at_state_list *at_state_kind_list(struct at_state_kind *k)
{
    if (k->list != NULL && k->n_edits == 0) {
        return k->list;
    }
    struct at_state_list *list = list_own(k);
    edits_sort(k);
    for (size_t i = 0; i < k->n_edits; i++) {
        struct at_state_edit *edit = &k->edits[i];
        edit->at = position(list, edit->ns, edit->name, &edit->there);
    }
    edits_replace(k, list);
    edits_insert(k, list);
    return list;
}

void at_state_kind_set(struct at_state_kind *k, const char *ns, const char *name,
                       struct at_state_entry *entry_take)
{
    if (k->n_edits == AT_STATE_EDITS_MAX) {
        (void)at_state_kind_list(k);
    }
    if (k->n_edits == k->cap_edits) {
        k->cap_edits = k->cap_edits != 0 ? k->cap_edits * 2 : 16;
        k->edits = at_realloc(k->edits, k->cap_edits * sizeof(k->edits[0]));
    }
    const struct at_meta *meta = entry_take != NULL ? at_state_entry_meta(entry_take) : NULL;
    k->edits[k->n_edits] = (struct at_state_edit){
        .entry = entry_take,
        .ns = meta != NULL ? meta->ns : at_strdup(ns),
        .name = meta != NULL ? meta->name : at_strdup(name),
        .number = k->n_edits,
    };
    k->n_edits++;
}

void at_state_kind_done(struct at_state_kind *k)
{
    struct at_state_list *list = at_state_kind_list(k);
    list->last = true;
    at_state_list_unref(list);
    at_free(k->edits);
    *k = (struct at_state_kind){0};
}
