#include "api/kit_test.h"

/* Lines of a watch that have come so far, each parsed. */
static json_t *events_of(const struct kit_answer *a)
{
    json_t *list = json_array();
    struct at_str rest = {a->body.data, a->body.len};
    while (rest.len > 0 && memchr(rest.ptr, '\n', rest.len) != NULL) {
        struct at_str line = at_str_cut(&rest, '\n');
        json_t *event = NULL;
        assert_int_equal(at_json_parse(line.ptr, line.len, &event, NULL), AT_OK);
        json_array_append_new(list, event);
    }
    return list;
}

static size_t count_events(const struct kit_answer *a)
{
    json_t *list = events_of(a);
    size_t n = json_array_size(list);
    json_decref(list);
    return n;
}

/* "ADDED a MODIFIED a DELETED a": types and names, bookmarks left out. */
static void assert_events(struct kit *kit, const struct kit_answer *a, const char *want)
{
    size_t words = 1;
    for (const char *c = want; *c != '\0'; c++) {
        words += *c == ' ';
    }
    KIT_UNTIL(kit, count_events(a) >= words / 2);
    char got[1024] = "";
    json_t *list = events_of(a);
    size_t i;
    json_t *event;
    json_array_foreach(list, i, event)
    {
        const char *type = at_json_str_at(event, "type", "");
        if (!at_streq(type, "BOOKMARK")) {
            size_t used = strlen(got);
            snprintf(got + used, sizeof got - used, "%s%s %s", used > 0 ? " " : "", type,
                     at_json_str_at(event, "object.metadata.name", ""));
        }
    }
    json_decref(list);
    assert_string_equal(got, want);
}

static void stop(struct kit *kit, struct kit_answer *a)
{
    at_http_call_cancel(kit->client, a->call);
    answer_done(a);
}

static void a_list_has_a_version_and_every_item_its_own(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "b");
    kit_make_site(kit, "a");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "SiteList");
    const json_t *items = at_json_at(a.json, "items");
    assert_int_equal(json_array_size(items), 2);
    assert_string_equal(at_json_str_at(json_array_get(items, 0), "metadata.name", ""), "a");
    int64_t list = strtoll(answer_str(&a, "metadata.resourceVersion"), NULL, 10);
    int64_t first =
        strtoll(at_json_str_at(json_array_get(items, 0), "metadata.resourceVersion", ""), NULL, 10);
    int64_t second =
        strtoll(at_json_str_at(json_array_get(items, 1), "metadata.resourceVersion", ""), NULL, 10);
    assert_true(second < first);
    assert_true(first <= list);
    answer_done(&a);
}

static void selectors_choose(void **state)
{
    struct kit *kit = *state;
    static const struct {
        const char *query;
        size_t n;
    } CASES[] = {
        {"labelSelector=n%3Da", 1},
        {"labelSelector=n%21%3Da", 2},
        {"labelSelector=n%20in%20(a,b)", 2},
        {"labelSelector=other", 0},
        {"fieldSelector=metadata.name%3Db", 1},
        {"fieldSelector=metadata.name%3D%3Db", 1},
        {"fieldSelector=metadata.name%21%3Db", 2},
        {"fieldSelector=metadata.name%3Dnone", 0},
        {"fieldSelector=metadata.name%3Da&labelSelector=n%3Db", 0},
    };
    kit_make_site(kit, "a");
    kit_make_site(kit, "b");
    kit_make_site(kit, "c");
    for (size_t i = 0; i < AT_ARRAY_LEN(CASES); i++) {
        struct kit_answer a;
        char path[256];
        snprintf(path, sizeof path, ATOLL "/sites?%s", CASES[i].query);
        assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, path, NULL, NULL), 200);
        assert_int_equal(json_array_size(at_json_at(a.json, "items")), CASES[i].n);
        answer_done(&a);
    }
}

