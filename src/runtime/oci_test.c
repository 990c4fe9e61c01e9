#include "core/mem.h"
#include "core/units.h"
#include "runtime/test_image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define HEX "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void only_layouts_and_registries_are_images(void **state)
{
    (void)state;
    struct at_err err;
    assert_int_equal(at_oci_image_check("oci:/a/b:tag", &err), AT_OK);
    assert_int_equal(at_oci_image_check("docker://host/name@sha256:" HEX, &err), AT_OK);
    assert_int_equal(at_oci_image_check("busybox", &err), AT_INVALID);
    assert_non_null(strstr(err.msg, "busybox"));
    assert_int_equal(at_oci_image_check("oci:relative:tag", &err), AT_INVALID);
    assert_int_equal(at_oci_image_check("docker://", &err), AT_INVALID);
    assert_int_equal(at_oci_image_check(NULL, &err), AT_INVALID);
}

static enum at_rc find_in(const char *text, const char *tag, char digest[80], bool *nested)
{
    json_t *index = NULL;
    struct at_err err = {0};
    assert_int_equal(at_json_parse(text, strlen(text), &index, &err), AT_OK);
    enum at_rc rc = at_oci_index_find(index, tag, digest, nested, &err);
    json_decref(index);
    return rc;
}

#define ENTRY(digest, tag, type)                                                                   \
    "{\"digest\":\"" digest "\",\"mediaType\":\"" type                                             \
    "\",\"annotations\":{\"org.opencontainers.image.ref.name\":\"" tag "\"}}"
#define MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define INDEX "application/vnd.oci.image.index.v1+json"

static void a_tag_is_found_in_a_layouts_index(void **state)
{
    (void)state;
    char digest[80];
    bool nested = true;
    const char *two =
        "{\"manifests\":[{\"digest\":\"x\"}," ENTRY("sha256:" HEX, "a", MANIFEST) "]}";
    assert_int_equal(find_in(two, "a", digest, &nested), AT_OK);
    assert_string_equal(digest, "sha256:" HEX);
    assert_false(nested);
    assert_int_equal(find_in(two, "b", digest, &nested), AT_NOT_FOUND);
    assert_int_equal(find_in("{}", "a", digest, &nested), AT_NOT_FOUND);
    assert_int_equal(
        find_in("{\"manifests\":[" ENTRY("sha256:" HEX, "a", INDEX) "]}", "a", digest, &nested),
        AT_OK);
    assert_true(nested);
    /* A digest becomes part of a path: nothing but hex may pass. */
    const char *bad[] = {"{\"manifests\":[" ENTRY("sha256:../../etc", "a", MANIFEST) "]}",
                         "{\"manifests\":[" ENTRY("sha512:" HEX, "a", MANIFEST) "]}",
                         "{\"manifests\":[" ENTRY("sha256:" HEX "0", "a", MANIFEST) "]}",
                         "{\"manifests\":[" ENTRY("", "a", MANIFEST) "]}"};
    for (size_t i = 0; i < AT_ARRAY_LEN(bad); i++) {
        assert_int_equal(find_in(bad[i], "a", digest, &nested), AT_INVALID);
    }
}

static struct at_oci_image example_image(void)
{
    return (struct at_oci_image){
        .process =
            json_pack("{s:[s,s], s:[s,s], s:s, s:{s:i,s:i}}", "args", "/bin/sh", "own", "env",
                      "PATH=/image/bin", "KEEP=1", "cwd", "/srv", "user", "uid", 5, "gid", 6),
        .entrypoint = json_pack("[s]", "/bin/entry"),
    };
}

static json_t *config_of(const char *const *argv, int64_t uid)
{
    struct at_oci_image image = example_image();
    const char *const env[] = {"PATH=/usr/bin", "KEEP=2", "NEW=3", "HOME=/state/i1", NULL};
    const char *const models[] = {"/models/m.onnx", NULL};
    struct at_runtime_spec spec = {.id = "i1",
                                   .node = "n1",
                                   .dir = "/state/i1",
                                   .argv = argv,
                                   .envp = env,
                                   .uid = uid,
                                   .readable_paths = models};
    struct at_cgroup_limits limits = {.cpu_milli = 250, .memory_bytes = 1000, .pids = 7};
    json_t *config = NULL;
    struct at_err err = {0};
    assert_int_equal(at_oci_config(&spec, &image, &limits, "/rootfs", &config, &err), AT_OK);
    at_oci_image_done(&image);
    return config;
}

static void assert_json(const json_t *value, const char *text)
{
    struct at_buf buf = {0};
    assert_non_null(value);
    assert_int_equal(at_json_dump(value, &buf), AT_OK);
    assert_string_equal(buf.data, text);
    at_buf_done(&buf);
}

