/**
 * One-sided reads, cut into pieces that go in turn, some in flight at a time.
 *
 *     add ──▶ waiting ──next──▶ piece with the carrier ──done──▶ ended ──tell──▶ read_done
 *                 ^── the reads take turns, a piece each ─┘
 *
 * Used by ofi.c and mpi.c alike; knows neither, nor a clock. A read of a lost rank posts no more
 * pieces and ends with MORAY_LOST once those in flight are back; a carrier that keeps them for more
 * than READS_QUARANTINE_NS (a cable cut, not a process killed) is waited for no longer: the read is
 * told with `posted`, and its piece stays the carrier's.
 * Bounds: pieces_max in flight at once. A read waiting costs 96 bytes.
 * Threads: one caller at a time.
 */
#ifndef MORAY_FABRIC_READS_H
#define MORAY_FABRIC_READS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "fabric/fabric.h"

static const uint64_t READS_QUARANTINE_NS = 2000000000;

struct read;
struct reads;

/** Owner: the module; from reads_next() to reads_done() or reads_back() the carrier. */
struct reads_piece {
    struct reads_piece *next, *made; /* in the list of those free, and of all ever made */
    uint64_t context[8];             /* the carrier's (fi_context2) */
    uint64_t kind;                   /* the carrier's, behind its context */
    struct read *read;
    uint32_t rank;
    uint64_t address, key; /* the window's, as granted */
    uint64_t offset;       /* into the window */
    uint8_t *local;
    size_t bytes;
    uint64_t request[2]; /* the carrier's: an MPI request */
};

/** Errors: MORAY_NO_MEMORY. Owner: the caller, until reads_destroy(). */
MORAY_MUST_CHECK enum moray_code reads_create(uint32_t pieces_max, size_t piece_bytes,
                                              struct reads **out, struct moray_error *error);
/** Frees all, told or not; the carrier looks at no piece any more. NULL is allowed. */
void reads_destroy(struct reads *reads);

/** Errors: MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code reads_add(struct reads *reads, uint32_t rank,
                                           const struct fabric_window *window, uint64_t offset,
                                           void *local, uint64_t bytes, uint64_t cookie);

/** The next piece to post among reads of ranks for which `ready` says true, or NULL. */
struct reads_piece *reads_next(struct reads *reads, bool (*ready)(void *context, uint32_t rank),
                               void *context);

/** The carrier could not take the piece now: it will be the next once more. */
void reads_back(struct reads *reads, struct reads_piece *piece);

/** The piece is done; not `ok` fails its read with MORAY_LOST. */
void reads_done(struct reads *reads, struct reads_piece *piece, bool ok);

/** Nothing more of `rank` will come; at `now_ns` the quarantine of its pieces begins. */
void reads_lose(struct reads *reads, uint32_t rank, uint64_t now_ns);

/** Tells the reads that ended; returns how many. Handlers may add reads. */
size_t reads_tell(struct reads *reads, const struct fabric_handler *handler, uint64_t now_ns);

/** Reads not yet told; pieces with the carrier; whether a read of `rank` has bytes to come. */
size_t reads_count(const struct reads *reads);
uint32_t reads_in_flight(const struct reads *reads);
bool reads_any_of(const struct reads *reads, uint32_t rank);

#endif
