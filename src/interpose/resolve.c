/* How calls come here. A program that is linked with the driver finds our names first, since this
 * library is loaded first. One that looks names up by itself (dlsym, cuGetProcAddress) gets
 * the real address, which is exchanged for ours on the way: by address, so that it does not matter
 * under which name or version it was asked for. */
#include "interpose/interpose.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#define DRIVER "libcuda.so.1"
#define NVML "libnvidia-ml.so.1"

struct row {
    const char *name;
    void *ours;
    size_t at; /* in struct real_calls */
};

static const struct row ROWS[] = {
#define ROW(name, parameters) {#name, (void *)name, offsetof(struct real_calls, name)},
    TAKEN_OVER(ROW)
#undef ROW
};
#define N_ROWS (sizeof ROWS / sizeof ROWS[0])

static const struct row MADE_ROWS[] = {
#define ROW(name, parameters) {#name, NULL, offsetof(struct real_calls, name)},
    MADE(ROW)
#undef ROW
};
#define N_MADE (sizeof MADE_ROWS / sizeof MADE_ROWS[0])

/* --- the C library's dlsym, past our own. By hand, which also spares us names that an older C
 * library keeps elsewhere --- */

typedef void *dlsym_fn(void *handle, const char *name);
typedef void *dlopen_fn(const char *name, int flags);

static dlsym_fn *libc_dlsym_found;

struct tables {
    const ElfW(Sym) * symbols;
    const char *names;
    const uint32_t *gnu_hash;
    const char *wanted;
    void *found;
};

static uint32_t gnu_hash_of(const char *name)
{
    uint32_t h = 5381;
    for (; *name != '\0'; name++) {
        h = h * 33 + (unsigned char)*name;
    }
    return h;
}

/* The DT_GNU_HASH section: sizes, a Bloom filter, buckets, chains. */
static const ElfW(Sym) * find_symbol(const struct tables *t)
{
    uint32_t n_buckets = t->gnu_hash[0], first = t->gnu_hash[1], n_bloom = t->gnu_hash[2];
    const uint32_t *buckets = t->gnu_hash + 4 + n_bloom * (sizeof(ElfW(Addr)) / 4);
    const uint32_t *chains = buckets + n_buckets;
    uint32_t h = gnu_hash_of(t->wanted);
    uint32_t i = n_buckets > 0 ? buckets[h % n_buckets] : 0;
    for (; i >= first && i != 0; i++) {
        uint32_t chain = chains[i - first];
        if ((chain | 1) == (h | 1) && strcmp(t->names + t->symbols[i].st_name, t->wanted) == 0 &&
            t->symbols[i].st_shndx != SHN_UNDEF) {
            return &t->symbols[i];
        }
        if ((chain & 1) != 0) {
            break;
        }
    }
    return NULL;
}

static int on_object(struct dl_phdr_info *info, size_t size, void *ctx)
{
    (void)size;
    struct tables *t = ctx;
    const char *slash = strrchr(info->dlpi_name, '/');
    const char *base = slash != NULL ? slash + 1 : info->dlpi_name;
    if (strncmp(base, "libc.so", 7) != 0 && strncmp(base, "libdl.so", 8) != 0) {
        return 0;
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) {
            continue;
        }
        t->gnu_hash = NULL;
        const ElfW(Dyn) *d = (const void *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
        for (; d->d_tag != DT_NULL; d++) {
            t->symbols = d->d_tag == DT_SYMTAB ? (const void *)d->d_un.d_ptr : t->symbols;
            t->names = d->d_tag == DT_STRTAB ? (const void *)d->d_un.d_ptr : t->names;
            t->gnu_hash = d->d_tag == DT_GNU_HASH ? (const void *)d->d_un.d_ptr : t->gnu_hash;
        }
    }
    const ElfW(Sym) *symbol = t->gnu_hash != NULL ? find_symbol(t) : NULL;
    if (symbol != NULL) {
        t->found = (void *)(info->dlpi_addr + symbol->st_value);
    }
    return t->found != NULL;
}

