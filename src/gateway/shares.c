/* Rates that several gateways share: each lets its thousandths of them through, and all thousandths
 * that are written in the object are at most a thousand. The first gateway that is asked has all;
 * another one that is says that it wants some, and is given half of what who has it does not need,
 * as full as the bucket was that it comes from. So no minute lets more through than one gateway
 * alone would. */
#include "core/mem.h"
#include "gateway/meter_priv.h"

#include <string.h>

#define WHOLE 1000
#define SURPLUS_MILLI 500 /* so full a bucket has more than it needs */
#define UNEVEN_MILLI 100

static int32_t milli_of(const json_t *share, const char *member)
{
    json_int_t n = json_integer_value(json_object_get(share, member));
    return n < 0 ? 0 : n > WHOLE ? WHOLE : (int32_t)n;
}

static int32_t saved_of(const struct gw_holder *h)
{
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    int32_t a = at_meter_rate_saved(&h->rates->requests, now);
    int32_t b = at_meter_rate_saved(&h->rates->tokens, now);
    int32_t least = a < b ? a : b;
    return least < 0 ? 0 : least;
}

static void set_share(struct gw_holder *h, int32_t milli, int32_t saved)
{
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    if (milli != atomic_load(&h->rates->requests.milli)) {
        at_meter_rate_share(&h->rates->requests, milli, saved, now);
        at_meter_rate_share(&h->rates->tokens, milli, saved, now);
    }
}

void gw_share_see(struct gw_holder *h, const json_t *status, bool apply)
{
    const char *own = gw_own_name(h->of);
    size_t i;
    json_t *share;
    int32_t saved = h->least_saved;
    h->mine = (struct gw_rate_share){0};
    h->others_milli = 0;
    h->others_want = h->has_share = false;
    h->least_saved = h->least_wanting = WHOLE;
    json_array_foreach(json_object_get(status, "rates"), i, share)
    {
        const char *name = at_json_str_at(share, "gateway", "");
        struct gw_rate_share s = {milli_of(share, "milli"), milli_of(share, "saved"),
                                  json_is_true(json_object_get(share, "wanted"))};
        if (own != NULL && strcmp(name, own) == 0) {
            h->mine = s;
            h->has_share = true;
        } else if (!gw_is_gone(h->of, name)) {
            h->others_milli += s.milli;
            h->others_want |= s.wanted;
            h->least_wanting = s.wanted && s.milli < h->least_wanting ? s.milli : h->least_wanting;
            h->least_saved = s.milli > 0 && s.saved < h->least_saved ? s.saved : h->least_saved;
        }
    }
    if (h->rates != NULL && apply && h->has_share && h->mine.milli > 0) {
        /* What was taken came from others as they were before; it makes ours no fuller. */
        saved = saved < h->least_saved ? saved : h->least_saved;
        int32_t ours = atomic_load(&h->rates->requests.milli) > 0 ? saved_of(h) : WHOLE;
        set_share(h, h->mine.milli, saved < ours ? saved : ours);
    }
}

/* How much is given to those who want some. */
static int32_t gift(const struct gw_holder *h, int32_t saved)
{
    if (saved >= SURPLUS_MILLI) {
        return h->mine.milli / 2;
    }
    int32_t more = h->mine.milli - h->least_wanting;
    return more > UNEVEN_MILLI ? more / 2 : 0;
}

bool gw_share_plan(struct gw_holder *h)
{
    bool leaving = h->of->stopping || h->closing;
    bool limited = h->rates != NULL && (atomic_load(&h->rates->requests.per_minute) |
                                        atomic_load(&h->rates->tokens.per_minute)) != 0;
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    h->next = h->mine;
    h->next.wanted = h->gives = false;
    if (!limited || leaving) {
        h->next = (struct gw_rate_share){0};
        return h->has_share;
    }
    bool hungry = atomic_exchange(&h->rates->hungry, false);
    h->hungry_ns = hungry ? now : h->hungry_ns;
    int32_t free = WHOLE - h->others_milli - h->mine.milli;
    if (free < 0) { /* changed by hand */
        h->next.milli = h->mine.milli + free > 0 ? h->mine.milli + free : 0;
    } else if ((hungry || h->mine.milli == 0) && free > 0) {
        h->next.milli += free;
        h->next.saved = saved_of(h);
    } else if (hungry || h->mine.milli == 0) {
        h->next.wanted = true;
    } else if (h->others_want && (now - h->shared_ns >= AT_GW_SHARE_NS || h->shared_ns == 0)) {
        int32_t saved = saved_of(h);
        int32_t give = gift(h, saved);
        h->next.milli -= give;
        h->next.saved = give > 0 ? saved : h->next.saved;
        h->gives = give > 0;
    } else if (h->hungry_ns != 0 && now - h->hungry_ns < AT_GW_WANT_NS) {
        h->next.wanted = h->mine.wanted; /* not told on and off */
    }
    if (h->next.milli < h->mine.milli) { /* before anybody may take it */
        set_share(h, h->next.milli, WHOLE);
    }
    bool moved = h->next.milli != h->mine.milli;
    return moved || h->next.wanted != h->mine.wanted;
}

json_t *gw_share_json(struct gw_holder *h, const json_t *status)
{
    const char *own = gw_own_name(h->of);
    json_t *list = json_array(), *share;
    size_t i;
    json_array_foreach(json_object_get(status, "rates"), i, share)
    {
        const char *name = at_json_str_at(share, "gateway", "");
        if (strcmp(name, own) != 0 && !gw_is_gone(h->of, name)) {
            json_array_append(list, share);
        }
    }
    if (h->next.milli > 0 || h->next.wanted) {
        share = json_pack("{s:s, s:i, s:i}", "gateway", own, "milli", (int)h->next.milli, "saved",
                          (int)h->next.saved);
        if (h->next.wanted) {
            json_object_set_new(share, "wanted", json_true());
        }
        json_array_append_new(list, share);
    }
    return list;
}

/* The control plane is away, or who has the rates is: better a part twice than nothing. */
void gw_share_fall_back(struct gw_holder *h)
{
    int64_t now = at_loop_now_ns(h->of->gateway->loop);
    if (h->rates != NULL && atomic_load(&h->rates->requests.milli) == 0 &&
        now - h->opened_ns >= AT_GW_SHARE_WAIT_NS) {
        size_t n = at_map_count(h->of->gateways);
        set_share(h, (int32_t)(WHOLE / (n > 1 ? n : 1)), WHOLE);
    }
}
