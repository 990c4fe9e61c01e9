#include "metering/account.h"

#include "core/mem.h"

#include <assert.h>

#define UNITS_PER_NS 64
#define MINUTE ((int64_t)60000000000 * UNITS_PER_NS)

typedef __int128 wide;

void at_meter_rate_init(struct at_meter_rate *rate, int64_t now_ns)
{
    atomic_init(&rate->per_minute, 0);
    atomic_init(&rate->full_at, 0);
    atomic_init(&rate->milli, 1000);
    rate->base_ns = now_ns;
}

/* Saturates where a day could not pay it back. */
static int64_t units_of(const struct at_meter_rate *rate, int64_t n, int64_t per_minute)
{
    int32_t milli = atomic_load_explicit(&rate->milli, memory_order_relaxed);
    int64_t rate_milli = per_minute * (milli > 0 ? milli : 1); /* 1e12 a minute at most */
    if (n > -2000 && n < 2000) { /* in 64 bits, which divide several times faster */
        return n * (MINUTE * 1000) / rate_milli;
    }
    wide units = (wide)n * MINUTE * 1000 / rate_milli;
    const wide most = (wide)MINUTE * 1440;
    return (int64_t)(units > most ? most : units < -most ? -most : units);
}

static int64_t clock_of(const struct at_meter_rate *rate, int64_t now_ns)
{
    return (now_ns - rate->base_ns) * UNITS_PER_NS;
}

