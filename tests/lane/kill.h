/**
 * The proof of decisions.md 5: a process is killed at every instruction of every operation of the lane
 * and the arena, from several start states; then repair, and nothing may be lost, run twice or leak.
 *
 *     main ---fork---> lab: makes a small node and a start state, plays all slots but one
 *                       '---fork---> victim: one operation, single-stepped; killed at instruction k
 *                      repairs; repairs again (no byte may change); the living finish all work; owners
 *                      look at their results and let go; the slot's next process; counts everything
 *
 * Between two instructions that leave shared memory as it was, deaths cannot differ; so the lab that
 * watches one whole run names the instructions that changed it, and each is killed at, from before the
 * first on. Of an instruction in a loop the first and last few times count. With --every each k is
 * killed at, one by one, without these arguments.
 */
#ifndef MORAY_TESTS_LANE_KILL_H
#define MORAY_TESTS_LANE_KILL_H

#include "tests/lane/lab.h"

struct kill_case {
    const char *operation, *state;
    uint16_t victim;
    void (*setup)(struct world *world); /* by the living, the victim among them */
    void (*act)(struct world *world);   /* by the victim, stepped */
    bool posts;                         /* a second repair may post to the agent again */
};

extern const struct kill_case kill_cases[];
extern const unsigned kill_case_count;

#endif
