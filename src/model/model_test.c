#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model_priv.h"
#include "test_json.h"

#include <regex.h>

#define WORKLOAD "{'command':['sleep','1'],'restartPolicy':'Always','terminationGracePeriod':'10s'}"

static void same_json(const json_t *a, const json_t *b)
{
    if (!json_equal(a, b)) {
        char *ta = json_dumps(a, JSON_SORT_KEYS);
        char *tb = json_dumps(b, JSON_SORT_KEYS);
        fail_msg("\n%s\nis not\n%s", ta, tb);
    }
}

static void round_trip(const struct at_model_kind *kind, const char *text)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
    struct at_err err = {0};
    void *object = at_arena_alloc(arena, kind->struct_size);
    assert_int_equal(at_model_decode(kind, json, arena, object, &err), AT_OK);
    AT_CLEANUP(at_cleanup_json) json_t *back = NULL;
    assert_int_equal(at_model_encode(kind, object, &back, &err), AT_OK);
    same_json(json, back);
}

static void what_is_decoded_encodes_to_the_same(void **state)
{
    (void)state;
    round_trip(&AT_KIND_SITE,
               "{'apiVersion':'atoll.dev/v1','kind':'Site','metadata':{'name':'a','uid':'u',"
               "'generateName':'g-','resourceVersion':'7','generation':3,"
               "'creationTimestamp':'2026-01-02T03:04:05Z','labels':{'x':'y'},"
               "'annotations':{'n':'1'},'finalizers':['a.b/c'],'ownerReferences':[{'apiVersion':"
               "'v1','kind':'K','name':'n','uid':'u','controller':true}]},'spec':{'class':'edge',"
               "'jurisdiction':'EU','carbonIntensity':30,'prices':{'cpuHour':'0.0125'},'links':"
               "[{'site':'b','latency':'20ms','bandwidthMbps':100,'egressPerGiB':'0.09'}]}}");
    round_trip(&AT_KIND_DEPLOYMENT,
               "{'apiVersion':'atoll.dev/v1','kind':'Deployment','metadata':{'name':'d',"
               "'namespace':'n'},'spec':{'replicas':2,'revisionHistoryLimit':10,'strategy':"
               "{'maxSurge':1,'maxUnavailable':0},'template':{'metadata':{'labels':{'a':'b'}},"
               "'spec':{'command':['x'],'env':[{'name':'A','secretKeyRef':{'name':'s','key':'k'}}"
               "],'resources':{'cpu':'500m','memory':'1Gi','gpu':'250m','gpuModels':['l4']},"
               "'placement':{'sites':['a','b'],'nodeSelector':{'k':'v'},'spreadBy':'node'},"
               "'restartPolicy':'Always','terminationGracePeriod':'10s'}}},'status':{"
               "'observedGeneration':0,'replicas':2,'readyReplicas':0,'updatedReplicas':1,"
               "'parkedReplicas':0,'resizedReplicas':0,"
               "'unavailableReplicas':0,'conditions':[{'type':'Available','status':'True',"
               "'lastTransitionTime':'2026-01-02T03:04:05.000006Z'}]}}");
    round_trip(&AT_KIND_INSTANCE, "{'apiVersion':'atoll.dev/v1','kind':'Instance','metadata':{"
                                  "'name':'i','namespace':'n'},'spec':" WORKLOAD "}");
    round_trip(&AT_KIND_SECRET, "{'apiVersion':'v1','kind':'Secret','metadata':{'name':'s',"
                                "'namespace':'n'},'type':'Opaque','data':{'a':'eA=='}}");
    round_trip(&AT_KIND_NAMESPACE,
               "{'apiVersion':'v1','kind':'Namespace','metadata':{'name':'n'}}");
}

