/**
 * A simulated job: many virtual nodes that run the shipped machines of gcs/, sched/policy and
 * store/directory. What stands around a machine in production, the agent, is modelled here:
 *
 *     node   a lane of workers (tasks of one core), the local scheduler, the directory of the objects
 *            that its tasks make, copies of objects
 *     head   rank 0, besides: table of nodes, global scheduler, table of actors
 *
 * A task has an owner, the rank that submitted it. It may make an object, which its consumers read
 * where they run; it may make children and wait for them. sim_fail() ends a run whose laws broke.
 * Threads: one. Allocation failures abort: the unit tests cover them.
 */
#ifndef MORAY_TESTS_SIM_SIM_H
#define MORAY_TESTS_SIM_SIM_H

#include "gcs/actors.h"
#include "gcs/nodes.h"
#include "sched/policy/global.h"
#include "sched/policy/local.h"
#include "store/directory/directory.h"
#include "tests/sim/world.h"

enum { OBJECT_RANKS_MAX = 64 }; /* objects are simulated in jobs up to so many ranks */

enum kind {
    SUBMIT,        /* tasks a … a + b - 1 are submitted here */
    TIMER_LANE,    /* local_deadline(); a: which setting of the timer */
    TIMER_TASK,    /* task a has run */
    TIMER_UNHOLD,  /* the reference on object a, span b, is given back */
    MSG_REPORT,    /* data: struct load */
    MSG_HAND_OVER, /* task a; data: struct global_input… */
    MSG_PLACED,    /* task a goes to rank b */
    MSG_MOVE,      /* send b tasks to rank a */
    MSG_MOVED,     /* of the c that were to go to rank a, b went */
    MSG_TASKS,     /* data: uint32_t… */
    MSG_DONE,      /* task a is done; c: span of a reference that the rank keeps on its input */
    MSG_WANT,      /* object a, transfer b */
    MSG_GRANT,     /* object a, transfer b, to rank c */
    MSG_HAVE,      /* object a, transfer b: a copy is here already */
    MSG_DATA,      /* object a, transfer b: its bytes */
    MSG_NO_COPY,   /* object a, transfer b: not here */
    MSG_FETCHED,   /* object a, transfer b, end and source c */
    MSG_GONE,      /* object a has no copy here any more */
    MSG_DROP,      /* object a, attempt b */
    MSG_HOLD,      /* object a, span b, c: begins or ends */
    ACTOR_KINDS,   /* the kinds of actors.c from here on */
};

enum state { NEW, TRAVELS, QUEUED, FETCHES, RUNS, BLOCKED, DONE };

struct task {
    enum state state;
    uint32_t owner; /* rank that submitted it */
    uint32_t at;    /* rank where it is */
    uint64_t duration_ns;
    struct resources need;
    enum global_where where;
    uint32_t where_rank;
    uint32_t parent;      /* that waits for it; UINT32_MAX: none */
    uint32_t first_child; /* children are submitted when its own time is over, */
    uint32_t child_count; /* and it waits for them */
    uint32_t children_left;
    uint32_t input;          /* task whose object it reads; UINT32_MAX: none */
    uint32_t first_consumer; /* tasks that read its object; submitted when it is made */
    uint32_t consumer_count;
    uint32_t consumers_left;
    uint64_t bytes; /* of its object; 0: makes none */
    bool keeps;     /* it keeps a reference to its input for a while */
    bool placed;    /* the global scheduler chose its rank */
    bool special;   /* it went through the local scheduler, not the lane */
    bool consumers_sent;
    uint32_t run_count, run_max; /* run_max: 1, and 1 more each time its object was lost */
    uint32_t attempt;
    uint64_t started_ns;
    uint64_t copies; /* ranks that have its object, as bits: the truth, not the directory's */
    uint32_t held;   /* ranks' references beside the owner's: the truth */
    bool object_known, object_free;
    uint8_t users[OBJECT_RANKS_MAX];      /* running readers by rank */
    uint8_t references[OBJECT_RANKS_MAX]; /* kept on a rank, the owner's own among them */
    uint64_t span[OBJECT_RANKS_MAX];      /* the rank's epoch since they left 0 */
};

struct lane {
    uint32_t *ids; /* owned ring */
    size_t capacity, head, count;
};

struct node {
    struct local *local;
    struct directory *directory;
    struct lane queue;
    uint32_t running, allowed; /* workers */
    uint64_t started_sum_ns;   /* of the lane's running tasks */
    uint64_t mean_ns, arrived, epoch;
    bool tell;                /* the local scheduler has to hear of the lane */
    uint64_t timer, timer_ns; /* number and time of the valid TIMER_LANE */
};

