#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/model_priv.h"
#include "test_json.h"

#define DEPLOY(spec) "{'metadata':{'name':'d'},'spec':{'template':{'spec':" spec "}}}"
#define SITE(more) "{'metadata':{'name':'a'},'spec':{'class':'edge','jurisdiction':'EU'" more "}}"
#define META(more) "{'metadata':{'name':'a'" more "},'spec':{'class':'edge','jurisdiction':'EU'}}"
#define HUNDRED                                                                                    \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaaaaa"

struct row {
    const struct at_model_kind *kind;
    const char *json;
    const char *reason, *field, *message; /* of the only cause; reason NULL: valid */
};

static void check_row(const struct row *row, const char *old_text)
{
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(row->json);
    AT_CLEANUP(at_cleanup_json) json_t *old = old_text != NULL ? J(old_text) : NULL;
    struct at_model_report report;
    struct at_err err = {0};
    enum at_rc rc =
        at_model_validate(row->kind, json, old, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err);
    if (row->reason == NULL) {
        if (rc != AT_OK) {
            fail_msg("%s: %s", row->json, err.msg);
        }
        return;
    }
    if (rc != AT_INVALID || report.n_causes != 1) {
        fail_msg("%s: rc %d, %zu causes: %s", row->json, rc, report.n_causes, err.msg);
    }
    assert_string_equal(report.causes[0].field, row->field);
    assert_string_equal(report.causes[0].message, row->message);
    assert_string_equal(report.causes[0].reason, row->reason);
    assert_string_equal(err.field, row->field);
}

static void check_rows(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        check_row(&rows[i], NULL);
    }
}

static void each_kind_of_mistake_names_its_field(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {&AT_KIND_SITE, SITE(""), NULL, NULL, NULL},
        {&AT_KIND_SITE, "{'metadata':{'name':'a'}}", "FieldValueRequired", "spec",
         "Required value"},
        {&AT_KIND_SITE, "{'metadata':{'name':'a'},'spec':[]}", "FieldValueTypeInvalid", "spec",
         "Invalid value: \"array\": must be of type object"},
        {&AT_KIND_SITE, "{'metadata':{'name':'a'},'spec':{'class':'edge'}}", "FieldValueRequired",
         "spec.jurisdiction", "Required value"},
        {&AT_KIND_SITE, "{'metadata':{'name':'a'},'spec':{'class':'moon','jurisdiction':'EU'}}",
         "FieldValueNotSupported", "spec.class",
         "Unsupported value: \"moon\": supported values: \"onprem\", \"edge\", \"private\", "
         "\"public\", \"hpc\", \"quantum\""},
        {&AT_KIND_SITE, "{'metadata':{'name':'a'},'spec':{'class':'edge','jurisdiction':''}}",
         "FieldValueInvalid", "spec.jurisdiction", "Invalid value: \"\": must not be empty"},
        {&AT_KIND_SITE,
         "{'metadata':{'name':'a'},'spec':{'class':'edge','jurisdiction':'" HUNDRED "'}}",
         "FieldValueInvalid", "spec.jurisdiction", "Too long: may not be more than 63 characters"},
        {&AT_KIND_SITE, SITE(",'carbonIntensity':-1"), "FieldValueInvalid", "spec.carbonIntensity",
         "Invalid value: -1: must be greater than or equal to 0"},
        {&AT_KIND_SITE, SITE(",'carbonIntensity':9999"), "FieldValueInvalid",
         "spec.carbonIntensity", "Invalid value: 9999: must be less than or equal to 5000"},
        {&AT_KIND_SITE, SITE(",'carbonIntensity':'3'"), "FieldValueTypeInvalid",
         "spec.carbonIntensity", "Invalid value: \"string\": must be of type integer"},
        {&AT_KIND_SITE, SITE(",'links':[{'site':'b'},{'latency':'1ms'}]"), "FieldValueRequired",
         "spec.links[1].site", "Required value"},
        {&AT_KIND_SITE, SITE(",'links':{}"), "FieldValueTypeInvalid", "spec.links",
         "Invalid value: \"object\": must be of type array"},
        {&AT_KIND_SITE, SITE(",'region':null"), NULL, NULL, NULL},
        {&AT_KIND_SITE,
         "{'kind':'Node','metadata':{'name':'a'},'spec':{'class':'edge',"
         "'jurisdiction':'EU'}}",
         "FieldValueInvalid", "kind", "Invalid value: \"Node\": must be Site"},
        {&AT_KIND_NODE, "{'metadata':{'name':'a'},'spec':{'site':'s','unschedulable':1}}",
         "FieldValueTypeInvalid", "spec.unschedulable",
         "Invalid value: \"integer\": must be of type boolean"},
        {&AT_KIND_POLICY,
         "{'metadata':{'name':'a'},'spec':{'residency':[{'dataClass':'x','jurisdictions':[]}]}}",
         "FieldValueInvalid", "spec.residency[0].jurisdictions",
         "Invalid value: 0: must have at least 1 items"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'command':['x'],'placement':{'siteClasses':['moon']}}"),
         "FieldValueNotSupported", "spec.template.spec.placement.siteClasses[0]",
         "Unsupported value: \"moon\": supported values: \"onprem\", \"edge\", \"private\", "
         "\"public\", \"hpc\", \"quantum\""},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'command':['x'],'env':[{'name':'1A'}]}"),
         "FieldValueInvalid", "spec.template.spec.env[0].name",
         "Invalid value: \"1A\": must match '^[A-Za-z_][A-Za-z0-9_]*$'"},
        {&AT_KIND_CONFIG_MAP, "{'metadata':{'name':'a'},'data':{'k':1}}", "FieldValueTypeInvalid",
         "data[k]", "Invalid value: \"integer\": must be of type string"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void a_bad_quantity_is_shown_and_explained(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json)
    json_t *json = J(DEPLOY("{'command':['x'],'resources':{'cpu':'5x','memory':-1}}"));
    struct at_model_report report;
    struct at_err err = {0};
    assert_int_equal(at_model_validate(&AT_KIND_DEPLOYMENT, json, NULL, AT_MODEL_UNKNOWN_REFUSE,
                                       arena, &report, &err),
                     AT_INVALID);
    assert_int_equal(report.n_causes, 2);
    assert_string_equal(report.causes[0].field, "spec.template.spec.resources.cpu");
    assert_memory_equal(report.causes[0].message, "Invalid value: \"5x\": quantity ", 30);
    assert_string_equal(report.causes[1].field, "spec.template.spec.resources.memory");
    assert_non_null(strstr(err.msg, "Deployment.atoll.dev \"d\" is invalid: [spec.template."));
}

