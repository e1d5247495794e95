/**
 * What workers and actors print: pipes in, whole lines out.
 *
 *     process: stdout, stderr (unbuffered) ══ pipe ══> output_poll() ── one write(2) a line ──> rank's
 *                                                                                        stdout, stderr
 * The zygote makes the two pipes of a process; ZYGOTE_STARTED brings the read ends, output_add()
 * takes them. A line is written as it ends; the rest of a line is written, with a newline of ours,
 * when it is 1 s old or its process has ended. With `mark`, a line is "(name pid=12, rank 3) text".
 * Never blocks: the rank's stdout is written by a descriptor of our own that does not block (a file:
 * by the plain one). While it takes nothing, lines wait, up to pending_bytes_max a stream; beyond
 * that the pipes are not read, so the printing process waits, nobody else. If it is closed at the
 * other end, lines are dropped.
 * Bounds: a line longer than line_bytes_max is written in pieces, each with the mark and a newline.
 * Memory: nothing for a process that has no unfinished line.
 * Threads: one caller at a time (the agent). Cost: a read and a write a chunk or line.
 */
#ifndef MORAY_NODE_OUTPUT_H
#define MORAY_NODE_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

enum { OUTPUT_LABEL_BYTES = 64 };

struct output_options {
    int out_fd, err_fd;        /* where lines go; both 0 = 1 and 2. Borrowed */
    uint32_t rank;             /* for the mark */
    bool mark;                 /* put "(name pid=…, rank R) " before each line */
    size_t line_bytes_max;     /* 0 = 64 KiB */
    size_t pending_bytes_max;  /* 0 = 1 MiB */
    uint32_t partial_after_ms; /* 0 = 1000 */
};

struct output;

/** Makes an empty one. Owner: the caller, until output_destroy(). `options` is copied.
 *  Errors: MORAY_NO_MEMORY, MORAY_SYSTEM; `*out` is NULL then. */
MORAY_MUST_CHECK enum moray_code output_create(const struct output_options *options,
                                               struct output **out, struct moray_error *error);

/** An epoll descriptor that is readable when output_poll() has something to do: put this one into
 *  the agent's epoll. Owner: `output`. */
int output_fd(const struct output *output);

/** Reads from the process of `slot`, whose read ends are given. `label` (copied, cut at
 *  OUTPUT_LABEL_BYTES) names it in marks.
 *  Owner: takes both descriptors, also on failure.
 *  Errors: MORAY_NO_MEMORY, MORAY_SYSTEM. */
MORAY_MUST_CHECK enum moray_code output_add(struct output *output, uint16_t slot,
                                            uint32_t incarnation, pid_t pid, int out_fd, int err_fd,
                                            const char *label, struct moray_error *error);

/** Changes the label of the lines read from now on. Unknown slots are ignored. */
void output_label(struct output *output, uint16_t slot, const char *label);

/** Reads and writes what is there, a bounded amount a call, and ends lines that are too old.
 *  `now_ns`: CLOCK_MONOTONIC. */
void output_poll(struct output *output, uint64_t now_ns);

/** When output_poll() must be called though output_fd() is quiet; UINT64_MAX: not at all. */
uint64_t output_next_ns(const struct output *output);

/** The process of {slot, incarnation} has ended: takes what is still in its pipes (a child of its
 *  that holds them open is not waited for), ends its last line, closes. */
void output_finish(struct output *output, uint16_t slot, uint32_t incarnation, uint64_t now_ns);

/** Finishes all, writes what waits for up to `limit_ms`, frees. NULL is allowed. Returns whether
 *  everything was written. */
bool output_destroy(struct output *output, unsigned limit_ms);

#endif
