/* When may a launch go to the device? Turns by time: of each period the instance has one slot.
 * Pure: time comes as an argument. All times in ns of the monotonic clock. */
#ifndef AT_INTERPOSE_GATE_H
#define AT_INTERPOSE_GATE_H

#include <stdbool.h>
#include <stdint.h>

#define GATE_KINDS 2 /* kernels and graphs: they take times of different orders */

struct gate_turn {
    int64_t period, offset, length; /* length 0 or >= period: always open */
};

struct gate {
    int64_t estimate[GATE_KINDS]; /* device time of one launch; 0: nothing is known yet */
    int64_t queued;               /* launches that no marker has told finished */
    int64_t queue_end;            /* when what was launched is expected to end */
    int64_t slot;                 /* number of the last slot that was looked at */
    int64_t paying;               /* this slot opens later by that much */
    int64_t over;                 /* device time expected or seen after this slot's end */
    int64_t debt;                 /* such time that no slot has paid for yet */
};

/* 0: go, and call gate_launched. Else the time to ask again at, > now; when it lies less than a
 * slot ahead it is for markers to be looked at. */
int64_t gate_ask(struct gate *g, const struct gate_turn *turn, int kind, int64_t now);
void gate_launched(struct gate *g, const struct gate_turn *turn, int kind, int64_t now);
/* Launches between two markers, of one kind. */
struct gate_group {
    int64_t launches;
    int64_t took;   /* device time between the markers; < 0: not known */
    int64_t behind; /* launches after it */
    bool first;     /* of the slot */
};
/* The marker at the end of a group was seen passed. */
void gate_finished(struct gate *g, const struct gate_turn *turn, int kind, int64_t now,
                   const struct gate_group *group);
/* After how many launches the next marker is due. */
int64_t gate_marker_due(const struct gate *g, int kind);

#endif
