/**
 * Do all ranks run the same functions? A pure state machine of the GCS.
 *
 *     each rank --digest (8 bytes)--> equal to ours: done, nothing else is sent
 *                                     differs: ASK that rank for its table --> the difference, with
 *                                              both places in the source
 *
 * A function's identity is its name, its types' text and its sizes. File and line are for the story
 * only: two builds from different folders are the same program. The order in which functions were
 * registered does not count either.
 * Threads: one caller at a time (rank 0's agent); the digest and the check of one table: any.
 * Cost: a digest reads each entry once; a comparison sorts both tables.
 */
#ifndef MORAY_GCS_FUNCTIONS_H
#define MORAY_GCS_FUNCTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct functions_entry {
    const char *name;  /* "add" */
    const char *types; /* "int64_t (int64_t, int64_t)", as the macros spell it */
    const char *file;  /* where it is defined */
    uint32_t line;
    uint32_t argument_bytes; /* all arguments together, as laid out in a record */
    uint32_t result_bytes;   /* all results together */
    uint32_t state_bytes;    /* of an actor's state; 0 for a task */
};

struct functions_table {
    const struct functions_entry *entries;
    size_t count;
};

/** The identity of one function as a number: equal identities, equal numbers. Threads: any. */
uint64_t functions_identity(const struct functions_entry *entry);

/** The identity of a whole table, whatever the order of its entries. Threads: any. */
uint64_t functions_digest(const struct functions_table *table);

/** Refuses a table in which two entries have the same name.
 *  Errors: MORAY_EXISTS with both places; MORAY_NO_MEMORY. Threads: any. */
MORAY_MUST_CHECK enum moray_code functions_check(const struct functions_table *table,
                                                 struct moray_error *error);

/** Compares the tables of two ranks. Errors: MORAY_INVALID with the first difference by name, both
 *  places, both ranks, and how many differ in all; MORAY_NO_MEMORY. Threads: any. */
MORAY_MUST_CHECK enum moray_code functions_compare(const struct functions_table *ours,
                                                   uint32_t our_rank,
                                                   const struct functions_table *theirs,
                                                   uint32_t their_rank, struct moray_error *error);

/** A table as bytes for the wire: at most `room` are written to `out`; returns how many there are.
 *  Threads: any. */
size_t functions_encode(const struct functions_table *table, void *out, size_t room);

/** A table from bytes of the wire. `*out` and what it points to is one block, the caller's: free()
 *  `(void *)out->entries`. The texts lie in that block as well.
 *  Errors: MORAY_PROTOCOL if the bytes are no table; MORAY_NO_MEMORY. Threads: any. */
MORAY_MUST_CHECK enum moray_code functions_decode(const void *data, size_t bytes,
                                                  struct functions_table *out,
                                                  struct moray_error *error);

struct functions;

enum functions_answer {
    FUNCTIONS_WAIT, /* others have not answered yet */
    FUNCTIONS_SAME, /* all ranks have answered, and all are the same */
    FUNCTIONS_ASK,  /* this rank's digest differs: ask it for its table */
};

/** Makes the machine for rank 0, whose table is `ours` (borrowed until functions_destroy()).
 *  Errors: MORAY_INVALID for 0 ranks, MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code functions_create(const struct functions_table *ours,
                                                  uint32_t rank_count, struct functions **out,
                                                  struct moray_error *error);

/** Frees the machine; NULL is allowed. */
void functions_destroy(struct functions *functions);

/** A rank's digest came (again: the same answer; a rank out of range: WAIT). */
enum functions_answer functions_heard(struct functions *functions, uint32_t rank, uint64_t digest);

/** The table that was asked for came. Errors: those of functions_compare(): never MORAY_OK, since
 *  the digest differed; equal tables give MORAY_PROTOCOL. */
MORAY_MUST_CHECK enum moray_code functions_table_came(struct functions *functions, uint32_t rank,
                                                      const struct functions_table *theirs,
                                                      struct moray_error *error);

#endif
