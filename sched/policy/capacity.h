/**
 * What the nodes of the job offer at most: whether any of them could ever hold a request. Part of the
 * local scheduler. Keeps those offers only that no other one contains: one, where all nodes are
 * alike.
 * Threads: one caller at a time.
 */
#ifndef MORAY_SCHED_POLICY_CAPACITY_H
#define MORAY_SCHED_POLICY_CAPACITY_H

#include <stddef.h>

#include "base/error.h"
#include "sched/policy/resources.h"

struct capacity {             /* all zeros: nothing is known, and nothing owned */
    struct resources *offers; /* owned; none within another */
    size_t count;
};

/** Replaces what is known. Errors: MORAY_NO_MEMORY; nothing changed. */
MORAY_MUST_CHECK enum moray_code capacity_set(struct capacity *capacity,
                                              const struct resources *nodes, size_t node_count,
                                              struct moray_error *error);

/** Whether some node could hold `need`; with nothing known, none could.
 *  Errors: MORAY_INVALID, with what is asked and the largest that is offered. */
MORAY_MUST_CHECK enum moray_code capacity_check(const struct capacity *capacity,
                                                struct resources need, struct moray_error *error);

/** Frees what is known. */
void capacity_clear(struct capacity *capacity);

#endif