static void pages_show_one_fixed_picture(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char path[1024];
    char name[8];
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "s%d", i);
        kit_make_site(kit, name);
    }
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites?limit=2", NULL, NULL), 200);
    assert_int_equal(json_array_size(at_json_at(a.json, "items")), 2);
    snprintf(path, sizeof path, ATOLL "/sites?limit=2&continue=%s",
             answer_str(&a, "metadata.continue"));
    answer_done(&a);
    /* What happens between the pages is not seen by the later ones. */
    kit_make_site(kit, "s2-new");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, ATOLL "/sites/s3", NULL, NULL), 200);
    size_t n = 2;
    for (int page = 0; page < 3 && path[0] != '\0'; page++) {
        assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, path, NULL, NULL), 200);
        n += json_array_size(at_json_at(a.json, "items"));
        const char *next = answer_str(&a, "metadata.continue");
        if (next[0] == '\0') {
            path[0] = '\0';
        } else {
            snprintf(path, sizeof path, ATOLL "/sites?limit=2&continue=%s", next);
        }
        answer_done(&a);
    }
    assert_int_equal(n, 5);
}

static void a_table_has_columns_cells_and_metadata(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "edge");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites", KIT_TABLE, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "Table");
    const json_t *row = json_array_get(at_json_at(a.json, "rows"), 0);
    const json_t *cells = json_object_get(row, "cells");
    assert_int_equal(json_array_size(cells),
                     json_array_size(at_json_at(a.json, "columnDefinitions")));
    assert_string_equal(json_string_value(json_array_get(cells, 0)), "edge");
    assert_string_equal(at_json_str_at(row, "object.kind", ""), "PartialObjectMetadata");
    assert_string_equal(at_json_str_at(row, "object.metadata.labels.n", ""), "edge");
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites/edge", KIT_TABLE, NULL), 200);
    assert_string_equal(answer_str(&a, "kind"), "Table");
    answer_done(&a);
}

static void a_watch_shows_what_is_there_and_what_changes(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_make_site(kit, "a");
    kit_start(kit, &w, NULL, AT_HTTP_GET, ATOLL "/sites?watch=true", NULL, NULL);
    assert_events(kit, &w, "ADDED a");
    kit_make_site(kit, "b");
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, ATOLL "/sites/b", KIT_MERGE,
                                "{\"spec\":{\"jurisdiction\":\"FR\"}}"),
                     200);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_DELETE, ATOLL "/sites/a", NULL, NULL), 200);
    assert_events(kit, &w, "ADDED a ADDED b MODIFIED b DELETED a");
    stop(kit, &w);
}

static void a_watch_resumes_after_a_version(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    char path[256];
    kit_make_site(kit, "a");
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites", NULL, NULL), 200);
    snprintf(path, sizeof path, ATOLL "/sites?watch=1&resourceVersion=%s",
             answer_str(&a, "metadata.resourceVersion"));
    answer_done(&a);
    kit_make_site(kit, "b");
    kit_start(kit, &a, NULL, AT_HTTP_GET, path, NULL, NULL);
    assert_events(kit, &a, "ADDED b");
    stop(kit, &a);
}

static void an_object_that_leaves_the_selector_is_deleted_for_the_watch(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_make_site(kit, "a");
    kit_start(kit, &w, NULL, AT_HTTP_GET, ATOLL "/sites?watch=1&labelSelector=n%3Dx", NULL, NULL);
    KIT_UNTIL(kit, w.status == 200);
    static const char *const LABELS[] = {"x", "x", "y"};
    for (size_t i = 0; i < AT_ARRAY_LEN(LABELS); i++) {
        char body[128];
        snprintf(body, sizeof body, "{\"metadata\":{\"labels\":{\"n\":\"%s\",\"i\":\"%zu\"}}}",
                 LABELS[i], i);
        assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, ATOLL "/sites/a", KIT_MERGE, body),
                         200);
    }
    assert_events(kit, &w, "ADDED a MODIFIED a DELETED a");
    stop(kit, &w);
}

static void initial_events_end_with_a_marked_bookmark(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_make_site(kit, "a");
    kit_start(kit, &w, NULL, AT_HTTP_GET,
              ATOLL "/sites?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&"
                    "resourceVersionMatch=NotOlderThan",
              NULL, NULL);
    KIT_UNTIL(kit, count_events(&w) >= 2);
    json_t *list = events_of(&w);
    const json_t *mark = json_array_get(list, 1);
    assert_string_equal(at_json_str_at(mark, "type", ""), "BOOKMARK");
    const json_t *annotations = at_json_at(mark, "object.metadata.annotations");
    assert_string_equal(
        json_string_value(json_object_get(annotations, "k8s.io/initial-events-end")), "true");
    json_decref(list);
    stop(kit, &w);
}

