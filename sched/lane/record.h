/**
 * Records: what a task, a method call, an object or a request to the agent is in the arena.
 *
 *     FREE --make--> MAKING --submit--> WAITING --inputs there--> QUEUED --claim--> RUNNING
 *       ^               |                    (none to wait for: straight on)           |
 *       |               '--publish (an object)--> DONE <------------finish-------------+
 *       '------------------ free (nobody holds it) -- DONE | FAILED <-----fail---------'
 *     ORPHAN: free, of a slot that died; its next process collects it.
 *
 * One 64-bit word, `life`, holds state, holder, attempt and generation and changes by one
 * compare-and-swap, so that at every instant it is known who has the record and how far it got:
 *     dies in MAKING     nobody has seen it: repair frees it
 *     dies in RUNNING    nobody has seen its result: repair queues it again, or fails it
 *     dies elsewhere     the state stands; edges, wake-ups and frees that were under way are done
 *                        again by repair, and doing them twice is harmless (sched/lane/repair.h)
 * Inputs that are missing are bits of the same word while a task is MAKING or WAITING, so an edge
 * that comes late, or twice, or to the record's next life, fails its swap; and the swap that takes the
 * last bit of a WAITING task away makes it QUEUED. While `telling` stands on an ended record, one
 * process delivers its edges and wakes who waits: nobody else touches its list, nobody frees it.
 * Records are type-stable: a stale index meets a valid record with another generation.
 * The line of `life` is all that an empty task touches; the second line has the arguments.
 */
#ifndef MORAY_SCHED_LANE_RECORD_H
#define MORAY_SCHED_LANE_RECORD_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/trip.h"

enum record_state {
    RECORD_FREE,
    RECORD_ORPHAN,
    RECORD_MAKING,
    RECORD_WAITING,
    RECORD_QUEUED,
    RECORD_RUNNING,
    RECORD_DONE,
    RECORD_FAILED,
};

enum record_kind {
    RECORD_TASK,
    RECORD_METHOD,  /* a call of an actor: goes to a mailbox, never to a queue */
    RECORD_OBJECT,  /* put, a further result of a task, or the near end of a far object */
    RECORD_REQUEST, /* to the agent: arguments are its bytes, the result is the answer */
};

enum record_flag {
    RECORD_BLOCK = 1,        /* the arguments lie in a block: {place, bytes} stand in their stead */
    RECORD_RESULT_BLOCK = 2, /* the result lies in a block of this arena */
    RECORD_RESULT_FAR = 4,   /* … in another rank: {rank, index} in `far` */
    RECORD_RESULT_SHARED = 8,  /* … in the arena of another rank of the host: place, window */
    RECORD_GENERAL = 16,       /* the agent places it: resources, or a place asked for */
    RECORD_HOLDS_INPUTS = 32,  /* its home holds its reference arguments until it has ended */
    RECORD_PROXY = 64,         /* stands for a record of another rank; home is the agent */
    RECORD_LONG = 128,         /* the block of arguments begins with struct record_long */
    RECORD_CONTAINS = 256,     /* its bytes contain references, which the agent holds for it */
    RECORD_FAR_CALL = 512,     /* a method of an actor on another node: the agent carries it */
    RECORD_RESULT_KEPT = 1024, /* its bytes were fetched; a copy elsewhere goes with it */
    RECORD_TIED = RECORD_CONTAINS | RECORD_RESULT_FAR | RECORD_RESULT_SHARED | RECORD_RESULT_KEPT,
    /* the agent lets something else go before it is freed */
    RECORD_ALONE = 2048, /* a task on its stack died with it once: it runs none there again */
};

enum {
    RECORD_NONE = 0xffffffff,
    RECORD_ARGUMENT_BYTES = 64,
    RECORD_VALUE_BYTES_MAX = 48,
    RECORD_INPUTS_MAX = 15,
    INPUT_HOLDS_MAX = 0xffff,
};

struct record {
    _Atomic uint64_t life;       /* see life_of() */
    _Atomic uint64_t holders;    /* bit a slot that holds it besides its home; 63: see the row */
    _Atomic uint64_t waiters;    /* bit a slot to be woken at the end; 63: see the row */
    _Atomic uint32_t dependents; /* cell + 1: edges to tasks that wait for this */
    _Atomic uint32_t home_count; /* holds of the home slot, which alone writes it */
    uint32_t function;           /* id; of an object: hash of its type */
    uint32_t site;               /* where the call stands in the program; 0: unknown */
    _Atomic uint16_t flags;      /* enum record_flag; the holder of the record writes */
    uint8_t kind;                /* enum record_kind */
    uint8_t attempts_max;        /* 0: endless */
    uint16_t argument_bytes;     /* in place */
    uint16_t reference_mask;     /* which arguments are references */
    uint16_t input_holds;        /* of home_count: of pending tasks and views (lane_hold_input) */
    uint16_t result_high;        /* bytes of the result, bits 32-47 */
    uint32_t result_low;         /* bits 0-31 */
    union {
        uint8_t value[8]; /* a result of up to 8 bytes; longer ones: record_value() */
        struct {
            uint32_t place, window;
        } block; /* RESULT_BLOCK, RESULT_SHARED, or FAILED: a story */
        struct {
            uint32_t rank, index;
        } far;
        struct {
            uint32_t index, generation;
        } parent; /* until the end: the task that made it, a hint (lane_steal_descendant) */
    } result;
    _Alignas(64) uint8_t arguments[RECORD_ARGUMENT_BYTES];
};

