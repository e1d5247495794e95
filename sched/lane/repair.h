/**
 * What the agent does for a process of the node that is dead: everything it left half done.
 *
 * Called once the kernel says that the whole process is gone, before its slot is given again. Every
 * step can be done twice: a repair that is itself cut short is simply made again.
 *     its running records     told to the agent, which queues them again or fails them
 *     its records in making   freed; those that it made and nobody holds, cancelled or freed
 *     its bits                taken out of all records and masks
 *     its lists               walked to the end; the cell it was pushing found or freed
 *     its blocks              freed where no record refers to them
 *     entries it had taken    every record that is QUEUED and in no queue is told to the agent, which
 *                             queues it again
 *     wake-ups it owed        everybody who sleeps is woken
 * Threads: the agent. Cost: one pass over all records and all pages, a few more over records that are
 * not free.
 */
#ifndef MORAY_SCHED_LANE_REPAIR_H
#define MORAY_SCHED_LANE_REPAIR_H

#include "sched/lane/lane.h"

struct repair_calls {
    void *context;
    /* A record that the dead ran (objects, the further results that it was sealing, come first: each
     * is to be QUEUED again if its task is to be); `innermost`: its body was on top of the stack. The agent must make
     * it QUEUED (lane_requeue_dead) or end it (lane_fail_dead). */
    void (*running)(void *context, uint32_t index, bool innermost);
    /* A task or request that is QUEUED and in no queue; the agent may have it already. */
    void (*queued)(void *context, uint32_t index);
    /* A call in the mailbox of the dead, or on its way there or through its hands; without a death each
     * that has not begun. */
    void (*call)(void *context, uint32_t index);
    /* Fills in the result of a task that is cancelled: a child of the dead that nobody holds, or one
     * that the dead was cancelling. */
    void (*cancelled)(void *context, uint32_t index);
    /* An ended record that waits for the agent, which may not have been told. */
    void (*ended)(void *context, uint32_t index);
};

/** Repairs. `lane` is the agent's. False: a living process (or another dead one, which is to be
 *  repaired first) is just walking the list on which the dead was pushing a cell, or private memory is
 *  short; call it again in a moment, and give the slot to nobody before. */
MORAY_MUST_CHECK bool lane_repair(struct lane *lane, uint16_t dead,
                                  const struct repair_calls *calls);

/** Where words to the agent found no cell: tells, by `queued`, `call` and `ended`, what all records say. Cheap if
 *  there are none, else a pass over all records. False: private memory is short; it is to be called again.
 *  `lane` is the agent's. */
MORAY_MUST_CHECK bool lane_tell_untold(struct lane *lane, const struct repair_calls *calls);

/** Inside `running`: the record of the dead slot becomes QUEUED (attempt + charge), or this slot's
 *  RUNNING, to be ended by lane_finish(). */
void lane_requeue_dead(struct lane *lane, uint32_t index, uint32_t charge);
void lane_adopt_dead(struct lane *lane, uint32_t index);

#endif
