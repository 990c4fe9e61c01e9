/* What all connections of a server hold together: bodies that come in, answers that nobody reads.
 * Counted at each connection's last write; looked at anew before anyone suffers for it. */
#include "net/http_server_int.h"

#include <assert.h>

static struct at_metric *metric(struct at_metrics *m, enum at_metric_type type, const char *name,
                                const char *help)
{
    return at_metric_with(at_metrics_family(m, type, name, help, NULL), NULL);
}

void at_http_limits_init(struct at_http_server *server,
                         const struct at_http_server_options *options)
{
    struct at_metrics *m = options->metrics;
    server->bodies_bytes_max = options->bodies_bytes_max;
    server->answers_bytes_max = options->answers_bytes_max;
    if (m == NULL) {
        return;
    }
    server->metrics = (struct at_http_server_metrics){
        .connections =
            metric(m, AT_METRIC_GAUGE, "atoll_http_connections", "Connections of clients."),
        .connections_refused = metric(m, AT_METRIC_COUNTER, "atoll_http_connections_refused_total",
                                      "Connections refused: there were too many."),
        .bodies_bytes = metric(m, AT_METRIC_GAUGE, "atoll_http_bodies_bytes",
                               "Bytes of request bodies that still come in."),
        .bodies_refused = metric(m, AT_METRIC_COUNTER, "atoll_http_bodies_refused_total",
                                 "Requests refused with 429: bodies held too much memory."),
        .answers_bytes = metric(m, AT_METRIC_GAUGE, "atoll_http_answers_bytes",
                                "Bytes of answers that clients have not read yet."),
        .answers_refused = metric(m, AT_METRIC_COUNTER, "atoll_http_answers_refused_total",
                                  "Answers that became 429: unread ones held too much memory."),
        .slow_cut = metric(m, AT_METRIC_COUNTER, "atoll_http_slow_clients_cut_total",
                           "Connections cut because their client read too slowly."),
        .timeouts = metric(m, AT_METRIC_COUNTER, "atoll_http_request_timeouts_total",
                           "Requests that were not complete in time."),
    };
}

void at_http_count(struct at_metric *m, int64_t by)
{
    if (m != NULL) {
        at_metric_add(m, by);
    }
}

bool at_http_body_count(struct at_http_conn *c, size_t bytes)
{
    struct at_http_server *server = c->server;
    size_t others = server->bodies_bytes - c->body_counted;
    if (bytes > c->body_counted && server->bodies_bytes_max > 0 &&
        others + bytes > server->bodies_bytes_max) {
        at_http_count(server->metrics.bodies_refused, 1);
        return false;
    }
    at_http_count(server->metrics.bodies_bytes, (int64_t)bytes - (int64_t)c->body_counted);
    server->bodies_bytes = others + bytes;
    c->body_counted = bytes;
    return true;
}

void at_http_queue_count(struct at_http_conn *c)
{
    struct at_http_server *server = c->server;
    size_t now = c->stream != NULL ? at_stream_queued_bytes(c->stream) : 0;
    if (now == c->queue_counted) {
        return;
    }
    if (c->queue_counted == 0) {
        c->queued_since_ns = at_loop_now_ns(server->loop);
    }
    at_http_count(server->metrics.answers_bytes, (int64_t)now - (int64_t)c->queue_counted);
    server->answers_bytes += now - c->queue_counted; /* may wrap in between, not in the sum */
    c->queue_counted = now;
}

/* Of the connections whose whole answer waits for too long, the one that holds most. Streams are
 * their owners' to end. */
static struct at_http_conn *slowest(struct at_http_server *server, const struct at_http_conn *but)
{
    struct at_http_conn *most = NULL;
    int64_t since = at_loop_now_ns(server->loop) - AT_HTTP_SLOW_NS;
    for (struct at_http_conn *c = server->conns; c != NULL; c = c->next) {
        bool waits = c != but && !c->in_data && c->queue_counted > 0 &&
                     c->queued_since_ns <= since &&
                     (c->state == CONN_IDLE || c->state == CONN_ENDING);
        if (waits && (most == NULL || c->queue_counted > most->queue_counted)) {
            most = c;
        }
    }
    return most;
}

bool at_http_queue_room(struct at_http_conn *c, size_t len)
{
    struct at_http_server *server = c->server;
    size_t max = server->answers_bytes_max;
    if (max == 0 || len < AT_HTTP_SMALL_ANSWER_BYTES || server->answers_bytes + len <= max) {
        return true;
    }
    for (struct at_http_conn *one = server->conns; one != NULL; one = one->next) {
        at_http_queue_count(one);
    }
    while (server->answers_bytes > 0 && server->answers_bytes + len > max) {
        struct at_http_conn *slow = slowest(server, c);
        if (slow == NULL) {
            return false;
        }
        at_http_count(server->metrics.slow_cut, 1);
        at_http_conn_free(slow);
    }
    return true; /* one answer alone is always given */
}
