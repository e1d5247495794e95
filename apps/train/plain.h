/**
 * The training in plain processes: fork, shared memory, barriers, and nothing of Moray. It is the
 * yardstick of the benchmarks train.overhead and train.scaling: the same shards, parts, tree and
 * optimiser, so the same bits, and what is left over is the runtime's cost.
 */
#ifndef TRAIN_PLAIN_H
#define TRAIN_PLAIN_H

#include "options.h"
#include "report.h"

/** Trains and fills the report.
 *  Errors: -1, told to the user; the death of a process ends the others at once. */
int plain_train(const struct options *options, struct report *report);

#endif
