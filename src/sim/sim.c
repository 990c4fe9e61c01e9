#include "sim/sim.h"

#include "core/mem.h"

#include <string.h>
#include <sys/epoll.h>

struct at_sim {
    struct at_sys sys;
    int64_t now_ns, stepped_ns;
    uint64_t polls;
    uint64_t random_state;
};

/* splitmix64, Steele, Lea and Flood, OOPSLA 2014. */
static uint64_t next_random(struct at_sim *sim)
{
    uint64_t z = sim->random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static int64_t sim_mono_ns(void *ctx)
{
    return ((struct at_sim *)ctx)->now_ns;
}

static int64_t sim_wall_ns(void *ctx)
{
    const struct at_sim *sim = ctx;
    return AT_SIM_WALL_START_NS + sim->now_ns + sim->stepped_ns;
}

void at_sim_step_wall(struct at_sim *sim, int64_t by_ns)
{
    sim->stepped_ns += by_ns;
}

static void sim_random(void *ctx, void *out, size_t len)
{
    unsigned char *p = out;
    while (len > 0) {
        uint64_t r = next_random(ctx);
        size_t n = len < sizeof r ? len : sizeof r;
        memcpy(p, &r, n);
        p += n;
        len -= n;
    }
}

/* Descriptors that are ready come first, at no cost of time; otherwise the clock jumps to the
 * deadline. Without a deadline only the outside can go on: wait for it in earnest. */
static int sim_poll(void *ctx, int epfd, void *epoll_events, int n_events_max,
                    int64_t deadline_mono_ns)
{
    struct at_sim *sim = ctx;
    sim->polls++;
    bool for_ever = deadline_mono_ns == INT64_MAX;
    int n = epoll_wait(epfd, epoll_events, n_events_max, for_ever ? -1 : 0);
    if (n > 0) {
        return n;
    }
    if (!for_ever && deadline_mono_ns > sim->now_ns) {
        sim->now_ns = deadline_mono_ns;
    }
    return 0;
}

struct at_sim *at_sim_new(uint64_t seed)
{
    struct at_sim *sim = AT_NEW(struct at_sim);
    sim->random_state = seed;
    sim->sys = (struct at_sys){
        .ctx = sim,
        .mono_ns = sim_mono_ns,
        .wall_ns = sim_wall_ns,
        .random = sim_random,
        .poll = sim_poll,
    };
    return sim;
}

void at_sim_free(struct at_sim *sim)
{
    at_free(sim);
}

const struct at_sys *at_sim_sys(struct at_sim *sim)
{
    return &sim->sys;
}

int64_t at_sim_now_ns(const struct at_sim *sim)
{
    return sim->now_ns;
}

uint64_t at_sim_polls(const struct at_sim *sim)
{
    return sim->polls;
}
