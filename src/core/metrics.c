#include "core/metrics.h"

#include "core/map.h"
#include "core/mem.h"
#include "core/str.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

struct bound {
    int64_t value;
    const char *text;
};

/* Log-linear: five steps a decade, 1 us to 100 s. */
static const struct bound BOUNDS_SECONDS[] = {
    {1000, "1e-06"},     {2500, "2.5e-06"},   {5000, "5e-06"},       {10000, "1e-05"},
    {15000, "1.5e-05"},  {25000, "2.5e-05"},  {40000, "4e-05"},      {60000, "6e-05"},
    {100000, "0.0001"},  {150000, "0.00015"}, {250000, "0.00025"},   {400000, "0.0004"},
    {600000, "0.0006"},  {1000000, "0.001"},  {1500000, "0.0015"},   {2500000, "0.0025"},
    {4000000, "0.004"},  {6000000, "0.006"},  {10000000, "0.01"},    {15000000, "0.015"},
    {25000000, "0.025"}, {40000000, "0.04"},  {60000000, "0.06"},    {100000000, "0.1"},
    {150000000, "0.15"}, {250000000, "0.25"}, {400000000, "0.4"},    {600000000, "0.6"},
    {1000000000, "1"},   {1500000000, "1.5"}, {2500000000, "2.5"},   {4000000000, "4"},
    {6000000000, "6"},   {10000000000, "10"}, {15000000000, "15"},   {25000000000, "25"},
    {40000000000, "40"}, {60000000000, "60"}, {100000000000, "100"},
};

static const struct bound BOUNDS_BYTES[] = {
    {64, "64"},
    {256, "256"},
    {1024, "1024"},
    {4096, "4096"},
    {16384, "16384"},
    {65536, "65536"},
    {262144, "262144"},
    {1048576, "1.048576e+06"},
    {4194304, "4.194304e+06"},
    {16777216, "1.6777216e+07"},
    {67108864, "6.7108864e+07"},
    {268435456, "2.68435456e+08"},
    {1073741824, "1.073741824e+09"},
};

/* How many at once: for names that end in _requests or _rows. */
static const struct bound BOUNDS_COUNTS[] = {
    {1, "1"},     {2, "2"},       {3, "3"},       {4, "4"},       {6, "6"},       {8, "8"},
    {12, "12"},   {16, "16"},     {24, "24"},     {32, "32"},     {48, "48"},     {64, "64"},
    {96, "96"},   {128, "128"},   {192, "192"},   {256, "256"},   {384, "384"},   {512, "512"},
    {768, "768"}, {1024, "1024"}, {2048, "2048"}, {4096, "4096"}, {8192, "8192"},
};

struct histogram {
    _Atomic int64_t sum;
    _Atomic uint64_t buckets[]; /* one more than there are bounds */
};

struct at_metric {
    const struct at_metric_family *family;
    char *labels; /* `a="x",b="y"` as exposed */
    _Atomic int64_t value;
    struct histogram *histogram;
};

struct at_metric_family {
    struct at_metrics *metrics;
    enum at_metric_type type;
    char *name;
    char *help;
    char *label_names[AT_METRIC_LABELS_MAX];
    size_t label_count;
    const struct bound *bounds;
    size_t bound_count;
    struct at_map *series;
};

struct at_metrics {
    pthread_mutex_t lock; /* families and series; never held by updates */
    struct at_map *families;
};

struct at_metrics *at_metrics_new(void)
{
    struct at_metrics *metrics = AT_NEW(struct at_metrics);
    pthread_mutex_init(&metrics->lock, NULL);
    metrics->families = at_map_new();
    return metrics;
}

static void family_free(struct at_metric_family *family)
{
    void *value;
    for (size_t it = 0; at_map_next(family->series, &it, NULL, &value);) {
        struct at_metric *metric = value;
        at_free(metric->labels);
        at_free(metric->histogram);
        at_free(metric);
    }
    at_map_free(family->series);
    for (size_t i = 0; i < family->label_count; i++) {
        at_free(family->label_names[i]);
    }
    at_free(family->name);
    at_free(family->help);
    at_free(family);
}

