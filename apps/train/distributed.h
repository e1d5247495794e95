/**
 * The training with Moray: tasks make shards and gradients, an actor holds the model.
 */
#ifndef TRAIN_DISTRIBUTED_H
#define TRAIN_DISTRIBUTED_H

#include "options.h"
#include "report.h"

/** Starts the runtime, trains, reports and ends the runtime; on ranks other than 0 it serves.
 *  Returns the exit status of the program. */
int distributed_main(int *argc, char ***argv, const struct options *options, struct report *report);

#endif
