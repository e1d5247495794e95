/**
 * The local scheduler: what one node does with the tasks that come to it. A pure state machine.
 *
 *      submit --> too big, too far, asked, queue full? --yes--> HAND_OVER (the global one decides)
 *                   | no
 *                   v
 *               [queue] --fits the free resources--> RUN --- done ---> resources are free again
 *                                                     | ^
 *                                               block v | RESUME, when its cores are free again
 *                                                  [waiting]
 *
 * Tasks of exactly one core and no memory never come here: the lane runs them. This machine sees the
 * lane as a set of workers, each worth one core, and as a few counts. When a task that came here
 * needs cores which the lane holds, the lane is told to use fewer workers (LANE_WORKERS), and the
 * task runs once the lane has obeyed. The lane then has a place in the queue for each worker that it
 * gave up, and keeps what it gets back for LOCAL_TURN_NS at least, so neither side starves the other.
 *
 * Always: held by tasks + held by the lane <= the node's resources, except that the lane, which
 * starts with all cores, may be slow to obey. No counter is ever negative.
 * The task at the head of the queue is passed by later ones at most LOCAL_PASSED_MAX times.
 *
 * Every event may cause actions; take them with local_next() until it returns false.
 * Threads: one caller at a time (the agent). Cost: O(1) for an event while the queue is empty, else
 * a walk along its first LOCAL_LOOK_MAX entries.
 */
#ifndef MORAY_SCHED_POLICY_LOCAL_H
#define MORAY_SCHED_POLICY_LOCAL_H

#include <stddef.h>

#include "base/error.h"
#include "sched/policy/resources.h"

struct local;

enum { LOCAL_PASSED_MAX = 32, LOCAL_LOOK_MAX = 64, LOCAL_TURN_NS = 1000 * 1000 };

struct local_options {
    uint32_t rank;         /* of this node, for stories */
    struct resources have; /* what the node offers; at least one core */
    uint32_t worker_count; /* the lane's workers, at most one a core: all cores are its at first */
    uint64_t near_bytes;   /* a task that lacks so many bytes here is handed over; 0: never */
    uint64_t queue_max;    /* with so many queued here, further ones are handed over; 0: never */
    uint64_t report_ns;    /* a changed load is reported at least so often; 0: 100 ms */
    uint64_t hungry_ns;    /* queued work below this is worth a report at once; 0: 500 us */
    bool alone;            /* the job's only node: nothing is ever handed over */
};

enum local_place {
    LOCAL_ANYWHERE, /* here, if it suits */
    LOCAL_ASK,      /* placement was asked for: the global scheduler decides */
    LOCAL_HERE,     /* the global scheduler decided for this node: never handed over */
};

struct local_task {
    uint64_t id; /* the agent's own name for it; not 0, none in here has the same */
    struct resources need;
    uint64_t missing_bytes; /* of inputs that are not on this host */
    enum local_place place;
};

struct local_action {
    enum {
        LOCAL_RUN,          /* start `task`; its resources are taken */
        LOCAL_HAND_OVER,    /* send `task` to the global scheduler; it is forgotten here */
        LOCAL_RESUME,       /* `task` has its cores again and goes on */
        LOCAL_LANE_WORKERS, /* the lane may use `worker_count` workers from now on */
        LOCAL_REPORT,       /* send local_load() to the global scheduler */
    } kind;
    uint32_t worker_count;
    uint64_t task;
};

struct local_lane {         /* the lane's counts, as the agent reads them */
    uint32_t worker_count;  /* workers that may take a task, or still run one though told to stop */
    uint32_t running_count; /* tasks that they run */
    uint64_t queued_count;  /* ready tasks in its queues */
    uint64_t mean_task_ns;  /* 0: none finished yet */
    uint64_t running_ns;    /* mean age of those that run; 0: not known, guessed from the others */
    uint64_t arrived_count; /* see struct load */
    uint64_t bytes_per_s;   /* see struct load */
};

/** Makes the machine. Owner: the caller, until local_destroy(); `options` is copied.
 *  Errors: MORAY_INVALID, MORAY_NO_MEMORY; then `*out` is NULL and `error` names the option. */
MORAY_MUST_CHECK enum moray_code local_create(const struct local_options *options,
                                              struct local **out, struct moray_error *error);

/** Frees the machine; NULL is allowed. */
void local_destroy(struct local *local);

/** Learns what the nodes of the job offer, so that a request that none could meet is refused.
 *  Until then only this node's own is known, and nothing is refused unless the node is alone.
 *  Errors: MORAY_NO_MEMORY; nothing changed. */
MORAY_MUST_CHECK enum moray_code local_cluster(struct local *local, const struct resources *nodes,
                                               size_t node_count, struct moray_error *error);

/** Whether some node of the job could ever run a task with this need.
 *  Errors: MORAY_INVALID with the story for the caller of the task: what it asks, what there is. */
MORAY_MUST_CHECK enum moray_code local_possible(const struct local *local, struct resources need,
                                                struct moray_error *error);

/** A task came: causes RUN now or later, or HAND_OVER now. An actor that holds resources for life is
 *  submitted as a task of LOCAL_HERE, and is done when its process is gone.
 *  Errors: MORAY_INVALID if no node could ever run it; MORAY_NO_MEMORY. The task is then unknown. */
MORAY_MUST_CHECK enum moray_code local_submit(struct local *local, const struct local_task *task,
                                              struct moray_error *error);

/** The task has ended, or its process died: its resources are free.
 *  Errors: false if no such task is here (a late word: input, not a defect). */
bool local_done(struct local *local, uint64_t task);

/** The running task waits for something and gives its cores up; it keeps its memory.
 *  Errors: false if no such task runs. */
bool local_block(struct local *local, uint64_t task);

/** The task that waited wants to go on: causes RESUME, now or when its cores are free, before any
 *  task that is queued. Errors: false if no such task waits. */
bool local_unblock(struct local *local, uint64_t task);

/** Takes a task that has not started out of the queue. Errors: false if it is not queued. */
bool local_cancel(struct local *local, uint64_t task);

/** The lane's counts now: call it when its queue became long or empty, when it has fewer workers than
 *  before, and at local_deadline(). `now_ns` is monotonic. May cause REPORT, RUN, LANE_WORKERS. */
void local_lane(struct local *local, const struct local_lane *lane, uint64_t now_ns);

/** When to call local_lane() again though nothing happened; UINT64_MAX: no need. */
uint64_t local_deadline(const struct local *local);

/** The load to report. `now_ns` is not needed: the counts are those of the last local_lane(). */
void local_load(const struct local *local, struct load *out);

/** What no task and no lane worker holds; for tools and tests. */
struct resources local_free(const struct local *local);

/** The oldest action that was not yet taken. Errors: false if there is none. */
bool local_next(struct local *local, struct local_action *out);

#endif