static_assert(sizeof(struct record) == 128, "two cache lines");

/* life: state 0-3 · waited 4 · slot 8-19 · attempt 20-31 · generation 32-63; of an ended record:
 * telling 5; of a RUNNING one: cancelling 5 (taken only to be failed); in MAKING and WAITING, which are
 * of no attempt yet: missing inputs 5-7 and 20-31 */
enum {
    LIFE_WAITED = 1 << 4,
    LIFE_TELLING = 1 << 5,
    LIFE_CANCELLING = 1 << 5,
    LIFE_ATTEMPT_MAX = 0xfff,
};
static const uint64_t LIFE_PENDING = 0xfff000e0;

static inline uint64_t life_of(enum record_state state, uint32_t slot, uint32_t attempt,
                               uint32_t generation)
{
    return (uint64_t)generation << 32 | (uint64_t)(attempt & 0xfff) << 20 |
           (uint64_t)(slot & 0xfff) << 8 | state;
}

static inline enum record_state life_state(uint64_t life)
{
    return life & 0xf;
}

static inline uint32_t life_slot(uint64_t life)
{
    return life >> 8 & 0xfff;
}

static inline uint32_t life_attempt(uint64_t life)
{
    return life_state(life) >= RECORD_QUEUED ? life >> 20 & 0xfff : 0;
}

static inline uint64_t life_pending_bit(uint32_t argument)
{
    return (uint64_t)1 << (argument < 3 ? argument + 5 : argument + 17);
}

/* Whether the task still waits for this argument. */
static inline bool life_pending(uint64_t life, uint32_t argument)
{
    return (life_state(life) == RECORD_MAKING || life_state(life) == RECORD_WAITING) &&
           (life & life_pending_bit(argument));
}

static inline uint32_t life_generation(uint64_t life)
{
    return life >> 32;
}

static inline bool life_ended(uint64_t life)
{
    return life_state(life) >= RECORD_DONE;
}

static inline bool life_telling(uint64_t life)
{
    return life_ended(life) && (life & LIFE_TELLING);
}

/* A generation never comes again: the record that had the last one is used no more. */
static inline bool life_retired(uint64_t life)
{
    return life_generation(life) == 0xffffffff;
}

static inline uint64_t record_life(const struct record *record)
{
    return atomic_load_explicit(&record->life, memory_order_acquire);
}

static inline uint64_t record_result_bytes(const struct record *record)
{
    return (uint64_t)record->result_high << 32 | record->result_low;
}

static inline void record_set_result_bytes(struct record *record, uint64_t bytes)
{
    record->result_low = (uint32_t)bytes;
    record->result_high = (uint16_t)(bytes >> 32);
}

/* RECORD_BLOCK: what stands in `arguments` then. */
struct record_block {
    uint32_t place, bytes;
};

static inline uint16_t record_flags(const struct record *record)
{
    return atomic_load_explicit(&record->flags, memory_order_relaxed);
}

static inline uint32_t record_reference_count(const struct record *record)
{
    return record->reference_mask ? (uint32_t)__builtin_popcount(record->reference_mask) : 0;
}

/* A result without a block lies in the record: up to 8 bytes in the header, up to 48 at the end of the
 * arguments' line, where they leave room: they stay whole, for a further attempt needs them. */
static inline bool record_value_fits(const struct record *record, uint64_t bytes)
{
    uint32_t used = record_flags(record) & RECORD_BLOCK ? (uint32_t)sizeof(struct record_block)
                                                        : record->argument_bytes;

    return bytes <= sizeof(record->result.value) ||
           (bytes <= RECORD_VALUE_BYTES_MAX &&
            used + ((bytes + 15) & ~(uint64_t)15) <= RECORD_ARGUMENT_BYTES);
}

/* Where a value of so many bytes lies, which fits. */
static inline void *record_value(struct record *record, uint64_t bytes)
{
    return bytes <= sizeof(record->result.value)
               ? (void *)record->result.value
               : record->arguments + RECORD_ARGUMENT_BYTES - ((bytes + 15) & ~(uint64_t)15);
}

/* A method's arguments begin with this; the bytes of the call follow. */
struct record_call {
    uint32_t actor;       /* index in the node's table of actors */
    uint32_t submitter;   /* calls of one submitter keep their order */
    uint32_t sequence;    /* of this home's calls: repair sorts by it */
    uint32_t incarnation; /* of the actor's process that began it; 0: none yet */
};

/* RECORD_LONG: the block of arguments begins with this. */
struct record_long {
    uint64_t memory_bytes;
    uint32_t cores;  /* 1/10000; 0: one */
    int32_t on_rank; /* -1: any */
    uint32_t calls_per_process;
    uint16_t extra_count; /* further results: records extra[] */
    uint8_t spread, retry_errors;
    uint32_t extra[9];
    char name[68];
};

static_assert(sizeof(struct record_long) == 128, "keeps the arguments behind it aligned");

/* FAILED: the block of the result holds this, then `bytes` of text. */
struct record_story {
    uint32_t code;
    uint32_t bytes;
    char text[];
};

#endif
