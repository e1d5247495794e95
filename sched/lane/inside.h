/* What the files of the lane share with each other, and with the repair; nobody else includes it. */
#ifndef MORAY_SCHED_LANE_INSIDE_H
#define MORAY_SCHED_LANE_INSIDE_H

#include "sched/lane/lane.h"

#define CELL_FREED 0xfffffffeu /* taken off and read; its owner may collect it */

/** A cell pushed on a list. False: no cell is left. */
bool cell_push(struct lane *lane, _Atomic uint32_t *list, uint32_t index, uint32_t generation,
               enum lane_cell_kind kind, uint32_t detail);
/** Frees a cell that this process has taken off a list, in a way that repair can finish. */
void cell_free(struct lane *lane, uint32_t cell);
bool cell_settle(void *context, uint32_t cell);

/** Takes all edges off `input`, which has ended, and tells the tasks behind them. */
void edges_deliver(struct lane *lane, uint32_t input);
/** One edge: the pending bit of a task goes; the last one queues it. */
void edge_deliver(struct lane *lane, uint32_t cell);
void pending_clear(struct lane *lane, uint32_t index, uint32_t generation, uint16_t bit);

/** The end of a record that somebody waits for: edges, sleepers, the agent. */
void end_tell(struct lane *lane, uint32_t index);
/** Tells the home slot of a record to look at it. */
void home_tell(struct lane *lane, uint32_t index);

/** A record of this slot, ended: lets its inputs go and frees it if nobody holds it. */
bool record_settle(void *context, uint32_t index);
/** Frees blocks and record, of this slot; nobody holds it. */
void record_release(struct lane *lane, uint32_t index);
/** Whether no slot but the home holds it. */
bool holders_empty(const struct lane *lane, const struct record *record);

/** The rows of bits for slots beyond LANE_DIRECT_SLOTS: holders, then waiters. */
_Atomic uint64_t *row_of(const struct lane *lane, uint32_t index, bool waiters);

#endif
