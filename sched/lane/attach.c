#include <stdlib.h>
#include <string.h>

#include "sched/lane/inside.h"

enum { ROW_SETS = 2 };

static uint32_t round_up(uint32_t value, uint32_t to)
{
    return (value + to - 1) / to * to;
}

static uint32_t power_of_two(uint32_t value)
{
    uint32_t power = 64;
    while (power < value && power < 1u << 30)
        power *= 2;
    return power;
}

static uint32_t slot_words_of(const struct lane_options *options)
{
    return (options->slot_count + 63) / 64;
}

enum moray_code lane_plan(const struct lane_options *options, struct arena_layout *layout,
                          struct moray_error *error)
{
    uint32_t records = round_up(options->record_count, POOL_SLAB_ITEMS) +
                       (options->slab_each ? options->slot_count * POOL_SLAB_ITEMS : 0);

    if (options->slot_count < 2 || options->slot_count > LANE_SLOTS_MAX)
        return error_set(error, MORAY_INVALID,
                         "%u processes a node; MORAY_PROCESSES_MAX takes 2 to %d",
                         options->slot_count, LANE_SLOTS_MAX);
    struct arena_sizes sizes = {
        .data_bytes = options->data_bytes,
        .slot_count = options->slot_count,
        .slot_bytes = sizeof(struct lane_slot),
        .ring_entries = power_of_two(options->queue_max),
        .record_count = records,
        .record_bytes = sizeof(struct record) + ROW_SETS * 8 * slot_words_of(options),
        .cell_count = records,
        .cell_bytes = sizeof(struct lane_cell),
        .control_bytes = sizeof(struct lane_control),
    };
    return arena_plan(&sizes, layout, error);
}

void lane_format(void *region, const struct arena_layout *layout,
                 const struct lane_options *options, uint32_t rank)
{
    struct lane_control *control = region;

    control->layout = *layout;
    control->rank = rank;
    control->slot_words = slot_words_of(options);
    control->worker_words = 1;
    control->slabs_kept = options->slab_each ? options->slot_count : 0;
    control->rows = layout->records + (uint64_t)layout->record_count * sizeof(struct record);
    control->magic = 0x3159415251304d00;
}

/* The holds of a slot's earlier process that are still meant: those on the inputs of its tasks. */
static void take_over_holds(struct lane *lane)
{
    for (uint32_t i = 0; i < lane->record_pool.own_count; i++)
        for (uint32_t k = 0; k < POOL_SLAB_ITEMS; k++) {
            struct record *record =
                lane_record(lane, lane->record_pool.own[i] * POOL_SLAB_ITEMS + k);
            uint32_t bytes;
            if (life_state(record_life(record)) < RECORD_MAKING ||
                !(record_flags(record) & RECORD_HOLDS_INPUTS))
                continue;
            const uint32_t *words = lane_arguments(lane, record, &bytes);
            for (int n = __builtin_popcount(record->reference_mask); n-- > 0;)
                if (lane_home(lane, words[n * 4 + 1]) != lane->slot)
                    lane_hold_input(lane, words[n * 4 + 1]);
        }
}

enum moray_code lane_attach(struct lane *lane, void *region, uint16_t slot,
                            enum lane_slot_kind kind, lane_wake_call *wake, void *wake_context)
{
    struct lane_control *control = region;
    const struct arena_layout *layout = &control->layout;
    char *base = region;

    *lane = (struct lane){.control = control,
                          .slots = (struct lane_slot *)(base + layout->slots),
                          .records = (struct record *)(base + layout->records),
                          .cells = (struct lane_cell *)(base + layout->cells),
                          .slot = slot,
                          .ring_mask = layout->ring_entries - 1,
                          .wake = wake,
                          .wake_context = wake_context};
    lane->self = &lane->slots[slot];
    arena_attach(&lane->arena, region, layout, slot, lane_refers);
    pool_attach(&lane->record_pool, (struct pool_slab *)(base + layout->record_slabs),
                layout->record_count / POOL_SLAB_ITEMS, control->slabs_kept,
                &control->records_claimed, slot, record_settle, lane);
    pool_attach(&lane->cell_pool, (struct pool_slab *)(base + layout->cell_slabs),
                layout->cell_count / POOL_SLAB_ITEMS, control->slabs_kept, &control->cells_claimed,
                slot, cell_settle, lane);
    take_over_holds(lane);
    uint32_t words = atomic_load(&control->worker_words);
    while (kind == LANE_IS_WORKER && words <= slot / 64u &&
           !atomic_compare_exchange_weak(&control->worker_words, &words, slot / 64u + 1))
        ;
    atomic_store(&lane->self->kind, kind);
    atomic_store(&lane->self->freed, ~(uint64_t)0);
    lane_settle_freed(lane);
    pool_collect(&lane->cell_pool, ~(uint64_t)0);
    lane->head_seen = atomic_load(&lane->self->head);
    return MORAY_OK;
}

