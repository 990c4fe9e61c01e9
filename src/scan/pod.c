/* Pod specifications: manifests of Kubernetes that people bring along. */
#include "core/mem.h"
#include "scan/scan_priv.h"

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

/* A member of the container's security context, else of the pod's. */
static const json_t *context_of(const json_t *pod, const json_t *container, const char *key)
{
    const json_t *own = json_object_get(json_object_get(container, "securityContext"), key);
    return own != NULL ? own : json_object_get(json_object_get(pod, "securityContext"), key);
}

static void user_check(struct scan_look *look, const json_t *pod, const json_t *container,
                       const char *base)
{
    const json_t *user = context_of(pod, container, "runAsUser");
    const json_t *non_root = context_of(pod, container, "runAsNonRoot");
    if (json_is_integer(user) && json_integer_value(user) == 0) {
        scan_found(look, SCAN_ROOT, scan_path(look, "%s.securityContext.runAsUser", base),
                   "runAsUser is 0");
    } else if (!json_is_true(non_root) && json_integer_value(user) <= 0) {
        scan_found_as(look, SCAN_ROOT, AT_SCAN_MEDIUM, scan_path(look, "%s.securityContext", base),
                      "runAsNonRoot is not true: the image's own user, which is root in most");
    }
}

static void capabilities_check(struct scan_look *look, const json_t *context, const char *base)
{
    static const char MODEST[] = " NET_BIND_SERVICE ";
    static const char ROOTS[] =
        " ALL SYS_ADMIN SYS_PTRACE SYS_MODULE SYS_RAWIO DAC_READ_SEARCH BPF ";
    size_t i;
    json_t *item;
    json_array_foreach(at_json_at(context, "capabilities.add"), i, item)
    {
        char framed[48];
        struct at_str name = at_str_of(json_string_value(item));
        name = at_str_starts(name, "CAP_") ? (struct at_str){name.ptr + 4, name.len - 4} : name;
        snprintf(framed, sizeof framed, " %.*s ", (int)(name.len < 40 ? name.len : 40),
                 name.ptr != NULL ? name.ptr : "");
        if (strstr(MODEST, framed) == NULL) {
            scan_found_as(look, SCAN_CAPABILITIES,
                          strstr(ROOTS, framed) != NULL ? AT_SCAN_CRITICAL : AT_SCAN_HIGH,
                          scan_path(look, "%s.securityContext.capabilities.add[%zu]", base, i),
                          "adds%.40s", framed);
        }
    }
}

static void context_check(struct scan_look *look, const json_t *pod, const json_t *container,
                          const char *base)
{
    const json_t *context = json_object_get(container, "securityContext");
    const char *field = context != NULL ? scan_path(look, "%s.securityContext", base) : base;
    if (is_true(context, "privileged")) {
        scan_found(look, SCAN_PRIVILEGED, scan_path(look, "%s.securityContext.privileged", base),
                   "privileged: true");
    }
    user_check(look, pod, container, base);
    if (!json_is_false(json_object_get(context, "allowPrivilegeEscalation"))) {
        scan_found(look, SCAN_ESCALATION, field, "allowPrivilegeEscalation is not false");
    }
    capabilities_check(look, context, base);
    if (!is_true(context, "readOnlyRootFilesystem")) {
        scan_found(look, SCAN_WRITABLE_ROOT, field, "readOnlyRootFilesystem is not true");
    }
    const json_t *seccomp = context_of(pod, container, "seccompProfile");
    if (at_streq(scan_text(seccomp, "type"), "Unconfined")) {
        scan_found(look, SCAN_SECCOMP_OFF, field, "seccompProfile is Unconfined");
    }
}

static void limits_check(struct scan_look *look, const json_t *container, const char *base)
{
    const json_t *limits = at_json_at(container, "resources.limits");
    bool cpu = json_object_get(limits, "cpu") != NULL;
    bool memory = json_object_get(limits, "memory") != NULL;
    if (!cpu || !memory) {
        scan_found(look, SCAN_NO_LIMITS, scan_path(look, "%s.resources", base),
                   "limits: %s%s%s not set", cpu ? "" : "cpu", !cpu && !memory ? " and " : "",
                   memory ? "" : "memory");
    }
}

