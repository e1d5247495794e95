#include "sched/lane/repair.h"

#include <stdlib.h>

#include "sched/lane/inside.h"
#include "sched/lane/queue.h"

/* One repair: who is dead, and what is found out about each record (private memory). */
struct repair {
    struct lane *lane;
    const struct repair_calls *calls;
    uint16_t dead;
    uint32_t end;    /* records that any slot has claimed */
    uint32_t *there; /* those to be looked at, ascending: see find_there() */
    uint32_t there_count;
    uint32_t *holds; /* a record: pending tasks of the dead, kept alive, that hold it */
    uint8_t *marks;  /* a record: KEPT, LISTED */
    uint32_t *path;  /* tasks kept whose inputs are still to be looked at */
    uint32_t path_count;
};

enum mark { KEPT = 1, LISTED = 2 };
enum { NO_SLOT = UINT16_MAX }; /* as `dead`: a look without a death */

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

/* The records of the dead, and those of others that are not free: a free one has nothing of the dead, who
 * may have held, awaited or told it only while it was lent to it, as it is until the repair. What begins
 * a life from now on never met the dead. One look at each, as there may be a million, nearly all free. */
static void find_there(struct repair *repair)
{
    struct lane *lane = repair->lane;

    for (uint32_t first = 0; first < repair->end; first += POOL_SLAB_ITEMS) {
        bool own = lane_home(lane, first) == repair->dead;
        for (uint32_t index = first; index < first + POOL_SLAB_ITEMS; index++)
            if (own || life_state(record_life(lane_record(lane, index))) > RECORD_ORPHAN)
                repair->there[repair->there_count++] = index;
    }
}

/* What the dead had written of a result no reader has seen; its block is in its own slabs. What that
 * contained the agent holds until another attempt tells anew, or the record is freed. */
static void result_forget(struct record *record)
{
    atomic_fetch_and(&record->flags, (uint16_t)~RECORD_RESULT_BLOCK);
    record_set_result_bytes(record, 0);
}

void lane_requeue_dead(struct lane *lane, uint32_t index, uint32_t charge)
{
    struct record *record = lane_record(lane, index);
    uint32_t attempt = life_attempt(record_life(record)) + charge;

    result_forget(record);
    set_life(record, RECORD_QUEUED, 0, attempt > LIFE_ATTEMPT_MAX ? LIFE_ATTEMPT_MAX : attempt);
}

void lane_adopt_dead(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);

    result_forget(record);
    set_life(record, RECORD_RUNNING, lane->slot, life_attempt(record_life(record)));
}

/* ---- Lists ---- */

/* Is the cell on the list? Only where nobody takes from it meanwhile; pushes do no harm. */
static bool on_list(const struct lane *lane, uint32_t list, uint32_t cell)
{
    uint32_t steps = lane->control->layout.cell_count;

    for (uint32_t link = atomic_load(list_head(lane, list)); link && steps-- > 0;
         link = atomic_load(&lane->cells[link - 1].next))
        if (link == cell)
            return true;
    return false;
}

static void free_cell(struct lane *lane, uint32_t link)
{
    atomic_store(&lane->cells[link - 1].task, CELL_FREED);
    pool_mark(&lane->cell_pool, link - 1);
}

/* The record whose end the dead was telling; at most one. */
static uint32_t find_told(const struct repair *repair)
{
    for (uint32_t i = 0; i < repair->there_count; i++) {
        uint64_t life = record_life(lane_record(repair->lane, repair->there[i]));
        if (life_telling(life) && life_slot(life) == repair->dead)
            return repair->there[i];
    }
    return RECORD_NONE;
}

/* What the dead had taken off a list and told, but not freed. The list is that of the record that it
 * told; else of its mailbox, from which nobody else takes. */
static void finish_chain(struct lane *lane, uint16_t dead, uint32_t told)
{
    struct lane_slot *slot = &lane->slots[dead];
    uint32_t undo = atomic_load(&slot->undo_cell), chain = atomic_load(&slot->chain);
    uint32_t list = told == RECORD_NONE ? dead | LANE_LIST_MAILBOX : told;

    if (undo && undo != chain) {
        uint32_t task = atomic_load(&lane->cells[undo - 1].task);
        if (task == CELL_DYING + dead || task == CELL_FREED)
            free_cell(lane, undo);
    }
    atomic_store(&slot->undo_cell, 0);
    if (chain && !on_list(lane, list, chain))
        while (chain) {
            uint32_t next = atomic_load(&lane->cells[chain - 1].next);
            free_cell(lane, chain);
            chain = next;
        }
    atomic_store(&slot->chain, 0);
}