void lane_detach(struct lane *lane)
{
    pool_detach(&lane->record_pool);
    pool_detach(&lane->cell_pool);
    arena_detach(&lane->arena);
    free(lane->held);
    free(lane->held_count);
    free(lane->held_inputs);
    *lane = (struct lane){0};
}

/* ---- Where the bytes of a record lie ---- */

static char *blob(const struct lane *lane, const struct record *record, uint32_t *bytes)
{
    if (RARELY(record_flags(record) & RECORD_BLOCK)) {
        const struct record_block *block = (const struct record_block *)record->arguments;
        *bytes = block->bytes;
        return arena_at(&lane->arena, block->place);
    }
    *bytes = record->argument_bytes;
    return (char *)record->arguments;
}

ON_TRIP void *lane_arguments(const struct lane *lane, const struct record *record, uint32_t *bytes)
{
    char *at = blob(lane, record, bytes);
    uint32_t before = 0;

    if (record_flags(record) & RECORD_LONG)
        before += sizeof(struct record_long);
    if (record->kind == RECORD_METHOD)
        before += sizeof(struct record_call);
    assert(*bytes >= before);
    *bytes -= before;
    return at + before;
}

struct record_long *lane_long(const struct lane *lane, const struct record *record)
{
    uint32_t bytes;
    return record_flags(record) & RECORD_LONG ? (struct record_long *)blob(lane, record, &bytes)
                                              : NULL;
}

struct record_call *lane_call(const struct lane *lane, const struct record *record)
{
    uint32_t bytes;
    char *at = blob(lane, record, &bytes);

    if (record->kind != RECORD_METHOD)
        return NULL;
    return (struct record_call *)(record_flags(record) & RECORD_LONG
                                      ? at + sizeof(struct record_long)
                                      : at);
}

/* Reads what its home may be writing for another life: what is read then is thrown away. */
__attribute__((no_sanitize("thread"))) bool call_peek(const struct lane *lane, uint32_t index,
                                                      uint32_t generation, struct record_call *out)
{
    const struct record *record = lane_record(lane, index);
    const struct record_block *block = (const struct record_block *)record->arguments;
    uint16_t flags = record_flags(record);
    const char *at = (const char *)record->arguments;

    if (flags & RECORD_BLOCK) {
        uint64_t from = (uint64_t)block->place * ARENA_PLACE_BYTES;
        if (from < lane->control->layout.data ||
            from + sizeof(struct record_long) + sizeof(*out) > lane->control->layout.total_bytes)
            return false;
        at = lane->arena.region + from;
    }
    if (flags & RECORD_LONG)
        at += sizeof(struct record_long);
    *out = *(const struct record_call *)at;
    uint64_t life = record_life(record);
    return life_generation(life) == generation && life_state(life) >= RECORD_WAITING &&
           record->kind == RECORD_METHOD;
}

/* Asked of blocks that are marked free, so of a record that has ended, or has begun another life
 * and is being written: then it cannot refer to the block, and at worst it seems to, for a moment. */
__attribute__((no_sanitize("thread"))) bool lane_refers(const void *region, uint32_t index,
                                                        uint32_t place)
{
    const struct lane_control *control = region;
    const struct record *record =
        (const struct record *)((const char *)region + control->layout.records) + index;
    uint16_t flags = record_flags(record);

    if (life_state(record_life(record)) <= RECORD_ORPHAN)
        return false;
    return ((flags & RECORD_RESULT_BLOCK) && record->result.block.place == place) ||
           ((flags & RECORD_BLOCK) &&
            ((const struct record_block *)record->arguments)->place == place);
}
