/* Grey images: PGM (netpbm, P2 and P5), and scaling by a box filter. */
#include "cli/cli_priv.h"

#include <ctype.h>
#include <string.h>

#define PIXELS_MAX ((size_t)64 << 20)
#define SIDE_MAX 65535

struct cursor {
    const unsigned char *at, *end;
};

static void skip_blanks(struct cursor *c)
{
    while (c->at < c->end && (isspace(*c->at) || *c->at == '#')) {
        if (*c->at == '#') {
            while (c->at < c->end && *c->at != '\n') {
                c->at++;
            }
        } else {
            c->at++;
        }
    }
}

static bool number(struct cursor *c, size_t max, size_t *ret)
{
    size_t value = 0;
    skip_blanks(c);
    if (c->at == c->end || !isdigit(*c->at)) {
        return false;
    }
    for (; c->at < c->end && isdigit(*c->at); c->at++) {
        value = value * 10 + (size_t)(*c->at - '0');
        if (value > max) {
            return false;
        }
    }
    *ret = value;
    return true;
}

static bool pixels_text(struct cursor *c, struct cli_image *image)
{
    for (size_t i = 0; i < image->width * image->height; i++) {
        size_t value;
        if (!number(c, image->max, &value)) {
            return false;
        }
        image->pixels[i] = (uint16_t)value;
    }
    return true;
}

static bool pixels_binary(struct cursor *c, struct cli_image *image)
{
    size_t bytes = image->max > 255 ? 2 : 1;
    size_t count = image->width * image->height;
    if (c->at == c->end || !isspace(*c->at)) {
        return false;
    }
    c->at++; /* exactly one blank ends the header */
    if ((size_t)(c->end - c->at) < count * bytes) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        size_t value = bytes == 2 ? (size_t)c->at[2 * i] << 8 | c->at[2 * i + 1] : c->at[i];
        if (value > image->max) {
            return false;
        }
        image->pixels[i] = (uint16_t)value;
    }
    return true;
}

enum at_rc cli_pgm_parse(const char *data, size_t len, struct cli_image *ret, struct at_err *err)
{
    struct cli_image image = {0};
    if (len < 2 || data[0] != 'P' || (data[1] != '2' && data[1] != '5')) {
        return at_err_set(err, AT_INVALID, "not a PGM image (it begins with P2 or P5)");
    }
    struct cursor c = {(const unsigned char *)data + 2, (const unsigned char *)data + len};
    if (!number(&c, SIDE_MAX, &image.width) || !number(&c, SIDE_MAX, &image.height) ||
        !number(&c, 65535, &image.max) || image.width == 0 || image.height == 0 || image.max == 0 ||
        image.width * image.height > PIXELS_MAX) {
        return at_err_set(err, AT_INVALID, "the PGM header is malformed or the image too large");
    }
    if (image.width * image.height > len) {
        return at_err_set(err, AT_INVALID, "the image has fewer pixels than %zu x %zu", image.width,
                          image.height);
    }
    image.pixels = at_alloc(image.width * image.height * sizeof *image.pixels);
    if (!(data[1] == '2' ? pixels_text : pixels_binary)(&c, &image)) {
        at_free(image.pixels);
        return at_err_set(err, AT_INVALID,
                          "the image has fewer pixels than %zu x %zu, or one is "
                          "over %zu",
                          image.width, image.height, image.max);
    }
    *ret = image;
    return AT_OK;
}

/* How much of source cell `at` the target interval [from, to) covers. */
static double cover(size_t at, double from, double to)
{
    double low = from > (double)at ? from : (double)at;
    double high = to < (double)(at + 1) ? to : (double)(at + 1);
    return high > low ? high - low : 0;
}

static double box_mean(const struct cli_image *image, double x0, double x1, double y0, double y1)
{
    double sum = 0;
    for (size_t y = (size_t)y0; y < image->height && (double)y < y1; y++) {
        double row = 0;
        for (size_t x = (size_t)x0; x < image->width && (double)x < x1; x++) {
            row += image->pixels[y * image->width + x] * cover(x, x0, x1);
        }
        sum += row * cover(y, y0, y1);
    }
    return sum / ((x1 - x0) * (y1 - y0));
}

void cli_image_resize(const struct cli_image *image, size_t width, size_t height, double scale,
                      double *out)
{
    double step_x = (double)image->width / (double)width;
    double step_y = (double)image->height / (double)height;
    for (size_t y = 0; y < height; y++) {
        for (size_t x = 0; x < width; x++) {
            double mean = box_mean(image, (double)x * step_x, (double)(x + 1) * step_x,
                                   (double)y * step_y, (double)(y + 1) * step_y);
            out[y * width + x] = mean * scale / (double)image->max;
        }
    }
}
