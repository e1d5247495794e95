/* The operations and start states of tests/lane/kill. */
#include "sched/lane/inside.h"
#include "tests/lane/kill.h"

#define LANE(slot) (&world->lanes[slot])

static uint32_t plain(struct world *world, uint16_t slot)
{
    return node_submit(LANE(slot), NULL, 0, NULL);
}

static uint32_t generation_of(const struct world *world, uint32_t index)
{
    return life_generation(record_life(lane_record(&world->lanes[AGENT], index)));
}

/* A task of the driver's, which it will look at. */
static uint32_t owned(struct world *world, const uint32_t *inputs, uint32_t count, uint64_t value)
{
    return world_own(world, DRIVER, node_submit(LANE(DRIVER), inputs, count, NULL), value);
}

static void run_all(struct world *world, uint16_t slot)
{
    uint32_t index;
    while ((index = lane_next(LANE(slot))) != RECORD_NONE)
        node_run(LANE(slot), index);
}

static void nothing(struct world *world)
{
    (void)world;
}

/* One record and one cell of each slot, so that its first slabs are claimed. */
static void warm(struct world *world)
{
    for (uint16_t slot = 0; slot < KILL_SLOTS; slot++) {
        lane_abandon(LANE(slot), lane_make(LANE(slot), RECORD_TASK));
        pool_give(&LANE(slot)->cell_pool, cell_take(LANE(slot)));
    }
}

/* ---- make, abandon, publish ---- */

static void act_make(struct world *world)
{
    lane_make(LANE(DRIVER), RECORD_TASK);
}

/* Its stack is empty, but others have freed records of it. */
static void state_collectable(struct world *world)
{
    struct lane *driver = LANE(DRIVER);

    warm(world);
    for (int i = 0; i < 3; i++)
        lane_drop(driver, plain(world, DRIVER));
    run_all(world, WORKER);
    while (driver->record_pool.free_count > 0)
        lane_make(driver, RECORD_OBJECT);
}

static void state_exhausted(struct world *world)
{
    warm(world);
    while (lane_make(LANE(DRIVER), RECORD_OBJECT) != RECORD_NONE)
        ;
}

static void state_made(struct world *world)
{
    warm(world);
    world->a = lane_make(LANE(DRIVER), RECORD_TASK);
}

static void state_made_large(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK, .argument_bytes = 300};
    warm(world);
    world->a = node_make(LANE(DRIVER), NULL, 0, &shape);
}

static void state_made_waiting(struct world *world)
{
    warm(world);
    world->b = world_own(world, OTHER, plain(world, OTHER), 1);
    world->c = plain(world, DRIVER);
    world->a = node_make(LANE(DRIVER), (uint32_t[]){world->b, world->c}, 2, NULL);
}

static void act_abandon(struct world *world)
{
    lane_abandon(LANE(DRIVER), world->a);
}

static void act_put_small(struct world *world)
{
    node_put(LANE(DRIVER), 5, 8);
}

static void act_put_block(struct world *world)
{
    node_put(LANE(DRIVER), 5, 500);
}

static void act_put_run(struct world *world)
{
    node_put(LANE(DRIVER), 5, 200000);
}

static void state_put_before(struct world *world)
{
    warm(world);
    lane_drop(LANE(DRIVER), node_put(LANE(DRIVER), 1, 500));
    lane_drop(LANE(DRIVER), node_put(LANE(DRIVER), 1, 500));
}

/* Every page is a slab of small blocks that are all free: a run needs one or more of them back. */
static void state_needs_trim(struct world *world)
{
    uint32_t made[64];
    int count = 0;

    warm(world);
    while (count < 64 && (made[count] = node_put(LANE(DRIVER), 1, 16384)) != RECORD_NONE)
        count++;
    for (int i = 0; i < count; i++)
        lane_drop(LANE(DRIVER), made[i]);
}

/* The only page between two used ones is taken: a run fails there first, and goes on behind. */
static void state_gap(struct world *world)
{
    uint32_t run[3];

    warm(world);
    for (int i = 0; i < 3; i++)
        run[i] = node_put(LANE(OTHER), 1, 60000);
    lane_drop(LANE(OTHER), run[1]);
    world_own(world, OTHER, run[0], 1);
    world_own(world, OTHER, run[2], 1);
}

