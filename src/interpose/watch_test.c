/* What the driver says of devices and of what runs on them, asked from the stand-in for NVML. */
#include "core/mem.h"
#include "devices/share.h"
#include "interpose/standin/state.h"
#include "sys/file.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define GIB (INT64_C(1) << 30)

static char *dir, *library;

static int set_up(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    dir = at_asprintf("%s/atoll-watch-XXXXXX", base != NULL ? base : "/tmp");
    char own[4096];
    ssize_t len = readlink("/proc/self/exe", own, sizeof own - 1);
    own[len > 0 ? len : 0] = '\0';
    *strrchr(own, '/') = '\0';
    library = at_asprintf("%s/src/interpose/libnvidia-ml.so", own);
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    enum at_rc rc = at_tree_remove(dir, NULL);
    at_free(library);
    at_free(dir);
    return rc == AT_OK ? 0 : -1;
}

static bool has_fault(const struct at_gpu_watch *watch, const char *id, const char *why)
{
    struct at_gpu_fault faults[AT_GPU_FAULTS_MAX];
    size_t n = at_gpu_watch_faults(watch, faults);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(faults[i].id, id) == 0) {
            assert_non_null(strstr(faults[i].why, why));
            return true;
        }
    }
    return false;
}

static struct standin_state *pretend_gpus(void)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/gpus", dir);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0 && ftruncate(fd, sizeof(struct standin_state)) == 0);
    struct standin_state *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    assert_ptr_not_equal(s, MAP_FAILED);
    s->n_devices = 4;
    for (int i = 0; i < 4; i++) {
        struct standin_device *d = &s->devices[i];
        snprintf(d->uuid, sizeof d->uuid, "%s-00000000-0000-0000-0000-00000000000%d",
                 i < 2 ? "GPU" : "MIG", i);
        snprintf(d->name, sizeof d->name, i < 2 ? "Toy" : "Toy MIG 1g.10gb");
        d->total_bytes = i < 2 ? 80 * GIB : 10 * GIB;
    }
    s->devices[1].mig = 1;
    s->devices[2].parent = s->devices[3].parent = 2;
    setenv("STANDIN_GPU_STATE", path, 1);
    return s;
}

static void parts_that_mig_makes_are_looked_at_and_faults_are_told(void **state)
{
    (void)state;
    struct standin_state *gpus = pretend_gpus();
    struct at_gpu_use uses[4];
    size_t n = 99;
    struct at_gpu_watch *watch = at_gpu_watch_new(library);
    gpus->devices[3].processes[0] =
        (struct standin_process){.pid = getpid(), .used_bytes = 3 * GIB};
    assert_int_equal(at_gpu_watch_look(watch, uses, 4, &n), AT_OK);
    assert_int_equal(n, 1);
    assert_string_equal(uses[0].id, gpus->devices[3].uuid);
    assert_int_equal(uses[0].memory_bytes, 3 * GIB);
    /* What a program caused is no fault; what the device told is one of all its parts. */
    gpus->devices[1].xid = 31;
    gpus->devices[0].lost = 1;
    assert_int_equal(at_gpu_watch_look(watch, uses, 4, &n), AT_OK);
    assert_true(has_fault(watch, gpus->devices[0].uuid, "does not find it"));
    assert_false(has_fault(watch, gpus->devices[2].uuid, ""));
    gpus->devices[1].xid = 79;
    gpus->devices[0].lost = 0;
    assert_int_equal(at_gpu_watch_look(watch, uses, 4, &n), AT_OK);
    assert_false(has_fault(watch, gpus->devices[0].uuid, ""));
    assert_true(has_fault(watch, gpus->devices[2].uuid, "XID 79"));
    assert_true(has_fault(watch, gpus->devices[3].uuid, "XID 79"));
    assert_int_equal(at_gpu_watch_look(watch, uses, 4, &n), AT_OK);
    assert_true(has_fault(watch, gpus->devices[2].uuid, "XID 79"));
    at_gpu_watch_free(watch);
    munmap(gpus, sizeof *gpus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_that_mig_makes_are_looked_at_and_faults_are_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
