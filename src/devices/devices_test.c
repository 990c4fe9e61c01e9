#include "devices/devices.h"

#include "core/mem.h"
#include "core/units.h"
#include "devices/devices_priv.h"
#include "devices/share.h"
#include "sys/file.h"
#include "sys/machine.h"
#include "sys/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *dir;

static int make_dir(void **state)
{
    (void)state;
    const char *base = getenv("TMPDIR");
    dir = at_asprintf("%s/atoll-devices-XXXXXX", base != NULL ? base : "/tmp");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    enum at_rc rc = at_tree_remove(dir, NULL);
    at_free(dir);
    return rc == AT_OK ? 0 : -1;
}

static int64_t quantity(const json_t *inventory, const char *path)
{
    int64_t value = -1;
    const char *text = at_json_str_at(inventory, path, NULL);
    assert_non_null(text);
    assert_int_equal(at_quantity_units(text, &value, NULL), AT_OK);
    return value;
}

static enum at_rc inventory_with(const char *text, json_t **ret, struct at_err *err)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/devices.json", dir);
    assert_int_equal(at_file_write_atomic(path, text, strlen(text), 0600, NULL), AT_OK);
    return at_devices_inventory(dir, path, ret, err);
}

static void this_machine_is_measured(void **state)
{
    (void)state;
    struct at_machine machine;
    at_machine_read(&machine);
    json_t *found = NULL;
    struct at_err err;
    assert_int_equal(at_devices_inventory(dir, NULL, &found, &err), AT_OK);
    assert_int_equal(quantity(found, "capacity.cpu"), machine.cpus);
    int64_t memory = quantity(found, "capacity.memory");
    assert_true(memory <= machine.memory_bytes && memory > machine.memory_bytes - (2 << 20));
    assert_true(quantity(found, "allocatable.memory") < memory);
    assert_true(quantity(found, "allocatable.memory") >= memory / 2);
    assert_true(quantity(found, "capacity.disk") >= quantity(found, "allocatable.disk"));
    assert_int_equal(quantity(found, "capacity.gpu"),
                     json_array_size(json_object_get(found, "gpus")));
    assert_string_equal(at_json_str_at(found, "arch", ""), machine.arch);
    json_decref(found);
}

/* Three GPUs, the last of which cannot be asked; the others share a link. */
static const char PRETENDED_NVML[] =
    "#include <string.h>\n"
    "struct memory { unsigned long long total, free, used; };\n"
    "int nvmlInit_v2(void) { return 0; }\n"
    "int nvmlShutdown(void) { return 0; }\n"
    "int nvmlDeviceGetCount_v2(unsigned *n) { *n = 3; return 0; }\n"
    "int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d)"
    " { *d = (void *)(unsigned long)(i + 1); return i == 2; }\n"
    "int nvmlDeviceGetP2PStatus(void *a, void *b, int how, int *s)"
    " { *s = how == 2 && a != b ? 0 : 1; return 0; }\n"
    "int nvmlDeviceGetUUID(void *d, char *out, unsigned n) { strncpy(out, \"GPU-1\", n); return 0; "
    "}\n"
    "int nvmlDeviceGetName(void *d, char *out, unsigned n) { strncpy(out, \"Toy\", n); return 0; "
    "}\n"
    "int nvmlDeviceGetMemoryInfo(void *d, struct memory *m)"
    " { m->total = 80ull << 30; return 0; }\n";