static void take_over_telling(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    set_life(record, life_state(life), lane->slot, life_attempt(life));
    atomic_fetch_or(&record->life, LIFE_TELLING);
    tell_waiters(lane, index);
    tell_edges(lane, index);
}

/* ---- The cell that was being pushed ---- */

enum verdict { NEVER, PUSHED, UNKNOWN };

static bool is_full(const struct lane *lane, uint32_t cell)
{
    uint32_t task = atomic_load(&lane->cells[cell - 1].task);
    return task != 0 && task < CELL_DYING;
}

/* Its slot alone takes from a mailbox, and counts in `taken` before it does. */
static enum verdict judge_mailbox(const struct lane *lane, uint32_t list, uint16_t dead,
                                  uint32_t cell)
{
    uint32_t slot = list & ~LANE_LIST_MAILBOX;
    uint32_t taken = atomic_load(&lane->slots[slot].taken);
    bool walks = atomic_load(&lane->slots[slot].chain) || atomic_load(&lane->slots[slot].undo_cell);

    if (on_list(lane, list, cell))
        return PUSHED;
    if (slot != dead && slot != lane->slot &&
        (walks || taken != atomic_load(&lane->slots[slot].taken)))
        return is_full(lane, cell) ? UNKNOWN : PUSHED;
    return is_full(lane, cell) ? NEVER : PUSHED;
}

/* From a record's list nobody takes before its end; after it, whoever has the right to tell. The dead
 * held the record, or was lent it by a task that holds it, so it is still the same. */
static enum verdict judge_edges(struct lane *lane, uint32_t index, uint32_t cell)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);
    bool there;

    if (!life_ended(life)) {
        there = on_list(lane, index, cell);
        if (!life_ended(record_life(record)))
            return there ? PUSHED : NEVER;
    }
    if (!tell_claim(lane, index, life_generation(life)))
        return is_full(lane, cell) ? UNKNOWN : PUSHED;
    there = on_list(lane, index, cell) || !is_full(lane, cell);
    tell_edges(lane, index);
    return there ? PUSHED : NEVER;
}

static bool judge_push(struct lane *lane, uint16_t dead)
{
    struct lane_slot *slot = &lane->slots[dead];
    uint32_t cell = atomic_load(&slot->push_cell), list = atomic_load(&slot->push_list);
    enum verdict verdict = PUSHED;

    /* Not filled yet: as free as any other. Dying or freed: it was pushed and taken. */
    if (cell && is_full(lane, cell))
        verdict = list & LANE_LIST_MAILBOX ? judge_mailbox(lane, list, dead, cell)
                                           : judge_edges(lane, list, cell);
    if (verdict == UNKNOWN)
        return false;
    if (verdict == NEVER)
        free_cell(lane, cell);
    atomic_store(&slot->push_cell, 0);
    return true;
}

/* The cells of the dead that are in no list and in nobody's hands. */
static void free_cells(struct lane *lane, uint16_t dead)
{
    uint32_t slabs = atomic_load(&lane->control->cells_claimed);

    for (uint32_t slab = 0; slab < slabs; slab++) {
        if (atomic_load(&lane->cell_pool.slabs[slab].owner) != dead + 1u)
            continue;
        for (uint32_t cell = slab * POOL_SLAB_ITEMS; cell < (slab + 1) * POOL_SLAB_ITEMS; cell++) {
            uint32_t task = atomic_load(&lane->cells[cell].task);
            if (task == 0 || task == CELL_FREED)
                free_cell(lane, cell + 1);
        }
    }
}

/* ---- Which records of the dead live on ---- */

static void keep(struct repair *repair, uint32_t index)
{
    if (index >= repair->end || repair->marks[index] & KEPT ||
        lane_home(repair->lane, index) != repair->dead)
        return;
    uint64_t life = record_life(lane_record(repair->lane, index));
    if (life_state(life) < RECORD_WAITING || life_ended(life))
        return;
    repair->marks[index] |= KEPT;
    repair->path[repair->path_count++] = index;
}

