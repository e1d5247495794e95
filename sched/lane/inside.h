/* What the files of the lane share with each other, and with the repair; nobody else includes it. */
#ifndef MORAY_SCHED_LANE_INSIDE_H
#define MORAY_SCHED_LANE_INSIDE_H

#include "sched/lane/lane.h"

/* LANE_BREAK: 0, or the number of a step that is left out or turned round on purpose, for the copy of
 * the lane with which tests/lane/kill shows that it would find such a mistake. */
#ifndef LANE_BREAK
#define LANE_BREAK 0
#endif

/** A free cell, not yet filled, of this slot's. POOL_NONE: none is left. */
uint32_t cell_take(struct lane *lane);
/** Fills a cell from cell_take() and pushes it on the list of record `list`, or of the mailbox of
 *  slot `list` | LANE_LIST_MAILBOX. */
void cell_push(struct lane *lane, uint32_t cell, uint32_t list, uint32_t index, uint32_t generation,
               enum lane_cell_kind kind, uint32_t detail);
_Atomic uint32_t *list_head(const struct lane *lane, uint32_t list);
bool cell_settle(void *context, uint32_t cell);

/** The right to tell the end of a record, taken if the record has ended and nobody has it. */
bool tell_claim(struct lane *lane, uint32_t index, uint32_t generation);
/** Wakes who waits for the record, of which this slot has the right to tell. */
void tell_waiters(struct lane *lane, uint32_t index);
/** Delivers all edges and gives the right to tell back. */
void tell_edges(struct lane *lane, uint32_t index);

/** Copies the call out of a method's record that may end, and be another one, at any moment. False:
 *  it was another one. */
bool call_peek(const struct lane *lane, uint32_t index, uint32_t generation,
               struct record_call *out);
/** Tells the home slot of a record to look at it. */
void home_tell(struct lane *lane, uint32_t index);

/** A record of this slot, ended: lets its inputs go and frees it if nobody holds it. */
bool record_settle(void *context, uint32_t index);
/** Whether no slot but the home holds it. */
bool holders_empty(const struct lane *lane, const struct record *record);

/** The rows of bits for slots beyond LANE_DIRECT_SLOTS: holders, then waiters. */
_Atomic uint64_t *row_of(const struct lane *lane, uint32_t index, bool waiters);

#endif
