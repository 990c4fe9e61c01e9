/* Inside of a stream: what stream.c (life and reading) and stream_write.c share. */
#ifndef AT_NET_STREAM_INT_H
#define AT_NET_STREAM_INT_H

#include "loop/io.h"
#include "net/limits.h"
#include "net/stream.h"
#include "net/tls_priv.h"
#include "sys/socket.h"

enum state { ST_CONNECTING, ST_HANDSHAKE, ST_OPEN, ST_ENDING, ST_LINGER, ST_CLOSED };

enum task { TASK_OPEN = 1, TASK_SHOW = 2, TASK_CLOSE = 4 };

struct at_stream {
    struct at_loop *loop;
    struct at_stream_events ev;
    struct at_tls_session *tls;
    at_watch_id watch;
    struct at_io *io; /* instead of the watch once connected, where the loop has it */
    struct at_loop_task send_task;
    at_timer_id timer; /* connecting, ending, lingering: one at a time */
    at_timer_id task_timer;
    int fd;
    enum state state;
    unsigned interest;
    unsigned tasks;
    unsigned corks;
    bool paused;
    bool held;        /* TLS: input may be waiting in the session or in raw */
    bool blocked;     /* the socket took less than we had; waiting for AT_LOOP_WRITE */
    bool broken;      /* writing failed: what the peer sent is still read */
    bool in_event;    /* the loop's call into this file is running: memory stays until it returns */
    bool gone;        /* to be released then */
    bool peer_done;   /* it has ended its side while we were ending ours, or were told by on_end */
    bool half_ended;  /* at_stream_end_half was called */
    bool half_sent;   /* and the end of our side is on its way */
    struct at_buf in; /* shown but not taken */
    struct at_buf raw; /* ciphertext not fed yet */
    struct at_buf plain_out;
    uint64_t acked; /* by the peer's machine, when the stream had ended */
    bool has_acked;
    size_t out_pos;    /* sent part of the output buffer */
    enum at_rc end_rc; /* with io: reading ended so while paused */
    enum at_rc close_rc;
    struct at_err *close_err;
    char peer[AT_ADDR_TEXT_BYTES_MAX];
};

static inline struct at_buf *at_stream_out(struct at_stream *s)
{
    return s->tls != NULL ? at_tls_session_output(s->tls) : &s->plain_out;
}

/* stream.c */
void at_stream_set_interest(struct at_stream *s, unsigned events);
/* Give the stream up, soon: for failures seen inside the owner's calls. The first reason counts. */
void at_stream_finish_later(struct at_stream *s, enum at_rc rc, const struct at_err *err);
void at_stream_enter(struct at_stream *s); /* around what the loop calls */
void at_stream_leave(struct at_stream *s);
bool at_stream_feed(struct at_stream *s, const char *data, size_t len); /* false: it is gone */
void at_stream_read_end(struct at_stream *s, enum at_rc rc);
void at_stream_half_look(struct at_stream *s); /* all sent: end our side if that is wanted */
/* The queue was before bytes long and some of it was sent. False: the stream is gone. */
bool at_stream_drained(struct at_stream *s, size_t before);
/* stream_write.c */
void at_stream_flush(struct at_stream *s); /* sends what is queued, as far as the socket takes it */
void at_stream_break(struct at_stream *s); /* writing is over, reading goes on */
/* stream_io.c */
void at_stream_io_open(struct at_stream *s);
void at_stream_io_close(struct at_stream *s);
void at_stream_io_flush(struct at_stream *s); /* at the end of the turn */

#endif