/* A task that lives on holds its inputs, and has further results; so they live on too. */
static void keep_all(struct repair *repair, uint32_t root)
{
    struct lane *lane = repair->lane;

    keep(repair, root);
    while (repair->path_count > 0) {
        const struct record *task = lane_record(lane, repair->path[--repair->path_count]);
        const struct record_long *details = lane_long(lane, task);
        for (uint32_t i = 0; details && i < details->extra_count; i++)
            keep(repair, details->extra[i]);
        if (!(record_flags(task) & RECORD_HOLDS_INPUTS))
            continue;
        uint32_t bytes;
        const uint32_t *words = lane_arguments(lane, task, &bytes);
        for (int i = __builtin_popcount(task->reference_mask); i-- > 0;) {
            uint32_t input = words[i * 4 + 1];
            if (input >= repair->end)
                continue;
            repair->holds[input]++;
            keep(repair, input);
        }
    }
}

static bool held_by_others(const struct lane *lane, const struct record *record)
{
    return !holders_empty(lane, record);
}

/* Kept: what runs elsewhere, what somebody else holds, and what the agent has to place. The rest is
 * children of a dead attempt, which its next attempt makes anew: they are cancelled. */
static void find_kept(struct repair *repair)
{
    struct lane *lane = repair->lane;

    for (uint32_t i = 0; i < repair->there_count; i++) {
        uint32_t index = repair->there[i];
        const struct record *record = lane_record(lane, index);
        if (lane_home(lane, index) == repair->dead &&
            (life_state(record_life(record)) == RECORD_RUNNING || held_by_others(lane, record) ||
             (record_flags(record) & RECORD_GENERAL)))
            keep_all(repair, index);
    }
    for (uint32_t i = 0; i < repair->there_count; i++) {
        uint32_t index = repair->there[i];
        uint64_t life = record_life(lane_record(lane, index));
        if (lane_home(lane, index) != repair->dead || repair->marks[index] & KEPT ||
            (life_state(life) != RECORD_WAITING && life_state(life) != RECORD_QUEUED))
            continue;
        if (!lane_cancel(lane, index, life_generation(life), repair->calls->cancelled,
                         repair->calls->context))
            keep_all(repair, index); /* somebody has just begun to run it */
    }
}

/* ---- Records ---- */

/* Frees a record of the dead: first its blocks, then the record, which its slot's next process
 * collects. */
static void orphan(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint16_t flags = record_flags(record);
    uint64_t life = record_life(record);
    uint32_t generation = life_generation(life);

    if (life_state(life) > RECORD_ORPHAN) {
        if ((flags & RECORD_RESULT_BLOCK) && record->result.block.place)
            arena_free(&lane->arena, record->result.block.place, index);
        if (flags & RECORD_BLOCK)
            arena_free(&lane->arena, ((struct record_block *)record->arguments)->place, index);
        generation += !life_retired(life);
    }
    if (life_retired(life)) {
        atomic_store(&record->life, life_of(RECORD_FREE, 0, 0, generation));
        return;
    }
    atomic_store(&record->life, life_of(RECORD_ORPHAN, 0, 0, generation));
    pool_mark(&lane->record_pool, index);
}

/* A record of the dead: in the making, or free in a stack that died with it, or held by nobody. */
static void own_record(struct repair *repair, uint32_t index)
{
    struct lane *lane = repair->lane;
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record);

    if (life_state(life) == RECORD_MAKING) {
        /* Its blocks are found by the arena's repair, its edges lead nowhere from now on. What the agent
         * keeps for it is let go as for one that failed. */
        uint16_t tied = record_flags(record) & RECORD_TIED;
        atomic_store(&record->flags, tied);
        if (tied)
            atomic_store(&record->life,
                         life = life_of(RECORD_FAILED, repair->dead, 0, life_generation(life)));
    }
    if (life_state(life) <= RECORD_MAKING) {
        orphan(lane, index);
        return;
    }
    record->input_holds =
        (uint16_t)(repair->holds[index] < INPUT_HOLDS_MAX ? repair->holds[index] : INPUT_HOLDS_MAX);
    atomic_store(&record->home_count, repair->holds[index]);
    life = atomic_load(&record->life); /* after the count: who ends it now sees the count */
    if (!life_ended(life))
        return;
    if (!(repair->marks[index] & KEPT))
        atomic_fetch_and(&record->flags, (uint16_t)~RECORD_HOLDS_INPUTS);
    if (repair->holds[index] || held_by_others(lane, record) || life_telling(life) ||
        (record_flags(record) & RECORD_HOLDS_INPUTS))
        return;
    if (atomic_load(&record->dependents) && tell_claim(lane, index, life_generation(life)))
        tell_edges(lane, index);
    if (!(record_flags(record) & RECORD_TIED))
        orphan(lane, index);
    else if (lane_post(lane, LANE_AGENT, index, life_generation(life), CELL_FREE_ME, 0) != MORAY_OK)
        home_tell(lane, index); /* the next process of the slot sends it there */
}

