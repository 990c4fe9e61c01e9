/* Programs that know nothing of libatoll-gpu.so, run under it against the stand-in for the driver.
 */
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "devices/share_page.h"
#include "interpose/standin/state.h"
#include "sys/dir.h"
#include "sys/file.h"
#include "sys/process.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (INT64_C(1) << 20)
#define SHARE (100 * MIB)
#define RUN_NS (30 * AT_NS_PER_S)

static char *dir, *libraries;
static struct standin_state *gpus;
static struct at_share_limits *limits;
static struct at_share_usage *usage;
static struct at_buf said;

static void *map_new(const char *name, size_t bytes)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, name);
    AT_CLEANUP(at_cleanup_free) char *zeros = at_alloc(bytes);
    assert_int_equal(at_file_write_atomic(path, zeros, bytes, 0600, NULL), AT_OK);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(at != MAP_FAILED);
    close(fd);
    return at;
}

static void name_device(unsigned i)
{
    struct standin_device *d = &gpus->devices[i];
    snprintf(d->uuid, sizeof d->uuid, "GPU-00000000-0000-0000-0000-%012u", i + 1);
    snprintf(d->name, sizeof d->name, "Stand-in");
    d->total_bytes = 1024 * MIB;
}

static int set_up(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    dir = at_asprintf("%s/atoll-interpose-XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(dir) == NULL) {
        return -1;
    }
    char own[4096];
    ssize_t len = readlink("/proc/self/exe", own, sizeof own - 1);
    own[len > 0 ? len : 0] = '\0';
    *strrchr(own, '/') = '\0';
    libraries = at_asprintf("%s/src/interpose", own);
    AT_CLEANUP(at_cleanup_free)
    char *library = at_asprintf("%s/%s", libraries, AT_SHARE_LIBRARY_NAME);
    AT_CLEANUP(at_cleanup_free) char *here = at_asprintf("%s/%s", dir, AT_SHARE_LIBRARY_NAME);
    if (symlink(library, here) != 0) {
        return -1;
    }
    gpus = map_new("gpus", sizeof *gpus);
    gpus->n_devices = 2;
    name_device(0);
    name_device(1);
    limits = map_new(AT_SHARE_LIMITS_NAME, sizeof *limits);
    usage = map_new(AT_SHARE_USAGE_NAME, sizeof *usage);
    limits->magic = usage->magic = AT_SHARE_MAGIC;
    limits->n_devices = 1;
    limits->period_us = 100000;
    limits->devices[0].uuid[15] = 1;
    limits->devices[0].memory_bytes = SHARE;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    at_buf_done(&said);
    munmap(gpus, sizeof *gpus);
    munmap(limits, sizeof *limits);
    munmap(usage, sizeof *usage);
    enum at_rc rc = at_tree_remove(dir, NULL);
    at_free(libraries);
    at_free(dir);
    return rc == AT_OK ? 0 : -1;
}

/* How a program comes by the driver: linked with it, by dlsym, by cuGetProcAddress. */
static const char *const WAYS[] = {"linked", "dlsym", "procaddress"};
#define N_WAYS 3

struct started {
    struct at_process process;
    int out;
};

#define WORDS_MAX 24

static void options_for(const char *way, char *words, bool preload, const char *argv[WORDS_MAX],
                        char *text[4], struct at_process_options *ret)
{
    text[0] = at_asprintf("%s/%s", libraries,
                          strcmp(way, "linked") == 0 ? "gpu-probe-linked" : "gpu-probe");
    text[1] = at_asprintf("LD_LIBRARY_PATH=%s", libraries);
    text[2] = at_asprintf("STANDIN_GPU_STATE=%s/gpus", dir);
    text[3] = at_asprintf("LD_PRELOAD=%s/%s", dir, AT_SHARE_LIBRARY_NAME);
    size_t n = 0;
    argv[n++] = text[0];
    argv[n++] = way;
    char *word;
    while ((word = strsep(&words, " ")) != NULL) {
        assert_true(n + 1 < WORDS_MAX);
        argv[n++] = word;
    }
    argv[n] = NULL;
    static const char *envp[4];
    envp[0] = text[1];
    envp[1] = text[2];
    envp[2] = preload ? text[3] : NULL;
    *ret = (struct at_process_options){
        .argv = argv, .envp = envp, .stdin_fd = -1, .stdout_fd = -1, .uid = -1, .gid = -1};
}

/* What the probe prints, in one line. */
static const char *probe(const char *way, const char *words)
{
    const char *argv[WORDS_MAX];
    char *text[4];
    AT_CLEANUP(at_cleanup_free) char *copy = at_strdup(words);
    struct at_process_options options;
    options_for(way, copy, true, argv, text, &options);
    int code = -1;
    said.len = 0;
    assert_int_equal(at_process_run(&options, RUN_NS, &said, &code, NULL), AT_OK);
    for (int i = 0; i < 4; i++) {
        at_free(text[i]);
    }
    for (size_t i = 0; i < said.len; i++) {
        said.data[i] = said.data[i] == '\n' ? ' ' : said.data[i];
    }
    assert_int_equal(code, 0);
    return said.data != NULL ? said.data : "";
}

