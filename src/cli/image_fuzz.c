/* Any bytes as a PGM image; what parses must scale to values within its range. */
#include "cli/cli_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cli_image image;
    double out[5 * 3];
    if (size > 65536 || cli_pgm_parse((const char *)data, size, &image, NULL) != AT_OK) {
        return 0;
    }
    cli_image_resize(&image, 5, 3, 1, out);
    for (size_t i = 0; i < AT_ARRAY_LEN(out); i++) {
        if (!(out[i] >= 0) || out[i] > 1 + 1e-9) {
            abort();
        }
    }
    at_free(image.pixels);
    return 0;
}
