#include "sim/meter.h"

#include "core/mem.h"
#include "core/units.h"
#include "sim/csv.h"

#include <stdlib.h>
#include <strings.h>

#define PRICE_MAX 1e6
#define INTENSITY_MAX 1e5
#define SITE_PRICES 3

struct site_row {
    struct at_str site;
    double hour[SITE_PRICES]; /* cpu, GiB, gpu; negative: not told */
};
struct offer {
    struct at_str type, region, model;
    int64_t gpus, cores;
    double price;
};
struct at_prices {
    char *text;
    struct site_row *sites;
    struct offer *offers;
    size_t n_sites, n_offers, cap;
};

static char *keep(struct at_str *text)
{
    char *copy = at_strndup(text->ptr != NULL ? text->ptr : "", text->len);
    text->ptr = copy;
    return copy;
}

static void *one_more(void *list, size_t n, size_t *cap, size_t size)
{
    if (n == *cap) {
        *cap = *cap == 0 ? 256 : *cap * 2;
        return at_realloc(list, *cap * size);
    }
    return list;
}

static enum at_rc read_sites(struct at_prices *p, struct sim_csv *r, const size_t *at)
{
    enum at_rc rc;
    while ((rc = sim_csv_next(r)) == AT_OK) {
        p->sites = one_more(p->sites, p->n_sites, &p->cap, sizeof *p->sites);
        struct site_row *row = &p->sites[p->n_sites++];
        row->site = r->fields[at[0]];
        for (int i = 0; rc == AT_OK && i < SITE_PRICES; i++) {
            row->hour[i] = -1;
            if (at[1 + i] != SIM_CSV_NONE && r->fields[at[1 + i]].len > 0) {
                rc = sim_csv_decimal(r, at[1 + i], PRICE_MAX, &row->hour[i]);
            }
        }
        if (rc == AT_OK && p->n_sites == AT_METER_ROWS_MAX) {
            rc = sim_csv_bad(r, "too many rows, at", row->site);
        }
        if (rc != AT_OK) {
            return rc;
        }
    }
    return rc == AT_EOF ? AT_OK : rc;
}

static int64_t small_number(const struct sim_csv *r, size_t column)
{
    uint64_t v = 0;
    if (column == SIM_CSV_NONE || at_str_to_u64(r->fields[column], &v) != AT_OK || v > 100000) {
        return 0;
    }
    return (int64_t)v;
}

static struct at_str text_of(const struct sim_csv *r, size_t column)
{
    return column == SIM_CSV_NONE ? (struct at_str){0} : at_str_trim(r->fields[column]);
}

static enum at_rc read_offers(struct at_prices *p, struct sim_csv *r, const size_t *at)
{
    enum at_rc rc;
    while ((rc = sim_csv_next(r)) == AT_OK) {
        if (at_str_trim(r->fields[at[0]]).len == 0) {
            continue; /* only sold on the spot market */
        }
        if (p->n_offers == AT_METER_ROWS_MAX) {
            return sim_csv_bad(r, "too many rows, at", r->fields[at[0]]);
        }
        p->offers = one_more(p->offers, p->n_offers, &p->cap, sizeof *p->offers);
        struct offer *o = &p->offers[p->n_offers];
        *o = (struct offer){.model = text_of(r, at[1]),
                            .gpus = small_number(r, at[2]),
                            .type = text_of(r, at[3]),
                            .region = text_of(r, at[4]),
                            .cores = small_number(r, at[5])};
        rc = sim_csv_decimal(r, at[0], PRICE_MAX, &o->price);
        if (rc != AT_OK) {
            return rc;
        }
        p->n_offers++;
    }
    return rc == AT_EOF ? AT_OK : rc;
}

enum at_rc at_prices_read(const char *file, struct at_str text, struct at_prices **ret,
                          struct at_err *err)
{
    static const char *const SITES[] = {"site", "cpu_hour", "memory_gib_hour", "gpu_hour", NULL};
    static const char *const OFFERS[] = {"price_usd_h", "accelerator", "acc_count", "instance_type",
                                         "region",      "vcpus",       NULL};
    size_t at[AT_ARRAY_LEN(OFFERS)];
    struct sim_csv r;
    struct at_prices *p = AT_NEW(struct at_prices);
    p->text = keep(&text);
    enum at_rc rc = sim_csv_begin(&r, file, text, err);
    rc = rc == AT_OK ? sim_csv_columns(&r, SITES, 0, at) : rc;
    if (rc == AT_OK && at[0] != SIM_CSV_NONE) {
        rc = read_sites(p, &r, at);
    } else if (rc == AT_OK && (rc = sim_csv_columns(&r, OFFERS, 0, at)) == AT_OK) {
        rc = at[0] != SIM_CSV_NONE
                 ? read_offers(p, &r, at)
                 : at_err_set(err, AT_INVALID, "%s:1: neither a column site nor price_usd_h", file);
    }
    if (rc != AT_OK) {
        at_prices_free(p);
        return rc;
    }
    *ret = p;
    return AT_OK;
}

