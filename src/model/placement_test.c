/* Placement: what validation refuses, each with its field and its sentence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "model/model_priv.h"
#include "test_json.h"

#define PREFIX "spec.template.spec.placement."

struct row {
    const char *placement;       /* inside its braces */
    const char *field, *message; /* field without PREFIX; NULL: valid */
};

static void check_text(const struct at_model_kind *kind, const char *text, const char *field,
                       const char *message)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
    struct at_model_report report;
    struct at_err err = {0};
    assert_int_equal(at_model_default(kind, json, NULL), AT_OK);
    enum at_rc rc =
        at_model_validate(kind, json, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err);
    if (field == NULL) {
        if (rc != AT_OK) {
            fail_msg("%s: %s", text, err.msg);
        }
        return;
    }
    if (rc == AT_OK) {
        fail_msg("%s: was taken", text);
    }
    assert_string_equal(err.field, field);
    if (message != NULL) {
        assert_int_equal(report.n_causes, 1);
        assert_string_equal(report.causes[0].message, message);
    }
}

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[1024], field[256];
        snprintf(text, sizeof text,
                 "{'metadata':{'name':'d'},'spec':{'template':{'spec':{'command':['x'],"
                 "'placement':{%s}}}}}",
                 rows[i].placement);
        snprintf(field, sizeof field, PREFIX "%s", rows[i].field != NULL ? rows[i].field : "");
        check_text(&AT_KIND_DEPLOYMENT, text, rows[i].field != NULL ? field : NULL,
                   rows[i].message);
    }
}

