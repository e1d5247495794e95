/**
 * Runs a launcher to its end and leaves nothing behind.
 *
 *     moray run ──┬── mpirun or srun (gets SIGTERM when moray run dies) ── ranks
 *                 └── watcher: when moray run is killed, ends a launcher that does not end within 4 s,
 *                     and removes what mpirun left
 *
 * - SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 go on to the launcher, once each time. It
 *   has a process group of its own, so that a signal for the whole group does not reach it twice;
 *   but on a terminal it stays in ours, reads it, and has the terminal's signals from there.
 * - moray run is a child subreaper: after an end that was not clean, what the launcher leaves alive
 *   becomes its child; it gets 3 s to end by itself, then SIGKILL.
 * Threads: the main thread, once a process.
 */
#ifndef MORAY_TOOLS_JOB_H
#define MORAY_TOOLS_JOB_H

#include "tools/command.h"

/** Starts the command, waits for its end, cleans up. Returns the exit status to end with: the
 *  launcher's own; 128 + N if signal N ended it, or if it failed after N was sent on.
 *  Where there is no launcher the program takes the place of this process, and a return means that
 *  it could not be started: 126 or 127, as a shell says. */
int job_run(const struct command *command);

#endif
