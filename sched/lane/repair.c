#include "sched/lane/repair.h"

#include "sched/lane/inside.h"
#include "sched/lane/queue.h"

static uint32_t records_end(const struct lane *lane)
{
    return atomic_load(&lane->control->records_claimed) * POOL_SLAB_ITEMS;
}

static void set_life(struct record *record, enum record_state state, uint32_t slot,
                     uint32_t attempt)
{
    uint64_t life = record_life(record), next;

    do
        next = life_of(state, slot, attempt, life_generation(life)) | (life & LIFE_WAITED);
    while (!atomic_compare_exchange_weak(&record->life, &life, next));
}

void lane_requeue_dead(struct lane *lane, uint32_t index, uint32_t charge)
{
    struct record *record = lane_record(lane, index);
    uint32_t attempt = life_attempt(record_life(record)) + charge;

    /* What the dead had written of a result no reader has seen; its block is in its own slabs. */
    atomic_fetch_and(&record->flags, (uint16_t) ~(RECORD_RESULT_BLOCK | RECORD_CONTAINS));
    record_set_result_bytes(record, 0);
    set_life(record, RECORD_QUEUED, 0, attempt > LIFE_ATTEMPT_MAX ? LIFE_ATTEMPT_MAX : attempt);
}

void lane_adopt_dead(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);

    atomic_fetch_and(&record->flags, (uint16_t) ~(RECORD_RESULT_BLOCK | RECORD_CONTAINS));
    record_set_result_bytes(record, 0);
    set_life(record, RECORD_RUNNING, lane->slot, life_attempt(record_life(record)));
}

/* ---- Lists ---- */

/* A list that the dead had taken off: told again as a whole, then freed. It may also be still where
 * it was, if the dead came no further than naming it; then its owner walks it as well. */
static void finish_chain(struct lane *lane, struct lane_slot *slot, uint16_t dead,
                         const struct repair_calls *calls)
{
    uint32_t first = atomic_load(&slot->chain), undo = atomic_load(&slot->undo_cell);

    if (undo) {
        struct lane_cell *cell = &lane->cells[undo - 1];
        if (atomic_load(&cell->task) == atomic_load(&slot->undo_task) &&
            cell->generation == atomic_load(&slot->undo_generation) &&
            cell->kind_detail == atomic_load(&slot->undo_detail)) {
            /* It was told before it was to be freed; only the freeing is missing. But where `chain`
             * still names it, the loop below does both. */
            if (first != undo) {
                atomic_store(&cell->task, CELL_FREED);
                pool_mark(&lane->cell_pool, undo - 1);
            }
        } else if (atomic_load(&cell->task) == CELL_FREED) {
            pool_mark(&lane->cell_pool, undo - 1);
        }
        if (first == undo && atomic_load(&cell->task) != atomic_load(&slot->undo_task))
            first = atomic_load(&cell->next);
        atomic_store(&slot->chain, first);
        atomic_store(&slot->undo_cell, 0);
    }
    (void)dead;
    for (uint32_t link = first; link; link = atomic_load(&lane->cells[link - 1].next)) {
        struct lane_cell *cell = &lane->cells[link - 1];
        uint32_t task = atomic_load(&cell->task);
        if (task == 0 || task >= CELL_FREED)
            continue;
        if ((cell->kind_detail & 0xff) == CELL_EDGE)
            edge_deliver(lane, link - 1);
        else
            calls->call(calls->context, task - 1);
    }
}

/* Whether the list that begins at `list` still is the one the dead had named in `chain`. */
static bool still_there(const struct lane *lane, uint32_t first, uint32_t chain)
{
    for (uint32_t link = first, steps = 0; link && steps < 1u << 24; steps++) {
        if (link == chain)
            return true;
        link = atomic_load(&lane->cells[link - 1].next);
    }
    return false;
}

