/* Named limits of the folder. */
#ifndef AT_GATEWAY_LIMITS_H
#define AT_GATEWAY_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#define AT_GW_MS ((int64_t)1000000)
#define AT_GW_S ((int64_t)1000000000)

#define AT_GW_THREADS_MAX 256
#define AT_GW_MODEL_BYTES_MAX 318 /* of a model's name, with its namespace and the NUL */
#define AT_GW_HOST_BYTES_MAX 256
#define AT_GW_TENSORS_MAX 256 /* inputs, and outputs, of one gRPC request */
#define AT_GW_DIMS_MAX 32
#define AT_GW_ATTEMPTS_MAX 10 /* per request, each on another replica */
#define AT_GW_ATTEMPTS_DEFAULT 3
#define AT_GW_JSON_DEPTH_MAX 64        /* of a body that names its model */
#define AT_GW_JSON_MEMBERS_MAX 128     /* at the top of one */
#define AT_GW_REQUEST_ID_BYTES_MAX 128 /* of a client's own; longer ones are replaced */
#define AT_GW_RETRY_HINT_MS 250 /* retry-after-ms of 429 and 503, which OpenAI's clients obey */
#define AT_GW_HOLD_BYTES_MAX                                                                       \
    65536                           /* of an answer kept back until it is whole: up to there a     \
                                       lost replica costs a retry, not an answer cut short */
#define AT_GW_PAUSE_BYTES 262144    /* queued to a slow client: stop reading the replica */
#define AT_GW_RETRY_SHARE_MILLI 200 /* retries per 1000 requests that the budget earns */
#define AT_GW_RETRY_FLOOR_PER_S 10  /* and per second, however few requests there are */
#define AT_GW_RETRY_SAVED_MAX 100   /* retries that can be saved up */
#define AT_GW_AVOID_MIN_NS AT_GW_S  /* after a failed connect, doubling up to the maximum */
#define AT_GW_AVOID_MAX_NS (30 * AT_GW_S)
#define AT_GW_EJECT_ERRORS 5         /* in a row, until a replica is ejected */
#define AT_GW_EJECT_SHARE_MILLI 500  /* of a model's replicas that may be ejected at a time */
#define AT_GW_EJECT_SHIFT_MAX 16     /* doublings of the time of an ejection */
#define AT_GW_CIRCUIT_ERRORS 50      /* failed requests in a row, until a model's circuit opens */
#define AT_GW_CIRCUIT_NS AT_GW_S     /* the first time; doubling up to AT_GW_AVOID_MAX_NS */
#define AT_GW_HEDGE_SAVED_MAX 10     /* hedges that can be saved up */
#define AT_GW_LATENCY_KEPT 2048      /* answers, of which then half are forgotten */
#define AT_GW_LATENCY_LEAST 20       /* answers that a centile is made of */
#define AT_GW_HEDGE_SHARE_MILLI 100  /* hedges per 1000 requests */
#define AT_GW_WAIT_NS (30 * AT_GW_S) /* for a replica to take a request */
#define AT_GW_WAIT_REQUESTS 1024     /* per model and loop */
#define AT_GW_WAIT_REQUESTS_MAX 100000
#define AT_GW_WAIT_BYTES ((size_t)64 << 20)      /* of bodies, per model and loop */
#define AT_GW_WAIT_ALL_REQUESTS 16384            /* of all models, per loop */
#define AT_GW_WAIT_ALL_BYTES ((size_t)256 << 20) /* the same of bodies */
#define AT_GW_WAIT_AGE_NS (5 * AT_GW_S) /* of waiting, that make up for one class of priority */
#define AT_GW_WAIT_TRIES_MAX 64 /* waiting requests that are looked at for one that is to go */
#define AT_GW_WAIT_TICK_NS (10 * AT_GW_MS)   /* room at a replica that another loop made */
#define AT_GW_REPORT_NS (2 * AT_GW_S)        /* from one report of what is asked to the next */
#define AT_GW_REPORT_MIN_NS (200 * AT_GW_MS) /* the same when somebody waits */
#define AT_GW_REPORT_ENTRIES_MAX 10000
#define AT_GW_CHECK_TICK_NS (50 * AT_GW_MS)
#define AT_GW_CHECK_IDLE_NS AT_GW_S /* while no Deployment wants any */
#define AT_GW_CHECKS_MAX 64         /* under way, per loop */
#define AT_GW_CHECK_INTERVAL_MIN_NS (100 * AT_GW_MS)
#define AT_GW_POLICY_BYTES_MAX ((size_t)1 << 20) /* of a Deployment, decoded */
#define AT_GW_CONNECT_NS AT_GW_S
#define AT_GW_TLS_CONNECT_NS (5 * AT_GW_S)
#define AT_GW_FIRST_BYTE_NS (300 * AT_GW_S)
#define AT_GW_CLIENT_IDLE_NS (75 * AT_GW_S)
#define AT_GW_CLIENT_REQUEST_NS (60 * AT_GW_S) /* for a client to send a whole request */
#define AT_GW_REPLICA_IDLE_NS (4 * AT_GW_S)    /* Node and uvicorn close theirs after 5 s */
#define AT_GW_REPLICA_CONNECTIONS_MAX 8192     /* per loop and replica */
#define AT_GW_SPARE_DESCRIPTORS 128            /* of a process: loops, files, the control plane */
#define AT_GW_LOOP_DESCRIPTORS_MIN 64
#define AT_GW_REPLICA_WAITING_MAX 8192
/* What a stream's queue takes together with a head. */
#define AT_GW_BODY_BYTES_MAX (((size_t)64 << 20) - 131072)
#define AT_GW_UPLOAD_BYTES_MIN                                                                     \
    262144 /* bodies of services that are passed on before they are whole */
