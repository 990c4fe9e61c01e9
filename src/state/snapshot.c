#include "state/snapshot.h"

#include "core/mem.h"
#include "core/str.h"
#include "state/state_priv.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct at_state_entry *at_state_entry_ref(struct at_state_entry *entry)
{
    assert(entry->refs > 0);
    entry->refs++;
    return entry;
}

void at_state_entry_unref(struct at_state_entry *entry)
{
    if (entry == NULL) {
        return;
    }
    assert(entry->refs > 0);
    if (--entry->refs == 0) {
        at_arena_free(entry->arena);
        at_free(entry);
    }
}

void at_state_list_unref(struct at_state_list *list)
{
    if (list == NULL || --list->refs != 0) {
        return;
    }
    for (size_t i = 0; i < list->n; i++) {
        at_state_entry_unref(list->entries[i]);
    }
    at_free(list->entries);
    at_free(list->objects);
    at_free(list);
}

const struct at_model_kind *at_state_slot_kind(enum at_state_slot slot)
{
    static const struct at_model_kind *const KINDS[AT_STATE_SLOTS] = {
        [AT_STATE_SITES] = &AT_KIND_SITE,
        [AT_STATE_NODES] = &AT_KIND_NODE,
        [AT_STATE_DEPLOYMENTS] = &AT_KIND_DEPLOYMENT,
        [AT_STATE_INSTANCES] = &AT_KIND_INSTANCE,
        [AT_STATE_JOBS] = &AT_KIND_JOB,
        [AT_STATE_POLICIES] = &AT_KIND_POLICY,
        [AT_STATE_NAMESPACES] = &AT_KIND_NAMESPACE,
    };
    return KINDS[slot];
}

enum at_state_slot at_state_slot_of(const struct at_model_kind *kind)
{
    enum at_state_slot slot = AT_STATE_SITES;
    while (slot < AT_STATE_SLOTS && at_state_slot_kind(slot) != kind) {
        slot++;
    }
    return slot;
}

static int compare(const struct at_meta *meta, const char *ns, const char *name)
{
    int order = strcmp(meta->ns != NULL ? meta->ns : "", ns != NULL ? ns : "");
    return order != 0 ? order : strcmp(meta->name, name);
}

/* Position of (ns, name), or where it belongs. */
static size_t position(const struct at_state_kind *k, const char *ns, const char *name,
                       bool *ret_there)
{
    size_t low = 0;
    size_t high = k->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(k->entries[mid]->meta, ns, name) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    *ret_there = low < k->n && compare(k->entries[low]->meta, ns, name) == 0;
    return low;
}

void at_state_kind_set(struct at_state_kind *k, const char *ns, const char *name,
                       struct at_state_entry *entry_take)
{
    bool there;
    size_t at = position(k, ns, name, &there);
    if (!there && entry_take == NULL) {
        return;
    }
    at_state_list_unref(k->list);
    k->list = NULL;
    if (there) {
        at_state_entry_unref(k->entries[at]);
    } else {
        if (k->n == k->cap) {
            k->cap = k->cap != 0 ? k->cap * 2 : 16;
            k->entries = at_realloc(k->entries, k->cap * sizeof(k->entries[0]));
        }
        memmove(k->entries + at + 1, k->entries + at, (k->n - at) * sizeof(k->entries[0]));
        k->n++;
    }
    if (entry_take != NULL) {
        k->entries[at] = entry_take;
    } else {
        k->n--;
        memmove(k->entries + at, k->entries + at + 1, (k->n - at) * sizeof(k->entries[0]));
    }
}

struct at_state_list *at_state_kind_list(struct at_state_kind *k)
{
    if (k->list == NULL) {
        struct at_state_list *list = AT_NEW(struct at_state_list);
        list->refs = 1;
        list->n = k->n;
        list->objects = at_alloc(k->n * sizeof(list->objects[0]));
        list->entries = at_alloc(k->n * sizeof(list->entries[0]));
        for (size_t i = 0; i < k->n; i++) {
            list->entries[i] = at_state_entry_ref(k->entries[i]);
            list->objects[i] = at_state_entry_object(k->entries[i]);
        }
        k->list = list;
    }
    k->list->refs++;
    return k->list;
}

struct at_snapshot_box *at_snapshot_box_new(struct at_state_kind kinds[AT_STATE_SLOTS], int64_t rev)
{
    struct at_snapshot_box *box = AT_NEW(struct at_snapshot_box);
    box->refs = 1;
    for (size_t i = 0; i < AT_STATE_SLOTS; i++) {
        box->lists[i] = at_state_kind_list(&kinds[i]);
    }
#define SHOW(field, slot)                                                                          \
    .field = (void *)box->lists[slot]->objects, .n_##field = box->lists[slot]->n
    box->shown = (struct at_snapshot){.rev = rev,
                                      SHOW(sites, AT_STATE_SITES),
                                      SHOW(nodes, AT_STATE_NODES),
                                      SHOW(deployments, AT_STATE_DEPLOYMENTS),
                                      SHOW(instances, AT_STATE_INSTANCES),
                                      SHOW(jobs, AT_STATE_JOBS),
                                      SHOW(policies, AT_STATE_POLICIES),
                                      SHOW(namespaces, AT_STATE_NAMESPACES)};
#undef SHOW
    return box;
}

void at_snapshot_unref(const struct at_snapshot *snap)
{
    if (snap == NULL) {
        return;
    }
    struct at_snapshot_box *box = (struct at_snapshot_box *)(uintptr_t)snap;
    assert(box->refs > 0);
    if (--box->refs != 0) {
        return;
    }
    for (size_t i = 0; i < AT_STATE_SLOTS; i++) {
        at_state_list_unref(box->lists[i]);
    }
    at_free(box);
}

/* Every typed object begins with its metadata. */
static const void *find(const void *const *objects, size_t n, const char *ns, const char *name)
{
    size_t low = 0;
    size_t high = n;
    if (name == NULL) {
        return NULL;
    }
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        int order = compare(objects[mid], ns, name);
        if (order == 0) {
            return objects[mid];
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

const struct at_site *at_snapshot_site(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->sites, snap->n_sites, NULL, name);
}

const struct at_node *at_snapshot_node(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->nodes, snap->n_nodes, NULL, name);
}

const struct at_deployment *at_snapshot_deployment(const struct at_snapshot *snap, const char *ns,
                                                   const char *name)
{
    return find((const void *const *)snap->deployments, snap->n_deployments, ns, name);
}

const struct at_instance *at_snapshot_instance(const struct at_snapshot *snap, const char *ns,
                                               const char *name)
{
    return find((const void *const *)snap->instances, snap->n_instances, ns, name);
}

const struct at_job *at_snapshot_job(const struct at_snapshot *snap, const char *ns,
                                     const char *name)
{
    return find((const void *const *)snap->jobs, snap->n_jobs, ns, name);
}

const struct at_namespace *at_snapshot_namespace(const struct at_snapshot *snap, const char *name)
{
    return find((const void *const *)snap->namespaces, snap->n_namespaces, NULL, name);
}