static bool chain_is_listed(const struct lane *lane, uint32_t chain, uint16_t dead)
{
    if (still_there(lane, atomic_load(&lane->slots[dead].mailbox), chain))
        return true;
    for (uint32_t index = 0; index < records_end(lane); index++) {
        uint32_t first = atomic_load(&lane->records[index].dependents);
        if (life_state(record_life(&lane->records[index])) >= RECORD_MAKING && first &&
            still_there(lane, first, chain))
            return true;
    }
    return false;
}

static void free_chain(struct lane *lane, struct lane_slot *slot)
{
    for (uint32_t link = atomic_load(&slot->chain); link;) {
        struct lane_cell *cell = &lane->cells[link - 1];
        uint32_t next = atomic_load(&cell->next), task = atomic_load(&cell->task);
        if (task != 0 && task < CELL_FREED) {
            atomic_store(&cell->task, CELL_FREED);
            pool_mark(&lane->cell_pool, link - 1);
        }
        link = next;
    }
    atomic_store(&slot->chain, 0);
}

/* ---- The cell that was being pushed ---- */

static bool somebody_walks(const struct lane *lane)
{
    for (uint32_t slot = 0; slot < lane->control->layout.slot_count; slot++)
        if (atomic_load(&lane->slots[slot].chain) || atomic_load(&lane->slots[slot].undo_cell))
            return true;
    return false;
}

static bool is_listed(const struct lane *lane, uint32_t cell)
{
    for (uint32_t slot = 0; slot < lane->control->layout.slot_count; slot++)
        if (still_there(lane, atomic_load(&lane->slots[slot].mailbox), cell))
            return true;
    for (uint32_t index = 0; index < records_end(lane); index++)
        if (still_there(lane, atomic_load(&lane->records[index].dependents), cell))
            return true;
    return false;
}

bool lane_repair_cell(struct lane *lane, uint16_t dead)
{
    struct lane_slot *slot = &lane->slots[dead];
    uint32_t number = atomic_load(&slot->push_cell);
    struct lane_cell *cell;

    if (!number)
        return true;
    cell = &lane->cells[number - 1];
    /* Pushed, and still on its list: whoever takes the list frees it. Pushed and taken: then it is
     * freed, or somebody is just walking. Else it was never pushed. */
    if (!is_listed(lane, number)) {
        uint32_t task = atomic_load(&cell->task);
        if (somebody_walks(lane))
            return false;
        if (atomic_load(&cell->task) == task && task < CELL_FREED) {
            atomic_store(&cell->task, CELL_FREED);
            pool_mark(&lane->cell_pool, number - 1);
        }
    }
    atomic_store(&slot->push_cell, 0);
    return true;
}

/* All cells of the dead that are in no list and in nobody's hands: those marked as free. */
static void orphan_cells(struct lane *lane, uint16_t dead)
{
    uint32_t slabs = atomic_load(&lane->control->cells_claimed);
    uint32_t pushing = atomic_load(&lane->slots[dead].push_cell);

    for (uint32_t slab = 0; slab < slabs; slab++) {
        if (atomic_load(&lane->cell_pool.slabs[slab].owner) != dead + 1u)
            continue;
        for (uint32_t cell = slab * POOL_SLAB_ITEMS; cell < (slab + 1) * POOL_SLAB_ITEMS; cell++) {
            uint32_t nobody = 0;
            if (cell + 1 == pushing)
                continue;
            if (atomic_compare_exchange_strong(&lane->cells[cell].task, &nobody, CELL_ORPHAN) ||
                nobody >= CELL_FREED)
                pool_mark(&lane->cell_pool, cell);
        }
    }
}

/* ---- Records ---- */

static void clear_bits(struct lane *lane, uint32_t index, uint16_t dead)
{
    struct record *record = lane_record(lane, index);

    if (dead >= LANE_DIRECT_SLOTS) {
        lane_bit_clear(row_of(lane, index, false), dead);
        lane_bit_clear(row_of(lane, index, true), dead);
        return;
    }
    if (atomic_load(&record->holders) >> dead & 1)
        lane_bit_clear(&record->holders, dead);
    if (atomic_load(&record->waiters) >> dead & 1)
        lane_bit_clear(&record->waiters, dead);
}

