/* State on the memory store, with a clock that the test moves. */
#include "core/mem.h"
#include "state/state_priv.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

struct fixture {
    struct at_sys sys;
    int64_t wall_ns;
    struct at_loop *loop;
    struct at_store *store;
    struct at_state *state;
    bool ready;
    char changes[4096]; /* "Kind ns/name " per listener call */
};

static int64_t test_wall(void *ctx)
{
    return ((struct fixture *)ctx)->wall_ns;
}
static int64_t real_mono(void *ctx)
{
    (void)ctx;
    return at_sys_mono_ns(at_sys_real());
}
static void real_random(void *ctx, void *out, size_t len)
{
    (void)ctx;
    at_sys_random(at_sys_real(), out, len);
}
static int real_poll(void *ctx, int epfd, void *events, int n, int64_t deadline)
{
    (void)ctx;
    return at_sys_real()->poll(at_sys_real()->ctx, epfd, events, n, deadline);
}

static void on_ready(void *ctx)
{
    struct fixture *f = ctx;
    assert_false(f->ready);
    f->ready = true;
}

static void on_changed(void *ctx, const struct at_model_kind *kind, const char *ns,
                       const char *name)
{
    struct fixture *f = ctx;
    size_t used = strlen(f->changes);
    snprintf(f->changes + used, sizeof f->changes - used, "%s %s/%s ", kind->kind,
             ns != NULL ? ns : "", name);
}

static void state_open(struct fixture *f)
{
    struct at_err err = {0};
    f->ready = false;
    assert_int_equal(at_state_new(f->loop, f->store, on_ready, f, &f->state, &err), AT_OK);
    at_state_listen(f->state, on_changed, f);
    while (!f->ready) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + 5 * AT_NS_PER_S);
    }
}

static int set_up(void **state)
{
    struct fixture *f = AT_NEW(struct fixture);
    f->sys = (struct at_sys){f, real_mono, test_wall, real_random, real_poll};
    f->wall_ns = INT64_C(1767323045) * AT_NS_PER_S;
    f->loop = at_loop_new(&f->sys);
    struct at_err err = {0};
    assert_int_equal(at_store_open("memory", NULL, f->loop, &f->store, &err), AT_OK);
    state_open(f);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    at_state_free(f->state);
    at_store_close(f->store);
    at_loop_free(f->loop);
    at_free(f);
    return 0;
}

struct answer {
    bool done;
    enum at_rc rc;
    int64_t rev;
    char msg[AT_ERR_MSG_BYTES_MAX];
    char field[AT_ERR_FIELD_BYTES_MAX];
};

static void on_done(void *ctx, enum at_rc rc, int64_t rev, const struct at_err *err)
{
    struct answer *a = ctx;
    assert_false(a->done);
    a->done = true;
    a->rc = rc;
    a->rev = rev;
    if (err != NULL) {
        snprintf(a->msg, sizeof a->msg, "%s", err->msg);
        snprintf(a->field, sizeof a->field, "%s", err->field);
    }
}

static void wait_for(struct fixture *f, const bool *done)
{
    int64_t deadline = at_sys_mono_ns(at_sys_real()) + 10 * AT_NS_PER_S;
    while (!*done) {
        at_loop_turn(f->loop, deadline);
        assert_true(at_sys_mono_ns(at_sys_real()) < deadline);
    }
}

static json_t *parse(const char *text)
{
    struct at_err err = {0};
    json_t *value = NULL;
    if (at_json_parse(text, strlen(text), &value, &err) != AT_OK) {
        fail_msg("%s: %s", text, err.msg);
    }
    return value;
}

static struct answer create(struct fixture *f, const struct at_model_kind *kind, const char *text)
{
    struct answer a = {0};
    at_state_create(f->state, kind, parse(text), on_done, &a);
    wait_for(f, &a.done);
    return a;
}

