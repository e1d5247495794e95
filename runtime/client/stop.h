/**
 * moray run --gdb FUNCTION: a worker stops before it runs that task or method, until gdb has attached.
 *
 * The function's `run` is replaced, before any process is forked, by one that waits and then goes on to
 * the function's own: nothing is asked in the path of a task. Each process stops once, for as long as it
 * takes; the end of the job ends it.
 * Threads: stop_settle() from moray_init, before the fork.
 */
#ifndef MORAY_CLIENT_STOP_H
#define MORAY_CLIENT_STOP_H

#include <stdint.h>

#include "base/error.h"

struct moray_function;

/** Reads MORAY_JOB_GDB, which moray run sets. Nothing happens if it is not set.
 *  Errors: MORAY_NOT_FOUND: none of the functions has that name. */
MORAY_MUST_CHECK enum moray_code stop_settle(struct moray_function **functions, uint32_t count,
                                             struct moray_error *error);

#endif
