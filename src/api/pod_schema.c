/* OpenAPI of core v1 Pods, as far as an Instance shows itself as one: for kubectl explain. */
#include "api/api_priv.h"
#include "core/str.h"

#include <string.h>

#define CORE "io.k8s.api.core.v1."
#define META_REF "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"

struct pod_field {
    const char *name;
    const char *type; /* of OpenAPI; "list X" and "object X" of another schema; "map" of strings */
    const char *description;
};

struct pod_schema {
    const char *name, *description;
    const struct pod_field *fields; /* name NULL ends them */
};

#define FIELDS (const struct pod_field[])
#define END                                                                                        \
    {                                                                                              \
        NULL, NULL, NULL                                                                           \
    }

static const struct pod_schema SCHEMAS[] = {
    {"PodSpec", "What runs, as the Instance says it.",
     FIELDS{{"containers", "list Container", "The one container, main."},
            {"restartPolicy", "string", "When it is started again: Always, OnFailure or Never."},
            {"nodeName", "string", "Node on which it runs; empty: none is chosen yet."},
            {"priority", "integer", "Who goes first when room is short."},
            END}},
    {"Container", "A process or an OCI container.",
     FIELDS{{"name", "string", "Always main."},
            {"image", "string", "OCI image; for others the runner, or process."},
            {"command", "strings", "Program and its arguments."},
            {"args", "strings", "More arguments."},
            {"workingDir", "string", "Folder in which it starts."},
            {"env", "list EnvVar", "Environment."},
            {"resources", "object ResourceRequirements", "What it reserves and is limited to."},
            {"ports", "list ContainerPort", "Where it listens."},
            END}},
    {"EnvVar", "A variable of the environment.",
     FIELDS{{"name", "string", "Name."},
            {"value", "string", "Value."},
            {"valueFrom", "object EnvVarSource", "Where the value comes from instead."},
            END}},
    {"EnvVarSource", "Where a value comes from.",
     FIELDS{{"secretKeyRef", "object SecretKeySelector", "A key of a Secret."}, END}},
    {"SecretKeySelector", "A key of a Secret of the same namespace.",
     FIELDS{{"name", "string", "Name of the Secret."}, {"key", "string", "Key in its data."}, END}},
    {"ResourceRequirements", "What is reserved, and the limit: the same.",
     FIELDS{{"limits", "map", "cpu and memory."}, {"requests", "map", "cpu and memory."}, END}},
    {"ContainerPort", "A port.",
     FIELDS{{"containerPort", "integer", "Number."}, {"protocol", "string", "TCP."}, END}},
    {"PodStatus", "What is observed.",
     FIELDS{
         {"phase", "string", "Pending, Running, Succeeded or Failed."},
         {"conditions", "list PodCondition", "PodScheduled, Initialized, ContainersReady, Ready."},
         {"containerStatuses", "list ContainerStatus", "State of the one container."},
         {"podIP", "string", "Address where it serves."},
         {"startTime", "time", "When it was placed."},
         {"message", "string", "One sentence for people."},
         {"reason", "string", "One word for programs."},
         END}},
    {"PodCondition", "One observed condition.",
     FIELDS{{"type", "string", "Type of the condition."},
            {"status", "string", "True or False."},
            {"lastTransitionTime", "time", "When it came to hold."},
            END}},
    {"ContainerStatus", "State of a container.",
     FIELDS{{"name", "string", "Always main."},
            {"image", "string", "As in the spec."},
            {"imageID", "string", "Empty."},
            {"ready", "boolean", "Its readiness probe holds."},
            {"restartCount", "integer", "Times it was started again."},
            {"state", "object ContainerState", "One of waiting, running, terminated."},
            END}},
    {"ContainerState", "One of the three is there.",
     FIELDS{{"waiting", "object ContainerStateWaiting", "It is being started."},
            {"running", "object ContainerStateRunning", "It runs."},
            {"terminated", "object ContainerStateTerminated", "It has ended."},
            END}},
    {"ContainerStateWaiting", "Why it does not run yet.",
     FIELDS{{"reason", "string", "One word."}, {"message", "string", "One sentence."}, END}},
    {"ContainerStateRunning", "Since when it runs.",
     FIELDS{{"startedAt", "time", "When it was started."}, END}},
    {"ContainerStateTerminated", "How it ended.",
     FIELDS{{"exitCode", "integer", "Exit status."},
            {"reason", "string", "Completed, Error, or the Instance's reason."},
            {"message", "string", "One sentence."},
            {"startedAt", "time", "When it was started."},
            {"finishedAt", "time", "When it ended."},
            END}},
};

static json_t *reference(const char *name)
{
    char text[128];
    snprintf(text, sizeof text, "#/components/schemas/" CORE "%s", name);
    return json_pack("{s:s}", "$ref", text);
}

static json_t *field_schema(const struct pod_field *f)
{
    json_t *out = json_pack("{s:s}", "description", f->description);
    if (at_str_starts(at_str_of(f->type), "list ")) {
        json_object_set_new(out, "type", json_string("array"));
        json_object_set_new(out, "items", json_pack("{s:[o]}", "allOf", reference(f->type + 5)));
    } else if (at_str_starts(at_str_of(f->type), "object ")) {
        json_object_set_new(out, "allOf", json_pack("[o]", reference(f->type + 7)));
    } else if (at_streq(f->type, "strings")) {
        json_object_set_new(out, "type", json_string("array"));
        json_object_set_new(out, "items", json_pack("{s:s}", "type", "string"));
    } else if (at_streq(f->type, "map")) {
        json_object_set_new(out, "type", json_string("object"));
        json_object_set_new(out, "additionalProperties", json_pack("{s:s}", "type", "string"));
    } else if (at_streq(f->type, "time")) {
        json_object_set_new(out, "type", json_string("string"));
        json_object_set_new(out, "format", json_string("date-time"));
    } else {
        json_object_set_new(out, "type", json_string(f->type));
    }
    return out;
}

void api_pod_schemas(json_t *schemas)
{
    for (size_t i = 0; i < sizeof SCHEMAS / sizeof SCHEMAS[0]; i++) {
        char name[128];
        json_t *properties = json_object();
        for (const struct pod_field *f = SCHEMAS[i].fields; f->name != NULL; f++) {
            json_object_set_new(properties, f->name, field_schema(f));
        }
        snprintf(name, sizeof name, CORE "%s", SCHEMAS[i].name);
        json_object_set_new(schemas, name,
                            json_pack("{s:s, s:s, s:o}", "type", "object", "description",
                                      SCHEMAS[i].description, "properties", properties));
    }
    json_t *pod = json_pack(
        "{s:s, s:s, s:{s:{s:s, s:s}, s:{s:s, s:s}, s:{s:s, s:[{s:s}]}, s:{s:s, s:[o]}, s:{s:s, "
        "s:[o]}}, s:[{s:s, s:s, s:s}]}",
        "type", "object", "description", API_POD_KIND.description, "properties", "apiVersion",
        "type", "string", "description", "Group and version of this representation.", "kind",
        "type", "string", "description", "Kind of the object.", "metadata", "description",
        "Standard metadata.", "allOf", "$ref", META_REF, "spec", "description", "What runs.",
        "allOf", reference("PodSpec"), "status", "description", "What is observed.", "allOf",
        reference("PodStatus"), "x-kubernetes-group-version-kind", "group", "", "version", "v1",
        "kind", "Pod");
    json_object_set_new(schemas, CORE "Pod", pod);
}
