/* Whose end would make room on a node: for people to read, when nothing fits. Unlike preempt.c it
 * also tells of those that may not be taken, and what keeps them. */
#include "scheduler/disruption.h"
#include "scheduler/engine.h"
#include "scheduler/near.h"
#include "scheduler/room.h"

#include <stdlib.h>
#include <string.h>

#define VICTIMS_MAX 16
#define MATES_MAX 64  /* of their gangs; more are not named */
#define LOWER_MAX 256 /* of a node; more are not looked at */

struct makers {
    struct sched *s;
    const struct sched_turn *turn;
    struct sched_node after; /* a copy whose room is changed */
    struct sched_item *all[LOWER_MAX];
    size_t n_all;
    const struct at_instance **out; /* on the node, then mates elsewhere that end with them */
    const struct sched_gang *gangs[VICTIMS_MAX]; /* of those on the node; NULL: none */
    size_t n_out, n_mates;
};

static int by_worth(const void *a, const void *b)
{
    const struct at_instance *x = (*(struct sched_item *const *)a)->instance;
    const struct at_instance *y = (*(struct sched_item *const *)b)->instance;
    if (x->spec.priority != y->spec.priority) {
        return x->spec.priority < y->spec.priority ? -1 : 1;
    }
    if (x->status.scheduled_at_wall_ns != y->status.scheduled_at_wall_ns) {
        return x->status.scheduled_at_wall_ns > y->status.scheduled_at_wall_ns ? -1 : 1;
    }
    int c = strcmp(x->meta.name, y->meta.name);
    return c != 0
               ? c
               : strcmp(x->meta.ns != NULL ? x->meta.ns : "", y->meta.ns != NULL ? y->meta.ns : "");
}

static void give(struct makers *m, const struct sched_item *item)
{
    sched_give_back(&m->after, &item->request->demand, item->gpus, item->n_gpus);
}

static void take_again(struct makers *m, const struct sched_item *item)
{
    sched_take(&m->after, &item->request->demand, item->gpus, item->n_gpus);
}

static enum at_rc begin(struct makers *m, const struct sched_node *n)
{
    struct at_arena *arena = m->s->arena;
    m->after = *n;
    m->after.gpus = at_arena_alloc(arena, sizeof(*n->gpus) * (n->n_gpus + 1));
    m->after.extended = at_arena_alloc(arena, sizeof(*n->extended) * (n->n_extended + 1));
    m->out = at_arena_alloc(arena, sizeof(*m->out) * (VICTIMS_MAX + MATES_MAX));
    if (m->after.gpus == NULL || m->after.extended == NULL || m->out == NULL) {
        return AT_NOMEM;
    }
    if (n->n_gpus > 0) {
        memcpy(m->after.gpus, n->gpus, sizeof(*n->gpus) * n->n_gpus);
    }
    if (n->n_extended > 0) {
        memcpy(m->after.extended, n->extended, sizeof(*n->extended) * n->n_extended);
    }
    for (const struct sched_item *i = n->first; i != NULL; i = i->next) {
        if (sched_is_leaving(i)) {
            give(m, i); /* it needs nobody's help for that */
        }
    }
    return AT_OK;
}

/* What is on the node and of lower priority, the least worth first. */
static void collect(struct makers *m, const struct sched_node *n, bool with_kept)
{
    m->n_all = 0;
    for (struct sched_item *i = n->first; i != NULL && m->n_all < LOWER_MAX; i = i->next) {
        if (i->instance != NULL && !sched_is_leaving(i) &&
            i->instance->spec.priority < m->turn->instance->spec.priority &&
            (with_kept || sched_budget_left(m->s, i->instance) > 0) &&
            !sched_near_misses(m->s, m->turn, n, &i->instance, 1)) {
            m->all[m->n_all++] = i;
        }
    }
    if (m->n_all > 1) {
        qsort(m->all, m->n_all, sizeof(m->all[0]), by_worth);
    }
}

static bool has_room(const struct makers *m)
{
    return sched_refuse_room(m->turn->request, &m->after) == AT_SCHED_RULE_COUNT;
}

/* Those that must go so that it fits; none: not even all of them would do. */
static void choose(struct makers *m)
{
    size_t gone = 0;
    m->n_out = 0;
    while (gone < m->n_all && !has_room(m)) {
        give(m, m->all[gone++]);
    }
    bool enough = has_room(m);
    for (size_t k = gone; k-- > 0;) { /* those worth most stay when it fits all the same */
        take_again(m, m->all[k]);
        if (enough && !has_room(m)) {
            if (m->n_out == VICTIMS_MAX) {
                enough = false;
                continue;
            }
            give(m, m->all[k]);
            m->gangs[m->n_out] = m->all[k]->gang;
            m->out[m->n_out++] = m->all[k]->instance;
        }
    }
    m->n_out = enough ? m->n_out : 0;
}

static bool is_named(const struct makers *m, const struct at_instance *i)
{
    for (size_t k = 0; k < m->n_out + m->n_mates; k++) {
        if (m->out[k] == i) {
            return true;
        }
    }
    return false;
}

