/* What requests are counted on: money that this gateway may spend, and rates. All loops of a
 * gateway count on the same numbers by atomic operations, so that a limit is never passed by them
 * together, not even by one request. Nothing here waits, allocates or asks a clock. */
#ifndef AT_METERING_ACCOUNT_H
#define AT_METERING_ACCOUNT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A bucket that holds one minute's worth: generic cell rate algorithm (ITU-T I.371), with the
 * theoretical arrival time in 64ths of a nanosecond since the bucket was made. */
struct at_meter_rate {
    _Atomic int64_t per_minute; /* 0: no limit */
    _Atomic int64_t full_at;    /* when everything that was taken has flowed back */
    _Atomic int32_t milli;      /* thousandths of it that are this gateway's; 0: not known yet */
    int64_t base_ns;
};

void at_meter_rate_init(struct at_meter_rate *rate, int64_t now_ns); /* with all of it */
/* Take n. 0: taken. Else nothing was, and the answer is how many ns later it may work; INT64_MAX:
 * never, n is more than a minute's worth. A share too small for n gives it when it is full. */
int64_t at_meter_rate_take(struct at_meter_rate *rate, int64_t n, int64_t now_ns);
/* n more were used than taken (or fewer, below 0): no question of whether they fit. */
void at_meter_rate_correct(struct at_meter_rate *rate, int64_t n, int64_t now_ns);
/* Other gateways have given some of theirs, or are given some: a bucket that grows is as full as
 * its parts were, what comes having saved_milli thousandths of its own minute's worth. */
void at_meter_rate_share(struct at_meter_rate *rate, int32_t milli, int32_t saved_milli,
                         int64_t now_ns);
/* How full it is, in thousandths; below 0: in debt. */
int32_t at_meter_rate_saved(const struct at_meter_rate *rate, int64_t now_ns);
struct at_meter_rate_view {
    int64_t limit, remaining, reset_ns;
};
struct at_meter_rate_view at_meter_rate_look(const struct at_meter_rate *rate, int64_t now_ns);

struct at_meter_account {
    atomic_int refs;
    struct at_meter_rate requests, tokens;
    atomic_bool has_budget;
    _Atomic int64_t left_nanousd;    /* of what this gateway was given: not spent and not held */
    _Atomic int64_t spent_nanousd;   /* in this period, through this gateway */
    _Atomic int64_t pool_nanousd;    /* that nobody has spent, as far as is known */
    _Atomic int64_t missing_nanousd; /* what a refused request wanted; 0: none was refused */
    atomic_bool low;                 /* more is to be asked for */
    _Atomic int64_t low_at_nanousd;  /* when less than this is left */
    _Atomic int64_t granted_nanousd;
    atomic_bool hungry; /* its share of the rates was too small for somebody */
    atomic_bool noted;  /* it is on a list of those that changed, the caller's */
    struct at_meter_account *next_noted;
    void *owner; /* the caller's */
    char *name;  /* for people: "key default/ci", "budget research" */
};

/* own: at_meter_account_unref; name copied. */
struct at_meter_account *at_meter_account_new(const char *name, int64_t now_ns);
struct at_meter_account *at_meter_account_ref(struct at_meter_account *account);
void at_meter_account_unref(struct at_meter_account *account); /* accepts NULL */

enum at_meter_hold {
    AT_METER_HELD,
    AT_METER_LATER, /* there is money, but not here: more is asked for */
    AT_METER_SPENT, /* there is none */
};
/* Hold amount, so that nobody else spends it. */
enum at_meter_hold at_meter_hold(struct at_meter_account *account, int64_t amount_nanousd);
void at_meter_want(struct at_meter_account *account, int64_t amount_nanousd); /* as a refused one */
/* What was held is spent in part; the rest is free again. More than was held is spent all the same.
 */
void at_meter_settle(struct at_meter_account *account, int64_t held_nanousd, int64_t cost_nanousd);
/* This gateway may spend granted in all of this period. By one thread, as what follows. */
void at_meter_grant(struct at_meter_account *account, int64_t granted_nanousd);
/* A period begins, or is known for the first time: so much of it is spent, and nothing granted.
 * What is held stays held. */
void at_meter_begin(struct at_meter_account *account, int64_t spent_nanousd);
/* Give back so much of what is neither spent nor held as there is, at most amount. Returns it. */
int64_t at_meter_give_back(struct at_meter_account *account, int64_t amount_nanousd);

#endif
