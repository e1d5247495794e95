#include <stdlib.h>

#include "sched/lane/inside.h"

/*
 * The life of a cell, and what a death leaves of it:
 *     taken, filled, pushed   `push_cell` and `push_list` name it from before the filling until after
 *                             the push: repair looks whether it is on that list
 *     on a list               of a mailbox: its slot alone takes from it; of a record: whoever has
 *                             the right to tell (record.h), so one process at a time. `chain` names the
 *                             list from before it is taken: repair looks whether it is still there
 *     freed, one by one       marked DYING with the slot, named in `undo_cell`, then `chain` goes on to
 *                             the next, then it is FREED and its owner told. A cell named in `undo_cell`
 *                             that is DYING by another, or full again, has been freed before the death
 * So repair finds every cell of a dead process, and takes none that has gone on to somebody else.
 */

static void store(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
    atomic_signal_fence(
        memory_order_seq_cst); /* in program order, for a death between two stores */
}

static uint32_t next_of(const struct lane *lane, uint32_t link)
{
    return atomic_load_explicit(&lane->cells[link - 1].next, memory_order_relaxed);
}

_Atomic uint32_t *list_head(const struct lane *lane, uint32_t list)
{
    return list & LANE_LIST_MAILBOX ? &lane->slots[list & ~LANE_LIST_MAILBOX].mailbox
                                    : &lane_record(lane, list)->dependents;
}

uint32_t cell_take(struct lane *lane)
{
    return pool_take(&lane->cell_pool);
}

void cell_push(struct lane *lane, uint32_t number, uint32_t list, uint32_t index,
               uint32_t generation, enum lane_cell_kind kind, uint32_t detail)
{
    struct lane_cell *cell = &lane->cells[number];
    _Atomic uint32_t *head = list_head(lane, list);
    uint32_t first;

#if LANE_BREAK != 1
    store(&lane->self->push_list, list);
    store(&lane->self->push_cell, number + 1);
#endif
    cell->generation = generation;
    cell->kind_detail = (uint32_t)kind | detail << 8;
    store(&cell->task, index + 1);
    first = atomic_load_explicit(head, memory_order_relaxed);
    do
        store(&cell->next, first);
    /* Release: the cell before the list's head; seq_cst orders it before a look at who sleeps. */
    while (!atomic_compare_exchange_weak_explicit(head, &first, number + 1, memory_order_seq_cst,
                                                  memory_order_relaxed));
    store(&lane->self->push_cell, 0);
}

bool cell_settle(void *context, uint32_t number)
{
    struct lane *lane = context;

    if (atomic_load_explicit(&lane->cells[number].task, memory_order_acquire) != CELL_FREED)
        return false;
    atomic_store_explicit(&lane->cells[number].task, 0, memory_order_relaxed);
    return true;
}

/* Frees the first cell of `chain`, which this slot has taken off its list and read. */
static void chain_free_first(struct lane *lane, uint32_t link)
{
    struct lane_cell *cell = &lane->cells[link - 1];
    struct lane_slot *self = lane->self;
    uint32_t next = next_of(lane, link);

    store(&cell->task, CELL_DYING + lane->slot);
#if LANE_BREAK != 2
    store(&self->undo_cell, link);
#endif
    store(&self->chain, next);
    if (pool_owns(&lane->cell_pool, link - 1)) {
        store(&cell->task, 0);
        pool_give(&lane->cell_pool, link - 1);
    } else {
        atomic_store_explicit(&cell->task, CELL_FREED, memory_order_release);
        pool_mark(&lane->cell_pool, link - 1);
    }
    store(&self->undo_cell, 0);
}

/* Takes the list off if it still begins with `first`, and frees it. */
static bool chain_take(struct lane *lane, _Atomic uint32_t *head, uint32_t first)
{
#if LANE_BREAK != 3
    store(&lane->self->chain, first);
#endif
    return atomic_compare_exchange_strong_explicit(head, &first, 0, memory_order_seq_cst,
                                                   memory_order_relaxed);
}

static void chain_free(struct lane *lane, uint32_t link)
{
    while (link) {
        uint32_t next = next_of(lane, link);
        chain_free_first(lane, link);
        link = next;
    }
    store(&lane->self->chain, 0);
}

/* ---- Edges ---- */

/* Where a task goes when it is ready: read before the swap, after which others may end it. */
struct target {
    enum { TO_QUEUE, TO_AGENT, TO_SLOT } where;
    uint16_t slot;
};

static struct target target_of(const struct lane *lane, uint32_t index, uint64_t life)
{
    const struct record *record = lane_record(lane, index);
    uint16_t flags = record_flags(record);
    struct record_call call;

    if (flags & (RECORD_GENERAL | RECORD_FAR_CALL))
        return (struct target){.where = TO_AGENT};
    if (record->kind != RECORD_METHOD)
        return (struct target){.where = TO_QUEUE};
    if (!call_peek(lane, index, life_generation(life), &call) ||
        call.actor >= lane->control->layout.slot_count)
        return (struct target){.where = TO_AGENT}; /* the swap will fail: it is another record */
    return (struct target){.where = TO_SLOT, .slot = (uint16_t)call.actor};
}

