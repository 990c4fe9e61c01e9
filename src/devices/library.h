/* libatoll-gpu.so (src/interpose), carried inside this program so that there is one file to
 * install. Made by the build: tools/embed-file. */
#ifndef AT_DEVICES_LIBRARY_H
#define AT_DEVICES_LIBRARY_H

#include <stddef.h>

extern const unsigned char at_share_library[];
extern const size_t at_share_library_bytes;

#endif
