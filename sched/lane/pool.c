#include "sched/lane/pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct pool_slab) == 128, "the arena's layout counts on it");

enum { COLLECT_SLABS = 16 };

static bool push(uint32_t **items, uint32_t *count, uint32_t *capacity, uint32_t item)
{
    if (*count == *capacity) {
        uint32_t larger = *capacity ? *capacity * 2 : 1024;
        uint32_t *grown = realloc(*items, larger * sizeof(**items));
        if (!grown)
            return false;
        *items = grown;
        *capacity = larger;
    }
    (*items)[(*count)++] = item;
    return true;
}

void pool_attach(struct pool *pool, struct pool_slab *slabs, uint32_t slab_count,
                 uint32_t slabs_kept, _Atomic uint32_t *claimed, uint16_t slot, pool_settle *settle,
                 void *context)
{
    *pool = (struct pool){.slabs = slabs,
                          .slab_count = slab_count,
                          .slabs_kept = slabs_kept,
                          .claimed = claimed,
                          .slot = slot,
                          .known = POOL_NONE,
                          .settle = settle,
                          .context = context};
    uint32_t end = atomic_load_explicit(claimed, memory_order_acquire);
    for (uint32_t slab = 0; slab < end; slab++)
        if (atomic_load_explicit(&slabs[slab].owner, memory_order_relaxed) == slot + 1u)
            if (!push(&pool->own, &pool->own_count, &pool->own_capacity, slab))
                break;
}

void pool_detach(struct pool *pool)
{
    free(pool->free);
    free(pool->own);
    *pool = (struct pool){0};
}

/* The item is out of the stack of nobody, its bit goes first: a death in between leaves an item that
 * says it is free and has no bit, which the repair of this slot marks again. */
static void collect_slab(struct pool *pool, uint32_t slab)
{
    for (uint32_t word = 0; word < POOL_SLAB_ITEMS / 64; word++) {
        _Atomic uint64_t *freed = &pool->slabs[slab].freed[word];
        if (atomic_load_explicit(freed, memory_order_relaxed) == 0)
            continue;
        uint64_t bits = atomic_exchange_explicit(freed, 0, memory_order_seq_cst);
        for (; bits; bits &= bits - 1) {
            uint32_t item = slab * POOL_SLAB_ITEMS + word * 64 + (uint32_t)__builtin_ctzll(bits);
            if (pool->settle(pool->context, item))
                pool_give(pool, item);
        }
    }
}

void pool_collect(struct pool *pool, uint64_t which)
{
    for (uint32_t i = 0; i < pool->own_count; i++)
        if (which >> pool->own[i] % 64 & 1)
            collect_slab(pool, pool->own[i]);
}

/* A few own slabs in turn: a bounded look, so that a pool that only grows pays little for it. */
static bool collect_some(struct pool *pool)
{
    uint32_t looks = pool->own_count < COLLECT_SLABS ? pool->own_count : COLLECT_SLABS;

    while (looks-- > 0 && pool->few_count == 0) {
        pool->turn = pool->turn + 1 < pool->own_count ? pool->turn + 1 : 0;
        collect_slab(pool, pool->own[pool->turn]);
    }
    return pool->few_count > 0;
}

static bool claimed_now(struct pool *pool, uint32_t slab)
{
    if (!push(&pool->own, &pool->own_count, &pool->own_capacity, slab))
        return false;
    for (uint32_t i = POOL_SLAB_ITEMS; i-- > 0;)
        pool_give(pool, slab * POOL_SLAB_ITEMS + i);
    return true;
}

/* The mark goes first: a slab below it need not have an owner. */
static bool claim_kept(struct pool *pool)
{
    uint32_t slab = pool->slab_count - pool->slabs_kept + pool->slot, nobody = 0;
    uint32_t end = atomic_load(pool->claimed);

    if (pool->slot >= pool->slabs_kept || atomic_load(&pool->slabs[slab].owner) != 0)
        return false;
    while (end <= slab && !atomic_compare_exchange_weak(pool->claimed, &end, slab + 1))
        ;
    return atomic_compare_exchange_strong(&pool->slabs[slab].owner, &nobody, pool->slot + 1u) &&
           claimed_now(pool, slab);
}

static bool claim(struct pool *pool)
{
    for (uint32_t slab = atomic_load_explicit(pool->claimed, memory_order_relaxed);
         slab < pool->slab_count - pool->slabs_kept; slab++) {
        uint32_t nobody = 0, seen = slab;
        bool won = atomic_compare_exchange_strong_explicit(&pool->slabs[slab].owner, &nobody,
                                                           pool->slot + 1u, memory_order_acq_rel,
                                                           memory_order_relaxed);
        /* Whoever comes by raises the mark, so a death after the swap above leaves it right. */
        atomic_compare_exchange_strong_explicit(pool->claimed, &seen, slab + 1,
                                                memory_order_acq_rel, memory_order_relaxed);
        if (won)
            return claimed_now(pool, slab);
    }
    return false;
}

/* False: no room is left. */
OFF_TRIP static bool refill(struct pool *pool)
{
    if (pool->free_count == 0 && !collect_some(pool) && !claim(pool)) {
        pool_collect(pool, ~(uint64_t)0);
        if (pool->few_count == 0)
            (void)claim_kept(pool);
    }
    while (pool->free_count > 0 && pool->few_count < POOL_FEW / 2)
        pool->few[pool->few_count++] = pool->free[--pool->free_count];
    return pool->few_count > 0;
}

ON_TRIP uint32_t pool_take(struct pool *pool)
{
    if (pool->few_count == 0 && !refill(pool))
        return POOL_NONE;
    uint32_t item = pool->few[--pool->few_count];
    pool->known = item / POOL_SLAB_ITEMS;
    return item;
}

OFF_TRIP static void spill(struct pool *pool)
{
    for (uint32_t i = 0; i < POOL_FEW / 2; i++)
        if (!push(&pool->free, &pool->free_count, &pool->free_capacity, pool->few[i]))
            abort(); /* a few bytes of private memory are gone: nothing in this process can go on */
    pool->few_count -= POOL_FEW / 2;
    memmove(pool->few, pool->few + POOL_FEW / 2, pool->few_count * sizeof(*pool->few));
}

ON_TRIP void pool_give(struct pool *pool, uint32_t item)
{
    if (pool->few_count == POOL_FEW)
        spill(pool);
    pool->few[pool->few_count++] = item;
}

void pool_mark(struct pool *pool, uint32_t item)
{
    atomic_fetch_or_explicit(
        &pool->slabs[item / POOL_SLAB_ITEMS].freed[item % POOL_SLAB_ITEMS / 64],
        (uint64_t)1 << item % 64, memory_order_seq_cst);
}

void pool_raise(struct pool *pool)
{
    for (;;) {
        uint32_t end = atomic_load(pool->claimed);
        if (end >= pool->slab_count || !atomic_load(&pool->slabs[end].owner))
            return;
        atomic_compare_exchange_strong(pool->claimed, &end, end + 1);
    }
}