#define AT_GW_BUSY_POLL_NS_MAX 10000000      /* of --busy-poll */
#define AT_GW_TUNNEL_IDLE_NS (600 * AT_GW_S) /* WebSocket connections on which nothing comes */
#define AT_GW_CONNECTIONS_MAX 20000
#define AT_GW_DRAIN_NS (10 * AT_GW_S)
#define AT_GW_DRAIN_LOOK_NS (10 * AT_GW_MS)
#define AT_GW_TOKENS_MAX 10000
#define AT_GW_TOKEN_BYTES_MAX 4096
#define AT_GW_TOKEN_CACHE 64                 /* tokens lately accepted, per loop */
#define AT_GW_OUTPUT_TOKENS 4096             /* under a budget, of a request that names no most */
#define AT_GW_OUTPUT_TOKENS_MAX 100000000    /* that a request may name, to be reckoned with */
#define AT_GW_CHOICES_MAX 100000000          /* answers to one request, to be reckoned with */
#define AT_GW_EXTEND_TOKENS 64               /* that a stream gets in advance past its most */
#define AT_GW_IMAGE_TOKENS 2048              /* of a picture in a prompt */
#define AT_GW_CACHE_NS (300 * AT_GW_S)       /* that an answer is kept */
#define AT_GW_CACHE_BYTES ((size_t)64 << 20) /* of kept answers, of all loops together */
#define AT_GW_CACHE_REPLY_BYTES ((size_t)1 << 20) /* of one answer */
#define AT_GW_CACHE_WAITERS_MAX 1024              /* for an answer that is being made, per loop */
#define AT_GW_TELL_LAST_NS (2 * AT_GW_S) /* that a gateway which ends takes to tell its usage */
#define AT_GW_KEYS_NS (10 * AT_GW_MS)    /* changes of keys this close together make one table */
#define AT_GW_KEYS_MAX 1000000
#define AT_GW_KEY_BUDGETS_MAX 4
#define AT_GW_LEDGER_TICK_NS (200 * AT_GW_MS)
#define AT_GW_LEDGER_TELL_NS (2 * AT_GW_S) /* between two words on what was spent */
#define AT_GW_LEDGER_CALLS_MAX 32          /* under way */
#define AT_GW_LEDGER_TELLS                                                                         \
    2 /* of what was spent, a tick: with thousands of keys in use each is                          \
         told more rarely, so that a request stays cheap */
