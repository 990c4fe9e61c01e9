/* plan moves: what the descheduler would move, and what that gains: the same look that the server
 * takes, at what the server shows. Nothing is changed. */
#include "cli/cli_priv.h"
#include "core/mem.h"
#include "scheduler/reschedule.h"

#include <stdlib.h>
#include <string.h>

#define MOVES_MAX 1000 /* shown, whatever the policy's limits say */

struct listing {
    void **objects;
    size_t n;
    json_t *items; /* own */
};

struct picture {
    struct listing sites, nodes, deployments, instances, jobs, policies, namespaces, queues,
        reservations;
    struct at_snapshot snap;
    struct at_arena *arena; /* own */
};

static int by_name(const void *a, const void *b)
{
    const struct at_meta *x = *(const struct at_meta *const *)a; /* metadata stands first */
    const struct at_meta *y = *(const struct at_meta *const *)b;
    int c = strcmp(x->ns != NULL ? x->ns : "", y->ns != NULL ? y->ns : "");
    return c != 0 ? c : strcmp(x->name, y->name);
}

static enum at_rc fetch(struct cli *cli, const struct at_model_kind *kind, struct at_arena *arena,
                        struct listing *ret, struct at_err *err)
{
    enum at_rc rc = cli_list(cli, kind, NULL, &ret->items, err);
    size_t n = rc == AT_OK ? json_array_size(ret->items) : 0;
    ret->objects = at_arena_alloc(arena, (n + 1) * sizeof(*ret->objects));
    for (size_t i = 0; i < n && rc == AT_OK; i++) {
        void *object = at_arena_alloc(arena, kind->struct_size);
        ret->objects[ret->n++] = object;
        rc = at_model_decode(kind, json_array_get(ret->items, i), arena, object, err);
    }
    if (ret->n > 0 && rc == AT_OK) {
        qsort(ret->objects, ret->n, sizeof(*ret->objects), by_name);
    }
    return rc;
}

static enum at_rc picture_take(struct cli *cli, struct picture *p, struct at_err *err)
{
    const struct {
        const struct at_model_kind *kind;
        struct listing *to;
    } rows[] = {
        {&AT_KIND_SITE, &p->sites},
        {&AT_KIND_NODE, &p->nodes},
        {&AT_KIND_DEPLOYMENT, &p->deployments},
        {&AT_KIND_INSTANCE, &p->instances},
        {&AT_KIND_JOB, &p->jobs},
        {&AT_KIND_POLICY, &p->policies},
        {&AT_KIND_NAMESPACE, &p->namespaces},
        {&AT_KIND_RESERVATION, &p->reservations},
        {&AT_KIND_QUEUE, &p->queues},
    };
    enum at_rc rc = AT_OK;
    for (size_t i = 0; i < AT_ARRAY_LEN(rows) && rc == AT_OK; i++) {
        rc = fetch(cli, rows[i].kind, p->arena, rows[i].to, err);
    }
#define SHOW(list) .list = (void *)p->list.objects, .n_##list = p->list.n
    p->snap = (struct at_snapshot){SHOW(sites),      SHOW(nodes),        SHOW(deployments),
                                   SHOW(instances),  SHOW(jobs),         SHOW(policies),
                                   SHOW(namespaces), SHOW(reservations), SHOW(queues)};
#undef SHOW
    return rc;
}

static void picture_done(struct picture *p)
{
    json_t *const items[] = {p->sites.items,      p->nodes.items,        p->deployments.items,
                             p->instances.items,  p->jobs.items,         p->policies.items,
                             p->namespaces.items, p->reservations.items, p->queues.items};
    for (size_t i = 0; i < AT_ARRAY_LEN(items); i++) {
        json_decref(items[i]);
    }
    at_arena_free(p->arena);
}

static const char *money(const struct cli *cli, int64_t microusd)
{
    char text[AT_UNITS_TEXT_BYTES_MAX];
    return at_arena_strdup(cli->arena, at_money_format(microusd / 1000 * 1000, text));
}

