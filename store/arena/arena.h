/**
 * The arena: one region of shared memory a node, and the blocks in it.
 *
 *     | control | slots | rings | records | cells | slabs | page words | backs | data pages ... |
 *       node-wide  one a     one a   lane's   lane's  freed    who has     which     64 KiB each
 *                  process   process tables   tables  bits     the page    record
 *
 * A page (64 KiB) is free, or belongs to a run (a block of many pages), or is a slab of small blocks
 * of one class. A *place* is an offset from the region's start in units of 32 bytes; 0 is none.
 *
 * Who owns what, and what a death leaves:
 *   - A slab belongs to one slot. Only its owner hands out its blocks, from a private stack, so an
 *     allocation touches no shared memory. Anybody frees by setting the block's bit, which is a hint:
 *     the owner takes a block back only when its record (the "back") refers to it no more.
 *   - A block belongs to the record that it was allocated for. The order is always: set the bit (or
 *     free the run), then let the record go. So a death between the two is repaired by freeing again.
 *   - A run is marked with the slot that is making or freeing it: repair finishes the freeing.
 *   - Free pages and blocks in a private stack have no back, so a block freed a second time, by the
 *     repair of a death, can only be met while its record still refers to it.
 *   - A dead slot's slabs stay its own: repair sets the bit of each block to which no record refers,
 *     and the slot's next process collects them as it collects any other.
 * Nothing here depends on a process staying alive, no lock is taken, no system call made.
 *
 * Pure: a region, a slot and one callback; the kill-at-every-instruction test runs it as it is.
 * Threads: a struct arena is one thread's own; the region is shared by all.
 * Cost: small block 0 atomics to get, 1 to free; a slab's worth of them a look at a few own slabs, however
 * many there are; a run 1 atomic a page.
 */
#ifndef MORAY_STORE_ARENA_ARENA_H
#define MORAY_STORE_ARENA_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    ARENA_PAGE_BYTES = 65536,
    ARENA_PLACE_BYTES = 32,
    ARENA_SMALL_BYTES_MAX = 16384, /* above it a block is a run of pages */
    ARENA_CLASS_COUNT = 18,
    ARENA_SLAB_WORDS = ARENA_PAGE_BYTES / ARENA_PLACE_BYTES / 64,
    ARENA_SLOTS_MAX = 4096,
};

enum arena_page { /* bits 0-7 of a page word; the slot in bits 8-23, the rest in bits 32-63 */
                  ARENA_FREE,
                  ARENA_MAKING, /* first page of a run that is being made or freed by the slot */
                  ARENA_HEAD,   /* first page of a run; rest: number of pages */
                  ARENA_TAIL,   /* another page of it; rest: index of the first */
                  ARENA_SLAB,   /* rest: class */
};

struct arena_slab {
    _Atomic uint64_t freed[ARENA_SLAB_WORDS]; /* any process sets, the owner clears */
};

struct arena_layout { /* offsets from the region's start, in bytes; multiples of 4096 */
    uint64_t slots, rings, records, record_slabs, cells, cell_slabs, slabs, pages, backs, data;
    uint64_t total_bytes;
    uint32_t slot_count, ring_entries, record_count, cell_count, page_count;
};

/** Asked of the owner of records: does `record` refer to the block at `place`? Must be answered from
 *  shared memory alone, and false once the record is free. */
typedef bool arena_refers(const void *region, uint32_t record, uint32_t place);

struct arena_stack { /* private: blocks that are ours and free */
    uint32_t *items;
    uint32_t count, capacity;
};

struct arena {
    char *region; /* writable */
    const struct arena_layout *layout;
    arena_refers *refers;
    uint16_t slot;
    struct arena_stack free[ARENA_CLASS_COUNT];
    uint32_t *own_pages; /* private: slabs of this slot, in the order of their claim */
    uint32_t own_count, own_capacity;
    uint32_t turn[ARENA_CLASS_COUNT]; /* the slab of each class that was looked at last */
};

struct arena_sizes { /* what arena_plan() makes a layout of */
    uint64_t data_bytes;
    uint32_t slot_count, slot_bytes, ring_entries, record_count, record_bytes, cell_count,
        cell_bytes, control_bytes;
};

/** Lays the region out. Pure arithmetic. Errors: MORAY_INVALID for sizes of 0 or beyond 128 GiB. */
MORAY_MUST_CHECK enum moray_code arena_plan(const struct arena_sizes *sizes,
                                            struct arena_layout *layout, struct moray_error *error);

/** Makes the handle of `slot` to a region that is zero or in use; `fresh`: nothing to collect yet.
 *  Owner: the caller; arena_detach() frees what is private. */
void arena_attach(struct arena *arena, void *region, const struct arena_layout *layout,
                  uint16_t slot, arena_refers *refers);
void arena_detach(struct arena *arena);

/** A block of at least `bytes` (> 0), aligned to 64 (small ones below 64: to 32), for `record`.
 *  Errors: returns 0 when there is no room, or no private memory. */
uint32_t arena_alloc(struct arena *arena, uint64_t bytes, uint32_t record);

/** Frees the block that `record` still refers to; the caller then lets the record forget it. Twice
 *  is harmless as long as the record has not forgotten. */
void arena_free(struct arena *arena, uint32_t place, uint32_t record);

/** Gives own slabs back of which every block is free, so that others can use the pages; returns how many.
 *  arena_alloc() does it when room is short; a process that goes to sleep for long should. Cost: a look
 *  at every own free block, more for each slab given back. */
uint32_t arena_trim(struct arena *arena);

/** Repair: what `slot`, which is dead, had allocated and no record refers to becomes free. After the
 *  repair of the slot's records, before the slot is given again. Idempotent. */
void arena_repair(struct arena *arena, uint16_t slot);

/** Bytes that a block of this size takes, or that the block at `place` has. */
uint64_t arena_block_bytes(const struct arena *arena, uint32_t place);
uint64_t arena_rounded(uint64_t bytes);

struct arena_usage {
    uint64_t data_bytes, free_page_bytes, run_bytes, slab_bytes;
    uint64_t small_free_bytes; /* of the slabs: in freed bits; the private stacks are not seen */
    uint64_t largest_free_run_bytes;
    uint64_t held_blocks, held_bytes; /* blocks to which a record refers */
};
/** Walks the page words and the backs: slow, exact when nothing moves. */
void arena_usage(const struct arena *arena, struct arena_usage *usage);

static inline void *arena_at(const struct arena *arena, uint32_t place)
{
    return arena->region + (uint64_t)place * ARENA_PLACE_BYTES;
}

#endif
