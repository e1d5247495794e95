/**
 * When a node's load is worth a report to the global scheduler. Part of the local scheduler.
 *
 *     at once: it became hungry (little work queued) or stopped being so; tasks arrived and are done
 *              with; the wait of a new task doubled or halved
 *     soon:    a worker came free (each IDLE_REPORT_NS at most); all are busy, or tasks arrived, for so
 *              long: a task that is done with before is told in one message with its result
 *     late:    anything else that changed (each report_ns at most)
 *     never:   a load that stays as it is; so an idle job is silent
 *
 * A queue is looked at again after 50 us, 100, 200 …: tasks that turn out to be long make it long in
 * time, though nothing happens in it.
 * Threads: one caller at a time.
 */
#ifndef MORAY_SCHED_POLICY_REPORTER_H
#define MORAY_SCHED_POLICY_REPORTER_H

#include "sched/policy/resources.h"

struct reporter {
    uint64_t report_ns, hungry_ns; /* set by the owner, not 0 */
    uint64_t deadline_ns;          /* when to look again; UINT64_MAX: no need */
    bool reported;                 /* a report was ever due; what follows is of the last one */
    bool was_hungry, was_idle;
    uint64_t was_ns, was_wait_ns, was_arrived;
    uint64_t busy_ns; /* since when it is busier than reported; 0: it is not */
};

/** Looks at the load as it is now; returns whether it is to be reported. */
bool reporter_look(struct reporter *reporter, const struct load *load, uint64_t now_ns);

#endif