static void the_configuration_limits_and_isolates(void **state)
{
    (void)state;
    const char *const argv[] = {"/bin/x", "y", NULL};
    json_t *config = config_of(argv, 77);
    assert_json(at_json_at(config, "process.args"), "[\"/bin/x\",\"y\"]");
    assert_json(at_json_at(config, "process.env"), "[\"PATH=/image/bin\",\"KEEP=2\",\"NEW=3\"]");
    assert_string_equal(at_json_str_at(config, "process.cwd", ""), "/srv");
    assert_int_equal(at_json_int_at(config, "process.user.uid", -1), 77);
    assert_true(at_json_bool_at(config, "process.noNewPrivileges", false));
    assert_json(at_json_at(config, "process.capabilities.bounding"), "[]");
    assert_json(at_json_at(config, "process.capabilities.effective"), "[]");
    assert_string_equal(at_json_str_at(config, "linux.cgroupsPath", ""), "/atoll/n1/i1");
    assert_int_equal(at_json_int_at(config, "linux.resources.cpu.quota", 0), 25000);
    assert_int_equal(at_json_int_at(config, "linux.resources.memory.limit", 0), 1000);
    assert_int_equal(at_json_int_at(config, "linux.resources.pids.limit", 0), 7);
    bool found = false;
    size_t i;
    json_t *mount;
    json_array_foreach(at_json_at(config, "mounts"), i, mount)
    {
        if (strcmp(at_json_str_at(mount, "destination", ""), "/models/m.onnx") == 0) {
            found = true;
            assert_json(json_object_get(mount, "options"),
                        "[\"rbind\",\"ro\",\"nosuid\",\"nodev\"]");
        }
    }
    assert_true(found);
    json_decref(config);
}

static void arguments_come_from_the_image_when_none_are_given(void **state)
{
    (void)state;
    json_t *config = config_of(NULL, -1);
    assert_json(at_json_at(config, "process.args"), "[\"/bin/sh\",\"own\"]");
    assert_int_equal(at_json_int_at(config, "process.user.uid", -1), 5);
    json_decref(config);
    const char *const after_entrypoint[] = {"", "more", NULL};
    config = config_of(after_entrypoint, -1);
    assert_json(at_json_at(config, "process.args"), "[\"/bin/entry\",\"more\"]");
    json_decref(config);
}

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    dir = at_asprintf("%s/atoll-oci-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    enum at_rc rc = at_tree_remove(dir, NULL);
    at_free(dir);
    return rc == AT_OK ? 0 : -1;
}

static void an_image_is_unpacked_once_and_bad_ones_are_named(void **state)
{
    (void)state;
    struct at_err err = {0};
    struct at_oci_image image = {0};
    AT_CLEANUP(at_cleanup_free) char *name = at_asprintf("oci:%s/layout:latest", dir);
    AT_CLEANUP(at_cleanup_free) char *other = at_asprintf("oci:%s/layout:other", dir);
    AT_CLEANUP(at_cleanup_free) char *state_dir = at_asprintf("%s/state", dir);
    assert_int_equal(at_oci_image_get(state_dir, name, NULL, &image, &err), AT_NOT_FOUND);
    if (geteuid() != 0 || !at_file_executable(AT_TEST_BUSYBOX) || !at_test_image(dir)) {
        print_message("skipped: needs root, umoci and busybox-static\n");
        skip();
    }
    assert_int_equal(at_oci_image_get(state_dir, other, NULL, &image, &err), AT_NOT_FOUND);
    assert_non_null(strstr(err.msg, "other"));
    assert_int_equal(at_oci_image_get(state_dir, name, NULL, &image, &err), AT_OK);
    assert_json(json_object_get(image.process, "args"), "[\"/bin/sh\",\"-c\",\"exit 42\"]");
    assert_json(image.entrypoint, "[\"/bin/sh\",\"-c\"]");
    /* A second time finds what the first left: our mark in it survives. */
    AT_CLEANUP(at_cleanup_free) char *mark = at_asprintf("%s/mark", image.rootfs);
    assert_int_equal(at_file_append(mark, "x", 1, 0600, &err), AT_OK);
    at_oci_image_done(&image);
    assert_int_equal(at_oci_image_get(state_dir, name, NULL, &image, &err), AT_OK);
    assert_true(at_file_exists(mark));
    at_oci_image_done(&image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_layouts_and_registries_are_images),
        cmocka_unit_test(a_tag_is_found_in_a_layouts_index),
        cmocka_unit_test(the_configuration_limits_and_isolates),
        cmocka_unit_test(arguments_come_from_the_image_when_none_are_given),
        cmocka_unit_test(an_image_is_unpacked_once_and_bad_ones_are_named),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
