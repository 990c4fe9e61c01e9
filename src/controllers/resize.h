/* Copies that are resized while they run. Private to the folder. */
#ifndef AT_CONTROLLERS_RESIZE_H
#define AT_CONTROLLERS_RESIZE_H

#include "controllers/controllers_priv.h"

enum ctl_resize {
    CTL_RESIZE_NOT,   /* it must be replaced */
    CTL_RESIZE_LATER, /* in the next pass */
    CTL_RESIZE_DONE,  /* written */
};
/* Make i, a copy of an older template, one of the newest by a change of its share of a GPU. *grown:
 * one of this pass took room; set when this does. */
enum ctl_resize ctl_resize(struct ctl_pass *p, const struct at_instance *i,
                           const struct at_deployment *d, const json_t *template_json,
                           const char *hash, bool *grown);

#endif
