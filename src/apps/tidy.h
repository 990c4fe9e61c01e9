/* Memory that many writes left behind, free but scattered, is given back when it has become quiet.
 */
#ifndef AT_APPS_TIDY_H
#define AT_APPS_TIDY_H

#include "store/store.h"

struct at_tidy;
/* Both outlive it. own: at_tidy_free. */
struct at_tidy *at_tidy_new(struct at_loop *loop, const struct at_store *store);
void at_tidy_free(struct at_tidy *tidy); /* accepts NULL */

#endif
