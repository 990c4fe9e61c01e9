/* The runtime specification of a container (OCI runtime-spec 1.0.2): own pid, mount, ipc and uts
 * namespaces, the host's network, no capabilities. */
#include "core/mem.h"
#include "core/str.h"
#include "runtime/oci_priv.h"
#include "sys/file.h"

#include <assert.h>
#include <string.h>

#define CPU_PERIOD_US 100000

static const char *const MASKED[] = {"/proc/acpi",        "/proc/asound",        "/proc/kcore",
                                     "/proc/keys",        "/proc/latency_stats", "/proc/timer_list",
                                     "/proc/timer_stats", "/proc/sched_debug",   "/proc/scsi",
                                     "/sys/firmware",     "/sys/fs/selinux",     NULL};
static const char *const READONLY[] = {"/proc/bus",           "/proc/fs", "/proc/irq", "/proc/sys",
                                       "/proc/sysrq-trigger", NULL};

static json_t *strings(const char *const *items)
{
    json_t *array = json_array();
    for (; items != NULL && *items != NULL; items++) {
        json_array_append_new(array, json_string(*items));
    }
    return array;
}

static void add_mount(json_t *mounts, const char *to, const char *type, const char *from,
                      const char *const *options)
{
    json_array_append_new(mounts, json_pack("{s:s, s:s, s:s, s:o}", "destination", to, "type", type,
                                            "source", from, "options", strings(options)));
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

static json_t *make_mounts(const struct at_runtime_spec *spec)
{
    json_t *m = json_array();
    add_mount(m, "/proc", "proc", "proc", OPTIONS("nosuid", "noexec", "nodev"));
    add_mount(m, "/dev", "tmpfs", "tmpfs",
              OPTIONS("nosuid", "strictatime", "mode=755", "size=65536k"));
    add_mount(m, "/dev/pts", "devpts", "devpts",
              OPTIONS("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"));
    add_mount(m, "/dev/shm", "tmpfs", "shm",
              OPTIONS("nosuid", "noexec", "nodev", "mode=1777", "size=1g"));
    add_mount(m, "/dev/mqueue", "mqueue", "mqueue", OPTIONS("nosuid", "noexec", "nodev"));
    add_mount(m, "/sys", "sysfs", "sysfs", OPTIONS("nosuid", "noexec", "nodev", "ro"));
    const char *const shared[] = {"/etc/resolv.conf", "/etc/hosts"};
    for (size_t i = 0; i < AT_ARRAY_LEN(shared); i++) {
        if (at_file_exists(shared[i])) {
            add_mount(m, shared[i], "bind", shared[i], OPTIONS("bind", "ro", "nosuid", "nodev"));
        }
    }
    add_mount(m, spec->dir, "bind", spec->dir, OPTIONS("bind", "rw", "nosuid", "nodev"));
    const struct at_process_bind *b = spec->binds;
    for (; b != NULL && b->source != NULL; b++) {
        if (strncmp(b->target, "/dev/", 5) == 0) {
            continue; /* its /dev has none of the machine's devices anyhow */
        }
        add_mount(m, b->target, "bind", b->source,
                  OPTIONS("bind", b->writable ? "rw" : "ro", "nosuid", "nodev"));
    }
    const char *const *path = spec->readable_paths;
    for (; path != NULL && *path != NULL; path++) {
        add_mount(m, *path, "bind", *path, OPTIONS("rbind", "ro", "nosuid", "nodev"));
    }
    return m;
}

static json_t *make_seccomp(void)
{
    const char *const archs[] = {
#if defined(__x86_64__)
        "SCMP_ARCH_X86_64",
        "SCMP_ARCH_X86",
#elif defined(__aarch64__)
        "SCMP_ARCH_AARCH64",
#endif
        NULL
    };
    if (archs[0] == NULL) {
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[{s:o, s:s}, {s:[s], s:s, s:i}]}", "defaultAction",
                     "SCMP_ACT_ALLOW", "architectures", strings(archs), "syscalls", "names",
                     strings(at_process_seccomp_denied()), "action", "SCMP_ACT_ERRNO", "names",
                     "clone3", "action", "SCMP_ACT_ERRNO", "errnoRet", 38);
}

static json_t *make_resources(const struct at_cgroup_limits *limits)
{
    static const struct {
        int major, minor;
    } devices[] = {{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 2}};
    json_t *list = json_pack("[{s:b, s:s}]", "allow", 0, "access", "rwm");
    for (size_t i = 0; i < AT_ARRAY_LEN(devices); i++) {
        json_array_append_new(list, json_pack("{s:b, s:s, s:i, s:i, s:s}", "allow", 1, "type", "c",
                                              "major", devices[i].major, "minor", devices[i].minor,
                                              "access", "rwm"));
    }
    json_array_append_new(list, json_pack("{s:b, s:s, s:i, s:s}", "allow", 1, "type", "c", "major",
                                          136, "access", "rwm"));
    json_t *resources = json_pack("{s:o}", "devices", list);
    if (limits->pids > 0) {
        json_object_set_new(resources, "pids",
                            json_pack("{s:I}", "limit", (json_int_t)limits->pids));
    }
    if (limits->cpu_milli > 0) {
        int64_t quota = limits->cpu_milli * CPU_PERIOD_US / 1000;
        json_object_set_new(resources, "cpu",
                            json_pack("{s:I, s:i}", "quota",
                                      (json_int_t)(quota < 1000 ? 1000 : quota), "period",
                                      CPU_PERIOD_US));
    }
    if (limits->memory_bytes > 0) {
        json_object_set_new(resources, "memory",
                            json_pack("{s:I}", "limit", (json_int_t)limits->memory_bytes));
    }
    return resources;
}

