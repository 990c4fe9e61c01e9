/* Whoever sends tokens that are none is slowed down: after some of them, an address gets no token
 * looked at for a while, each time longer. A table of fixed size; the oldest makes room. */
#include "api/api_priv.h"
#include "core/mem.h"
#include "core/str.h"

#include <stdio.h>
#include <string.h>

struct guesser {
    char from[64]; /* without the port */
    uint32_t failures;
    int64_t last_ns, until_ns;
    bool told; /* the refusal was recorded */
};
struct api_guesses {
    struct guesser slots[AT_API_GUESSERS_MAX];
};

struct api_guesses *api_guesses_new(void)
{
    return AT_NEW(struct api_guesses);
}

void api_guesses_free(struct api_guesses *g)
{
    at_free(g);
}

static void address(const struct api_req *req, char out[64])
{
    const char *from = req->from != NULL ? req->from : "";
    const char *colon = strrchr(from, ':');
    size_t len = colon != NULL ? (size_t)(colon - from) : strlen(from);
    snprintf(out, 64, "%.*s", (int)(len < 63 ? len : 63), from);
}

static uint32_t hash(const char *text)
{
    uint32_t h = 2166136261u;
    for (; *text != '\0'; text++) {
        h = (h ^ (unsigned char)*text) * 16777619u;
    }
    return h;
}

/* Its slot, or the one of its neighbourhood that was quiet for longest. */
static struct guesser *slot_of(struct api_guesses *g, const char *from, bool make)
{
    struct guesser *oldest = NULL;
    uint32_t at = hash(from);
    for (uint32_t i = 0; i < AT_API_GUESSERS_WAYS; i++) {
        struct guesser *s = &g->slots[(at + i) % AT_API_GUESSERS_MAX];
        if (strcmp(s->from, from) == 0) {
            return s;
        }
        if (oldest == NULL || s->last_ns < oldest->last_ns) {
            oldest = s;
        }
    }
    if (!make) {
        return NULL;
    }
    *oldest = (struct guesser){0};
    snprintf(oldest->from, sizeof oldest->from, "%s", from);
    return oldest;
}

void api_guess_failed(struct api_req *req)
{
    char from[64];
    address(req, from);
    int64_t now = at_sys_mono_ns(req->api->sys);
    struct guesser *s = slot_of(req->api->guesses, from, true);
    if (now - s->last_ns > AT_API_GUESS_FORGET_NS) {
        s->failures = 0;
    }
    s->failures++;
    s->last_ns = now;
    if (s->failures >= AT_API_GUESSES_FREE) {
        uint32_t step = s->failures - AT_API_GUESSES_FREE;
        int64_t wait = AT_API_GUESS_WAIT_NS_MIN << (step < 6 ? step : 6);
        s->until_ns = now + (wait < AT_API_GUESS_WAIT_NS_MAX ? wait : AT_API_GUESS_WAIT_NS_MAX);
        s->told = false;
    }
}

bool api_guess_admits(struct api_req *req)
{
    char from[64];
    address(req, from);
    struct guesser *s = slot_of(req->api->guesses, from, false);
    int64_t now = at_sys_mono_ns(req->api->sys);
    if (s == NULL || now >= s->until_ns) {
        return true;
    }
    req->audited = s->told; /* one record for a time of refusals, not one for each */
    s->told = true;
    if (req->api->guesses_total != NULL) {
        at_metric_add(req->api->guesses_total, 1);
    }
    req->refusal = "too many tokens that are none came from this address";
    api_respond_error(req, AT_EXHAUSTED,
                      "too many tokens that are none came from this address: "
                      "wait, and look at the token");
    return false;
}
