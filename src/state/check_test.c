/* Looking for unsound objects in a store. */
#include "state/check.h"

#include "core/mem.h"
#include "state/state.h"

// clang-format off
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

struct told {
    size_t problems, notes;
    char text[4096];
};

static void on_told(void *ctx, bool note, const char *text)
{
    struct told *t = ctx;
    size_t used = strlen(t->text);
    t->problems += !note;
    t->notes += note;
    snprintf(t->text + used, sizeof t->text - used, "%s\n", text);
}

static void on_put(void *ctx, enum at_rc rc, int64_t rev, const struct at_store_kv *current,
                   const struct at_err *err)
{
    (void)rev;
    (void)current;
    (void)err;
    assert_int_equal(rc, AT_OK);
    *(bool *)ctx = true;
}

#define SITES "/atoll/atoll.dev/sites/_/"
#define MAPS "/atoll/core/configmaps/default/"
#define SITE(name, uid, spec)                                                                      \
    "{\"apiVersion\":\"atoll.dev/v1\",\"kind\":\"Site\",\"metadata\":{\"name\":\"" name            \
    "\",\"uid\":\"" uid "\"},\"spec\":" spec "}"
#define GOOD_SPEC "{\"class\":\"edge\",\"jurisdiction\":\"EU\"}"
#define OWNED(uid, owner)                                                                          \
    "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"m\",\"namespace\":"    \
    "\"default\",\"uid\":\"" uid "\",\"ownerReferences\":[{\"apiVersion\":\"atoll.dev/v1\","       \
    "\"kind\":\"Site\",\"name\":\"a\",\"uid\":\"" owner "\"}]}}"

/* A sound site "a" with uid u-a, and one more key. */
static struct told look(const char *key, const char *value, size_t *ret_objects)
{
    struct told told = {0};
    struct at_loop *loop = at_loop_new(at_sys_real());
    struct at_store *store;
    bool first = false;
    bool second = false;
    struct at_state_checked checked;
    assert_int_equal(at_store_open("memory", NULL, loop, &store, NULL), AT_OK);
    at_store_put(store, SITES "a", SITE("a", "u-a", GOOD_SPEC), strlen(SITE("a", "u-a", GOOD_SPEC)),
                 0, on_put, &first);
    at_store_put(store, key, value, strlen(value), 0, on_put, &second);
    while (!first || !second) {
        at_loop_turn(loop, at_sys_mono_ns(at_sys_real()) + AT_NS_PER_S);
    }
    at_state_check(store, on_told, &told, &checked);
    assert_int_equal(checked.keys, 2);
    if (ret_objects != NULL) {
        *ret_objects = checked.objects;
    }
    at_store_close(store);
    at_loop_free(loop);
    return told;
}

static void sound_objects_and_internal_keys_pass(void **state)
{
    (void)state;
    size_t objects;
    struct told told = look(SITES "b", SITE("b", "u-b", GOOD_SPEC), &objects);
    if (told.text[0] != '\0') {
        fail_msg("%s", told.text);
    }
    assert_int_equal(objects, 2);
    told = look(MAPS "m", OWNED("u-m", "u-a"), NULL);
    assert_string_equal(told.text, "");
    told = look("/atoll-internal/join/x", "{}", &objects);
    assert_string_equal(told.text, "");
    assert_int_equal(objects, 1);
}

static void problem(const char *key, const char *value, const char *why)
{
    struct told told = look(key, value, NULL);
    if (told.problems == 0 || strstr(told.text, why) == NULL || strstr(told.text, key) == NULL) {
        fail_msg("%s: wanted %s, got %s", key, why, told.text);
    }
}

static void unsound_objects_are_told_with_key_and_field(void **state)
{
    (void)state;
    problem(SITES "b", "{\"apiVersion\":", "line 1");
    problem(SITES "b", SITE("b", "u-b", "{\"class\":\"moon\",\"jurisdiction\":\"EU\"}"),
            "spec.class");
    problem(SITES "b", SITE("b", "u-b", "{\"class\":7}"), "spec.class");
    problem(SITES "b", SITE("c", "u-b", GOOD_SPEC), "belongs to " SITES "c");
    problem(SITES "b", SITE("b", "u-a", GOOD_SPEC), "same uid as " SITES "a");
    problem(SITES "b", SITE("b", "", GOOD_SPEC), "no uid");
    problem("/atoll/atoll.dev/nodes/_/b", SITE("b", "u-b", GOOD_SPEC), "no atoll.dev/v1 Node");
}

static void owners_that_are_gone_are_notes(void **state)
{
    (void)state;
    struct told told = look(MAPS "m", OWNED("u-m", "u-lost"), NULL);
    assert_int_equal(told.problems, 0);
    assert_int_equal(told.notes, 1);
    assert_non_null(strstr(told.text, "there is no Site a with uid u-lost"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sound_objects_and_internal_keys_pass),
        cmocka_unit_test(unsound_objects_are_told_with_key_and_field),
        cmocka_unit_test(owners_that_are_gone_are_notes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