static void create_instance(struct fixture *f, const char *name, const char *meta_more)
{
    char text[1024];
    snprintf(text, sizeof text,
             "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"default\"%s},"
             "\"spec\":{\"command\":[\"/bin/true\"]}}",
             name, meta_more);
    struct answer a = create(f, &AT_KIND_INSTANCE, text);
    if (a.rc != AT_OK) {
        fail_msg("%s %s", a.field, a.msg);
    }
}

static struct answer update(struct fixture *f, const char *name, at_state_change_fn *change,
                            void *ctx)
{
    struct answer a = {0};
    at_state_update(f->state, &AT_KIND_INSTANCE, "default", name, change, ctx, on_done, &a);
    wait_for(f, &a.done);
    return a;
}

static const struct at_instance *instance_of(const struct at_snapshot *snap, const char *name)
{
    return at_snapshot_instance(snap, "default", name);
}

static void a_snapshot_never_changes_and_shares_what_did_not_change(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    assert_int_equal(create(f, &AT_KIND_SITE,
                            "{\"metadata\":{\"name\":\"s\"},\"spec\":{\"class\":\"edge\","
                            "\"jurisdiction\":\"EU\"}}")
                         .rc,
                     AT_OK);
    const struct at_snapshot *first = at_state_snapshot(f->state);
    const struct at_snapshot *same = at_state_snapshot(f->state);
    assert_ptr_equal(first, same);
    assert_int_equal(first->rev, at_store_rev(f->store));
    create_instance(f, "b", "");
    const struct at_snapshot *second = at_state_snapshot(f->state);
    assert_int_equal(first->n_instances, 1);
    assert_int_equal(second->n_instances, 2);
    assert_ptr_equal(first->instances[0], second->instances[0]); /* decoded once */
    assert_ptr_equal(first->sites, second->sites);               /* whole list shared */
    assert_non_null(at_snapshot_site(second, "s"));
    assert_null(at_snapshot_site(second, "t"));
    at_snapshot_unref(same);
    struct answer gone = {0};
    at_state_delete(f->state, &AT_KIND_INSTANCE, "default", "a", NULL, on_done, &gone);
    wait_for(f, &gone.done);
    at_snapshot_unref(second);
    assert_string_equal(first->instances[0]->meta.name, "a"); /* still held */
    at_snapshot_unref(first);
}

static void lists_are_ordered_by_namespace_then_name(void **state)
{
    struct fixture *f = *state;
    static const char *const order[][2] = {{"a", "x-1"}, {"a-b", "a"}, {"a", "x"},
                                           {"b", "a"},   {"a-b", "b"}, {"a", "x.y"}};
    for (size_t i = 0; i < AT_ARRAY_LEN(order); i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "{\"metadata\":{\"name\":\"%s\",\"namespace\":\"%s\"},"
                 "\"spec\":{\"command\":[\"x\"]}}",
                 order[i][1], order[i][0]);
        assert_int_equal(create(f, &AT_KIND_INSTANCE, text).rc, AT_OK);
    }
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    char got[256] = "";
    for (size_t i = 0; i < snap->n_instances; i++) {
        const struct at_meta *meta = &snap->instances[i]->meta;
        size_t used = strlen(got);
        snprintf(got + used, sizeof got - used, "%s/%s ", meta->ns, meta->name);
        assert_ptr_equal(at_snapshot_instance(snap, meta->ns, meta->name), snap->instances[i]);
    }
    assert_string_equal(got, "a/x a/x-1 a/x.y a-b/a a-b/b b/a ");
    const struct at_snapshot_key keys[] = {{"b", "a"},   {"a", "x"},   {"a", "w"}, {"a-b", "b"},
                                           {"b", "b"},   {"a", "x-1"}, {"", "a"},  {"a", "x.y"},
                                           {"a-b", "a"}, {"c", "c"}};
    const struct at_instance *found[AT_SNAPSHOT_FIND_MAX];
    at_snapshot_instances(snap, keys, AT_ARRAY_LEN(keys), found);
    for (size_t i = 0; i < AT_ARRAY_LEN(keys); i++) {
        assert_ptr_equal(found[i], at_snapshot_instance(snap, keys[i].ns, keys[i].name));
    }
    assert_non_null(found[0]);
    assert_null(found[2]);
    at_snapshot_unref(snap);
}

