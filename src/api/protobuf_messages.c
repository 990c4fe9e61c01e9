/* The Kubernetes messages that clients send as protobuf. */
#include "api/protobuf.h"

#include "core/mem.h"
#include "core/str.h"

/* Lists end with number 0. Numbers from Kubernetes' generated.proto files. */
static const struct pb_field OWNER[] = {{1, "kind", PB_STRING, NULL},
                                        {3, "name", PB_STRING, NULL},
                                        {4, "uid", PB_STRING, NULL},
                                        {5, "apiVersion", PB_STRING, NULL},
                                        {6, "controller", PB_BOOL, NULL},
                                        {7, "blockOwnerDeletion", PB_BOOL, NULL},
                                        {0}};
static const struct pb_field META[] = {{1, "name", PB_STRING, NULL},
                                       {2, "generateName", PB_STRING, NULL},
                                       {3, "namespace", PB_STRING, NULL},
                                       {5, "uid", PB_STRING, NULL},
                                       {6, "resourceVersion", PB_STRING, NULL},
                                       {11, "labels", PB_MAP, NULL},
                                       {12, "annotations", PB_MAP, NULL},
                                       {13, "ownerReferences", PB_MESSAGES, OWNER},
                                       {14, "finalizers", PB_STRINGS, NULL},
                                       {0}};
static const struct pb_field RESOURCE_ATTRIBUTES[] = {
    {1, "namespace", PB_STRING, NULL}, {2, "verb", PB_STRING, NULL},
    {3, "group", PB_STRING, NULL},     {4, "version", PB_STRING, NULL},
    {5, "resource", PB_STRING, NULL},  {6, "subresource", PB_STRING, NULL},
    {7, "name", PB_STRING, NULL},      {0}};
static const struct pb_field NON_RESOURCE_ATTRIBUTES[] = {
    {1, "path", PB_STRING, NULL}, {2, "verb", PB_STRING, NULL}, {0}};
static const struct pb_field ACCESS_SPEC[] = {
    {1, "resourceAttributes", PB_MESSAGE, RESOURCE_ATTRIBUTES},
    {2, "nonResourceAttributes", PB_MESSAGE, NON_RESOURCE_ATTRIBUTES},
    {0}};
static const struct pb_field ACCESS_REVIEW[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, ACCESS_SPEC}, {0}};
static const struct pb_field SUBJECT_ACCESS_SPEC[] = {
    {1, "resourceAttributes", PB_MESSAGE, RESOURCE_ATTRIBUTES},
    {2, "nonResourceAttributes", PB_MESSAGE, NON_RESOURCE_ATTRIBUTES},
    {3, "user", PB_STRING, NULL},
    {4, "groups", PB_STRINGS, NULL},
    {0}};
static const struct pb_field SUBJECT_ACCESS_REVIEW[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, SUBJECT_ACCESS_SPEC}, {0}};
static const struct pb_field TOKEN_SPEC[] = {
    {1, "token", PB_STRING, NULL}, {2, "audiences", PB_STRINGS, NULL}, {0}};
static const struct pb_field TOKEN_REVIEW[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, TOKEN_SPEC}, {0}};
static const struct pb_field RULES_SPEC[] = {{1, "namespace", PB_STRING, NULL}, {0}};
static const struct pb_field RULES_REVIEW[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, RULES_SPEC}, {0}};
static const struct pb_field SUBJECT_REVIEW[] = {{1, "metadata", PB_MESSAGE, META}, {0}};
static const struct pb_field NAMESPACE_SPEC[] = {{1, "finalizers", PB_STRINGS, NULL}, {0}};
static const struct pb_field NAMESPACE[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, NAMESPACE_SPEC}, {0}};
static const struct pb_field CONFIG_MAP[] = {{1, "metadata", PB_MESSAGE, META},
                                             {2, "data", PB_MAP, NULL},
                                             {3, "binaryData", PB_MAP_BYTES, NULL},
                                             {4, "immutable", PB_BOOL, NULL},
                                             {0}};
static const struct pb_field SECRET[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "data", PB_MAP_BYTES, NULL},
    {3, "type", PB_STRING, NULL},      {4, "stringData", PB_MAP, NULL},
    {5, "immutable", PB_BOOL, NULL},   {0}};
static const struct pb_field PRECONDITIONS[] = {
    {1, "uid", PB_STRING, NULL}, {2, "resourceVersion", PB_STRING, NULL}, {0}};
static const struct pb_field DELETE_OPTIONS[] = {
    {1, "gracePeriodSeconds", PB_INT, NULL}, {2, "preconditions", PB_MESSAGE, PRECONDITIONS},
    {3, "orphanDependents", PB_BOOL, NULL},  {4, "propagationPolicy", PB_STRING, NULL},
    {5, "dryRun", PB_STRINGS, NULL},         {0}};
static const struct pb_field RULE[] = {
    {1, "verbs", PB_STRINGS, NULL},           {2, "apiGroups", PB_STRINGS, NULL},
    {3, "resources", PB_STRINGS, NULL},       {4, "resourceNames", PB_STRINGS, NULL},
    {5, "nonResourceURLs", PB_STRINGS, NULL}, {0}};
