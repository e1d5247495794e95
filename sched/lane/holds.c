#include <stdlib.h>
#include <string.h>

#include "sched/lane/inside.h"

/*
 * Who holds a record: its home slot, by a count in the record that only it writes; any other slot, by
 * a bit, set at its first hold and cleared at its last, counted in private memory. A pending task's
 * hold on its inputs is its home's. Whoever lets the last hold go sees it, or the home does: each
 * writes its own word first and reads the other's after a fence.
 */

enum { HELD_EMPTY = 0xffffffff, HELD_GONE = 0xfffffffe, LOOK_AT_ONCE_BYTES = 65536 };

_Atomic uint64_t *row_of(const struct lane *lane, uint32_t index, bool waiters)
{
    uint64_t words = lane->control->slot_words;
    return (_Atomic uint64_t *)(lane->arena.region + lane->control->rows) +
           ((uint64_t)index * 2 + waiters) * words;
}

static void bit_set(struct lane *lane, uint32_t index, bool waiters)
{
    struct record *record = lane_record(lane, index);
    _Atomic uint64_t *word = waiters ? &record->waiters : &record->holders;

    if (lane->slot >= LANE_DIRECT_SLOTS)
        lane_bit_set(row_of(lane, index, waiters), lane->slot);
    lane_bit_set(word, lane->slot < LANE_DIRECT_SLOTS ? lane->slot : LANE_DIRECT_SLOTS);
}

bool lane_unheld(const struct lane *lane, const struct record *record)
{
    return holders_empty(lane, record);
}

ON_TRIP bool holders_empty(const struct lane *lane, const struct record *record)
{
    uint64_t bits = atomic_load_explicit(&record->holders, memory_order_seq_cst);

    if (bits & ~((uint64_t)1 << LANE_DIRECT_SLOTS))
        return false;
    if (USUALLY(!bits))
        return true;
    const _Atomic uint64_t *row = row_of(lane, lane_index(lane, record), false);
    for (uint32_t word = 0; word < lane->control->slot_words; word++)
        if (atomic_load(&row[word]))
            return false;
    return true;
}

/* ---- The private table of foreign records held ---- */

static uint32_t *held_find(const struct lane *lane, uint32_t index)
{
    if (!lane->held_capacity)
        return NULL;
    uint32_t mask = lane->held_capacity - 1;
    for (uint32_t at = index * 2654435761u & mask;; at = (at + 1) & mask) {
        if (lane->held[at] == index)
            return &lane->held[at];
        if (lane->held[at] == HELD_EMPTY)
            return NULL;
    }
}

static uint32_t held_insert(struct lane *lane, uint32_t index, uint32_t count, uint32_t inputs)
{
    uint32_t mask = lane->held_capacity - 1, at = index * 2654435761u & mask;

    while (lane->held[at] != HELD_EMPTY && lane->held[at] != HELD_GONE)
        at = (at + 1) & mask;
    lane->held_used += lane->held[at] == HELD_EMPTY;
    lane->held[at] = index;
    lane->held_count[at] = count;
    lane->held_inputs[at] = inputs;
    return at;
}

static void held_grow(struct lane *lane)
{
    uint32_t live = 0, old_capacity = lane->held_capacity;
    uint32_t *old = lane->held, *old_count = lane->held_count, *old_inputs = lane->held_inputs;

    for (uint32_t i = 0; i < old_capacity; i++)
        live += old[i] != HELD_EMPTY && old[i] != HELD_GONE;
    uint32_t capacity = 256;
    while (capacity < live * 4)
        capacity *= 2;
    lane->held = malloc(capacity * sizeof(uint32_t));
    lane->held_count = malloc(capacity * sizeof(uint32_t));
    lane->held_inputs = malloc(capacity * sizeof(uint32_t));
    if (!lane->held || !lane->held_count || !lane->held_inputs)
        abort(); /* without its counts this process must end; repair clears its bits */
    lane->held_capacity = capacity;
    lane->held_used = 0;
    memset(lane->held, 0xff, capacity * sizeof(uint32_t));
    for (uint32_t i = 0; i < old_capacity; i++)
        if (old[i] != HELD_EMPTY && old[i] != HELD_GONE)
            held_insert(lane, old[i], old_count[i], old_inputs[i]);
    free(old);
    free(old_count);
    free(old_inputs);
}

