/* A simulated machine for loops: time that passes only when nobody has anything to do, randomness
 * from a seed. The same seed gives the same run. */
#ifndef AT_SIM_SIM_H
#define AT_SIM_SIM_H

#include "sys/sys.h"

struct at_sim;

#define AT_SIM_WALL_START_NS INT64_C(1767225600000000000) /* 2026-01-01T00:00:00Z */

struct at_sim *at_sim_new(uint64_t seed);
void at_sim_free(struct at_sim *sim);
/* The table for at_loop_new. own: sim. */
const struct at_sys *at_sim_sys(struct at_sim *sim);
int64_t at_sim_now_ns(const struct at_sim *sim); /* since the start */
/* The wall clock is stepped, forwards or back; the monotonic one goes on. */
void at_sim_step_wall(struct at_sim *sim, int64_t by_ns);
uint64_t at_sim_polls(const struct at_sim *sim); /* times that a loop asked to wait */

#endif