/* ---- depends, submit ---- */

static void state_input(struct world *world)
{
    warm(world);
    world->b = world_own(world, OTHER, plain(world, OTHER), 1);
    world->a = lane_make(LANE(DRIVER), RECORD_TASK);
    lane_hold(LANE(DRIVER), world->b);
}

static void state_input_no_cell(struct world *world)
{
    state_input(world);
    while (LANE(DRIVER)->cell_pool.free_count > 0)
        pool_take(&LANE(DRIVER)->cell_pool);
}

static void state_input_ended(struct world *world)
{
    state_input(world);
    run_all(world, WORKER);
}

static void act_depends(struct world *world)
{
    (void)!lane_depends(LANE(DRIVER), world->a, world->b, 0);
}

/* What lane_depends() does when the input ends between its first look and its last: act by act. */
static void act_depends_late(struct world *world)
{
    struct lane *lane = LANE(DRIVER);
    uint32_t generation = generation_of(world, world->a);

    atomic_fetch_or(&lane_record(lane, world->a)->life, life_pending_bit(0));
    cell_push(lane, cell_take(lane), world->b, world->a, generation, CELL_EDGE, 0);
    if (tell_claim(lane, world->b, generation_of(world, world->b)))
        tell_edges(lane, world->b);
}

static void act_submit(struct world *world)
{
    (void)!lane_submit(LANE(DRIVER), world->a);
}

static void state_made_one_ended(struct world *world)
{
    state_made_waiting(world);
    node_run(LANE(WORKER), lane_steal_from(LANE(WORKER), OTHER));
}

static void state_made_all_ended(struct world *world)
{
    state_made_waiting(world);
    run_all(world, WORKER);
}

static void state_made_general(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK, .flags = RECORD_GENERAL};
    warm(world);
    world->a = node_make(LANE(DRIVER), NULL, 0, &shape);
}

static void state_made_general_waiting(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK, .flags = RECORD_GENERAL};
    warm(world);
    world->b = world_own(world, OTHER, plain(world, OTHER), 1);
    world->a = node_make(LANE(DRIVER), &world->b, 1, &shape);
}

static void state_made_request(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_REQUEST};
    warm(world);
    world->a = node_make(LANE(DRIVER), NULL, 0, &shape);
}

static void state_queue_full(struct world *world)
{
    state_made(world);
    for (int i = 0; i < 64; i++)
        plain(world, DRIVER);
}

static void state_made_call(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_METHOD, .actor = ACTOR};
    warm(world);
    world->a = node_make(LANE(DRIVER), NULL, 0, &shape);
}

static void state_made_call_waiting(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_METHOD, .actor = ACTOR};
    warm(world);
    world->b = world_own(world, OTHER, plain(world, OTHER), 1);
    world->a = node_make(LANE(DRIVER), &world->b, 1, &shape);
}

static void act_submit_call(struct world *world)
{
    (void)!lane_submit_call(LANE(DRIVER), world->a, ACTOR);
}

static void act_make_and_submit(struct world *world)
{
    node_submit(LANE(DRIVER), &world->b, 1, NULL);
}

/* Tasks of the victim that others hold, on inputs that only the victim's tasks hold. */
static void state_family(struct world *world)
{
    warm(world);
    world->b = world_own(world, OTHER, plain(world, OTHER), 1);
    uint32_t mine = node_submit(LANE(DRIVER), &world->b, 1, NULL);
    uint32_t object = node_put(LANE(DRIVER), 10, 200);
    uint32_t theirs = node_put(LANE(WORKER), 20, 8);
    lane_hold(LANE(DRIVER), theirs);
    lane_drop(LANE(WORKER), theirs);
    uint32_t child = node_submit(LANE(DRIVER), (uint32_t[]){mine, object, theirs}, 3, NULL);
    lane_hold(LANE(OTHER), child);
    world_own(world, OTHER, child, 1 + 2 + 10 + 20);
    lane_drop(LANE(DRIVER), mine);
    lane_drop(LANE(DRIVER), object);
    lane_drop(LANE(DRIVER), theirs);
    plain(world, DRIVER); /* held by nobody else: cancelled */
}

/* ---- claim, pop, steal ---- */

static void state_queued(struct world *world)
{
    warm(world);
    world->a = owned(world, NULL, 0, 1);
}