static int64_t used_by_all(void)
{
    int64_t sum = 0;
    for (unsigned i = 0; i < AT_SHARE_PROCESSES_MAX; i++) {
        sum += usage->processes[i].devices[0].memory_bytes;
    }
    return sum;
}

static void memory_beyond_the_share_is_refused_to_the_byte(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WAYS; w++) {
        assert_string_equal(probe(WAYS[w], "alloc:104857601 alloc:104857600 alloc:1 drop alloc:1"),
                            "alloc=2 alloc=0 alloc=2 drop=0 alloc=0 ");
        assert_string_equal(probe(WAYS[w], "alloc:52428800 async:52428800 pool:1 managed:1"),
                            "alloc=0 async=0 pool=2 managed=2 ");
        assert_string_equal(
            probe(WAYS[w], "managed:104857600 pitch:1:1 array:1:1 node:1 vmm:2097152"),
            "managed=0 pitch=2 array=2 node=2 vmm=2 ");
        assert_string_equal(probe(WAYS[w], "vmm:104857600 alloc:1 drop array:5120:5120 alloc:1"),
                            "vmm=0 alloc=2 drop=0 array=0 alloc=2 ");
        assert_string_equal(probe(WAYS[w], "pitch:1:204800 alloc:1 drop node:104857600 alloc:1"),
                            "pitch=0 alloc=2 drop=0 node=0 alloc=2 ");
    }
}

static void programs_see_their_share_as_the_device(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WAYS; w++) {
        assert_string_equal(probe(WAYS[w], "alloc:4857600 info total nvml"),
                            "alloc=0 info=0 100000000/104857600 total=104857600 "
                            "nvml=104857600/100000000/4857600 ");
    }
}

static void what_is_freed_twice_is_given_back_once(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WAYS; w++) {
        assert_string_equal(probe(WAYS[w], "alloc:60000000 alloc:40000000 free-twice info"),
                            "alloc=0 alloc=0 free-twice=0,1 info=0 44857600/104857600 ");
    }
}

static void children_and_siblings_share_one_limit(void **state)
{
    (void)state;
    for (size_t w = 0; w < N_WAYS; w++) {
        assert_string_equal(probe(WAYS[w], "fork:alloc:104857600 fork:alloc:104857601"),
                            "alloc=0 alloc=2 ");
        /* The parent's memory stands while the child asks: the program starts itself anew. */
        assert_string_equal(probe(WAYS[w], "alloc:100000000 exec:alloc:104857600"),
                            "alloc=0 alloc=0 ");
    }
}

static void what_a_killed_process_held_is_free_again(void **state)
{
    (void)state;
    assert_string_equal(probe("dlsym", "abandon:104857600 alloc:104857600"), "alloc=0 alloc=0 ");
    assert_string_equal(probe("dlsym", "abandon:70000000 abandon:70000000 alloc:104857600"),
                        "alloc=0 alloc=0 alloc=0 ");
}

static void a_context_takes_what_it_holds_with_it(void **state)
{
    (void)state;
    assert_string_equal(
        probe("dlsym", "alloc:60000000 alloc:40000000 destroy context alloc:104857600"),
        "alloc=0 alloc=0 destroy=0 context=0 alloc=0 ");
    assert_string_equal(probe("linked", "primary alloc:104857600 reset context alloc:104857600"),
                        "primary=0 alloc=0 reset=0 context=0 alloc=0 ");
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    assert_string_equal(probe("dlsym", "threads:16 info alloc:104857600"),
                        "threads=whole info=0 104857600/104857600 alloc=0 ");
    assert_int_equal(usage->processes[0].devices[0].memory_bytes, 104857600); /* it ended so */
    (void)probe("dlsym", "info");
    assert_int_equal(used_by_all(), 0);
}

static void a_device_that_was_not_given_is_no_device(void **state)
{
    (void)state;
    /* The second GPU: the program may name it in its environment, or ask for it. */
    assert_string_equal(probe("dlsym", "context:1 alloc:1 info launch:1:1"),
                        "context=0 alloc=2 info=0 0/0 launch=800 ");
}

static void memory_beside_allocations_counts(void **state)
{
    (void)state;
    limits->devices[0].beside_bytes = 8 * MIB;
    assert_string_equal(probe("dlsym", "alloc:96468993 alloc:96468992 info"),
                        "alloc=2 alloc=0 info=0 0/104857600 ");
    limits->devices[0].beside_bytes = 0;
}

