/* The server's limits as options: `atoll server --limit NAME=VALUE`. One table gives the option,
 * its help, docs/LIMITS.md and what the limits are set to. */
#ifndef AT_APPS_LIMITS_H
#define AT_APPS_LIMITS_H

#include "api/api.h"

struct at_limits {
    size_t connections, body_bytes, bodies_bytes, answers_bytes, list_bytes, requests, watches,
        watches_per_user, watch_queue_bytes, watch_queues_bytes, tunnels, sessions, history,
        history_bytes;
    int64_t request_time_ns, idle_time_ns, watch_time_ns, bookmark_time_ns, turn_time_ns;
};

void at_limits_default(struct at_limits *ret);
/* "NAME=VALUE": a count, an amount of memory (64Mi) or a time (30s). err: AT_INVALID names what is
 * wrong. */
enum at_rc at_limits_set(struct at_limits *limits, const char *text,
                         struct at_err *err) AT_WARN_UNUSED;
/* The table as Markdown, as it stands in docs/LIMITS.md. */
void at_limits_print(void);
void at_limits_to_api(const struct at_limits *limits, struct at_api_options *api);
void at_limits_to_http(const struct at_limits *limits, struct at_http_server_options *http);

#endif
