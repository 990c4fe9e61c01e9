/* Shares of a GPU that change while copies run: one node with one GPU of 16 GiB. */
#include "rig_look_test.h"
#include "rig_test.h"

static void begin(struct rig *r, uint64_t seed, int replicas)
{
    char text[512];
    rig_init(r, seed);
    rig_gpu_node(r);
    snprintf(text, sizeof text,
             "{\"metadata\":{\"name\":\"web\",\"namespace\":\"default\"},\"spec\":{\"replicas\":%d,"
             "\"template\":{\"spec\":{\"image\":\"oci:/x:1\",\"resources\":{\"gpu\":\"0.25\","
             "\"gpuMemory\":\"4Gi\"}}}}}",
             replicas);
    rig_create(r, &AT_KIND_DEPLOYMENT, text);
    RIG_UNTIL(r, 5, rig_ready(r, "web"));
}

static void resize(struct rig *r, const char *gpu, const char *memory)
{
    char text[256];
    snprintf(text, sizeof text,
             "{\"spec\":{\"template\":{\"spec\":{\"resources\":{\"gpu\":\"%s\",\"gpuMemory\":\"%"
             "s\"}}}}}",
             gpu, memory);
    rig_patch(r, &AT_KIND_DEPLOYMENT, "default", "web", text);
}

/* Copies that hold so much, of those that were resized; the GPU never has more than there is. */
static int64_t holding(struct rig *r, int64_t gib, bool resized_only)
{
    const struct at_snapshot *snap = at_state_snapshot(r->state);
    int64_t n = 0, bytes = 0, milli = 0;
    for (size_t k = 0; k < snap->n_instances; k++) {
        const struct at_instance *i = snap->instances[k];
        for (size_t g = 0; g < i->status.gpus.n; g++) {
            bool resized = i->status.resize != NULL && at_streq(i->status.resize->state, "Done");
            n += i->status.gpus.items[g].memory_bytes == gib << 30 && (resized || !resized_only);
            bytes += i->status.gpus.items[g].memory_bytes;
            milli += i->status.gpus.items[g].milli;
        }
    }
    assert_true(bytes <= INT64_C(16) << 30);
    assert_true(milli <= 1000);
    at_snapshot_unref(snap);
    return n;
}

static void grows_and_shrinks_in_place(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 71, 2);
    resize(&r, "0.5", "8Gi");
    RIG_UNTIL(&r, 3, holding(&r, 8, true) == 2);
    assert_int_equal(rig_all(&r), 2);
    assert_true(rig_ready(&r, "web"));
    resize(&r, "0.125", "2Gi");
    RIG_UNTIL(&r, 3, holding(&r, 2, true) == 2);
    assert_int_equal(rig_all(&r), 2);
    rig_done(&r);
}

static void what_has_no_room_stays_until_there_is_some_elsewhere(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 72, 2);
    resize(&r, "0.5", "14Gi"); /* of two copies none has the room */
    for (int n = 0; n < 100; n++) {
        rig_turn(&r);
        assert_int_equal(holding(&r, 4, false), 2);
    }
    rig_node(&r, "m", "s", "8");
    rig_patch(&r, &AT_KIND_NODE, NULL, "m",
              "{\"status\":{\"allocatable\":{\"gpu\":\"1\"},\"gpus\":[{\"id\":\"GPU-2\",\"model\":"
              "\"L4\",\"memory\":\"16Gi\"}]}}");
    for (int n = 0; n < 1000 && !rig_ready(&r, "web"); n++) {
        rig_turn(&r);
    }
    assert_true(rig_ready(&r, "web"));
    rig_done(&r);
}

static void where_a_quota_counts_more_comes_through_its_door(void **state)
{
    (void)state;
    struct rig r;
    begin(&r, 73, 1);
    rig_create(&r, &AT_KIND_RESOURCE_QUOTA,
               "{\"metadata\":{\"name\":\"q\",\"namespace\":\"default\"},\"spec\":{\"hard\":{"
               "\"gpuMemory\":\"6Gi\"}}}");
    resize(&r, "0.25", "8Gi");
    for (int n = 0; n < 200; n++) {
        rig_turn(&r);
        assert_int_equal(holding(&r, 4, false), 1);
    }
    resize(&r, "0.25", "2Gi"); /* less is had at once */
    RIG_UNTIL(&r, 3, holding(&r, 2, true) == 1);
    assert_int_equal(rig_all(&r), 1);
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_and_shrinks_in_place),
        cmocka_unit_test(what_has_no_room_stays_until_there_is_some_elsewhere),
        cmocka_unit_test(where_a_quota_counts_more_comes_through_its_door),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