/* Rare paths of the machines. A workload names those that its seeds together must walk: a law that
 * held because nothing happened is no law. */
#define SIM_PATHS(X)                                          \
    X(MOVED, "a task moved to a hungry node")                 \
    X(PLACED, "the global scheduler placed a task")           \
    X(SQUEEZED, "the lane gave up a worker")                  \
    X(RESUMED, "a task that waited took its cores back")      \
    X(FETCHED, "an object was read from another rank")        \
    X(HERE, "a reader had a copy already")                    \
    X(NO_COPY, "a source had lost its copy before the grant") \
    X(REMADE, "an object was remade")                         \
    X(FREED, "an object was freed")                           \
    X(RESTARTED, "an actor restarted")                        \
    X(FINISHED, "an actor was asked to finish")               \
    X(STOPPED, "an actor was stopped")                        \
    X(REFUSED, "a node refused an actor")                     \
    X(NO_ROOM, "no node had room for an actor")               \
    X(SHARED_NAME, "a name led to another's actor")
#define X(name, text) PATH_##name,
enum path { SIM_PATHS(X) PATH_COUNT };
#undef X

struct sim_options {
    uint64_t seed;
    uint32_t rank_count;
    uint32_t worker_count;
    bool calm;                /* messages of 5 us, no faults */
    bool head_alone;          /* rank 0 runs no tasks */
    bool blind;               /* agents cannot tell how long tasks run that have not ended */
    uint32_t evict_per_mille; /* a copy is dropped after a task that read it */
    bool trace;               /* print each event */
};

struct sim {
    struct sim_options options;
    struct world *world;
    struct task *tasks; /* owned */
    uint32_t task_count, done_count;
    struct node *nodes; /* owned */
    struct nodes *table;
    struct global *global;
    struct actors *actors;
    struct actor_model *actor_model; /* actors.c's; NULL: none */
    uint64_t transfer;
    uint64_t paths[PATH_COUNT]; /* how often each was walked */
    uint64_t reports;
    uint64_t done_ns; /* when the last task was done */
    char failure[256];
};

/** Makes a job at rest. Owner: the caller, until sim_destroy(). */
struct sim *sim_create(const struct sim_options *options);
void sim_destroy(struct sim *sim);

/** Adds `count` tasks of one core, owned by `owner`; returns the first one's number. */
uint32_t sim_add(struct sim *sim, uint32_t owner, uint32_t count, uint64_t duration_ns);

/** Submits tasks at their owner, `delay_ns` from now. */
void sim_submit(struct sim *sim, uint32_t first, uint32_t count, uint64_t delay_ns);

/** Runs until nothing happens any more, or a law broke (sim->failure then says which).
 *  Returns whether all laws held. */
bool sim_run(struct sim *sim);

/** Notes the first law that broke. */
void sim_fail(struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Between the parts of the simulator: */
void node_start(struct sim *sim, uint32_t rank);
void node_event(struct sim *sim, const struct event *event);
void node_settle(struct sim *sim, uint32_t rank);                 /* after each event of a rank */
void node_fetched(struct sim *sim, uint32_t rank, uint32_t task); /* its input is here */
void node_submit(struct sim *sim, uint32_t rank, uint32_t task);  /* by its owner, first or again */
void head_event(struct sim *sim, const struct event *event);
void object_event(struct sim *sim, const struct event *event);
void object_settle(struct sim *sim, uint32_t rank);
void object_want(struct sim *sim, uint32_t rank, uint32_t task);
void object_done(struct sim *sim, const struct event *event);    /* at the owner, MSG_DONE */
void object_used(struct sim *sim, uint32_t rank, uint32_t task); /* the reader has ended */
void object_add(struct sim *sim, uint32_t task);
uint64_t object_keep(struct sim *sim, uint32_t rank, uint32_t object); /* returns the span */
void object_let_go(struct sim *sim, uint32_t rank, uint32_t object);
void actors_start(struct sim *sim, uint32_t count);
void actors_event(struct sim *sim, const struct event *event);
void actors_check(struct sim *sim);
void actors_end(struct sim *sim);
void sim_check_rest(struct sim *sim);

/** Sends a message of the model. */
void sim_send(struct sim *sim, uint64_t extra_ns, uint32_t kind, uint32_t from, uint32_t to,
              uint64_t a, uint64_t b, uint64_t c);

#endif