void at_prices_free(struct at_prices *p)
{
    if (p != NULL) {
        at_free(p->text);
        at_free(p->sites);
        at_free(p->offers);
        at_free(p);
    }
}

bool at_prices_site(const struct at_prices *p, const char *site, struct at_site_prices *in_out)
{
    int64_t *to[SITE_PRICES] = {&in_out->cpu_hour_microusd, &in_out->memory_gib_hour_microusd,
                                &in_out->gpu_hour_microusd};
    bool told = false;
    for (size_t i = 0; i < p->n_sites; i++) {
        for (int k = 0; k < SITE_PRICES && at_str_eq(p->sites[i].site, site); k++) {
            told = true;
            *to[k] = p->sites[i].hour[k] < 0 ? *to[k] : (int64_t)(p->sites[i].hour[k] * 1e6 + 0.5);
        }
    }
    return told;
}

static int cmp_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t n)
{
    if (n == 0) {
        return -1;
    }
    qsort(values, n, sizeof *values, cmp_double);
    return values[n / 2];
}

/* "A100" is part of "NVIDIA A100-SXM4-80GB", and the other way round; no digit may follow. */
static bool model_matches(struct at_str offer, const char *model)
{
    size_t n = model != NULL ? strlen(model) : 0;
    if (offer.ptr == NULL || offer.len == 0 || n == 0) {
        return false;
    }
    const char *at = memmem(offer.ptr, offer.len, model, n);
    const char *end = at != NULL ? at + n : NULL;
    if (at == NULL) {
        at = memmem(model, n, offer.ptr, offer.len);
        end = at != NULL ? at + offer.len : NULL;
        return at != NULL && !(*end >= '0' && *end <= '9');
    }
    return at != NULL && (end == offer.ptr + offer.len || !(*end >= '0' && *end <= '9'));
}

double at_prices_node(const struct at_prices *p, const struct at_node *node, const char *region)
{
    const char *type = at_model_map_get(&node->meta.labels, "node.kubernetes.io/instance-type");
    const struct at_resources *r =
        node->status.capacity != NULL ? node->status.capacity : node->status.allocatable;
    int64_t gpus = (int64_t)node->status.gpus.n;
    const char *model = gpus > 0 ? node->status.gpus.items[0].model : NULL;
    double cores = r != NULL ? (double)r->cpu_milli / 1000 : 0;
    AT_CLEANUP(at_cleanup_free) double *fit = at_alloc((p->n_offers + 1) * sizeof *fit);
    size_t n = 0;
    for (size_t i = 0; type != NULL && i < p->n_offers; i++) {
        if (at_str_eq(p->offers[i].type, type)) {
            fit[n++] = p->offers[i].price;
            if (region != NULL && at_str_eq(p->offers[i].region, region)) {
                return p->offers[i].price;
            }
        }
    }
    bool by_type = n > 0;
    for (size_t i = 0; !by_type && i < p->n_offers; i++) {
        const struct offer *o = &p->offers[i];
        if (model != NULL && o->gpus > 0 && model_matches(o->model, model)) {
            fit[n++] = o->price / (double)o->gpus * (double)gpus;
        } else if (gpus == 0 && o->gpus == 0 && o->cores > 0) {
            fit[n++] = o->price / (double)o->cores * cores;
        }
    }
    return median(fit, n);
}

/* --- carbon --- */

struct intensity {
    struct at_str key;
    int64_t ms; /* since the first row; 0 without a time column */
    double grams;
};
struct at_carbon {
    char *text;
    struct intensity *rows;
    size_t n, cap;
    int64_t period_ms; /* after which it begins again; 0: it never changes */
};

/* "2019-12-20 00:00:00", or RFC 3339. */
static enum at_rc read_time(const struct sim_csv *r, struct at_str field, int64_t *ret_ms)
{
    char text[40];
    int64_t ns;
    if (field.len < 10 || field.len + 2 > sizeof text) {
        return sim_csv_bad(r, "not a time:", field);
    }
    memcpy(text, field.ptr, field.len);
    memcpy(text + field.len, "Z", 2);
    text[10] = text[10] == ' ' ? 'T' : text[10];
    if (field.ptr[field.len - 1] == 'Z') {
        text[field.len] = '\0';
    }
    if (at_time_parse(text, &ns, NULL) != AT_OK) {
        return sim_csv_bad(r, "not a time:", field);
    }
    *ret_ms = ns / AT_NS_PER_MS;
    return AT_OK;
}

enum carbon_column { C_VALUE, C_KEY = C_VALUE + 3, C_TIME = C_KEY + 4, C_COUNT = C_TIME + 2 };

static size_t first_column(const size_t *at, int from, int to)
{
    for (int i = from; i < to; i++) {
        if (at[i] != SIM_CSV_NONE) {
            return at[i];
        }
    }
    return SIM_CSV_NONE;
}

