/**
 * The object directory of one owner rank: who has copies, who holds references, who reads. A pure
 * state machine. Only objects that left the owner's node come here.
 *
 *     add --> no copy yet --sealed at r--> copies {r, …} --no holder, no reader--> FREE, forgotten
 *                ^     '---- wants wait ------'   |
 *                '--- attempt (remade) --- LOST <-' the last copy is gone while someone holds it
 *
 *     want(reader) --> GRANT to the source with the fewest readers: it pins its copy and answers the
 *                      reader --> fetched(reader): the pin ends; the reader's copy is a source now
 *
 * A source serves reads_per_copy_max readers at once; others wait for a copy that has a free turn. So
 * a hot object spreads along a tree of its copies without anyone planning the tree.
 *
 * An object is named by 64 bits, its index and generation at the owner, so a freed one's name is
 * never used again. Each copy carries the attempt that made it: the first attempt that seals is the
 * object's; copies of another attempt are refused (DROP_COPY).
 * References are counted by rank (base/holders.h): set on 0 -> 1, cleared on 1 -> 0, with the
 * rank's epoch, so a late or repeated word neither frees a live object nor revives a dead one.
 * A reader holds a reference while it reads; the owner's own holds count as those of its rank.
 *
 * Always: an object is forgotten only with no holder, no read under way and no want waiting; each
 * copy is told DROP_COPY or was reported gone, exactly once; each want ends in exactly one of:
 * directory_fetched() by its reader, REFUSE, the reader's loss.
 * Actions are worked out from the state when they are taken: an event allocates nothing for them.
 * Threads: one caller at a time (the agent). Cost: O(1) plus O(copies + reads of the object) an event;
 * about 120 bytes an object, 16 a copy, a holder, and 24 a read.
 */
#ifndef MORAY_STORE_DIRECTORY_DIRECTORY_H
#define MORAY_STORE_DIRECTORY_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct directory;

struct directory_options {       /* zeros are the defaults, but for rank_count */
    uint32_t rank_count;         /* ranks of the job, at least 1 */
    uint32_t rank;               /* the owner */
    uint32_t object_max;         /* objects at once; 0: 4,000,000 */
    uint32_t reads_per_copy_max; /* readers of one copy at once; 0: 2 */
};

struct directory_action {
    enum {
        DIRECTORY_GRANT,     /* tell rank `source`: pin your copy for (reader, transfer), answer the
                                reader. source == reader: it has a copy already; no pin */
        DIRECTORY_REFUSE,    /* tell `reader` that `transfer` will not be: `code` */
        DIRECTORY_DROP_COPY, /* tell rank `source` to drop its copy made by `attempt` (0: whichever) */
        DIRECTORY_LOST,      /* no copy is left, and someone holds it: remake it or fail it */
        DIRECTORY_FREE,      /* nobody holds it: the name is free, the owner's own copy too */
    } kind;
    enum moray_code code;
    uint64_t object;
    uint64_t transfer;
    uint64_t bytes;
    uint32_t attempt;
    uint32_t source;
    uint32_t reader;
};

enum directory_end {                      /* how a read ended, by the reader's word */
                     DIRECTORY_KEPT,      /* it has the bytes and keeps them as a copy for others */
                     DIRECTORY_READ,      /* it has the bytes and made no copy */
                     DIRECTORY_NO_SOURCE, /* the source had no such copy (any more): grant another */
                     DIRECTORY_GAVE_UP,   /* it does not want the object any more */
};

/** Makes an empty directory. Owner: the caller, until directory_destroy(); `options` is copied.
 *  Errors: MORAY_INVALID for 0 ranks, MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code directory_create(const struct directory_options *options,
                                                  struct directory **out,
                                                  struct moray_error *error);

/** Frees the directory; NULL is allowed. */
void directory_destroy(struct directory *directory);

/** An object of this owner begins to matter elsewhere. `attempt` is the one that will make it or made
 *  it; the owner's rank holds it, with `epoch`. It has no copy yet.
 *  Errors: MORAY_EXISTS if it is here; MORAY_BUSY at object_max; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code directory_add(struct directory *directory, uint64_t object,
                                               uint32_t attempt, uint64_t epoch,
                                               struct moray_error *error);

/** A copy was sealed at a rank. A copy of an unknown object or of another attempt is to be dropped.
 *  Errors: MORAY_STALE for such a copy (the DROP_COPY is caused all the same); MORAY_INVALID if its
 *  size is not that of the copies that are here; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code directory_sealed(struct directory *directory, uint64_t object,
                                                  uint32_t rank, uint32_t attempt, uint64_t bytes,
                                                  struct moray_error *error);

/** The object will be made (again) by another attempt. Copies that are left keep it as it is.
 *  Errors: false if it is not here, or has a copy. */
bool directory_attempt(struct directory *directory, uint64_t object, uint32_t attempt);

/** The object will never be: whoever waits for it is refused with `code`, now and later.
 *  Errors: false if it is not here, or has a copy. */
bool directory_fail(struct directory *directory, uint64_t object, enum moray_code code);

/** A rank wants to read. `transfer` is the reader's own number for it. Causes GRANT, now or when a
 *  copy has a turn; or REFUSE. Errors: MORAY_EXISTS if that transfer is open; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code directory_want(struct directory *directory, uint64_t object,
                                                uint32_t reader, uint64_t transfer,
                                                struct moray_error *error);

/** The reader's word on how a read from `source` ended. With DIRECTORY_NO_SOURCE that copy is taken as
 *  gone and the read goes on from another; if it does so already, the word is late and changes
 *  nothing.
 *  Errors: MORAY_STALE if no such read is open (then a kept copy is to be dropped, and DROP_COPY is
 *  caused); MORAY_NO_MEMORY: say it again. */
MORAY_MUST_CHECK enum moray_code directory_fetched(struct directory *directory, uint64_t object,
                                                   uint32_t reader, uint64_t transfer,
                                                   uint32_t source, enum directory_end end,
                                                   struct moray_error *error);

/** A rank has no copy of the object any more (evicted, or its arena is gone).
 *  Errors: false if no such copy is known. */
bool directory_copy_gone(struct directory *directory, uint64_t object, uint32_t rank);

/** A word about a rank's references: its count left 0 (`set`), or is 0 again; by itself or passed
 *  on by another. Errors: MORAY_STALE if the object is not here, or the rank is lost;
 *  MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code directory_hold(struct directory *directory, uint64_t object,
                                                uint32_t rank, uint64_t epoch, bool set,
                                                struct moray_error *error);

/** A rank is lost: its copies, references and reads are gone; reads from it go on from others. No
 *  later word about it counts: directory_sealed(), _want() and _hold() then say MORAY_STALE. */
void directory_rank_lost(struct directory *directory, uint32_t rank);

struct directory_line { /* for tools and tests */
    uint64_t object;
    uint64_t bytes;
    uint32_t attempt;
    uint32_t copy_count, holder_count, read_count, waiting_count;
};

/** One object's line. Errors: false if it is not here. */
bool directory_get(const struct directory *directory, uint64_t object, struct directory_line *out);

/** Lines of all objects, from `*cursor` (0 at first); false after the last. */
bool directory_list(const struct directory *directory, uint32_t *cursor,
                    struct directory_line *out);

/** Writes the ranks that have copies, `room` at most; returns how many have. */
size_t directory_copies(const struct directory *directory, uint64_t object, uint32_t *ranks,
                        size_t room);

/** Objects that are not yet forgotten. */
size_t directory_count(const struct directory *directory);

/** The next action. Errors: false if there is none. */
bool directory_next(struct directory *directory, struct directory_action *out);

#endif