static void a_share_changes_while_it_is_in_use(void **state)
{
    (void)state;
    const char *argv[WORDS_MAX];
    char *text[4];
    AT_CLEANUP(at_cleanup_free)
    char *words = at_strdup("alloc:100000000 wait alloc:100000000 info");
    struct at_process_options options;
    options_for("dlsym", words, true, argv, text, &options);
    int in[2], out[2];
    assert_int_equal(pipe2(in, O_CLOEXEC), 0);
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    options.stdin_fd = in[0];
    options.stdout_fd = out[1];
    struct at_process p;
    assert_int_equal(at_process_start(&options, false, &p, NULL, NULL), AT_OK);
    close(in[0]);
    close(out[1]);
    char got[256] = "";
    size_t len = 0;
    while (strchr(got, '\n') == NULL) {
        ssize_t n = read(out[0], got + len, sizeof got - 1 - len);
        assert_true(n > 0);
        len += (size_t)n;
    }
    limits->devices[0].memory_bytes = 2 * SHARE;
    close(in[1]);
    for (ssize_t n; (n = read(out[0], got + len, sizeof got - 1 - len)) > 0;) {
        len += (size_t)n;
    }
    assert_string_equal(got, "alloc=0\nalloc=0\ninfo=0 9715200/209715200\n");
    close(out[0]);
    int code, sig;
    struct pollfd ended = {.fd = p.pidfd, .events = POLLIN};
    assert_int_equal(poll(&ended, 1, 30000), 1);
    assert_int_equal(at_process_reap(&p, &code, &sig), AT_OK);
    at_process_close(&p);
    for (int i = 0; i < 4; i++) {
        at_free(text[i]);
    }
    limits->devices[0].memory_bytes = SHARE;
}

static void spilling_is_opt_in_and_bounded(void **state)
{
    (void)state;
    limits->devices[0].spill_bytes = 50 * MIB;
    assert_string_equal(probe("dlsym", "alloc:104857600 alloc:52428800 alloc:1 info drop alloc:1"),
                        "alloc=0 alloc=0 alloc=2 info=0 0/104857600 drop=0 alloc=0 ");
    limits->devices[0].spill_bytes = 0;
    assert_string_equal(probe("dlsym", "alloc:104857600 alloc:52428800"), "alloc=0 alloc=2 ");
}

static void a_lost_device_is_told_as_lost(void **state)
{
    (void)state;
    gpus->devices[0].lost = 1;
    assert_string_equal(probe("dlsym", "alloc:1 launch:1000:1 sync"),
                        "alloc=46 launch=46 sync=46 ");
    gpus->devices[0].lost = 0;
    assert_string_equal(probe("dlsym", "alloc:104857600"), "alloc=0 "); /* nothing stayed charged */
}

static void without_a_share_the_driver_does_not_start(void **state)
{
    (void)state;
    usage->magic = 0;
    const char *answer = probe("dlsym", "alloc:1");
    usage->magic = AT_SHARE_MAGIC;
    assert_string_equal(answer, "start=800 ");
}

static void turns_are_kept_and_counted(void **state)
{
    (void)state;
    (void)probe("dlsym", "launch:1000:7 graph:1000:2");
    assert_true(usage->counts[0].launches >= 9);
    limits->devices[0].slot = AT_SHARE_SLOT(0, 25000);
    uint64_t waited = usage->counts[0].waited_ns;
    int64_t before = gpus->devices[0].busy_ns;
    (void)probe("procaddress", "spin:1000000:1000");
    int64_t busy = gpus->devices[0].busy_ns - before;
    /* A quarter of a second; wide, for a machine that is busy with other things. */
    assert_in_range(busy, 100 * AT_NS_PER_MS, 320 * AT_NS_PER_MS);
    assert_true(usage->counts[0].waited_ns > waited);
    limits->devices[0].slot = 0;
}

static void absurd_rows_of_others_harm_only_their_own_share(void **state)
{
    (void)state;
    usage->rows = UINT64_MAX;
    usage->processes[200].pid = 1; /* nobody holds its lock */
    usage->processes[200].devices[0].memory_bytes = INT64_MAX;
    usage->processes[201].devices[0].memory_bytes = INT64_MIN;
    assert_string_equal(probe("dlsym", "alloc:104857600 alloc:1"), "alloc=0 alloc=2 ");
    memset(usage->processes, 0, sizeof usage->processes);
    usage->rows = 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_beyond_the_share_is_refused_to_the_byte),
        cmocka_unit_test(programs_see_their_share_as_the_device),
        cmocka_unit_test(what_is_freed_twice_is_given_back_once),
        cmocka_unit_test(children_and_siblings_share_one_limit),
        cmocka_unit_test(what_a_killed_process_held_is_free_again),
        cmocka_unit_test(a_context_takes_what_it_holds_with_it),
        cmocka_unit_test(threads_lose_nothing),
        cmocka_unit_test(a_device_that_was_not_given_is_no_device),
        cmocka_unit_test(memory_beside_allocations_counts),
        cmocka_unit_test(a_share_changes_while_it_is_in_use),
        cmocka_unit_test(spilling_is_opt_in_and_bounded),
        cmocka_unit_test(a_lost_device_is_told_as_lost),
        cmocka_unit_test(without_a_share_the_driver_does_not_start),
        cmocka_unit_test(turns_are_kept_and_counted),
        cmocka_unit_test(absurd_rows_of_others_harm_only_their_own_share),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
