#ifndef AT_LOOP_LIMITS_H
#define AT_LOOP_LIMITS_H

#define AT_LOOP_POSTS_MAX 65536   /* posts that wait for the loop */
#define AT_LOOP_EVENTS_MAX 256    /* descriptors served in one turn */
#define AT_LOOP_SLOTS_MAX 1000000 /* watches, timers: each */
#define AT_POOL_THREADS_MAX 256

#endif
