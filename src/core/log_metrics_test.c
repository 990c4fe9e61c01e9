#include "core/json.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void sink(void *ctx, const char *line, size_t len)
{
    struct at_buf *buf = ctx;
    assert_int_equal(at_buf_append(buf, line, len), AT_OK);
}

static int64_t fixed_clock(void *ctx)
{
    (void)ctx;
    return INT64_C(1767323045000001000);
}

static void log_start(struct at_buf *buf, bool text)
{
    at_log_start(&(struct at_log_options){.level = AT_LOG_INFO,
                                          .text = text,
                                          .sink = sink,
                                          .sink_ctx = buf,
                                          .wall_ns = fixed_clock,
                                          .component = "server"});
}

static void log_lines_are_json_whatever_the_values(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    log_start(&buf, false);
    at_log(AT_LOG_DEBUG, "no", "below the level");
    at_log_kv(AT_LOG_WARN, "node.lost", (struct at_log_kv[]){{"node", "a\"\n\xff"}, {0}}, "%s",
              "x\ny");
    json_t *line = NULL;
    assert_int_equal(at_json_parse(buf.data, buf.len, &line, NULL), AT_OK);
    assert_ptr_equal(strchr(buf.data, '\n'), buf.data + buf.len - 1);
    assert_string_equal(at_json_str_at(line, "event", ""), "node.lost");
    assert_string_equal(at_json_str_at(line, "level", ""), "warn");
    assert_string_equal(at_json_str_at(line, "component", ""), "server");
    assert_string_equal(at_json_str_at(line, "time", ""), "2026-01-02T03:04:05.000001Z");
    assert_string_equal(at_json_str_at(line, "node", ""), "a\"\n\xef\xbf\xbd");
    assert_string_equal(at_json_str_at(line, "msg", ""), "x\ny");
    json_decref(line);
}

static void log_text_stays_on_one_line(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    log_start(&buf, true);
    at_log_kv(AT_LOG_ERROR, "store.full", (struct at_log_kv[]){{"path", "/x"}, {"why", "a b"}, {0}},
              "two\nlines");
    assert_string_equal(buf.data,
                        "03:04:05.000 ERROR server store.full: two lines path=/x why=\"a b\"\n");
}

static struct at_metrics *example(void)
{
    struct at_metrics *metrics = at_metrics_new();
    struct at_metric_family *requests =
        at_metrics_family(metrics, AT_METRIC_COUNTER, "atoll_requests_total",
                          "Requests, by \"verb\"\\.", (const char *const[]){"verb", "code", NULL});
    at_metric_add(at_metric_with(requests, (const char *const[]){"get\"\\\n", "200", NULL}), 3);
    at_metric_add(at_metric_with(requests, (const char *const[]){"\xff\xc3\xa9", "404", NULL}), 1);
    at_metric_set(at_metric_plain(metrics, AT_METRIC_GAUGE, "atoll_nodes", "Nodes known."), -2);
    struct at_metric *latency = at_metric_with(
        at_metrics_family(metrics, AT_METRIC_HISTOGRAM, "atoll_request_duration_seconds",
                          "Latency.", (const char *const[]){"verb", NULL}),
        (const char *const[]){"get", NULL});
    at_metric_observe_ns(latency, 1000);
    at_metric_observe_ns(latency, 1001);
    at_metric_observe_ns(latency, INT64_C(2000000000));
    at_metric_observe_ns(latency, INT64_C(3600000000000));
    at_metric_observe_ns(latency, -5);
    at_metric_observe_ns(
        at_metric_plain(metrics, AT_METRIC_HISTOGRAM, "atoll_body_bytes", "Sizes."), 4096);
    return metrics;
}

static void exposition_has_the_values(void **state)
{
    (void)state;
    struct at_metrics *metrics = example();
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_metrics_expose(metrics, &buf), AT_OK);
    static const char *const LINES[] = {
        "# TYPE atoll_requests_total counter\n",
        "atoll_requests_total{verb=\"get\\\"\\\\\\n\",code=\"200\"} 3\n",
        "atoll_requests_total{verb=\"?\xc3\xa9\",code=\"404\"} 1\n",
        "atoll_nodes -2\n",
        "atoll_request_duration_seconds_bucket{verb=\"get\",le=\"1e-06\"} 2\n",
        "atoll_request_duration_seconds_bucket{verb=\"get\",le=\"2.5e-06\"} 3\n",
        "atoll_request_duration_seconds_bucket{verb=\"get\",le=\"1.5\"} 3\n",
        "atoll_request_duration_seconds_bucket{verb=\"get\",le=\"2.5\"} 4\n",
        "atoll_request_duration_seconds_bucket{verb=\"get\",le=\"+Inf\"} 5\n",
        "atoll_request_duration_seconds_sum{verb=\"get\"} 3602.000002001\n",
        "atoll_request_duration_seconds_count{verb=\"get\"} 5\n",
        "atoll_body_bytes_bucket{le=\"4096\"} 1\n",
        "atoll_body_bytes_sum 4096\n",
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(LINES); i++) {
        if (strstr(buf.data, LINES[i]) == NULL) {
            fail_msg("missing: %s in\n%s", LINES[i], buf.data);
        }
    }
    size_t buckets = 0;
    for (const char *at = buf.data; (at = strstr(at, "seconds_bucket")) != NULL; at++) {
        buckets++;
    }
    assert_true(buckets <= 40);
    for (size_t cap = 1; cap < buf.len; cap += 37) {
        AT_CLEANUP(at_cleanup_buf) struct at_buf small = {.max = cap};
        assert_int_equal(at_metrics_expose(metrics, &small), AT_TOO_LARGE);
    }
    at_metrics_free(metrics);
}

