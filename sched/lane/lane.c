#include "sched/lane/lane.h"

#include "sched/lane/inside.h"
#include "sched/lane/queue.h"

static_assert(sizeof(struct lane_cell) == 16, "four a line");
static_assert((int)LANE_SLOTS_MAX <= (int)ARENA_SLOTS_MAX, "a page word holds any slot");

enum { DESCENT_MAX = 64, EMPTY_LOOKS = 64 };

/* ---- Running ---- */

ON_TRIP bool lane_claim(struct lane *lane, uint32_t index, uint32_t generation)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = atomic_load_explicit(&record->life, memory_order_relaxed);

    while (life_state(life) == RECORD_QUEUED && life_generation(life) == generation) {
        uint64_t next = life_of(RECORD_RUNNING, lane->slot, life_attempt(life), generation) |
                        (life & LIFE_WAITED);
        /* acquire: pairs with the submitter's release of the arguments. */
        if (atomic_compare_exchange_weak_explicit(&record->life, &life, next, memory_order_acq_rel,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

static bool claim_entry(struct lane *lane, uint64_t entry)
{
    return lane_claim(lane, (uint32_t)entry, (uint32_t)(entry >> 32));
}

/* What was taken beyond the first goes to the own queue, oldest on top, where others may take it. */
static uint32_t keep_batch(struct lane *lane, const uint64_t *entries, uint32_t count)
{
    uint32_t kept = 0;

    for (uint32_t i = count; i-- > 1;) {
        if (!queue_has_room(lane))
            break;
        queue_push(lane, entries[i]);
        kept++;
    }
    if (kept) {
        if (!lane_bit(lane->control->queues, lane->slot))
            lane_bit_set(lane->control->queues, lane->slot);
        lane_rouse(lane);
    }
    if (RARELY(kept + 1 <
               count)) /* the own ring is full: run what found no place at once, one by one */
        for (uint32_t i = 1; i < count - kept; i++)
            if (claim_entry(lane, entries[i]))
                lane_requeue(lane, (uint32_t)entries[i], 0);
    return claim_entry(lane, entries[0]) ? (uint32_t)entries[0] : RECORD_NONE;
}

static bool owner_pops(const struct lane *lane, uint16_t slot)
{
    return atomic_load_explicit(&lane->slots[slot].kind, memory_order_relaxed) == LANE_IS_WORKER;
}

/* Not so a slot whose process has died: its next one may be a worker that pops by now. */
static bool never_pops(const struct lane *lane, uint16_t slot)
{
    uint32_t kind = atomic_load_explicit(&lane->slots[slot].kind, memory_order_relaxed);

    return kind != LANE_IS_WORKER && kind != LANE_NOBODY;
}

ON_TRIP uint32_t lane_steal_from(struct lane *lane, uint16_t victim)
{
    uint64_t entries[LANE_STEAL_MAX];
    bool empty;

    for (;;) {
        bool batch = never_pops(lane, victim) && owner_pops(lane, lane->slot);
        uint32_t count = queue_steal(lane, victim, batch ? LANE_STEAL_MAX : 1, entries, &empty);
        if (count) {
            for (uint32_t i = 0; i < count; i++)
                __builtin_prefetch(lane_record(lane, (uint32_t)entries[i]), 1);
            lane_bump(&lane->self->steals);
            uint32_t index = keep_batch(lane, entries, count);
            if (index != RECORD_NONE)
                return index;
            continue;
        }
        if (!empty)
            continue; /* lock-free: somebody else got on */
        /* Who looks often finds nothing often: to clear the bit and set it again for each task would
         * cost both sides a shared line. It is cleared before long, so that nobody looks for ever. */
        if (USUALLY(!lane_bit(lane->control->queues, victim) || ++lane->empty_looks < EMPTY_LOOKS))
            return RECORD_NONE;
        lane->empty_looks = 0;
        lane_bit_clear(lane->control->queues, victim);
        /* The owner may have pushed between our look and the clearing. */
        if (atomic_load(&lane->slots[victim].head) >= atomic_load(&lane->slots[victim].tail))
            return RECORD_NONE;
        lane_bit_set(lane->control->queues, victim);
    }
}

ON_TRIP uint32_t lane_next(struct lane *lane)
{
    uint64_t entry;
    uint32_t words = lane->control->slot_words;

    if (owner_pops(lane, lane->slot))
        while (queue_pop(lane, &entry))
            if (claim_entry(lane, entry))
                return (uint32_t)entry;
    for (uint32_t i = 0; i < words; i++) {
        uint32_t word = (lane->slot / 64 + i) % words;
        uint64_t bits = atomic_load_explicit(&lane->control->queues[word], memory_order_relaxed);
        while (bits) {
            /* Begin behind the own slot, so that thieves do not all ask the same victim. */
            uint32_t turn = i == 0 ? (lane->slot + 1) % 64 : 0;
            uint64_t turned = turn ? bits >> turn | bits << (64 - turn) : bits;
            uint32_t bit = ((uint32_t)__builtin_ctzll(turned) + turn) % 64;
            uint32_t index = lane_steal_from(lane, (uint16_t)(word * 64 + bit));
            if (index != RECORD_NONE) {
                lane_bump(&lane->self->stolen);
                return index;
            }
            bits &= ~((uint64_t)1 << bit);
        }
    }
    return RECORD_NONE;
}

/* Reads what a process that ends its task may be writing: a hint, right or of no record at all. */
__attribute__((no_sanitize("thread"))) static bool descends(const struct lane *lane, uint64_t entry,
                                                            uint32_t ancestor)
{
    uint32_t index = (uint32_t)entry, generation = (uint32_t)(entry >> 32);
    const struct record *record;

    for (int steps = 0; steps < DESCENT_MAX; steps++) {
        if (!(record = lane_find(lane, index, generation)) || life_ended(record_life(record)))
            return false;
        if (index == ancestor)
            return steps > 0;
        index = record->result.parent.index;
        generation = record->result.parent.generation;
    }
    return false;
}

uint32_t lane_steal_descendant(struct lane *lane, uint16_t victim, uint32_t ancestor)
{
    struct lane_slot *slot = &lane->slots[victim];

    for (;;) {
        uint64_t head = atomic_load_explicit(&slot->head, memory_order_acquire), entry;
        atomic_thread_fence(memory_order_seq_cst);
        if (head >= atomic_load_explicit(&slot->tail, memory_order_acquire))
            return RECORD_NONE;
        entry = atomic_load_explicit(&queue_ring(lane, victim)[head & lane->ring_mask],
                                     memory_order_relaxed);
        if ((uint32_t)entry >= lane->control->layout.record_count ||
            !descends(lane, entry, ancestor))
            return RECORD_NONE;
        if (!atomic_compare_exchange_strong_explicit(&slot->head, &head, head + 1,
                                                     memory_order_seq_cst, memory_order_relaxed))
            continue; /* lock-free: somebody else got on */
        lane_bump(&lane->self->steals);
        if (claim_entry(lane, entry))
            return (uint32_t)entry;
    }
}

ON_TRIP bool lane_has_work(const struct lane *lane)
{
    for (uint32_t word = 0; word < lane->control->slot_words; word++) {
        uint64_t bits = atomic_load_explicit(&lane->control->queues[word], memory_order_seq_cst);
        for (; bits; bits &= bits - 1) {
            const struct lane_slot *slot =
                &lane->slots[word * 64 + (uint32_t)__builtin_ctzll(bits)];
            if (atomic_load_explicit(&slot->head, memory_order_seq_cst) <
                atomic_load_explicit(&slot->tail, memory_order_seq_cst))
                return true;
        }
    }
    return false;
}

/* ---- Waking ---- */

ON_TRIP void lane_wake(struct lane *lane, uint16_t slot)
{
    struct lane_slot *sleeper = &lane->slots[slot];

    /* seq_cst: pairs with the sleeper's store to `asleep` before its last look. */
    atomic_fetch_add_explicit(&sleeper->wake, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&sleeper->asleep, memory_order_seq_cst)) {
        lane_bump(&lane->self->wakes);
        lane->wake(lane->wake_context, slot);
    }
}

/* Whether this process is the one to wake an idle slot. */
static bool idle_take(struct lane *lane, uint32_t slot)
{
    uint64_t bit = (uint64_t)1 << slot % 64;

    return atomic_fetch_and_explicit(&lane->control->idle[slot / 64], ~bit, memory_order_seq_cst) &
           bit;
}

ON_TRIP void lane_rouse(struct lane *lane)
{
    uint32_t words = atomic_load_explicit(&lane->control->worker_words, memory_order_relaxed);

    if (lane_any(lane, lane->control->searching))
        return; /* whoever searches will find it, and wakes the next */
    if (lane->rouse_first && idle_take(lane, lane->rouse_first)) {
        lane_wake(lane, lane->rouse_first);
        return;
    }
    for (uint32_t word = 0; word < words; word++) {
        /* seq_cst: after the push that this is for. */
        uint64_t bits = atomic_load_explicit(&lane->control->idle[word], memory_order_seq_cst);
        while (bits) {
            uint32_t slot = word * 64 + (uint32_t)__builtin_ctzll(bits);
            bits &= bits - 1;
            if (!idle_take(lane, slot))
                continue;
            lane_wake(lane, (uint16_t)slot);
            return;
        }
    }
}

static void announce(struct lane *lane)
{
    if (RARELY(!lane_bit(lane->control->queues, lane->slot)))
        lane_bit_set(lane->control->queues, lane->slot);
    lane_rouse(lane);
}

void lane_unqueue(struct lane *lane)
{
    uint64_t entry;

    for (;;) {
        uint64_t tail = atomic_load_explicit(&lane->self->tail, memory_order_relaxed);
        if (!owner_pops(lane, lane->slot) ||
            atomic_load_explicit(&lane->self->head, memory_order_relaxed) >= tail)
            return;
        entry = atomic_load_explicit(&queue_ring(lane, lane->slot)[(tail - 1) & lane->ring_mask],
                                     memory_order_relaxed);
        uint64_t life = record_life(lane_record(lane, (uint32_t)entry));
        if (life_state(life) == RECORD_QUEUED && life_generation(life) == entry >> 32)
            return;
        if (!queue_pop(lane, &entry))
            return;
        /* A thief may have left us another one than the stale one we saw. */
        life = record_life(lane_record(lane, (uint32_t)entry));
        if (life_state(life) == RECORD_QUEUED && life_generation(life) == entry >> 32) {
            queue_push(lane, entry);
            announce(lane); /* meanwhile the queue may have been found empty */
            return;
        }
    }
}

void lane_push_hint(struct lane *lane, uint32_t index)
{
    if (queue_has_room(lane)) {
        queue_push(lane, queue_entry(lane, index));
        announce(lane);
        return;
    }
    /* The agent keeps what finds no room in a ring. */
    uint64_t life = record_life(lane_record(lane, index));
    (void)!lane_post(lane, LANE_AGENT, index, life_generation(life), CELL_CALL, 0);
}

/* ---- Making and submitting ---- */

ON_TRIP uint32_t lane_make(struct lane *lane, enum record_kind kind)
{
    uint32_t index = pool_take(&lane->record_pool);
    struct record *record;
    uint64_t life;
    uint32_t top, parent = RECORD_NONE, generation = 0;

    if (RARELY(index == POOL_NONE))
        return RECORD_NONE;
    record = lane_record(lane, index);
    life = atomic_load_explicit(&record->life, memory_order_relaxed);
    assert(life_state(life) == RECORD_FREE);
    atomic_store_explicit(&record->life,
                          life_of(RECORD_MAKING, lane->slot, 0, life_generation(life)),
                          memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst); /* the state before the fields, for repair */
    atomic_store_explicit(&record->holders, 0, memory_order_relaxed);
    atomic_store_explicit(&record->waiters, 0, memory_order_relaxed);
    atomic_store_explicit(&record->dependents, 0, memory_order_relaxed);
    atomic_store_explicit(&record->home_count, 1, memory_order_relaxed);
    atomic_store_explicit(&record->flags, 0, memory_order_relaxed);
    record->function = 0;
    record->site = 0;
    record->kind = (uint8_t)kind;
    record->attempts_max = 1;
    record->argument_bytes = 0;
    record->reference_mask = 0;
    record->input_holds = 0;
    record->result_high = 0;
    record->result_low = 0;
    if ((top = atomic_load_explicit(&lane->self->top, memory_order_relaxed)) != 0) {
        parent = top - 1;
        generation = life_generation(record_life(lane_record(lane, parent)));
    }
    record->result.parent.index = parent;
    record->result.parent.generation = generation;
    return index;
}

void lane_abandon(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    assert(life_state(life) == RECORD_MAKING);
    atomic_store_explicit(&record->home_count, 0, memory_order_relaxed);
    /* As failed, so that an edge that is on its way here finds another state. */
    atomic_store(&record->life, life_of(RECORD_FAILED, lane->slot, 0, life_generation(life)));
    if (record_settle(lane, index))
        pool_give(&lane->record_pool, index);
}

enum moray_code lane_depends(struct lane *lane, uint32_t index, uint32_t input, uint32_t argument)
{
    struct record *task = lane_record(lane, index), *on = lane_record(lane, input);
    uint32_t generation = life_generation(record_life(task)), cell;
    uint64_t life;

    assert(argument < RECORD_INPUTS_MAX);
    if (life_ended(record_life(on)))
        return MORAY_OK;
    cell = cell_take(lane);
    if (cell == POOL_NONE)
        return MORAY_BUSY;
    /* Atomic: edges made before may be delivered meanwhile. */
    atomic_fetch_or_explicit(&task->life, life_pending_bit(argument), memory_order_relaxed);
    cell_push(lane, cell, input, index, generation, CELL_EDGE, argument);
    /* seq_cst: either we see the end here, or whoever ends it sees `waited` and our cell; or somebody
     * tells just now, and looks for our cell when it is done. */
    life = atomic_fetch_or_explicit(&on->life, LIFE_WAITED, memory_order_seq_cst);
    if (LANE_BREAK != 7 && life_ended(life) && tell_claim(lane, input, life_generation(life)))
        tell_edges(lane, input);
    return MORAY_OK;
}

/* MAKING -> WAITING, or QUEUED where nothing is waited for; returns which. */
ON_TRIP static enum record_state leave_making(struct record *record)
{
    uint64_t life = atomic_load_explicit(&record->life, memory_order_acquire), next;

    assert(life_state(life) == RECORD_MAKING);
    /* With no input missing nobody else moves a record in MAKING: a store will do. Release: the fields
     * before it. */
    if (USUALLY(!(life & LIFE_PENDING))) {
        atomic_store_explicit(&record->life,
                              life_of(RECORD_QUEUED, 0, 0, life_generation(life)) |
                                  (life & LIFE_WAITED),
                              memory_order_release);
        return RECORD_QUEUED;
    }
    do {
        bool waits = life & LIFE_PENDING;
        next = life_of(waits ? RECORD_WAITING : RECORD_QUEUED, 0, 0, life_generation(life)) |
               (life & (LIFE_PENDING | LIFE_WAITED));
    } while (!atomic_compare_exchange_weak_explicit(&record->life, &life, next,
                                                    memory_order_acq_rel, memory_order_acquire));
    return life_state(next);
}

ON_TRIP enum moray_code lane_submit(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint16_t flags = record_flags(record);
    bool to_agent = (flags & (RECORD_GENERAL | RECORD_FAR_CALL)) || record->kind == RECORD_REQUEST;
    uint32_t generation = life_generation(record_life(record)), cell = POOL_NONE;
    enum record_state state;

    if (RARELY(to_agent)) {
        cell = cell_take(lane);
        if (cell == POOL_NONE)
            return MORAY_BUSY;
    } else if (RARELY(!queue_has_room(lane)))
        return MORAY_BUSY;
    state = leave_making(record);
    lane_bump(&lane->self->submitted);
    if (RARELY(to_agent)) {
        /* A call that waits goes to the agent at once, which keeps the order; a task when it is ready,
         * by ready_tell(). */
        if (state == RECORD_WAITING && !(flags & RECORD_FAR_CALL)) {
            pool_give(&lane->cell_pool, cell);
            return MORAY_OK;
        }
        cell_push(lane, cell, LANE_AGENT | LANE_LIST_MAILBOX, index, generation, CELL_CALL, 0);
        lane_wake(lane, LANE_AGENT);
        return MORAY_OK;
    }
    if (RARELY(state == RECORD_WAITING))
        return MORAY_OK;
    queue_push(lane, (uint64_t)generation << 32 | index);
    announce(lane);
    return MORAY_OK;
}

bool lane_has_cell(struct lane *lane)
{
    uint32_t cell = cell_take(lane);

    if (cell == POOL_NONE)
        return false;
    pool_give(&lane->cell_pool, cell);
    return true;
}

enum moray_code lane_submit_call(struct lane *lane, uint32_t index, uint16_t slot)
{
    uint32_t generation = life_generation(record_life(lane_record(lane, index)));
    uint32_t cell = cell_take(lane);

    if (cell == POOL_NONE)
        return MORAY_BUSY;
    leave_making(lane_record(lane, index));
    lane_bump(&lane->self->submitted);
    cell_push(lane, cell, slot | LANE_LIST_MAILBOX, index, generation, CELL_CALL, 0);
    lane_wake(lane, slot);
    return MORAY_OK;
}

void lane_publish(struct lane *lane, uint32_t index, enum record_state state)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = atomic_load_explicit(&record->life, memory_order_relaxed);

    assert(life_state(life) == RECORD_MAKING);
    atomic_store_explicit(&record->life, life_of(state, lane->slot, 0, life_generation(life)),
                          memory_order_release);
}

/* ---- Ending ---- */

#if LANE_BREAK == 6
#define FINISH_ORDER memory_order_relaxed
#else
#define FINISH_ORDER memory_order_seq_cst
#endif

ON_TRIP void lane_finish(struct lane *lane, uint32_t index, enum record_state state)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = atomic_load_explicit(&record->life, memory_order_relaxed), next;
    uint16_t flags = record_flags(record);

    assert(state >= RECORD_DONE && life_state(life) == RECORD_RUNNING);
    /* seq_cst: pairs with a waiter's or submitter's setting of `waited`, and with a home that lets
     * its last hold go: one of the two sees the other. Release: the result before it. The right to
     * tell comes with the end, so that nobody can free the record under us. */
    do
        next = life_of(state, lane->slot, life_attempt(life), life_generation(life)) |
               (life & LIFE_WAITED ? LIFE_WAITED | LIFE_TELLING : 0);
    while (!atomic_compare_exchange_weak_explicit(&record->life, &life, next, FINISH_ORDER,
                                                  memory_order_relaxed));
    if (next & LIFE_TELLING) {
#if LANE_BREAK == 5
        atomic_fetch_and(&record->life, ~(uint64_t)LIFE_TELLING);
#endif
        tell_waiters(lane, index);
        tell_edges(lane, index);
    }
    /* The record may be another one by now: then this is one look too many, no more. */
    if (RARELY((flags & (RECORD_HOLDS_INPUTS | RECORD_PROXY)) ||
               atomic_load_explicit(&record->home_count, memory_order_seq_cst) == 0))
        home_tell(lane, index);
}