static void gpus_are_asked_from_nvidias_library(void **state)
{
    (void)state;
    AT_CLEANUP(at_cleanup_free) char *source = at_asprintf("%s/nvml.c", dir);
    AT_CLEANUP(at_cleanup_free) char *library = at_asprintf("%s/libpretended.so", dir);
    json_t *gpus = json_array();
    at_devices_nvml(library, gpus); /* not there yet: no GPUs, no error */
    assert_int_equal(json_array_size(gpus), 0);
    assert_int_equal(
        at_file_write_atomic(source, PRETENDED_NVML, strlen(PRETENDED_NVML), 0600, NULL), AT_OK);
    struct at_process_options options = {
        .argv = (const char *const[]){"cc", "-shared", "-fPIC", "-o", library, source, NULL},
        .stdin_fd = -1,
        .uid = -1,
        .gid = -1};
    int code = -1;
    if (at_process_run(&options, 60 * AT_NS_PER_S, NULL, &code, NULL) != AT_OK || code != 0) {
        json_decref(gpus);
        print_message("skipped: no C compiler at run time\n");
        skip();
    }
    at_devices_nvml(library, gpus);
    assert_int_equal(json_array_size(gpus), 2);
    assert_string_equal(at_json_str_at(json_array_get(gpus, 0), "linkGroup", ""), "nvlink-0");
    assert_string_equal(at_json_str_at(json_array_get(gpus, 1), "linkGroup", ""), "nvlink-0");
    const json_t *gpu = json_array_get(gpus, 0);
    assert_string_equal(at_json_str_at(gpu, "id", ""), "GPU-1");
    assert_string_equal(at_json_str_at(gpu, "model", ""), "Toy");
    assert_string_equal(at_json_str_at(gpu, "memory", ""), "80Gi");
    json_decref(gpus);
}

static void put_file(const char *folder, const char *name, const char *text)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s/%s", dir, folder, name);
    AT_CLEANUP(at_cleanup_free) char *parent = at_asprintf("%s/%s", dir, folder);
    assert_int_equal(at_dir_make(parent, 0700, NULL), AT_OK);
    assert_int_equal(at_file_write_atomic(path, text, strlen(text), 0600, NULL), AT_OK);
}

static void numa_nodes_are_read_from_the_kernels_files(void **state)
{
    (void)state;
    put_file("numa/node0", "cpulist", "0-7,16-23\n");
    put_file("numa/node0", "meminfo", "Node 0 MemTotal:       1048576 kB\nNode 0 MemFree: 1 kB\n");
    put_file("numa/node1", "cpulist", "\n"); /* memory only */
    put_file("numa/nodes", "cpulist", "0\n");
    AT_CLEANUP(at_cleanup_free) char *numa = at_asprintf("%s/numa", dir);
    json_t *nodes = json_array();
    at_devices_numa("/no/such/folder", nodes);
    assert_int_equal(json_array_size(nodes), 0);
    at_devices_numa(numa, nodes);
    assert_int_equal(json_array_size(nodes), 1);
    const json_t *node = json_array_get(nodes, 0);
    assert_string_equal(at_json_str_at(node, "cpus", ""), "0-7,16-23");
    assert_string_equal(at_json_str_at(node, "cpu", ""), "16");
    assert_string_equal(at_json_str_at(node, "memory", ""), "1Gi");
    json_decref(nodes);
    assert_int_equal(at_devices_cpus_of_list("3"), 1);
    assert_int_equal(at_devices_cpus_of_list("0-"), -1);
    assert_int_equal(at_devices_cpus_of_list("7-3"), -1);
    assert_int_equal(at_devices_cpus_of_list("a"), -1);
    put_file("pci/0000:3b:00.0", "numa_node", "1\n");
    AT_CLEANUP(at_cleanup_free) char *pci = at_asprintf("%s/pci", dir);
    assert_int_equal(at_devices_numa_of_pci(pci, "00000000:3B:00.0"), 1);
    assert_int_equal(at_devices_numa_of_pci(pci, "00000000:5E:00.0"), -1);
}