static void promtool_accepts_the_exposition(void **state)
{
    (void)state;
    if (system("command -v promtool >/dev/null 2>&1") != 0) {
        skip();
    }
    struct at_metrics *metrics = example();
    AT_CLEANUP(at_cleanup_buf) struct at_buf buf = {0};
    assert_int_equal(at_metrics_expose(metrics, &buf), AT_OK);
    FILE *promtool = popen("promtool check metrics >&2", "w");
    assert_non_null(promtool);
    assert_int_equal(fwrite(buf.data, 1, buf.len, promtool), buf.len);
    assert_int_equal(pclose(promtool), 0);
    at_metrics_free(metrics);
}

static void too_many_series_end_in_one_named_other(void **state)
{
    (void)state;
    struct at_metrics *metrics = at_metrics_new();
    struct at_metric_family *family = at_metrics_family(metrics, AT_METRIC_COUNTER, "x_total", "X.",
                                                        (const char *const[]){"k", NULL});
    struct at_metric *other = NULL;
    for (int i = 0; i < AT_METRIC_SERIES_MAX + 5; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        other = at_metric_with(family, (const char *const[]){value, NULL});
        at_metric_add(other, 1);
    }
    assert_int_equal(at_metric_value(other), 5);
    assert_ptr_equal(other, at_metric_with(family, (const char *const[]){"new", NULL}));
    assert_int_equal(at_metric_value(at_metric_with(family, (const char *const[]){"7", NULL})), 1);
    at_metrics_free(metrics);
}

static void *add_many(void *arg)
{
    for (int i = 0; i < 100000; i++) {
        at_metric_add(arg, 1);
    }
    return NULL;
}

static void threads_lose_no_update(void **state)
{
    (void)state;
    struct at_metrics *metrics = at_metrics_new();
    struct at_metric *metric = at_metric_plain(metrics, AT_METRIC_COUNTER, "x_total", "X.");
    pthread_t threads[3];
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, metric), 0);
    }
    for (size_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(at_metric_value(metric), 300000);
    at_metrics_free(metrics);
}

static void registries_of_several_threads_are_shown_as_one(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"a", NULL};
    static const char *const X[] = {"x", NULL}, *const Y[] = {"y", NULL};
    struct at_metrics *all[2];
    struct at_metric *gone = NULL;
    for (size_t i = 0; i < 2; i++) {
        all[i] = at_metrics_new();
        struct at_metric_family *f =
            at_metrics_family(all[i], AT_METRIC_COUNTER, "c_total", "C.", NAMES);
        struct at_metric_family *h =
            at_metrics_family(all[i], AT_METRIC_HISTOGRAM, "size_requests", "S.", NULL);
        at_metric_add(at_metric_with(f, X), 2 + (int64_t)i);
        at_metric_observe_ns(at_metric_with(h, NULL), 3);
        at_metric_observe_ns(at_metric_with(h, NULL), 100000);
        gone = at_metric_with(f, Y);
        at_metric_add(gone, 7);
    }
    AT_CLEANUP(at_cleanup_buf) struct at_buf text = {0};
    assert_int_equal(at_metrics_expose_sum((const struct at_metrics *const *)all, 2, &text), AT_OK);
    assert_non_null(strstr(text.data, "c_total{a=\"x\"} 5\n"));
    assert_non_null(strstr(text.data, "c_total{a=\"y\"} 14\n"));
    assert_non_null(strstr(text.data, "size_requests_bucket{le=\"2\"} 0\n"));
    assert_non_null(strstr(text.data, "size_requests_bucket{le=\"3\"} 2\n"));
    assert_non_null(strstr(text.data, "size_requests_bucket{le=\"+Inf\"} 4\n"));
    assert_non_null(strstr(text.data, "size_requests_sum 200006\n"));
    at_metric_drop(gone);
    at_buf_clear(&text);
    assert_int_equal(at_metrics_expose_sum((const struct at_metrics *const *)all, 2, &text), AT_OK);
    assert_non_null(strstr(text.data, "c_total{a=\"y\"} 7\n"));
    at_metrics_free(all[0]);
    at_metrics_free(all[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registries_of_several_threads_are_shown_as_one),
        cmocka_unit_test(log_lines_are_json_whatever_the_values),
        cmocka_unit_test(log_text_stays_on_one_line),
        cmocka_unit_test(exposition_has_the_values),
        cmocka_unit_test(promtool_accepts_the_exposition),
        cmocka_unit_test(too_many_series_end_in_one_named_other),
        cmocka_unit_test(threads_lose_no_update),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