static void decoding_gives_typed_values(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json)
    json_t *json = J("{'metadata':{'name':'i','labels':{'a':'b'},'finalizers':['x.y/z'],"
                     "'ownerReferences':[{'name':'o'},{'name':'c','controller':true}]},'spec':{"
                     "'resources':{'cpu':0.1,'memory':'2Gi','gpu':2},'readinessProbe':{}}}");
    struct at_instance in;
    assert_int_equal(at_model_decode(&AT_KIND_INSTANCE, json, arena, &in, NULL), AT_OK);
    assert_int_equal(in.spec.resources->cpu_milli, 100);
    assert_int_equal(in.spec.resources->memory_bytes, (int64_t)2 << 30);
    assert_int_equal(in.spec.resources->gpu_milli, 2000);
    assert_null(in.spec.model);
    assert_null(in.status.phase);
    /* Defaults of present objects, although nobody defaulted the JSON. */
    assert_int_equal(in.spec.readiness_probe->period_ns, AT_NS_PER_S);
    assert_int_equal(in.spec.termination_grace_period_ns, 10 * AT_NS_PER_S);
    assert_string_equal(at_model_map_get(&in.meta.labels, "a"), "b");
    assert_null(at_model_map_get(&in.meta.labels, "b"));
    assert_true(at_meta_has_finalizer(&in.meta, "x.y/z"));
    assert_false(at_meta_has_finalizer(&in.meta, "x.y"));
    assert_string_equal(at_meta_controller(&in.meta)->name, "c");
}