/* Blocks go, then the record: the order of arena.h. The arena's own repair follows, and frees by the
 * backs what this misses. */
static void orphan(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint16_t flags = record_flags(record);
    uint64_t life = record_life(record);

    if (life_state(life) > RECORD_ORPHAN) {
        if ((flags & RECORD_RESULT_BLOCK) && record->result.block.place)
            arena_free(&lane->arena, record->result.block.place, index);
        if (flags & RECORD_BLOCK)
            arena_free(&lane->arena, ((struct record_block *)record->arguments)->place, index);
        life += (uint64_t)1 << 32;
    }
    atomic_store(&record->life, life_of(RECORD_ORPHAN, 0, 0, life_generation(life)));
    pool_mark(&lane->record_pool, index);
}

static bool on_the_inputs(const struct lane *lane, const struct record *task, uint32_t input)
{
    uint32_t bytes;
    const uint32_t *words = lane_arguments(lane, task, &bytes);

    for (int i = __builtin_popcount(task->reference_mask); i-- > 0;)
        if (words[i * 4 + 1] == input)
            return true;
    return false;
}

/* Tasks that the dead made and that live on hold their inputs through it: its counts and bits are
 * made anew from them. */
static void keep_inputs(struct lane *lane, uint32_t index, uint16_t dead)
{
    struct record *task = lane_record(lane, index);
    uint32_t bytes;
    const uint32_t *words = lane_arguments(lane, task, &bytes);

    for (int i = __builtin_popcount(task->reference_mask); i-- > 0;) {
        uint32_t input = words[i * 4 + 1];
        if (lane_home(lane, input) == dead)
            atomic_fetch_add(&lane_record(lane, input)->home_count, 1);
        else if (dead < LANE_DIRECT_SLOTS)
            lane_bit_set(&lane_record(lane, input)->holders, dead);
        else {
            lane_bit_set(row_of(lane, input, false), dead);
            lane_bit_set(&lane_record(lane, input)->holders, LANE_DIRECT_SLOTS);
        }
    }
    (void)on_the_inputs;
}

static void first_pass(struct lane *lane, uint32_t index, uint16_t dead,
                       const struct repair_calls *calls)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);
    uint32_t top = atomic_load(&lane->slots[dead].top);

    if (life_state(life) >= RECORD_MAKING)
        clear_bits(lane, index, dead);
    if (life_state(life) == RECORD_RUNNING && life_slot(life) == dead)
        calls->running(calls->context, index, top == index + 1);
    if (lane_home(lane, index) != dead)
        return;
    if (life_state(life) == RECORD_MAKING) {
        if (life_slot(life) == dead) {
            /* Its blocks are found by the arena's repair, its edges lead nowhere from now on. */
            atomic_store(&record->flags, 0);
            orphan(lane, index);
        }
    } else if (life_state(life) <= RECORD_ORPHAN) {
        orphan(lane, index);
    } else {
        atomic_store(&record->home_count, 0);
    }
}

static void second_pass(struct lane *lane, uint32_t index, uint16_t dead,
                        const struct repair_calls *calls)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    if (lane_home(lane, index) == dead && holders_empty(lane, record) &&
        !(record_flags(record) & RECORD_GENERAL) &&
        (life_state(life) == RECORD_WAITING || life_state(life) == RECORD_QUEUED))
        lane_cancel(lane, index, life_generation(life), calls->cancelled, calls->context);
    life = record_life(record);
    if (lane_home(lane, index) == dead && life_state(life) >= RECORD_WAITING &&
        (record_flags(record) & RECORD_HOLDS_INPUTS)) {
        if (life_ended(life))
            atomic_fetch_and(&record->flags, (uint16_t)~RECORD_HOLDS_INPUTS);
        else
            keep_inputs(lane, index, dead);
    }
}