static void gpus_of_other_makers_are_read_from_the_kernels_files(void **state)
{
    (void)state;
    put_file("drm/card2/device", "vendor", "0x1002\n");
    put_file("drm/card2/device", "unique_id", "9d2d9a3c8a1f0e55\n");
    put_file("drm/card2/device", "product_name", "AMD Instinct MI250X\n");
    put_file("drm/card2/device", "mem_info_vram_total", "68702699520\n");
    put_file("drm/card2/device", "numa_node", "1\n");
    put_file("drm/card10/device", "vendor", "0x8086\n");
    put_file("drm/card10/device", "device", "0x56c0\n");
    put_file("drm/card10/device", "numa_node", "-1\n");
    put_file("drm/card10/device", "uevent", "DRIVER=xe\nPCI_SLOT_NAME=0000:4d:00.0\n");
    put_file("drm/card10/device", "resource",
             "0x00000000f0000000 0x00000000f0ffffff 0x0000000000140204\n"
             "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
             "0x0000003800000000 0x0000003bffffffff 0x000000000014220c\n");
    /* Built in, a connector, NVIDIA's without its driver, and files that say nothing. */
    put_file("drm/card0/device", "vendor", "0x8086\n");
    put_file("drm/card0/device", "uevent", "PCI_SLOT_NAME=0000:00:02.0\n");
    put_file("drm/card0/device", "resource", "0x1 0x2 0x3\n\n0xe0000000 0xefffffff 0x4\n");
    put_file("drm/card2-DP-1/device", "vendor", "0x1002\n");
    put_file("drm/card3/device", "vendor", "0x10de\n");
    put_file("drm/card4/device", "vendor", "0x1002\n");
    put_file("drm/card5/device", "vendor", "\n");
    AT_CLEANUP(at_cleanup_free) char *drm = at_asprintf("%s/drm", dir);
    AT_CLEANUP(at_cleanup_json) json_t *gpus = json_array();
    at_devices_sysfs("/no/such/folder", gpus);
    assert_int_equal(json_array_size(gpus), 0);
    at_devices_sysfs(drm, gpus);
    AT_CLEANUP(at_cleanup_free) char *text = json_dumps(gpus, JSON_SORT_KEYS | JSON_COMPACT);
    assert_string_equal(
        text,
        "[{\"id\":\"GPU-9d2d9a3c8a1f0e55\",\"memory\":\"65520Mi\",\"model\":\"AMD Instinct "
        "MI250X\",\"numaNode\":1,\"vendor\":\"AMD\"},{\"id\":\"INTEL-0000:4d:00.0\",\"memory\":"
        "\"16Gi\",\"model\":\"Intel 0x56c0\",\"vendor\":\"Intel\"}]");
}

static void device_files_of_other_gpus_are_known(void **state)
{
    (void)state;
    put_file("gpus/0000:3b:00.0", "information",
             "Model: \t\t Toy\nGPU UUID:   \t GPU-a\nDevice Minor: \t 0\n");
    put_file("gpus/0000:5e:00.0", "information", "GPU UUID: GPU-b\nDevice Minor: 12\n");
    put_file("gpus/0000:86:00.0", "information", "GPU UUID: GPU-c\n");
    const char *const FILES[] = {"nvidia0", "nvidia12", "nvidia7", "nvidiactl", "nvidia-uvm"};
    for (size_t i = 0; i < AT_ARRAY_LEN(FILES); i++) {
        put_file("dev", FILES[i], "");
    }
    AT_CLEANUP(at_cleanup_free) char *proc = at_asprintf("%s/gpus", dir);
    AT_CLEANUP(at_cleanup_free) char *dev = at_asprintf("%s/dev", dir);
    static const struct {
        const char *ids[2];
        size_t n, others;
    } ROWS[] = {
        {{NULL}, 0, 3},    {{"GPU-a"}, 1, 2}, {{"GPU-a", "GPU-b"}, 2, 1},
        {{"GPU-c"}, 1, 0}, {{"GPU-?"}, 1, 0},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(ROWS); i++) {
        char *paths[AT_GPU_FILES_MAX];
        size_t n = at_gpu_files_of_others(proc, dev, ROWS[i].ids, ROWS[i].n, paths);
        assert_int_equal(n, ROWS[i].others);
        for (size_t k = 0; k < n; k++) {
            const char *name = strrchr(paths[k], '/') + 1;
            assert_true(strcmp(name, "nvidia7") == 0 ||
                        (strcmp(name, "nvidia12") == 0 && ROWS[i].n < 2) ||
                        (strcmp(name, "nvidia0") == 0 && ROWS[i].n == 0));
            at_free(paths[k]);
        }
    }
}

