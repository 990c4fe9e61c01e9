/* Named limits of the API server. */
#ifndef AT_API_LIMITS_H
#define AT_API_LIMITS_H

#include "core/units.h"

#define AT_API_BODY_BYTES_MAX ((size_t)3 << 20)
#define AT_API_PATH_BYTES_MAX 2048
#define AT_API_GROUPS_MAX 16
/* Tokens of service accounts, as in Kubernetes. */
#define AT_API_SERVICE_TOKEN_S_DEFAULT 3600
#define AT_API_SERVICE_TOKEN_S_MIN 600
#define AT_API_SERVICE_TOKEN_S_MAX (INT64_C(1) << 32)
#define AT_API_SERVICE_TOKEN_AUDIENCES_MAX 16
#define AT_API_QUERY_VALUE_BYTES_MAX 4096
#define AT_API_ARENA_BYTES_MAX ((size_t)64 << 20)
/* A list answer; past it the client is told to use limit. */
#define AT_API_LIST_BYTES_MAX ((size_t)48 << 20)
#define AT_API_LIST_ITEMS_MAX 1000000
/* Bytes that wait for a client of a stream; past it the stream is cut. */
#define AT_API_STREAM_QUEUE_BYTES_MAX ((size_t)16 << 20)
/* All streams' queues together. From half of it on a stream may only hold the lower of the two
 * limits, past it the lowest. */
#define AT_API_STREAMS_QUEUE_BYTES_MAX ((size_t)256 << 20)
#define AT_API_STREAM_QUEUE_BYTES_BUSY ((size_t)1 << 20)
#define AT_API_STREAM_QUEUE_BYTES_FULL ((size_t)64 << 10)
/* What a watch shows first comes in pages, the next when the client has read so far. */
#define AT_API_INITIAL_PAGE_KEYS 500
#define AT_API_INITIAL_AHEAD_BYTES ((size_t)1 << 20)
#define AT_API_STREAM_PIECE_BYTES ((size_t)256 << 10)
#define AT_API_STREAMS_MAX 20000
#define AT_API_STREAMS_PER_USER_MAX 10000
#define AT_API_WATCH_TIMEOUT_NS (1800 * AT_NS_PER_S)
#define AT_API_BOOKMARK_PERIOD_NS (10 * AT_NS_PER_S)
/* Requests that are served or wait; past it users over their share are told 429, past twice that
 * all are. */
#define AT_API_REQUESTS_MAX 2000
#define AT_API_TURN_NS (5 * AT_NS_PER_MS)
#define AT_API_READY_TIMEOUT_NS (2 * AT_NS_PER_S)
#define AT_API_READY_KEY "/ready" /* outside of every kind's keys */
#define AT_API_DECODED_MAX 8      /* objects kept parsed for the next watcher */
#define AT_API_LINES_MAX 8        /* events kept encoded for the next watcher, each within: */
#define AT_API_LINE_BYTES_MAX ((size_t)4 << 20)
/* Compare-and-swap rounds of one patch or delete. */
#define AT_API_CAS_ROUNDS_MAX 64
#define AT_API_NAME_ROUNDS_MAX 8
#define AT_API_WARNINGS_MAX 20
#define AT_API_FIELD_TERMS_MAX 16
/* On every Namespace; the namespace controller takes it off once the namespace is empty. */
#define AT_API_NAMESPACE_FINALIZER "atoll.dev/namespace"
#define AT_API_HEARTBEAT_INTERVAL_MS 500
#define AT_API_TUNNELS_MAX 10000
#define AT_API_LOG_SESSIONS_MAX 1000
/* A client of a backup that takes nothing for so long is cut off, for there is one at a time. */
/* An OpenID provider's keys: how often they are fetched anew, after a failure, and because of a key
 * that is not among them; how long one fetch may take, and how much it may bring. */
#define AT_API_OIDC_REFRESH_NS (600 * AT_NS_PER_S)
#define AT_API_OIDC_RETRY_NS (5 * AT_NS_PER_S)
#define AT_API_OIDC_AGAIN_NS (2 * AT_NS_PER_S)
#define AT_API_OIDC_TIMEOUT_NS (5 * AT_NS_PER_S)
#define AT_API_OIDC_BYTES_MAX ((size_t)256 << 10)
#define AT_API_OIDC_WAITING_MAX 1000 /* requests that wait for keys */
#define AT_API_OIDC_SKEW_S 60        /* how far its clock may be apart */
/* Addresses remembered for tokens that were none, and what they may before they have to wait. */
#define AT_API_GUESSERS_MAX 1024
#define AT_API_GUESSERS_WAYS 8
#define AT_API_GUESSES_FREE 10
#define AT_API_GUESS_WAIT_NS_MIN AT_NS_PER_S
#define AT_API_GUESS_WAIT_NS_MAX (60 * AT_NS_PER_S)
#define AT_API_GUESS_FORGET_NS (600 * AT_NS_PER_S)
#define AT_API_RESEAL_KEYS 32 /* Secrets sealed anew at a time */
#define AT_API_RESEAL_RETRY_NS (5 * AT_NS_PER_S)
#define AT_API_BACKUP_STALL_NS (60 * AT_NS_PER_S)
#define AT_API_LOG_FIRST_ANSWER_NS (10 * AT_NS_PER_S)
/* Commands beside instances: input that the agent has not taken yet, and output that the client has
 * not; past them the other side waits. */
#define AT_API_EXEC_AHEAD_BYTES_MAX ((size_t)512 << 10)
#define AT_API_EXEC_QUEUE_BYTES ((size_t)1 << 20)
#define AT_API_EXEC_HOLD_NS (5 * AT_NS_PER_S) /* of an agent's answer, for a slow client */
#define AT_API_EXEC_WORDS_MAX 256
#define AT_API_STREAMS_WAIT_NS (30 * AT_NS_PER_S) /* for the streams of a command over SPDY */
#define AT_API_FORWARD_PORTS_MAX 256 /* connections of one client's port-forward at once */
#define AT_API_FORWARD_CHANNELS_MAX 16
#define AT_API_EXEC_RESIZE_BYTES_MAX 256
#define AT_API_JOIN_TTL_NS_MAX (INT64_C(30) * 24 * 3600 * AT_NS_PER_S)
/* A server tells the others where it is so often; one that is gone is forgotten after the TTL. */
#define AT_API_SERVERS_TELL_NS (4 * AT_NS_PER_S)
#define AT_API_SERVERS_TTL_S 12
#define AT_API_SERVERS_MAX 15
#define AT_API_JOIN_TTL_NS_DEFAULT (3600 * AT_NS_PER_S)
#define AT_API_JOIN_KEEP_NS (INT64_C(7) * 24 * 3600 * AT_NS_PER_S)
#define AT_API_CERT_LIFETIME_S (24 * 3600)
/* Tokens of people and programs. */
#define AT_API_TOKEN_TTL_NS_DEFAULT (INT64_C(30) * 24 * 3600 * AT_NS_PER_S)
#define AT_API_TOKEN_TTL_NS_MAX (INT64_C(365) * 24 * 3600 * AT_NS_PER_S)
#define AT_API_TOKEN_USER_BYTES_MAX 253
#define AT_API_TOKEN_GROUPS_MAX 15
#define AT_API_TOKEN_GROUP_BYTES_MAX 127
#define AT_API_TOKEN_DESCRIPTION_BYTES_MAX 1000
/* How often commands, logs and ports are asked whether what they came in by has ended. */
#define AT_API_RECHECK_NS (5 * AT_NS_PER_S)
#define AT_API_PROTOBUF_DEPTH_MAX 16

#endif
