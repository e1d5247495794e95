/**
 * The global scheduler: which node gets a task, and which tasks move. A pure state machine, at rank 0.
 *
 *     place(task)  --> of the nodes that can hold it, the one with the least
 *                      queued / workers * mean task time  +  missing input bytes / mean bandwidth
 *     report(rank) --> MOVE orders: {from, to, count}
 *
 *            loaded: work queued for longer than        hungry: work queued for less
 *            move_wait_ns, tasks worth moving    -----> than hungry_ns and a worker free soon
 *
 * Tasks move from a loaded node to hungry ones only, so two loaded nodes never exchange tasks. What
 * was ordered counts at once: it has left the one and is coming to the other, so a second report
 * that crosses the order on the wire orders nothing twice. A task is worth moving if its mean time is
 * at least move_factor times what moving costs. So tasks of 1 us stay where they are, and
 * tasks of 10 ms spread in one round.
 *
 * Per node, always: coming == ordered to it - failed - arrived there >= 0, leaving likewise.
 * Threads: one caller at a time (rank 0's agent). Cost: report O(1), or O(hungry or loaded nodes) if
 * it orders moves; place O(nodes + inputs).
 */
#ifndef MORAY_SCHED_POLICY_GLOBAL_H
#define MORAY_SCHED_POLICY_GLOBAL_H

#include <stddef.h>

#include "base/error.h"
#include "sched/policy/resources.h"

struct global;

struct global_options {
    uint32_t rank_count;   /* ranks of the job, at least 1; those that never join hold no task */
    uint64_t move_ns;      /* what moving one task costs its agents; 0: 2 us */
    uint64_t move_factor;  /* mean time of tasks worth moving, in move_ns; 0: 4 */
    uint64_t move_wait_ns; /* queued work that makes a node loaded; 0: 200 us */
    uint64_t move_max;     /* tasks an order; 0: 4096 */
    uint64_t hungry_ns;    /* queued work below which a node is hungry; 0: 500 us */
    uint64_t bytes_per_s;  /* bandwidth where none was measured yet; 0: 1 GB/s */
};

struct global_node { /* a node that can run tasks */
    uint32_t rank;
    uint32_t host; /* first rank of its host, whose ranks read each other's objects in place;
                      UINT32_MAX: it shares with nobody */
    uint32_t worker_count;
    struct resources have;
};

struct global_input {
    uint32_t rank; /* where a copy lies */
    uint64_t bytes;
};

enum global_where {
    GLOBAL_ANY,       /* least expected wait; ties: near the bytes, near the submitter */
    GLOBAL_SPREAD,    /* the node that was given fewest tasks this way */
    GLOBAL_NODE,      /* `rank` and no other */
    GLOBAL_NODE_SOFT, /* `rank` if it can hold the task, else any */
};

struct global_task {
    struct resources need;
    enum global_where where;
    uint32_t rank;                     /* for GLOBAL_NODE and GLOBAL_NODE_SOFT */
    uint32_t asker;                    /* rank of the submitter */
    const struct global_input *inputs; /* borrowed for the call; several with one rank add up */
    size_t input_count;
};

struct global_move { /* tell `from` to send up to `count` of its queued tasks to `to` */
    uint32_t from, to;
    uint64_t count;
};

/** Makes the machine. Owner: the caller, until global_destroy(); `options` is copied.
 *  Errors: MORAY_INVALID, MORAY_NO_MEMORY; then `*out` is NULL and `error` names the option. */
MORAY_MUST_CHECK enum moray_code global_create(const struct global_options *options,
                                               struct global **out, struct moray_error *error);

/** Frees the machine; NULL is allowed. */
void global_destroy(struct global *global);

/** A node joined. Errors: MORAY_INVALID if the rank is out of range or joined before. */
MORAY_MUST_CHECK enum moray_code global_join(struct global *global, const struct global_node *node,
                                             struct moray_error *error);

/** A rank is lost: nothing is placed on it or moved to it or from it any more. */
void global_lose(struct global *global, uint32_t rank);

/** A node's load came. May order moves. Errors: false if the rank is no node; nothing changed. */
bool global_report(struct global *global, uint32_t rank, const struct load *load);

/** A move is over: `from` sent `sent_count` of the `count` that were ordered (it may have run the
 *  others meanwhile). May order moves. Errors: false if no such move is open. */
bool global_moved(struct global *global, const struct global_move *move, uint64_t sent_count);

/** Chooses a node for one task; the task counts as coming to it until a report says it arrived.
 *  `*out` is the rank.
 *  Errors: MORAY_INVALID if no node could ever run it; MORAY_LOST if the one asked for is lost. */
MORAY_MUST_CHECK enum moray_code global_place(struct global *global, const struct global_task *task,
                                              uint32_t *out, struct moray_error *error);

/** Chooses a node for an actor: of those with room for what it holds for life, first those with a free
 *  core, then the one with fewest actors a worker. It counts there until global_actor_ended() with
 *  the same need. `only` is the rank that it must be (UINT32_MAX: any).
 *  Errors: MORAY_BUSY if other actors hold what it asks for; MORAY_FULL if nodes have that, but
 *  refused as many actors; MORAY_INVALID if none ever could. */
MORAY_MUST_CHECK enum moray_code global_place_actor(struct global *global, struct resources need,
                                                    uint32_t only, uint32_t *out,
                                                    struct moray_error *error);
void global_actor_ended(struct global *global, uint32_t rank, struct resources need);

/** A node had no process for an actor that still counts there: it gets no more than it has besides,
 *  until global_actors_again(). What is learnt so may be too little, if several were on their way. */
void global_actor_refused(struct global *global, uint32_t rank);
void global_actors_again(struct global *global);

/** Whether some node could ever hold `need`. Errors: MORAY_INVALID, with what there is. */
MORAY_MUST_CHECK enum moray_code global_possible(const struct global *global, struct resources need,
                                                 struct moray_error *error);

/** The expected wait of one more task at a rank; for tools and tests. */
uint64_t global_wait_ns(const struct global *global, uint32_t rank);

/** The oldest order that was not yet taken. Errors: false if there is none. */
bool global_next(struct global *global, struct global_move *out);

#endif