#define AT_GW_LEDGER_TELLS_MAX 64                 /* saved up */
#define AT_GW_SLICE_SHARE 4                       /* a gateway takes a fourth of what is left, */
#define AT_GW_SLICE_NANOUSD ((int64_t)1000000000) /* and a dollar at least */
#define AT_GW_SLICES_MAX 200
#define AT_GW_MONEY_WAIT_NS (2 * AT_GW_S)  /* that a request waits for its gateway's slice */
#define AT_GW_WANT_NS AT_GW_S              /* that a want stays told although nobody repeats it */
#define AT_GW_MONEY_WAITERS_MAX 1024       /* that wait so, per loop */
#define AT_GW_MONEY_LOOK_NS (2 * AT_GW_MS) /* between two looks at them */
#define AT_GW_SHARE_NS AT_GW_S             /* between two gifts of a part of a rate */
#define AT_GW_SHARE_WAIT_NS (1500 * AT_GW_MS) /* then a gateway does without being given one */
#define AT_GW_KEY_IDLE_NS (300 * AT_GW_S)     /* unused, until what a key has is given back */
#define AT_GW_KEY_SERIES_MAX 1000             /* keys with a name of their own in metrics */
#define AT_GW_UNREPORTED_NS (900 * AT_GW_S)   /* until who never reported is taken for gone */
#define AT_GW_ALIVE_NS (120 * AT_GW_S)        /* between two reports that nothing else caused */
#define AT_GW_TIME_NS (30 * AT_GW_S)          /* between two questions for the server's time */
#define AT_GW_TIME_AGAIN_NS (500 * AT_GW_MS)
#define AT_GW_USAGE_ROUND_NS (200 * AT_GW_MS) /* between two waits for the disk */
#define AT_GW_BOOK_AGAIN_NS (500 * AT_GW_MS)  /* between two tries to open the book of usage */
#define AT_GW_USAGE_TELL_NS AT_GW_S           /* between two words of usage */
#define AT_GW_USAGE_ROWS_PER_S                                                                     \
    500 /* of a key, model and day, that are told: thousands take turns */
#define AT_GW_PEM_BYTES_MAX ((size_t)1 << 20)
#define AT_GW_CERT_LOOK_NS (2 * AT_GW_S) /* between looks at the certificate's files */
#define AT_GW_SPANS_MAX 2048 /* that wait for the collector, per loop; past it they are dropped */
#define AT_GW_SPANS_BATCH 512
#define AT_GW_SPANS_NS AT_GW_S                /* the longest that one waits */
#define AT_GW_SPANS_AGAIN_NS (500 * AT_GW_MS) /* after a refusal, doubled each time */
#define AT_GW_SPANS_TRIES 4
#define AT_GW_SPANS_LAST_NS                                                                        \
    (2 * AT_GW_S) /* a gateway that ends waits so long for its collector                           \
                   */
#define AT_GW_SPANS_TIMEOUT_NS (10 * AT_GW_S)
#define AT_GW_ACCESS_BYTES_MAX ((size_t)1 << 20) /* lines that wait to be written, per loop */
#define AT_GW_ACCESS_FLUSH_BYTES 65536
#define AT_GW_ACCESS_NS AT_GW_S         /* the longest that a line waits */
#define AT_GW_ACCESS_TEXT_BYTES_MAX 512 /* of a path or user agent in a line */
#define AT_GW_KEY_BYTES_MAX 64          /* of a key's name in metrics, with the NUL */
#define AT_GW_REPLICA_CODES_MAX 8       /* statuses counted apart, per replica */
#define AT_GW_FILE_BYTES_MAX ((size_t)16 << 20)
#define AT_GW_SHARES_MAX 64          /* of a model: Deployments that name a weight, and the rest */
#define AT_GW_PREFIX_BLOCK_BYTES 128 /* of a prompt's text: some 30 tokens */
#define AT_GW_PREFIX_BLOCKS_MAX 512  /* of a prompt that are looked at */
#define AT_GW_PREFIX_BLOCKS_PER_REPLICA 8192
#define AT_GW_PREFIX_CANDIDATES_MAX 64
#define AT_GW_LESSON_BLOCKS_MIN 8     /* new to a replica: other loops are told */
#define AT_GW_LESSONS_MAX 1024        /* that wait for a loop */
#define AT_GW_PREFIX_WORTH_BYTES 1024 /* known to a replica, outweigh a request under way */
#define AT_GW_COST_BYTES 4096         /* of a prompt, are as much work as a short request */
#define AT_GW_COST_MILLI_MAX 100000
#define AT_GW_RENAME_BYTES_MAX 8192 /* that a body may grow by another name of its model */
#define AT_GW_SHADOWS_MAX 64        /* copies under way, per loop */
#define AT_GW_SHADOW_BYTES_MAX ((size_t)16 << 20) /* of their bodies */
#define AT_GW_SHADOW_NS (60 * AT_GW_S)            /* for an answer that nobody reads */
#define AT_GW_SCAN_MAX 4 /* replicas of a place that are all looked at; of more, two */
#define AT_GW_SESSION_SLACK_MILLI                                                                  \
    4000 /* requests that a session's replica may have above a quarter more than the average */
#define AT_GW_REBUILD_NS (2 * AT_GW_MS)    /* changes this close together make one route table */
#define AT_GW_READY_NS (5 * AT_GW_S)       /* serve without routes when none came until then */
#define AT_GW_UNKNOWN_LATENCY_NS (AT_GW_S) /* between sites without a link */

#endif
