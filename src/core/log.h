/* Structured log records: one line of JSON each (or short text on a terminal). Only programs (apps,
 * agent, gateway, controllers, api) log; library folders return errors. The sink and the clock are
 * given at start. */
#ifndef AT_CORE_LOG_H
#define AT_CORE_LOG_H

#include "core/err.h"

enum at_log_level { AT_LOG_DEBUG, AT_LOG_INFO, AT_LOG_WARN, AT_LOG_ERROR };

typedef void at_log_sink_fn(void *ctx, const char *line,
                            size_t len); /* line ends with \n; called from any thread */

struct at_log_options {
    enum at_log_level level;
    bool text; /* false: JSON lines */
    at_log_sink_fn *sink;
    void *sink_ctx;
    int64_t (*wall_ns)(void *ctx);
    void *wall_ctx;
    const char *component; /* "server", "agent", ... borrowed for the process's life */
};

/* Call once, before threads start. Without it nothing is printed. */
void at_log_start(const struct at_log_options *options);

/* event: a stable name such as "node.lost". Then the message, printf style. Pairs of key and value
 * may be put before it by at_log_kv: at_log_kv(AT_LOG_WARN, "node.lost", (struct
 * at_log_kv[]){{"node", name}, {0}}, "no heartbeat"); */
struct at_log_kv {
    const char *key;
    const char *value;
};
void at_log(enum at_log_level level, const char *event, const char *fmt, ...) AT_PRINTF(3, 4);
void at_log_kv(enum at_log_level level, const char *event, const struct at_log_kv *kv,
               const char *fmt, ...) AT_PRINTF(4, 5);

/* Secrets carry this type so that they cannot reach a log by accident; print at_redacted_text(). */
struct at_redacted {
    const char *value;
};
static inline const char *at_redacted_text(struct at_redacted s)
{
    (void)s;
    return "<redacted>";
}

#endif