void at_metrics_free(struct at_metrics *metrics)
{
    if (metrics == NULL) {
        return;
    }
    void *family;
    for (size_t it = 0; at_map_next(metrics->families, &it, NULL, &family);) {
        family_free(family);
    }
    at_map_free(metrics->families);
    pthread_mutex_destroy(&metrics->lock);
    at_free(metrics);
}

static bool ends_with(const char *s, const char *end)
{
    size_t len = strlen(s);
    size_t end_len = strlen(end);
    return len >= end_len && strcmp(s + len - end_len, end) == 0;
}

static struct at_metric_family *family_new(struct at_metrics *metrics, enum at_metric_type type,
                                           const char *name, const char *help,
                                           const char *const *label_names)
{
    bool bytes = ends_with(name, "_bytes");
    bool counts = ends_with(name, "_requests") || ends_with(name, "_rows");
    assert(type != AT_METRIC_COUNTER || ends_with(name, "_total"));
    assert(type != AT_METRIC_HISTOGRAM || bytes || counts || ends_with(name, "_seconds"));
    struct at_metric_family *family = AT_NEW(struct at_metric_family);
    family->metrics = metrics;
    family->type = type;
    family->name = at_strdup(name);
    family->help = at_strdup(help);
    family->bounds = bytes ? BOUNDS_BYTES : counts ? BOUNDS_COUNTS : BOUNDS_SECONDS;
    family->bound_count = bytes    ? AT_ARRAY_LEN(BOUNDS_BYTES)
                          : counts ? AT_ARRAY_LEN(BOUNDS_COUNTS)
                                   : AT_ARRAY_LEN(BOUNDS_SECONDS);
    family->series = at_map_new();
    for (; label_names != NULL && label_names[family->label_count] != NULL; family->label_count++) {
        assert(family->label_count < AT_METRIC_LABELS_MAX);
        family->label_names[family->label_count] = at_strdup(label_names[family->label_count]);
    }
    return family;
}

struct at_metric_family *at_metrics_family(struct at_metrics *metrics, enum at_metric_type type,
                                           const char *name, const char *help,
                                           const char *const *label_names)
{
    pthread_mutex_lock(&metrics->lock);
    struct at_metric_family *family = at_map_get(metrics->families, name);
    if (family == NULL) {
        family = family_new(metrics, type, name, help, label_names);
        at_map_put(metrics->families, name, family);
    }
    assert(family->type == type);
    pthread_mutex_unlock(&metrics->lock);
    return family;
}

/* Escaped as the text format wants: backslash, line feed, and quotes when asked. */
static enum at_rc append_escaped(struct at_buf *buf, const char *s, bool quotes)
{
    enum at_rc rc = AT_OK;
    for (size_t left = strlen(s); left != 0 && rc == AT_OK; s++, left--) {
        if (*s == '\\' || (*s == '"' && quotes)) {
            rc = at_buf_append(buf, (char[]){'\\', *s}, 2);
        } else if (*s == '\n') {
            rc = at_buf_append(buf, "\\n", 2);
        } else if ((unsigned char)*s < 0x80) {
            rc = at_buf_append(buf, s, 1);
        } else {
            size_t good = at_str_utf8_prefix((struct at_str){s, left});
            rc = good != 0 ? at_buf_append(buf, s, 1) : at_buf_append(buf, "?", 1);
            /* The rest of a good character follows byte by byte. */
            for (size_t more = 1; good != 0 && more < left && ((unsigned char)s[1] & 0xc0) == 0x80;
                 more++, s++, left--) {
                rc = rc == AT_OK ? at_buf_append(buf, s + 1, 1) : rc;
            }
        }
    }
    return rc;
}

static char *labels_text(const struct at_metric_family *family, const char *const *values)
{
    struct at_buf text = {0};
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < family->label_count && rc == AT_OK; i++) {
        rc = at_buf_printf(&text, "%s%s=\"", i != 0 ? "," : "", family->label_names[i]);
        if (rc == AT_OK) {
            rc = append_escaped(&text, values != NULL ? values[i] : "other", true);
        }
        if (rc == AT_OK) {
            rc = at_buf_append(&text, "\"", 1);
        }
    }
    assert(rc == AT_OK);
    return at_buf_steal(&text, NULL);
}

