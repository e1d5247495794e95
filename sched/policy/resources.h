/**
 * What tasks ask for and nodes have, and what a node tells of its load. Plain data: the local and
 * the global scheduler, the table of nodes and the wire all use these.
 *
 * Cores are counted in parts, RESOURCES_CORE to the core, so that sums of fractions are exact.
 * Threads: any; nothing here has state.
 */
#ifndef MORAY_SCHED_POLICY_RESOURCES_H
#define MORAY_SCHED_POLICY_RESOURCES_H

#include <stdbool.h>
#include <stdint.h>

enum { RESOURCES_CORE = 10000 }; /* parts of one core: a request is a multiple of 0.0001 core */

struct resources {
    uint64_t core_parts;   /* in 1/RESOURCES_CORE of a core */
    uint64_t memory_bytes; /* 0: the task asks for no memory by number */
};

struct load {               /* what a rank says of itself */
    uint32_t worker_count;  /* tasks of one core that it can run at once */
    uint32_t running_count; /* tasks that run now */
    uint64_t queued_count;  /* tasks that are ready and wait for a worker */
    uint64_t mean_task_ns;  /* exponential average of the finished ones; 0: none finished yet */
    uint64_t running_ns;    /* how long the tasks that run now have run, on average */
    uint64_t arrived_count; /* tasks that came by word of the global scheduler, since the start */
    uint64_t bytes_per_s;   /* exponential average of transfers into this rank; 0: none yet */
    struct resources free;  /* what no running task holds */
};

/** Whether `need` is there in `have`. */
static inline bool resources_fit(struct resources need, struct resources have)
{
    return need.core_parts <= have.core_parts && need.memory_bytes <= have.memory_bytes;
}

/** `have` less `need`, which fits. */
static inline struct resources resources_less(struct resources have, struct resources need)
{
    return (struct resources){have.core_parts - need.core_parts,
                              have.memory_bytes - need.memory_bytes};
}

/** The sum of both. */
static inline struct resources resources_more(struct resources have, struct resources back)
{
    return (struct resources){have.core_parts + back.core_parts,
                              have.memory_bytes + back.memory_bytes};
}

#endif
