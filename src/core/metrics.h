/* Metrics in Prometheus text format. A registry is one per process; families are made at start,
 * series on first use. Values are atomics: any thread may add; exposition takes a lock that updates
 * do not. */
#ifndef AT_CORE_METRICS_H
#define AT_CORE_METRICS_H

#include "core/buf.h"

struct at_metrics;
struct at_metric_family;
struct at_metric; /* one series; stays valid as long as the registry */

enum at_metric_type { AT_METRIC_COUNTER, AT_METRIC_GAUGE, AT_METRIC_HISTOGRAM };

struct at_metrics *at_metrics_new(void);
void at_metrics_free(struct at_metrics *metrics);

#define AT_METRIC_LABELS_MAX 6
#define AT_METRIC_SERIES_MAX                                                                       \
    10000 /* per family; past it, everything goes to one series with labels "other" */

/* label_names: NULL-terminated, may be NULL. Histograms are log-linear over microseconds to
 * minutes; observe in seconds; those of sizes over bytes or counts. Counter names end in _total,
 * histograms in _seconds, _bytes, _requests or _rows. own: registry. */
struct at_metric_family *at_metrics_family(struct at_metrics *metrics, enum at_metric_type type,
                                           const char *name, const char *help,
                                           const char *const *label_names);
/* The series with these label values (NULL-terminated, one per label name). Keep the pointer on hot
 * paths. */
struct at_metric *at_metric_with(struct at_metric_family *family, const char *const *label_values);
/* The series goes, and with it what was counted: for labels that come and go. NULL is nothing. */
void at_metric_drop(struct at_metric *metric);
/* The one series of a new family without labels. own: registry. */
struct at_metric *at_metric_plain(struct at_metrics *metrics, enum at_metric_type type,
                                  const char *name, const char *help);
void at_metric_add(struct at_metric *metric, int64_t delta);     /* counter, gauge */
void at_metric_set(struct at_metric *metric, int64_t value);     /* gauge */
void at_metric_observe_ns(struct at_metric *metric, int64_t ns); /* histogram of durations */
int64_t at_metric_value(const struct at_metric *metric); /* counter or gauge; histogram: count */
/* Prometheus text exposition 0.0.4 appended to buf. */
enum at_rc at_metrics_expose(const struct at_metrics *metrics, struct at_buf *buf) AT_WARN_UNUSED;

/* The same of several registries whose families of one name have the same labels: series of equal
 * labels are added up. For one registry per thread, so that no thread touches another's counters.
 */
enum at_rc at_metrics_expose_sum(const struct at_metrics *const *all, size_t n,
                                 struct at_buf *buf) AT_WARN_UNUSED;

#endif