struct watcher {
    struct fixture *f;
    bool shown;
};

static void look_at_once(void *ctx, const struct at_model_kind *kind, const char *ns,
                         const char *name)
{
    struct watcher *w = ctx;
    (void)kind;
    (void)ns;
    const struct at_snapshot *snap = at_state_snapshot(w->f->state);
    w->shown = instance_of(snap, name) != NULL;
    at_snapshot_unref(snap);
}

static void listeners_run_after_the_indexes_show_the_change(void **state)
{
    struct fixture *f = *state;
    struct watcher w = {.f = f};
    at_state_listen(f->state, look_at_once, &w);
    create_instance(f, "a", "");
    assert_true(w.shown);
    assert_string_equal(f->changes, "Instance default/a ");
}

static void a_new_state_shows_what_the_store_has(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    at_state_free(f->state);
    f->changes[0] = '\0';
    state_open(f);
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_non_null(instance_of(snap, "a"));
    assert_string_equal(f->changes, "");
    at_snapshot_unref(snap);
}

static void creation_fills_defaults_and_stamps(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    json_t *object = at_state_object(f->state, &AT_KIND_INSTANCE, "default", "a");
    assert_string_equal(at_json_str_at(object, "kind", ""), "Instance");
    assert_string_equal(at_json_str_at(object, "spec.restartPolicy", ""), "Always");
    assert_string_equal(at_json_str_at(object, "metadata.creationTimestamp", ""),
                        "2026-01-02T03:04:05Z");
    assert_int_equal(at_json_int_at(object, "metadata.generation", 0), 1);
    assert_int_equal(at_object_rv(object), at_store_rev(f->store));
    json_decref(object);
    assert_null(at_state_object(f->state, &AT_KIND_INSTANCE, "default", "b"));
    struct answer again = create(f, &AT_KIND_INSTANCE,
                                 "{\"metadata\":{\"name\":\"a\",\"namespace\":\"default\"},"
                                 "\"spec\":{\"command\":[\"x\"]}}");
    assert_int_equal(again.rc, AT_EXISTS);
}

static void a_controllers_mistake_is_refused_and_named(void **state)
{
    struct fixture *f = *state;
    int64_t rev = at_store_rev(f->store);
    struct answer a = create(f, &AT_KIND_INSTANCE,
                             "{\"metadata\":{\"name\":\"a\",\"namespace\":\"default\"},"
                             "\"spec\":{\"command\":[\"x\"],\"restartPolicy\":\"Sometimes\"}}");
    assert_int_equal(a.rc, AT_INVALID);
    assert_string_equal(a.field, "spec.restartPolicy");
    a = create(f, &AT_KIND_INSTANCE, "{\"metadata\":{\"name\":\"a\"},\"spec\":{}}");
    assert_int_equal(a.rc, AT_INVALID);
    assert_string_equal(a.field, "metadata.namespace");
    a = create(f, &AT_KIND_INSTANCE,
               "{\"metadata\":{\"name\":\"a\",\"namespace\":\"default\"},\"spec\":{\"typo\":1}}");
    assert_int_equal(a.rc, AT_BAD_REQUEST);
    assert_int_equal(at_store_rev(f->store), rev);
}

static bool set_phase(void *ctx, json_t *object)
{
    at_json_set_at(object, "status.phase", json_string(ctx));
    return true;
}

static bool set_node(void *ctx, json_t *object)
{
    at_json_set_at(object, "spec.nodeName", json_string(ctx));
    return true;
}

static bool leave(void *ctx, json_t *object)
{
    (void)ctx;
    at_json_set_at(object, "status.phase", json_string("Failed"));
    return false;
}

