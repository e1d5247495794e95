/**
 * Pools of type-stable items in the arena: records and cells.
 *
 *     slab: 512 items; belongs to the slot that claimed it, for ever. Some are kept, one a slot, which
 *                                    claims it when there is no other: who takes all others, and is done
 *                                    with them, does not stop the rest
 *     free items of a living slot    in its private stack, known to nobody else; the top of it beside
 *                                    what is needed anyway, so that a few tasks touch no page more
 *     items freed by others          a bit in the slab, which the owner collects: a hint, since the
 *                                    item itself says whether it is free
 *     free items of a dead slot      marked so by repair, with their bits set: the slot's next
 *                                    process collects them
 * Threads: a struct pool is one thread's own. Cost: take and give touch no shared memory.
 */
#ifndef MORAY_SCHED_LANE_POOL_H
#define MORAY_SCHED_LANE_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/trip.h"

enum { POOL_SLAB_ITEMS = 512, POOL_FEW = 14, POOL_NONE = 0xffffffff };

struct pool_slab {
    _Atomic uint32_t owner; /* slot + 1; 0: nobody's yet */
    uint32_t reserved;
    _Atomic uint64_t freed[POOL_SLAB_ITEMS / 64];
    uint64_t fill[7];
};

/** Asked while collecting: is the item free now, and if so, make it the collector's. */
typedef bool pool_settle(void *context, uint32_t item);

struct pool {
    struct pool_slab *slabs;         /* in the region */
    uint32_t slab_count, slabs_kept; /* the last ones of slab_count are kept; 0: none */
    _Atomic uint32_t *claimed;       /* in the region: slabs below it may have an owner */
    uint16_t slot;
    pool_settle *settle;
    void *context;
    uint32_t few_count;
    uint32_t few[POOL_FEW]; /* the top of the private stack */
    uint32_t known;         /* the own slab of the last item taken */
    uint32_t *free;         /* the rest of the stack */
    uint32_t free_count, free_capacity;
    uint32_t *own; /* private: slabs of this slot */
    uint32_t own_count, own_capacity;
    uint32_t turn; /* private: the own slab that is looked at next */
};

/** Takes the slabs of the slot's earlier processes over. */
void pool_attach(struct pool *pool, struct pool_slab *slabs, uint32_t slab_count,
                 uint32_t slabs_kept, _Atomic uint32_t *claimed, uint16_t slot, pool_settle *settle,
                 void *context);
void pool_detach(struct pool *pool);

/** A free item: from the stack, else collected, else of a new slab. POOL_NONE: no room is left.
 *  Slabs are claimed only after a look at some of the own: else one slot would end up with all. */
uint32_t pool_take(struct pool *pool);

/** Puts an item of this slot back into the stack. */
void pool_give(struct pool *pool, uint32_t item);

/** Tells the item's owner that it may be free. Any slot; idempotent. */
void pool_mark(struct pool *pool, uint32_t item);

/** Looks at all own items whose bit is set; of the slabs s with bit s mod 64 in `which`. */
void pool_collect(struct pool *pool, uint64_t which);

/** Repair: a slab that the dead claimed counts, even if it died before it could say so. */
void pool_raise(struct pool *pool);

static inline uint16_t pool_home(const struct pool *pool, uint32_t item)
{
    return (uint16_t)(atomic_load_explicit(&pool->slabs[item / POOL_SLAB_ITEMS].owner,
                                           memory_order_relaxed) -
                      1);
}

/** The private stack: how many items, and the one at depth `i` from its bottom. */
static inline uint32_t pool_free_count(const struct pool *pool)
{
    return pool->free_count + pool->few_count;
}

static inline uint32_t pool_free_item(const struct pool *pool, uint32_t i)
{
    return i < pool->free_count ? pool->free[i] : pool->few[i - pool->free_count];
}

/** Whether an item is of this slot. Slabs never change hands: of the one known nobody else need be asked. */
static inline bool pool_owns(const struct pool *pool, uint32_t item)
{
    return item / POOL_SLAB_ITEMS == pool->known || pool_home(pool, item) == pool->slot;
}

#endif
