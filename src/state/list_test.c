#include "core/mem.h"
#include "state/state_priv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define NAMES 40
#define NAMESPACES 3
#define HELD_MAX 6
#define STEPS 20000

/* What ought to be shown: version of each name, 0 when it is not there. */
struct picture {
    int versions[NAMESPACES][NAMES];
};

struct held {
    struct at_state_list *list;
    struct picture picture;
};

static const char *const NS[NAMESPACES] = {NULL, "a", "b"};

static uint32_t next(uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    return *random >> 8;
}

static struct at_state_entry *entry_new(const char *ns, const char *name, int version)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new_lent();
    size_t bytes = sizeof(struct at_state_entry) + sizeof(struct at_namespace) + 400;
    at_arena_lend(arena, at_alloc(bytes), bytes);
    struct at_state_entry *entry =
        at_arena_alloc(arena, sizeof *entry + sizeof(struct at_namespace));
    assert_non_null(entry);
    struct at_meta *meta = (struct at_meta *)(void *)entry->object;
    meta->ns = at_arena_strdup(arena, ns);
    meta->name = at_arena_strdup(arena, name);
    meta->generation = version;
    return entry;
}

static void name_of(int i, char out[16])
{
    snprintf(out, 16, "n%02d", i);
}

static void assert_shows(const struct at_state_list *list, const struct picture *p)
{
    size_t at = 0;
    for (int ns = 0; ns < NAMESPACES; ns++) {
        for (int i = 0; i < NAMES; i++) {
            char name[16];
            name_of(i, name);
            if (p->versions[ns][i] == 0) {
                continue;
            }
            assert_true(at < list->n);
            const struct at_meta *meta = list->objects[at++];
            assert_int_equal(at_state_compare(meta, NS[ns], name), 0);
            assert_int_equal(meta->generation, p->versions[ns][i]);
        }
    }
    assert_int_equal(list->n, at);
}

static void change(struct at_state_kind *k, struct picture *p, uint32_t *random, int version)
{
    int ns = (int)(next(random) % NAMESPACES);
    int i = (int)(next(random) % NAMES);
    char name[16];
    name_of(i, name);
    bool put = next(random) % 3 != 0;
    at_state_kind_set(k, NS[ns], name, put ? entry_new(NS[ns], name, version) : NULL);
    p->versions[ns][i] = put ? version : 0;
}

/* Changes in groups of any size, with pictures of several ages held and let go in any order. */
static void every_held_list_stays_as_it_was(void **state)
{
    (void)state;
    uint32_t random = 20240607;
    struct at_state_kind k = {0};
    struct picture now = {0};
    struct held held[HELD_MAX] = {0};
    for (int step = 1; step < STEPS; step++) {
        change(&k, &now, &random, step);
        if (next(&random) % 4 != 0) {
            continue;
        }
        struct at_state_list *list = at_state_kind_list(&k);
        assert_shows(list, &now);
        struct held *h = &held[next(&random) % HELD_MAX];
        if (h->list != NULL) {
            assert_shows(h->list, &h->picture);
            at_state_list_unref(h->list);
            h->list = NULL;
        } else {
            *h = (struct held){at_state_list_ref(list), now};
        }
    }
    at_state_kind_done(&k);
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (held[i].list != NULL) {
            assert_shows(held[i].list, &held[i].picture);
        }
        at_state_list_unref(held[i].list);
    }
}

static void a_list_nobody_holds_is_edited_in_place(void **state)
{
    (void)state;
    struct at_state_kind k = {0};
    at_state_kind_set(&k, NULL, "a", entry_new(NULL, "a", 1));
    struct at_state_list *list = at_state_kind_list(&k);
    at_state_kind_set(&k, NULL, "b", entry_new(NULL, "b", 1));
    assert_ptr_equal(at_state_kind_list(&k), list);
    at_state_list_ref(list);
    at_state_kind_set(&k, NULL, "c", entry_new(NULL, "c", 1));
    assert_ptr_not_equal(at_state_kind_list(&k), list);
    assert_int_equal(list->n, 2);
    at_state_list_unref(list);
    at_state_kind_done(&k);
}

static void changes_that_nobody_looks_at_do_not_pile_up(void **state)
{
    (void)state;
    struct at_state_kind k = {0};
    for (int i = 0; i < 3 * AT_STATE_EDITS_MAX; i++) {
        at_state_kind_set(&k, NULL, "a", entry_new(NULL, "a", i + 1));
        assert_true(k.n_edits <= AT_STATE_EDITS_MAX);
    }
    assert_int_equal(at_state_kind_list(&k)->n, 1);
    at_state_kind_done(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_held_list_stays_as_it_was),
        cmocka_unit_test(a_list_nobody_holds_is_edited_in_place),
        cmocka_unit_test(changes_that_nobody_looks_at_do_not_pile_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