static struct at_metric *series_new(struct at_metric_family *family, char *labels_take)
{
    struct at_metric *metric = AT_NEW(struct at_metric);
    metric->family = family;
    metric->labels = labels_take;
    if (family->type == AT_METRIC_HISTOGRAM) {
        metric->histogram = at_alloc(sizeof *metric->histogram +
                                     (family->bound_count + 1) * sizeof(_Atomic uint64_t));
    }
    at_map_put(family->series, labels_take, metric);
    return metric;
}

struct at_metric *at_metric_with(struct at_metric_family *family, const char *const *label_values)
{
    assert(family->label_count == 0 || label_values != NULL);
    for (size_t i = 0; i < family->label_count; i++) {
        assert(label_values[i] != NULL);
    }
    char *labels = labels_text(family, label_values);
    pthread_mutex_lock(&family->metrics->lock);
    struct at_metric *metric = at_map_get(family->series, labels);
    if (metric == NULL && at_map_count(family->series) >= AT_METRIC_SERIES_MAX) {
        at_free(labels);
        labels = labels_text(family, NULL);
        metric = at_map_get(family->series, labels);
    }
    if (metric == NULL) {
        metric = series_new(family, labels);
    } else {
        at_free(labels);
    }
    pthread_mutex_unlock(&family->metrics->lock);
    return metric;
}

struct at_metric *at_metric_plain(struct at_metrics *metrics, enum at_metric_type type,
                                  const char *name, const char *help)
{
    return at_metric_with(at_metrics_family(metrics, type, name, help, NULL), NULL);
}

void at_metric_drop(struct at_metric *metric)
{
    if (metric == NULL) {
        return;
    }
    struct at_metrics *metrics = metric->family->metrics;
    pthread_mutex_lock(&metrics->lock);
    struct at_metric *found = at_map_remove(metric->family->series, metric->labels);
    assert(found == metric);
    pthread_mutex_unlock(&metrics->lock);
    at_free(metric->labels);
    at_free(metric->histogram);
    at_free(metric);
}

void at_metric_add(struct at_metric *metric, int64_t delta)
{
    assert(metric->family->type != AT_METRIC_HISTOGRAM);
    assert(metric->family->type != AT_METRIC_COUNTER || delta >= 0);
    atomic_fetch_add_explicit(&metric->value, delta, memory_order_relaxed);
}

void at_metric_set(struct at_metric *metric, int64_t value)
{
    assert(metric->family->type == AT_METRIC_GAUGE);
    atomic_store_explicit(&metric->value, value, memory_order_relaxed);
}

void at_metric_observe_ns(struct at_metric *metric, int64_t ns)
{
    const struct at_metric_family *family = metric->family;
    assert(family->type == AT_METRIC_HISTOGRAM);
    int64_t value = ns < 0 ? 0 : ns;
    size_t low = 0;
    size_t high = family->bound_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (value <= family->bounds[middle].value) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    atomic_fetch_add_explicit(&metric->histogram->buckets[low], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&metric->histogram->sum, value, memory_order_relaxed);
}

int64_t at_metric_value(const struct at_metric *metric)
{
    if (metric->histogram == NULL) {
        return atomic_load_explicit(&metric->value, memory_order_relaxed);
    }
    uint64_t count = 0;
    for (size_t i = 0; i <= metric->family->bound_count; i++) {
        count += atomic_load_explicit(&metric->histogram->buckets[i], memory_order_relaxed);
    }
    return (int64_t)count;
}

static enum at_rc expose_histogram(const struct at_metric *metric, struct at_buf *buf)
{
    const struct at_metric_family *family = metric->family;
    const char *comma = metric->labels[0] != '\0' ? "," : "";
    const char *open = metric->labels[0] != '\0' ? "{" : "";
    const char *close = metric->labels[0] != '\0' ? "}" : "";
    unsigned long long count = 0;
    for (size_t i = 0; i <= family->bound_count; i++) {
        count += atomic_load_explicit(&metric->histogram->buckets[i], memory_order_relaxed);
        enum at_rc rc =
            at_buf_printf(buf, "%s_bucket{%s%sle=\"%s\"} %llu\n", family->name, metric->labels,
                          comma, i < family->bound_count ? family->bounds[i].text : "+Inf", count);
        if (rc != AT_OK) {
            return rc;
        }
    }
    int64_t sum = atomic_load_explicit(&metric->histogram->sum, memory_order_relaxed);
    enum at_rc rc =
        family->bounds != BOUNDS_SECONDS
            ? at_buf_printf(buf, "%s_sum%s%s%s %lld\n", family->name, open, metric->labels, close,
                            (long long)sum)
            : at_buf_printf(buf, "%s_sum%s%s%s %lld.%09lld\n", family->name, open, metric->labels,
                            close, (long long)(sum / 1000000000), (long long)(sum % 1000000000));
    return rc != AT_OK ? rc
                       : at_buf_printf(buf, "%s_count%s%s%s %llu\n", family->name, open,
                                       metric->labels, close, count);
}

