/* Connected sockets driven by completions, on loops whose back end is io_uring: bytes come without
 * being asked for, into buffers that the loop owns, and what is sent in one turn goes to the kernel
 * in one call. Elsewhere sockets are watched (loop.h). All on the loop's thread. */
#ifndef AT_LOOP_IO_H
#define AT_LOOP_IO_H

#include "core/buf.h"
#include "loop/loop.h"

struct at_io;

/* Called from the turn only, never from within a call of the owner. */
struct at_io_events {
    void *ctx;
    /* AT_OK: data[0..len) is borrowed until return, len > 0. AT_EOF, AT_UNAVAILABLE: nothing more
     * comes; once. Some more may come after at_io_receive(io, false). */
    void (*on_received)(void *ctx, enum at_rc rc, const char *data, size_t len);
    void (*on_sent)(void *ctx, enum at_rc rc); /* all of it; AT_UNAVAILABLE broken */
};

bool at_io_is_possible(const struct at_loop *loop);
/* Receives from the end of this turn on. fd stays the caller's, who closes it after at_io_close.
 * own: at_io_close. */
struct at_io *at_io_open(struct at_loop *loop, int fd, const struct at_io_events *events);
void at_io_receive(struct at_io *io, bool on);
/* Send what out holds; out gets an empty buffer for it. One at a time: on_sent tells the end. */
void at_io_send_take(struct at_io *io, struct at_buf *out);
size_t at_io_sending_bytes(const struct at_io *io); /* 0: none under way */
/* No callback comes any more; what is under way is cancelled. Accepts NULL. */
void at_io_close(struct at_io *io);

#endif