static void act_claim(struct world *world)
{
    lane_claim(LANE(WORKER), world->a, generation_of(world, world->a));
}

static void act_next(struct world *world)
{
    lane_next(LANE(WORKER));
}

static void act_next_run(struct world *world)
{
    run_all(world, WORKER);
}

static void state_queued_20(struct world *world)
{
    warm(world);
    for (int i = 0; i < 20; i++)
        owned(world, NULL, 0, 1);
}

static void state_queued_by_worker(struct world *world)
{
    warm(world);
    for (int i = 0; i < 3; i++)
        world_own(world, OTHER, plain(world, OTHER), 1);
}

/* The victim's own queue: tasks of the driver's that it stole in a batch. */
static void state_own_queue(struct world *world)
{
    warm(world);
    for (int i = 0; i < 3; i++)
        owned(world, NULL, 0, 1);
    node_run(LANE(WORKER), lane_next(LANE(WORKER)));
}

static void state_own_queue_one(struct world *world)
{
    warm(world);
    for (int i = 0; i < 2; i++)
        owned(world, NULL, 0, 1);
    node_run(LANE(WORKER), lane_next(LANE(WORKER)));
}

static void state_stale_entries(struct world *world)
{
    state_own_queue(world);
    for (uint32_t i = 0; i < world->owned_count; i++) {
        uint32_t index = world->owned[i].index;
        if (lane_claim(LANE(OTHER), index, generation_of(world, index)))
            node_run(LANE(OTHER), index);
    }
}

/* The driver's bit is set, its queue is empty: what a thief clears, and sets again. */
static void state_bit_of_empty(struct world *world)
{
    state_queued(world);
    node_run(LANE(OTHER), lane_steal_from(LANE(OTHER), DRIVER));
    LANE(WORKER)->empty_looks = 1000; /* so that it is cleared at the next look */
}

static void state_thief_full(struct world *world)
{
    state_queued_20(world);
    for (int i = 0; i < 60; i++)
        world_own(world, WORKER, plain(world, WORKER), 1);
}

static void act_steal_driver(struct world *world)
{
    lane_steal_from(LANE(WORKER), DRIVER);
}

static void act_unqueue(struct world *world)
{
    lane_unqueue(LANE(WORKER));
}

/* ---- run, finish, requeue, cancel ---- */

static void claim_a(struct world *world)
{
    lane_claim(LANE(WORKER), world->a, generation_of(world, world->a));
    atomic_store(&LANE(WORKER)->self->top, world->a + 1);
}

static void state_running(struct world *world)
{
    state_queued(world);
    claim_a(world);
}

static void state_running_forgotten(struct world *world)
{
    warm(world);
    world->a = plain(world, DRIVER);
    lane_drop(LANE(DRIVER), world->a);
    claim_a(world);
}

static void state_running_awaited(struct world *world)
{
    state_running(world);
    lane_await(LANE(DRIVER), world->a);
    lane_hold(LANE(AGENT), world->a);
    lane_await(LANE(AGENT), world->a);
    world_own(world, AGENT, world->a, 1);
}

static void state_running_edge(struct world *world)
{
    state_queued(world);
    owned(world, &world->a, 1, 2);
    claim_a(world);
}

static void state_running_edges(struct world *world)
{
    state_queued(world);
    uint32_t other = world_own(world, OTHER, plain(world, OTHER), 1);
    owned(world, &world->a, 1, 2);
    lane_hold(LANE(OTHER), world->a);
    world_own(world, OTHER, node_submit(LANE(OTHER), &world->a, 1, NULL), 2);
    lane_drop(LANE(OTHER), world->a);
    owned(world, (uint32_t[]){world->a, world->a}, 2, 3);
    lane_hold(LANE(DRIVER), other);
    owned(world, (uint32_t[]){world->a, other}, 2, 3); /* goes on waiting */
    lane_drop(LANE(DRIVER), other);
    claim_a(world);
}

static void state_running_edges_elsewhere(struct world *world)
{
    static const struct node_shape general = {.kind = RECORD_TASK, .flags = RECORD_GENERAL};
    static const struct node_shape call = {.kind = RECORD_METHOD, .actor = ACTOR};
    state_queued(world);
    world_own(world, DRIVER, node_submit(LANE(DRIVER), &world->a, 1, &general), 2);
    world_own(world, DRIVER, node_submit(LANE(DRIVER), &world->a, 1, &call), 2);
    claim_a(world);
}