static bool bit_take(struct lane *lane, uint32_t index, uint16_t slot, bool waiters)
{
    struct record *record = lane_record(lane, index);
    _Atomic uint64_t *word = waiters ? &record->waiters : &record->holders;
    uint64_t bit = (uint64_t)1 << slot % 64;

    if (slot >= LANE_DIRECT_SLOTS)
        word = row_of(lane, index, waiters) + slot / 64;
    return atomic_load(word) & bit && atomic_fetch_and(word, ~bit) & bit;
}

/* A record of somebody else: the dead holds and awaits it no more, except through its tasks that live
 * on. Its home looks at it, as the dead may have let it go without a word. */
static void other_record(struct repair *repair, uint32_t index)
{
    struct lane *lane = repair->lane;
    struct record *record = lane_record(lane, index);
    uint64_t life;

    bit_take(lane, index, repair->dead, true);
    if (!repair->holds[index])
        bit_take(lane, index, repair->dead, false);
    life = atomic_load(&record->life);
    if (life_ended(life) || (record_flags(record) & RECORD_PROXY))
        if ((record_flags(record) & (RECORD_HOLDS_INPUTS | RECORD_PROXY)) ||
            (atomic_load(&record->home_count) == 0 && holders_empty(lane, record)))
            home_tell(lane, index);
}

/* ---- Who has to be told again ---- */

static void find_listed(struct repair *repair)
{
    struct lane *lane = repair->lane;

    for (uint32_t slot = 0; slot < lane->control->layout.slot_count; slot++) {
        uint64_t head = atomic_load(&lane->slots[slot].head);
        uint64_t tail = atomic_load(&lane->slots[slot].tail);
        for (; head < tail; head++) {
            uint64_t entry = atomic_load(&queue_ring(lane, slot)[head & lane->ring_mask]);
            uint32_t index = (uint32_t)entry;
            if (index < repair->end &&
                life_generation(record_life(lane_record(lane, index))) == entry >> 32)
                repair->marks[index] |= LISTED;
        }
    }
}

static void tell_again(struct repair *repair, uint32_t index)
{
    struct lane *lane = repair->lane;
    struct record *record = lane_record(lane, index);
    const struct repair_calls *calls = repair->calls;
    uint64_t life = record_life(record);
    struct record_call call;

    if (life_ended(life) && atomic_load(&record->waiters) & 1)
        calls->ended(calls->context, index);
    if ((life_state(life) != RECORD_QUEUED && life_state(life) != RECORD_WAITING) ||
        record->kind == RECORD_OBJECT)
        return;
    if (record->kind == RECORD_METHOD && !(record_flags(record) & RECORD_FAR_CALL)) {
        if (call_peek(lane, index, life_generation(life), &call) &&
            (repair->dead == NO_SLOT || call.actor == repair->dead ||
             lane_home(lane, index) == repair->dead))
            calls->call(calls->context, index);
    } else if (life_state(life) == RECORD_QUEUED && !(repair->marks[index] & LISTED)) {
        calls->queued(calls->context, index);
    }
}

/* Whatever wake-up the dead swallowed is given again: whoever sleeps looks once more. */
static void wake_all(struct lane *lane)
{
    for (uint32_t slot = 0; slot < lane->control->layout.slot_count; slot++) {
        if (atomic_load(&lane->slots[slot].head) < atomic_load(&lane->slots[slot].tail))
            lane_bit_set(lane->control->queues, slot);
        if (slot != lane->slot && atomic_load(&lane->slots[slot].asleep))
            lane_wake(lane, (uint16_t)slot);
    }
    if (lane_has_work(lane))
        lane_rouse(lane);
}

/* The dead had taken it to cancel it: it may lack inputs, so it cannot be queued again. */
static void finish_cancel(struct repair *repair, uint32_t index)
{
    lane_adopt_dead(repair->lane, index);
    repair->calls->cancelled(repair->calls->context, index);
    lane_finish(repair->lane, index, RECORD_FAILED);
}