static enum at_rc expose_series(const struct at_metric *metric, struct at_buf *buf)
{
    if (metric->histogram != NULL) {
        return expose_histogram(metric, buf);
    }
    long long value = at_metric_value(metric);
    return metric->labels[0] != '\0'
               ? at_buf_printf(buf, "%s{%s} %lld\n", metric->family->name, metric->labels, value)
               : at_buf_printf(buf, "%s %lld\n", metric->family->name, value);
}

static enum at_rc expose_family(const struct at_metric_family *family, struct at_buf *buf)
{
    static const char *const TYPES[] = {"counter", "gauge", "histogram"};
    if (at_map_count(family->series) == 0) {
        return AT_OK;
    }
    enum at_rc rc = at_buf_printf(buf, "# HELP %s ", family->name);
    if (rc == AT_OK) {
        rc = append_escaped(buf, family->help, false);
    }
    if (rc == AT_OK) {
        rc = at_buf_printf(buf, "\n# TYPE %s %s\n", family->name, TYPES[family->type]);
    }
    void *series;
    for (size_t it = 0; rc == AT_OK && at_map_next(family->series, &it, NULL, &series);) {
        rc = expose_series(series, buf);
    }
    return rc;
}

enum at_rc at_metrics_expose(const struct at_metrics *metrics, struct at_buf *buf)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&metrics->lock;
    enum at_rc rc = AT_OK;
    void *family;
    pthread_mutex_lock(lock);
    for (size_t it = 0; rc == AT_OK && at_map_next(metrics->families, &it, NULL, &family);) {
        rc = expose_family(family, buf);
    }
    pthread_mutex_unlock(lock);
    return rc;
}

/* Adds what one registry has to the sums in another that nobody else knows. */
static void sum_family(const struct at_metric_family *from, struct at_metrics *to)
{
    const char *names[AT_METRIC_LABELS_MAX + 1] = {NULL};
    memcpy(names, from->label_names, from->label_count * sizeof *names);
    struct at_metric_family *family =
        at_metrics_family(to, from->type, from->name, from->help, names);
    void *value;
    for (size_t it = 0; at_map_next(from->series, &it, NULL, &value);) {
        const struct at_metric *own = value;
        struct at_metric *sum = at_map_get(family->series, own->labels);
        if (sum == NULL) {
            sum = series_new(family, at_strdup(own->labels));
        }
        sum->value += atomic_load_explicit(&own->value, memory_order_relaxed);
        for (size_t i = 0; own->histogram != NULL && i <= from->bound_count; i++) {
            sum->histogram->buckets[i] +=
                atomic_load_explicit(&own->histogram->buckets[i], memory_order_relaxed);
        }
        if (own->histogram != NULL) {
            sum->histogram->sum += atomic_load_explicit(&own->histogram->sum, memory_order_relaxed);
        }
    }
}

enum at_rc at_metrics_expose_sum(const struct at_metrics *const *all, size_t n, struct at_buf *buf)
{
    struct at_metrics *sums = at_metrics_new();
    for (size_t i = 0; i < n; i++) {
        pthread_mutex_t *lock = (pthread_mutex_t *)&all[i]->lock;
        void *family;
        pthread_mutex_lock(lock);
        for (size_t it = 0; at_map_next(all[i]->families, &it, NULL, &family);) {
            sum_family(family, sums);
        }
        pthread_mutex_unlock(lock);
    }
    enum at_rc rc = at_metrics_expose(sums, buf);
    at_metrics_free(sums);
    return rc;
}