ON_TRIP uint32_t lane_held(const struct lane *lane, uint32_t index)
{
    if (USUALLY(pool_owns(&lane->record_pool, index))) {
        const struct record *record = lane_record(lane, index);
        uint32_t inputs = record->input_holds;
        uint32_t count = atomic_load_explicit(&record->home_count, memory_order_relaxed);
        return inputs == INPUT_HOLDS_MAX ? count : count - inputs;
    }
    uint32_t *at = held_find(lane, index);
    return at ? lane->held_count[at - lane->held] - lane->held_inputs[at - lane->held] : 0;
}

static void hold_own(struct record *record)
{
    uint32_t count = atomic_load_explicit(&record->home_count, memory_order_relaxed);
    atomic_store_explicit(&record->home_count, count + 1, memory_order_relaxed);
}

/* Returns where it stands in the table. */
static uint32_t hold_foreign(struct lane *lane, uint32_t index)
{
    uint32_t *at = held_find(lane, index);

    if (at) {
        lane->held_count[at - lane->held]++;
        return (uint32_t)(at - lane->held);
    }
    if (lane->held_used * 2 >= lane->held_capacity)
        held_grow(lane);
    bit_set(lane, index, false);
    return held_insert(lane, index, 1, 0);
}

void lane_hold(struct lane *lane, uint32_t index)
{
    if (pool_owns(&lane->record_pool, index))
        hold_own(lane_record(lane, index));
    else
        hold_foreign(lane, index);
}

void lane_hold_input(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);

    if (pool_owns(&lane->record_pool, index)) {
        hold_own(record);
        record->input_holds += record->input_holds != INPUT_HOLDS_MAX;
    } else {
        uint32_t at = hold_foreign(lane, index); /* which may move the table */
        lane->held_inputs[at]++;
    }
}

/* Of the table's holds or the record's, one is an input's no more. The agent, which lets nothing go on a
 * user's behalf, does not count them. */
static void input_let_go(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint32_t *at;

    if (pool_owns(&lane->record_pool, index))
        record->input_holds -= record->input_holds && record->input_holds != INPUT_HOLDS_MAX;
    else if ((at = held_find(lane, index)))
        lane->held_inputs[at - lane->held] -= lane->held_inputs[at - lane->held] != 0;
}

void lane_drop_input(struct lane *lane, uint32_t index)
{
    input_let_go(lane, index);
    lane_drop(lane, index);
}

void home_tell(struct lane *lane, uint32_t index)
{
    const struct record *record = lane_record(lane, index);
    struct lane_slot *home = &lane->slots[lane_home(lane, index)];
    uint64_t slab = (uint64_t)1 << index / POOL_SLAB_ITEMS % 64;

    pool_mark(&lane->record_pool, index);
    /* Set already: whoever takes it off looks at the slab after that, and sees our mark. */
    if (!(atomic_load_explicit(&home->freed, memory_order_seq_cst) & slab))
        atomic_fetch_or_explicit(&home->freed, slab, memory_order_seq_cst);
    /* A home that rests looks at once, one that waits only for what is large: to wake it for each of the
     * inputs that its tasks leave behind would cost more than they are worth. */
    if (atomic_load_explicit(&home->asleep, memory_order_seq_cst) &&
        (home == &lane->slots[LANE_AGENT] || !atomic_load(&home->blocked) ||
         ((record_flags(record) & RECORD_RESULT_BLOCK) &&
          record_result_bytes(record) >= LOOK_AT_ONCE_BYTES)))
        lane_wake(lane, lane_home(lane, index));
}

void lane_look(struct lane *lane, uint32_t index)
{
    home_tell(lane, index);
}

static void drop_foreign(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint32_t *at = held_find(lane, index);

    assert(at);
    if (--lane->held_count[at - lane->held] > 0)
        return;
    *at = HELD_GONE;
    if (lane->slot >= LANE_DIRECT_SLOTS)
        lane_bit_clear(row_of(lane, index, false), lane->slot);
    else
        lane_bit_clear(&record->holders, lane->slot);
    if (!holders_empty(lane, record))
        return;
    if ((record_flags(record) & RECORD_PROXY) ||
        atomic_load_explicit(&record->home_count, memory_order_seq_cst) == 0)
        home_tell(lane, index);
}

