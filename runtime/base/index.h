/**
 * A hash index over an array that the caller keeps: 64-bit hash -> position in that array.
 *
 *     cells   [ - | h1 p4 | - | h2 p0 | h3 p7 | - ... ]      a power of two, at most 3/4 full
 *                     |          |
 *     caller's array  records[4] records[0] ...
 *
 * The index knows no keys: the caller hashes, and says which position it means by a comparison.
 * Positions keep their order in the caller's array, so walking it gives the same order in every run;
 * nothing here depends on addresses, and a removal leaves no tombstone (later cells move up).
 * Grows only in index_reserve(), so an event can fail before it has changed anything.
 * Threads: one caller at a time. Cost: a look-up reads one or two cells of 16 bytes.
 */
#ifndef MORAY_BASE_INDEX_H
#define MORAY_BASE_INDEX_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define INDEX_NONE UINT32_MAX /* no such position */

struct index_cell {
    uint64_t hash;
    uint32_t position; /* INDEX_NONE: the cell is free */
    uint32_t unused;
};

struct index {                /* all zeros: empty, and owns nothing */
    struct index_cell *cells; /* owned; NULL while the capacity is 0 */
    size_t capacity;          /* 0 or a power of two */
    size_t used;              /* cells in use; 4 * used <= 3 * capacity */
};

/** Spreads the bits of a number, so that neighbours do not share a cell. Threads: any. */
static inline uint64_t index_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/** The hash of some bytes, going on from `seed` (FNV-1a, then mixed). Threads: any. */
static inline uint64_t index_hash(uint64_t seed, const void *data, size_t bytes)
{
    const unsigned char *byte = data;
    uint64_t hash = seed ^ 0xcbf29ce484222325u;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3u;
    return index_mix(hash ^ bytes);
}

/** Frees the cells; the index is empty again. */
static inline void index_clear(struct index *index)
{
    free(index->cells);
    *index = (struct index){0};
}

/* Puts an entry into the first free cell after its own. There is one: the caller reserved it. */
static inline void index_settle(struct index *index, uint64_t hash, uint32_t position)
{
    size_t at = hash & (index->capacity - 1);

    while (index->cells[at].position != INDEX_NONE)
        at = (at + 1) & (index->capacity - 1);
    index->cells[at] = (struct index_cell){.hash = hash, .position = position};
}

/** Makes room for `extra` more entries. Errors: false if there is no memory; nothing changed. */
static inline bool index_reserve(struct index *index, size_t extra)
{
    struct index old = *index;
    size_t capacity = old.capacity ? old.capacity : 16;

    while (4 * (old.used + extra) > 3 * capacity)
        capacity *= 2;
    if (capacity == old.capacity)
        return true;
    index->cells = malloc(capacity * sizeof(*index->cells));
    if (!index->cells) {
        index->cells = old.cells;
        return false;
    }
    index->capacity = capacity;
    for (size_t i = 0; i < capacity; i++)
        index->cells[i] = (struct index_cell){.position = INDEX_NONE};
    for (size_t i = 0; i < old.capacity; i++)
        if (old.cells[i].position != INDEX_NONE)
            index_settle(index, old.cells[i].hash, old.cells[i].position);
    free(old.cells);
    return true;
}

/** Adds an entry; the caller reserved room, and no entry that it would take for the same is there. */
static inline void index_add(struct index *index, uint64_t hash, uint32_t position)
{
    assert(4 * (index->used + 1) <= 3 * index->capacity);
    index_settle(index, hash, position);
    index->used++;
}

/** Walks the entries of one hash: `*cursor` starts at 0; returns INDEX_NONE after the last. Two keys
 *  may share a hash, so the caller compares each. Do not change the index meanwhile. */
static inline uint32_t index_next(const struct index *index, uint64_t hash, size_t *cursor)
{
    while (index->capacity && *cursor < index->capacity) {
        const struct index_cell *cell = &index->cells[(hash + (*cursor)++) & (index->capacity - 1)];
        if (cell->position == INDEX_NONE)
            return INDEX_NONE;
        if (cell->hash == hash)
            return cell->position;
    }
    return INDEX_NONE;
}

/** Takes the entry {hash, position} out; it must be there. */
static inline void index_remove(struct index *index, uint64_t hash, uint32_t position)
{
    size_t mask = index->capacity - 1, hole = hash & mask;

    while (index->cells[hole].position != position || index->cells[hole].hash != hash) {
        assert(index->cells[hole].position != INDEX_NONE);
        hole = (hole + 1) & mask;
    }
    /* Each later cell of the run moves up, unless its own place lies after the hole. */
    for (size_t at = (hole + 1) & mask; index->cells[at].position != INDEX_NONE;
         at = (at + 1) & mask) {
        size_t home = index->cells[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            index->cells[hole] = index->cells[at];
            hole = at;
        }
    }
    index->cells[hole].position = INDEX_NONE;
    index->used--;
}

#endif