static void find_running(struct repair *repair)
{
    uint32_t top = atomic_load(&repair->lane->slots[repair->dead].top);

    /* Further results before their tasks: who fails a task fails those of its results that are open. */
    for (uint32_t i = 0; i < 2 * repair->there_count; i++) {
        uint32_t index = repair->there[i % repair->there_count];
        const struct record *record = lane_record(repair->lane, index);
        uint64_t life = record_life(record);
        if (life_state(life) != RECORD_RUNNING || life_slot(life) != repair->dead ||
            (i < repair->there_count) != (record->kind == RECORD_OBJECT))
            continue;
        if (life & LIFE_CANCELLING)
            finish_cancel(repair, index);
        else
            repair->calls->running(repair->calls->context, index, top == index + 1);
    }
}

static void each_record(struct repair *repair)
{
    find_running(repair);
    find_kept(repair);
    for (uint32_t i = 0; i < repair->there_count; i++)
        if (lane_home(repair->lane, repair->there[i]) == repair->dead)
            own_record(repair, repair->there[i]);
        else
            other_record(repair, repair->there[i]);
    find_listed(repair);
    for (uint32_t i = 0; i < repair->there_count; i++)
        tell_again(repair, repair->there[i]);
}

/* It may have died while it popped: what it was about to pop is in no queue. A thief that looked before
 * may take the last entry even now, which would leave head > tail to the next process, whose push nobody
 * would see: head moves on before it, so that it fails. */
static void settle_queue(struct lane_slot *slot)
{
    uint64_t head = atomic_load(&slot->head);

    if (atomic_load(&slot->tail) > head)
        return;
    (void)!atomic_compare_exchange_strong(&slot->head, &head, head + 1);
    atomic_store(&slot->tail, atomic_load(&slot->head));
}

bool lane_tell_untold(struct lane *lane, const struct repair_calls *calls)
{
    struct repair repair = {.lane = lane, .calls = calls, .dead = NO_SLOT};

    if (!atomic_load_explicit(&lane->control->untold, memory_order_relaxed))
        return true;
    repair.end = records_end(lane);
    repair.marks = calloc(repair.end + 1, sizeof(*repair.marks));
    if (!repair.marks)
        return false;
    atomic_store(&lane->control->untold,
                 0); /* before the look: what comes meanwhile sets it again */
    find_listed(&repair);
    for (uint32_t index = 0; index < repair.end; index++)
        tell_again(&repair, index);
    free(repair.marks);
    return true;
}

/* Zeros that are not touched cost nothing, however many records there are. */
static bool take_memory(struct repair *repair)
{
    repair->holds = calloc(repair->end + 1, sizeof(*repair->holds));
    repair->marks = calloc(repair->end + 1, sizeof(*repair->marks));
    repair->path = malloc((repair->end + 1) * sizeof(*repair->path));
    repair->there = malloc((repair->end + 1) * sizeof(*repair->there));
    return repair->holds && repair->marks && repair->path && repair->there;
}

static void free_memory(struct repair *repair)
{
    free(repair->holds);
    free(repair->marks);
    free(repair->path);
    free(repair->there);
}

/* False: the cell that the dead was pushing is in somebody's hands. */
static bool each_list(struct repair *repair)
{
    uint32_t told = find_told(repair);

    finish_chain(repair->lane, repair->dead, told);
    if (told != RECORD_NONE)
        take_over_telling(repair->lane, told);
    return judge_push(repair->lane, repair->dead);
}

bool lane_repair(struct lane *lane, uint16_t dead, const struct repair_calls *calls)
{
    struct lane_slot *slot = &lane->slots[dead];
    struct repair repair = {.lane = lane, .calls = calls, .dead = dead};
    bool done = false;

    pool_raise(&lane->record_pool);
    pool_raise(&lane->cell_pool);
    repair.end = records_end(lane);
    lane_bit_clear(lane->control->searching, dead);
    lane_bit_clear(lane->control->idle, dead);
    atomic_store(&slot->asleep, 0);
    atomic_store(&slot->waits, 0);
    settle_queue(slot);

    if (take_memory(&repair)) {
        find_there(&repair);
        done = each_list(&repair);
    }
    if (done) {
        each_record(&repair);
        free_cells(lane, dead);
        arena_repair(&lane->arena, dead);
        atomic_store(&slot->top, 0);
        wake_all(lane);
    }
    free_memory(&repair);
    return done;
}