static const struct pb_field EXPRESSION[] = {{1, "key", PB_STRING, NULL},
                                             {2, "operator", PB_STRING, NULL},
                                             {3, "values", PB_STRINGS, NULL},
                                             {0}};
static const struct pb_field LABEL_SELECTOR[] = {
    {1, "matchLabels", PB_MAP, NULL}, {2, "matchExpressions", PB_MESSAGES, EXPRESSION}, {0}};
static const struct pb_field AGGREGATION[] = {
    {1, "clusterRoleSelectors", PB_MESSAGES, LABEL_SELECTOR}, {0}};
static const struct pb_field ROLE[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "rules", PB_MESSAGES, RULE}, {0}};
static const struct pb_field CLUSTER_ROLE[] = {{1, "metadata", PB_MESSAGE, META},
                                               {2, "rules", PB_MESSAGES, RULE},
                                               {3, "aggregationRule", PB_MESSAGE, AGGREGATION},
                                               {0}};
static const struct pb_field SUBJECT[] = {{1, "kind", PB_STRING, NULL},
                                          {2, "apiGroup", PB_STRING, NULL},
                                          {3, "name", PB_STRING, NULL},
                                          {4, "namespace", PB_STRING, NULL},
                                          {0}};
static const struct pb_field ROLE_REF[] = {{1, "apiGroup", PB_STRING, NULL},
                                           {2, "kind", PB_STRING, NULL},
                                           {3, "name", PB_STRING, NULL},
                                           {0}};
static const struct pb_field BINDING[] = {{1, "metadata", PB_MESSAGE, META},
                                          {2, "subjects", PB_MESSAGES, SUBJECT},
                                          {3, "roleRef", PB_MESSAGE, ROLE_REF},
                                          {0}};
static const struct pb_field OBJECT_REF[] = {
    {1, "kind", PB_STRING, NULL},       {2, "namespace", PB_STRING, NULL},
    {3, "name", PB_STRING, NULL},       {4, "uid", PB_STRING, NULL},
    {5, "apiVersion", PB_STRING, NULL}, {6, "resourceVersion", PB_STRING, NULL},
    {7, "fieldPath", PB_STRING, NULL},  {0}};
static const struct pb_field LOCAL_REF[] = {{1, "name", PB_STRING, NULL}, {0}};
static const struct pb_field SERVICE_ACCOUNT[] = {
    {1, "metadata", PB_MESSAGE, META},
    {2, "secrets", PB_MESSAGES, OBJECT_REF},
    {3, "imagePullSecrets", PB_MESSAGES, LOCAL_REF},
    {4, "automountServiceAccountToken", PB_BOOL, NULL},
    {0}};
static const struct pb_field BOUND_REF[] = {{1, "kind", PB_STRING, NULL},
                                            {2, "apiVersion", PB_STRING, NULL},
                                            {3, "name", PB_STRING, NULL},
                                            {4, "uid", PB_STRING, NULL},
                                            {0}};
static const struct pb_field TOKEN_REQUEST_SPEC[] = {{1, "audiences", PB_STRINGS, NULL},
                                                     {3, "boundObjectRef", PB_MESSAGE, BOUND_REF},
                                                     {4, "expirationSeconds", PB_INT, NULL},
                                                     {0}};
static const struct pb_field TOKEN_REQUEST[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, TOKEN_REQUEST_SPEC}, {0}};
static const struct pb_field QUOTA_SPEC[] = {
    {1, "hard", PB_MAP_QUANTITY, NULL}, {2, "scopes", PB_STRINGS, NULL}, {0}};
static const struct pb_field QUOTA[] = {
    {1, "metadata", PB_MESSAGE, META}, {2, "spec", PB_MESSAGE, QUOTA_SPEC}, {0}};

static const struct {
    const char *kind;
    const struct pb_field *fields;
} MESSAGES[] = {
    {"SelfSubjectAccessReview", ACCESS_REVIEW},
    {"SelfSubjectRulesReview", RULES_REVIEW},
    {"SubjectAccessReview", SUBJECT_ACCESS_REVIEW},
    {"TokenReview", TOKEN_REVIEW},
    {"SelfSubjectReview", SUBJECT_REVIEW},
    {"Namespace", NAMESPACE},
    {"ConfigMap", CONFIG_MAP},
    {"ResourceQuota", QUOTA},
    {"Secret", SECRET},
    {"DeleteOptions", DELETE_OPTIONS},
    {"LocalSubjectAccessReview", SUBJECT_ACCESS_REVIEW},
    {"TokenRequest", TOKEN_REQUEST},
    {"ServiceAccount", SERVICE_ACCOUNT},
    {"Role", ROLE},
    {"ClusterRole", CLUSTER_ROLE},
    {"RoleBinding", BINDING},
    {"ClusterRoleBinding", BINDING},
};

const struct pb_field *api_pb_message(const char *kind)
{
    for (size_t i = 0; i < AT_ARRAY_LEN(MESSAGES); i++) {
        if (at_streq(MESSAGES[i].kind, kind)) {
            return MESSAGES[i].fields;
        }
    }
    return NULL;
}
