/* Every bound of packages, by name. */
#ifndef AT_PACKAGE_LIMITS_H
#define AT_PACKAGE_LIMITS_H

#include "core/units.h"

#define PKG_DOCUMENT_BYTES_MAX ((size_t)4 << 20) /* a manifest or index, as registries have it */
#define PKG_CONFIG_BYTES_MAX ((size_t)8 << 20)
#define PKG_TOKEN_BYTES_MAX ((size_t)64 << 10) /* the answer of a token server */
#define PKG_ERROR_BYTES_MAX ((size_t)64 << 10) /* what a registry says of an error */
#define PKG_YAML_BYTES_MAX ((size_t)1 << 20)   /* model.yaml */
#define PKG_LAYERS_MAX 1024                    /* of one package */
#define PKG_INDEX_MAX 4096                     /* manifests of one index */
#define PKG_FILES_MAX 1000                     /* of one model folder */
#define PKG_ONNX_BYTES_MAX (INT64_C(2) << 30)  /* what protobuf can say */
#define PKG_FOLDER_DEPTH_MAX 16
#define PKG_PATH_BYTES_MAX 512 /* of a file within a package */
#define PKG_REF_BYTES_MAX 1024
#define PKG_BLOB_BYTES_MAX (INT64_C(1) << 41)     /* 2 TiB */
#define PKG_UNPACKED_BYTES_MAX (INT64_C(1) << 42) /* of a layout in a tar file */
/* What a gzip layer may unpack to: weights shrink little, bombs a thousandfold. */
#define PKG_UNPACKED_RATIO_MAX 20
#define PKG_UNPACKED_BYTES_FREE (INT64_C(256) << 20)
#define PKG_TAR_ENTRIES_MAX 1000000
#define PKG_SIGNATURES_MAX 64 /* looked at, of one package */
#define PKG_TENSORS_MAX 256   /* inputs, and outputs, of a signature */

#define PKG_PARALLEL 4 /* layers at a time */
#define PKG_TRIES 4    /* in a row without progress */
#define PKG_PROGRESS_BYTES 65536
#define PKG_RETRY_MIN_NS (200 * AT_NS_PER_MS)
#define PKG_RETRY_MAX_NS (10 * AT_NS_PER_S)
#define PKG_RETRY_AFTER_MAX_S 30
#define PKG_REDIRECTS_MAX 5
#define PKG_HEADER_BYTES_MAX ((size_t)256 << 10) /* of one answer */
#define PKG_CHALLENGE_BYTES_MAX 8192
#define PKG_CONNECT_NS (10 * AT_NS_PER_S)
#define PKG_STALL_NS (30 * AT_NS_PER_S) /* without a byte */
#define PKG_CHUNK_BYTES (INT64_C(256) << 20)
#define PKG_COPY_BYTES 262144

#endif