static bool break_it(void *ctx, json_t *object)
{
    (void)ctx;
    at_json_set_at(object, "status.phase", json_string("Nonsense"));
    return true;
}

static void updates_write_only_real_changes(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    struct answer a = update(f, "a", set_phase, (char[]){"Running"});
    assert_int_equal(a.rc, AT_OK);
    int64_t rev = at_store_rev(f->store);
    assert_int_equal(a.rev, rev);
    assert_int_equal(update(f, "a", set_phase, (char[]){"Running"}).rc, AT_OK);
    assert_int_equal(update(f, "a", leave, NULL).rc, AT_OK);
    assert_int_equal(update(f, "a", break_it, NULL).rc, AT_INVALID);
    assert_int_equal(update(f, "b", set_phase, (char[]){"Running"}).rc, AT_NOT_FOUND);
    assert_int_equal(at_store_rev(f->store), rev);
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_string_equal(instance_of(snap, "a")->status.phase, "Running");
    assert_int_equal(instance_of(snap, "a")->meta.generation, 1);
    at_snapshot_unref(snap);
    assert_int_equal(update(f, "a", set_node, (char[]){"n1"}).rc, AT_OK);
    snap = at_state_snapshot(f->state);
    assert_int_equal(instance_of(snap, "a")->meta.generation, 2);
    at_snapshot_unref(snap);
}

static void of_two_updates_on_the_same_version_one_conflicts(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    struct answer one = {0};
    struct answer two = {0};
    at_state_update(f->state, &AT_KIND_INSTANCE, "default", "a", set_node, (char[]){"n1"}, on_done,
                    &one);
    at_state_update(f->state, &AT_KIND_INSTANCE, "default", "a", set_node, (char[]){"n2"}, on_done,
                    &two);
    wait_for(f, &two.done);
    assert_int_equal(one.rc, AT_OK);
    assert_int_equal(two.rc, AT_CONFLICT);
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_string_equal(instance_of(snap, "a")->spec.node_name, "n1");
    at_snapshot_unref(snap);
}

static void settle(struct fixture *f);

/* A binding, as edits of the text and as a change of the object. */
static bool bind_edit(void *ctx, const char *stored, size_t len,
                      struct at_object_edit edits[AT_STATE_EDITS_OWN_MAX], size_t *ret_n)
{
    (void)ctx;
    assert_non_null(at_object_member(stored, len, "spec", "command").ptr);
    *ret_n = 0;
    edits[(*ret_n)++] = (struct at_object_edit){"metadata", "finalizers", AT_STR("[\"f\"]")};
    edits[(*ret_n)++] = (struct at_object_edit){"spec", "nodeName", AT_STR("\"n1\"")};
    edits[(*ret_n)++] = (struct at_object_edit){"status", "site", AT_STR("\"s\"")};
    edits[(*ret_n)++] = (struct at_object_edit){"status", "reason", {NULL, 0}};
    edits[(*ret_n)++] = (struct at_object_edit){"status", "phase", AT_STR("\"Pending\"")};
    return true;
}

static bool bind_change(void *ctx, json_t *object)
{
    *(int *)ctx += 1;
    json_object_del(json_object_get(object, "status"), "reason");
    at_json_set_at(object, "metadata.finalizers", json_pack("[s]", "f"));
    at_json_set_at(object, "spec.nodeName", json_string("n1"));
    at_json_set_at(object, "status.site", json_string("s"));
    return true;
}

static void store_instance(struct fixture *f, const char *name, const char *meta_more,
                           const char *status)
{
    char text[4096], key[AT_STORE_KEY_BYTES_MAX];
    snprintf(text, sizeof text,
             "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Instance\",\"metadata\":{\"name\":\"%s\","
             "\"namespace\":\"default\",\"generation\":7%s},\"spec\":{\"command\":[\"/bin/"
             "true\"]}%s}",
             name, meta_more, status);
    json_t *object = parse(text);
    assert_int_equal(at_model_default(&AT_KIND_INSTANCE, object, NULL), AT_OK);
    AT_CLEANUP(at_cleanup_buf) struct at_buf whole = {0};
    assert_int_equal(at_object_encode(object, &whole, NULL), AT_OK);
    json_decref(object);
    at_state_key(&AT_KIND_INSTANCE, "default", name, key, sizeof key);
    at_store_write(f->store,
                   &(struct at_store_write){.key = key, .value = whole.data, .len = whole.len});
    settle(f);
}

