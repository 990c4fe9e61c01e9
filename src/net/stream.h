/* A byte stream on a loop: TCP, Unix socket, or TLS over either. Reading is by pull (pause/resume),
 * writing is queued with a cap. All on the loop's thread. */
#ifndef AT_NET_STREAM_H
#define AT_NET_STREAM_H

#include "loop/loop.h"
#include "net/tls.h"

struct at_stream;

struct at_stream_events {
    void *ctx;
    void (*on_open)(void *ctx); /* connected and, with TLS, handshake done */
    /* Bytes for the owner: return how many were taken; the rest is shown again with the next bytes
     * or on resume. */
    size_t (*on_data)(void *ctx, const char *data, size_t len);
    void (*on_writable)(void *ctx); /* the write queue has drained below its low mark */
    /* The peer writes no more but may read on; once. The stream stays until the owner ends it.
     * NULL: on_close(AT_EOF) comes instead. A TLS peer says so by close_notify. */
    void (*on_end)(void *ctx);
    /* Once, last: rc AT_EOF orderly end by the peer. The stream is freed after return. */
    void (*on_close)(void *ctx, enum at_rc rc, const struct at_err *err);
};

/* Connect to addr ("host:port" or "unix:/path"). tls may be NULL; server_name for SNI and name
 * check. connect_timeout covers the handshake too. The stream closes itself on error through
 * on_close, never before this call returns. */
struct at_stream *at_stream_connect(struct at_loop *loop, const char *addr,
                                    struct at_tls_config *tls, const char *server_name,
                                    int64_t connect_timeout_ns,
                                    const struct at_stream_events *events);
/* Take an accepted fd. */
struct at_stream *at_stream_accept_take(struct at_loop *loop, int fd, struct at_tls_config *tls,
                                        const struct at_stream_events *events);
/* Queue bytes (copied; written at once when the queue is empty and the socket takes them).
 * err: AT_EXHAUSTED over AT_STREAM_QUEUE_BYTES_MAX, nothing queued; AT_UNAVAILABLE closed. */
enum at_rc at_stream_write(struct at_stream *s, const void *data, size_t len) AT_WARN_UNUSED;
struct iovec;
enum at_rc at_stream_writev(struct at_stream *s, const struct iovec *iov, int n) AT_WARN_UNUSED;
size_t at_stream_queued_bytes(const struct at_stream *s);
void at_stream_pause(struct at_stream *s); /* stop reading */
void at_stream_resume(
    struct at_stream *s); /* read again; data left over is shown first, from the loop */
void at_stream_end(
    struct at_stream *s); /* write what is queued, then close; on_close follows with AT_OK */
/* Write what is queued, then say that nothing more comes (TLS: by close_notify); reading goes on.
 * at_stream_end follows once the owner has read enough. Writing after it: AT_UNAVAILABLE. */
void at_stream_end_half(struct at_stream *s);
void at_stream_close(
    struct at_stream *s); /* at once; on_close(AT_CANCELLED) follows from the loop */
void at_stream_set_events(struct at_stream *s, const struct at_stream_events *events);
const struct at_tls_peer *at_stream_peer(const struct at_stream *s); /* NULL without TLS */
const char *at_stream_peer_addr(const struct at_stream *s);
int at_stream_fd(const struct at_stream *s);
/* In on_close: bytes that were written here and that the peer's machine has taken. false: not known
 * (TLS, Unix sockets). */
bool at_stream_acked(const struct at_stream *s, uint64_t *ret);
void at_stream_set_peer_addr(struct at_stream *s, const char *addr); /* what accept(2) said */
/* While corked, writes are only queued (up to some tens of kB); uncork sends them in one call. */
void at_stream_cork(struct at_stream *s);
void at_stream_uncork(struct at_stream *s);
/* Close and free at once, without on_close. From within the stream's own callbacks too: it then
 * lives until they return. Accepts NULL. */
void at_stream_free(struct at_stream *s);

#define AT_STREAM_QUEUE_BYTES_MAX ((size_t)64 << 20)
#define AT_STREAM_LOW_MARK_BYTES ((size_t)256 << 10)

#endif
