/* What a pending instance waits for: the kinds of change that could lift the refusals it met. */
#include "scheduler/scheduler.h"

#include <assert.h>

static const char *const CHANGE_NAMES[AT_SCHED_CHANGES] = {
    "NodeChange",   "RoomFreed",      "InstancePlaced", "SiteChange",
    "PolicyChange", "CapacityChange", "BudgetChange",
};

const char *at_sched_change_name(enum at_sched_change change)
{
    for (unsigned k = 0; k < AT_SCHED_CHANGES; k++) {
        if ((unsigned)change == 1u << k) {
            return CHANGE_NAMES[k];
        }
    }
    assert(!"one bit of the known ones");
    return "";
}

#define NODE AT_SCHED_CHANGE_NODE
#define ROOM AT_SCHED_CHANGE_ROOM
#define PLACED AT_SCHED_CHANGE_PLACED
#define SITE AT_SCHED_CHANGE_SITE
#define POLICY AT_SCHED_CHANGE_POLICY

/* A node that joins can help whatever is missing, so every rule waits for nodes. */
static const unsigned WAITS[AT_SCHED_RULE_COUNT] = {
    [AT_SCHED_NODE_AFFINITY] = SITE, /* by labels that stand for the site's attributes */
    [AT_SCHED_RESERVED] = AT_SCHED_CHANGE_CAPACITY,
    [AT_SCHED_SITE] = SITE,
    [AT_SCHED_SITE_CLASS] = SITE,
    [AT_SCHED_JURISDICTION] = SITE,
    [AT_SCHED_REGION] = SITE,
    [AT_SCHED_PROVIDER] = SITE,
    [AT_SCHED_POLICY] = POLICY | SITE,
    [AT_SCHED_RESIDENCY] = POLICY | SITE,
    [AT_SCHED_CPU] = ROOM,
    [AT_SCHED_MEMORY] = ROOM,
    [AT_SCHED_DISK] = ROOM,
    [AT_SCHED_GPU] = ROOM,
    [AT_SCHED_GPU_MEMORY] = ROOM,
    [AT_SCHED_TOPOLOGY] = ROOM,
    [AT_SCHED_EXTENDED] = ROOM,
    [AT_SCHED_SPREAD] = ROOM | PLACED | SITE,
    [AT_SCHED_SPREAD_RULE] = ROOM | PLACED | SITE,
    [AT_SCHED_AFFINITY] = PLACED | SITE,
    [AT_SCHED_ANTI_AFFINITY] = ROOM | SITE,
    [AT_SCHED_SITE_LIMIT] = ROOM | SITE,
    [AT_SCHED_GANG] = ROOM,
};

unsigned at_sched_rule_waits_for(enum at_sched_rule rule)
{
    assert(rule < AT_SCHED_RULE_COUNT);
    return WAITS[rule] | NODE;
}
