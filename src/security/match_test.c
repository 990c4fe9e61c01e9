/* One matcher, two ways to write a rule: each case is tried with both, and both must agree. */
#include "core/mem.h"
#include "core/str.h"
#include "security/match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct row {
    const char *verbs, *groups, *resources, *names, *paths; /* NULL: none */
    const char *verb, *group, *resource, *sub, *name, *path;
    bool allowed;
};

static const struct row ROWS[] = {
    {"get", "", "secrets", NULL, NULL, "get", "", "secrets", "", "a", NULL, true},
    {"get", "", "secrets", NULL, NULL, "get", NULL, "secrets", NULL, NULL, NULL, true},
    {"get", "", "secrets", NULL, NULL, "list", "", "secrets", "", "", NULL, false},
    {"get list", "a b", "x y", NULL, NULL, "list", "b", "y", "", "", NULL, true},
    {"get list", "a b", "x y", NULL, NULL, "lis", "b", "y", "", "", NULL, false},
    {"get list", "a b", "x y", NULL, NULL, "list", "c", "y", "", "", NULL, false},
    {"*", "*", "*", NULL, NULL, "any", "thing", "x", "status", "n", NULL, true},
    {"get", "*", "x", NULL, NULL, "get", "g", "x", "status", "n", NULL, false},
    {"get", "*", "x/status", NULL, NULL, "get", "g", "x", "status", "n", NULL, true},
    {"get", "*", "x/status", NULL, NULL, "get", "g", "x", "", "n", NULL, false},
    {"get", "*", "*/scale", NULL, NULL, "get", "g", "x", "scale", "n", NULL, true},
    {"get", "*", "*/scale", NULL, NULL, "get", "g", "x", "", "n", NULL, false},
    {"get", "*", "x/*", NULL, NULL, "get", "g", "x", "scale", "n", NULL, false},
    {"get", "", "x", "a b", NULL, "get", "", "x", "", "b", NULL, true},
    {"get", "", "x", "a b", NULL, "get", "", "x", "", "c", NULL, false},
    {"get", "", "x", "a b", NULL, "get", "", "x", "", NULL, NULL, false},
    {"get", "", "x", "*", NULL, "get", "", "x", "", "c", NULL, false},
    {"get", NULL, NULL, NULL, "/api /api/*", "get", NULL, "", NULL, NULL, "/api/v1", true},
    {"get", NULL, NULL, NULL, "/api /api/*", "get", NULL, "", NULL, NULL, "/apis", false},
    {"get", NULL, NULL, NULL, "*", "get", NULL, NULL, NULL, NULL, "/metrics", true},
    {"get", NULL, NULL, NULL, "*", "get", NULL, NULL, NULL, NULL, "", false},
    {"get", NULL, NULL, NULL, "*", "get", "", "secrets", "", "", "/metrics", false},
    {"get", "*", "*", NULL, NULL, "get", NULL, "", NULL, NULL, "/metrics", false},
    {"*", "*", "*", NULL, NULL, "", "", "x", "", "", NULL, false},
    {NULL, "*", "*", NULL, NULL, "get", "", "x", "", "", NULL, false},
    {"get", "", "secrets", NULL, NULL, "*", "", "secrets", "", "", NULL, false},
    {"*", "", "secrets", NULL, NULL, "*", "", "secrets", "", "", NULL, true},
};

static json_t *array_of(const char *words)
{
    json_t *array = words != NULL ? json_array() : NULL;
    while (words != NULL) {
        size_t len = strcspn(words, " ");
        json_array_append_new(array, json_stringn(words, len));
        words = words[len] != '\0' ? words + len + 1 : NULL;
    }
    return array;
}

static void texts_and_arrays_are_matched_alike(void **state)
{
    (void)state;
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        const struct row *r = &ROWS[i];
        const struct at_access what = {.verb = r->verb,
                                       .group = r->group,
                                       .resource = r->resource,
                                       .subresource = r->sub,
                                       .name = r->name,
                                       .path = r->path};
        const char *const words[] = {r->verbs, r->groups, r->resources, r->names, r->paths};
        struct at_words texts[5] = {0};
        struct at_words arrays[5] = {0};
        json_t *made[5];
        for (size_t k = 0; k < 5; k++) {
            made[k] = array_of(words[k]);
            texts[k].text = words[k];
            arrays[k].array = made[k];
        }
        const struct at_rule of_texts = {texts[0], texts[1], texts[2], texts[3], texts[4]};
        const struct at_rule of_arrays = {arrays[0], arrays[1], arrays[2], arrays[3], arrays[4]};
        if (at_rule_allows(&of_texts, &what) != r->allowed ||
            at_rule_allows(&of_arrays, &what) != r->allowed) {
            fail_msg("row %zu", i);
        }
        for (size_t k = 0; k < 5; k++) {
            json_decref(made[k]);
        }
    }
}

static void what_is_no_word_matches_nothing_and_opens_nothing(void **state)
{
    (void)state;
    json_t *odd = json_pack("[i, n, {}]", 1);
    json_t *text = json_string("get");
    const struct at_access what = {
        .verb = "get", .group = "", .resource = "x", .subresource = "", .name = "a"};
    struct at_rule rule = {.verbs = {.text = "get"},
                           .groups = {.text = ""},
                           .resources = {.text = "x"},
                           .names = {.array = odd}};
    assert_false(at_rule_allows(&rule, &what)); /* names that are none are not "all" */
    rule.names.array = NULL;
    assert_true(at_rule_allows(&rule, &what));
    rule.verbs = (struct at_words){.array = text};
    assert_false(at_rule_allows(&rule, &what));
    char longest[400];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    char cut[256];
    memset(cut, 'x', sizeof cut - 1);
    cut[sizeof cut - 1] = '\0';
    const struct at_access beyond = {.verb = "get", .group = "", .resource = longest};
    rule = (struct at_rule){
        .verbs = {.text = "get"}, .groups = {.text = ""}, .resources = {.text = cut}};
    assert_false(at_rule_allows(&rule, &beyond));
    json_decref(odd);
    json_decref(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_and_arrays_are_matched_alike),
        cmocka_unit_test(what_is_no_word_matches_nothing_and_opens_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