ON_TRIP void lane_drop(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint64_t life;
    uint32_t count;

    if (RARELY(!pool_owns(&lane->record_pool, index))) {
        drop_foreign(lane, index);
        return;
    }
    count = atomic_load_explicit(&record->home_count, memory_order_relaxed);
    assert(count > 0);
    atomic_store_explicit(&record->home_count, count - 1, memory_order_relaxed);
    if (RARELY(count > 1)) {
        /* A stand-in that only its own table holds any more. */
        if (count == 2 && (record_flags(record) & RECORD_PROXY) && holders_empty(lane, record))
            home_tell(lane, index);
        return;
    }
    /* Nobody holds it but those whose bits we see: a hold is lent by a holder. If there are some, or
     * the task has not ended or is being told, the fence decides who of us sees the last. */
    life = record_life(record);
    if (atomic_load_explicit(&record->holders, memory_order_relaxed) != 0 || !life_ended(life) ||
        life_telling(life))
        atomic_thread_fence(memory_order_seq_cst);
    if (life_ended(record_life(record)) && record_settle(lane, index))
        pool_give(&lane->record_pool, index);
}

ON_TRIP bool lane_await(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);

    if (life_ended(record_life(record)))
        return true;
    bit_set(lane, index, true);
    return life_ended(atomic_fetch_or_explicit(&record->life, LIFE_WAITED, memory_order_seq_cst));
}

static void wake_row(struct lane *lane, uint32_t index)
{
    _Atomic uint64_t *row = row_of(lane, index, true);

    for (uint32_t word = 0; word < lane->control->slot_words; word++)
        for (uint64_t bits = atomic_exchange(&row[word], 0); bits; bits &= bits - 1)
            lane_wake(lane, (uint16_t)(word * 64 + (uint32_t)__builtin_ctzll(bits)));
}

ON_TRIP void tell_waiters(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint64_t bits = atomic_load_explicit(&record->waiters, memory_order_seq_cst);
    uint32_t generation = life_generation(record_life(record));

    if (RARELY(bits >> LANE_DIRECT_SLOTS))
        wake_row(lane, index);
    bits &= ~((uint64_t)1 << LANE_DIRECT_SLOTS);
    for (; bits; bits &= bits - 1) {
        uint16_t slot = (uint16_t)__builtin_ctzll(bits);
        if (RARELY(slot == LANE_AGENT))
            (void)!lane_post(lane, LANE_AGENT, index, generation, CELL_ENDED, 0);
        else
            lane_wake(lane, slot);
    }
}

/* ---- Freeing ---- */

static uint32_t inputs_of(const struct lane *lane, const struct record *record, uint32_t *inputs)
{
    uint32_t bytes, count = record_reference_count(record);
    const uint32_t *words = lane_arguments(lane, record, &bytes);

    assert(bytes >= count * 16);
    for (uint32_t i = 0; i < count; i++)
        inputs[i] = words[i * 4 + 1]; /* struct moray_ref: owner, index, generation, type */
    return count;
}

/* Edges that nobody told: their tasks were cancelled, so that the record could be let go before. */
static bool edges_left(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);

    if (RARELY(atomic_load_explicit(&record->dependents, memory_order_relaxed) != 0) &&
        tell_claim(lane, index, life_generation(record_life(record))))
        tell_edges(lane, index);
    return atomic_load_explicit(&record->dependents, memory_order_relaxed) != 0;
}

/* Frees blocks and record, of this slot; nobody holds it. False: it is never to be used again. */
static bool release(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint16_t flags = record_flags(record);
    uint64_t life = record_life(record);
    bool retired = life_retired(life);

#if LANE_BREAK == 4
    atomic_store(&record->life, life_of(RECORD_FREE, lane->slot, 0, life_generation(life) + 1));
#endif
    if (RARELY((flags & RECORD_RESULT_BLOCK) && record->result.block.place))
        arena_free(&lane->arena, record->result.block.place, index);
    if (RARELY(flags & RECORD_BLOCK))
        arena_free(&lane->arena, ((struct record_block *)record->arguments)->place, index);
    /* The record lets its blocks go last (arena.h), and is then free. */
    atomic_store_explicit(
        &record->life,
        life_of(RECORD_FREE, lane->slot, 0, life_generation(life) + (retired ? 0 : 1)),
        memory_order_release);
    return !retired;
}

