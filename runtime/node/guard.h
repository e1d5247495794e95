/**
 * The last words of a process: one clear line for SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL, then
 * the signal's old action (a sanitizer's or the user's handler, else death by that signal).
 *
 *     moray: rank 1, worker 3 (pid 4711), task total: wrote to a read-only object (0x7ec1…): SIGSEGV
 *
 * What an address means comes from the windows: the read-only half, a guard page or a hole in the
 * writable half, memory that the host cannot give (SIGBUS); else null pointers and stack overflow.
 * Everything in the handler is async-signal-safe: no allocation, no stdio, one write(2) to stderr.
 * Threads: guard_install once a process; guard_thread once in each further thread that wants its
 * stack overflow told (it gives the thread an alternate stack).
 */
#ifndef MORAY_NODE_GUARD_H
#define MORAY_NODE_GUARD_H

#include <stddef.h>
#include <stdint.h>

struct guard_options {
    uint32_t rank;
    const char *process;       /* "driver", "worker 3", "actor counter"; copied, 63 bytes */
    const char *(*task)(void); /* what runs now in this thread, or NULL; called in the handler: it
                                     may only read memory. NULL = not known */
    const char *(*explain)(const void *address,
                           int is_write); /* a better reason for an address in a
                                     window ("wrote past the end of the result of total"), or NULL;
                                     called in the handler. NULL = not known */
};

/** Installs the handlers, and an alternate stack for this thread. Called again (after a fork, when a
 *  spare becomes an actor) it changes what the line says. Threads: one caller at a time. */
void guard_install(const struct guard_options *options);

/** An alternate stack for the calling thread. Owner: lives as long as the process. */
void guard_thread(void);

#endif
