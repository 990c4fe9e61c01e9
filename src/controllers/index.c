#include "controllers/controllers_priv.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_BYTES_MAX 800 /* a kind, a namespace and a name */

enum { BY_NODE, BY_SITE, BY_OWNER, GROUPINGS };

struct ctl_index {
    struct at_map *seen; /* "<ns>/<name>" -> struct ctl_seen * */
    struct at_map *groups[GROUPINGS];
    struct ctl_ring pending, unadopted;
    int64_t newest_schedule_ns;
};

static void ring_init(struct ctl_ring *ring)
{
    ring->prev = ring->next = ring;
}

static bool ring_alone(const struct ctl_ring *ring)
{
    return ring->next == ring;
}

static void ring_leave(struct ctl_ring *ring)
{
    ring->prev->next = ring->next;
    ring->next->prev = ring->prev;
    ring_init(ring);
}

static void ring_join(struct ctl_ring *head, struct ctl_ring *ring)
{
    assert(ring_alone(ring));
    ring->prev = head->prev;
    ring->next = head;
    head->prev->next = ring;
    head->prev = ring;
}

struct ctl_index *ctl_index_new(void)
{
    struct ctl_index *index = AT_NEW(struct ctl_index);
    index->seen = at_map_new();
    for (int k = 0; k < GROUPINGS; k++) {
        index->groups[k] = at_map_new();
    }
    ring_init(&index->pending);
    ring_init(&index->unadopted);
    return index;
}

static struct ctl_group *group_join(struct ctl_index *index, int grouping, struct ctl_seen *seen,
                                    const char *name)
{
    struct ctl_group *group = at_map_get(index->groups[grouping], name);
    if (group == NULL) {
        size_t len = strlen(name);
        group = at_alloc(sizeof *group + len + 1);
        memcpy(group->name, name, len);
        (void)at_map_put(index->groups[grouping], name, group);
    }
    struct ctl_link *link = AT_NEW(struct ctl_link);
    *link =
        (struct ctl_link){.group = group, .seen = seen, .next = group->first, .also = seen->links};
    if (group->first != NULL) {
        group->first->prev = link;
    }
    group->first = link;
    group->n++;
    seen->links = link;
    return group;
}

static void group_leave(struct ctl_index *index, struct ctl_link *link)
{
    struct ctl_group *group = link->group;
    *(link->prev != NULL ? &link->prev->next : &group->first) = link->next;
    if (link->next != NULL) {
        link->next->prev = link->prev;
    }
    at_free(link);
    if (--group->n > 0) {
        return;
    }
    for (int k = 0; k < GROUPINGS; k++) {
        if (at_map_get(index->groups[k], group->name) == group) {
            (void)at_map_remove(index->groups[k], group->name);
        }
    }
    at_free(group);
}

/* Add what it counts for to its node and site, or take it away again (sign -1). */
static void count(struct ctl_seen *seen, int64_t sign)
{
    if (seen->counted && seen->node != NULL) {
        seen->node->alive += sign;
        seen->node->cpu_milli += sign * seen->cpu_milli;
        seen->node->memory_bytes += sign * seen->memory_bytes;
        seen->node->disk_bytes += sign * seen->disk_bytes;
        seen->node->gpu_milli += sign * seen->gpu_milli;
    }
    if (seen->counted_at_site && seen->site != NULL) {
        seen->site->alive += sign;
    }
}

/* Out of all groups and rings, as though it were not there. */
static void forget(struct ctl_index *index, struct ctl_seen *seen)
{
    count(seen, -1);
    if (!ring_alone(&seen->ring)) {
        ring_leave(&seen->ring);
    }
    while (seen->links != NULL) {
        struct ctl_link *link = seen->links;
        seen->links = link->also;
        group_leave(index, link);
    }
    seen->node = seen->site = NULL;
    seen->counted = seen->counted_at_site = false;
}

static void owner_name(const char *kind, const char *ns, const char *name, char out[KEY_BYTES_MAX])
{
    snprintf(out, KEY_BYTES_MAX, "%s/%s/%s", ctl_text(kind), ctl_text(ns), ctl_text(name));
}

static void take(struct ctl_index *index, struct ctl_seen *seen, const struct at_instance *i)
{
    const struct at_resources *r = i->spec.resources;
    bool bound = ctl_text(i->spec.node_name)[0] != '\0';
    bool ended = ctl_ended(i);
    seen->counted = bound && !ended;
    seen->counted_at_site = seen->counted && ctl_text(i->status.site)[0] != '\0';
    seen->cpu_milli = r != NULL ? r->cpu_milli : 0;
    seen->memory_bytes = r != NULL ? r->memory_bytes : 0;
    seen->disk_bytes = r != NULL ? r->disk_bytes : 0;
    seen->gpu_milli = r != NULL ? r->gpu_milli : 0;
    if (bound) {
        seen->node = group_join(index, BY_NODE, seen, i->spec.node_name);
    }
    if (ctl_text(i->status.site)[0] != '\0') {
        seen->site = group_join(index, BY_SITE, seen, i->status.site);
    }
    for (size_t k = 0; k < i->meta.owners.n; k++) {
        char name[KEY_BYTES_MAX];
        const struct at_owner_ref *o = &i->meta.owners.items[k];
        owner_name(o->kind, i->meta.ns, o->name, name);
        group_join(index, BY_OWNER, seen, name);
    }
    if (!ended && i->meta.deletion_wall_ns == 0) {
        if (!bound) {
            ring_join(&index->pending, &seen->ring);
        } else if (i->status.scheduled_at_wall_ns == 0) {
            ring_join(&index->unadopted, &seen->ring);
        }
    }
    if (i->status.scheduled_at_wall_ns > index->newest_schedule_ns) {
        index->newest_schedule_ns = i->status.scheduled_at_wall_ns;
    }
    count(seen, 1);
}

