/* Named limits of the folder that are no part of a contract. */
#ifndef AT_CLIENT_LIMITS_H
#define AT_CLIENT_LIMITS_H

#include "core/json.h"
#include "core/units.h"

#define AT_CLIENT_BODY_BYTES_MAX AT_JSON_BYTES_MAX       /* one answer */
#define AT_CLIENT_EVENT_BYTES_MAX ((size_t)4 << 20)      /* one line of a watch */
#define AT_CLIENT_KUBECONFIG_BYTES_MAX ((size_t)1 << 20) /* the file, and each file it names */
#define AT_CLIENT_CALL_TIMEOUT_NS (30 * AT_NS_PER_S)
#define AT_CLIENT_SERVERS_MAX 16
#define AT_CLIENT_CONNECT_TIMEOUT_NS (3 * AT_NS_PER_S)
/* Where there are several servers, one that begins no answer in time is taken for dead. */
#define AT_CLIENT_FIRST_BYTE_NS (10 * AT_NS_PER_S)
/* Then it is asked whether it lives; if it does not answer, whoever waits for it is told. */
#define AT_CLIENT_SUSPECT_NS (2 * AT_NS_PER_S)
#define AT_CLIENT_SERVER_REST_NS (1 * AT_NS_PER_S) /* of one that failed; doubled each time */
#define AT_CLIENT_LIST_PAGE 500
#define AT_CLIENT_WATCH_S 300         /* asked of the server; then the watch is resumed */
#define AT_CLIENT_WATCH_SILENCE_S 330 /* nothing at all for so long: the peer is gone */
#define AT_CLIENT_BACKOFF_NS_MIN (200 * AT_NS_PER_MS)
#define AT_CLIENT_BACKOFF_NS_MAX (10 * AT_NS_PER_S)

#define AT_CLIENT_CHANNELS_QUEUE_BYTES_MAX ((size_t)1 << 20) /* not yet taken by the server */
#define AT_CLIENT_CHANNELS_REFUSAL_BYTES_MAX ((size_t)1 << 20)
#define AT_CLIENT_CHANNELS_PING_NS (20 * AT_NS_PER_S)
#define AT_CLIENT_CHANNELS_SILENCE_NS (70 * AT_NS_PER_S) /* three pings without an answer */

#define AT_CLIENT_PLUGIN_NS_MAX (300 * AT_NS_PER_S) /* somebody may have to log in */
#define AT_CLIENT_PLUGIN_BYTES_MAX ((size_t)1 << 20)
#define AT_CLIENT_PLUGIN_ENV_MAX 256 /* variables that a section sets */

#define AT_JOIN_FILE_BYTES_MAX ((size_t)256 << 10) /* identity.json */
#define AT_JOIN_TRIES_MAX 20                       /* while the server cannot be reached */
#define AT_JOIN_RETRY_NS (500 * AT_NS_PER_MS)
#define AT_JOIN_SERVERS_NS (2 * AT_NS_PER_S)        /* between questions for the list of servers */
#define AT_JOIN_SERVERS_ALONE_NS (30 * AT_NS_PER_S) /* while only one is known */
#define AT_JOIN_SERVERS_ANSWER_NS (2 * AT_NS_PER_S)
#define AT_JOIN_RENEW_LOOK_NS (60 * AT_NS_PER_S) /* has the clock been stepped? */
#define AT_JOIN_RENEW_MIN_NS (10 * AT_NS_PER_S)  /* between renewals, failed ones too */

#endif
