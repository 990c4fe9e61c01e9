/* What the controllers remember of every instance, so that nobody has to look at all of them: which
 * are on a node, which an owner has, which wait for placement, and the sums that nodes and sites
 * tell. Brought up to date by route.c for each instance that changed, before any pass: so in a pass
 * it agrees with the snapshot. Names are kept, not objects: the snapshot has those. */
#ifndef AT_CONTROLLERS_INDEX_H
#define AT_CONTROLLERS_INDEX_H

#include "core/map.h"
#include "state/snapshot.h"

struct ctl_index;
struct ctl_seen;

/* A node, a site, or an owner ("<kind>/<ns>/<name>"): the instances that name it. */
struct ctl_group {
    struct ctl_link *first;
    int64_t n;
    int64_t alive; /* of a node: those that have not ended; of a site: those that are bound, too */
    int64_t cpu_milli, memory_bytes, disk_bytes, gpu_milli; /* reserved by them, on a node */
    char name[];
};

/* An instance in a group. */
struct ctl_link {
    struct ctl_group *group;
    struct ctl_seen *seen;
    struct ctl_link *prev, *next; /* in the group */
    struct ctl_link *also;        /* of the instance */
};

/* In a ring with its list's head: waiting for a node, or bound by hand and not yet adopted. */
struct ctl_ring {
    struct ctl_ring *prev, *next;
};

struct ctl_seen {
    struct ctl_ring ring; /* alone when it waits for nothing; first member */
    struct ctl_link *links;
    struct ctl_group *node, *site; /* of links; NULL: none */
    bool counted, counted_at_site;
    int64_t cpu_milli, memory_bytes, disk_bytes, gpu_milli; /* counted */
    int64_t pending_since_ns;                               /* 0: not pending */
    int64_t gpu_refused;                                    /* allocations, when it was told last */
    int64_t parks, resumes;                                 /* the same of them */
    int64_t there_ns;                                       /* that it serves from its GPU since */
    bool there, parked, park_said;
    uint64_t told;    /* digest of the reason that was told last; 0: none */
    char *owner_item; /* "<d|j>/<ns>/<name>" of the Deployment or Job that it belongs to, or NULL */
    uint16_t name_at;
    char key[]; /* "<ns>/<name>" */
};

struct ctl_index *ctl_index_new(void);
void ctl_index_free(struct ctl_index *index);
struct ctl_seen *ctl_index_get(const struct ctl_index *index, const char *key); /* NULL: none */
/* The instance is now like this; NULL: it has gone, as has its record after this. */
void ctl_index_put(struct ctl_index *index, const char *key, const struct at_instance *i);

/* NULL: no instance names it. */
const struct ctl_group *ctl_index_node(const struct ctl_index *index, const char *name);
const struct ctl_group *ctl_index_site(const struct ctl_index *index, const char *name);
const struct ctl_group *ctl_index_owner(const struct ctl_index *index, const char *kind,
                                        const char *ns, const char *name);
/* The instance of a link as the snapshot has it. cost: a binary search. */
const struct at_instance *ctl_index_instance(const struct at_snapshot *snap,
                                             const struct ctl_seen *seen);
/* The instances of a group (NULL: none) by name. own: arena. */
const struct at_instance **ctl_index_list(const struct ctl_group *group,
                                          const struct at_snapshot *snap, struct at_arena *arena,
                                          size_t *ret_n);
/* Those that wait for a node, or (unadopted) are on one that nobody has given them, by name. */
const struct at_instance **ctl_index_waiting(const struct ctl_index *index, bool unadopted,
                                             const struct at_snapshot *snap, struct at_arena *arena,
                                             size_t *ret_n);
/* The newest scheduledAt that was ever seen. */
int64_t ctl_index_newest_schedule(const struct ctl_index *index);

#endif
