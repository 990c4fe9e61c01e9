#include "apps/limits.h"

#include "api/limits.h"
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

enum unit { COUNT, BYTES, TIME };

struct row {
    const char *name;
    enum unit unit;
    size_t offset;
    const char *otherwise, *min, *max;
    const char *help, *metric; /* metrics: "" none */
};

#define AT(member) offsetof(struct at_limits, member)

static const struct row ROWS[] = {
    {"connections", COUNT, AT(connections), "10000", "10", "1000000",
     "Connections at once; more are closed",
     "atoll_http_connections, atoll_http_connections_refused_total"},
    {"request-time", TIME, AT(request_time_ns), "30s", "100ms", "1h",
     "From a request's first byte to its last; then 408", "atoll_http_request_timeouts_total"},
    {"idle-time", TIME, AT(idle_time_ns), "2m", "100ms", "24h",
     "A connection without a request; then closed", "atoll_http_connections"},
    {"body-bytes", BYTES, AT(body_bytes), "3Mi", "4Ki", "1Gi", "One request's body; past it 413",
     "atoll_api_requests_total"},
    {"bodies-bytes", BYTES, AT(bodies_bytes), "256Mi", "4Ki", "1Ti",
     "All bodies that still come in; past it 429",
     "atoll_http_bodies_bytes, atoll_http_bodies_refused_total"},
    {"list-bytes", BYTES, AT(list_bytes), "48Mi", "64Ki", "1Gi",
     "One list without a limit; past it 413, lists in pages go on", "atoll_api_requests_total"},
    {"answers-bytes", BYTES, AT(answers_bytes), "512Mi", "64Ki", "1Ti",
     "All answers that clients have not read: past it those who held one for 2s are cut off, then "
     "new answers are 429",
     "atoll_http_answers_bytes, atoll_http_answers_refused_total, "
     "atoll_http_slow_clients_cut_total"},
    {"requests", COUNT, AT(requests), "2000", "1", "1000000",
     "Requests served or waiting: past it users over their even share get 429, past twice that all "
     "do",
     "atoll_api_requests_in_flight, atoll_api_requests_waiting, atoll_api_overload_total"},
    {"turn-time", TIME, AT(turn_time_ns), "5ms", "10us", "1s",
     "Serving before requests wait for their user's turn", "atoll_api_requests_waiting"},
    {"watches", COUNT, AT(watches), "20000", "1", "1000000", "Watches at once; past it 429",
     "atoll_api_watches, atoll_api_watches_refused_total"},
    {"watches-per-user", COUNT, AT(watches_per_user), "10000", "1", "1000000",
     "Watches of one user; past it 429", "atoll_api_watches_refused_total"},
    {"watch-queue-bytes", BYTES, AT(watch_queue_bytes), "16Mi", "64Ki", "16Mi",
     "What waits for one client of a watch or a log; past it the stream is cut",
     "atoll_api_watches_cut_total"},
    {"watch-queues-bytes", BYTES, AT(watch_queues_bytes), "256Mi", "128Ki", "1Ti",
     "What waits for all clients of watches: from half of it on one may hold 1Mi, past it 64Ki",
     "atoll_api_watches_queue_bytes, atoll_api_watches_cut_total"},
    {"watch-time", TIME, AT(watch_time_ns), "30m", "1s", "24h",
     "A watch; clients resume where it ended", "atoll_api_watches"},
    {"bookmark-time", TIME, AT(bookmark_time_ns), "10s", "100ms", "1h",
     "Between bookmarks of a watch", "atoll_api_watches"},
    {"tunnels", COUNT, AT(tunnels), "10000", "1", "1000000", "Agents connected; past it 429",
     "atoll_api_tunnels"},
    {"sessions", COUNT, AT(sessions), "1000", "1", "100000",
     "Logs, commands and forwarded ports at once; past it 429", "atoll_api_sessions"},
    {"history", COUNT, AT(history), "10000", "100", "10000000",
     "Changes remembered, for watches that resume and lists of earlier versions; then 410",
     "atoll_store_history_revisions"},
    {"history-bytes", BYTES, AT(history_bytes), "32Mi", "64Ki", "1Ti",
     "What these changes hold; then 410", "atoll_store_history_bytes"},
};

