/* Random instances come to one machine from schedulers that do not see each other: what the machine
 * takes on never passes what it has. */
#include "agent/agent_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define MANY 64
#define STEPS 200000

static uint64_t draw(uint64_t *state, uint64_t below)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 27) % below;
}

struct guest {
    struct agent_instance instance;
    struct at_instance typed;
    struct at_resources wants;
    struct at_instance_gpu gpus[2];
    struct at_model_kv extended[1];
};

static void come(struct guest *g, struct at_agent *a, uint64_t *random)
{
    *g = (struct guest){.instance = {.agent = a, .typed = &g->typed}};
    g->wants = (struct at_resources){.cpu_milli = 250 * (int64_t)draw(random, 9),
                                     .memory_bytes = (int64_t)draw(random, 5) << 30,
                                     .disk_bytes = (int64_t)draw(random, 3) << 30};
    size_t n = draw(random, 3);
    for (size_t k = 0; k < n; k++) {
        int64_t milli = n == 2 ? 1000 : 100 * (1 + (int64_t)draw(random, 10));
        g->gpus[k] = (struct at_instance_gpu){
            .index = n == 2 ? (int64_t)k : (int64_t)draw(random, 4), .milli = milli};
        g->wants.gpu_milli += milli;
    }
    static const char *const AMOUNTS[] = {"0", "1", "2", "3"};
    g->extended[0].key = "example.com/fpga";
    g->extended[0].value = AMOUNTS[draw(random, 4)];
    g->wants.extended.items = g->extended;
    g->wants.extended.n = draw(random, 2);
    g->typed.spec.resources = &g->wants;
    g->typed.status.gpus.items = g->gpus;
    g->typed.status.gpus.n = n;
}

static void check(const struct guest *guests, const struct at_agent *a)
{
    struct agent_room sum = {0};
    int64_t of_gpu[4] = {0}, fpgas = 0;
    for (size_t k = 0; k < MANY; k++) {
        const struct guest *g = &guests[k];
        if (!g->instance.admitted) {
            continue;
        }
        sum.cpu_milli += g->wants.cpu_milli;
        sum.memory_bytes += g->wants.memory_bytes;
        sum.disk_bytes += g->wants.disk_bytes;
        fpgas += g->wants.extended.n > 0 ? g->extended[0].value[0] - '0' : 0;
        for (size_t i = 0; i < g->typed.status.gpus.n; i++) {
            of_gpu[g->gpus[i].index] += g->gpus[i].milli;
        }
    }
    assert_true(sum.cpu_milli <= a->room.cpu_milli);
    assert_true(sum.memory_bytes <= a->room.memory_bytes);
    assert_true(sum.disk_bytes <= a->room.disk_bytes);
    assert_true(fpgas <= a->room.extended[0].amount);
    for (size_t i = 0; i < 4; i++) {
        assert_true(of_gpu[i] <= 1000);
    }
}

static void learn(struct at_agent *a, const char *fpgas)
{
    json_t *status =
        json_pack("{s:{s:s,s:s,s:s,s:s,s:{s:s}}}", "allocatable", "cpu", "8", "memory", "16Gi",
                  "disk", "20Gi", "gpu", "4", "extended", "example.com/fpga", fpgas);
    assert_non_null(status);
    agent_room_learn(a, status);
    json_decref(status);
    assert_true(a->room.known);
    assert_int_equal(a->room.gpu_milli, 4000);
}

static void never_takes_on_more_than_there_is(void **state)
{
    (void)state;
    static struct guest guests[MANY];
    struct at_agent a = {.name = (char *)"n", .instances = at_map_new()};
    learn(&a, "4");
    uint64_t random = 1;
    size_t taken = 0, refused = 0, devices = 0;
    for (size_t step = 0; step < STEPS; step++) {
        char key[8], why[200];
        size_t k = draw(&random, MANY);
        snprintf(key, sizeof key, "%zu", k);
        (void)at_map_remove(a.instances, key);
        come(&guests[k], &a, &random);
        (void)at_map_put(a.instances, key, &guests[k].instance);
        bool ok = agent_admit(&guests[k].instance, why, sizeof why);
        taken += ok;
        refused += !ok;
        assert_true(ok || strstr(why, "n hold the ") != NULL);
        devices += !ok && strstr(why, "example.com/fpga") != NULL;
        assert_int_equal(agent_admit(&guests[k].instance, why, sizeof why), ok); /* stays so */
        if (step % 16 == 0) {
            check(guests, &a);
        }
    }
    assert_true(taken > STEPS / 20); /* the property is not empty */
    assert_true(refused > STEPS / 20);
    assert_true(devices > STEPS / 200);
    agent_room_forget(&a);
    at_map_free(a.instances);
}

/* The rest of a machine is idle; of its devices there is one, and of others none. */
static void named_devices_are_counted(void **state)
{
    (void)state;
    static struct guest first, second;
    char why[200];
    uint64_t random = 1;
    struct at_agent a = {.name = (char *)"n", .instances = at_map_new()};
    learn(&a, "1");
    come(&first, &a, &random);
    first.wants = (struct at_resources){.extended = {.items = first.extended, .n = 1}};
    first.typed.status.gpus.n = 0;
    first.extended[0].value = "1";
    second = first;
    second.instance.typed = &second.typed;
    second.typed.spec.resources = &second.wants;
    second.wants.extended.items = second.extended;
    (void)at_map_put(a.instances, "1", &first.instance);
    (void)at_map_put(a.instances, "2", &second.instance);
    assert_true(agent_admit(&first.instance, why, sizeof why));
    assert_false(agent_admit(&second.instance, why, sizeof why));
    assert_string_equal(why, "others on n hold the example.com/fpga already that it was given");
    second.extended[0].value = "0"; /* asks for none */
    assert_true(agent_admit(&second.instance, why, sizeof why));
    second.instance.admitted = false;
    second.extended[0] = (struct at_model_kv){"example.com/dpu", "1"};
    assert_false(agent_admit(&second.instance, why, sizeof why));
    first.instance.phase = PHASE_ENDED; /* gives its device back */
    second.extended[0] = (struct at_model_kv){"example.com/fpga", "1"};
    assert_true(agent_admit(&second.instance, why, sizeof why));
    agent_room_forget(&a);
    at_map_free(a.instances);
}

static void what_asks_for_nothing_is_never_refused(void **state)
{
    (void)state;
    static struct guest full, empty;
    char why[200];
    struct at_agent a = {.name = (char *)"n", .instances = at_map_new(), .room = {.known = true}};
    empty = (struct guest){.instance = {.agent = &a, .typed = &empty.typed}};
    empty.typed.spec.resources = &empty.wants;
    full = empty;
    full.instance.typed = &full.typed;
    full.typed.spec.resources = &full.wants;
    full.wants.cpu_milli = 1;
    assert_true(agent_admit(&empty.instance, why, sizeof why));
    assert_false(agent_admit(&full.instance, why, sizeof why));
    at_map_free(a.instances);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(never_takes_on_more_than_there_is),
        cmocka_unit_test(named_devices_are_counted),
        cmocka_unit_test(what_asks_for_nothing_is_never_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
