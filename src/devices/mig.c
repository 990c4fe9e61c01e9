#include "devices/mig.h"

#include "core/mem.h"
#include "core/str.h"
#include "devices/devices_priv.h"
#include "devices/nvml.h"

#include <stdio.h>
#include <string.h>

#define GIS_MAX 16
#define PLACES_MAX 32
#define PROCESSES_MAX 64
#define MIB_PER_GB 1024

/* A kind of part that a GPU can have, by the name that NVIDIA's tools give it: compute slices, then
 * memory in whole GB. Of two that are alike in both the second has the media engines: +me. */
struct kind {
    char name[32];
    unsigned profile;
};

static bool is_known(const struct kind *kinds, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static size_t kinds_of(const struct nvml *nvml, nvml_handle device,
                       struct kind ret[NVML_GI_PROFILES])
{
    size_t n = 0;
    for (unsigned k = 0; nvml->mig.set != NULL && k < NVML_GI_PROFILES; k++) {
        struct nvml_gi_profile p;
        if (nvml->mig.profile(device, k, &p) != 0 || p.slices == 0 || p.memory_mb == 0) {
            continue;
        }
        struct kind kind = {.profile = p.id};
        snprintf(kind.name, sizeof kind.name, "%ug.%llugb", p.slices,
                 (p.memory_mb + MIB_PER_GB - 1) / MIB_PER_GB);
        if (is_known(ret, n, kind.name)) {
            snprintf(kind.name, sizeof kind.name, "%ug.%llugb+me", p.slices,
                     (p.memory_mb + MIB_PER_GB - 1) / MIB_PER_GB);
        }
        if (!is_known(ret, n, kind.name)) {
            ret[n++] = kind;
        }
    }
    return n;
}

void at_devices_mig_profiles(const struct nvml *nvml, nvml_handle device, json_t *gpu)
{
    struct kind kinds[NVML_GI_PROFILES];
    size_t n = kinds_of(nvml, device, kinds);
    json_t *list = n > 0 ? json_array() : NULL;
    for (size_t i = 0; i < n; i++) {
        json_array_append_new(list, json_string(kinds[i].name));
    }
    if (list != NULL) {
        json_object_set_new(gpu, "profiles", list);
    }
}

/* --- one GPU --- */

struct gpu {
    const struct nvml *nvml;
    nvml_handle device;
    char id[96];
    struct kind kinds[NVML_GI_PROFILES];
    size_t n_kinds;
    nvml_gi gis[GIS_MAX];
    struct nvml_gi_info info[GIS_MAX];
    bool whole[GIS_MAX]; /* it has its compute instance */
    size_t n_gis;
    struct at_mig_result *result;
};

static void say(struct gpu *g, enum at_mig_state state, const char *text, const char *more)
{
    if (state > g->result->state) {
        g->result->state = state;
        snprintf(g->result->message, sizeof g->result->message, "GPU %s: %s%s", g->id, text, more);
    }
}

static void read_parts(struct gpu *g)
{
    const struct nvml_mig *mig = &g->nvml->mig;
    g->n_gis = 0;
    for (size_t k = 0; k < g->n_kinds; k++) {
        nvml_gi found[GIS_MAX];
        unsigned n = GIS_MAX;
        if (mig->list(g->device, g->kinds[k].profile, found, &n) != 0) {
            continue;
        }
        for (unsigned i = 0; i < n && i < GIS_MAX && g->n_gis < GIS_MAX; i++) {
            struct nvml_ci_profile ci;
            bool whole = false;
            for (unsigned c = 0; c < NVML_CI_PROFILES; c++) {
                nvml_ci cis[GIS_MAX];
                unsigned n_cis = GIS_MAX;
                whole = whole || (mig->ci_profile(found[i], c, 0, &ci) == 0 &&
                                  mig->ci_list(found[i], ci.id, cis, &n_cis) == 0 && n_cis > 0);
            }
            if (mig->info(found[i], &g->info[g->n_gis]) == 0) {
                g->gis[g->n_gis] = found[i];
                g->whole[g->n_gis++] = whole;
            }
        }
    }
}

static const char *name_of(const struct gpu *g, unsigned profile)
{
    for (size_t k = 0; k < g->n_kinds; k++) {
        if (g->kinds[k].profile == profile) {
            return g->kinds[k].name;
        }
    }
    return "";
}

/* Are there just the parts that are wanted, each of them usable? */
static bool is_as_wanted(const struct gpu *g, const struct at_mig_want *want)
{
    bool taken[GIS_MAX] = {false};
    for (size_t w = 0; w < want->n; w++) {
        size_t i = 0;
        while (i < g->n_gis && (taken[i] || !g->whole[i] ||
                                strcmp(name_of(g, g->info[i].profile), want->profiles[w]) != 0)) {
            i++;
        }
        if (i == g->n_gis) {
            return false;
        }
        taken[i] = true;
    }
    return want->n == g->n_gis;
}

static bool has_process(const struct nvml *nvml, nvml_handle device)
{
    nvml_processes_fn *const kinds[] = {nvml->compute, nvml->graphics, nvml->mps};
    for (size_t k = 0; k < AT_ARRAY_LEN(kinds); k++) {
        struct nvml_process found[PROCESSES_MAX];
        unsigned n = PROCESSES_MAX;
        int rc = kinds[k] != NULL ? kinds[k](device, &n, found) : 0;
        n = kinds[k] != NULL ? n : 0;
        if ((rc == 0 && n > 0) || (rc != 0 && n > PROCESSES_MAX)) {
            return true;
        }
    }
    return false;
}

static bool is_among(const char *id, const char *const *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(id, ids[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Somebody has it or a part of it, or runs on it without having been asked by us. */
static bool is_busy(const struct gpu *g, const char *const *busy, size_t n_busy)
{
    nvml_handle part;
    char id[96];
    if (is_among(g->id, busy, n_busy) || has_process(g->nvml, g->device)) {
        return true;
    }
    for (unsigned k = 0; k < nvml_parts(g->nvml, g->device); k++) {
        if (g->nvml->mig_part(g->device, k, &part) != 0 ||
            g->nvml->uuid(part, id, sizeof id) != 0) {
            continue;
        }
        id[sizeof id - 1] = '\0';
        if (is_among(id, busy, n_busy) || has_process(g->nvml, part)) {
            return true;
        }
    }
    return false;
}

/* --- changing one --- */

static bool unmake_all(struct gpu *g)
{
    const struct nvml_mig *mig = &g->nvml->mig;
    for (size_t i = 0; i < g->n_gis; i++) {
        for (unsigned c = 0; c < NVML_CI_PROFILES; c++) {
            struct nvml_ci_profile ci;
            nvml_ci cis[GIS_MAX];
            unsigned n = GIS_MAX;
            if (mig->ci_profile(g->gis[i], c, 0, &ci) != 0 ||
                mig->ci_list(g->gis[i], ci.id, cis, &n) != 0) {
                continue;
            }
            for (unsigned k = 0; k < n && k < GIS_MAX; k++) {
                if (mig->ci_destroy(cis[k]) != 0) {
                    return false;
                }
            }
        }
        if (mig->destroy(g->gis[i]) != 0) {
            return false;
        }
        g->result->changed = true;
    }
    return true;
}

static bool is_free(const struct nvml_place *at, const struct nvml_place *taken, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (at->start < taken[i].start + taken[i].size && taken[i].start < at->start + at->size) {
            return false;
        }
    }
    return true;
}

/* Where each part goes, by trying: the wanted list is short and so are the places of a kind. */
struct plan {
    const struct gpu *gpu;
    size_t n;
    struct nvml_place places[AT_MIG_PARTS_MAX][PLACES_MAX];
    unsigned n_places[AT_MIG_PARTS_MAX];
    struct nvml_place chosen[AT_MIG_PARTS_MAX];
    unsigned tries;
};
#define TRIES_MAX 100000

static bool plan_from(struct plan *p, size_t at)
{
    if (at == p->n) {
        return true;
    }
    for (unsigned k = 0; k < p->n_places[at] && p->tries < TRIES_MAX; k++) {
        p->tries++;
        if (is_free(&p->places[at][k], p->chosen, at)) {
            p->chosen[at] = p->places[at][k];
            if (plan_from(p, at + 1)) {
                return true;
            }
        }
    }
    return false;
}

static bool profile_named(const struct gpu *g, const char *name, unsigned *ret)
{
    for (size_t k = 0; k < g->n_kinds; k++) {
        if (strcmp(g->kinds[k].name, name) == 0) {
            *ret = g->kinds[k].profile;
            return true;
        }
    }
    return false;
}

static bool plan_make(struct gpu *g, const struct at_mig_want *want, struct plan *p)
{
    *p = (struct plan){.gpu = g, .n = want->n};
    for (size_t w = 0; w < want->n; w++) {
        unsigned profile;
        p->n_places[w] = PLACES_MAX;
        if (!profile_named(g, want->profiles[w], &profile)) {
            say(g, AT_MIG_REFUSED, "it has no parts of the kind ", want->profiles[w]);
            return false;
        }
        if (g->nvml->mig.places(g->device, profile, p->places[w], &p->n_places[w]) != 0) {
            p->n_places[w] = 0;
        }
    }
    if (!plan_from(p, 0)) {
        say(g, AT_MIG_REFUSED, "these parts do not fit on it together", "");
        return false;
    }
    return true;
}

/* The compute instance that has all of a GPU instance: the largest that it knows. */
static bool fill(const struct gpu *g, nvml_gi gi)
{
    const struct nvml_mig *mig = &g->nvml->mig;
    struct nvml_ci_profile best = {0}, ci;
    nvml_ci made;
    for (unsigned c = 0; c < NVML_CI_PROFILES; c++) {
        if (mig->ci_profile(gi, c, 0, &ci) == 0 && ci.slices > best.slices) {
            best = ci;
        }
    }
    return best.slices > 0 && mig->ci_make(gi, best.id, &made) == 0;
}

/* The mode, by its own rules: on some GPUs it holds only after a reset, which is not ours to do. */
static bool set_mode(struct gpu *g, bool on)
{
    unsigned now = 0, pending = 0;
    int activation = 0;
    if (g->nvml->mig_mode(g->device, &now, &pending) == 0 && (now != 0) == on) {
        return true;
    }
    if ((pending != 0) == on) {
        say(g, AT_MIG_RESET, "its MIG mode holds after a reset", "");
        return false;
    }
    if (g->nvml->mig.set(g->device, on ? 1 : 0, &activation) != 0) {
        say(g, AT_MIG_REFUSED, "its driver does not set MIG mode", "");
        return false;
    }
    g->result->changed = true;
    if (activation != 0 || g->nvml->mig_mode(g->device, &now, &pending) != 0 || (now != 0) != on) {
        say(g, AT_MIG_RESET, "its MIG mode holds after a reset", "");
        return false;
    }
    return true;
}

static void converge(struct gpu *g, const struct at_mig_want *want, const char *const *busy,
                     size_t n_busy)
{
    unsigned now = 0, pending = 0;
    struct plan plan;
    bool on = g->nvml->mig_mode(g->device, &now, &pending) == 0 && now != 0;
    if (on) {
        read_parts(g);
    }
    if (on == (want->n > 0) && is_as_wanted(g, want)) {
        return;
    }
    if (!plan_make(g, want, &plan)) { /* nothing is unmade for what cannot be */
        return;
    }
    if (is_busy(g, busy, n_busy)) {
        say(g, AT_MIG_BUSY, "it is divided anew as soon as nothing runs on it", "");
        return;
    }
    if (!unmake_all(g)) {
        say(g, AT_MIG_REFUSED, "its driver does not unmake its parts", "");
        return;
    }
    if (!set_mode(g, want->n > 0)) {
        return;
    }
    for (size_t w = 0; w < want->n; w++) {
        unsigned profile = 0;
        nvml_gi gi;
        bool known = profile_named(g, want->profiles[w], &profile);
        if (!known || g->nvml->mig.make(g->device, profile, &plan.chosen[w], &gi) != 0 ||
            !fill(g, gi)) {
            say(g, AT_MIG_REFUSED, "its driver did not make a part of the kind ",
                want->profiles[w]);
            return;
        }
        g->result->changed = true;
    }
}

static const struct at_mig_want *want_of(const char *id, const struct at_mig_want *wants, size_t n)
{
    const struct at_mig_want *any = NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(wants[i].gpu, id) == 0) {
            return &wants[i];
        }
        any = strcmp(wants[i].gpu, "*") == 0 ? &wants[i] : any;
    }
    return any;
}

void at_mig_converge(const char *library, const struct at_mig_want *wants, size_t n,
                     const char *const *busy, size_t n_busy, struct at_mig_result *ret)
{
    struct nvml nvml;
    bool used[64] = {false};
    *ret = (struct at_mig_result){0};
    if (!nvml_open(library != NULL ? library : AT_DEVICES_NVML, &nvml)) {
        ret->state = AT_MIG_REFUSED;
        snprintf(ret->message, sizeof ret->message, "there is no NVIDIA driver");
        return;
    }
    for (unsigned i = 0; i < nvml_devices(&nvml); i++) {
        struct gpu g = {.nvml = &nvml, .result = ret};
        if (nvml.handle(i, &g.device) != 0 || nvml.uuid(g.device, g.id, sizeof g.id) != 0) {
            continue;
        }
        g.id[sizeof g.id - 1] = '\0';
        const struct at_mig_want *want = want_of(g.id, wants, n);
        if (want == NULL) {
            continue;
        }
        used[(size_t)(want - wants) % AT_ARRAY_LEN(used)] = true;
        g.n_kinds = kinds_of(&nvml, g.device, g.kinds);
        if (g.n_kinds == 0 || nvml.mig_mode == NULL) {
            if (want->n > 0 && strcmp(want->gpu, "*") != 0) {
                say(&g, AT_MIG_REFUSED, "MIG cannot divide it", "");
            }
            continue;
        }
        converge(&g, want, busy, n_busy);
    }
    for (size_t w = 0; w < n && w < AT_ARRAY_LEN(used); w++) {
        struct gpu g = {.result = ret};
        if (!used[w] && strcmp(wants[w].gpu, "*") != 0) {
            snprintf(g.id, sizeof g.id, "%s", wants[w].gpu);
            say(&g, AT_MIG_REFUSED, "it is not on this machine", "");
        }
    }
    nvml_close(&nvml);
}