static enum at_rc read_intensities(struct at_carbon *c, struct sim_csv *r, const size_t *at)
{
    size_t value = first_column(at, C_VALUE, C_KEY), key = first_column(at, C_KEY, C_TIME),
           time = first_column(at, C_TIME, C_COUNT);
    int64_t first_ms = 0, last_ms = 0, step_ms = 0;
    enum at_rc rc =
        value == SIM_CSV_NONE ? sim_csv_bad(r, "no column", AT_STR("g_per_kwh")) : AT_OK;
    while (rc == AT_OK && (rc = sim_csv_next(r)) == AT_OK) {
        if (at_str_trim(r->fields[value]).len == 0) {
            continue;
        }
        c->rows = one_more(c->rows, c->n, &c->cap, sizeof *c->rows);
        struct intensity *row = &c->rows[c->n];
        *row = (struct intensity){.key = text_of(r, key)};
        rc = sim_csv_decimal(r, value, INTENSITY_MAX, &row->grams);
        if (rc == AT_OK && time != SIM_CSV_NONE) {
            rc = read_time(r, r->fields[time], &row->ms);
            first_ms = c->n == 0 ? row->ms : first_ms;
            row->ms -= first_ms;
            if (rc == AT_OK && row->ms < last_ms) {
                rc = sim_csv_bad(r, "earlier than the row before:", r->fields[time]);
            }
            step_ms = row->ms > last_ms ? row->ms - last_ms : step_ms;
            last_ms = row->ms;
        }
        if (rc == AT_OK && ++c->n == AT_METER_ROWS_MAX) {
            rc = sim_csv_bad(r, "too many rows, at", r->fields[value]);
        }
    }
    c->period_ms = last_ms > 0 ? last_ms + step_ms : 0;
    return rc == AT_EOF ? AT_OK : rc;
}

enum at_rc at_carbon_read(const char *file, struct at_str text, struct at_carbon **ret,
                          struct at_err *err)
{
    static const char *const NAMES[] = {"g_per_kwh",
                                        "Carbon Intensity",
                                        "Grid carbon intensity (gCO2eq / kWh)",
                                        "site",
                                        "zone",
                                        "region",
                                        "Google Cloud Region",
                                        "Time",
                                        "time",
                                        NULL};
    size_t at[AT_ARRAY_LEN(NAMES)];
    struct sim_csv r;
    struct at_carbon *c = AT_NEW(struct at_carbon);
    c->text = keep(&text);
    enum at_rc rc = sim_csv_begin(&r, file, text, err);
    rc = rc == AT_OK ? sim_csv_columns(&r, NAMES, 0, at) : rc;
    rc = rc == AT_OK ? read_intensities(c, &r, at) : rc;
    if (rc == AT_OK && c->n == 0) {
        rc = at_err_set(err, AT_INVALID, "%s:%zu: no intensity", file, r.line);
    }
    if (rc != AT_OK) {
        at_carbon_free(c);
        return rc;
    }
    *ret = c;
    return AT_OK;
}

void at_carbon_free(struct at_carbon *c)
{
    if (c != NULL) {
        at_free(c->text);
        at_free(c->rows);
        at_free(c);
    }
}

static bool key_is(struct at_str key, const char *name)
{
    return name != NULL && name[0] != '\0' && at_str_eq(key, name);
}

/* The last row not after ms: rows are in the order of time. */
static size_t rows_until(const struct at_carbon *c, int64_t ms)
{
    size_t low = 0, high = c->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->rows[middle].ms <= ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

double at_carbon_at(const struct at_carbon *c, const struct at_site *site, int64_t ms)
{
    int64_t at = c->period_ms > 0 ? ms % c->period_ms : 0;
    for (size_t i = rows_until(c, at); i > 0; i--) {
        struct at_str key = c->rows[i - 1].key;
        if (key.len == 0 || key_is(key, site->meta.name) || key_is(key, site->spec.carbon_zone) ||
            key_is(key, site->spec.region)) {
            return c->rows[i - 1].grams;
        }
    }
    return -1;
}

int64_t at_carbon_next(const struct at_carbon *c, int64_t ms)
{
    if (c->period_ms == 0) {
        return INT64_MAX;
    }
    int64_t at = ms % c->period_ms;
    size_t next = rows_until(c, at);
    return ms - at + (next < c->n ? c->rows[next].ms : c->period_ms);
}

/* --- power --- */

struct at_watts at_watts_gpu(const char *model)
{
    static const struct {
        const char *model;
        struct at_watts watts;
    } KNOWN[] = {{"H100", {60, 700}},  {"H200", {60, 700}}, {"B200", {100, 1000}},
                 {"A100", {50, 400}},  {"V100", {30, 300}}, {"P100", {25, 250}},
                 {"MI300", {90, 750}}, {"L40", {35, 300}},  {"A10", {30, 150}},
                 {"L4", {16, 72}},     {"T4", {10, 70}},    {"G2", {30, 150}},
                 {"G3", {50, 400}},    {"A6000", {22, 300}}};
    for (size_t i = 0; model != NULL && i < AT_ARRAY_LEN(KNOWN); i++) {
        if (model_matches(at_str_of(model), KNOWN[i].model)) {
            return KNOWN[i].watts;
        }
    }
    return (struct at_watts){30, 300};
}

struct at_watts at_watts_core(void)
{
    return (struct at_watts){15.0 / 16, 120.0 / 16};
}