static void *libc_symbol(const char *name)
{
    struct tables t = {.wanted = name};
    dl_iterate_phdr(on_object, &t);
    return t.found;
}

static dlsym_fn *libc_dlsym(void)
{
    dlsym_fn *call = __atomic_load_n(&libc_dlsym_found, __ATOMIC_RELAXED);
    if (call == NULL) {
        call = (dlsym_fn *)libc_symbol("dlsym");
        __atomic_store_n(&libc_dlsym_found, call, __ATOMIC_RELAXED);
    }
    return call;
}

/* --- the real calls --- */

static cu_result missing(void)
{
    return CU_NOT_SUPPORTED;
}

static struct real_calls calls[2]; /* of the driver, of NVML */

static void load(struct real_calls *to, const char *library)
{
    dlopen_fn *open_library = (dlopen_fn *)libc_symbol("dlopen");
    void *handle = open_library != NULL ? open_library(library, RTLD_LAZY | RTLD_LOCAL) : NULL;
    dlsym_fn *look = libc_dlsym();
    for (size_t i = 0; i < N_ROWS + N_MADE; i++) {
        const struct row *row = i < N_ROWS ? &ROWS[i] : &MADE_ROWS[i - N_ROWS];
        void *at = handle != NULL && look != NULL ? look(handle, row->name) : NULL;
        /* A call that we answer for must lead somewhere. */
        at = at == NULL && row->ours != NULL ? (void *)missing : at == row->ours ? NULL : at;
        memcpy((char *)to + row->at, &at, sizeof at);
    }
}

static void load_driver(void)
{
    load(&calls[0], DRIVER);
}

static void load_nvml(void)
{
    load(&calls[1], NVML);
}

/* Loaded by the first who comes; others wait. */
static void once(atomic_int *state, void (*fill)(void))
{
    int none = 0;
    if (atomic_load_explicit(state, memory_order_acquire) == 2) {
        return;
    }
    if (atomic_compare_exchange_strong(state, &none, 1)) {
        fill();
        atomic_store_explicit(state, 2, memory_order_release);
    }
    while (atomic_load_explicit(state, memory_order_acquire) != 2) {
        sched_yield();
    }
}

const struct real_calls *real(void)
{
    static atomic_int state;
    once(&state, load_driver);
    return &calls[0];
}

const struct real_calls *real_nvml(void)
{
    static atomic_int state;
    once(&state, load_nvml);
    return &calls[1];
}

static void *exchange(const struct real_calls *of, void *address)
{
    for (size_t i = 0; address != NULL && i < N_ROWS; i++) {
        void *theirs;
        memcpy(&theirs, (const char *)of + ROWS[i].at, sizeof theirs);
        if (theirs == address && address != (void *)missing) {
            return ROWS[i].ours;
        }
    }
    return address;
}

/* --- the program's own look-ups --- */

static bool names_driver(const char *name)
{
    return name != NULL && name[0] == 'c' && name[1] == 'u';
}

static bool names_nvml(const char *name)
{
    return name != NULL && strncmp(name, "nvml", 4) == 0;
}

EXPORTED void *dlsym(void *handle, const char *name);

void *dlsym(void *handle, const char *name)
{
    dlsym_fn *call = libc_dlsym();
    if (names_driver(name)) {
        return exchange(real(), call(handle, name));
    }
    if (names_nvml(name)) {
        return exchange(real_nvml(), call(handle, name));
    }
    return call(handle, name); /* the last act: RTLD_NEXT goes by the caller's return address */
}

cu_result cuGetProcAddress(const char *name, void **ret, int version, uint64_t flags)
{
    cu_result result = real()->cuGetProcAddress(name, ret, version, flags);
    if (result == CU_OK && ret != NULL) {
        *ret = exchange(real(), *ret);
    }
    return result;
}

cu_result cuGetProcAddress_v2(const char *name, void **ret, int version, uint64_t flags,
                              int *ret_why)
{
    cu_result result = real()->cuGetProcAddress_v2(name, ret, version, flags, ret_why);
    if (result == CU_OK && ret != NULL) {
        *ret = exchange(real(), *ret);
    }
    return result;
}