static void editing_the_text_gives_what_an_update_gives(void **state)
{
#define FIELDS(fields) "\"apiVersion\":\"v1\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":" fields "}"
#define OWNER(name, fields) "{\"manager\":\"" name "\",\"operation\":\"Update\"," FIELDS(fields)
#define COMMAND "{\"f:spec\":{\"f:command\":{}}}"
#define TWO OWNER("one", COMMAND) "," OWNER("other", COMMAND)
    static const struct {
        const char *meta_more, *status;
        bool by_text;
    } CASES[] = {
        {"", "", true},
        {"", ",\"status\":{\"phase\":\"Pending\",\"reason\":\"r\",\"site\":\"old\"}", true},
        {",\"managedFields\":[" OWNER("kubectl", COMMAND) "]", "", true},
        {",\"managedFields\":[" OWNER("kubectl", COMMAND) "]", "", true}, /* as just now */
        {",\"managedFields\":[]", "", true},
        {",\"managedFields\":[" OWNER("kubectl", "{\"f:spec\":{\"f:nodeName\":{}}}") "]", "",
         false},
        {",\"managedFields\":[" OWNER("atoll-controllers", COMMAND) "]", "", false},
        {",\"managedFields\":[" TWO "," TWO "," TWO "," TWO "," TWO "]", "", false},
    };
    struct fixture *f = *state;
    for (size_t k = 0; k < AT_ARRAY_LEN(CASES); k++) {
        char name[2][16];
        json_t *got[2];
        int changes = 0, by_change = 0;
        for (int way = 0; way < 2; way++) {
            snprintf(name[way], sizeof name[way], "%c%zu", way == 0 ? 'a' : 'b', k);
            store_instance(f, name[way], CASES[k].meta_more, CASES[k].status);
        }
        struct answer a = {0};
        at_state_edit(f->state, &AT_KIND_INSTANCE, "default", name[0], bind_edit, bind_change,
                      &by_change, on_done, &a);
        wait_for(f, &a.done);
        assert_int_equal(a.rc, AT_OK);
        assert_int_equal(a.rev, at_store_rev(f->store));
        assert_int_equal(update(f, name[1], bind_change, &changes).rc, AT_OK);
        assert_int_equal(by_change, CASES[k].by_text ? 0 : 1);
        for (int way = 0; way < 2; way++) {
            got[way] = at_state_object(f->state, &AT_KIND_INSTANCE, "default", name[way]);
            at_json_set_at(got[way], "metadata.name", json_string("same"));
            at_object_strip_rv(got[way]);
        }
        if (k == 4) { /* an update drops an empty list, which says nothing; the text keeps it */
            at_json_set_at(got[0], "metadata.managedFields", NULL);
            at_json_set_at(got[1], "metadata.managedFields", NULL);
        }
        assert_true(json_equal(got[0], got[1]));
        assert_int_equal(at_json_int_at(got[0], "metadata.generation", 0), 8);
        json_decref(got[0]);
        json_decref(got[1]);
    }
    struct answer a = {0};
    int changes = 0;
    at_state_edit(f->state, &AT_KIND_INSTANCE, "default", "none", bind_edit, bind_change, &changes,
                  on_done, &a);
    wait_for(f, &a.done);
    assert_int_equal(a.rc, AT_NOT_FOUND);
}

static bool drop_finalizer(void *ctx, json_t *object)
{
    at_object_drop_finalizer(object, ctx);
    return true;
}

