/* Bounds of a scan. */
#ifndef AT_SCAN_LIMITS_H
#define AT_SCAN_LIMITS_H

#define AT_SCAN_FINDINGS_MAX 10000               /* of one result; past it result.cut is set */
#define AT_SCAN_OBJECT_FINDINGS_MAX 200          /* of one object */
#define AT_SCAN_DEPTH_MAX 8                      /* lists within lists */
#define AT_SCAN_WORDS_MAX 512                    /* of one command line */
#define AT_SCAN_TEXT_BYTES_MAX ((size_t)1 << 20) /* of one value that is looked through */
#define AT_SCAN_CERTIFICATES_MAX 20              /* of one value */
#define AT_SCAN_CERTIFICATE_DAYS 30              /* left: then a certificate is told of */
#define AT_SCAN_RSA_BITS_MIN 2048

#endif