int64_t at_meter_rate_take(struct at_meter_rate *rate, int64_t n, int64_t now_ns)
{
    int64_t per_minute = atomic_load_explicit(&rate->per_minute, memory_order_relaxed);
    if (per_minute <= 0) {
        return 0;
    }
    if (n > per_minute) {
        return INT64_MAX;
    }
    int64_t now = clock_of(rate, now_ns), cost = units_of(rate, n, per_minute);
    int64_t full_at = atomic_load_explicit(&rate->full_at, memory_order_relaxed);
    int64_t next;
    do {
        next = (full_at > now ? full_at : now) + cost;
        if (next - now > MINUTE && full_at > now) {
            int64_t over = next - now - MINUTE, ahead = full_at - now;
            return (over < ahead ? over : ahead) / UNITS_PER_NS + 1;
        }
    } while (!atomic_compare_exchange_weak_explicit(&rate->full_at, &full_at, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return 0;
}

void at_meter_rate_correct(struct at_meter_rate *rate, int64_t n, int64_t now_ns)
{
    int64_t per_minute = atomic_load_explicit(&rate->per_minute, memory_order_relaxed);
    if (per_minute <= 0 || n == 0) {
        return;
    }
    int64_t now = clock_of(rate, now_ns), cost = units_of(rate, n, per_minute);
    int64_t full_at = atomic_load_explicit(&rate->full_at, memory_order_relaxed);
    int64_t next;
    do { /* what had flowed back anyway is not given back once more */
        next = (cost > 0 && full_at < now ? now : full_at) + cost;
    } while (!atomic_compare_exchange_weak_explicit(&rate->full_at, &full_at, next,
                                                    memory_order_relaxed, memory_order_relaxed));
}

static int64_t ahead_of(const struct at_meter_rate *rate, int64_t now_ns)
{
    int64_t ahead =
        atomic_load_explicit(&rate->full_at, memory_order_relaxed) - clock_of(rate, now_ns);
    return ahead > 0 ? ahead : 0;
}

int32_t at_meter_rate_saved(const struct at_meter_rate *rate, int64_t now_ns)
{
    int64_t room = MINUTE - ahead_of(rate, now_ns);
    return room < -MINUTE ? -1000 : (int32_t)((wide)room * 1000 / MINUTE);
}

void at_meter_rate_share(struct at_meter_rate *rate, int32_t milli, int32_t saved_milli,
                         int64_t now_ns)
{
    int32_t before = atomic_load_explicit(&rate->milli, memory_order_relaxed);
    int64_t full_at = atomic_load_explicit(&rate->full_at, memory_order_relaxed);
    int64_t now = clock_of(rate, now_ns), next;
    do {
        next = full_at;
        if (milli > before) {
            wide old_ahead = (full_at > now ? full_at - now : 0);
            wide new_ahead = (wide)MINUTE * (1000 - saved_milli) / 1000;
            next = now + (int64_t)((old_ahead * before + new_ahead * (milli - before)) / milli);
        }
    } while (!atomic_compare_exchange_weak_explicit(&rate->full_at, &full_at, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    atomic_store_explicit(&rate->milli, milli, memory_order_relaxed);
}

struct at_meter_rate_view at_meter_rate_look(const struct at_meter_rate *rate, int64_t now_ns)
{
    int64_t limit = atomic_load_explicit(&rate->per_minute, memory_order_relaxed);
    int64_t ahead = ahead_of(rate, now_ns);
    int32_t milli = atomic_load_explicit(&rate->milli, memory_order_relaxed);
    int64_t room = ahead < MINUTE ? MINUTE - ahead : 0;
    int64_t remaining = room == MINUTE ? limit * milli / 1000
                                       : (int64_t)((wide)room * limit * milli / 1000 / MINUTE);
    return (struct at_meter_rate_view){
        .limit = limit, .remaining = remaining, .reset_ns = ahead / UNITS_PER_NS};
}

struct at_meter_account *at_meter_account_new(const char *name, int64_t now_ns)
{
    struct at_meter_account *a = AT_NEW(struct at_meter_account);
    atomic_init(&a->refs, 1);
    at_meter_rate_init(&a->requests, now_ns);
    at_meter_rate_init(&a->tokens, now_ns);
    atomic_init(&a->pool_nanousd, INT64_MAX); /* not known yet: not known to be spent */
    a->name = at_strdup(name);
    return a;
}

struct at_meter_account *at_meter_account_ref(struct at_meter_account *account)
{
    atomic_fetch_add_explicit(&account->refs, 1, memory_order_relaxed);
    return account;
}

void at_meter_account_unref(struct at_meter_account *account)
{
    if (account != NULL &&
        atomic_fetch_sub_explicit(&account->refs, 1, memory_order_acq_rel) == 1) {
        at_free(account->name);
        at_free(account);
    }
}

void at_meter_want(struct at_meter_account *a, int64_t amount)
{
    int64_t known = atomic_load_explicit(&a->missing_nanousd, memory_order_relaxed);
    while (known < amount &&
           !atomic_compare_exchange_weak_explicit(&a->missing_nanousd, &known, amount,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

enum at_meter_hold at_meter_hold(struct at_meter_account *account, int64_t amount_nanousd)
{
    if (!atomic_load_explicit(&account->has_budget, memory_order_relaxed)) {
        return AT_METER_HELD;
    }
    int64_t left = atomic_load_explicit(&account->left_nanousd, memory_order_relaxed);
    do {
        /* A request that costs nothing needs a budget that is not used up, too. */
        if (left < amount_nanousd || left <= 0) {
            int64_t pool = atomic_load_explicit(&account->pool_nanousd, memory_order_relaxed);
            if (pool < amount_nanousd || pool <= 0) {
                return AT_METER_SPENT;
            }
            at_meter_want(account, amount_nanousd > 0 ? amount_nanousd : 1);
            return AT_METER_LATER;
        }
    } while (!atomic_compare_exchange_weak_explicit(&account->left_nanousd, &left,
                                                    left - amount_nanousd, memory_order_relaxed,
                                                    memory_order_relaxed));
    int64_t low_at = atomic_load_explicit(&account->low_at_nanousd, memory_order_relaxed);
    if (left - amount_nanousd < low_at &&
        !atomic_load_explicit(&account->low, memory_order_relaxed)) {
        atomic_store_explicit(&account->low, true, memory_order_relaxed);
    }
    return AT_METER_HELD;
}

void at_meter_settle(struct at_meter_account *account, int64_t held_nanousd, int64_t cost_nanousd)
{
    atomic_fetch_add_explicit(&account->spent_nanousd, cost_nanousd, memory_order_relaxed);
    if (held_nanousd != cost_nanousd) {
        atomic_fetch_add_explicit(&account->left_nanousd, held_nanousd - cost_nanousd,
                                  memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(&account->pool_nanousd, cost_nanousd, memory_order_relaxed);
}

void at_meter_grant(struct at_meter_account *account, int64_t granted_nanousd)
{
    int64_t before = atomic_exchange(&account->granted_nanousd, granted_nanousd);
    int64_t left = atomic_fetch_add(&account->left_nanousd, granted_nanousd - before);
    if (granted_nanousd != before) {
        atomic_store(&account->low_at_nanousd, (left + granted_nanousd - before) / 4);
    }
}

void at_meter_begin(struct at_meter_account *account, int64_t spent_nanousd)
{
    int64_t spent = atomic_exchange(&account->spent_nanousd, spent_nanousd);
    int64_t granted = atomic_exchange(&account->granted_nanousd, 0);
    atomic_fetch_add(&account->left_nanousd, spent - spent_nanousd - granted);
}

int64_t at_meter_give_back(struct at_meter_account *account, int64_t amount_nanousd)
{
    int64_t left = atomic_load(&account->left_nanousd), back;
    do {
        back = left < amount_nanousd ? left : amount_nanousd;
        if (back <= 0) {
            return 0;
        }
    } while (!atomic_compare_exchange_weak(&account->left_nanousd, &left, left - back));
    atomic_fetch_sub(&account->granted_nanousd, back);
    return back;
}