static void ready_tell(struct lane *lane, uint32_t index, uint32_t generation, struct target target)
{
    if (target.where == TO_SLOT)
        lane_wake(lane, target.slot);
    else if (target.where == TO_QUEUE)
        lane_push_hint(lane, index);
    else
        (void)!lane_post(lane, LANE_AGENT, index, generation, CELL_CALL, 0);
}

/* One edge: the input is there. A task that has gone on, or been told before, is left alone. */
static void edge_deliver(struct lane *lane, uint32_t link)
{
    const struct lane_cell *cell = &lane->cells[link - 1];
    uint32_t index = atomic_load_explicit(&cell->task, memory_order_relaxed) - 1;
    uint64_t bit = life_pending_bit(cell->kind_detail >> 8);
    struct record *task = lane_record(lane, index);
    uint64_t life = record_life(task), next;
    struct target target = {0};

    do {
        if (life_generation(life) != cell->generation || life_state(life) < RECORD_MAKING ||
            life_state(life) > RECORD_WAITING || !(life & bit))
            return;
        next = life & ~bit;
        if (life_state(life) == RECORD_WAITING && !(next & LIFE_PENDING))
            next = (next & ~(uint64_t)0xf) | RECORD_QUEUED, target = target_of(lane, index, life);
    } while (!atomic_compare_exchange_weak_explicit(&task->life, &life, next, memory_order_acq_rel,
                                                    memory_order_acquire));
    if (life_state(next) == RECORD_QUEUED)
        ready_tell(lane, index, cell->generation, target);
}

bool tell_claim(struct lane *lane, uint32_t index, uint32_t generation)
{
    struct record *record = lane_record(lane, index);
    uint64_t life = record_life(record), next;

    do {
        if (life_generation(life) != generation || !life_ended(life) || life_telling(life))
            return false;
        next = life_of(life_state(life), lane->slot, life_attempt(life), generation) |
               (life & LIFE_WAITED) | LIFE_TELLING;
    } while (!atomic_compare_exchange_weak_explicit(&record->life, &life, next,
                                                    memory_order_seq_cst, memory_order_acquire));
    return true;
}

ON_TRIP void tell_edges(struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint32_t generation = life_generation(record_life(record)), first;

    do {
        while (RARELY(first = atomic_load_explicit(&record->dependents, memory_order_acquire))) {
            /* First all are told, then the list is taken and freed: a death in between tells twice. */
            for (uint32_t link = first; link; link = next_of(lane, link))
                edge_deliver(lane, link);
            if (chain_take(lane, &record->dependents, first))
                chain_free(lane, first);
        }
        store(&lane->self->chain, 0);
        atomic_fetch_and_explicit(&record->life, ~(uint64_t)LIFE_TELLING, memory_order_seq_cst);
        /* From here on the record may be another one. An edge that came before we let go is ours to
         * tell; its submitter saw that somebody tells and went on. */
    } while (atomic_load_explicit(&record->dependents, memory_order_seq_cst) &&
             tell_claim(lane, index, generation));
}

/* ---- Mailboxes ---- */

enum moray_code lane_post(struct lane *lane, uint16_t slot, uint32_t index, uint32_t generation,
                          enum lane_cell_kind kind, uint32_t detail)
{
    uint32_t cell = cell_take(lane);

    if (cell == POOL_NONE) {
        /* Truth is in the record. (What is to be freed is told again by its home.) */
        if (slot == LANE_AGENT && (kind == CELL_CALL || kind == CELL_ENDED))
            atomic_store(&lane->control->untold, 1);
        if (slot == LANE_AGENT)
            lane_wake(lane, LANE_AGENT);
        return MORAY_BUSY;
    }
    cell_push(lane, cell, slot | LANE_LIST_MAILBOX, index, generation, kind, detail);
    lane_wake(lane, slot);
    return MORAY_OK;
}

/* The list is newest first: turned round in place, link by link, it would be lost to repair in the
 * middle; so the reader walks it into a private array from the back. */
uint32_t lane_mail(struct lane *lane, void (*take)(void *context, const struct lane_mail *mail),
                   void *context)
{
    struct lane_mail few[64], *mail = few;
    uint32_t count = 0, first;

    if (atomic_load_explicit(&lane->self->mailbox, memory_order_relaxed) == 0)
        return 0;
    store(&lane->self->taken, atomic_load_explicit(&lane->self->taken, memory_order_relaxed) + 1);
    do
        first = atomic_load_explicit(&lane->self->mailbox, memory_order_acquire);
    while (!chain_take(lane, &lane->self->mailbox, first));
    for (uint32_t link = first; link; link = next_of(lane, link))
        count++;
    if (count > 64) {
        mail = calloc(count, sizeof(*mail));
        if (!mail)
            abort(); /* nothing is lost for the node: repair finds who is to be called again */
    }
    uint32_t at = count;
    for (uint32_t link = first; link; link = next_of(lane, link)) {
        const struct lane_cell *cell = &lane->cells[link - 1];
        mail[--at] =
            (struct lane_mail){.index = atomic_load_explicit(&cell->task, memory_order_relaxed) - 1,
                               .generation = cell->generation,
                               .kind = cell->kind_detail & 0xff,
                               .detail = cell->kind_detail >> 8};
    }
    chain_free(lane, first);
    for (uint32_t i = 0; i < count; i++)
        take(context, &mail[i]);
    if (mail != few)
        free(mail);
    return count;
}
