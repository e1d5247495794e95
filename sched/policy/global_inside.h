/**
 * What the global scheduler knows of the nodes, for global.c (loads and moves) and global_place.c
 * (where a task or an actor goes). Nobody else includes this.
 */
#ifndef MORAY_SCHED_POLICY_GLOBAL_INSIDE_H
#define MORAY_SCHED_POLICY_GLOBAL_INSIDE_H

#include "base/fifo.h"
#include "sched/policy/global.h"

enum kind { NEITHER, HUNGRY, LOADED, KINDS };

struct node {
    bool alive;
    enum kind kind;
    uint32_t place; /* its position in the set of its kind */
    uint32_t host;
    uint32_t worker_count;
    struct resources have;
    struct resources held;            /* by actors, for life */
    struct resources given;           /* to tasks placed since the last report */
    uint32_t actor_count, actors_max; /* the latter learnt from refusals */
    uint64_t spread_count;
    uint64_t coming;        /* tasks ordered to it that have not arrived */
    uint64_t leaving;       /* tasks that it was ordered to send and did not answer for */
    uint64_t present_bytes; /* of the inputs of the task that is being placed */
    uint64_t expected_ns;   /* time of tasks that were moved there, until its own reports tell */
    struct load load;
};

struct set {         /* ranks of one kind, in no order */
    uint32_t *ranks; /* owned; room for all */
    uint32_t count;
};

/* node.coming == sum of open moves to it that did not fail + tasks placed on it - arrived */
struct global {
    struct global_options options;
    struct set sets[KINDS];   /* NEITHER's is not used */
    struct global_move *open; /* owned; orders that were not answered */
    size_t open_count, open_capacity;
    struct fifo orders;
    uint64_t mean_task_ns; /* exponential average over all reports */
    struct node nodes[];
};

/** The node of a rank; NULL: it is none, or lost. */
static inline struct node *global_alive(struct global *global, uint32_t rank)
{
    return rank < global->options.rank_count && global->nodes[rank].alive ? &global->nodes[rank]
                                                                          : NULL;
}

/** The time of one task there, as far as is known. */
uint64_t global_task_ns(const struct global *global, const struct node *node);

/** Puts the node into the set of its kind, after something changed that decides it. */
void global_classify(struct global *global, struct node *node);

#endif