static void decode_errors_name_the_field(void **state)
{
    (void)state;
    static const struct {
        const char *json, *field;
    } rows[] = {
        {"{'spec':[]}", "spec"},
        {"{'spec':{'command':'x'}}", "spec.command"},
        {"{'spec':{'command':['a',1]}}", "spec.command[1]"},
        {"{'spec':{'user':'root'}}", "spec.user"},
        {"{'spec':{'resources':{'cpu':'5x'}}}", "spec.resources.cpu"},
        {"{'spec':{'resources':{'memory':true}}}", "spec.resources.memory"},
        {"{'spec':{'env':[{'name':'a'},{'secretKeyRef':3}]}}", "spec.env[1].secretKeyRef"},
        {"{'spec':{'placement':{'nodeSelector':{'k':1}}}}", "spec.placement.nodeSelector[k]"},
        {"{'spec':{},'status':{'ready':'yes'}}", "status.ready"},
        {"{'spec':{},'metadata':[]}", "metadata"},
        {"{'spec':{},'metadata':{'labels':{'a':1}}}", "metadata.labels"},
        {"{'spec':{},'metadata':{'creationTimestamp':'noon'}}", "metadata.creationTimestamp"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
        AT_CLEANUP(at_cleanup_json) json_t *json = J(rows[i].json);
        struct at_instance in;
        struct at_err err = {0};
        assert_int_equal(at_model_decode(&AT_KIND_INSTANCE, json, arena, &in, &err), AT_INVALID);
        assert_string_equal(err.field, rows[i].field);
        assert_non_null(strstr(err.msg, rows[i].field));
    }
}

static void a_full_arena_is_an_error(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(64);
    AT_CLEANUP(at_cleanup_json)
    json_t *json =
        J("{'metadata':{'name':'i'},'spec':{'command':["
          "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']}}");
    struct at_instance in;
    assert_int_equal(at_model_decode(&AT_KIND_INSTANCE, json, arena, &in, NULL), AT_TOO_LARGE);
}

/* A status goes out by merge patch: what went back to zero must be said. */
static void a_status_says_its_zeroes(void **state)
{
    (void)state;
    struct at_instance_status status = {.phase = "Running"};
    AT_CLEANUP(at_cleanup_json) json_t *json = NULL;
    assert_int_equal(at_model_encode_struct(&AT_INSTANCE_STATUS_FIELDS, &status, &json, NULL),
                     AT_OK);
    AT_CLEANUP(at_cleanup_json)
    json_t *wanted = J("{'phase':'Running','ready':false,'restarts':0,'exitCode':0,'pid':0}");
    same_json(json, wanted);
}

static void check_default(const struct at_model_kind *kind, const char *in, const char *out)
{
    AT_CLEANUP(at_cleanup_json) json_t *json = J(in);
    AT_CLEANUP(at_cleanup_json) json_t *wanted = J(out);
    assert_int_equal(at_model_default(kind, json, NULL), AT_OK);
    same_json(json, wanted);
    assert_int_equal(at_model_default(kind, json, NULL), AT_OK);
    same_json(json, wanted); /* a second time changes nothing */
}

static void defaults_fill_objects_that_are_there(void **state)
{
    (void)state;
    check_default(&AT_KIND_DEPLOYMENT, "{'spec':{'template':{'spec':{'command':['sleep','1']}}}}",
                  "{'spec':{'replicas':1,'revisionHistoryLimit':10,'template':{'spec':" WORKLOAD
                  "}}}");
    check_default(&AT_KIND_DEPLOYMENT,
                  "{'spec':{'replicas':0,'strategy':{},'template':{'spec':{'command':['sleep','1']"
                  ",'model':null}}}}",
                  "{'spec':{'replicas':0,'strategy':{'maxSurge':1,'maxUnavailable':0},"
                  "'revisionHistoryLimit':10,'template':{'spec':" WORKLOAD "}}}");
    check_default(&AT_KIND_JOB, "{'spec':{'template':{'spec':{}}}}",
                  "{'spec':{'completions':1,'parallelism':1,'backoffLimit':6,'template':{'spec':{"
                  "'restartPolicy':'Never','terminationGracePeriod':'10s'}}}}");
    check_default(&AT_KIND_NODE, "{'spec':{'site':'a','taints':[{'key':'k'}]}}",
                  "{'spec':{'site':'a','taints':[{'key':'k','effect':'NoSchedule'}]}}");
    check_default(&AT_KIND_POLICY, "{}", "{'spec':{}}");
    check_default(&AT_KIND_SITE, "{'spec':7}", "{'spec':7}");
    check_default(&AT_KIND_SITE, "{}", "{}"); /* spec needs more than defaults can give */
}

static void secret_text_is_folded_into_data(void **state)
{
    (void)state;
    check_default(&AT_KIND_SECRET, "{'data':{'a':'eA==','b':'eA=='},'stringData':{'b':'hello'}}",
                  "{'type':'Opaque','data':{'a':'eA==','b':'aGVsbG8='}}");
}

static void default_of_struct(const struct at_model_struct *s)
{
    for (size_t i = 0; i < s->n_fields; i++) {
        const struct at_model_field *f = &s->fields[i];
        if (f->pattern != NULL) {
            regex_t re;
            assert_int_equal(regcomp(&re, f->pattern, REG_EXTENDED | REG_NOSUB), 0);
            regfree(&re);
        }
        if (f->type == AT_MODEL_T_UNIT && (f->flags & AT_MODEL_F_DEFAULT) != 0) {
            AT_CLEANUP(at_cleanup_json) json_t *text = json_string(f->default_text);
            int64_t v;
            assert_int_equal(at_model_unit_parse(f->unit, text, &v, NULL), AT_OK);
        }
        if (f->sub != NULL && f->sub != s) {
            default_of_struct(f->sub);
        }
    }
}

static void every_pattern_and_default_of_the_schemas_is_sound(void **state)
{
    (void)state;
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    assert_true(n >= 10);
    for (size_t i = 0; i < n; i++) {
        default_of_struct(kinds[i]->fields);
        AT_CLEANUP(at_cleanup_json) json_t *openapi = NULL;
        const char *text = kinds[i]->openapi_schema_json;
        assert_int_equal(at_json_parse(text, strlen(text), &openapi, NULL), AT_OK);
        assert_non_null(json_object_get(openapi, kinds[i]->openapi_name));
    }
}

static void check_refs(const json_t *value, const json_t *schemas)
{
    static const char prefix[] = "#/components/schemas/";
    const char *key;
    json_t *item;
    size_t i;
    json_array_foreach((json_t *)value, i, item)
    {
        check_refs(item, schemas);
    }
    json_object_foreach((json_t *)value, key, item)
    {
        if (strcmp(key, "$ref") == 0) {
            const char *ref = json_string_value(item);
            assert_memory_equal(ref, prefix, strlen(prefix));
            assert_non_null(json_object_get(schemas, ref + strlen(prefix)));
        }
        check_refs(item, schemas);
    }
}

static void openapi_is_whole_and_described(void **state)
{
    (void)state;
    size_t n;
    const struct at_model_kind *const *kinds = at_model_kinds(&n);
    for (size_t i = 0; i < n; i++) {
        AT_CLEANUP(at_cleanup_json) json_t *schemas = NULL;
        const char *text = kinds[i]->openapi_schema_json;
        assert_int_equal(at_json_parse(text, strlen(text), &schemas, NULL), AT_OK);
        check_refs(schemas, schemas);
        const char *name, *field;
        json_t *schema, *property;
        json_object_foreach(schemas, name, schema)
        {
            assert_non_null(json_object_get(schema, "description"));
            json_object_foreach(json_object_get(schema, "properties"), field, property)
            {
                if (json_string_length(json_object_get(property, "description")) == 0) {
                    fail_msg("%s.%s has no description", name, field);
                }
            }
        }
    }
}

static void kinds_are_found_by_their_names(void **state)
{
    (void)state;
    assert_ptr_equal(at_model_kind_find("atoll.dev", "v1", "Site"), &AT_KIND_SITE);
    assert_ptr_equal(at_model_kind_find("", "v1", "Secret"), &AT_KIND_SECRET);
    assert_null(at_model_kind_find("", "v1", "Site"));
    assert_null(at_model_kind_find("atoll.dev", "v2", "Site"));
    assert_ptr_equal(at_model_kind_by_plural("atoll.dev", "v1", "policies"), &AT_KIND_POLICY);
    assert_null(at_model_kind_by_plural("atoll.dev", "v1", "policy"));
    static const char *const names[] = {"deploy", "Deployments", "deployment", "DEPLOYMENT"};
    for (size_t i = 0; i < AT_ARRAY_LEN(names); i++) {
        assert_ptr_equal(at_model_kind_by_any_name(names[i]), &AT_KIND_DEPLOYMENT);
    }
    assert_null(at_model_kind_by_any_name("pods"));
    assert_string_equal(at_model_api_version(&AT_KIND_SITE), "atoll.dev/v1");
    assert_string_equal(at_model_api_version(&AT_KIND_EVENT), "v1");
}

static void check_cell(const char *type, const char *path, const char *object, const char *wanted)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = object != NULL ? J(object) : NULL;
    struct at_model_column column = {.name = "C", .type = type, .path = path};
    int64_t now;
    assert_int_equal(at_time_parse("2026-01-02T03:04:47Z", &now, NULL), AT_OK);
    assert_string_equal(at_model_cell(&column, json, now, arena), wanted);
}

