/**
 * A node without processes of its own: what the tests of the lane share.
 *
 *     node_open      a region of shared memory, laid out and empty
 *     node_attach    a handle of a slot: this process, a thread, or a forked child plays the slot
 *     node_task      a task whose result is 1 + the sum of its inputs, so each result can be known
 *     node_step      what a process of that slot would do next: mail, freed records, one task
 *     node_census    what is in use; all 0 when everybody has let go
 * The agent's part (slot 0) is the least that the lane asks of it: general tasks and requests are run,
 * calls are posted again, results of cancelled children are filled in.
 * Threads: as in lane.h, a handle belongs to one thread.
 */
#ifndef MORAY_TESTS_LANE_NODE_H
#define MORAY_TESTS_LANE_NODE_H

#include "sched/lane/lane.h"
#include "sched/lane/repair.h"

enum { NODE_INPUTS_MAX = 4, NODE_DRIVER = 1 };

struct node {
    char *region;
    struct arena_layout layout;
};

/** Aborts with a message on any failure: a test cannot go on then. */
void node_open(struct node *node, const struct lane_options *options);
void node_close(struct node *node);
void node_attach(const struct node *node, struct lane *lane, uint16_t slot,
                 enum lane_slot_kind kind);

/** A task in MAKING that holds and depends on its inputs; its arguments take `argument_bytes` (at
 *  least 16 an input), its result `result_bytes`. RECORD_NONE: no record, cell or block is left, and
 *  nothing is. */
struct node_shape {
    uint32_t argument_bytes, result_bytes; /* 0: the inputs alone; 8 bytes in the record */
    uint16_t flags;                        /* RECORD_GENERAL */
    enum record_kind kind;
    uint16_t actor;    /* of a method */
    uint32_t function; /* not 0: node_compute() makes the value */
};
uint32_t node_make(struct lane *lane, const uint32_t *inputs, uint32_t count,
                   const struct node_shape *shape);
/** The same, submitted. With no shape a plain task. */
uint32_t node_submit(struct lane *lane, const uint32_t *inputs, uint32_t count,
                     const struct node_shape *shape);
/** An object with this value, held by the slot. */
uint32_t node_put(struct lane *lane, uint64_t value, uint32_t bytes);

/** Runs the body of a claimed task and finishes it. */
void node_run(struct lane *lane, uint32_t index);
/** Its two halves. */
void node_body(struct lane *lane, uint32_t index);
uint64_t node_value(const struct lane *lane, uint32_t index);

/** The value of a task whose function is not 0, from that number; may submit and wait. Set it before
 *  the first process or thread begins. */
extern uint64_t (*node_compute)(struct lane *lane, uint32_t function);

/** Told of each task that node_step() runs; may be NULL. */
extern void (*node_ran)(uint32_t index, uint32_t generation);

/** One step of the slot; returns whether it found something to do. */
bool node_step(struct lane *lane);

/** The agent's answers to a repair, for `lane`, the agent's. */
struct repair_calls node_repair_calls(struct lane *lane);

struct node_census {
    uint32_t records, cells;         /* neither free nor orphans */
    uint64_t held_blocks, run_bytes; /* of the arena */
    uint32_t records_lost,
        cells_lost;      /* free, but in no stack that a new process of the slot gets */
    uint64_t pages_lost; /* not free though nothing is in use */
    uint32_t blocks_lost;
};
/** What is in use by `lanes` (of all slots that have a process; NULL where none). */
void node_census(const struct node *node, struct lane *const *lanes, struct node_census *census);
/** When nothing is in use: what none of `lanes` (one a slot) has in its stacks, though it is theirs. */
void node_lost(const struct node *node, struct lane *lanes, struct node_census *census);
/** The whole count: repairs and takes over every slot (no handle may be used after it), and takes
 *  every record, cell and page once. */
void node_count(const struct node *node, struct node_census *census);

#endif
