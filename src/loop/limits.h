#ifndef AT_LOOP_LIMITS_H
#define AT_LOOP_LIMITS_H

#define AT_LOOP_POSTS_MAX 65536   /* posts that wait for the loop */
#define AT_LOOP_EVENTS_MAX 256    /* descriptors served in one turn */
#define AT_LOOP_SLOTS_MAX 1000000 /* watches, timers: each */
#define AT_POOL_THREADS_MAX 256
/* io_uring: what one turn may submit before it is flushed early, completions that may wait, and
 * the buffers (a power of two) that the kernel fills; all of a loop, 4 MiB. */
#define AT_LOOP_SUBMISSIONS_MAX 1024
#define AT_LOOP_COMPLETIONS_MAX 8192
#define AT_LOOP_BUFFERS 512
#define AT_LOOP_BUFFER_BYTES 8192
#define AT_LOOP_SEND_KEEP_BYTES_MAX 16384 /* of a send buffer, kept between sends */

#endif