static void expressions_have_the_values_that_their_operator_needs(void **state)
{
    (void)state;
#define NODE(e) "'nodeAffinity':{'required':[{'matchExpressions':[" e "]}]}"
#define AT_E "nodeAffinity.required[0].matchExpressions[0]."
    static const struct row rows[] = {
        {NODE("{'key':'a','operator':'In','values':['x']}"), NULL, NULL},
        {NODE("{'key':'a','operator':'Gt','values':['-5']}"), NULL, NULL},
        {NODE("{'key':'a','operator':'Exists'}"), NULL, NULL},
        {NODE("{'key':'a','operator':'In'}"), AT_E "values",
         "Required value: In and NotIn need at least one value"},
        {NODE("{'key':'a','operator':'DoesNotExist','values':['x']}"), AT_E "values",
         "Forbidden: Exists and DoesNotExist take no values"},
        {NODE("{'key':'a','operator':'Lt','values':['1','2']}"), AT_E "values",
         "Invalid value: Gt and Lt need exactly one whole number"},
        {NODE("{'key':'a','operator':'Gt','values':['1.5']}"), AT_E "values",
         "Invalid value: Gt and Lt need exactly one whole number"},
        {NODE("{'key':'a','operator':'Gt','values':['99999999999999999999']}"), AT_E "values",
         "Invalid value: Gt and Lt need exactly one whole number"},
        {NODE("{'key':'a','operator':'Like','values':['1']}"), AT_E "operator", NULL},
        {NODE("{'key':'a b','operator':'Exists'}"), AT_E "key", NULL},
        {"'nodeAffinity':{'required':[{}]}", "nodeAffinity.required[0].matchExpressions",
         "Required value: a term needs at least one requirement"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void weights_are_bounded_whole_numbers_of_known_names(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"'weights':{'price':1000,'balance':0,'data':5,'fragmentation':1,'preference':2}", NULL,
         NULL},
        {"'weights':{'price':-1}", "weights.price", NULL},
        {"'weights':{'carbon':1001}", "weights.carbon", NULL},
        {"'weights':{'latency':9223372036854775807}", "weights.latency", NULL},
        {"'weights':{'balance':1.5}", "weights.balance",
         "Invalid value: \"number\": must be of type integer"},
        {"'weights':{'data':'NaN'}", "weights.data",
         "Invalid value: \"string\": must be of type integer"},
        {"'weights':{'spread':'Infinity'}", "weights.spread",
         "Invalid value: \"string\": must be of type integer"},
        {"'weights':{'beauty':1}", "weights.beauty", NULL},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void cost_is_another_word_for_price(void **state)
{
    (void)state;
    static const struct {
        const char *weights;
        int64_t cost, price;
    } rows[] = {{"{'cost':50}", 50, 0},
                {"{'cost':0}", 0, 0},
                {"{}", 0, 20},
                {"{'cost':5,'price':7}", 5, 7}};
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        char text[256];
        snprintf(text, sizeof text, "{'metadata':{'name':'i'},'spec':{'placement':{'weights':%s}}}",
                 rows[i].weights);
        AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
        AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
        struct at_instance in;
        assert_int_equal(at_model_default(&AT_KIND_INSTANCE, json, NULL), AT_OK);
        assert_int_equal(at_model_decode(&AT_KIND_INSTANCE, json, arena, &in, NULL), AT_OK);
        assert_int_equal(in.spec.placement->weights->cost, rows[i].cost);
        assert_int_equal(in.spec.placement->weights->price, rows[i].price);
    }
}

static void preferences_have_weights_and_requirements_none(void **state)
{
    (void)state;
#define SEL "'labelSelector':{'matchLabels':{'a':'b'}}"
    static const struct row rows[] = {
        {"'affinity':{'required':[{" SEL ",'topology':'jurisdiction'}]}", NULL, NULL},
        {"'antiAffinity':{'preferred':[{" SEL ",'weight':100}]}", NULL, NULL},
        {"'antiAffinity':{'preferred':[{" SEL "}]}", "antiAffinity.preferred[0].weight",
         "Required value: a preference needs a weight from 1 to 100"},
        {"'antiAffinity':{'preferred':[{" SEL ",'weight':101}]}",
         "antiAffinity.preferred[0].weight", NULL},
        {"'affinity':{'required':[{" SEL ",'weight':5}]}", "affinity.required[0].weight",
         "Forbidden: what is required has no weight"},
        {"'affinity':{'required':[{" SEL ",'topology':'rack'}]}", "affinity.required[0].topology",
         NULL},
        {"'affinity':{'required':[{'topology':'node'}]}", "affinity.required[0].labelSelector",
         "Required value: a selector must say which instances are meant"},
        {"'affinity':{'required':[{'labelSelector':{'matchExpressions':[{'key':'a',"
         "'operator':'Gt','values':['1']}]}}]}",
         "affinity.required[0].labelSelector.matchExpressions[0].operator",
         "Invalid value: Gt and Lt are for labels of nodes only"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void tolerations_spread_rules_and_demand_make_sense(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"'tolerations':[{'operator':'Exists'}]", NULL, NULL},
        {"'tolerations':[{'key':'a','value':'b','effect':'NoExecute','tolerationSeconds':30}]",
         NULL, NULL},
        {"'tolerations':[{'key':'a','tolerationSeconds':'0'}]", NULL, NULL},
        {"'tolerations':[{'value':'b'}]", "tolerations[0].key",
         "Required value: only operator Exists goes without a key"},
        {"'tolerations':[{'key':'a','operator':'Exists','value':'b'}]", "tolerations[0].value",
         "Forbidden: operator Exists takes no value"},
        {"'tolerations':[{'key':'a','tolerationSeconds':'soon'}]",
         "tolerations[0].tolerationSeconds", "Invalid value: \"soon\": must be a whole number"},
        {"'tolerations':[{'key':'a','effect':'NoSchedule','tolerationSeconds':1}]",
         "tolerations[0].tolerationSeconds",
         "Forbidden: only effect NoExecute is borne for a time"},
        {"'spread':[{'topology':'region','maxSkew':1,'minDomains':3}]", NULL, NULL},
        {"'spread':[{'topology':'region'}]", "spread[0]",
         "Required value: maxSkew, maxDomains or maxPerDomain must be set"},
        {"'spread':[{'maxPerDomain':2,'minDomains':3}]", "spread[0].minDomains",
         "Forbidden: minDomains works by maxSkew, which is not set"},
        {"'demand':[{'site':'a','weight':3},{'site':'b'}]", NULL, NULL},
        {"'demand':[{'site':'a'},{'site':'a'}]", "demand[1].site", "Duplicate value: \"a\""},
        {"'demand':[{'site':'a','weight':0}]", "demand[0].weight", NULL},
        {"'latencyFrom':'a','demand':[{'site':'b'}]", "latencyFrom",
         "Forbidden: may not be set together with demand"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void policies_name_sites_and_shared_links_need_gpus(void **state)
{
    (void)state;
#define POLICY(rule) "{'metadata':{'name':'p'},'spec':{'placement':[{'name':'r'" rule "}]}}"
    check_text(&AT_KIND_POLICY, POLICY(",'allow':[{'jurisdictions':['EU']}]"), NULL, NULL);
    check_text(&AT_KIND_POLICY, POLICY(",'deny':[{'providers':['x']}]"), NULL, NULL);
    check_text(&AT_KIND_POLICY, POLICY(""), "spec.placement[0].allow",
               "Required value: a rule allows or denies some sites");
    check_text(&AT_KIND_POLICY,
               POLICY(",'deny':[{}],'labelSelector':{'matchExpressions':[{'key':'a','operator':"
                      "'NotIn'}]}"),
               "spec.placement[0].labelSelector.matchExpressions[0].values",
               "Required value: In and NotIn need at least one value");
#define RESOURCES(r)                                                                               \
    "{'metadata':{'name':'d'},'spec':{'template':{'spec':{'command':['x'],'resources':{" r "}}}}}"
    check_text(&AT_KIND_DEPLOYMENT, RESOURCES("'gpu':2,'topology':'SameLink'"), NULL, NULL);
    check_text(&AT_KIND_DEPLOYMENT, RESOURCES("'cpu':2,'topology':'SameNuma'"), NULL, NULL);
    check_text(&AT_KIND_DEPLOYMENT, RESOURCES("'cpu':2,'topology':'SameLink'"),
               "spec.template.spec.resources.topology",
               "Forbidden: SameLink is for GPUs, and gpu is not set");
}

static void sharing_goes_with_what_is_asked_for(void **state)
{
    (void)state;
#define SHARING(r, sharing)                                                                        \
    "{'metadata':{'name':'d'},'spec':{'template':{'spec':{'command':['x'],'resources':{" r         \
    "},'gpuSharing':{" sharing "}}}}}"
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':'0.5'", "'parkAfter':'5m'"), NULL, NULL);
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':'0.5'", "'parkAfter':'5m','spill':'1Gi'"),
               "spec.template.spec.gpuSharing.parkAfter",
               "Forbidden: what spilled cannot be parked; leave spill out");
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':'0.5'", "'mode':'MPS','spill':'1Gi'"), NULL,
               NULL);
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':2", "'mode':'Exclusive'"), NULL, NULL);
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'cpu':2", "'mode':'MPS'"),
               "spec.template.spec.gpuSharing",
               "Forbidden: may only be set together with resources.gpu");
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':'0.5'", "'mode':'Exclusive'"),
               "spec.template.spec.gpuSharing.mode",
               "Forbidden: Exclusive is for whole GPUs, and resources asks for a part");
    check_text(&AT_KIND_DEPLOYMENT, SHARING("'gpu':'0.5'", "'mode':'MPS','strict':true"),
               "spec.template.spec.gpuSharing.strict",
               "Forbidden: time is held in mode Share only");
}

static void several_models_have_names_of_their_own(void **state)
{
    (void)state;
#define MODELS(runner, list)                                                                       \
    "{'metadata':{'name':'d'},'spec':{'template':{'spec':{'runner':'" runner                       \
    "','model':{'name':'a','uri':'file:a'},'models':" list "}}}}"
    check_text(&AT_KIND_DEPLOYMENT, MODELS("onnx", "[{'name':'b','uri':'file:b'}]"), NULL, NULL);
    check_text(&AT_KIND_DEPLOYMENT, MODELS("onnx", "[{'uri':'file:b'}]"),
               "spec.template.spec.models[0].name",
               "Required value: requests ask for it by this "
               "name");
    check_text(&AT_KIND_DEPLOYMENT, MODELS("onnx", "[{'name':'a','uri':'file:b'}]"),
               "spec.template.spec.models[0].name", "Duplicate value: \"a\"");
    check_text(&AT_KIND_DEPLOYMENT,
               MODELS("onnx", "[{'name':'b','uri':'file:b'},{'name':'b','uri':'file:c'}]"),
               "spec.template.spec.models[1].name", "Duplicate value: \"b\"");
    check_text(&AT_KIND_DEPLOYMENT, MODELS("onnx", "[{'name':'b','uri':'ftp:b'}]"),
               "spec.template.spec.models[0].uri",
               "Invalid value: \"ftp:b\": must begin with file:, http://, https://, oci://, "
               "oci-layout: or oci-archive:");
    check_text(&AT_KIND_DEPLOYMENT, MODELS("llm", "[{'name':'b','uri':'file:b'}]"),
               "spec.template.spec.models",
               "Forbidden: only the runner onnx serves several models");
#undef MODELS
    check_text(&AT_KIND_DEPLOYMENT,
               "{'metadata':{'name':'d'},'spec':{'template':{'spec':{'runner':'onnx','model':{"
               "'uri':'file:a'},'models':[{'name':'d','uri':'file:b'}]}}}}",
               "spec.template.spec.models[0].name", "Duplicate value: \"d\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_models_have_names_of_their_own),
        cmocka_unit_test(expressions_have_the_values_that_their_operator_needs),
        cmocka_unit_test(weights_are_bounded_whole_numbers_of_known_names),
        cmocka_unit_test(cost_is_another_word_for_price),
        cmocka_unit_test(preferences_have_weights_and_requirements_none),
        cmocka_unit_test(tolerations_spread_rules_and_demand_make_sense),
        cmocka_unit_test(sharing_goes_with_what_is_asked_for),
        cmocka_unit_test(policies_name_sites_and_shared_links_need_gpus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
