/* NUMA nodes and where GPUs hang, from the kernel's files. */
#include "core/mem.h"
#include "core/str.h"
#include "core/units.h"
#include "devices/devices_priv.h"
#include "sys/file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX 65536

char *at_devices_text(const char *dir, const char *name)
{
    AT_CLEANUP(at_cleanup_free) char *path = at_asprintf("%s/%s", dir, name);
    struct at_buf text = {0};
    if (at_file_read(path, FILE_BYTES_MAX, &text, NULL) != AT_OK || text.data == NULL) {
        at_buf_done(&text);
        return NULL;
    }
    while (text.len > 0 && isspace((unsigned char)text.data[text.len - 1])) {
        text.data[--text.len] = '\0';
    }
    return at_buf_steal(&text, NULL);
}

/* How many CPUs "0-7,16-23" names; -1: it is no such list. */
int64_t at_devices_cpus_of_list(const char *list)
{
    int64_t count = 0;
    while (*list != '\0') {
        char *end;
        long first = strtol(list, &end, 10);
        long last = first;
        if (end == list || first < 0) {
            return -1;
        }
        if (*end == '-') {
            list = end + 1;
            last = strtol(list, &end, 10);
            if (end == list || last < first) {
                return -1;
            }
        }
        count += last - first + 1;
        if (*end != ',' && *end != '\0') {
            return -1;
        }
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

/* "Node 0 MemTotal:  16307264 kB" */
static int64_t memory_of(const char *meminfo)
{
    const char *at = meminfo != NULL ? strstr(meminfo, "MemTotal:") : NULL;
    return at != NULL ? strtoll(at + strlen("MemTotal:"), NULL, 10) * 1024 : 0;
}

static void add_node(const char *dir, int64_t id, json_t *nodes)
{
    AT_CLEANUP(at_cleanup_free) char *folder = at_asprintf("%s/node%lld", dir, (long long)id);
    AT_CLEANUP(at_cleanup_free) char *cpus = at_devices_text(folder, "cpulist");
    AT_CLEANUP(at_cleanup_free) char *meminfo = at_devices_text(folder, "meminfo");
    int64_t count = cpus != NULL ? at_devices_cpus_of_list(cpus) : -1;
    if (count <= 0) {
        return; /* memory without CPUs: nothing runs beside it */
    }
    char cpu[AT_UNITS_TEXT_BYTES_MAX], memory[AT_UNITS_TEXT_BYTES_MAX];
    at_quantity_format_milli(count * 1000, cpu);
    at_quantity_format_bytes(memory_of(meminfo) >> 20 << 20, memory);
    json_array_append_new(nodes, json_pack("{s:I, s:s, s:s, s:s}", "id", (json_int_t)id, "cpus",
                                           cpus, "cpu", cpu, "memory", memory));
}

void at_devices_numa(const char *dir, json_t *nodes)
{
    char **names = NULL;
    size_t n = 0;
    if (at_dir_list(dir, &names, &n, NULL) != AT_OK) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        char *end;
        long id = strncmp(names[i], "node", 4) == 0 ? strtol(names[i] + 4, &end, 10) : -1;
        if (id >= 0 && id < AT_DEVICES_NUMA_MAX && end != names[i] + 4 && *end == '\0') {
            add_node(dir, id, nodes);
        }
        at_free(names[i]);
    }
    at_free(names);
}

int64_t at_devices_numa_of_pci(const char *dir, const char *bus_id)
{
    /* NVML writes the domain in eight digits, the kernel in four, and in small letters. */
    const char *colon = strchr(bus_id, ':');
    size_t domain = colon != NULL ? (size_t)(colon - bus_id) : 0;
    AT_CLEANUP(at_cleanup_free) char *name = at_strdup(domain == 8 ? bus_id + 4 : bus_id);
    for (char *c = name; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    AT_CLEANUP(at_cleanup_free) char *folder = at_asprintf("%s/%s", dir, name);
    AT_CLEANUP(at_cleanup_free) char *text = at_devices_text(folder, "numa_node");
    return text != NULL ? strtoll(text, NULL, 10) : -1;
}