/* Of a gang all members go. */
static void add_mates(struct makers *m)
{
    m->n_mates = 0;
    for (size_t k = 0; k < m->n_out; k++) {
        for (size_t i = 0; m->gangs[k] != NULL && i < m->gangs[k]->n; i++) {
            const struct sched_item *mate = m->gangs[k]->items[i];
            if (mate->node != NULL && mate->instance != NULL && !sched_is_leaving(mate) &&
                m->n_mates < MATES_MAX && !is_named(m, mate->instance)) {
                m->out[m->n_out + m->n_mates++] = mate->instance;
            }
        }
    }
}

/* The owner whose disruption budget keeps one of them. NULL: none does. */
static const struct at_owner_ref *keeper(const struct makers *m)
{
    size_t all = m->n_out + m->n_mates;
    for (size_t k = 0; k < all; k++) {
        int64_t left = sched_budget_left(m->s, m->out[k]), n = 0;
        const struct at_owner_ref *owner = at_meta_controller(&m->out[k]->meta);
        for (size_t j = 0; j < all && owner != NULL; j++) {
            const struct at_owner_ref *other = at_meta_controller(&m->out[j]->meta);
            n += other != NULL && at_streq(other->uid, owner->uid) &&
                 at_disruption_is_available(m->out[j]);
        }
        if (n > left) {
            return owner;
        }
    }
    return NULL;
}

/* Is the owner of the asker's own namespace? */
static bool is_own(const struct makers *m, const struct at_owner_ref *owner)
{
    for (size_t k = 0; k < m->n_out + m->n_mates; k++) {
        const struct at_owner_ref *of = at_meta_controller(&m->out[k]->meta);
        if (of != NULL && at_streq(of->uid, owner->uid)) {
            return at_streq(m->out[k]->meta.ns, m->turn->instance->meta.ns);
        }
    }
    return false;
}

/* Those of its own namespace by name; of others nobody learns more than how many they are. */
static const char *names(const struct makers *m, const char *text, const char *before, size_t from,
                         size_t to)
{
    size_t told = 0, others = 0;
    for (size_t k = from; k < to && text != NULL; k++) {
        const struct at_meta *meta = &m->out[k]->meta;
        if (!at_streq(meta->ns, m->turn->instance->meta.ns)) {
            others++;
            continue;
        }
        text = at_arena_printf(m->s->arena, "%s%s %s/%s", text, told++ > 0 ? "," : before,
                               meta->ns != NULL ? meta->ns : "", meta->name);
    }
    if (text != NULL && others > 0) {
        text = at_arena_printf(m->s->arena, "%s%s %zu of other namespaces", text,
                               told > 0 ? "," : before, others);
    }
    return text;
}

static const char *say(const struct makers *m, const struct sched_node *n)
{
    struct at_arena *arena = m->s->arena;
    const char *text =
        at_arena_printf(arena, "the end of %zu instance%s of lower priority on %s would make room",
                        m->n_out, m->n_out == 1 ? "" : "s", n->node->meta.name);
    text = names(m, text, ":", 0, m->n_out);
    if (text != NULL && m->n_mates > 0) {
        text = at_arena_printf(arena, "%s; with %s end%s the other%s of the gang", text,
                               m->n_out == 1 ? "it" : "them", m->n_mates == 1 ? "s" : "",
                               m->n_mates == 1 ? "" : "s");
        text = names(m, text, ":", m->n_out, m->n_out + m->n_mates);
    }
    const struct at_owner_ref *owner = keeper(m);
    if (text != NULL && at_streq(m->turn->instance->spec.preemption_policy, "Never")) {
        return at_arena_printf(arena, "%s; preemptionPolicy Never leaves them alone", text);
    }
    if (owner != NULL && !is_own(m, owner)) {
        return at_arena_printf(arena, "%s; a disruption budget does not allow it now", text);
    }
    return text == NULL || owner == NULL
               ? text
               : at_arena_printf(arena, "%s; the disruption budget of %s %s does not allow it now",
                                 text, owner->kind, owner->name);
}

enum at_rc sched_find_makers(struct sched *s, const struct sched_turn *turn,
                             const struct sched_node *node, struct at_sched_remedy *ret)
{
    struct makers m = {.s = s, .turn = turn};
    if (begin(&m, node) != AT_OK) {
        return AT_NOMEM;
    }
    collect(&m, node, false); /* if possible, as preemption would do it */
    choose(&m);
    add_mates(&m);
    if (m.n_out == 0 || keeper(&m) != NULL) {
        if (begin(&m, node) != AT_OK) {
            return AT_NOMEM;
        }
        collect(&m, node, true);
        choose(&m);
        add_mates(&m);
    }
    if (m.n_out == 0 || sched_near_misses(s, turn, node, m.out, m.n_out + m.n_mates)) {
        return AT_OK;
    }
    *ret = (struct at_sched_remedy){.kind = "Preempt",
                                    .message = say(&m, node),
                                    .node = node->node->meta.name,
                                    .nodes = 1,
                                    .instances = m.out,
                                    .n_instances = m.n_out + m.n_mates};
    return ret->message != NULL ? AT_OK : AT_NOMEM;
}