static void bookmarks_follow_changes_of_other_kinds(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_start(kit, &w, NULL, AT_HTTP_GET, ATOLL "/nodes?watch=1&allowWatchBookmarks=true", NULL,
              NULL);
    kit_make_site(kit, "a");
    int64_t want = at_store_rev(kit->store);
    int64_t have = 0;
    while (have < want) {
        size_t before = count_events(&w);
        KIT_UNTIL(kit, count_events(&w) > before);
        json_t *list = events_of(&w);
        const json_t *last = json_array_get(list, json_array_size(list) - 1);
        assert_string_equal(at_json_str_at(last, "type", ""), "BOOKMARK");
        have = strtoll(at_json_str_at(last, "object.metadata.resourceVersion", ""), NULL, 10);
        json_decref(list);
    }
    assert_true(have == want);
    stop(kit, &w);
}

static void a_forgotten_version_is_gone(void **state)
{
    struct kit *kit = *state;
    struct kit_answer a;
    kit_make_site(kit, "a");
    kit_make_site(kit, "b");
    char page[1024];
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites?limit=1", NULL, NULL), 200);
    snprintf(page, sizeof page, ATOLL "/sites?limit=1&continue=%s",
             answer_str(&a, "metadata.continue"));
    answer_done(&a);
    kit_make_site(kit, "c");
    at_store_compact(kit->store, at_store_rev(kit->store), NULL, NULL);
    KIT_UNTIL(kit, at_store_compact_rev(kit->store) == at_store_rev(kit->store));
    assert_int_equal(
        kit_admin(kit, &a, AT_HTTP_GET, ATOLL "/sites?watch=1&resourceVersion=1", NULL, NULL), 410);
    assert_string_equal(answer_str(&a, "reason"), "Expired");
    answer_done(&a);
    assert_int_equal(kit_status(kit, NULL, AT_HTTP_GET, page, NULL, NULL), 410);
}

static void a_watch_ends_when_its_time_is_over(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_start(kit, &w, NULL, AT_HTTP_GET, ATOLL "/sites?watch=1&timeoutSeconds=1", NULL, NULL);
    KIT_UNTIL(kit, w.done);
    assert_int_equal(w.rc, AT_OK);
    answer_done(&w);
}

/* A client that does not read costs a bounded queue, and is cut; others go on. */
static void a_watch_that_is_not_read_is_cut(void **state)
{
    struct kit *kit = *state;
    struct kit_answer slow;
    struct kit_answer metrics;
    kit_make_site(kit, "a");
    kit_start(kit, &slow, NULL, AT_HTTP_GET, ATOLL "/sites?watch=1", NULL, NULL);
    KIT_UNTIL(kit, count_events(&slow) == 1);
    at_http_call_pause(kit->client, slow.call, true);
    size_t len = 200000;
    char *body = at_alloc(len + 200);
    bool cut = false;
    for (int i = 0; i < 400 && !cut; i++) {
        int head = snprintf(body, 100, "{\"metadata\":{\"annotations\":{\"a\":\"%d", i);
        memset(body + head, 'x', len);
        strcpy(body + (size_t)head + len, "\"}}}");
        assert_int_equal(kit_status(kit, NULL, AT_HTTP_PATCH, ATOLL "/sites/a", KIT_MERGE, body),
                         200);
        assert_int_equal(kit_admin(kit, &metrics, AT_HTTP_GET, "/metrics", NULL, NULL), 200);
        cut = strstr(metrics.body.data, "atoll_api_watches_cut_total 1") != NULL;
        answer_done(&metrics);
    }
    assert_true(cut);
    at_http_call_pause(kit->client, slow.call, false);
    KIT_UNTIL(kit, slow.done);
    assert_int_not_equal(slow.rc, AT_OK);
    answer_done(&slow);
    at_free(body);
}

static void a_watched_table_names_its_columns_once(void **state)
{
    struct kit *kit = *state;
    struct kit_answer w;
    kit_make_site(kit, "a");
    kit_make_site(kit, "b");
    kit_start(kit, &w, NULL, AT_HTTP_GET, ATOLL "/sites?watch=1", KIT_TABLE, NULL);
    KIT_UNTIL(kit, count_events(&w) >= 2);
    json_t *list = events_of(&w);
    assert_true(json_array_size(at_json_at(json_array_get(list, 0), "object.columnDefinitions")) >
                0);
    assert_int_equal(
        json_array_size(at_json_at(json_array_get(list, 1), "object.columnDefinitions")), 0);
    json_decref(list);
    stop(kit, &w);
}

