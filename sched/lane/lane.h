/**
 * The fast lane: what processes of one node do with each other's tasks, in shared memory alone.
 *
 *     submitter                         worker                           waiter
 *     lane_make    fill the record
 *     lane_depends edges to inputs ...
 *     lane_submit  -> own queue ------> lane_next   steal, claim
 *                  -> a mailbox         run it
 *                                       lane_finish deliver edges, wake -> sees the end
 *     lane_drop    free the record
 *
 * Truth is in the records (record.h). Queues, mailboxes, edges and freed bits are hints: they may be
 * stale or double; what takes a record is the compare-and-swap on its life.
 *     queue     a deque a slot: the owner pushes and pops at the tail, thieves take at the head
 *               (Chase and Lev 2005, with the fences of Lê et al. 2013). Entries: {generation, index}
 *     cells     16 bytes, pushed on a list by compare-and-swap, taken off all at once: edges from an
 *               input to the tasks that wait for it, and the mailbox of a slot
 *     holds     of the home slot: a count in the record that only it writes; of others: a bit
 * Borders: no clock, thread, lock or system call in here; `wake` is called where a process sleeps.
 *
 * Cost of an empty task, submitted by one process and run by another: submitter 1 fence (push), worker
 * 1 swap to claim, 1 exchange to finish, 1/16 swap to steal; waiter 0. 0 allocations, 0 locks, 1 line.
 * Threads: a struct lane belongs to one thread of one process, the slot's.
 */
#ifndef MORAY_SCHED_LANE_LANE_H
#define MORAY_SCHED_LANE_LANE_H

#include "sched/lane/pool.h"
#include "sched/lane/record.h"
#include "store/arena/arena.h"

enum {
    LANE_AGENT = 0, /* the agent's slot */
    LANE_SLOTS_MAX = 1024,
    LANE_SLOT_WORDS = LANE_SLOTS_MAX / 64,
    LANE_DIRECT_SLOTS = 63, /* slots below have a bit in the record itself */
    LANE_STEAL_MAX = 16,
    LANE_NODE_BYTES = 512 * 1024, /* of the control block, for the node's own use */
};

enum lane_cell_kind {
    CELL_EDGE,    /* `detail` is the number of the argument */
    CELL_CALL,    /* in a mailbox: a record to be run, placed or carried on */
    CELL_ENDED,   /* in the agent's mailbox: a record that it waits for has ended */
    CELL_FREE_ME, /* in the agent's mailbox: a record of its own may be free */
    CELL_RESOLVE,
};

struct lane_cell {
    _Atomic uint32_t next; /* cell + 1 */
    _Atomic uint32_t task; /* record + 1; 0: the cell is free; CELL_FREED; CELL_DYING + slot */
    uint32_t generation;
    uint32_t kind_detail; /* kind | detail << 8 */
};

#define CELL_FREED 0xfffffffeu /* its owner may collect it */
#define CELL_DYING 0xfffff000u /* + slot: read by that process, which is about to free it */
#define LANE_LIST_MAILBOX 0x80000000u
#define LANE_HELPS 0x80000000u /* in `waits`: it may run what it waits for on its own stack */

enum lane_slot_kind { LANE_NOBODY, LANE_IS_AGENT, LANE_IS_DRIVER, LANE_IS_WORKER, LANE_IS_ACTOR };

struct lane_slot {
    /* thieves write */
    _Alignas(64) _Atomic uint64_t head;
    /* the owner writes */
    _Alignas(64) _Atomic uint64_t tail;
    /* whoever wakes it writes `wake`; the owner `asleep` */
    _Alignas(64) _Atomic uint32_t wake;
    _Atomic uint32_t asleep;
    /* producers write */
    _Alignas(64) _Atomic uint32_t mailbox; /* cell + 1 */
    _Atomic uint64_t freed; /* bit s: a bit in a slab of its records of number s mod 64 is set */
    /* the owner writes, the agent reads after its death */
    _Alignas(64) _Atomic uint32_t kind; /* enum lane_slot_kind */
    _Atomic uint32_t incarnation;
    _Atomic uint32_t top;       /* record + 1 whose body runs innermost */
    _Atomic uint32_t push_cell; /* cell + 1 being made and pushed, */
    _Atomic uint32_t push_list; /* … on the list of this record, or of slot | LANE_LIST_MAILBOX */
    _Atomic uint32_t chain; /* cell + 1: a list being taken off, or what is left of it to free */
    _Atomic uint32_t undo_cell;  /* cell + 1 being freed */
    _Atomic uint32_t taken;      /* how often its mailbox was about to be taken */
    _Atomic uint32_t sequence;   /* of its method calls */
    _Atomic uint32_t submitters; /* that it was so far, of whatever process: tasks and threads */
    _Atomic uint32_t blocked;    /* sleeps in get or wait */
    _Atomic uint32_t waits;      /* record + 1 for whose end alone it sleeps; with LANE_HELPS */
    _Atomic int32_t core;
    _Atomic int32_t cpu; /* that a worker is bound to; -1: to none */
    _Atomic uint32_t pid;
    /* counts, the owner's plain stores */
    _Alignas(64) _Atomic uint64_t submitted;
    _Atomic uint64_t ran, stolen, steals, sleeps, wakes, rescues, run_ns;
    /* room for the node's own use of a slot */
    _Alignas(64) unsigned char node[256];
};

