#include <stdlib.h>

#include "sched/lane/inside.h"

/*
 * The life of a cell, and what a death leaves of it:
 *     taken, filled, pushed     `push_cell` names it from before the filling until after the push
 *     on a list                 the list's owner takes the whole list off, naming it in `chain` first
 *     read, then freed          `undo_*` name it and what it held until its bit is set; `chain` goes
 *                               to the next one before that
 * So repair finds every cell of a dead process: pushed or not, walked or not, freed or not.
 */

static void store(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
    atomic_signal_fence(
        memory_order_seq_cst); /* in program order, for a death between two stores */
}

bool cell_push(struct lane *lane, _Atomic uint32_t *list, uint32_t index, uint32_t generation,
               enum lane_cell_kind kind, uint32_t detail)
{
    uint32_t number = pool_take(&lane->cell_pool), first;
    struct lane_cell *cell;

    if (number == POOL_NONE) {
        pool_collect(&lane->cell_pool);
        number = pool_take(&lane->cell_pool);
        if (number == POOL_NONE)
            return false;
    }
    cell = &lane->cells[number];
    store(&lane->self->push_cell, number + 1);
    cell->generation = generation;
    cell->kind_detail = (uint32_t)kind | detail << 8;
    store(&cell->task, index + 1);
    first = atomic_load_explicit(list, memory_order_relaxed);
    do
        store(&cell->next, first);
    /* Release: the cell before the list's head; seq_cst orders it before a look at who sleeps. */
    while (!atomic_compare_exchange_weak_explicit(list, &first, number + 1, memory_order_seq_cst,
                                                  memory_order_relaxed));
    store(&lane->self->push_cell, 0);
    return true;
}

bool cell_settle(void *context, uint32_t number)
{
    struct lane *lane = context;
    uint32_t task = atomic_load_explicit(&lane->cells[number].task, memory_order_acquire);

    if (task != CELL_FREED && task != CELL_ORPHAN)
        return false;
    atomic_store_explicit(&lane->cells[number].task, 0, memory_order_relaxed);
    return true;
}

static void tell_cell_home(struct lane *lane, uint32_t number)
{
    pool_mark(&lane->cell_pool, number);
}

void cell_free(struct lane *lane, uint32_t number)
{
    struct lane_cell *cell = &lane->cells[number];
    struct lane_slot *self = lane->self;

    store(&self->undo_task, atomic_load_explicit(&cell->task, memory_order_relaxed));
    store(&self->undo_generation, cell->generation);
    store(&self->undo_detail, cell->kind_detail);
    store(&self->undo_cell, number + 1);
    store(&self->chain, atomic_load_explicit(&cell->next, memory_order_relaxed));
    if (pool_home(&lane->cell_pool, number) == lane->slot) {
        store(&cell->task, 0);
        pool_give(&lane->cell_pool, number);
    } else {
        atomic_store_explicit(&cell->task, CELL_FREED, memory_order_release);
        tell_cell_home(lane, number);
    }
    store(&self->undo_cell, 0);
}

/* Takes a whole list off; `chain` names it from before it is ours. 0: it was empty. */
static uint32_t take_list(struct lane *lane, _Atomic uint32_t *list)
{
    uint32_t first = atomic_load_explicit(list, memory_order_acquire);

    while (first) {
        store(&lane->self->chain, first);
        if (atomic_compare_exchange_weak_explicit(list, &first, 0, memory_order_seq_cst,
                                                  memory_order_acquire))
            return first;
    }
    store(&lane->self->chain, 0);
    return 0;
}

void edge_deliver(struct lane *lane, uint32_t number)
{
    struct lane_cell *cell = &lane->cells[number];
    uint32_t index = atomic_load_explicit(&cell->task, memory_order_relaxed) - 1;
    struct record *task = lane_record(lane, index);
    uint64_t life = record_life(task);

    /* A task that died in the making, or was cancelled, has gone on: its edge leads nowhere. */
    if (life_generation(life) == cell->generation &&
        (life_state(life) == RECORD_MAKING || life_state(life) == RECORD_WAITING))
        pending_clear(lane, index, cell->generation, (uint16_t)(1 << (cell->kind_detail >> 8)));
}

void edges_deliver(struct lane *lane, uint32_t input)
{
    uint32_t kept = atomic_load_explicit(&lane->self->chain, memory_order_relaxed);
    uint32_t first = take_list(lane, &lane_record(lane, input)->dependents);

    assert(kept == 0);
    /* First all are told, then all are freed: a freed cell may be reused, and its link with it. */
    for (uint32_t link = first; link; link = atomic_load(&lane->cells[link - 1].next))
        edge_deliver(lane, link - 1);
    for (uint32_t link = first; link;) {
        uint32_t next = atomic_load_explicit(&lane->cells[link - 1].next, memory_order_relaxed);
        cell_free(lane, link - 1);
        link = next;
    }
}

/* ---- Mailboxes ---- */

enum moray_code lane_post(struct lane *lane, uint16_t slot, uint32_t index, uint32_t generation,
                          enum lane_cell_kind kind, uint32_t detail)
{
    if (!cell_push(lane, &lane->slots[slot].mailbox, index, generation, kind, detail))
        return MORAY_BUSY;
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
    first = take_list(lane, &lane->self->mailbox);
    for (uint32_t link = first; link; link = atomic_load(&lane->cells[link - 1].next))
        count++;
    if (count > 64) {
        mail = calloc(count, sizeof(*mail));
        if (!mail)
            abort(); /* nothing is lost for the node: repair reads the list again */
    }
    uint32_t at = count;
    for (uint32_t link = first; link; link = atomic_load(&lane->cells[link - 1].next)) {
        const struct lane_cell *cell = &lane->cells[link - 1];
        mail[--at] =
            (struct lane_mail){.index = atomic_load_explicit(&cell->task, memory_order_relaxed) - 1,
                               .generation = cell->generation,
                               .kind = cell->kind_detail & 0xff,
                               .detail = cell->kind_detail >> 8};
    }
    for (uint32_t link = first; link;) {
        uint32_t next = atomic_load_explicit(&lane->cells[link - 1].next, memory_order_relaxed);
        cell_free(lane, link - 1);
        link = next;
    }
    for (uint32_t i = 0; i < count; i++)
        take(context, &mail[i]);
    if (mail != few)
        free(mail);
    return count;
}
