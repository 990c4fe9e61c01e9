/* Every bound of the agent, by name. */
#ifndef AT_AGENT_LIMITS_H
#define AT_AGENT_LIMITS_H

#include "core/units.h"

#define AGENT_HEARTBEAT_NS (500 * AT_NS_PER_MS) /* until the server says otherwise */
#define AGENT_HEARTBEAT_RETRY_NS (200 * AT_NS_PER_MS)
/* A server that does not answer a beat in time is left for the next one, if there are several. */
#define AGENT_HEARTBEAT_ANSWER_NS (1 * AT_NS_PER_S)
#define AGENT_HEARTBEAT_ALONE_NS (10 * AT_NS_PER_S)
#define AGENT_SERVERS_NS (15 * AT_NS_PER_S) /* between questions for the list of servers */
#define AGENT_TUNNELS_MAX 16
#define AGENT_RETRY_NS (500 * AT_NS_PER_MS) /* between tries of any other call */
#define AGENT_BACKOFF_MIN_NS (200 * AT_NS_PER_MS)
#define AGENT_BACKOFF_MAX_NS (30 * AT_NS_PER_S)
#define AGENT_HEALTHY_NS (60 * AT_NS_PER_S) /* running this long forgets earlier failures */
#define AGENT_CRASH_LOOP_RESTARTS 3         /* from here on the reason is CrashLoopBackOff */
#define AGENT_DRAIN_NS (250 * AT_NS_PER_MS) /* between "not ready" and SIGTERM: routes go first */
#define AGENT_STOP_GRACE_MAX_NS (10 * AT_NS_PER_S) /* of any instance when the agent ends */
#define AGENT_READY_POLL_NS (50 * AT_NS_PER_MS)    /* readiness checks until the first success */
#define AGENT_MODELS_TOLD_MAX 4096 /* digests in a Node's status, as its schema says */
#define AGENT_MODEL_BYTES_MAX (INT64_C(64) << 30)
#define AGENT_CACHE_DISK_PART 50 /* so much of the disk the cache leaves free: 1 of 50 */
#define AGENT_PACKAGE_THREADS 2  /* packages fetched at a time */
#define AGENT_PACKAGES_WAITING_MAX 4096
#define AGENT_PARTS_KEPT_NS                                                                        \
    (INT64_C(7) * 24 * 3600 * AT_NS_PER_S) /* of fetches that were given up */
#define AGENT_FETCH_TIMEOUT_NS (3600 * AT_NS_PER_S)
#define AGENT_LOG_BYTES_MAX (INT64_C(10) << 20) /* per instance; then one old file is kept */
#define AGENT_LOG_CHECK_NS (1 * AT_NS_PER_S)
#define AGENT_LOG_TIMES_BYTES_MAX (INT64_C(1) << 20) /* notes of when a log grew */
#define AGENT_LOG_TAIL_BYTES ((size_t)256 << 10)     /* at most sent at once */
#define AGENT_LOG_POLL_NS (200 * AT_NS_PER_MS)
#define AGENT_FOLLOWS_MAX 64
#define AGENT_TUNNEL_LINE_BYTES_MAX 65536
#define AGENT_EXECS_MAX 256 /* commands beside instances and forwarded connections, at once */
#define AGENT_EXEC_ARGS_MAX 256
#define AGENT_EXEC_PIECE_BYTES ((size_t)64 << 10)    /* of output, in one answer */
#define AGENT_EXEC_INPUT_BYTES_MAX ((size_t)2 << 20) /* the server sends less than this ahead */
#define AGENT_EXEC_ACK_BYTES ((size_t)64 << 10)      /* input taken before the server is told */
#define AGENT_EXEC_KILL_NS (1 * AT_NS_PER_S)         /* between SIGTERM and SIGKILL */
#define AGENT_RELAY_CONNS_MAX 16384                  /* of gateways, at once */
#define AGENT_RELAY_UNKNOWN_MAX 512 /* of them, that have not shown yet who they are */
#define AGENT_RELAY_ACCEPTS_PER_TURN 64
#define AGENT_RELAY_BACKLOG 1024
#define AGENT_RELAY_QUEUE_BYTES                                                                    \
    ((size_t)256 << 10) /* for one side: the other is read no further                              \
                         */
#define AGENT_RELAY_CONNECT_NS (1 * AT_NS_PER_S)
#define AGENT_RELAY_AGAIN_NS                                                                       \
    (100 * AT_NS_PER_MS) /* after accept(2) failed for want of something                           \
                          */
#define AGENT_ARGS_MAX 2048
#define AGENT_PIDS_MAX 1024 /* processes of one instance */

#define AGENT_SHARE_LOOK_NS (1 * AT_NS_PER_S)    /* between questions to a GPU's driver */
#define AGENT_SHARE_TURN_NS (50 * AT_NS_PER_MS)  /* between looks at who launches */
#define AGENT_SHARE_IDLE_NS (500 * AT_NS_PER_MS) /* without launches: no turns any more */
#define AGENT_SHARE_TELL_NS (10 * AT_NS_PER_S)   /* between reports of what is used */
#define AGENT_SHARE_OVER_LOOKS 3                 /* over the share in so many looks: it ends */
#define AGENT_SHARE_SLACK_BYTES_MIN                                                                \
    (INT64_C(64) << 20)                            /* more than a twentieth of small shares        \
                                                    */
#define AGENT_PARK_PIDS_MAX 64                     /* processes that hold memory of GPUs */
#define AGENT_PARK_STEP_NS_MAX (900 * AT_NS_PER_S) /* then the driver is held to hang */
#define AGENT_PARK_AGAIN_NS (250 * AT_NS_PER_MS)   /* looks for room to come back */
#define AGENT_SHARES_MAX 64                        /* of one GPU */
#define AGENT_BINDS_MAX 80 /* files shown to an instance in place of the machine's */

#define AGENT_MIG_LOOK_NS (30 * AT_NS_PER_S) /* between looks at how GPUs are divided */
#define AGENT_MIG_AGAIN_NS (5 * AT_NS_PER_S) /* after its driver refused */
#define AGENT_MIG_BUSY_NS (1 * AT_NS_PER_S)  /* while one waits to be free */
#define AGENT_MIG_GPUS_MAX 64
#define AGENT_MIG_BUSY_MAX 1024
#define AGENT_MPS_AGAIN_NS                                                                         \
    (30 * AT_NS_PER_S)                       /* after MPS did not start, until it is tried again   \
                                              */
#define AGENT_MPS_FIND_NS (10 * AT_NS_PER_S) /* between looks for NVIDIA's program */
#define AGENT_MPS_DEATHS_MAX 5               /* in a row, each within AGENT_HEALTHY_NS */

#define AGENT_SOCKET_PATH_BYTES_MAX 100 /* what a Unix socket's address holds, less a reserve */

#endif