static struct answer delete_instance(struct fixture *f, const char *name, const char *uid)
{
    struct answer a = {0};
    at_state_delete(f->state, &AT_KIND_INSTANCE, "default", name, uid, on_done, &a);
    wait_for(f, &a.done);
    return a;
}

static void deletion_waits_for_finalizers_and_minds_the_uid(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", ",\"finalizers\":[\"atoll.dev/agent\"]");
    assert_int_equal(delete_instance(f, "a", "another").rc, AT_CONFLICT);
    assert_int_equal(delete_instance(f, "b", NULL).rc, AT_NOT_FOUND);
    assert_int_equal(delete_instance(f, "a", NULL).rc, AT_OK);
    int64_t rev = at_store_rev(f->store);
    assert_int_equal(delete_instance(f, "a", NULL).rc, AT_OK); /* already on its way */
    assert_int_equal(at_store_rev(f->store), rev);
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_int_equal(instance_of(snap, "a")->meta.deletion_wall_ns, f->wall_ns);
    assert_int_equal(instance_of(snap, "a")->meta.generation, 2);
    at_snapshot_unref(snap);
    assert_int_equal(update(f, "a", drop_finalizer, (char[]){"atoll.dev/agent"}).rc, AT_OK);
    snap = at_state_snapshot(f->state);
    assert_null(instance_of(snap, "a"));
    assert_int_equal(snap->n_instances, 0);
    at_snapshot_unref(snap);
}

struct events {
    size_t n;
    int64_t count;
    char first[64], last[64];
};

static void on_event_list(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *kvs,
                          size_t n, bool more, const struct at_err *err)
{
    struct events *e = ctx;
    (void)rev;
    (void)more;
    (void)err;
    assert_int_equal(rc, AT_OK);
    e->n = n;
    if (n != 0) {
        json_t *event = NULL;
        assert_int_equal(at_object_decode(kvs[0].value, kvs[0].value_len, 1, &event, NULL), AT_OK);
        e->count = at_json_int_at(event, "count", 0);
        snprintf(e->first, sizeof e->first, "%s", at_json_str_at(event, "firstTimestamp", ""));
        snprintf(e->last, sizeof e->last, "%s", at_json_str_at(event, "lastTimestamp", ""));
        struct at_err bad = {0};
        struct at_arena *arena = at_arena_new(0);
        struct at_model_report report = {0};
        if (at_model_validate(&AT_KIND_EVENT, event, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report,
                              &bad) != AT_OK) {
            fail_msg("%s: %s", bad.field, bad.msg);
        }
        at_arena_free(arena);
        json_decref(event);
    }
}

static struct events list_events(struct fixture *f)
{
    struct events e = {0};
    at_store_range(f->store, "/atoll/core/events/", "/atoll/core/events0", 0, 0, on_event_list, &e);
    return e;
}

static void say(struct fixture *f, const char *reason)
{
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    at_state_event(f->state, &AT_KIND_INSTANCE, &instance_of(snap, "a")->meta, true, reason,
                   "%s happened", reason);
    at_snapshot_unref(snap);
}

static void settle(struct fixture *f)
{
    bool idle = false;
    while (!idle) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + AT_NS_PER_MS);
        idle = at_map_count(f->state->events) == 0;
    }
}

static void equal_events_are_counted_up_in_one_object(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    say(f, "Placed");
    say(f, "Placed"); /* while the first is being written */
    say(f, "Placed");
    settle(f);
    struct events e = list_events(f);
    assert_int_equal(e.n, 1);
    assert_int_equal(e.count, 3);
    f->wall_ns += 60 * AT_NS_PER_S;
    say(f, "Placed");
    settle(f);
    e = list_events(f);
    assert_int_equal(e.n, 1);
    assert_int_equal(e.count, 4);
    assert_string_equal(e.first, "2026-01-02T03:04:05Z");
    assert_string_equal(e.last, "2026-01-02T03:05:05Z");
    say(f, "Killed");
    settle(f);
    assert_int_equal(list_events(f).n, 2);
    f->wall_ns += AT_STATE_EVENT_SAME_NS; /* a new series */
    say(f, "Placed");
    say(f, "Killed");
    settle(f);
    e = list_events(f);
    assert_int_equal(e.n, 2);
    assert_int_equal(e.count, 1);
}