/* Sends a record that only the agent can free on its way there. */
static void free_by_agent(struct lane *lane, uint32_t index, uint32_t generation)
{
    if (lane_post(lane, LANE_AGENT, index, generation, CELL_FREE_ME, 0) == MORAY_OK)
        return;
    home_tell(lane,
              index); /* the agent's mail has the cells that are missing: this slot tries again */
}

/* True: it is free now, and the caller's to give back. Its inputs are added to `dropped`: to drop one
 * may free that one too, and so on down a long chain: hence the list instead of a recursion. */
ON_TRIP static bool settle_one(struct lane *lane, uint32_t index, uint32_t *dropped,
                               uint32_t *dropped_count)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = atomic_load_explicit(&record->life, memory_order_seq_cst);
    uint16_t flags = record_flags(record);

    if (RARELY(life_state(life) == RECORD_ORPHAN)) {
        atomic_store(&record->life, life_of(RECORD_FREE, lane->slot, 0, life_generation(life)));
        return true;
    }
    if (life_state(life) < RECORD_MAKING)
        return false;
    if (!life_ended(life) && !(flags & RECORD_PROXY))
        return false;
    if (RARELY(life_ended(life) && (flags & RECORD_HOLDS_INPUTS))) {
        *dropped_count += inputs_of(lane, record, dropped + *dropped_count);
        /* Atomic: the agent sets other flags of a result that it fetches. */
        flags = atomic_fetch_and_explicit(&record->flags, (uint16_t)~RECORD_HOLDS_INPUTS,
                                          memory_order_relaxed) &
                (uint16_t)~RECORD_HOLDS_INPUTS;
    }
    if (life_telling(life))
        return false; /* who tells looks at the holds when it is done */
    if (RARELY(flags & (RECORD_PROXY | RECORD_TIED))) {
        bool last = flags & RECORD_PROXY
                        ? holders_empty(lane, record)
                        : atomic_load(&record->home_count) == 0 && holders_empty(lane, record);
        if (last)
            free_by_agent(lane, index, life_generation(life));
        return false;
    }
    if (atomic_load_explicit(&record->home_count, memory_order_relaxed) ||
        !holders_empty(lane, record) || edges_left(lane, index))
        return false;
    return release(lane, index);
}

ON_TRIP bool record_settle(void *context, uint32_t index)
{
    struct lane *lane = context;
    uint32_t few[256], *dropped = few, count = 0, capacity = 256;
    bool free_now = settle_one(lane, index, dropped, &count);

    while (RARELY(count > 0)) {
        uint32_t input = dropped[--count];
        struct record *record = lane_record(lane, input);
        input_let_go(lane, input);
        if (!pool_owns(&lane->record_pool, input) ||
            atomic_load_explicit(&record->home_count, memory_order_relaxed) > 1) {
            lane_drop(lane, input);
            continue;
        }
        atomic_store_explicit(&record->home_count, 0, memory_order_seq_cst);
        if (count + 16 > capacity) { /* each settled record gives back at most 15 inputs */
            uint32_t *more = malloc(capacity * 2 * sizeof(*more));
            if (!more)
                abort(); /* this process ends; repair lets its holds go */
            memcpy(more, dropped, count * sizeof(*more));
            if (dropped != few)
                free(dropped);
            dropped = more;
            capacity *= 2;
        }
        if (life_ended(record_life(record)) && settle_one(lane, input, dropped, &count))
            pool_give(&lane->record_pool, input);
    }
    if (RARELY(dropped != few))
        free(dropped);
    return free_now;
}

void lane_settle_freed(struct lane *lane)
{
    uint64_t which = atomic_exchange_explicit(&lane->self->freed, 0, memory_order_seq_cst);
    pool_collect(&lane->record_pool, which);
}
