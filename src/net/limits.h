/* Named limits of the folder that are no part of a contract. */
#ifndef AT_NET_LIMITS_H
#define AT_NET_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_MS ((int64_t)1000000)
#define AT_S ((int64_t)1000000000)

#define AT_STREAM_READ_BYTES 32768         /* one read(2) */
#define AT_STREAM_READS_PER_TURN_MAX 4     /* then other connections get their turn */
#define AT_STREAM_IOV_MAX 7                /* pieces of one at_stream_writev */
#define AT_STREAM_JOIN_BYTES_MAX 8192      /* pieces of a write copied together */
#define AT_STREAM_GATHER_BYTES_MAX 16384   /* larger writes are sent at once, not gathered */
#define AT_STREAM_CORK_BYTES_MAX 65536     /* corked streams send when they hold more */
#define AT_STREAM_IDLE_BYTES_MAX 16384     /* buffers larger than this are given back when empty */
#define AT_STREAM_LINGER_NS (1 * AT_S)     /* reading on after the end was sent */
#define AT_STREAM_END_NS (30 * AT_S)       /* sending the rest after at_stream_end */
#define AT_STREAM_HANDSHAKE_NS (10 * AT_S) /* accepted TLS connections */
#define AT_TLS_RECORD_BYTES 16384          /* RFC 8446 §5.1 */
#define AT_TLS_OVERHEAD_BYTES 32           /* of a record: head, content type, tag */
#define AT_TLS_JOIN_BYTES_MAX 8192         /* pieces of a write copied into one record */

#define AT_HTTP_BACKLOG 1024
#define AT_HTTP_TLS_CONNECT_TIMES 5 /* a client's time to connect, with a handshake */
#define AT_HTTP_ACCEPTS_PER_TURN_MAX 64
#define AT_HTTP_ACCEPT_AGAIN_NS (100 * AT_MS) /* after accept(2) failed for want of something */
#define AT_HTTP_REFUSALS_MAX 64               /* connections over the maximum that are told so */
#define AT_HTTP_CONNECTIONS_MAX_DEFAULT 10000
#define AT_HTTP_BODY_BYTES_MAX_DEFAULT ((size_t)16 << 20)
#define AT_HTTP_STREAM_QUEUE_BYTES_MAX ((size_t)16 << 20) /* per streamed answer */
/* Who holds an answer for so long is cut off when the server's memory for answers is spent. */
#define AT_HTTP_SLOW_NS (2 * AT_S)
#define AT_HTTP_SMALL_ANSWER_BYTES 16384    /* always given */
#define AT_HTTP_UPLOAD_BYTES_PER_S_MIN 1024 /* of a body that is taken as it comes, on average */
#define AT_HTTP_KEEP_BYTES_MAX 32768        /* buffers kept by idle connections */
/* Some servers close behind an answer in chunks without saying so: until one is seen to keep its
 * connections for so long, none is used again sooner. */
#define AT_HTTP_REST_NS (500 * AT_MS)
#define AT_HTTP_RESTING_MAX 16 /* per address; the others are closed */

#define AT_H2_STREAMS_MAX 250             /* at once, per connection */
#define AT_H2_WINDOW_BYTES (1 << 20)      /* a client may send ahead so much, per stream */
#define AT_H2_CONN_WINDOW_BYTES (4 << 20) /* and per connection */
#define AT_H2_STREAM_QUEUE_LOW_BYTES ((size_t)64 << 10) /* then a streamed answer may go on */
#define AT_H2_FLUSH_BYTES_MAX ((size_t)256 << 10)       /* frames made ahead of the socket */
#define AT_H2_UPLOAD_BYTES_MAX ((size_t)16 << 20)       /* then a connection's window stays shut */
#define AT_H2_RESETS_PER_SECOND_MAX 100                 /* streams a client opens and cancels */
#define AT_H2_RESETS_BURST 1000
#define AT_H2_BODIES_MAX 4 /* request bodies of the largest size gathering on one connection */

#define AT_H2_CLIENT_STREAMS_MAX 1000         /* at once, on a connection to a server */
#define AT_H2_CLIENT_STREAMS_FIRST 100        /* until it has said what it takes */
#define AT_H2_CLIENT_CONNS_MAX 64             /* to one server, when those before are full */
#define AT_H2_CLIENT_REFUSALS_MAX 3           /* of a call that was not looked at, until it fails */
#define AT_H2_CLIENT_WINDOW_BYTES (256 << 10) /* a server may send ahead so much, per answer */

#define AT_MUX_TRY_NS (2 * AT_S)      /* for the answer to an Upgrade */
#define AT_MUX_REFUSED_NS (60 * AT_S) /* then it is asked again */
#define AT_MUX_AGAIN_NS (1 * AT_S)    /* after a connection that did not come about */

#endif
