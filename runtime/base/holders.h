/**
 * Which ranks hold a thing (an object, an actor's handle), from words that may come late, twice, or
 * by way of another rank.
 *
 *     rank r holds it from its count's 0 -> 1 to its 1 -> 0; each such span has an epoch, given by r,
 *     larger than those of its spans before.
 *
 *     set(r, e)    counts unless a span of r that is as new or newer is known already
 *     clear(r, e)  ends the span e and all before it, even if its set comes later
 *
 * So a late set cannot bring a span back, a late clear cannot end a newer span, and each may be said
 * any number of times. Order between ranks is the senders' business: rank A, which lets B hold the
 * thing, says set(B) before its own clear, or keeps its hold until B's set is known to have arrived.
 * An entry stays until all is cleared with the thing itself: it remembers the newest epoch.
 * Threads: one caller at a time. Cost: 16 bytes a rank that ever held; binary search.
 */
#ifndef MORAY_BASE_HOLDERS_H
#define MORAY_BASE_HOLDERS_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct holder {
    uint64_t epoch; /* the newest that was heard of */
    uint32_t rank;
    bool set;  /* the span `epoch` is open */
    bool told; /* the machine's own mark; false in a new entry */
};

struct holders {            /* all zeros: nobody, and owns nothing */
    struct holder *entries; /* owned; by rank, ascending */
    uint32_t count;         /* entries */
    uint32_t capacity;
    uint32_t held; /* entries that are set */
};

/** Frees the entries: nobody holds it, and nothing is remembered. */
static inline void holders_clear_all(struct holders *holders)
{
    free(holders->entries);
    *holders = (struct holders){0};
}

/** Makes room for one more rank. Errors: false if there is no memory; nothing changed. */
static inline bool holders_reserve(struct holders *holders)
{
    uint32_t capacity = holders->capacity ? 2 * holders->capacity : 2;
    struct holder *entries;

    if (holders->count < holders->capacity)
        return true;
    entries = realloc(holders->entries, capacity * sizeof(*entries));
    if (!entries)
        return false;
    holders->entries = entries;
    holders->capacity = capacity;
    return true;
}

/* Where the entry of `rank` is, or would be put. */
static inline uint32_t holders_find(const struct holders *holders, uint32_t rank)
{
    uint32_t low = 0, high = holders->count;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (holders->entries[middle].rank < rank)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/** Whether `rank` holds it now. */
static inline bool holders_has(const struct holders *holders, uint32_t rank)
{
    uint32_t at = holders_find(holders, rank);

    return at < holders->count && holders->entries[at].rank == rank && holders->entries[at].set;
}

/** A word about the span `epoch` of `rank`: it began (`set`) or ended. The caller reserved room.
 *  Returns whether it changed who holds the thing. */
static inline bool holders_hear(struct holders *holders, uint32_t rank, uint64_t epoch, bool set)
{
    uint32_t at = holders_find(holders, rank);
    struct holder *entry;
    bool before;

    if (at == holders->count || holders->entries[at].rank != rank) {
        assert(holders->count < holders->capacity);
        memmove(holders->entries + at + 1, holders->entries + at,
                (holders->count - at) * sizeof(*holders->entries));
        holders->entries[at] = (struct holder){.rank = rank, .epoch = epoch, .set = set};
        holders->count++;
        holders->held += set;
        return set;
    }
    entry = &holders->entries[at];
    if (epoch < entry->epoch || (epoch == entry->epoch && set))
        return false; /* late, or said before */
    before = entry->set;
    entry->epoch = epoch;
    entry->set = set;
    holders->held = holders->held - before + set;
    return before != set;
}

/** `rank` is lost: it holds nothing, and no later word of it or about it counts.
 *  Returns whether it held the thing. */
static inline bool holders_lose(struct holders *holders, uint32_t rank)
{
    uint32_t at = holders_find(holders, rank);
    struct holder *entry = &holders->entries[at];
    bool before;

    if (at == holders->count || entry->rank != rank)
        return false;
    before = entry->set;
    entry->epoch = UINT64_MAX;
    entry->set = 0;
    holders->held -= before;
    return before;
}

#endif
