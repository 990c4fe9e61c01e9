/* For tests: an OCI layout with busybox in it, made by umoci. */
#ifndef AT_RUNTIME_TEST_IMAGE_H
#define AT_RUNTIME_TEST_IMAGE_H

#include "core/mem.h"
#include "core/units.h"
#include "runtime/oci_priv.h"
#include "sys/file.h"

#include <stdio.h>

#define AT_TEST_BUSYBOX "/bin/busybox"

static inline bool at_test_command(const char *const *argv)
{
    struct at_err err = {0};
    if (at_oci_command(argv, 60 * AT_NS_PER_S, NULL, &err) != AT_OK) {
        fprintf(stderr, "%s\n", err.msg);
        return false;
    }
    return true;
}

static inline bool at_test_fill(const char *bundle)
{
    static const char *const APPLETS[] = {"sh", "sleep", "cat",  "echo",   "pwd",  "id",
                                          "ps", "grep",  "head", "setsid", "true", "hostname"};
    AT_CLEANUP(at_cleanup_free) char *bin = at_asprintf("%s/rootfs/bin", bundle);
    AT_CLEANUP(at_cleanup_free) char *busybox = at_asprintf("%s/busybox", bin);
    if (at_dir_make(bin, 0755, NULL) != AT_OK ||
        at_file_copy(AT_TEST_BUSYBOX, busybox, 0755, NULL) != AT_OK) {
        return false;
    }
    for (size_t i = 0; i < AT_ARRAY_LEN(APPLETS); i++) {
        AT_CLEANUP(at_cleanup_free) char *link_path = at_asprintf("%s/%s", bin, APPLETS[i]);
        const char *const argv[] = {"ln", "-s", "busybox", link_path, NULL};
        if (!at_test_command(argv)) {
            return false;
        }
    }
    return true;
}

/* Layout at dir/layout, tag "latest": entrypoint /bin/sh -c, command "exit 42". */
static inline bool at_test_image(const char *dir)
{
    AT_CLEANUP(at_cleanup_free) char *layout = at_asprintf("%s/layout", dir);
    AT_CLEANUP(at_cleanup_free) char *image = at_asprintf("%s:latest", layout);
    AT_CLEANUP(at_cleanup_free) char *bundle = at_asprintf("%s/bundle", dir);
    const char *const commands[][12] = {
        {"umoci", "init", "--layout", layout},
        {"umoci", "new", "--image", image},
        {"umoci", "unpack", "--image", image, bundle},
        {"umoci", "repack", "--image", image, bundle},
        {"umoci", "config", "--image", image, "--config.entrypoint", "/bin/sh",
         "--config.entrypoint", "-c", "--config.cmd", "exit 42"},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(commands); i++) {
        if (i == 3 && !at_test_fill(bundle)) {
            return false;
        }
        if (!at_test_command(commands[i])) {
            return false;
        }
    }
    return at_tree_remove(bundle, NULL) == AT_OK;
}

#endif