static void state_running_edge_full(struct world *world)
{
    state_running_edge(world);
    for (int i = 0; i < 64; i++)
        plain(world, WORKER);
}

static void state_running_own_edges(struct world *world)
{
    warm(world);
    world->a = plain(world, WORKER); /* the victim's own task, its cells too */
    lane_hold(LANE(OTHER), world->a);
    world_own(world, OTHER, world->a, 1);
    uint32_t child = node_submit(LANE(WORKER), &world->a, 1, NULL);
    lane_hold(LANE(OTHER), child);
    world_own(world, OTHER, child, 2);
    claim_a(world);
}

static void state_running_inputs(struct world *world)
{
    warm(world);
    world->b = node_put(LANE(DRIVER), 6, 100);
    world->a = owned(world, &world->b, 1, 7);
    lane_drop(LANE(DRIVER), world->b);
    claim_a(world);
}

/* The edge's task was cancelled and is gone: only the cell is left. */
static void fill_nothing(void *context, uint32_t index)
{
    (void)context;
    (void)index;
}

static void state_running_dead_edge(struct world *world)
{
    state_queued(world);
    uint32_t child = node_submit(LANE(DRIVER), &world->a, 1, NULL);
    lane_cancel(LANE(DRIVER), child, generation_of(world, child), fill_nothing, NULL);
    lane_drop(LANE(DRIVER), child);
    claim_a(world);
}

static void act_run(struct world *world)
{
    node_run(LANE(WORKER), world->a);
}

static void state_running_block(struct world *world)
{
    state_running(world);
    lane_record(LANE(DRIVER), world->a)->site = 1000;
}

static void state_running_run(struct world *world)
{
    state_running(world);
    lane_record(LANE(DRIVER), world->a)->site = 150000;
}

static void act_requeue(struct world *world)
{
    lane_requeue(LANE(WORKER), world->a, 1);
}

static void act_cancel(struct world *world)
{
    lane_cancel(LANE(WORKER), world->a, generation_of(world, world->a), fill_nothing, NULL);
}

static void state_to_cancel(struct world *world)
{
    state_queued(world);
    world->owned[0].may_fail = true;
}

static void state_to_cancel_waiting(struct world *world)
{
    warm(world);
    world->b = owned(world, NULL, 0, 1);
    world->a = owned(world, &world->b, 1, 2);
    world->owned[1].may_fail = true;
}

/* A task that has children: it makes two, one on the other, runs them, adds up, lets them go. */
static void act_nested(struct world *world)
{
    struct lane *lane = LANE(WORKER);
    uint32_t first = plain(world, WORKER);
    uint32_t second = node_submit(lane, &first, 1, NULL);

    run_all(world, WORKER);
    lane_drop(lane, first);
    lane_drop(lane, second);
    node_run(lane, world->a);
}

/* ---- mail ---- */

static void act_post_actor(struct world *world)
{
    (void)!lane_post(LANE(WORKER), ACTOR, 1, 0, CELL_RESOLVE, 3);
}

static void act_post_agent(struct world *world)
{
    (void)!lane_post(LANE(WORKER), AGENT, 1, 0, CELL_RESOLVE, 3);
}

static void state_mail(struct world *world)
{
    warm(world);
    (void)!lane_post(LANE(OTHER), ACTOR, 1, 0, CELL_RESOLVE, 1);
    (void)!lane_post(LANE(OTHER), AGENT, 1, 0, CELL_RESOLVE, 1);
}

static void state_calls(struct world *world)
{
    static const struct node_shape call = {.kind = RECORD_METHOD, .actor = ACTOR};
    warm(world);
    for (int i = 0; i < 3; i++) {
        world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, &call), 1);
        world->owned[i].needs_slot = true;
    }
    (void)!lane_post(LANE(ACTOR), ACTOR, 1, 0, CELL_RESOLVE, 1); /* a cell of its own */
}

static void state_mail_70(struct world *world)
{
    warm(world);
    for (uint32_t i = 0; i < 70; i++)
        (void)!lane_post(LANE(i % 2 ? OTHER : ACTOR), ACTOR, 1, 0, CELL_RESOLVE, i);
}