struct lane_control {
    _Alignas(64) uint64_t magic;
    struct arena_layout layout;
    uint32_t rank; /* owner of the records */
    uint32_t slot_words;
    _Atomic uint32_t
        worker_words; /* of those, the first: they have all workers that there ever were */
    uint64_t rows;    /* offset of the rows of bits for slots from LANE_DIRECT_SLOTS on */
    _Atomic uint32_t records_claimed, cells_claimed;
    uint32_t slabs_kept;     /* the last ones of records and of cells, one a slot */
    _Atomic uint32_t untold; /* a word to the agent found no cell: lane_tell_untold() */
    /* bits a slot; set by its owner, cleared by who finds the queue empty several times */
    _Alignas(64) _Atomic uint64_t queues[LANE_SLOT_WORDS];
    /* bits a slot: looks for work, so nobody need be woken for it / sleeps and would take work */
    _Alignas(64) _Atomic uint64_t searching[LANE_SLOT_WORDS];
    _Alignas(64) _Atomic uint64_t idle[LANE_SLOT_WORDS];
    /* the node's: shared words, and its table of actors */
    _Alignas(64) unsigned char node[LANE_NODE_BYTES];
};

/** Wakes the process of `slot`, which may be asleep on its `wake` word (or, the agent, elsewhere). */
typedef void lane_wake_call(void *context, uint16_t slot);

struct lane {
    struct arena arena;
    struct lane_control *control;
    struct lane_slot *slots, *self;
    struct record *records;
    struct lane_cell *cells;
    struct pool record_pool, cell_pool;
    uint16_t slot;
    uint32_t ring_mask;
    lane_wake_call *wake;
    void *wake_context;
    uint32_t *held;        /* private: records of other homes that this slot holds */
    uint32_t *held_count;  /* an open-addressing table */
    uint32_t *held_inputs; /* of held_count: of pending tasks and views */
    uint32_t held_used, held_capacity;
    uint64_t head_seen;   /* of the own queue */
    uint32_t empty_looks; /* at queues whose bit is set */
    uint16_t rouse_first; /* of idle ones, if it is; 0: any */
};

struct lane_options {
    uint64_t data_bytes;
    uint32_t slot_count;   /* 2 to LANE_SLOTS_MAX */
    uint32_t queue_max;    /* tasks queued a slot; made a power of two */
    uint32_t record_count; /* made a multiple of 512 */
    bool slab_each;        /* besides, records and cells for each slot that no other can have */
};

/** Lays out a region for lane and arena. Errors: those of arena_plan(), and MORAY_INVALID. */
MORAY_MUST_CHECK enum moray_code lane_plan(const struct lane_options *options,
                                           struct arena_layout *layout, struct moray_error *error);

/** Makes a zeroed region of layout->total_bytes ready. Threads: once, before anybody attaches. */
void lane_format(void *region, const struct arena_layout *layout,
                 const struct lane_options *options, uint32_t rank);

/** Makes the handle of `slot`. What an earlier process of the slot left (repaired) is taken over.
 *  Errors: MORAY_NO_MEMORY. Owner: the caller, until lane_detach(). */
MORAY_MUST_CHECK enum moray_code lane_attach(struct lane *lane, void *region, uint16_t slot,
                                             enum lane_slot_kind kind, lane_wake_call *wake,
                                             void *wake_context);
void lane_detach(struct lane *lane);

/* ---- Making ---- */

/** A record in MAKING, held once by this slot, its header zeroed. RECORD_NONE: no room (bound:
 *  record_count). */
uint32_t lane_make(struct lane *lane, enum record_kind kind);