static void container_check(struct scan_look *look, const json_t *pod, const json_t *container,
                            const char *base, bool serves)
{
    size_t i;
    json_t *port;
    context_check(look, pod, container, base);
    limits_check(look, container, base);
    if (serves && json_object_get(container, "readinessProbe") == NULL &&
        json_array_size(json_object_get(container, "ports")) > 0) {
        scan_found(look, SCAN_NO_PROBE, base, "no readinessProbe");
    }
    json_array_foreach(json_object_get(container, "ports"), i, port)
    {
        if (json_integer_value(json_object_get(port, "hostPort")) > 0) {
            scan_found(look, SCAN_HOST_PORT, scan_path(look, "%s.ports[%zu].hostPort", base, i),
                       "it takes port %lld of its machine",
                       (long long)json_integer_value(json_object_get(port, "hostPort")));
        }
    }
    scan_env(look, json_object_get(container, "env"), scan_path(look, "%s.env", base));
    scan_command(look, json_object_get(container, "command"), scan_path(look, "%s.command", base),
                 json_object_get(container, "args"), scan_path(look, "%s.args", base));
    scan_image(look, scan_text(container, "image"), scan_path(look, "%s.image", base));
}

static void volumes_check(struct scan_look *look, const json_t *pod, const char *base)
{
    static const char *const SYSTEM[] = {"/etc",           "/root", "/proc",
                                         "/sys",           "/boot", "/dev",
                                         "/var/run",       "/run",  "/var/lib/kubelet",
                                         "/var/lib/docker"};
    size_t i;
    json_t *volume;
    json_array_foreach(json_object_get(pod, "volumes"), i, volume)
    {
        if (json_object_get(volume, "hostPath") == NULL) {
            continue;
        }
        const char *path = at_json_str_at(volume, "hostPath.path", "");
        bool system = at_streq(path, "/") || strstr(path, ".sock") != NULL;
        for (size_t k = 0; k < AT_ARRAY_LEN(SYSTEM) && !system; k++) {
            size_t len = strlen(SYSTEM[k]);
            system = strncmp(path, SYSTEM[k], len) == 0 && (path[len] == '\0' || path[len] == '/');
        }
        scan_found_as(look, SCAN_HOST_PATH, system ? AT_SCAN_CRITICAL : AT_SCAN_HIGH,
                      scan_path(look, "%s.volumes[%zu].hostPath.path", base, i), "hostPath %.200s",
                      path);
    }
}

void scan_pod(struct scan_look *look, const json_t *spec, const char *base)
{
    static const char *const HOST[] = {"hostNetwork", "hostPID", "hostIPC"};
    static const char *const LISTS[] = {"containers", "initContainers", "ephemeralContainers"};
    const char *kind = scan_text(look->object, "kind");
    if (!json_is_object(spec)) {
        return;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(HOST); i++) {
        if (is_true(spec, HOST[i])) {
            scan_found(look, SCAN_HOST_NAMESPACES, scan_path(look, "%s.%s", base, HOST[i]),
                       "%s: true", HOST[i]);
        }
    }
    if (!json_is_false(json_object_get(spec, "automountServiceAccountToken"))) {
        scan_found(look, SCAN_AUTOMOUNT, base, "automountServiceAccountToken is not false");
    }
    volumes_check(look, spec, base);
    for (size_t k = 0; k < AT_ARRAY_LEN(LISTS); k++) {
        size_t i;
        json_t *container;
        json_array_foreach(json_object_get(spec, LISTS[k]), i, container)
        {
            bool serves = k == 0 && strstr(kind, "Job") == NULL;
            container_check(look, spec, container, scan_path(look, "%s.%s[%zu]", base, LISTS[k], i),
                            serves);
        }
    }
}