static void act_actor_step(struct world *world)
{
    node_step(LANE(ACTOR));
}

/* ---- holds ---- */

static void state_own_object(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(DRIVER), 3, 8);
}

static void state_own_object_twice(struct world *world)
{
    state_own_object(world);
    lane_hold(LANE(DRIVER), world->a);
}

static void state_own_object_held(struct world *world)
{
    state_own_object(world);
    lane_hold(LANE(OTHER), world->a);
    world_own(world, OTHER, world->a, 3);
}

static void state_own_block(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(DRIVER), 3, 600);
}

static void state_own_run(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(DRIVER), 3, 200000);
}

/* The block lies in a slab of somebody else: a task's result. */
static void state_result_of_other(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK, .result_bytes = 900};
    warm(world);
    world->a = node_submit(LANE(DRIVER), NULL, 0, &shape);
    run_all(world, OTHER);
}

static void state_run_of_other(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK, .result_bytes = 140000};
    warm(world);
    world->a = node_submit(LANE(DRIVER), NULL, 0, &shape);
    run_all(world, OTHER);
}

static void state_own_unended(struct world *world)
{
    warm(world);
    world->a = plain(world, DRIVER);
    lane_hold(LANE(OTHER), world->a);
    world_own(world, OTHER, world->a, 1);
}

static void state_own_chain(struct world *world)
{
    uint32_t a = plain(world, DRIVER), b, c;
    warm(world);
    b = node_submit(LANE(DRIVER), &a, 1, NULL);
    c = node_submit(LANE(DRIVER), (uint32_t[]){a, b}, 2, NULL);
    lane_drop(LANE(DRIVER), a);
    lane_drop(LANE(DRIVER), b);
    world->a = c;
    run_all(world, OTHER);
}

static void act_hold_own(struct world *world)
{
    lane_hold(LANE(DRIVER), world->a);
}

static void act_drop_own(struct world *world)
{
    lane_drop(LANE(DRIVER), world->a);
}

static void state_contains(struct world *world)
{
    state_own_object(world);
    atomic_fetch_or(&lane_record(LANE(DRIVER), world->a)->flags, RECORD_CONTAINS);
}

static void state_foreign(struct world *world)
{
    warm(world);
    world->a = world_own(world, DRIVER, node_put(LANE(DRIVER), 3, 8), 3);
}

static void state_foreign_held(struct world *world)
{
    state_foreign(world);
    lane_hold(LANE(WORKER), world->a);
}

static void state_foreign_twice(struct world *world)
{
    state_foreign_held(world);
    lane_hold(LANE(WORKER), world->a);
}

static void state_foreign_last(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(DRIVER), 3, 600);
    lane_hold(LANE(WORKER), world->a);
    lane_drop(LANE(DRIVER), world->a);
}

static void state_foreign_last_of_agent(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(AGENT), 3, 600);
    lane_hold(LANE(WORKER), world->a);
    lane_drop(LANE(AGENT), world->a);
}

static void act_hold_foreign(struct world *world)
{
    lane_hold(LANE(WORKER), world->a);
}

static void act_drop_foreign(struct world *world)
{
    lane_drop(LANE(WORKER), world->a);
}

static void state_freed_by_others(struct world *world)
{
    warm(world);
    uint32_t input = node_put(LANE(DRIVER), 1, 300);
    for (int i = 0; i < 2; i++)
        lane_drop(LANE(DRIVER), node_submit(LANE(DRIVER), &input, 1, NULL));
    uint32_t kept = node_submit(LANE(DRIVER), &input, 1, NULL);
    lane_hold(LANE(OTHER), kept);
    world_own(world, OTHER, kept, 2);
    lane_drop(LANE(DRIVER), input);
    run_all(world, OTHER);
}

static void act_settle(struct world *world)
{
    lane_settle_freed(LANE(DRIVER));
    pool_collect(&LANE(DRIVER)->cell_pool, ~(uint64_t)0);
}

static void act_await(struct world *world)
{
    lane_await(LANE(WORKER), world->a);
}

/* ---- waking ---- */

static void state_idle(struct world *world)
{
    state_queued(world);
    lane_bit_set(LANE(OTHER)->control->idle, OTHER);
    atomic_store(&LANE(OTHER)->self->asleep, 1);
}

static void act_rouse(struct world *world)
{
    lane_rouse(LANE(WORKER));
}

