/* Beginnings of prompts, from loop to loop. */
#ifndef AT_GATEWAY_LESSON_H
#define AT_GATEWAY_LESSON_H

struct gw_worker;
struct gw_model;
struct gw_replica;

/* The prompt that worker looked at last goes to replica: the other loops are to know. */
void gw_lesson_tell(struct gw_worker *worker, const struct gw_model *model,
                    const struct gw_replica *replica);
void gw_lesson_take(void *worker);             /* on its own loop: learn what others tell */
void gw_lesson_done(struct gw_worker *worker); /* once no loop runs */

#endif
