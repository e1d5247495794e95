/**
 * The deque of a slot (Chase and Lev, SPAA 2005; fences as Lê, Pop, Cohen, Zappa Nardelli, PPoPP 2013).
 *
 *     thieves take here -> head ... tail <- the owner pushes and, if it is a worker, pops
 *
 * Entries are hints: {generation, index} of a record, which the taker must still claim. From a slot
 * that never pops (driver, agent, actor) thieves take several at once.
 */
#ifndef MORAY_SCHED_LANE_QUEUE_H
#define MORAY_SCHED_LANE_QUEUE_H

#include "sched/lane/lane.h"

static inline _Atomic uint64_t *queue_ring(const struct lane *lane, uint32_t slot)
{
    const struct arena_layout *layout = &lane->control->layout;
    return (_Atomic uint64_t *)(lane->arena.region + layout->rings) +
           (uint64_t)slot * layout->ring_entries;
}

static inline uint64_t queue_entry(const struct lane *lane, uint32_t index)
{
    uint64_t life = atomic_load_explicit(&lane->records[index].life, memory_order_relaxed);
    return (life & 0xffffffff00000000) | index;
}

/** Room for one more? Cost: the thieves' line only when the ring looks full. */
static inline bool queue_has_room(struct lane *lane)
{
    uint64_t tail = atomic_load_explicit(&lane->self->tail, memory_order_relaxed);

    if (tail - lane->head_seen <= lane->ring_mask)
        return true;
    lane->head_seen = atomic_load_explicit(&lane->self->head, memory_order_acquire);
    return tail - lane->head_seen <= lane->ring_mask;
}

/** Pushes; the caller has seen room. What is read with seq_cst after it is read after it. */
static inline void queue_push(struct lane *lane, uint64_t entry)
{
    uint64_t tail = atomic_load_explicit(&lane->self->tail, memory_order_relaxed);

    atomic_store_explicit(&queue_ring(lane, lane->slot)[tail & lane->ring_mask], entry,
                          memory_order_relaxed);
    /* Pairs with who sets its bit in `idle` and then looks at the queues (worker.c, rest()): the looks that
     * follow here (who sleeps?) are seq_cst as well. */
    atomic_exchange_explicit(&lane->self->tail, tail + 1, memory_order_seq_cst);
}

/** The newest own entry; workers only. */
static inline bool queue_pop(struct lane *lane, uint64_t *entry)
{
    struct lane_slot *self = lane->self;
    uint64_t tail = atomic_load_explicit(&self->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&self->head, memory_order_relaxed);

    if (head >= tail)
        return false;
    tail--;
    /* seq_cst, both: they pair with the fence of a thief between its reads of head and tail. A relaxed load
     * might pass the exchange, which is no fence for it. */
    atomic_exchange_explicit(&self->tail, tail, memory_order_seq_cst);
    head = atomic_load_explicit(&self->head, memory_order_seq_cst);
    if (head > tail) {
        atomic_store_explicit(&self->tail, tail + 1, memory_order_relaxed);
        return false;
    }
    *entry = atomic_load_explicit(&queue_ring(lane, lane->slot)[tail & lane->ring_mask],
                                  memory_order_relaxed);
    if (head == tail) { /* the last one: settle with the thieves */
        bool won = atomic_compare_exchange_strong_explicit(
            &self->head, &head, head + 1, memory_order_seq_cst, memory_order_relaxed);
        atomic_store_explicit(&self->tail, tail + 1, memory_order_relaxed);
        return won;
    }
    return true;
}

/** Takes up to `most` of the oldest entries of `victim`; 0: empty, or somebody was faster (then
 *  `*empty` is false). */
static inline uint32_t queue_steal(struct lane *lane, uint16_t victim, uint32_t most,
                                   uint64_t *entries, bool *empty)
{
    struct lane_slot *slot = &lane->slots[victim];
    uint64_t head = atomic_load_explicit(&slot->head, memory_order_acquire);
    atomic_thread_fence(memory_order_seq_cst); /* pairs with queue_pop() */
    uint64_t tail = atomic_load_explicit(&slot->tail, memory_order_acquire);
    uint32_t count;

    *empty = head >= tail;
    if (*empty)
        return 0;
    count = tail - head < most ? (uint32_t)(tail - head) : most;
    for (uint32_t i = 0; i < count; i++)
        entries[i] = atomic_load_explicit(&queue_ring(lane, victim)[(head + i) & lane->ring_mask],
                                          memory_order_relaxed);
    return atomic_compare_exchange_strong_explicit(&slot->head, &head, head + count,
                                                   memory_order_seq_cst, memory_order_relaxed)
               ? count
               : 0;
}

#endif
