/* Streams on loops with io_uring: bytes come by themselves, and what is written in a turn is sent
 * at its end, with what other streams send, in one system call. */
#include "core/mem.h"
#include "net/stream_int.h"

#include <assert.h>

static void on_received(void *ctx, enum at_rc rc, const char *data, size_t len)
{
    struct at_stream *s = ctx;
    at_stream_enter(s);
    if (s->paused && s->state == ST_OPEN) {
        /* Came before the kernel was told. TLS keeps it as it is, for at_stream_feed sees that. */
        at_stream_set_interest(s, s->interest & ~AT_LOOP_READ);
        if (rc != AT_OK) {
            s->end_rc = rc;
        } else if (s->tls != NULL) {
            at_stream_feed(s, data, len);
        } else if (at_buf_append(&s->in, data, len) != AT_OK) {
            struct at_err err;
            at_err_set(&err, AT_EXHAUSTED, "input that nobody takes");
            at_stream_finish_later(s, AT_EXHAUSTED, &err);
        }
    } else if (rc != AT_OK) {
        at_stream_read_end(s, rc);
    } else {
        at_stream_feed(s, data, len);
    }
    at_stream_leave(s);
}

static void on_sent(void *ctx, enum at_rc rc)
{
    struct at_stream *s = ctx;
    at_stream_enter(s);
    if (rc != AT_OK) {
        at_stream_break(s);
    } else {
        size_t before = at_stream_queued_bytes(s);
        if (before > 0) {
            at_stream_io_flush(s);
        }
        at_stream_drained(s, before + AT_STREAM_LOW_MARK_BYTES + 1);
    }
    at_stream_leave(s);
}

static void on_turn_end(void *ctx)
{
    struct at_stream *s = ctx;
    struct at_buf *out = at_stream_out(s);
    bool held_back = s->corks > 0 && out->len <= AT_STREAM_CORK_BYTES_MAX;
    if (s->broken || held_back || out->len == 0 || at_io_sending_bytes(s->io) > 0) {
        return; /* on_sent or the last uncork comes again */
    }
    assert(s->out_pos == 0);
    at_io_send_take(s->io, out);
}

void at_stream_io_flush(struct at_stream *s)
{
    at_loop_at_end(s->loop, &s->send_task);
}

void at_stream_io_open(struct at_stream *s)
{
    struct at_io_events events = {.ctx = s, .on_received = on_received, .on_sent = on_sent};
    s->send_task = (struct at_loop_task){.fn = on_turn_end, .ctx = s};
    s->interest = AT_LOOP_READ;
    s->io = at_io_open(s->loop, s->fd, &events);
    if (at_stream_queued_bytes(s) > 0) { /* written before it was connected */
        at_stream_io_flush(s);
    }
}

/* What was written in this turn would have been sent at once elsewhere. */
static void send_last(struct at_stream *s)
{
    const struct at_buf *out = at_stream_out(s);
    if (!s->broken && out->len > 0 && at_io_sending_bytes(s->io) == 0) {
        size_t sent;
        (void)!at_sock_write(s->fd, out->data, out->len, &sent);
    }
}

void at_stream_io_close(struct at_stream *s)
{
    if (s->io != NULL) {
        send_last(s);
        at_loop_at_end_cancel(s->loop, &s->send_task);
        at_io_close(s->io);
        s->io = NULL;
    }
}