static void metadata_follows_kubernetes_rules(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {&AT_KIND_SITE, "{'spec':{'class':'edge','jurisdiction':'EU'}}", "FieldValueRequired",
         "metadata", "Required value"},
        {&AT_KIND_SITE, "{'metadata':{},'spec':{'class':'edge','jurisdiction':'EU'}}",
         "FieldValueRequired", "metadata.name", "Required value: name or generateName is required"},
        {&AT_KIND_SITE,
         "{'metadata':{'generateName':'a-'},'spec':{'class':'edge',"
         "'jurisdiction':'EU'}}",
         NULL, NULL, NULL},
        {&AT_KIND_SITE, META(",'labels':{'a':'b','x.y/z':''},'creationTimestamp':null"), NULL, NULL,
         NULL},
        {&AT_KIND_SITE, META(",'labels':{'a':1}"), "FieldValueTypeInvalid", "metadata.labels[a]",
         "Invalid value: must be a string"},
        {&AT_KIND_SITE, META(",'labels':{'a':'b c'}"), "FieldValueInvalid", "metadata.labels[a]",
         "Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric "
         "characters, '-', '_' or '.', and must start and end with an alphanumeric character"},
        {&AT_KIND_SITE, META(",'annotations':{'" HUNDRED "':''}"), "FieldValueInvalid",
         "metadata.annotations",
         "Invalid value: \"" HUNDRED "\": name part must be no more than 63 characters"},
        {&AT_KIND_SITE, META(",'uid':5"), "FieldValueTypeInvalid", "metadata.uid",
         "Invalid value: must be a string"},
        {&AT_KIND_SITE, META(",'finalizers':['a.b/c','/']"), "FieldValueInvalid",
         "metadata.finalizers[1]",
         "Invalid value: \"/\": prefix part must be a lowercase RFC 1123 subdomain of at most 253 "
         "characters"},
        {&AT_KIND_SITE, META(",'ownerReferences':[{'apiVersion':'v1','kind':'K','name':'n'}]"),
         "FieldValueRequired", "metadata.ownerReferences[0].uid", "Required value"},
        {&AT_KIND_NAMESPACE, "{'metadata':{'name':'a.b'}}", "FieldValueInvalid", "metadata.name",
         "Invalid value: \"a.b\": a lowercase RFC 1123 label must consist of lower case "
         "alphanumeric characters or '-', and must start and end with an alphanumeric character "
         "(e.g. 'my-name')"},
        {&AT_KIND_CONFIG_MAP, "{'metadata':{'name':'A'}}", "FieldValueInvalid", "metadata.name",
         "Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case "
         "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric "
         "character (e.g. 'example.com')"},
        {&AT_KIND_CONFIG_MAP, "{'metadata':{'name':'" HUNDRED "'}}", NULL, NULL, NULL},
        {&AT_KIND_CONFIG_MAP, "{'metadata':{'name':'a','namespace':'x.y'}}", "FieldValueInvalid",
         "metadata.namespace",
         "Invalid value: \"x.y\": a lowercase RFC 1123 label must consist of lower case "
         "alphanumeric characters or '-', and must start and end with an alphanumeric character "
         "(e.g. 'my-name')"},
        {&AT_KIND_JOB,
         "{'metadata':{'name':'" HUNDRED "'},'spec':{'template':{'spec':{'command':['x']}}}}",
         "FieldValueInvalid", "metadata.name",
         "Invalid value: "
         "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
         "aaaaaaaaaaaaaaaaaaaaaaaaaa...: must be no more than 63 characters"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void rules_look_at_several_fields(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {&AT_KIND_DEPLOYMENT, DEPLOY("{}"), "FieldValueRequired", "spec.template.spec",
         "Required value: one of runner, command or image must say what runs"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'runner':'onnx'}"), "FieldValueRequired",
         "spec.template.spec.model", "Required value: a runner needs a model"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'runner':'onnx','model':{'uri':'file:x.onnx'}}"), NULL, NULL,
         NULL},
        {&AT_KIND_DEPLOYMENT,
         DEPLOY("{'runner':'onnx','model':{'uri':'file:x'},"
                "'batching':{'maxBatchSize':8,'preferredBatchSizes':[4,16]}}"),
         "FieldValueInvalid", "spec.template.spec.batching.preferredBatchSizes",
         "Invalid value: [4,16]: must be at most 16 numbers, rising, none over "
         "maxBatchSize"},
        {&AT_KIND_DEPLOYMENT,
         DEPLOY("{'runner':'onnx','model':{'uri':'file:x'},"
                "'batching':{'priorityLevels':2,'levels':[{'level':3}]}}"),
         "FieldValueInvalid", "spec.template.spec.batching.levels[0].level",
         "Invalid value: 3: must be one of the priorityLevels"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'runner':'onnx','model':{'uri':'x.onnx'}}"),
         "FieldValueInvalid", "spec.template.spec.model.uri",
         "Invalid value: \"x.onnx\": must begin with file:, http://, https://, oci://, oci-layout: "
         "or oci-archive:"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'runner':'onnx','model':{'uri':'file:x'},'command':['x']}"),
         "FieldValueForbidden", "spec.template.spec.command",
         "Forbidden: may not be set together with runner"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'driver':'oci','command':['x']}"), "FieldValueRequired",
         "spec.template.spec.image", "Required value: the oci driver needs an image"},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'command':['x'],'resources':{'gpu':'1500m'}}"),
         "FieldValueInvalid", "spec.template.spec.resources.gpu",
         "Invalid value: \"1500m\": must be a fraction of one GPU or a whole number of them"},
        {&AT_KIND_DEPLOYMENT,
         DEPLOY("{'command':['x'],'resources':{'gpu':0.25,'gpuMemory':'1Gi'}}"), NULL, NULL, NULL},
        {&AT_KIND_DEPLOYMENT, DEPLOY("{'command':['x'],'resources':{'gpuMemory':'1Gi'}}"),
         "FieldValueForbidden", "spec.template.spec.resources.gpuMemory",
         "Forbidden: may only be set together with gpu"},
        {&AT_KIND_DEPLOYMENT,
         "{'metadata':{'name':'d'},'spec':{'template':{'metadata':{'labels':{'a b':'c'}},'spec':{"
         "'command':['x']}}}}",
         "FieldValueInvalid", "spec.template.metadata.labels",
         "Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or "
         "'.', and must start and end with an alphanumeric character (e.g. 'MyName' or "
         "'example.com/MyName')"},
        {&AT_KIND_DEPLOYMENT,
         "{'metadata':{'name':'d'},'spec':{'strategy':{'maxSurge':0,'maxUnavailable':0},"
         "'template':{'spec':{'command':['x']}}}}",
         "FieldValueInvalid", "spec.strategy.maxUnavailable",
         "Invalid value: 0: may not be 0 when maxSurge is 0"},
        {&AT_KIND_JOB,
         "{'metadata':{'name':'j'},'spec':{'template':{'spec':{'command':['x'],'restartPolicy':"
         "'Always'}}}}",
         "FieldValueNotSupported", "spec.template.spec.restartPolicy",
         "Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\""},
        {&AT_KIND_INSTANCE, "{'metadata':{'name':'i'},'spec':{}}", "FieldValueRequired", "spec",
         "Required value: one of runner, command or image must say what runs"},
        {&AT_KIND_SITE, SITE(",'links':[{'site':'a'}]"), "FieldValueInvalid", "spec.links[0].site",
         "Invalid value: \"a\": a site has no link to itself"},
        {&AT_KIND_SITE, SITE(",'links':[{'site':'b'},{'site':'b'}]"), "FieldValueDuplicate",
         "spec.links[1].site", "Duplicate value: \"b\""},
        {&AT_KIND_SECRET, "{'metadata':{'name':'s'},'data':{'a':'not base64!'}}",
         "FieldValueInvalid", "data[a]", "Invalid value: \"<redacted>\": must be base64"},
        {&AT_KIND_CONFIG_MAP, "{'metadata':{'name':'s'},'data':{'a/b':''}}", "FieldValueInvalid",
         "data[a/b]",
         "Invalid value: \"a/b\": a key must consist of alphanumeric characters, '-', '_' or '.'"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

static void traffic_is_weighed_or_copied(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {&AT_KIND_DEPLOYMENT,
         "{'metadata':{'name':'d'},'spec':{'traffic':{'shadow':5,'weight':5},"
         "'template':{'spec':{'command':['x']}}}}",
         "FieldValueForbidden", "spec.traffic.weight",
         "Forbidden: may not be set together with shadow: copies come beside all weights"},
        {&AT_KIND_DEPLOYMENT,
         "{'metadata':{'name':'d'},'spec':{'traffic':{'session':{'cookie':'a b'}},"
         "'template':{'spec':{'command':['x']}}}}",
         "FieldValueInvalid", "spec.traffic.session.cookie",
         "Invalid value: \"a b\": must match '^[-!#$%&'*+.^_`|~0-9A-Za-z]*$'"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
}

#define ROLE(rules) "{'metadata':{'name':'system:r'},'rules':[" rules "]}"
#define BOUND(ref, subject)                                                                        \
    "{'metadata':{'name':'b'},'roleRef':{'apiGroup':'rbac.authorization.k8s.io'," ref "},"         \
    "'subjects':[{" subject "}]}"
#define GET_PODS "{'verbs':['get'],'apiGroups':[''],'resources':['pods']}"
#define USER "'kind':'User','name':'u','apiGroup':'rbac.authorization.k8s.io'"

static void roles_and_bindings_follow_kubernetes_rules(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {&AT_KIND_ROLE, ROLE(GET_PODS), NULL, NULL, NULL},
        {&AT_KIND_ROLE, "{'metadata':{'name':'a/b'}}", "FieldValueInvalid", "metadata.name",
         "Invalid value: \"a/b\": may not contain '/' or '%'"},
        {&AT_KIND_ROLE, ROLE("{'verbs':[],'apiGroups':[''],'resources':['pods']}"),
         "FieldValueRequired", "rules[0].verbs",
         "Required value: verbs must contain at least one value"},
        {&AT_KIND_ROLE, ROLE(GET_PODS ",{'verbs':['get'],'apiGroups':['']}"), "FieldValueRequired",
         "rules[1].resources", "Required value: resource rules must supply at least one resource"},
        {&AT_KIND_ROLE, ROLE("{'verbs':['get'],'nonResourceURLs':['/x']}"), "FieldValueInvalid",
         "rules[0].nonResourceURLs",
         "Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs"},
        {&AT_KIND_CLUSTER_ROLE, ROLE("{'verbs':['get'],'nonResourceURLs':['/x']}"), NULL, NULL,
         NULL},
        {&AT_KIND_CLUSTER_ROLE, "{'metadata':{'name':'a'},'aggregationRule':{}}",
         "FieldValueRequired", "aggregationRule.clusterRoleSelectors",
         "Required value: at least one clusterRoleSelector required if aggregationRule is "
         "non-nil"},
        {&AT_KIND_ROLE_BINDING, BOUND("'kind':'Role','name':'r'", USER), NULL, NULL, NULL},
        {&AT_KIND_CLUSTER_ROLE_BINDING, BOUND("'kind':'Role','name':'r'", USER),
         "FieldValueNotSupported", "roleRef.kind",
         "Unsupported value: \"Role\": supported values: \"ClusterRole\""},
        {&AT_KIND_ROLE_BINDING, BOUND("'kind':'Role','name':'r'", "'kind':'User','name':'u'"),
         "FieldValueNotSupported", "subjects[0].apiGroup",
         "Unsupported value: \"\": supported values: \"rbac.authorization.k8s.io\""},
        {&AT_KIND_ROLE_BINDING, BOUND("'kind':'Role','name':''", USER), "FieldValueRequired",
         "roleRef.name", "Required value"},
        {&AT_KIND_ROLE_BINDING,
         BOUND("'kind':'Role','name':'r'", "'kind':'ServiceAccount','name':'A b'"),
         "FieldValueInvalid", "subjects[0].name",
         "Invalid value: \"A b\": a lowercase RFC 1123 subdomain must consist of lower case "
         "alphanumeric "
         "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
         "'example.com')"},
        {&AT_KIND_CLUSTER_ROLE_BINDING,
         BOUND("'kind':'ClusterRole','name':'r'", "'kind':'ServiceAccount','name':'a'"),
         "FieldValueRequired", "subjects[0].namespace", "Required value"},
    };
    check_rows(rows, AT_ARRAY_LEN(rows));
    const struct row moved = {
        &AT_KIND_ROLE_BINDING, BOUND("'kind':'Role','name':'r'", USER), "FieldValueInvalid",
        "roleRef",
        "Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":"
        "\"r\"}: cannot change roleRef"};
    check_row(&moved, BOUND("'kind':'Role','name':'other'", USER));
}

static void what_is_set_once_stays(void **state)
{
    (void)state;
    static const char node[] = "{'metadata':{'name':'n'},'spec':{'site':'a'}}";
    static const struct row moved = {&AT_KIND_NODE, "{'metadata':{'name':'n'},'spec':{'site':'b'}}",
                                     "FieldValueInvalid", "spec.site",
                                     "Invalid value: \"b\": field is immutable"};
    check_row(&moved, node);
    static const struct row same = {&AT_KIND_NODE, node, NULL, NULL, NULL};
    check_row(&same, node);

    static const char secret[] = "{'metadata':{'name':'s'},'immutable':true,'data':{'a':'eA=='}}";
    static const struct row changed = {
        &AT_KIND_SECRET, "{'metadata':{'name':'s'},'immutable':true,'data':{'a':'eQ=='}}",
        "FieldValueForbidden", "data", "Forbidden: field is immutable when `immutable` is set"};
    check_row(&changed, secret);
    static const struct row thawed = {
        &AT_KIND_SECRET, "{'metadata':{'name':'s'},'data':{'a':'eA=='}}", "FieldValueForbidden",
        "immutable", "Forbidden: field is immutable when `immutable` is set"};
    check_row(&thawed, secret);
}

static void an_instance_is_bound_once(void **state)
{
    (void)state;
    static const char pending[] = "{'metadata':{'name':'i'},'spec':{'command':['x']}}";
    static const char bound[] = "{'metadata':{'name':'i'},'spec':{'command':['x'],'nodeName':'a'}}";
    static const struct row bind = {&AT_KIND_INSTANCE, bound, NULL, NULL, NULL};
    check_row(&bind, pending);
    static const struct row moved = {
        &AT_KIND_INSTANCE, "{'metadata':{'name':'i'},'spec':{'command':['x'],'nodeName':'b'}}",
        "FieldValueInvalid", "spec.nodeName",
        "Invalid value: \"b\": field is immutable once it is set"};
    check_row(&moved, bound);
    static const struct row edited = {
        &AT_KIND_INSTANCE, "{'metadata':{'name':'i'},'spec':{'command':['y'],'nodeName':'a'}}",
        "FieldValueForbidden", "spec",
        "Forbidden: of an instance only nodeName may be set later, and its share of GPUs changed"};
    check_row(&edited, bound);
    static const char shared[] = "{'metadata':{'name':'i'},'spec':{'command':['x'],'nodeName':'a',"
                                 "'resources':{'gpu':'0.25','cpu':'1'}}}";
    static const struct row resized = {
        &AT_KIND_INSTANCE,
        "{'metadata':{'name':'i'},'spec':{'command':['x'],'nodeName':'a','resources':"
        "{'gpu':'0.5','gpuMemory':'1Gi','cpu':'1'},'gpuSharing':{'parkAfter':'5m'}}}",
        NULL, NULL, NULL};
    check_row(&resized, shared);
    static const struct row grown = {
        &AT_KIND_INSTANCE,
        "{'metadata':{'name':'i'},'spec':{'command':['x'],'nodeName':'a',"
        "'resources':{'gpu':'0.25','cpu':'2'}}}",
        "FieldValueForbidden", "spec",
        "Forbidden: of an instance only nodeName may be set later, and its share of GPUs changed"};
    check_row(&grown, shared);
}

static void unknown_fields_are_refused_listed_or_dropped(void **state)
{
    (void)state;
    static const char text[] =
        "{'metadata':{'name':'a','nmae':1},'spec':{'class':'edge','jurisdiction':'EU','colour':1,"
        "'links':[{'site':'b','x':{}}],'gone':null},'extra':[]}";
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(text);
    struct at_model_report report;
    struct at_err err = {0};
    assert_int_equal(
        at_model_validate(&AT_KIND_SITE, json, NULL, AT_MODEL_UNKNOWN_REFUSE, arena, &report, &err),
        AT_BAD_REQUEST);
    assert_string_equal(err.msg,
                        "strict decoding error: unknown field \"metadata.nmae\", unknown field "
                        "\"extra\", unknown field \"spec.colour\", unknown field "
                        "\"spec.links[0].x\"");
    assert_int_equal(report.n_unknown, 4);
    assert_int_equal(
        at_model_validate(&AT_KIND_SITE, json, NULL, AT_MODEL_UNKNOWN_WARN, arena, &report, &err),
        AT_OK);
    assert_int_equal(report.n_unknown, 4);
    AT_CLEANUP(at_cleanup_json)
    json_t *clean = J("{'metadata':{'name':'a'},'spec':{'class':'edge','jurisdiction':'EU','links'"
                      ":[{'site':'b'}]}}");
    assert_true(json_equal(json, clean));
    assert_int_equal(
        at_model_validate(&AT_KIND_SITE, json, NULL, AT_MODEL_UNKNOWN_DROP, arena, &report, &err),
        AT_OK);
    assert_int_equal(report.n_unknown, 0);
}

static void a_thousand_mistakes_give_a_bounded_report(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_arena) struct at_arena *arena = at_arena_new(0);
    AT_CLEANUP(at_cleanup_json) json_t *json = J(SITE(",'links':[]"));
    json_t *links = at_json_at(json, "spec.links");
    for (size_t i = 0; i < 900; i++) {
        json_array_append_new(links, json_pack("{s:i}", "bad", 1));
    }
    struct at_model_report report;
    struct at_err err = {0};
    assert_int_equal(
        at_model_validate(&AT_KIND_SITE, json, NULL, AT_MODEL_UNKNOWN_DROP, arena, &report, &err),
        AT_INVALID);
    assert_int_equal(report.n_causes, AT_MODEL_CAUSES_MAX);
    assert_int_equal(report.n_unknown, AT_MODEL_CAUSES_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_mistake_names_its_field),
        cmocka_unit_test(a_bad_quantity_is_shown_and_explained),
        cmocka_unit_test(metadata_follows_kubernetes_rules),
        cmocka_unit_test(rules_look_at_several_fields),
        cmocka_unit_test(traffic_is_weighed_or_copied),
        cmocka_unit_test(roles_and_bindings_follow_kubernetes_rules),
        cmocka_unit_test(what_is_set_once_stays),
        cmocka_unit_test(an_instance_is_bound_once),
        cmocka_unit_test(unknown_fields_are_refused_listed_or_dropped),
        cmocka_unit_test(a_thousand_mistakes_give_a_bounded_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