static void discovery_names_every_kind_in_both_forms(void **state)
{
    struct kit *kit = *state;
    struct kit_answer legacy;
    struct kit_answer v2;
    assert_int_equal(kit_admin(kit, &legacy, AT_HTTP_GET, ATOLL, NULL, NULL), 200);
    assert_int_equal(
        kit_admin(kit, &v2, AT_HTTP_GET, "/apis",
                  "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
                  "application/json\r\n",
                  NULL),
        200);
    assert_non_null(strstr(v2.headers, "as=APIGroupDiscoveryList"));
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        char text[128];
        snprintf(text, sizeof text, "\"name\":\"%s\"", kinds[i]->plural);
        assert_int_equal(strstr(legacy.body.data, text) != NULL,
                         at_streq(kinds[i]->group, "atoll.dev"));
        snprintf(text, sizeof text, "\"resource\":\"%s\"", kinds[i]->plural);
        assert_int_equal(strstr(v2.body.data, text) != NULL, kinds[i]->group[0] != '\0');
    }
    answer_done(&legacy);
    answer_done(&v2);
    /* Older clients ask for v2beta1 only, and break when they get v2. */
    assert_int_equal(kit_admin(kit, &v2, AT_HTTP_GET, "/apis",
                               "Accept: application/json;g=apidiscovery.k8s.io;v=v2beta1;"
                               "as=APIGroupDiscoveryList,application/json\r\n",
                               NULL),
                     200);
    assert_string_equal(answer_str(&v2, "kind"), "APIGroupList");
    answer_done(&v2);
}

static void assert_document(struct kit *kit, const char *key, const char *group)
{
    struct kit_answer a;
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, "/openapi/v3", NULL, NULL), 200);
    const json_t *entry = json_object_get(at_json_at(a.json, "paths"), key);
    char url[256];
    snprintf(url, sizeof url, "%s", at_json_str_at(entry, "serverRelativeURL", ""));
    answer_done(&a);
    assert_int_equal(kit_admin(kit, &a, AT_HTTP_GET, url, NULL, NULL), 200);
    assert_non_null(strstr(a.headers, "immutable"));
    const json_t *schemas = at_json_at(a.json, "components.schemas");
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        if (!at_streq(kinds[i]->group, group)) {
            continue;
        }
        char path[256];
        snprintf(path, sizeof path, "/%s/%s%s/{name}", key,
                 kinds[i]->namespaced ? "namespaces/{namespace}/" : "", kinds[i]->plural);
        assert_non_null(json_object_get(at_json_at(a.json, "paths"), path));
        assert_non_null(json_object_get(schemas, kinds[i]->openapi_name));
    }
    /* Every reference leads somewhere. */
    for (const char *at = a.body.data; (at = strstr(at, "#/components/schemas/")) != NULL;) {
        at += strlen("#/components/schemas/");
        char name[256];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, "\""), at);
        assert_non_null(json_object_get(schemas, name));
    }
    answer_done(&a);
}

static void openapi_has_a_path_and_a_schema_for_every_kind(void **state)
{
    size_t n = 0;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        char key[128];
        snprintf(key, sizeof key, "%s%s%s/v1", kinds[i]->group[0] != '\0' ? "apis" : "api",
                 kinds[i]->group[0] != '\0' ? "/" : "", kinds[i]->group);
        if (i == 0 || !at_streq(kinds[i]->group, kinds[i - 1]->group)) {
            assert_document(*state, key, kinds[i]->group);
        }
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, kit_set_up, kit_tear_down)
    const struct CMUnitTest tests[] = {
        T(a_list_has_a_version_and_every_item_its_own),
        T(selectors_choose),
        T(pages_show_one_fixed_picture),
        T(a_table_has_columns_cells_and_metadata),
        T(a_watch_shows_what_is_there_and_what_changes),
        T(a_watch_resumes_after_a_version),
        T(an_object_that_leaves_the_selector_is_deleted_for_the_watch),
        T(initial_events_end_with_a_marked_bookmark),
        T(bookmarks_follow_changes_of_other_kinds),
        T(a_forgotten_version_is_gone),
        T(a_watch_ends_when_its_time_is_over),
        T(a_watch_that_is_not_read_is_cut),
        T(a_watched_table_names_its_columns_once),
        T(discovery_names_every_kind_in_both_forms),
        T(openapi_has_a_path_and_a_schema_for_every_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
