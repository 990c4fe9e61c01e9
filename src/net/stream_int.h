/* Inside of a stream: what stream.c (life and reading) and stream_write.c share. */
#ifndef AT_NET_STREAM_INT_H
#define AT_NET_STREAM_INT_H

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
    bool peer_done;   /* it has ended its side while we were ending ours */
    struct at_buf in; /* shown but not taken */
    struct at_buf raw; /* ciphertext not fed yet */
    struct at_buf plain_out;
    size_t out_pos; /* sent part of the output buffer */
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
/* stream_write.c */
void at_stream_flush(struct at_stream *s); /* sends what is queued, as far as the socket takes it */

#endif
