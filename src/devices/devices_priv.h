#ifndef AT_DEVICES_DEVICES_PRIV_H
#define AT_DEVICES_DEVICES_PRIV_H

#include "core/json.h"

#define AT_DEVICES_GPUS_MAX 64
#define AT_DEVICES_NUMA_MAX 1024
#define AT_DEVICES_FILE_BYTES_MAX ((size_t)1 << 20)

#define AT_DEVICES_NVML "libnvidia-ml.so.1"
/* Append {id, model, memory} of each GPU that NVIDIA's library knows; without the library nothing.
 */
void at_devices_nvml(const char *library, json_t *gpus);
struct nvml;
struct nvml_device;
/* What MIG can make of one, to gpu.profiles; nothing where it can make nothing. */
void at_devices_mig_profiles(const struct nvml *nvml, struct nvml_device *device, json_t *gpu);
#define AT_DEVICES_DRM_DIR "/sys/class/drm"
/* Append the GPUs of AMD and Intel that have memory of their own. */
void at_devices_sysfs(const char *drm_dir, json_t *gpus);
/* A file's text without the white space at its end; NULL: it cannot be read. own: caller frees. */
char *at_devices_text(const char *dir, const char *name);
#define AT_DEVICES_NUMA_DIR "/sys/devices/system/node"
#define AT_DEVICES_PCI_DIR "/sys/bus/pci/devices"
/* Append {id, cpus, cpu, memory} of each NUMA node that dir tells of; without dir nothing. */
void at_devices_numa(const char *dir, json_t *nodes);
/* The NUMA node of a PCI device; -1: nobody told. */
int64_t at_devices_numa_of_pci(const char *dir, const char *bus_id);
int64_t at_devices_cpus_of_list(const char *list); /* "0-7,16-23" is 16; -1: no such list */
/* Put what a parsed devices file says over an inventory. err: AT_INVALID with the field. */
enum at_rc at_devices_override(json_t *inventory, const json_t *file,
                               struct at_err *err) AT_WARN_UNUSED;

#endif
