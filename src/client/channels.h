/* Numbered byte channels over one WebSocket to the API server (channel.k8s.io): commands beside an
 * instance, connections to its port. All on the loop's thread. */
#ifndef AT_CLIENT_CHANNELS_H
#define AT_CLIENT_CHANNELS_H

#include "client/client.h"

#define AT_CHANNELS_V5 "v5.channel.k8s.io" /* says when a channel ends */
#define AT_CHANNELS_V4 "v4.channel.k8s.io"

struct at_channels;

struct at_channels_events {
    void *ctx;
    void (*on_open)(void *ctx); /* the server agreed; may be NULL */
    void (*on_data)(void *ctx, unsigned channel, const char *data, size_t len);
    void (*on_writable)(void *ctx); /* what was queued is gone; may be NULL */
    /* Once, last, never before at_channels_open returns. rc AT_EOF: the server closed it in order;
     * else what it said instead of agreeing, or how the connection broke. */
    void (*on_close)(void *ctx, enum at_rc rc, const struct at_err *err);
};

/* Open path (with its query) at the server in use, by one of the protocols (words with commas).
 * own: at_channels_free, also after on_close, also from within the callbacks. */
struct at_channels *at_channels_open(struct at_client *client, const char *path,
                                     const char *protocols,
                                     const struct at_channels_events *events);
/* Bytes for a channel; copied. err: AT_UNAVAILABLE not open (any more); AT_EXHAUSTED too much is
 * queued: wait for on_writable. */
enum at_rc at_channels_send(struct at_channels *c, unsigned channel, const void *data,
                            size_t len) AT_WARN_UNUSED;
/* Nothing more comes on it. Older protocols cannot say so: nothing happens. err: as above. */
enum at_rc at_channels_send_end(struct at_channels *c, unsigned channel) AT_WARN_UNUSED;
size_t at_channels_queued_bytes(const struct at_channels *c);
void at_channels_pause(struct at_channels *c); /* stop reading */
void at_channels_resume(struct at_channels *c);
void at_channels_free(struct at_channels *c); /* accepts NULL */

#endif
