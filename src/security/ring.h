/* The ring of keys that Secrets are sealed with, and the sealing: each value has a data key of its
 * own (AES-256-GCM), which is sealed in turn by the ring's newest key. What a value is bound to,
 * the key it is stored under, is authenticated in both steps: a value moved elsewhere does not
 * open.
 *
 * Sealed: magic, 8 hex digits of the ring key, nonce, data key, tag, nonce, value, tag.
 * File (0600): "<8 hex digits> <base64 of 32 bytes>" a line, the newest first; # begins a comment.
 */
#ifndef AT_SECURITY_RING_H
#define AT_SECURITY_RING_H

#include "core/buf.h"
#include "sys/sys.h"

#define AT_RING_KEYS_MAX 16
#define AT_RING_ID_BYTES 9
#define AT_RING_MAGIC "\001sealed1"

struct at_ring;

/* Read path; absent is an empty ring, which opens nothing. err: AT_FORBIDDEN others may read the
 * file, or this process may not | AT_CORRUPT, with the line. own: at_ring_free. */
enum at_rc at_ring_open(const char *path, const struct at_sys *sys, struct at_ring **ret,
                        struct at_err *err) AT_WARN_UNUSED;
void at_ring_free(struct at_ring *ring); /* accepts NULL */
size_t at_ring_count(struct at_ring *ring);
/* The newest key's; "" of an empty ring. */
void at_ring_current(struct at_ring *ring, char out[AT_RING_ID_BYTES]);
void at_ring_id(struct at_ring *ring, size_t i, char out[AT_RING_ID_BYTES]);

/* A new key becomes the newest; the file is written before it is used. err: AT_EXHAUSTED
 * AT_RING_KEYS_MAX | those of files. */
enum at_rc at_ring_rotate(struct at_ring *ring, struct at_err *err) AT_WARN_UNUSED;
/* Make a key unless the file holds one by now. Not by two at once. err: as rotate. */
enum at_rc at_ring_first(struct at_ring *ring, struct at_err *err) AT_WARN_UNUSED;
/* Keep the newest key only. err: AT_CONFLICT the file has a newer one than this ring. */
enum at_rc at_ring_forget(struct at_ring *ring, struct at_err *err) AT_WARN_UNUSED;

/* thread: any. Both append to out. err of seal: AT_INTERNAL. err of open: AT_FORBIDDEN no such key
 * in the ring (the file is read again first) | AT_CORRUPT it was changed, or lies under another
 * key's name. */
enum at_rc at_ring_seal(struct at_ring *ring, const char *name, const void *value, size_t len,
                        struct at_buf *out, struct at_err *err) AT_WARN_UNUSED;
enum at_rc at_ring_unseal(struct at_ring *ring, const char *name, const void *value, size_t len,
                          struct at_buf *out, struct at_err *err) AT_WARN_UNUSED;

#endif
