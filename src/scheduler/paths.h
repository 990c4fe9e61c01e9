/* The sites' network: from each site to each other the fastest way over links. Pure. */
#ifndef AT_SCHEDULER_PATHS_H
#define AT_SCHEDULER_PATHS_H

#include "model/model.h"

struct sched_net;

struct sched_path {
    bool known;                  /* false: no way over links */
    int64_t latency_ns;          /* round trip, summed over its links */
    int64_t egress_microusd_gib; /* price of a GiB sent this way, summed */
    int64_t mbps;                /* of its slowest link; 0: nobody told */
};

/* sites[0..n): NULL where the object is missing; all borrowed as long as the net lives. A link
 * holds both ways, unless the other end names one of its own. own: sched_net_free.
 * cost: O(links); the ways from one site are found when they are first asked for. */
struct sched_net *sched_net_new(const struct at_site *const *sites, size_t n);
void sched_net_free(struct sched_net *net);
/* From the site of this name to the sites 0..n; NULL: no such site. */
const struct sched_path *sched_net_from(struct sched_net *net, const char *site_name);

#endif