static void act_push_hint(struct world *world)
{
    lane_push_hint(LANE(WORKER), world->a);
}

/* ---- a slot with a past ---- */

static void state_past(struct world *world)
{
    state_family(world);
    lane_drop(LANE(DRIVER), node_put(LANE(DRIVER), 1, 700));
    lane_make(LANE(DRIVER), RECORD_TASK);
    lane_detach(LANE(DRIVER));
    struct repair_calls calls = node_repair_calls(LANE(AGENT));
    if (!lane_repair(LANE(AGENT), DRIVER, &calls))
        __builtin_trap();
    run_all(world, OTHER);
}

static void act_attach(struct world *world)
{
    node_attach(&world->node, LANE(DRIVER), DRIVER, LANE_IS_DRIVER);
}

static void act_attach_and_alloc(struct world *world)
{
    act_attach(world);
    node_put(LANE(DRIVER), 1, 200);
}

#define CASE(operation, state, victim, setup, act)  \
    {                                               \
        operation, state, victim, setup, act, false \
    }
#define CASE_POSTS(operation, state, victim, setup, act) \
    {                                                    \
        operation, state, victim, setup, act, true       \
    }

const struct kill_case kill_cases[] = {
    CASE("make", "no slab yet", DRIVER, nothing, act_make),
    CASE("make", "records in the stack", DRIVER, warm, act_make),
    CASE("make", "records freed by others", DRIVER, state_collectable, act_make),
    CASE("make", "no record left", DRIVER, state_exhausted, act_make),
    CASE("abandon", "just made", DRIVER, state_made, act_abandon),
    CASE("abandon", "with a block", DRIVER, state_made_large, act_abandon),
    CASE("abandon", "with edges", DRIVER, state_made_waiting, act_abandon),
    CASE("put", "8 bytes", DRIVER, warm, act_put_small),
    CASE("put", "500 bytes, new slab", DRIVER, warm, act_put_block),
    CASE("put", "500 bytes, own slab", DRIVER, state_put_before, act_put_block),
    CASE("put", "a run", DRIVER, warm, act_put_run),
    CASE("put", "a run, pages in use between", DRIVER, state_gap, act_put_run),
    CASE("put", "a run, slabs to give back", DRIVER, state_needs_trim, act_put_run),
    CASE("depends", "input queued", DRIVER, state_input, act_depends),
    CASE("depends", "input queued, no cell in the stack", DRIVER, state_input_no_cell, act_depends),
    CASE("depends", "input ended", DRIVER, state_input_ended, act_depends),
    CASE("depends", "input ends meanwhile", DRIVER, state_input_ended, act_depends_late),
    CASE("submit", "no input", DRIVER, state_made, act_submit),
    CASE("submit", "two inputs, none there", DRIVER, state_made_waiting, act_submit),
    CASE("submit", "two inputs, one there", DRIVER, state_made_one_ended, act_submit),
    CASE("submit", "two inputs, both there", DRIVER, state_made_all_ended, act_submit),
    CASE("submit", "general", DRIVER, state_made_general, act_submit),
    CASE("submit", "general, input missing", DRIVER, state_made_general_waiting, act_submit),
    CASE("submit", "request", DRIVER, state_made_request, act_submit),
    CASE("submit", "queue full", DRIVER, state_queue_full, act_submit),
    CASE("submit", "a sleeper to wake", DRIVER, state_made, act_submit),
    CASE("make and submit", "one input missing", DRIVER, state_input, act_make_and_submit),
    CASE("submit a call", "no input", DRIVER, state_made_call, act_submit_call),
    CASE("submit a call", "input missing", DRIVER, state_made_call_waiting, act_submit_call),
    CASE("idle", "tasks that others hold", DRIVER, state_family, nothing),
    CASE("claim", "queued", WORKER, state_queued, act_claim),
    CASE("next", "pop, several", WORKER, state_own_queue, act_next),
    CASE("next", "pop, the last", WORKER, state_own_queue_one, act_next),
    CASE("next", "pop, stale entries", WORKER, state_stale_entries, act_next),
    CASE("next", "steal a batch", WORKER, state_queued_20, act_next),
    CASE("next", "steal one", WORKER, state_queued_by_worker, act_next),
    CASE("next", "bit of an empty queue", WORKER, state_bit_of_empty, act_next),
    CASE("next", "steal into a full queue", WORKER, state_thief_full, act_steal_driver),
    CASE("next and run", "several", WORKER, state_own_queue, act_next_run),
    CASE("unqueue", "stale entries", WORKER, state_stale_entries, act_unqueue),
    CASE("run", "nobody waits", WORKER, state_running, act_run),
    CASE("run", "nobody holds", WORKER, state_running_forgotten, act_run),
    CASE_POSTS("run", "driver and agent wait", WORKER, state_running_awaited, act_run),
    CASE("run", "one edge", WORKER, state_running_edge, act_run),
    CASE("run", "five edges, three homes", WORKER, state_running_edges, act_run),
    CASE("run", "edges to general and call", WORKER, state_running_edges_elsewhere, act_run),
    CASE("run", "edge, own queue full", WORKER, state_running_edge_full, act_run),
    CASE("run", "own task, own edges", WORKER, state_running_own_edges, act_run),
    CASE("run", "edge of a cancelled task", WORKER, state_running_dead_edge, act_run),
    CASE("run", "inputs to let go", WORKER, state_running_inputs, act_run),
    CASE("run", "result in a block", WORKER, state_running_block, act_run),
    CASE("run", "result in a run", WORKER, state_running_run, act_run),
    CASE("run", "children of its own", WORKER, state_running, act_nested),
    CASE("requeue", "running", WORKER, state_running, act_requeue),
    CASE("cancel", "queued", WORKER, state_to_cancel, act_cancel),
    CASE("cancel", "waiting", WORKER, state_to_cancel_waiting, act_cancel),
    CASE("post", "to an actor", WORKER, warm, act_post_actor),
    CASE("post", "to an actor with mail", WORKER, state_mail, act_post_actor),
    CASE("post", "to the agent", WORKER, state_mail, act_post_agent),
    CASE("mail", "calls", ACTOR, state_calls, act_actor_step),
    CASE("mail", "70 words", ACTOR, state_mail_70, act_actor_step),
    CASE("hold", "own", DRIVER, state_own_object, act_hold_own),
    CASE("hold", "foreign, first", WORKER, state_foreign, act_hold_foreign),
    CASE("hold", "foreign, again", WORKER, state_foreign_held, act_hold_foreign),
    CASE("drop", "own, not the last", DRIVER, state_own_object_twice, act_drop_own),
    CASE("drop", "own, the last", DRIVER, state_own_object, act_drop_own),
    CASE("drop", "own, others hold it", DRIVER, state_own_object_held, act_drop_own),
    CASE("drop", "own, not ended", DRIVER, state_own_unended, act_drop_own),
    CASE("drop", "own, a chain of inputs", DRIVER, state_own_chain, act_drop_own),
    CASE("drop", "own, block of its own", DRIVER, state_own_block, act_drop_own),
    CASE("drop", "own, block of another slot", DRIVER, state_result_of_other, act_drop_own),
    CASE("drop", "own, run of its own", DRIVER, state_own_run, act_drop_own),
    CASE("drop", "own, run of another slot", DRIVER, state_run_of_other, act_drop_own),
    CASE_POSTS("drop", "own, contains references", DRIVER, state_contains, act_drop_own),
    CASE("drop", "foreign, not the last", WORKER, state_foreign_twice, act_drop_foreign),
    CASE("drop", "foreign, the home holds it", WORKER, state_foreign_held, act_drop_foreign),
    CASE("drop", "foreign, the last of all", WORKER, state_foreign_last, act_drop_foreign),
    CASE("drop", "foreign, the agent's", WORKER, state_foreign_last_of_agent, act_drop_foreign),
    CASE("settle", "freed by others, inputs to go", DRIVER, state_freed_by_others, act_settle),
    CASE("await", "queued", WORKER, state_foreign_held, act_await),
    CASE("rouse", "one sleeps", WORKER, state_idle, act_rouse),
    CASE("push a hint", "queued twice", WORKER, state_queued, act_push_hint),
    CASE("attach", "a slot with a past", DRIVER, state_past, act_attach),
    CASE("attach", "a slot with a past, and alloc", DRIVER, state_past, act_attach_and_alloc),
};

const unsigned kill_case_count = sizeof(kill_cases) / sizeof(kill_cases[0]);