static enum at_rc parse(enum unit unit, const char *text, int64_t *ret, struct at_err *err)
{
    if (unit == BYTES) {
        return at_quantity_units(text, ret, err);
    }
    if (unit == TIME) {
        return at_duration_ns(text, ret, err);
    }
    return at_str_to_i64(at_str_of(text), ret) == AT_OK
               ? AT_OK
               : at_err_set(err, AT_INVALID, "\"%s\" is not a whole number", text);
}

static enum at_rc row_set(struct at_limits *limits, const struct row *row, const char *text,
                          struct at_err *err)
{
    int64_t value = 0;
    int64_t min = 0;
    int64_t max = 0;
    enum at_rc rc = parse(row->unit, text, &value, err);
    if (rc == AT_OK) {
        rc = parse(row->unit, row->min, &min, err);
    }
    if (rc == AT_OK) {
        rc = parse(row->unit, row->max, &max, err);
    }
    if (rc != AT_OK) {
        return at_err_wrap(err, AT_INVALID, "limit %s", row->name);
    }
    if (value < min || value > max) {
        return at_err_set(err, AT_INVALID, "limit %s: must be from %s to %s, not %s", row->name,
                          row->min, row->max, text);
    }
    char *place = (char *)limits + row->offset;
    if (row->unit == TIME) {
        memcpy(place, &value, sizeof value);
    } else {
        size_t size = (size_t)value;
        memcpy(place, &size, sizeof size);
    }
    return AT_OK;
}

void at_limits_default(struct at_limits *ret)
{
    memset(ret, 0, sizeof *ret);
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        enum at_rc rc = row_set(ret, &ROWS[i], ROWS[i].otherwise, NULL);
        assert(rc == AT_OK);
    }
}

enum at_rc at_limits_set(struct at_limits *limits, const char *text, struct at_err *err)
{
    struct at_str value = at_str_of(text);
    struct at_str name = at_str_cut(&value, '=');
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        if (at_str_eq(name, ROWS[i].name) && strchr(text, '=') != NULL) {
            return row_set(limits, &ROWS[i], value.ptr, err);
        }
    }
    return at_err_set(err, AT_INVALID,
                      "--limit \"%.64s\": NAME=VALUE is needed, of a name that `atoll server "
                      "--limits` lists",
                      text);
}

void at_limits_print(void)
{
    printf("| name | default | from | to | what | metrics |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        const struct row *r = &ROWS[i];
        printf("| `%s` | %s | %s | %s | %s | %s |\n", r->name, r->otherwise, r->min, r->max,
               r->help, r->metric);
    }
}

void at_limits_to_api(const struct at_limits *l, struct at_api_options *api)
{
    api->body_bytes_max = l->body_bytes;
    api->list_bytes_max = l->list_bytes;
    api->requests_max = l->requests;
    api->turn_ns = l->turn_time_ns;
    api->watches_max = l->watches;
    api->watches_per_user_max = l->watches_per_user;
    api->watch_queue_one_bytes_max = l->watch_queue_bytes;
    api->watch_queue_bytes_max = l->watch_queues_bytes;
    api->watch_timeout_ns = l->watch_time_ns;
    api->bookmark_period_ns = l->bookmark_time_ns;
    api->tunnels_max = l->tunnels;
    api->sessions_max = l->sessions;
}

void at_limits_to_http(const struct at_limits *l, struct at_http_server_options *http)
{
    http->connections_max = l->connections;
    http->body_bytes_max = l->body_bytes;
    http->bodies_bytes_max = l->bodies_bytes;
    http->answers_bytes_max = l->answers_bytes;
    http->head_timeout_ns = l->request_time_ns;
    http->idle_timeout_ns = l->idle_time_ns;
}