static void a_file_gives_the_machine_another_size(void **state)
{
    (void)state;
    json_t *found = NULL;
    struct at_err err;
    assert_int_equal(
        inventory_with("{\"capacity\": {\"cpu\": \"64\", \"memory\": \"256Gi\"}, \"gpus\": ["
                       "{\"id\": \"g0\", \"model\": \"A100\", \"memory\": \"80Gi\"},"
                       "{\"id\": \"g1\"}], \"allocatable\": {\"cpu\": \"63500m\"}, "
                       "\"extended\": {\"example.com/fpga\": \"2\"}}",
                       &found, &err),
        AT_OK);
    assert_int_equal(quantity(found, "capacity.cpu"), 64);
    assert_string_equal(at_json_str_at(found, "allocatable.cpu", ""), "63500m");
    assert_string_equal(at_json_str_at(found, "allocatable.memory", ""), "256Gi");
    assert_string_equal(at_json_str_at(found, "allocatable.gpu", ""), "2");
    const json_t *fpgas = json_object_get(json_object_get(found, "allocatable"), "extended");
    assert_string_equal(json_string_value(json_object_get(fpgas, "example.com/fpga")), "2");
    assert_true(quantity(found, "capacity.disk") > 0); /* what the file leaves out is measured */
    json_decref(found);
}

static void a_bad_file_is_refused_by_field(void **state)
{
    (void)state;
    static const struct {
        const char *text, *field;
    } rows[] = {
        {"{\"capacity\": {\"cpu\": \"many\"}}", "capacity.cpu"},
        {"{\"capacity\": {\"cpu\": 2}}", "capacity.cpu"},
        {"{\"capacity\": {\"ram\": \"2\"}}", "capacity.ram"},
        {"{\"allocatable\": []}", "allocatable"},
        {"{\"gpus\": {}}", "gpus"},
        {"{\"gpus\": [{\"model\": \"x\"}]}", "gpus[0].id"},
        {"{\"gpus\": [{\"id\": \"x\", \"memory\": \"big\"}]}", "gpus[0].memory"},
        {"{\"gpus\": [{\"id\": \"x\", \"numaNode\": \"0\"}]}", "gpus[0].numaNode"},
        {"{\"gpus\": [{\"id\": \"x\", \"linkGroup\": 1}]}", "gpus[0].linkGroup"},
        {"{\"numaNodes\": {}}", "numaNodes"},
        {"{\"numaNodes\": [{\"cpu\": \"2\"}]}", "numaNodes[0].id"},
        {"{\"numaNodes\": [{\"id\": 0, \"memory\": \"big\"}]}", "numaNodes[0].memory"},
        {"{\"extended\": []}", "extended"},
        {"{\"extended\": {\"fpga\": \"2\"}}", "extended.fpga"},
        {"{\"extended\": {\"example.com/fpga\": 2}}", "extended.example.com/fpga"},
        {"{\"extended\": {\"example.com/fpga\": \"-2\"}}", "extended.example.com/fpga"},
        {"{\"cpus\": 2}", "cpus"},
        {"{\"arch\": 2}", "arch"},
        {"[]", ""},
        {"{", ""},
        {"", ""},
    };
    for (size_t i = 0; i < AT_ARRAY_LEN(rows); i++) {
        json_t *found = NULL;
        struct at_err err = {0};
        assert_int_equal(inventory_with(rows[i].text, &found, &err), AT_INVALID);
        assert_string_equal(err.field, rows[i].field);
        assert_non_null(strstr(err.msg, "devices.json"));
        assert_null(found);
    }
    json_t *found = NULL;
    assert_int_equal(at_devices_inventory(dir, "/no/such/file", &found, NULL), AT_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(this_machine_is_measured),
        cmocka_unit_test(gpus_are_asked_from_nvidias_library),
        cmocka_unit_test(numa_nodes_are_read_from_the_kernels_files),
        cmocka_unit_test(gpus_of_other_makers_are_read_from_the_kernels_files),
        cmocka_unit_test(device_files_of_other_gpus_are_known),
        cmocka_unit_test(a_file_gives_the_machine_another_size),
        cmocka_unit_test(a_bad_file_is_refused_by_field),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
