/**
 * The table of nodes: a pure state machine of the GCS.
 *
 *     ABSENT --join--> ALIVE --lose--> LOST, for ever
 *                        ^ report: load, and when it came
 *
 * A rank that is lost keeps its line, so that tools and stories can name it. Each change has a
 * version; a reader that knows version v asks for what changed since.
 * Threads: one caller at a time (rank 0's agent). Cost: one line of about 256 bytes a rank, made at
 * the start; an event touches one line.
 */
#ifndef MORAY_GCS_NODES_H
#define MORAY_GCS_NODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "sched/policy/resources.h"

struct nodes;

enum { NODES_HOST_BYTES = 65 }; /* a host's name and its end; longer ones are cut */

enum nodes_state { NODES_ABSENT, NODES_ALIVE, NODES_LOST };

struct nodes_line {
    uint32_t rank;
    enum nodes_state state;
    char host_name[NODES_HOST_BYTES];
    bool runs_tasks; /* false: the head alone */
    uint32_t host;   /* ranks of one host have the same number: the first one's rank */
    uint32_t worker_count;
    struct resources have;     /* what it offers */
    uint64_t store_bytes;      /* of its arena */
    uint64_t store_used_bytes; /* at the last report */
    struct load load;          /* the last report; zeros before the first */
    uint64_t joined_ns;
    uint64_t reported_ns; /* when the last report came; joined_ns before the first */
    uint64_t version;     /* of the last change of this line */
};

/** Makes the table, all ABSENT. Owner: the caller, until nodes_destroy().
 *  Errors: MORAY_INVALID for 0 ranks, MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code nodes_create(uint32_t rank_count, struct nodes **out,
                                              struct moray_error *error);

/** Frees the table; NULL is allowed. */
void nodes_destroy(struct nodes *nodes);

/** A rank joined: `line` gives rank, host_name, runs_tasks, worker_count, have, store_bytes; the
 *  rest is ignored. Its host number is that of the first rank with the same `share_key` (ranks
 *  that can map each other's arenas; 0: shares with nobody).
 *  Errors: MORAY_INVALID if the rank is out of range or joined before. */
MORAY_MUST_CHECK enum moray_code nodes_join(struct nodes *nodes, const struct nodes_line *line,
                                            uint64_t share_key, uint64_t now_ns,
                                            struct moray_error *error);

/** A load report came. Errors: false if the rank is not ALIVE (input from the wire). */
bool nodes_report(struct nodes *nodes, uint32_t rank, const struct load *load,
                  uint64_t store_used_bytes, uint64_t now_ns);

/** A rank is lost. Returns whether that is news. */
bool nodes_lose(struct nodes *nodes, uint32_t rank);

/** The line of a rank; NULL if it is out of range. Borrowed until the next event. */
const struct nodes_line *nodes_get(const struct nodes *nodes, uint32_t rank);

/** How old the last report is. The rank is in range. */
uint64_t nodes_age_ns(const struct nodes *nodes, uint32_t rank, uint64_t now_ns);

/** The lines with a version above `since`, by rank from `*cursor` (0 at first), at most `room`;
 *  `out` points into the table until the next event. Returns the count; 0: no more. */
size_t nodes_changed(const struct nodes *nodes, uint64_t since, uint32_t *cursor,
                     const struct nodes_line **out, size_t room);

/** Ranks in a state, the version of the last change, and the sums of what ALIVE nodes offer. */
uint32_t nodes_count(const struct nodes *nodes, enum nodes_state state);
uint64_t nodes_version(const struct nodes *nodes);
struct resources nodes_total(const struct nodes *nodes);

#endif