static void state_may_end_while_events_are_written(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    say(f, "Placed");
    at_state_free(f->state);
    f->state = NULL;
    at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + AT_NS_PER_MS);
    assert_int_equal(list_events(f).n, 1);
}

static void heartbeats_are_remembered_per_node(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(at_state_heartbeat_last(f->state, "n"), 0);
    at_state_heartbeat(f->state, "n", 5);
    at_state_heartbeat(f->state, "n", 9);
    at_state_heartbeat(f->state, "m", 7);
    assert_int_equal(at_state_heartbeat_last(f->state, "n"), 9);
    assert_int_equal(at_state_heartbeat_last(f->state, "m"), 7);
}

/* Of the store's inside: what an etcd out of reach for too long brings about. */
void at_store_watchers_end(struct at_store *store, enum at_rc rc);

/* As with etcd, when it was out of reach for longer than its history lasts. */
static void what_a_lost_watch_did_not_tell_is_found_by_listing_again(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    create_instance(f, "b", "");
    f->changes[0] = '\0';
    /* The deletion happens first, and nobody watches when it does. */
    at_store_delete(f->store, "/atoll/atoll.dev/instances/default/a", -1, NULL, NULL);
    at_store_watchers_end(f->store, AT_COMPACTED);
    while (f->changes[0] == '\0') {
        at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + AT_NS_PER_S);
    }
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_int_equal(snap->n_instances, 1);
    assert_string_equal(snap->instances[0]->meta.name, "b");
    assert_int_equal(snap->rev, at_store_rev(f->store));
    at_snapshot_unref(snap);
    assert_non_null(strstr(f->changes, "Instance default/a "));
    assert_non_null(strstr(f->changes, "Instance default/b "));
    create_instance(f, "c", ""); /* and it watches on */
    assert_non_null(strstr(f->changes, "Instance default/c "));
}

static void what_cannot_be_decoded_is_left_out_and_counted(void **state)
{
    struct fixture *f = *state;
    create_instance(f, "a", "");
    const char *key = "/atoll/atoll.dev/instances/default/a";
    at_store_put(f->store, key, "{broken", 7, -1, NULL, NULL);
    at_store_put(f->store, "/atoll/unknown/things/_/a", "{}", 2, -1, NULL, NULL);
    while (f->state->undecodable == 0) {
        at_loop_turn(f->loop, at_sys_mono_ns(at_sys_real()) + AT_NS_PER_S);
    }
    const struct at_snapshot *snap = at_state_snapshot(f->state);
    assert_int_equal(snap->n_instances, 0);
    at_snapshot_unref(snap);
    struct answer a = update(f, "a", set_phase, (char[]){"Running"});
    assert_int_not_equal(a.rc, AT_OK);
}

#define EACH(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(a_snapshot_never_changes_and_shares_what_did_not_change),
        EACH(lists_are_ordered_by_namespace_then_name),
        EACH(listeners_run_after_the_indexes_show_the_change),
        EACH(a_new_state_shows_what_the_store_has),
        EACH(creation_fills_defaults_and_stamps),
        EACH(a_controllers_mistake_is_refused_and_named),
        EACH(updates_write_only_real_changes),
        EACH(editing_the_text_gives_what_an_update_gives),
        EACH(of_two_updates_on_the_same_version_one_conflicts),
        EACH(deletion_waits_for_finalizers_and_minds_the_uid),
        EACH(equal_events_are_counted_up_in_one_object),
        EACH(state_may_end_while_events_are_written),
        EACH(heartbeats_are_remembered_per_node),
        EACH(what_a_lost_watch_did_not_tell_is_found_by_listing_again),
        EACH(what_cannot_be_decoded_is_left_out_and_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