/** Gives a record in MAKING back, with its blocks. */
void lane_abandon(struct lane *lane, uint32_t index);

/** Makes task `index`, in MAKING, wait for `input`, unless that has ended. `argument` < 15.
 *  The caller holds `input`. Errors: MORAY_BUSY: no cell is left. */
MORAY_MUST_CHECK enum moray_code lane_depends(struct lane *lane, uint32_t index, uint32_t input,
                                              uint32_t argument);

/** Ends the making. A task goes to the own queue when its inputs are there; with RECORD_GENERAL, and
 *  a request, to the agent's mailbox. Errors: MORAY_BUSY: the own queue is full (nothing happened). */
MORAY_MUST_CHECK enum moray_code lane_submit(struct lane *lane, uint32_t index);

/** Whether there is a cell, without which a method and a request cannot be submitted: what is taken off
 *  this slot's until then, by whatever operation, may be the last. */
bool lane_has_cell(struct lane *lane);

/** The same as lane_submit() for a method, which goes to the mailbox of `slot` at once, so that order is kept. */
MORAY_MUST_CHECK enum moray_code lane_submit_call(struct lane *lane, uint32_t index, uint16_t slot);

/** MAKING -> DONE or FAILED: an object whose result fields are set; -> RUNNING (of this slot): an
 *  object that somebody else's task, or the agent, will finish. */
void lane_publish(struct lane *lane, uint32_t index, enum record_state state);

/* ---- Running ---- */

/** QUEUED -> RUNNING by this slot, if the record is still of `generation`. */
bool lane_claim(struct lane *lane, uint32_t index, uint32_t generation);

/** Work: the newest of the own queue, else the oldest of somebody's; claimed. RECORD_NONE: none. */
uint32_t lane_next(struct lane *lane);

/** A task of the queue of `victim` alone, claimed. */
uint32_t lane_steal_from(struct lane *lane, uint16_t victim);

/** The oldest task of the queue of `victim`, claimed, if task `ancestor`, which runs there, made it, or
 *  a task that it made, and so on: so that whoever waits for `ancestor` can run it on its own stack
 *  without a new edge in the graph of who waits for whom. RECORD_NONE: it is not, or there is none. */
uint32_t lane_steal_descendant(struct lane *lane, uint16_t victim, uint32_t ancestor);

/** Whether a record is a task that any worker of the node may take now. */
bool lane_may_take(const struct lane *lane, uint32_t index);

/** An input of a waiting task that has not ended; RECORD_NONE if all have. */
uint32_t lane_missing_input(const struct lane *lane, uint32_t index);

/** The task that must run for record `index` to end, as far as inputs and sleeping slots tell: it may
 *  be taken, if it is still of `*generation`. RECORD_NONE: it is under way, or nobody here can tell. */
uint32_t lane_needed(const struct lane *lane, uint32_t index, uint32_t *generation);

/** Takes off the own queue what, at its newest end, is queued no more. */
void lane_unqueue(struct lane *lane);

/** RUNNING -> DONE or FAILED, after the result fields were set; then edges, waiters, home. `fresh`
 *  tasks that became ready go to the own queue. */
void lane_finish(struct lane *lane, uint32_t index, enum record_state state);

/** RUNNING -> QUEUED in the own queue, attempt + `charge`. */
void lane_requeue(struct lane *lane, uint32_t index, uint32_t charge);

/** WAITING or QUEUED -> FAILED with the result fields set by `fill`, which runs after the record is
 *  taken. Returns whether it was. */
bool lane_cancel(struct lane *lane, uint32_t index, uint32_t generation,
                 void (*fill)(void *context, uint32_t index), void *context);

/** Queues a record that is QUEUED and perhaps in no queue. */
void lane_push_hint(struct lane *lane, uint32_t index);

/* ---- Mailboxes ---- */

struct lane_mail {
    uint32_t index, generation;
    enum lane_cell_kind kind;
    uint32_t detail;
};
/** Takes what has ended, or is no more, out of `calls`, and keeps the others' order; returns how many. */
uint32_t lane_keep_open(const struct lane *lane, struct lane_mail *calls, uint32_t count);
/** Puts a cell into the mailbox of `slot` and wakes it. Errors: MORAY_BUSY: no cell left; the agent is
 *  woken all the same, and finds what became ready or ended among all records. */
MORAY_MUST_CHECK enum moray_code lane_post(struct lane *lane, uint16_t slot, uint32_t index,
                                           uint32_t generation, enum lane_cell_kind kind,
                                           uint32_t detail);
