/**
 * The records of the object directory, for directory.c (what happens to an object) and table.c
 * (finding, making, showing and forgetting records). Nobody else includes this.
 */
#ifndef MORAY_STORE_DIRECTORY_INSIDE_H
#define MORAY_STORE_DIRECTORY_INSIDE_H

#include "base/fifo.h"
#include "base/holders.h"
#include "base/index.h"
#include "store/directory/directory.h"

enum { NOBODY = UINT32_MAX };

struct copy {
    uint32_t rank;
    uint32_t read_count; /* reads that were granted from it and have not ended */
};

struct read {
    uint64_t transfer;
    uint32_t reader;
    uint32_t source; /* of the grant; NOBODY: it waits */
    bool counted;    /* in the read_count of the copy at `source`; not if that is gone */
    enum { WAITING, GRANT_DUE, GRANTED, HAS_DUE, REFUSE_DUE } state;
};

struct object {
    uint64_t id; /* 0 with `used`: a valid name too, so `used` tells */
    bool used;
    bool lost_due; /* LOST is to be told */
    bool freeing;  /* forgotten but for its actions; not in the index */
    bool dirty;
    uint32_t attempt;
    enum moray_code failed; /* MORAY_OK: not */
    uint64_t bytes;         /* of each copy; meaningful while there is one */
    struct holders holders;
    struct copy *copies; /* owned */
    struct read *reads;  /* owned; in the order of the wants */
    uint32_t copy_count, copy_capacity, read_count, read_capacity;
    uint32_t due_at; /* reads before this one have nothing due */
    uint32_t dirty_next, unused_next;
};

struct drop { /* a copy of an object that is not here, or not of that attempt */
    uint64_t object;
    uint32_t rank, attempt;
};

struct directory {
    struct directory_options options;
    struct object *objects; /* owned */
    uint32_t capacity, count, unused;
    uint32_t dirty_first, dirty_last;
    struct index by_id;
    struct fifo drops;
    bool *lost; /* owned; by rank */
};

/** The record of an object; NULL: it is not here. */
struct object *directory_find(const struct directory *directory, uint64_t id);

/** Where the record is in the table; it never moves to another position. */
static inline uint32_t directory_position(const struct directory *directory,
                                          const struct object *object)
{
    return (uint32_t)(object - directory->objects);
}

/** Puts the record into the list of those that may have actions due. */
void directory_touch(struct directory *directory, struct object *object);

/** Frees the record, which is in no list and not in the index. */
void directory_forget(struct directory *directory, struct object *object);

/** Refuses a word about a rank that is lost or none: passed on by another perhaps, it would bring the
 *  rank back. Errors: MORAY_STALE. */
MORAY_MUST_CHECK enum moray_code directory_check_rank(const struct directory *directory,
                                                      uint32_t rank, struct moray_error *error);

/** The array with room for one more element, moved perhaps; NULL: no memory, nothing changed. */
void *directory_grown(void *elements, uint32_t count, uint32_t *capacity, size_t element_bytes);

#endif