static void cells_show_values_as_people_read_them(void **state)
{
    (void)state;
    check_cell("integer", ".spec.replicas", "{'spec':{'replicas':3}}", "3");
    check_cell("string", ".spec.x", "{'spec':{'x':'text'}}", "text");
    check_cell("string", ".spec.x.y", "{'spec':{'x':'text'}}", "");
    check_cell("boolean", ".status.ready", "{'status':{'ready':false}}", "false");
    check_cell("string", ".status.conditions[Ready].status",
               "{'status':{'conditions':[{'type':'A','status':'x'},{'type':'Ready','status':"
               "'True'}]}}",
               "True");
    check_cell("string", ".status.conditions[Ready].status", "{'status':{}}", "");
    check_cell("string", ".spec.list", "{'spec':{'list':['a']}}", "[\"a\"]");
    check_cell("date", ".metadata.creationTimestamp",
               "{'metadata':{'creationTimestamp':'2026-01-02T03:04:05Z'}}", "42s");
    check_cell("date", ".metadata.creationTimestamp", "{'metadata':{'creationTimestamp':1}}",
               "<unknown>");
    check_cell("string", ".a", NULL, "");
}

static void check_shown(enum at_model_show show, const char *path, const char *object,
                        const char *wanted)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(object);
    struct at_model_column column = {.name = "C", .type = "string", .path = path, .show = show};
    assert_string_equal(at_model_cell(&column, json, 0, arena), wanted);
}

