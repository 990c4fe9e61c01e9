/* The idea: a launch may start while the device is expected to reach it before the slot ends. What
 * then runs over the end is debt, and the next slots open later by that much, so that the average
 * is exact however long kernels are. Estimates come from events that the device stamps. */
#include "interpose/gate.h"

#define MARKER_NS INT64_C(1000000)  /* device time between two markers */
#define MARKER_LAUNCHES_MAX 256     /* so that an estimate made of tiny kernels is soon revised */
#define POLL_NS INT64_C(100000)     /* how soon to look at markers again */
#define DEBT_SLOTS_MAX INT64_C(100) /* more is forgiven: an estimate may have been wrong */
#define ESTIMATE_NS_MAX INT64_C(60000000000)

static bool is_open(const struct gate_turn *turn)
{
    return turn->length <= 0 || turn->length >= turn->period || turn->period <= 0;
}

static int64_t max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* A new slot: those that went by unused pay debt back, then this one does. */
static void enter(struct gate *g, const struct gate_turn *turn, int64_t slot)
{
    int64_t passed = slot - g->slot - 1;
    if (passed > 0) {
        g->debt = passed >= DEBT_SLOTS_MAX ? 0 : max64(0, g->debt - passed * turn->length);
    }
    g->paying = g->debt < turn->length ? g->debt : turn->length;
    g->debt -= g->paying;
    g->over = 0;
    g->slot = slot;
}

int64_t gate_ask(struct gate *g, const struct gate_turn *turn, int kind, int64_t now)
{
    if (is_open(turn)) {
        return 0;
    }
    int64_t since = now - turn->offset;
    int64_t slot = since / turn->period - (since % turn->period < 0 ? 1 : 0);
    if (slot != g->slot) {
        enter(g, turn, slot);
    }
    int64_t start = slot * turn->period + turn->offset;
    int64_t end = start + turn->length;
    int64_t opens = start + g->paying;
    if (now < opens && opens < end) {
        return opens;
    }
    if (now >= end || opens >= end) {
        return start + turn->period;
    }
    if (g->queued > 0 && (g->estimate[kind] == 0 || max64(now, g->queue_end) >= end)) {
        return now + POLL_NS;
    }
    return 0;
}

static int64_t end_of(const struct gate *g, const struct gate_turn *turn)
{
    return g->slot * turn->period + turn->offset + turn->length;
}

/* More than what was counted already is expected to run after the slot's end. */
static void owe(struct gate *g, int64_t over)
{
    if (over > g->over) {
        g->debt += over - g->over;
        g->over = over;
    }
}

void gate_launched(struct gate *g, const struct gate_turn *turn, int kind, int64_t now)
{
    g->queue_end = max64(now, g->queue_end) + g->estimate[kind];
    g->queued++;
    if (!is_open(turn)) {
        owe(g, g->queue_end - end_of(g, turn));
    }
}

/* What another instance left over of its turn delays the first launches of ours, and looks like
 * device time of theirs. So the first are believed when they say less than was thought, and are not
 * charged for; those behind them are taken at their word. */
static void learn(struct gate *g, const struct gate_turn *turn, int kind, int64_t now, int64_t each,
                  const struct gate_group *group)
{
    int64_t old = g->estimate[kind], step = each - old;
    g->estimate[kind] = old + (old == 0        ? each
                               : !group->first ? step / 4
                               : step < 0      ? step / 2
                                               : step / 8);
    if (old > 0 && !group->first && !is_open(turn) && now > end_of(g, turn)) {
        g->debt = max64(0, g->debt + step * group->launches);
    }
}

void gate_finished(struct gate *g, const struct gate_turn *turn, int kind, int64_t now,
                   const struct gate_group *group)
{
    if (group->took >= 0 && group->launches > 0) {
        int64_t each = group->took / group->launches;
        learn(g, turn, kind, now,
              each < 1                 ? 1
              : each > ESTIMATE_NS_MAX ? ESTIMATE_NS_MAX
                                       : each,
              group);
    }
    g->queued = group->behind;
    g->queue_end = now + group->behind * g->estimate[kind];
}

int64_t gate_marker_due(const struct gate *g, int kind)
{
    if (g->estimate[kind] == 0) {
        return 1;
    }
    int64_t n = MARKER_NS / g->estimate[kind];
    return n < 1 ? 1 : n > MARKER_LAUNCHES_MAX ? MARKER_LAUNCHES_MAX : n;
}
