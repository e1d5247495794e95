#include "tests/sim/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/index.h"

struct pair {      /* the last message of one rank to another */
    uint64_t name; /* from << 32 | to */
    uint64_t time_ns;
};

struct world {
    struct world_odds odds;
    uint64_t random;
    uint64_t now_ns, order, count, trace;
    struct event *heap; /* owned */
    size_t heap_count, heap_capacity;
    struct pair *pairs; /* owned */
    uint32_t pair_count, pair_capacity;
    struct index by_pair;
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

uint64_t world_random(struct world *world, uint64_t limit)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return limit ? (world->random * 0x2545f4914f6cdd1du >> 11) % limit : 0;
}

bool world_chance(struct world *world, uint32_t per_mille)
{
    return world_random(world, 1000) < per_mille;
}

uint64_t world_now(const struct world *world)
{
    return world->now_ns;
}

const struct world_odds *world_odds(const struct world *world)
{
    return &world->odds;
}

static bool before(const struct event *a, const struct event *b)
{
    return a->time_ns < b->time_ns || (a->time_ns == b->time_ns && a->order < b->order);
}

static void push(struct world *world, const struct event *event)
{
    size_t at = world->heap_count++;

    if (at == world->heap_capacity) {
        world->heap_capacity = world->heap_capacity ? 2 * world->heap_capacity : 1024;
        world->heap = must(realloc(world->heap, world->heap_capacity * sizeof(*world->heap)));
    }
    while (at > 0 && before(event, &world->heap[(at - 1) / 2])) {
        world->heap[at] = world->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    world->heap[at] = *event;
}

void world_post(struct world *world, uint64_t delay_ns, struct event event)
{
    event.time_ns = world->now_ns + delay_ns;
    event.order = world->order++;
    push(world, &event);
}

static struct pair *pair_of(struct world *world, uint32_t from, uint32_t to)
{
    uint64_t name = (uint64_t)from << 32 | to;
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&world->by_pair, index_mix(name), &cursor)) != INDEX_NONE)
        if (world->pairs[at].name == name)
            return &world->pairs[at];
    if (world->pair_count == world->pair_capacity) {
        world->pair_capacity = world->pair_capacity ? 2 * world->pair_capacity : 64;
        world->pairs = must(realloc(world->pairs, world->pair_capacity * sizeof(*world->pairs)));
    }
    if (!index_reserve(&world->by_pair, 1))
        abort();
    index_add(&world->by_pair, index_mix(name), world->pair_count);
    world->pairs[world->pair_count] = (struct pair){.name = name};
    return &world->pairs[world->pair_count++];
}

void world_send(struct world *world, uint64_t extra_ns, struct event event, const void *data,
                size_t bytes)
{
    struct pair *pair = pair_of(world, event.from, event.to);
    uint64_t delay_ns =
        extra_ns + world->odds.latency_ns + world_random(world, world->odds.jitter_ns + 1);

    if (world_chance(world, world->odds.slow_per_mille))
        delay_ns += world_random(world, world->odds.slow_ns + 1);
    event.time_ns = world->now_ns + delay_ns;
    if (event.time_ns < pair->time_ns)
        event.time_ns = pair->time_ns; /* equal times come in the order of posting */
    pair->time_ns = event.time_ns;
    event.order = world->order++;
    event.bytes = bytes;
    if (bytes) {
        event.data = must(malloc(bytes));
        memcpy(event.data, data, bytes);
    }
    push(world, &event);
}

bool world_next(struct world *world, struct event *out)
{
    struct event last;
    size_t at = 0, child;

    if (!world->heap_count)
        return false;
    *out = world->heap[0];
    last = world->heap[--world->heap_count];
    while ((child = 2 * at + 1) < world->heap_count) {
        if (child + 1 < world->heap_count && before(&world->heap[child + 1], &world->heap[child]))
            child++;
        if (!before(&world->heap[child], &last))
            break;
        world->heap[at] = world->heap[child];
        at = child;
    }
    world->heap[at] = last;
    assert(out->time_ns >= world->now_ns);
    world->now_ns = out->time_ns;
    world->count++;
    world->trace = index_mix(world->trace ^ out->time_ns) + out->kind;
    world->trace = index_mix(world->trace ^ ((uint64_t)out->from << 32 | out->to));
    world->trace = index_mix(world->trace ^ out->a) ^ index_mix(out->b + 3 * out->c + 1);
    return true;
}

uint64_t world_count(const struct world *world)
{
    return world->count;
}

uint64_t world_trace(const struct world *world)
{
    return world->trace;
}

struct world *world_create(uint64_t seed, bool calm)
{
    struct world *world = must(calloc(1, sizeof(*world)));

    world->random = index_mix(seed + 1) | 1;
    world->odds = (struct world_odds){.latency_ns = 5000, .jitter_ns = 1000};
    if (!calm) {
        world->odds.latency_ns = 1000 + world_random(world, 20000);
        world->odds.jitter_ns = world_random(world, 2) ? world_random(world, 100000) : 0;
        world->odds.slow_per_mille = (uint32_t)world_random(world, 50);
        world->odds.slow_ns = world_random(world, 5 * 1000 * 1000);
    }
    return world;
}

void world_destroy(struct world *world)
{
    if (!world)
        return;
    for (size_t at = 0; at < world->heap_count; at++)
        free(world->heap[at].data);
    index_clear(&world->by_pair);
    free(world->heap);
    free(world->pairs);
    free(world);
}