/** Takes what lies in the own mailbox, oldest first, and hands each to `take`. Returns how many. */
uint32_t lane_mail(struct lane *lane, void (*take)(void *context, const struct lane_mail *mail),
                   void *context);

/* ---- Holding and waiting ---- */

/** One more hold by this slot. The caller must be lent the record by somebody who holds it. */
void lane_hold(struct lane *lane, uint32_t index);

/** One hold less; the last of all frees the record once it has ended. */
void lane_drop(struct lane *lane, uint32_t index);

/** The same for a hold that a task has on an input (RECORD_HOLDS_INPUTS), or an open view, which
 *  lane_held() does not count: nobody but the task, or the view, is to let it go. The lane drops a task's at
 *  its end. */
void lane_hold_input(struct lane *lane, uint32_t index);
void lane_drop_input(struct lane *lane, uint32_t index);

/** Holds of this slot on the record, without those of its tasks on their inputs and of views (of its own
 *  record: with them, once there were INPUT_HOLDS_MAX). */
uint32_t lane_held(const struct lane *lane, uint32_t index);

/** Whether no slot but the home holds it. */
bool lane_unheld(const struct lane *lane, const struct record *record);

/** Asks to be woken at the record's end; returns whether it has ended already. */
bool lane_await(struct lane *lane, uint32_t index);

/** Tells the home slot of a record, any process's, to look whether it is free now. */
void lane_look(struct lane *lane, uint32_t index);

/** What others left for this slot: freed records, inputs no longer needed. Cheap if nothing. */
void lane_settle_freed(struct lane *lane);

static inline void lane_tick(struct lane *lane)
{
    if (__builtin_expect(atomic_load_explicit(&lane->self->freed, memory_order_relaxed) != 0, 0))
        lane_settle_freed(lane);
}

/** Wakes a sleeper that looks for work, unless somebody searches already. */
void lane_rouse(struct lane *lane);

/** Whether some queue has an entry, perhaps a stale one; lane_next() takes those off. */
bool lane_has_work(const struct lane *lane);

/** Bumps the wake word of a slot and wakes it if it sleeps. */
void lane_wake(struct lane *lane, uint16_t slot);

static inline struct record *lane_record(const struct lane *lane, uint32_t index)
{
    return &lane->records[index];
}

static inline uint32_t lane_index(const struct lane *lane, const struct record *record)
{
    return (uint32_t)(record - lane->records);
}

/** The record of {index, generation} if it is alive, else NULL. Index unchecked by the caller. */
struct record *lane_find(const struct lane *lane, uint32_t index, uint32_t generation);

/** The blob of a record's arguments, without struct record_call or record_long; and its length. */
void *lane_arguments(const struct lane *lane, const struct record *record, uint32_t *bytes);
struct record_long *lane_long(const struct lane *lane, const struct record *record);
struct record_call *lane_call(const struct lane *lane, const struct record *record);

/** Which slot's record it is. */
static inline uint16_t lane_home(const struct lane *lane, uint32_t index)
{
    return pool_home(&lane->record_pool, index);
}

/** The arena's question: lives with records. */
bool lane_refers(const void *region, uint32_t record, uint32_t place);

/** A count of the slot's own: one writer, so no atomic operation is needed. */
static inline void lane_bump(_Atomic uint64_t *count)
{
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* bits a slot in an array of words; each is seq_cst, for the Dekker between sleeper and waker */
static inline void lane_bit_set(_Atomic uint64_t *words, uint32_t slot)
{
    atomic_fetch_or_explicit(&words[slot / 64], (uint64_t)1 << slot % 64, memory_order_seq_cst);
}

static inline void lane_bit_clear(_Atomic uint64_t *words, uint32_t slot)
{
    atomic_fetch_and_explicit(&words[slot / 64], ~((uint64_t)1 << slot % 64), memory_order_seq_cst);
}

/* Whether a worker's bit stands in an array of words. */
static inline bool lane_any(const struct lane *lane, const _Atomic uint64_t *words)
{
    uint32_t end = atomic_load_explicit(&lane->control->worker_words, memory_order_relaxed);

    for (uint32_t word = 0; word < end; word++)
        if (atomic_load_explicit(&words[word], memory_order_seq_cst))
            return true;
    return false;
}

static inline bool lane_bit(const _Atomic uint64_t *words, uint32_t slot)
{
    return atomic_load_explicit(&words[slot / 64], memory_order_seq_cst) >> slot % 64 & 1;
}

#endif