static json_t *plan_json(const struct cli *cli, const struct at_reschedule_plan *plan,
                         const char *mode)
{
    json_t *moves = json_array();
    for (size_t i = 0; i < plan->n; i++) {
        const struct at_reschedule_move *m = &plan->moves[i];
        json_array_append_new(
            moves, json_pack("{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s}", "namespace", m->instance->meta.ns,
                             "instance", m->instance->meta.name, "from", m->from->meta.name, "to",
                             m->to->meta.name, "reason", at_reschedule_reason_name(m->reason),
                             "gain", money(cli, m->gain_microusd), "cost",
                             money(cli, m->cost_microusd), "message", m->message));
    }
    return json_pack("{s:s,s:I,s:o}", "mode", mode, "considered", (json_int_t)plan->considered,
                     "moves", moves);
}

static void print_table(const struct cli *cli, const struct at_reschedule_plan *plan)
{
    static const char *const HEADER[] = {"NAMESPACE", "INSTANCE", "FROM", "TO",
                                         "REASON",    "GAIN",     "COST"};
    struct cli_table table;
    cli_table_init(&table, cli->arena, AT_ARRAY_LEN(HEADER));
    bool header = !cli_flag(cli, OPT_NO_HEADERS);
    for (size_t i = 0; i < AT_ARRAY_LEN(HEADER) && header; i++) {
        cli_table_add(&table, HEADER[i]);
    }
    for (size_t i = 0; i < plan->n; i++) {
        const struct at_reschedule_move *m = &plan->moves[i];
        cli_table_add(&table, m->instance->meta.ns);
        cli_table_add(&table, m->instance->meta.name);
        cli_table_add(&table, m->from->meta.name);
        cli_table_add(&table, m->to->meta.name);
        cli_table_add(&table, at_reschedule_reason_name(m->reason));
        cli_table_add(&table, money(cli, m->gain_microusd));
        cli_table_add(&table, money(cli, m->cost_microusd));
    }
    cli_table_print(cli, &table, header);
}

static enum at_rc print_plan(struct cli *cli, const struct at_reschedule_plan *plan,
                             const char *mode, struct at_err *err)
{
    enum cli_format format;
    enum at_rc rc = cli_format_of(cli, &format, err);
    if (rc != AT_OK) {
        return rc;
    }
    if (format == CLI_NAME) {
        for (size_t i = 0; i < plan->n; i++) {
            fprintf(cli->env->out, "instance.atoll.dev/%s\n", plan->moves[i].instance->meta.name);
        }
    } else if (format != CLI_TABLE && format != CLI_WIDE) {
        AT_CLEANUP(at_cleanup_json) json_t *value = plan_json(cli, plan, mode);
        rc = cli_print_value(cli, format, value, err);
    } else if (plan->n == 0) {
        fprintf(cli->env->out, "no move pays for itself (%zu instances looked at)\n",
                plan->considered);
    } else {
        print_table(cli, plan);
    }
    return rc;
}

enum at_rc cli_plan_moves(struct cli *cli, struct at_err *err)
{
    struct picture p = {.arena = at_arena_new(SIZE_MAX)};
    struct at_reschedule_plan plan = {0};
    enum at_rc rc = cli_connect(cli, err);
    if (rc == AT_OK) {
        cli->ns = NULL; /* moves concern everything */
        rc = picture_take(cli, &p, err);
    }
    if (rc == AT_OK) {
        struct at_rescheduling policy = *at_reschedule_policy(&p.snap);
        policy.max_moves_per_pass = MOVES_MAX;
        rc = at_reschedule(&p.snap, &policy, MOVES_MAX, at_sys_wall_ns(cli->env->sys), p.arena,
                           &plan);
        rc = rc == AT_OK ? print_plan(cli, &plan, policy.mode, err)
                         : at_err_set(err, rc, "the plan of moves is too large");
    }
    picture_done(&p);
    return rc;
}