static void seen_free(struct ctl_seen *seen)
{
    at_free(seen->owner_item);
    at_free(seen);
}

void ctl_index_put(struct ctl_index *index, const char *key, const struct at_instance *i)
{
    struct ctl_seen *seen = at_map_get(index->seen, key);
    if (seen != NULL) {
        forget(index, seen);
    }
    if (i == NULL) {
        if (seen != NULL) {
            (void)at_map_remove(index->seen, key);
            seen_free(seen);
        }
        return;
    }
    if (seen == NULL) {
        size_t len = strlen(key);
        seen = at_alloc(sizeof *seen + len + 1);
        memcpy(seen->key, key, len);
        seen->name_at = (uint16_t)(strchr(key, '/') + 1 - key);
        ring_init(&seen->ring);
        (void)at_map_put(index->seen, key, seen);
    }
    take(index, seen, i);
}

void ctl_index_free(struct ctl_index *index)
{
    void *value;
    for (size_t it = 0; at_map_next(index->seen, &it, NULL, &value);) {
        forget(index, value);
        seen_free(value);
    }
    at_map_free(index->seen);
    for (int k = 0; k < GROUPINGS; k++) {
        at_map_free(index->groups[k]);
    }
    at_free(index);
}

struct ctl_seen *ctl_index_get(const struct ctl_index *index, const char *key)
{
    return at_map_get(index->seen, key);
}

const struct ctl_group *ctl_index_node(const struct ctl_index *index, const char *name)
{
    return at_map_get(index->groups[BY_NODE], name);
}

const struct ctl_group *ctl_index_site(const struct ctl_index *index, const char *name)
{
    return at_map_get(index->groups[BY_SITE], name);
}

const struct ctl_group *ctl_index_owner(const struct ctl_index *index, const char *kind,
                                        const char *ns, const char *name)
{
    char key[KEY_BYTES_MAX];
    owner_name(kind, ns, name, key);
    return at_map_get(index->groups[BY_OWNER], key);
}

const struct at_instance *ctl_index_instance(const struct at_snapshot *snap,
                                             const struct ctl_seen *seen)
{
    char ns[KEY_BYTES_MAX];
    snprintf(ns, sizeof ns, "%.*s", (int)(seen->name_at - 1), seen->key);
    return at_snapshot_instance(snap, ns, seen->key + seen->name_at);
}

static int by_name(const void *a, const void *b)
{
    const struct at_meta *x = &(*(const struct at_instance *const *)a)->meta;
    const struct at_meta *y = &(*(const struct at_instance *const *)b)->meta;
    int order = strcmp(ctl_text(x->ns), ctl_text(y->ns));
    return order != 0 ? order : strcmp(x->name, y->name);
}

const struct at_instance **ctl_index_list(const struct ctl_group *group,
                                          const struct at_snapshot *snap, struct at_arena *arena,
                                          size_t *ret_n)
{
    size_t n = 0;
    size_t most = group != NULL ? (size_t)group->n : 0;
    const struct at_instance **list = at_arena_alloc(arena, sizeof(*list) * (most + 1));
    assert(list != NULL);
    for (const struct ctl_link *l = most != 0 ? group->first : NULL; l != NULL; l = l->next) {
        const struct at_instance *i = ctl_index_instance(snap, l->seen);
        if (i != NULL) {
            list[n++] = i;
        }
    }
    qsort(list, n, sizeof(*list), by_name);
    *ret_n = n;
    return list;
}

const struct at_instance **ctl_index_waiting(const struct ctl_index *index, bool unadopted,
                                             const struct at_snapshot *snap, struct at_arena *arena,
                                             size_t *ret_n)
{
    const struct ctl_ring *head = unadopted ? &index->unadopted : &index->pending;
    size_t most = 0;
    size_t n = 0;
    for (const struct ctl_ring *at = head->next; at != head; at = at->next) {
        most++;
    }
    const struct at_instance **list = at_arena_alloc(arena, sizeof(*list) * (most + 1));
    assert(list != NULL);
    for (const struct ctl_ring *at = head->next; at != head; at = at->next) {
        const struct at_instance *i = ctl_index_instance(snap, (const struct ctl_seen *)at);
        if (i != NULL) {
            list[n++] = i;
        }
    }
    qsort(list, n, sizeof(*list), by_name);
    *ret_n = n;
    return list;
}

int64_t ctl_index_newest_schedule(const struct ctl_index *index)
{
    return index->newest_schedule_ns;
}