static void cells_count_list_and_join(void **state)
{
    (void)state;
    static const char who[] = "{'s':[{'kind':'U','name':'a'},{'kind':'A','name':'x','ns':'n'},"
                              "{'kind':'U','name':'b'},{'kind':'A','name':'y'}],"
                              "'r':{'kind':'Role','name':'R'},'d':{'a':1,'b':2},'e':{'c':3},"
                              "'t':'2026-01-02T03:04:05Z'}";
    check_shown(AT_MODEL_SHOW_COUNT, ".d,.e", who, "3");
    check_shown(AT_MODEL_SHOW_COUNT, ".s", who, "4");
    check_shown(AT_MODEL_SHOW_COUNT, ".none", who, "0");
    check_shown(AT_MODEL_SHOW_LIST, ".s[kind=U].name", who, "a, b");
    check_shown(AT_MODEL_SHOW_LIST, ".s[kind=X].name", who, "");
    check_shown(AT_MODEL_SHOW_LIST, ".r.kind,.none,.r.name", who, "Role, R");
    check_shown(AT_MODEL_SHOW_SLASH, ".s[kind=A].ns,.s[kind=A].name", who, "n/x, y");
    check_shown(AT_MODEL_SHOW_SLASH, ".r.kind,.r.name", who, "Role/R");
    check_shown(AT_MODEL_SHOW_OBJECT, ".r.kind,.r.name", who, "role/R");
    check_shown(AT_MODEL_SHOW_TIME, ".none,.t", who, "2026-01-02T03:04:05Z");
    check_shown(AT_MODEL_SHOW_FIRST, ".none,.r.name", who, "R");
}

static void a_condition_keeps_its_time_while_its_status_stays(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_json) json_t *json = J("{}");
    at_condition_set(json, "Ready", false, "Starting", NULL, 1 * AT_NS_PER_S);
    at_condition_set(json, "Ready", false, "Probing", "wait", 2 * AT_NS_PER_S);
    at_condition_set(json, "Other", true, "R", "m", 3 * AT_NS_PER_S);
    AT_CLEANUP(at_cleanup_json)
    json_t *first = J("{'status':{'conditions':[{'type':'Ready','status':'False',"
                      "'lastTransitionTime':'1970-01-01T00:00:01Z','reason':'Probing',"
                      "'message':'wait'},{'type':'Other','status':'True','lastTransitionTime':"
                      "'1970-01-01T00:00:03Z','reason':'R','message':'m'}]}}");
    same_json(json, first);
    at_condition_set(json, "Ready", true, "Ready", NULL, 4 * AT_NS_PER_S);
    AT_CLEANUP(at_cleanup_json)
    json_t *second = J("{'type':'Ready','status':'True','lastTransitionTime':"
                       "'1970-01-01T00:00:04Z','reason':'Ready'}");
    same_json(json_array_get(at_json_at(json, "status.conditions"), 0), second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_decoded_encodes_to_the_same),
        cmocka_unit_test(decoding_gives_typed_values),
        cmocka_unit_test(decode_errors_name_the_field),
        cmocka_unit_test(a_full_arena_is_an_error),
        cmocka_unit_test(a_status_says_its_zeroes),
        cmocka_unit_test(defaults_fill_objects_that_are_there),
        cmocka_unit_test(secret_text_is_folded_into_data),
        cmocka_unit_test(every_pattern_and_default_of_the_schemas_is_sound),
        cmocka_unit_test(openapi_is_whole_and_described),
        cmocka_unit_test(kinds_are_found_by_their_names),
        cmocka_unit_test(cells_show_values_as_people_read_them),
        cmocka_unit_test(cells_count_list_and_join),
        cmocka_unit_test(a_condition_keeps_its_time_while_its_status_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