static json_t *make_linux(const struct at_runtime_spec *spec, const struct at_cgroup_limits *limits)
{
    AT_CLEANUP(at_cleanup_free)
    char *group = at_asprintf("/atoll/%s/%s", spec->node, spec->id);
    json_t *l = json_pack("{s:[{s:s},{s:s},{s:s},{s:s}], s:s, s:o, s:o, s:o}", "namespaces", "type",
                          "pid", "type", "mount", "type", "ipc", "type", "uts", "cgroupsPath",
                          group, "resources", make_resources(limits), "maskedPaths",
                          strings(MASKED), "readonlyPaths", strings(READONLY));
    if (spec->own_network) {
        json_array_append_new(json_object_get(l, "namespaces"),
                              json_pack("{s:s}", "type", "network"));
    }
    json_t *seccomp = make_seccomp();
    if (seccomp != NULL) {
        json_object_set_new(l, "seccomp", seccomp);
    }
    return l;
}

/* Arguments: the image's own, its entrypoint and more, or the given ones alone. */
static json_t *make_args(const struct at_runtime_spec *spec, const struct at_oci_image *image)
{
    if (spec->argv == NULL || spec->argv[0] == NULL) {
        return json_deep_copy(json_object_get(image->process, "args"));
    }
    if (spec->argv[0][0] != '\0') {
        return strings(spec->argv);
    }
    json_t *args = json_deep_copy(image->entrypoint);
    json_t *more = strings(spec->argv + 1);
    json_array_extend(args, more);
    json_decref(more);
    return args;
}

static bool names_same_variable(const char *a, const char *b)
{
    size_t len = strcspn(a, "=");
    return len == strcspn(b, "=") && strncmp(a, b, len) == 0;
}

/* HOME of an instance is its folder on the machine, which is not in the container. */
static bool only_outside(const struct at_runtime_spec *spec, const char *variable)
{
    return strncmp(variable, "HOME=", 5) == 0 && spec->dir != NULL &&
           strcmp(variable + 5, spec->dir) == 0;
}

/* The image's variables, those of the instance over them; PATH stays the image's. */
static json_t *make_env(const struct at_runtime_spec *spec, const struct at_oci_image *image)
{
    json_t *env = json_array();
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(image->process, "env"), i, item)
    {
        const char *text = json_string_value(item);
        bool replaced = false;
        const char *const *own = spec->envp;
        for (; text != NULL && own != NULL && *own != NULL; own++) {
            replaced = replaced || (names_same_variable(text, *own) &&
                                    strncmp(*own, "PATH=", 5) != 0 && !only_outside(spec, *own));
        }
        if (text != NULL && !replaced) {
            json_array_append(env, item);
        }
    }
    bool has_path = false;
    json_array_foreach(env, i, item)
    {
        has_path = has_path || strncmp(json_string_value(item), "PATH=", 5) == 0;
    }
    const char *const *own = spec->envp;
    for (; own != NULL && *own != NULL; own++) {
        if ((!has_path || strncmp(*own, "PATH=", 5) != 0) && !only_outside(spec, *own)) {
            json_array_append_new(env, json_string(*own));
        }
    }
    return env;
}

static json_t *make_process(const struct at_runtime_spec *spec, const struct at_oci_image *image,
                            json_t *args_take)
{
    const char *cwd = spec->working_dir;
    if (cwd == NULL || *cwd == '\0') {
        cwd = at_json_str_at(image->process, "cwd", "/");
    }
    json_t *user = spec->uid >= 0 ? json_pack("{s:I, s:I}", "uid", (json_int_t)spec->uid, "gid",
                                              (json_int_t)spec->uid)
                                  : json_deep_copy(json_object_get(image->process, "user"));
    if (user == NULL) {
        user = json_pack("{s:i, s:i}", "uid", 0, "gid", 0);
    }
    return json_pack("{s:b, s:o, s:o, s:o, s:s, s:b, s:{s:[], s:[], s:[], s:[]}}", "terminal", 0,
                     "user", user, "args", args_take, "env", make_env(spec, image), "cwd", cwd,
                     "noNewPrivileges", 1, "capabilities", "bounding", "effective", "permitted",
                     "inheritable");
}

enum at_rc at_oci_config(const struct at_runtime_spec *spec, const struct at_oci_image *image,
                         const struct at_cgroup_limits *limits, const char *rootfs, json_t **ret,
                         struct at_err *err)
{
    json_t *args = make_args(spec, image);
    if (json_array_size(args) == 0) {
        json_decref(args);
        return at_err_set(err, AT_INVALID, "the image has no command, and none is given");
    }
    json_t *config = json_pack("{s:s, s:o, s:{s:s, s:b}, s:s, s:o, s:o}", "ociVersion", "1.0.2",
                               "process", make_process(spec, image, args), "root", "path", rootfs,
                               "readonly", 0, "hostname", spec->node, "mounts", make_mounts(spec),
                               "linux", make_linux(spec, limits));
    if (config == NULL) {
        return at_err_set(err, AT_INVALID, "the container's arguments are not UTF-8 text");
    }
    *ret = config;
    return AT_OK;
}