void lane_requeue(struct lane *lane, uint32_t index, uint32_t charge)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record), next;

    assert(life_state(life) == RECORD_RUNNING);
    do {
        uint32_t attempt = life_attempt(life) + charge;
        if (attempt > LIFE_ATTEMPT_MAX)
            attempt = LIFE_ATTEMPT_MAX;
        next = life_of(RECORD_QUEUED, 0, attempt, life_generation(life)) | (life & LIFE_WAITED);
    } while (!atomic_compare_exchange_weak(&record->life, &life, next));
    if (record->kind == RECORD_TASK && !(record_flags(record) & RECORD_GENERAL))
        lane_push_hint(lane, index);
}

bool lane_cancel(struct lane *lane, uint32_t index, uint32_t generation,
                 void (*fill)(void *context, uint32_t index), void *context)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    while ((life_state(life) == RECORD_WAITING || life_state(life) == RECORD_QUEUED) &&
           life_generation(life) == generation) {
        uint64_t next = life_of(RECORD_RUNNING, lane->slot, life_attempt(life), generation) |
                        LIFE_CANCELLING | (life & LIFE_WAITED);
        if (!atomic_compare_exchange_weak(&record->life, &life, next))
            continue;
        fill(context, index);
        lane_finish(lane, index, RECORD_FAILED);
        return true;
    }
    return false;
}

ON_TRIP struct record *lane_find(const struct lane *lane, uint32_t index, uint32_t generation)
{
    struct record *record;
    uint64_t life;

    if (index >= lane->control->layout.record_count)
        return NULL;
    record = lane_record(lane, index);
    life = record_life(record);
    return life_generation(life) == generation && life_state(life) > RECORD_ORPHAN ? record : NULL;
}

uint32_t lane_keep_open(const struct lane *lane, struct lane_mail *calls, uint32_t count)
{
    uint32_t open = 0;

    for (uint32_t i = 0; i < count; i++) {
        const struct record *record = lane_find(lane, calls[i].index, calls[i].generation);
        if (record && !life_ended(record_life(record)))
            calls[open++] = calls[i];
    }
    return open;
}
