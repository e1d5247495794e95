#include "tests/lane/node.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sched/lane/inside.h"

void (*node_ran)(uint32_t index, uint32_t generation);
uint64_t (*node_compute)(struct lane *lane, uint32_t function);

static void no_wake(void *context, uint16_t slot)
{
    (void)context;
    (void)slot;
}

static _Noreturn void give_up(const char *what)
{
    fprintf(stderr, "tests/lane/node: %s\n", what);
    abort();
}

void node_open(struct node *node, const struct lane_options *options)
{
    if (lane_plan(options, &node->layout, NULL) != MORAY_OK)
        give_up("no layout");
    node->region = mmap(NULL, node->layout.total_bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (node->region == MAP_FAILED)
        give_up("no memory for a region");
    lane_format(node->region, &node->layout, options, 0);
}

void node_close(struct node *node)
{
    munmap(node->region, node->layout.total_bytes);
    node->region = NULL;
}

void node_attach(const struct node *node, struct lane *lane, uint16_t slot,
                 enum lane_slot_kind kind)
{
    if (lane_attach(lane, node->region, slot, kind, no_wake, NULL) != MORAY_OK)
        give_up("no handle");
}

/* ---- Tasks ---- */

struct input { /* as struct moray_ref: owner, index, generation, type */
    uint32_t owner, index, generation, type;
};

static struct input *inputs_at(const struct lane *lane, uint32_t index)
{
    uint32_t bytes;
    return lane_arguments(lane, lane_record(lane, index), &bytes);
}

static char *room_for(struct lane *lane, uint32_t index, uint32_t bytes)
{
    struct record *record = lane_record(lane, index);

    if (bytes <= RECORD_ARGUMENT_BYTES) {
        record->argument_bytes = (uint16_t)bytes;
        return (char *)record->arguments;
    }
    uint32_t place = arena_alloc(&lane->arena, bytes, index);
    if (!place)
        return NULL;
    *(struct record_block *)record->arguments = (struct record_block){place, bytes};
    atomic_fetch_or(&record->flags, RECORD_BLOCK);
    return arena_at(&lane->arena, place);
}

uint32_t node_make(struct lane *lane, const uint32_t *inputs, uint32_t count,
                   const struct node_shape *shape)
{
    static const struct node_shape plain = {.kind = RECORD_TASK};
    uint32_t index, before = 0, bytes;
    char *at;

    if (!shape)
        shape = &plain;
    index = lane_make(lane, shape->kind);
    if (index == RECORD_NONE)
        return RECORD_NONE;
    struct record *record = lane_record(lane, index);
    atomic_store(&record->flags, shape->flags);
    record->site = shape->result_bytes;
    record->function = shape->function;
    record->attempts_max = 0;
    if (shape->kind == RECORD_METHOD)
        before = sizeof(struct record_call);
    bytes = before + count * (uint32_t)sizeof(struct input);
    at = room_for(lane, index, bytes > shape->argument_bytes ? bytes : shape->argument_bytes);
    if (!at) {
        lane_abandon(lane, index);
        return RECORD_NONE;
    }
    if (before)
        *(struct record_call *)at =
            (struct record_call){.actor = shape->actor, .submitter = lane->slot};
    for (uint32_t i = 0; i < count; i++) {
        ((struct input *)(at + before))[i] = (struct input){
            .index = inputs[i],
            .generation = life_generation(record_life(lane_record(lane, inputs[i])))};
        lane_hold_input(lane, inputs[i]);
    }
    record->reference_mask = (uint16_t)((1u << count) - 1);
    if (count)
        atomic_fetch_or(&record->flags, RECORD_HOLDS_INPUTS);
    for (uint32_t i = 0; i < count; i++)
        if (lane_depends(lane, index, inputs[i], i) != MORAY_OK) {
            lane_abandon(lane, index);
            return RECORD_NONE;
        }
    return index;
}

uint32_t node_submit(struct lane *lane, const uint32_t *inputs, uint32_t count,
                     const struct node_shape *shape)
{
    uint32_t index = node_make(lane, inputs, count, shape);

    if (index == RECORD_NONE)
        return RECORD_NONE;
    enum moray_code code = shape && shape->kind == RECORD_METHOD
                               ? lane_submit_call(lane, index, shape->actor)
                               : lane_submit(lane, index);
    if (code == MORAY_OK)
        return index;
    lane_abandon(lane, index);
    return RECORD_NONE;
}

static bool result_write(struct lane *lane, uint32_t index, uint64_t value, uint32_t bytes)
{
    struct record *record = lane_record(lane, index);

    if (bytes < sizeof(value))
        bytes = sizeof(value);
    if (record_value_fits(record, bytes)) {
        char *at = record_value(record, bytes);
        if (bytes > sizeof(value)) /* all of it, so that what it must not touch shows */
            memset(at, 0x5a, bytes);
        memcpy(at, &value, sizeof(value));
        record_set_result_bytes(record, bytes);
        return true;
    }
    uint32_t place = arena_alloc(&lane->arena, bytes, index);
    if (!place)
        return false;
    memcpy(arena_at(&lane->arena, place), &value, sizeof(value));
    record->result.block.place = place;
    record->result.block.window = 0;
    record_set_result_bytes(record, bytes);
    atomic_fetch_or(&record->flags, RECORD_RESULT_BLOCK);
    return true;
}

uint32_t node_put(struct lane *lane, uint64_t value, uint32_t bytes)
{
    uint32_t index = lane_make(lane, RECORD_OBJECT);

    if (index == RECORD_NONE)
        return RECORD_NONE;
    if (!result_write(lane, index, value, bytes)) {
        lane_abandon(lane, index);
        return RECORD_NONE;
    }
    lane_publish(lane, index, RECORD_DONE);
    return index;
}

uint64_t node_value(const struct lane *lane, uint32_t index)
{
    struct record *record = lane_record(lane, index);
    uint64_t value;

    if (record_flags(record) & RECORD_RESULT_BLOCK)
        memcpy(&value, arena_at(&lane->arena, record->result.block.place), sizeof(value));
    else
        memcpy(&value, record_value(record, record_result_bytes(record)), sizeof(value));
    return value;
}

void node_body(struct lane *lane, uint32_t index)
{
    const struct record *record = lane_record(lane, index);
    int count = __builtin_popcount(record->reference_mask);
    const struct input *inputs = inputs_at(lane, index);
    uint64_t sum = 1;

    for (int i = 0; i < count; i++)
        sum += node_value(lane, inputs[i].index);
    if (record->function)
        sum = node_compute(lane, record->function);
    if (!result_write(lane, index, sum, record->site))
        give_up("no room for a result");
}

void node_run(struct lane *lane, uint32_t index)
{
    uint32_t generation = life_generation(record_life(lane_record(lane, index)));

    node_body(lane, index);
    lane_finish(lane, index, RECORD_DONE);
    if (node_ran)
        node_ran(index, generation);
}

/* ---- What a process of a slot does ---- */

static void agent_takes(struct lane *lane, const struct lane_mail *mail)
{
    if (mail->kind == CELL_CALL && lane_claim(lane, mail->index, mail->generation)) {
        node_run(lane, mail->index);
    } else if (mail->kind == CELL_FREE_ME && lane_find(lane, mail->index, mail->generation)) {
        struct record *record = lane_record(lane, mail->index);
        atomic_fetch_and(&record->flags, (uint16_t)~RECORD_CONTAINS);
        home_tell(lane, mail->index);
    }
}

/* Calls that were not ready when they came, of the actor that this thread plays. */
static _Thread_local struct lane_mail waiting_calls[1024];
static _Thread_local uint32_t waiting_count;

static void actor_takes(struct lane *lane, const struct lane_mail *mail)
{
    if (mail->kind != CELL_CALL)
        return;
    if (lane_claim(lane, mail->index, mail->generation))
        node_run(lane, mail->index);
    else if (lane_find(lane, mail->index, mail->generation) && waiting_count < 1024)
        waiting_calls[waiting_count++] = *mail;
}

static bool calls_ready(struct lane *lane)
{
    bool any = false;

    for (uint32_t i = 0; i < waiting_count;) {
        struct lane_mail call = waiting_calls[i];
        bool mine = lane_claim(lane, call.index, call.generation);
        const struct record *record = lane_find(lane, call.index, call.generation);
        if (mine)
            node_run(lane, call.index);
        else if (record && life_state(record_life(record)) <= RECORD_QUEUED) {
            i++;
            continue;
        }
        waiting_calls[i] = waiting_calls[--waiting_count];
        any |= mine;
    }
    return any;
}

static void takes(void *context, const struct lane_mail *mail)
{
    struct lane *lane = context;

    if (lane->slot == LANE_AGENT)
        agent_takes(lane, mail);
    else
        actor_takes(lane, mail);
}

bool node_step(struct lane *lane)
{
    bool any = lane_mail(lane, takes, lane) > 0;
    enum lane_slot_kind kind = atomic_load(&lane->self->kind);

    lane_tick(lane);
    if (kind == LANE_IS_ACTOR)
        any |= calls_ready(lane);
    if (kind == LANE_IS_WORKER) {
        uint32_t index = lane_next(lane);
        if (index != RECORD_NONE) {
            node_run(lane, index);
            any = true;
        }
    }
    return any;
}

/* ---- Repair ---- */

static void on_running(void *context, uint32_t index, bool innermost)
{
    lane_requeue_dead(context, index, innermost);
}

static void on_queued(void *context, uint32_t index)
{
    struct lane *lane = context;
    struct record *record = lane_record(lane, index);

    if (record->kind == RECORD_REQUEST || (record_flags(record) & RECORD_GENERAL)) {
        if (lane_post(lane, LANE_AGENT, index, life_generation(record_life(record)), CELL_CALL,
                      0) != MORAY_OK)
            give_up("no cell to queue a task again");
    } else
        lane_push_hint(lane, index);
}

static void on_call(void *context, uint32_t index)
{
    struct lane *lane = context;
    uint64_t life = record_life(lane_record(lane, index));
    struct record_call call;

    if (call_peek(lane, index, life_generation(life), &call) &&
        lane_post(lane, (uint16_t)call.actor, index, life_generation(life), CELL_CALL, 0) !=
            MORAY_OK)
        give_up("no cell to post a call again");
}

static void on_ended(void *context, uint32_t index)
{
    (void)context; /* this agent waits for nothing */
    (void)index;
}

static void on_cancelled(void *context, uint32_t index)
{
    (void)context;
    (void)index;
}

struct repair_calls node_repair_calls(struct lane *lane)
{
    return (struct repair_calls){.context = lane,
                                 .running = on_running,
                                 .queued = on_queued,
                                 .call = on_call,
                                 .cancelled = on_cancelled,
                                 .ended = on_ended};
}

/* ---- Accounts ---- */

static uint32_t records_claimed(const struct node *node)
{
    return atomic_load(&((struct lane_control *)node->region)->records_claimed) * POOL_SLAB_ITEMS;
}

static uint32_t cells_claimed(const struct node *node)
{
    return atomic_load(&((struct lane_control *)node->region)->cells_claimed) * POOL_SLAB_ITEMS;
}

static void census_of_arena(const struct arena *arena, struct node_census *census)
{
    struct arena_usage usage;

    arena_usage(arena, &usage);
    census->held_blocks = usage.held_blocks;
    census->run_bytes = usage.run_bytes;
    census->pages_lost = (usage.data_bytes - usage.free_page_bytes) / ARENA_PAGE_BYTES;
}

void node_census(const struct node *node, struct lane *const *lanes, struct node_census *census)
{
    const struct record *records = (struct record *)(node->region + node->layout.records);
    const struct lane_cell *cells = (struct lane_cell *)(node->region + node->layout.cells);
    struct arena arena;

    for (uint32_t slot = 0; lanes && slot < node->layout.slot_count; slot++)
        if (lanes[slot]) {
            lane_settle_freed(lanes[slot]);
            pool_collect(&lanes[slot]->cell_pool, ~(uint64_t)0);
        }
    *census = (struct node_census){0};
    for (uint32_t index = 0; index < records_claimed(node); index++)
        census->records += life_state(record_life(&records[index])) > RECORD_ORPHAN;
    for (uint32_t cell = 0; cell < cells_claimed(node); cell++) {
        uint32_t task = atomic_load(&cells[cell].task);
        census->cells += task != 0 && task != CELL_FREED;
    }
    arena_attach(&arena, node->region, &node->layout, 0, lane_refers);
    census_of_arena(&arena, census);
    arena_detach(&arena);
    census->pages_lost = 0; /* slabs of the living are theirs */
}

static uint32_t slabs_of(const struct pool_slab *slabs, uint32_t count, uint16_t slot)
{
    uint32_t found = 0;
    for (uint32_t slab = 0; slab < count; slab++)
        found += atomic_load(&slabs[slab].owner) == slot + 1u;
    return found;
}

static void demand_once(const struct pool *pool)
{
    uint8_t *seen = calloc(pool->slab_count, POOL_SLAB_ITEMS);

    for (uint32_t i = 0; seen && i < pool_free_count(pool); i++) {
        if (seen[pool_free_item(pool, i)])
            give_up("an item is in a free stack twice");
        seen[pool_free_item(pool, i)] = 1;
    }
    free(seen);
}

/* Blocks of the slot's slabs that are neither in its stacks nor marked as free. */
static uint32_t blocks_lost(const struct lane *lane)
{
    const struct arena *arena = &lane->arena;
    const struct arena_layout *layout = arena->layout;
    const struct arena_slab *slabs = (struct arena_slab *)(arena->region + layout->slabs);
    uint32_t all = 0, there = 0;

    for (uint32_t i = 0; i < arena->own_count; i++) {
        uint64_t page = layout->data + (uint64_t)arena->own_pages[i] * ARENA_PAGE_BYTES;
        all += ARENA_PAGE_BYTES /
               (uint32_t)arena_block_bytes(arena, (uint32_t)(page / ARENA_PLACE_BYTES));
        for (int word = 0; word < ARENA_SLAB_WORDS; word++)
            there += (uint32_t)__builtin_popcountll(
                atomic_load(&slabs[arena->own_pages[i]].freed[word]));
    }
    for (int class = 0; class < ARENA_CLASS_COUNT; class ++)
        there += arena->free[class].count;
    return all - there;
}

void node_lost(const struct node *node, struct lane *lanes, struct node_census *census)
{
    const _Atomic uint64_t *words = (_Atomic uint64_t *)(node->region + node->layout.pages);
    uint64_t pages = 0;

    *census = (struct node_census){0};
    for (uint32_t slot = 0; slot < node->layout.slot_count; slot++) {
        struct lane *lane = &lanes[slot];
        lane_settle_freed(lane);
        pool_collect(&lane->cell_pool, ~(uint64_t)0);
        census->records_lost +=
            lane->record_pool.own_count * POOL_SLAB_ITEMS - pool_free_count(&lane->record_pool);
        census->cells_lost +=
            lane->cell_pool.own_count * POOL_SLAB_ITEMS - pool_free_count(&lane->cell_pool);
        census->blocks_lost += blocks_lost(lane);
        pages += lane->arena.own_count;
    }
    for (uint32_t page = 0; page < node->layout.page_count; page++)
        census->pages_lost += atomic_load(&words[page]) != 0;
    census->pages_lost -= pages;
}

/* All records and cells of the slot that its next process gets from its own slabs. */
static void count_slot(const struct node *node, uint16_t slot, struct node_census *census)
{
    uint32_t record_slabs = node->layout.record_count / POOL_SLAB_ITEMS;
    uint32_t cell_slabs = node->layout.cell_count / POOL_SLAB_ITEMS;
    struct lane lane;

    node_attach(node, &lane, slot, slot == LANE_AGENT ? LANE_IS_AGENT : LANE_IS_WORKER);
    lane_settle_freed(&lane);
    pool_collect(&lane.cell_pool, ~(uint64_t)0);
    census->records_lost += slabs_of(lane.record_pool.slabs, record_slabs, slot) * POOL_SLAB_ITEMS -
                            pool_free_count(&lane.record_pool);
    census->cells_lost += slabs_of(lane.cell_pool.slabs, cell_slabs, slot) * POOL_SLAB_ITEMS -
                          pool_free_count(&lane.cell_pool);
    demand_once(&lane.record_pool);
    demand_once(&lane.cell_pool);
    for (uint32_t i = 0; i < pool_free_count(&lane.record_pool); i++)
        if (life_state(record_life(lane_record(&lane, pool_free_item(&lane.record_pool, i)))) !=
            RECORD_FREE)
            give_up("a record in a free stack is not free");
    lane_detach(&lane);
}

void node_count(const struct node *node, struct node_census *census)
{
    struct node_census lost = {0};
    struct lane agent;

    node_census(node, NULL, census);
    node_attach(node, &agent, LANE_AGENT, LANE_IS_AGENT);
    struct repair_calls calls = node_repair_calls(&agent);
    for (uint32_t slot = 1; slot < node->layout.slot_count; slot++)
        if (!lane_repair(&agent, (uint16_t)slot, &calls))
            give_up("a repair at rest was refused");
    arena_repair(&agent.arena, LANE_AGENT);
    census_of_arena(&agent.arena, &lost);
    lane_detach(&agent);
    census->pages_lost = lost.pages_lost;
    for (uint32_t slot = 1; slot < node->layout.slot_count; slot++)
        count_slot(node, (uint16_t)slot, census);
}