static void third_pass(struct lane *lane, uint32_t index, uint16_t dead,
                       const struct repair_calls *calls)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    if (life_state(life) == RECORD_WAITING) { /* an edge may have been told by halves */
        uint16_t pending = atomic_load(&record->pending);
        uint32_t bytes, place = 0;
        const uint32_t *words = lane_arguments(lane, record, &bytes);
        if (pending == 0)
            pending_clear(lane, index, life_generation(life), 0);
        if ((pending & RECORD_PENDING_SUBMIT) && lane_home(lane, index) == dead)
            pending_clear(lane, index, life_generation(life), RECORD_PENDING_SUBMIT);
        for (uint32_t argument = 0; argument < 15; argument++) {
            if (!(record->reference_mask >> argument & 1))
                continue;
            uint32_t input = words[place++ * 4 + 1];
            if ((pending >> argument & 1) && life_ended(record_life(lane_record(lane, input))))
                edges_deliver(lane, input);
        }
        life = record_life(record);
    }
    if (life_state(life) == RECORD_QUEUED || life_state(life) == RECORD_WAITING) {
        if (record->kind == RECORD_METHOD && !(record_flags(record) & RECORD_FAR_CALL)) {
            if (lane_call(lane, record)->actor == dead || lane_home(lane, index) == dead)
                calls->call(calls->context, index);
        } else if (life_state(life) == RECORD_QUEUED) {
            calls->queued(calls->context, index);
        }
    }
    if (life_ended(life)) {
        /* It may have died between the end and the telling. */
        if (life_slot(life) == dead) {
            end_tell(lane, index);
            home_tell(lane, index);
        }
        if (atomic_load(&record->waiters) & 1)
            calls->ended(calls->context, index);
        if (lane_home(lane, index) == dead && atomic_load(&record->home_count) == 0 &&
            holders_empty(lane, record)) {
            if (record_flags(record) &
                (RECORD_CONTAINS | RECORD_RESULT_FAR | RECORD_RESULT_SHARED)) {
                if (lane_post(lane, LANE_AGENT, index, life_generation(life), CELL_FREE_ME, 0))
                    lane_wake(lane, LANE_AGENT);
            } else
                orphan(lane, index);
        }
        /* Its bit may have been the last that kept a record of somebody else. */
        if (lane_home(lane, index) != dead)
            home_tell(lane, index);
    }
}

bool lane_repair(struct lane *lane, uint16_t dead, const struct repair_calls *calls)
{
    struct lane_slot *slot = &lane->slots[dead];
    uint32_t chain = atomic_load(&slot->chain);
    bool judged;

    lane_bit_clear(lane->control->searching, dead);
    lane_bit_clear(lane->control->idle, dead);
    atomic_store(&slot->asleep, 0);

    /* A list that the dead named but did not take yet stays with its owner. */
    if (chain && !atomic_load(&slot->undo_cell) && chain_is_listed(lane, chain, dead))
        atomic_store(&slot->chain, 0);
    for (uint32_t index = 0; index < records_end(lane); index++)
        first_pass(lane, index, dead, calls);
    finish_chain(lane, slot, dead, calls);
    free_chain(lane, slot);
    for (uint32_t index = 0; index < records_end(lane); index++)
        second_pass(lane, index, dead, calls);
    judged = lane_repair_cell(lane, dead);
    orphan_cells(lane, dead);
    for (uint32_t index = 0; index < records_end(lane); index++)
        third_pass(lane, index, dead, calls);
    arena_repair(&lane->arena, dead);
    atomic_store(&slot->top, 0);

    /* Its own queue stays for thieves; whatever wake-up it swallowed is given again. */
    for (uint32_t other = 0; other < lane->control->layout.slot_count; other++)
        if (atomic_load(&lane->slots[other].head) < atomic_load(&lane->slots[other].tail))
            lane_bit_set(lane->control->queues, other);
    if (lane_has_work(lane))
        lane_rouse(lane);
    return judged;
}
