/* model.yaml, and model folders to packages and back. Blocking. */
#ifndef AT_PACKAGE_MODEL_H
#define AT_PACKAGE_MODEL_H

#include "package/store.h"

#define AT_PKG_YAML "model.yaml"

/* model.yaml, checked: what is in json is of the right kinds. */
struct at_pkg_model {
    json_t *json;
    const char *name, *version, *format, *file, *runner, *licence, *data_class; /* never NULL */
};
/* err: AT_INVALID names the field. own: at_pkg_model_done. */
enum at_rc at_pkg_model_parse(const char *text, size_t len, struct at_pkg_model *ret,
                              struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_pkg_model_read(const char *folder, struct at_pkg_model *ret,
                             struct at_err *err) AT_WARN_UNUSED;
void at_pkg_model_done(struct at_pkg_model *model);

struct at_pkg_init {
    const char *name, *version, *licence, *data_class, *file; /* NULL: found out, or left out */
    bool force;                                               /* over a model.yaml that is there */
    /* Is it whole? Asked before files are read for their digests; NULL: nobody knows better. */
    enum at_rc (*check)(const char *format, const char *path, struct at_err *err);
};
/* Write model.yaml for a folder: its files with digests, and what the model file says of itself.
 * With force what an earlier model.yaml says beside that stays.
 * err: AT_EXISTS there is one; AT_NOT_FOUND no model file; AT_INVALID several: name one. */
enum at_rc at_pkg_model_init(const char *folder, const struct at_pkg_init *init,
                             struct at_err *err) AT_WARN_UNUSED;

/* A folder with model.yaml into the store, as a ModelPack artifact with one layer a file.
 * *ret_left_out (may be NULL): paths in the folder that model.yaml does not list. own: caller
 * decrefs. err: AT_CORRUPT a file is not what model.yaml says. */
enum at_rc at_pkg_pack(const char *folder, const struct at_pkg_store *store,
                       char ret_digest[AT_PKG_DIGEST_BYTES], json_t **ret_left_out,
                       struct at_err *err) AT_WARN_UNUSED;

/* The files of a package into a folder that is made, whole or not at all.
 * links: second names of the store's blobs where the file system has them (nobody may write to
 * them), else copies. err: AT_EXISTS folder is there; AT_FORBIDDEN a path that leaves it. */
enum at_rc at_pkg_unpack(const struct at_pkg_store *store, const char *digest, const char *folder,
                         bool links, struct at_err *err) AT_WARN_UNUSED;

/* What is served of an unpacked package: the file that model.yaml names, else its only model;
 * looked into, as far as its head goes. own: caller at_free. err: AT_CORRUPT; AT_FORBIDDEN it takes
 * weights from outside the folder; AT_NOT_FOUND, AT_INVALID there is none, or several. */
enum at_rc at_pkg_model_file(const char *folder, char **ret, struct at_err *err) AT_WARN_UNUSED;

/* Files of a folder, sorted, relative. err: AT_INVALID what is neither file nor folder.
 * own: caller decrefs. */
enum at_rc at_pkg_files(const char *folder, json_t **ret, struct at_err *err) AT_WARN_UNUSED;

#endif
