/**
 * The laws of the fast lane while everybody lives: each task runs once, after its inputs, and when
 * all holds are let go nothing is in use. tests/lane has the laws of deaths.
 */
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sched/lane/inside.h"
#include "sched/lane/repair.h"
#include "tests/lane/node.h"
#include "tests/unit/law.h"

enum { SLOTS = 5, DRIVER = NODE_DRIVER, WORKER = 2, OTHER = 3, ACTOR = 4 };

static struct node node;
static struct lane lanes[SLOTS];
static uint32_t ran;

static void count_run(uint32_t index, uint32_t generation)
{
    (void)index;
    (void)generation;
    ran++;
}

static const enum lane_slot_kind kinds[SLOTS] = {LANE_IS_AGENT, LANE_IS_DRIVER, LANE_IS_WORKER,
                                                 LANE_IS_WORKER, LANE_IS_ACTOR};

static void open_with(uint32_t records, uint32_t queue_max, uint64_t data_bytes)
{
    node_open(&node, &(struct lane_options){.data_bytes = data_bytes,
                                            .slot_count = SLOTS,
                                            .queue_max = queue_max,
                                            .record_count = records});
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        node_attach(&node, &lanes[slot], slot, kinds[slot]);
    ran = 0;
    node_ran = count_run;
}

static void setup(void)
{
    open_with(4096, 1024, 4 << 20);
}

static void settle(void)
{
    bool any;

    do {
        any = false;
        for (int slot = 0; slot < SLOTS; slot++)
            any |= node_step(&lanes[slot]);
    } while (any);
}

/* Everybody lets go: nothing may be in use, and everything can be had again. */
static void teardown(void)
{
    struct node_census census;
    struct lane *all[SLOTS];

    for (int slot = 0; slot < SLOTS; slot++)
        all[slot] = &lanes[slot];
    node_census(&node, all, &census);
    ck_assert_uint_eq(census.records, 0);
    ck_assert_uint_eq(census.cells, 0);
    ck_assert_uint_eq(census.held_blocks, 0);
    for (int slot = 0; slot < SLOTS; slot++)
        lane_detach(&lanes[slot]);
    node_count(&node, &census);
    ck_assert_uint_eq(census.records_lost, 0);
    ck_assert_uint_eq(census.cells_lost, 0);
    ck_assert_uint_eq(census.pages_lost, 0);
    ck_assert_uint_eq(census.run_bytes, 0);
    node_close(&node);
}

static bool ended(uint32_t index)
{
    return life_ended(record_life(lane_record(&lanes[0], index)));
}

START_TEST(a_task_runs_once_and_its_result_is_seen)
{
    uint32_t task = node_submit(&lanes[DRIVER], NULL, 0, NULL);

    ck_assert(!ended(task));
    uint32_t found = lane_next(&lanes[WORKER]);
    ck_assert_uint_eq(found, task);
    ck_assert_uint_eq(lane_next(&lanes[OTHER]), RECORD_NONE);
    node_run(&lanes[WORKER], task);
    ck_assert(ended(task));
    ck_assert_uint_eq(node_value(&lanes[DRIVER], task), 1);
    lane_drop(&lanes[DRIVER], task);
}
END_TEST

START_TEST(a_task_waits_for_all_its_inputs)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t b = node_submit(&lanes[DRIVER], (uint32_t[]){a}, 1, NULL);
    uint32_t c = node_submit(&lanes[DRIVER], (uint32_t[]){a}, 1, NULL);
    uint32_t d = node_submit(&lanes[DRIVER], (uint32_t[]){b, c}, 2, NULL);

    ck_assert(life_pending(record_life(lane_record(&lanes[0], d)), 1));
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), a);
    ck_assert_uint_eq(lane_next(&lanes[OTHER]), RECORD_NONE);
    node_run(&lanes[WORKER], a);
    settle();
    ck_assert(ended(d));
    ck_assert_uint_eq(node_value(&lanes[DRIVER], d), 5); /* 1 + (1 + 1) + (1 + 1) */
    ck_assert_uint_eq(ran, 4);
    for (int i = 0; i < 4; i++)
        lane_drop(&lanes[DRIVER], (uint32_t[]){a, b, c, d}[i]);
}
END_TEST

START_TEST(inputs_are_kept_by_the_tasks_that_wait_for_them)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t b = node_submit(&lanes[DRIVER], (uint32_t[]){a, a}, 2, NULL);

    lane_drop(&lanes[DRIVER], a);
    settle();
    ck_assert_uint_eq(node_value(&lanes[DRIVER], b), 3);
    lane_drop(&lanes[DRIVER], b);
}
END_TEST

START_TEST(fire_and_forget_leaves_nothing)
{
    for (int i = 0; i < 600; i++)
        lane_drop(&lanes[DRIVER], node_submit(&lanes[DRIVER], NULL, 0, NULL));
    settle();
    ck_assert_uint_eq(ran, 600);
}
END_TEST

/* Freed along the chain without recursion: the stack of the test is bounded by Check's own limit. */
START_TEST(a_chain_of_100000_runs_and_is_freed)
{
    enum { LENGTH = 100000 };
    uint32_t last, next;

    teardown();
    open_with(LENGTH + 1024, 64, 4 << 20);
    last = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    for (int i = 1; i < LENGTH; i++) {
        next = node_submit(&lanes[DRIVER], &last, 1, NULL);
        ck_assert_uint_ne(next, RECORD_NONE);
        lane_drop(&lanes[DRIVER], last);
        last = next;
    }
    /* Run, but let nobody free: then all goes at once. */
    uint32_t task;
    while ((task = lane_next(&lanes[WORKER])) != RECORD_NONE)
        node_run(&lanes[WORKER], task);
    ck_assert_uint_eq(node_value(&lanes[DRIVER], last), LENGTH);
    lane_drop(&lanes[DRIVER], last);
    settle();
}
END_TEST

START_TEST(holds_of_others_keep_an_object)
{
    uint32_t object = node_put(&lanes[DRIVER], 7, 100);

    lane_hold(&lanes[WORKER], object);
    lane_hold(&lanes[WORKER], object);
    ck_assert_uint_eq(lane_held(&lanes[WORKER], object), 2);
    lane_drop(&lanes[DRIVER], object);
    settle();
    ck_assert_uint_eq(node_value(&lanes[WORKER], object), 7);
    lane_drop(&lanes[WORKER], object);
    settle();
    ck_assert_uint_eq(node_value(&lanes[WORKER], object), 7);
    lane_drop(&lanes[WORKER], object);
    lane_tick(&lanes[DRIVER]);
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], object))), RECORD_FREE);
}
END_TEST

START_TEST(many_foreign_holds_are_counted)
{
    enum { COUNT = 2000 };
    static uint32_t objects[COUNT];

    for (int i = 0; i < COUNT; i++)
        objects[i] = node_put(&lanes[DRIVER], (uint64_t)i, 8);
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < COUNT; i++)
            lane_hold(&lanes[WORKER], objects[i]);
    for (int i = 0; i < COUNT; i++)
        lane_drop(&lanes[DRIVER], objects[i]);
    for (int turn = 0; turn < 3; turn++)
        for (int i = 0; i < COUNT; i++) {
            ck_assert_uint_eq(lane_held(&lanes[WORKER], objects[i]), 3 - turn);
            lane_drop(&lanes[WORKER], objects[i]);
        }
}
END_TEST

static uint32_t mail_seen[512], mail_count;

static void note_mail(void *context, const struct lane_mail *mail)
{
    (void)context;
    mail_seen[mail_count++] = mail->detail;
}

START_TEST(a_mailbox_keeps_the_order)
{
    mail_count = 0;
    for (uint32_t i = 0; i < 300; i++)
        ck_assert_int_eq(lane_post(&lanes[DRIVER], ACTOR, 1, 0, CELL_RESOLVE, i), MORAY_OK);
    ck_assert_uint_eq(lane_mail(&lanes[ACTOR], note_mail, NULL), 300);
    for (uint32_t i = 0; i < 300; i++)
        ck_assert_uint_eq(mail_seen[i], i);
    ck_assert_uint_eq(lane_mail(&lanes[ACTOR], note_mail, NULL), 0);
}
END_TEST

START_TEST(calls_general_tasks_and_requests_find_their_way)
{
    uint32_t input = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    struct node_shape call = {.kind = RECORD_METHOD, .actor = ACTOR};
    struct node_shape general = {.kind = RECORD_TASK, .flags = RECORD_GENERAL};
    struct node_shape request = {.kind = RECORD_REQUEST};
    uint32_t made[] = {
        node_submit(&lanes[DRIVER], NULL, 0, &call),
        node_submit(&lanes[DRIVER], &input, 1, &call),
        node_submit(&lanes[DRIVER], NULL, 0, &general),
        node_submit(&lanes[DRIVER], &input, 1, &general),
        node_submit(&lanes[DRIVER], NULL, 0, &request),
    };

    ck_assert_uint_eq(lane_next(&lanes[WORKER]), input); /* the only one in a queue */
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), RECORD_NONE);
    node_run(&lanes[WORKER], input);
    settle();
    for (int i = 0; i < 5; i++) {
        ck_assert(ended(made[i]));
        lane_drop(&lanes[DRIVER], made[i]);
    }
    lane_drop(&lanes[DRIVER], input);
}
END_TEST

START_TEST(holds_on_inputs_are_no_holds_of_the_user)
{
    uint32_t input = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t near = node_submit(&lanes[DRIVER], &input, 1, NULL);

    lane_hold(&lanes[OTHER], input);
    uint32_t far = node_submit(&lanes[OTHER], &input, 1, NULL);
    ck_assert_uint_eq(lane_held(&lanes[DRIVER], input), 1);
    ck_assert_uint_eq(lane_held(&lanes[OTHER], input), 1);
    lane_drop(&lanes[DRIVER], input);
    lane_drop(&lanes[OTHER], input);
    ck_assert_uint_eq(lane_held(&lanes[DRIVER], input), 0);
    ck_assert_uint_eq(lane_held(&lanes[OTHER], input), 0);
    settle();
    ck_assert(ended(near) && ended(far));
    lane_drop(&lanes[DRIVER], near);
    lane_drop(&lanes[OTHER], far);
    /* More than are counted: then all count, and all go. */
    input = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    for (uint32_t i = 0; i < INPUT_HOLDS_MAX + 5; i++)
        lane_hold_input(&lanes[DRIVER], input);
    ck_assert_uint_eq(lane_held(&lanes[DRIVER], input), INPUT_HOLDS_MAX + 6);
    for (uint32_t i = 0; i < INPUT_HOLDS_MAX + 5; i++)
        lane_drop_input(&lanes[DRIVER], input);
    ck_assert_uint_eq(lane_held(&lanes[DRIVER], input), 1);
    lane_drop(&lanes[DRIVER], input);
    settle();
}
END_TEST

START_TEST(a_full_queue_is_told_and_nothing_is_lost)
{
    uint32_t tasks[64], extra;

    teardown();
    open_with(1024, 64, 4 << 20);
    for (int i = 0; i < 64; i++)
        tasks[i] = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    extra = node_make(&lanes[DRIVER], NULL, 0, NULL);
    ck_assert_int_eq(lane_submit(&lanes[DRIVER], extra), MORAY_BUSY);
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], extra))), RECORD_MAKING);
    node_run(&lanes[WORKER], lane_next(&lanes[WORKER]));
    ck_assert_int_eq(lane_submit(&lanes[DRIVER], extra), MORAY_OK);
    settle();
    ck_assert_uint_eq(ran, 65);
    for (int i = 0; i < 64; i++)
        lane_drop(&lanes[DRIVER], tasks[i]);
    lane_drop(&lanes[DRIVER], extra);
}
END_TEST

START_TEST(records_run_out_with_a_word_and_come_back)
{
    static uint32_t made[2048];
    uint32_t count = 0;

    teardown();
    open_with(1024, 64, 4 << 20);
    while ((made[count] = node_make(&lanes[DRIVER], NULL, 0, NULL)) != RECORD_NONE)
        count++;
    ck_assert_uint_eq(count, 1024);
    for (uint32_t i = 0; i < count; i++)
        lane_abandon(&lanes[DRIVER], made[i]);
    for (uint32_t i = 0; i < count; i++)
        ck_assert_uint_ne(made[i] = node_make(&lanes[DRIVER], NULL, 0, NULL), RECORD_NONE);
    for (uint32_t i = 0; i < count; i++)
        lane_abandon(&lanes[DRIVER], made[i]);
}
END_TEST

/* … but not all of them, where some are kept for each slot. */
START_TEST(one_slot_cannot_take_what_is_kept_for_another)
{
    enum { SLOTS = 4, ALL = 1024 + POOL_SLAB_ITEMS };
    static uint32_t made[ALL], own[POOL_SLAB_ITEMS];
    struct lane_options options = {.data_bytes = 4 << 20,
                                   .slot_count = SLOTS,
                                   .queue_max = 64,
                                   .record_count = 1024,
                                   .slab_each = true};
    struct node other;
    struct lane greedy, modest;

    node_open(&other, &options);
    node_attach(&other, &greedy, 1, LANE_IS_DRIVER);
    node_attach(&other, &modest, 2, LANE_IS_WORKER);
    for (int turn = 0; turn < 2; turn++) {
        for (uint32_t i = 0; i < ALL; i++)
            ck_assert_uint_ne(made[i] = lane_make(&greedy, RECORD_TASK), RECORD_NONE);
        ck_assert_uint_eq(lane_make(&greedy, RECORD_TASK), RECORD_NONE);
        for (uint32_t i = 0; i < POOL_SLAB_ITEMS; i++)
            ck_assert_uint_ne(own[i] = lane_make(&modest, RECORD_TASK), RECORD_NONE);
        ck_assert_uint_eq(lane_make(&modest, RECORD_TASK), RECORD_NONE);
        for (uint32_t i = 0; i < POOL_SLAB_ITEMS; i++) {
            ck_assert_uint_eq(lane_home(&modest, own[i]), 2);
            lane_abandon(&modest, own[i]);
        }
        for (uint32_t i = 0; i < ALL; i++) {
            ck_assert_uint_eq(lane_home(&greedy, made[i]), 1);
            lane_abandon(&greedy, made[i]);
        }
        if (turn == 0) { /* the slot's next process has them as well */
            lane_detach(&modest);
            ck_assert(lane_repair(&greedy, 2, &(struct repair_calls){0}));
            node_attach(&other, &modest, 2, LANE_IS_WORKER);
        }
    }
    lane_detach(&greedy);
    lane_detach(&modest);
    node_close(&other);
}
END_TEST

/* A word for the agent that finds no cell is found in the records. */
static uint32_t told_count;
static void count_told(void *context, uint32_t index)
{
    (void)index;
    (void)context;
    told_count++;
}

static void queue_told(void *context, uint32_t index)
{
    (void)context;
    lane_push_hint(&lanes[LANE_AGENT], index);
}

START_TEST(a_word_without_a_cell_is_not_lost)
{
    static const struct repair_calls calls = {.queued = count_told, .ended = count_told};
    static const struct repair_calls queues = {.queued = queue_told, .ended = count_told};
    enum { TASKS = 300 };
    static uint32_t tasks[TASKS], cells[4096];
    uint32_t cell_count = 0;

    teardown();
    open_with(2048, 64, 4 << 20);
    uint32_t input = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    for (int i = 0; i < TASKS; i++)
        tasks[i] = node_submit(&lanes[DRIVER], &input, 1, NULL);
    ck_assert(lane_tell_untold(&lanes[LANE_AGENT], &calls));
    ck_assert_uint_eq(told_count, 0);
    while ((cells[cell_count] = cell_take(&lanes[DRIVER])) != POOL_NONE)
        cell_count++;
    uint32_t first = lane_next(&lanes[WORKER]);
    ck_assert_uint_eq(first, input);
    node_run(&lanes[WORKER],
             first); /* its queue takes 64 of those that are ready, no cell the rest */
    ck_assert(lane_tell_untold(&lanes[LANE_AGENT], &calls));
    ck_assert_uint_eq(told_count, TASKS - 64);
    ck_assert(lane_tell_untold(&lanes[LANE_AGENT], &calls));
    ck_assert_uint_eq(told_count, TASKS - 64); /* once */
    for (uint32_t i = 0; i < cell_count; i++)
        pool_give(&lanes[DRIVER].cell_pool, cells[i]);
    atomic_store(&lanes[0].control->untold, 1); /* the count above queued none */
    for (int looks = 0; atomic_load(&lanes[0].control->untold); looks++) {
        ck_assert_int_lt(looks, TASKS);
        ck_assert(lane_tell_untold(&lanes[LANE_AGENT], &queues));
        settle();
    }
    ck_assert_uint_eq(ran, TASKS + 1);
    for (int i = 0; i < TASKS; i++)
        lane_drop(&lanes[DRIVER], tasks[i]);
    lane_drop(&lanes[DRIVER], input);
    settle();
}
END_TEST

/* Slabs belong to their slot for ever: a slot that could have its own back takes no new ones. */
START_TEST(one_slot_does_not_end_up_with_all_records)
{
    for (int turn = 0; turn < 100; turn++) {
        for (int i = 0; i < 400; i++)
            lane_drop(&lanes[DRIVER], node_submit(&lanes[DRIVER], NULL, 0, NULL));
        uint32_t task;
        while ((task = lane_next(&lanes[WORKER])) != RECORD_NONE)
            node_run(&lanes[WORKER], task);
    }
    ck_assert_uint_lt(atomic_load(&lanes[0].control->records_claimed), 4);
    lane_tick(&lanes[DRIVER]);
}
END_TEST

START_TEST(an_abandoned_task_lets_its_inputs_go)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t b = node_make(&lanes[DRIVER], &a, 1, NULL);

    lane_abandon(&lanes[DRIVER], b);
    lane_drop(&lanes[DRIVER], a);
    settle();
    ck_assert_uint_eq(ran, 1);
}
END_TEST

static void fill(void *context, uint32_t index)
{
    *(uint32_t *)context = index;
}

START_TEST(a_cancelled_task_fails_and_does_not_run)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL), filled = RECORD_NONE;
    uint32_t b = node_submit(&lanes[DRIVER], &a, 1, NULL);
    uint32_t generation = life_generation(record_life(lane_record(&lanes[0], b)));

    ck_assert(lane_cancel(&lanes[OTHER], b, generation, fill, &filled));
    ck_assert_uint_eq(filled, b);
    ck_assert(!lane_cancel(&lanes[OTHER], b, generation, fill, &filled));
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], b))), RECORD_FAILED);
    lane_drop(&lanes[DRIVER], b);
    settle();
    ck_assert_uint_eq(ran, 1);
    lane_drop(&lanes[DRIVER], a);
}
END_TEST

/* The edge of a cancelled task stays on the input's list; its record may be another task by then. */
START_TEST(an_edge_to_a_record_of_an_earlier_life_does_nothing)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL), filled;
    uint32_t slow = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t b = node_submit(&lanes[DRIVER], &a, 1, NULL);

    lane_cancel(&lanes[DRIVER], b, life_generation(record_life(lane_record(&lanes[0], b))), fill,
                &filled);
    lane_drop(&lanes[DRIVER], b);
    lane_tick(&lanes[DRIVER]);
    uint32_t again = node_submit(&lanes[DRIVER], &slow, 1, NULL);
    ck_assert_uint_eq(again, b); /* the same record */
    ck_assert(
        lane_claim(&lanes[WORKER], a, life_generation(record_life(lane_record(&lanes[0], a)))));
    node_run(&lanes[WORKER], a);
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], again))), RECORD_WAITING);
    settle();
    ck_assert_uint_eq(node_value(&lanes[DRIVER], again), 2);
    lane_drop(&lanes[DRIVER], a);
    lane_drop(&lanes[DRIVER], slow);
    lane_drop(&lanes[DRIVER], again);
}
END_TEST

START_TEST(a_requeued_task_counts_its_attempts)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL);

    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(lane_next(&lanes[WORKER]), a);
        ck_assert_uint_eq(life_attempt(record_life(lane_record(&lanes[0], a))), i);
        lane_requeue(&lanes[WORKER], a, 1);
    }
    settle();
    ck_assert_uint_eq(ran, 1);
    lane_drop(&lanes[DRIVER], a);
}
END_TEST

START_TEST(a_worker_takes_its_own_newest_and_others_oldest)
{
    uint32_t tasks[3];

    for (int i = 0; i < 3; i++)
        tasks[i] = node_submit(&lanes[WORKER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_next(&lanes[OTHER]), tasks[0]);
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), tasks[2]);
    ck_assert_uint_eq(lane_steal_from(&lanes[OTHER], WORKER), tasks[1]);
    node_run(&lanes[OTHER], tasks[0]);
    node_run(&lanes[OTHER], tasks[1]);
    node_run(&lanes[WORKER], tasks[2]);
    for (int i = 0; i < 3; i++)
        lane_drop(&lanes[WORKER], tasks[i]);
}
END_TEST

START_TEST(from_a_slot_without_a_process_one_is_stolen_at_a_time)
{
    uint32_t tasks[3];

    for (int i = 0; i < 3; i++)
        tasks[i] = node_submit(&lanes[WORKER], NULL, 0, NULL);
    atomic_store(&lanes[WORKER].self->kind, LANE_NOBODY);
    ck_assert_uint_eq(lane_steal_from(&lanes[OTHER], WORKER), tasks[0]);
    ck_assert_uint_eq(atomic_load(&lanes[WORKER].self->head), 1);
    atomic_store(&lanes[WORKER].self->kind, LANE_IS_WORKER);
    node_run(&lanes[OTHER], tasks[0]);
    settle();
    ck_assert_uint_eq(ran, 3);
    for (int i = 0; i < 3; i++)
        lane_drop(&lanes[WORKER], tasks[i]);
}
END_TEST

START_TEST(a_batch_is_stolen_from_who_never_pops)
{
    uint32_t tasks[40];

    for (int i = 0; i < 40; i++)
        tasks[i] = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), tasks[0]);
    ck_assert_uint_eq(atomic_load(&lanes[WORKER].self->steals), 1);
    ck_assert_uint_eq(atomic_load(&lanes[WORKER].self->tail), LANE_STEAL_MAX - 1);
    /* It runs them in their order; others take from the other end. */
    ck_assert_uint_eq(lane_steal_from(&lanes[OTHER], WORKER), tasks[LANE_STEAL_MAX - 1]);
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), tasks[1]);
    node_run(&lanes[WORKER], tasks[0]);
    node_run(&lanes[OTHER], tasks[LANE_STEAL_MAX - 1]);
    node_run(&lanes[WORKER], tasks[1]);
    settle();
    ck_assert_uint_eq(ran, 40);
    for (int i = 0; i < 40; i++)
        lane_drop(&lanes[DRIVER], tasks[i]);
}
END_TEST

/* Whoever waits for a task may run on its stack what the task made, and nothing else. */
START_TEST(only_descendants_are_stolen_for_a_waiter)
{
    uint32_t root = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t stranger = node_submit(&lanes[DRIVER], NULL, 0, NULL), child, grandchild;

    ck_assert_uint_eq(lane_next(&lanes[WORKER]), root); /* the stranger comes along in the batch */
    atomic_store(&lanes[WORKER].self->top, root + 1);
    ck_assert_uint_eq(lane_steal_descendant(&lanes[OTHER], WORKER, root), RECORD_NONE);
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), stranger);
    child = node_submit(&lanes[WORKER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_steal_descendant(&lanes[OTHER], WORKER, stranger), RECORD_NONE);
    ck_assert_uint_eq(lane_steal_descendant(&lanes[OTHER], WORKER, root), child);
    atomic_store(&lanes[OTHER].self->top, child + 1);
    grandchild = node_submit(&lanes[OTHER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_steal_descendant(&lanes[WORKER], OTHER, root), grandchild);
    ck_assert_uint_eq(lane_steal_descendant(&lanes[WORKER], OTHER, root), RECORD_NONE);
    node_run(&lanes[WORKER], grandchild);
    lane_drop(&lanes[OTHER], grandchild);
    node_run(&lanes[OTHER], child);
    lane_drop(&lanes[WORKER], child);
    node_run(&lanes[WORKER], stranger);
    node_run(&lanes[WORKER], root);
    lane_drop(&lanes[DRIVER], root);
    lane_drop(&lanes[DRIVER], stranger);
}
END_TEST

/* root runs by WORKER, which sleeps for middle; middle runs by OTHER, which sleeps for last; last
 * waits for its input: so root's end needs the input. */
START_TEST(what_a_wait_needs_is_found_through_those_that_sleep)
{
    uint32_t root = node_submit(&lanes[DRIVER], NULL, 0, NULL), generation, middle, input, last;

    ck_assert_uint_eq(lane_needed(&lanes[0], root, &generation), root);
    ck_assert_uint_eq(lane_next(&lanes[WORKER]), root);
    middle = node_submit(&lanes[WORKER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_needed(&lanes[0], root, &generation), RECORD_NONE); /* it is awake */
    ck_assert_uint_eq(lane_next(&lanes[OTHER]), middle);
    atomic_store(&lanes[WORKER].self->waits, (middle + 1) | LANE_HELPS);
    ck_assert_uint_eq(lane_needed(&lanes[0], root, &generation), RECORD_NONE);
    input = node_submit(&lanes[OTHER], NULL, 0, NULL);
    last = node_submit(&lanes[OTHER], &input, 1, NULL);
    atomic_store(&lanes[OTHER].self->waits, last + 1);
    ck_assert_uint_eq(lane_needed(&lanes[0], root, &generation), input);
    ck_assert_uint_eq(lane_needed(&lanes[WORKER], middle, &generation), input);
    ck_assert_uint_eq(lane_needed(&lanes[OTHER], middle, &generation), RECORD_NONE); /* its own */
    ck_assert(lane_claim(&lanes[WORKER], input, generation));
    ck_assert_uint_eq(lane_needed(&lanes[0], root, &generation), RECORD_NONE);
    atomic_store(&lanes[WORKER].self->waits, 0);
    node_run(&lanes[WORKER], input);
    ck_assert_uint_eq(lane_needed(&lanes[0], middle, &generation), last);
    atomic_store(&lanes[OTHER].self->waits, 0);
    node_run(&lanes[OTHER], lane_next(&lanes[OTHER]));
    node_run(&lanes[OTHER], middle);
    node_run(&lanes[WORKER], root);
    lane_drop(&lanes[OTHER], input);
    lane_drop(&lanes[OTHER], last);
    lane_drop(&lanes[WORKER], middle);
    lane_drop(&lanes[DRIVER], root);
}
END_TEST

START_TEST(who_awaits_a_record_is_told)
{
    uint32_t a = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t before = atomic_load(&lanes[DRIVER].self->wake);

    ck_assert(!lane_await(&lanes[DRIVER], a));
    lane_hold(&lanes[0], a);
    ck_assert(!lane_await(&lanes[0], a));
    node_run(&lanes[WORKER], lane_next(&lanes[WORKER]));
    ck_assert_uint_ne(atomic_load(&lanes[DRIVER].self->wake), before);
    ck_assert(lane_await(&lanes[DRIVER], a));
    mail_count = 0;
    ck_assert_uint_eq(lane_mail(&lanes[0], note_mail, NULL), 1);
    lane_drop(&lanes[0], a);
    lane_drop(&lanes[DRIVER], a);
}
END_TEST

START_TEST(large_arguments_and_results_are_freed_with_the_task)
{
    uint32_t sizes[] = {16, 48, 100, 3000, 16384, 70000, 300000};

    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 7; k++) {
            struct node_shape shape = {.argument_bytes = sizes[i], .result_bytes = sizes[k]};
            shape.kind = RECORD_TASK;
            uint32_t task = node_submit(&lanes[DRIVER], NULL, 0, &shape);
            ck_assert_uint_ne(task, RECORD_NONE);
            settle();
            ck_assert_uint_eq(node_value(&lanes[DRIVER], task), 1);
            lane_drop(&lanes[DRIVER], task);
        }
}
END_TEST

START_TEST(a_result_in_the_record_leaves_the_arguments_whole)
{
    uint32_t task = node_make(&lanes[DRIVER], NULL, 0, NULL);
    struct record *record = lane_record(&lanes[DRIVER], task);

    for (uint32_t arguments = 0; arguments <= RECORD_ARGUMENT_BYTES; arguments++)
        for (uint32_t bytes = 1; bytes <= RECORD_ARGUMENT_BYTES; bytes++) {
            record->argument_bytes = (uint16_t)arguments;
            bool fits = record_value_fits(record, bytes);
            ck_assert_int_eq(fits, bytes <= 8 ||
                                       (bytes <= 48 && arguments + (bytes + 15) / 16 * 16 <= 64));
            if (!fits)
                continue;
            uint8_t *value = record_value(record, bytes);
            memset(record->arguments, 1, arguments);
            memset(value, 2, bytes);
            ck_assert_uint_eq((uintptr_t)value % (bytes > 8 ? 16 : 8), 0);
            for (uint32_t i = 0; i < arguments; i++)
                ck_assert_uint_eq(record->arguments[i], 1);
        }
    ck_assert_uint_eq(record->kind, RECORD_TASK);
    record->argument_bytes = 0;
    lane_abandon(&lanes[DRIVER], task);
}
END_TEST

/* The last generation is never followed by the first: stale references would come to life again. */
START_TEST(a_record_whose_generation_would_wrap_is_retired)
{
    uint32_t task = node_make(&lanes[DRIVER], NULL, 0, NULL), again;
    struct record *record = lane_record(&lanes[DRIVER], task);

    atomic_store(&record->life, life_of(RECORD_MAKING, DRIVER, 0, 0xfffffffe));
    lane_abandon(&lanes[DRIVER], task);
    ck_assert_uint_eq(again = lane_make(&lanes[DRIVER], RECORD_TASK), task);
    ck_assert_uint_eq(life_generation(record_life(record)), 0xffffffff);
    lane_abandon(&lanes[DRIVER], again);
    ck_assert_uint_ne(again = lane_make(&lanes[DRIVER], RECORD_TASK), task);
    lane_abandon(&lanes[DRIVER], again);
    ck_assert_uint_eq(life_generation(record_life(record)), 0xffffffff);
    /* It is lost on purpose; so that teardown's count is right it comes back by force. */
    atomic_store(&record->life, life_of(RECORD_FREE, 0, 0, 1));
}
END_TEST

/* Slots beyond those with a bit in the record: rows. */
START_TEST(slots_beyond_the_first_word_hold_and_wait_too)
{
    struct lane many[2];
    struct node wide;

    node_open(&wide,
              &(struct lane_options){
                  .data_bytes = 1 << 20, .slot_count = 200, .queue_max = 64, .record_count = 512});
    node_attach(&wide, &many[0], 1, LANE_IS_DRIVER);
    node_attach(&wide, &many[1], 170, LANE_IS_WORKER);
    uint32_t a = node_submit(&many[0], NULL, 0, NULL);
    lane_hold(&many[1], a);
    ck_assert(!lane_await(&many[1], a));
    lane_drop(&many[0], a);
    uint32_t before = atomic_load(&many[1].self->wake);
    node_run(&many[1], lane_next(&many[1]));
    ck_assert_uint_ne(atomic_load(&many[1].self->wake), before);
    lane_tick(&many[0]);
    ck_assert_uint_eq(node_value(&many[1], a), 1);
    lane_drop(&many[1], a);
    lane_tick(&many[0]);
    ck_assert_int_eq(life_state(record_life(lane_record(&many[0], a))), RECORD_FREE);
    lane_detach(&many[0]);
    lane_detach(&many[1]);
    node_close(&wide);
}
END_TEST

/* ---- Among processes ---- */

static _Atomic uint32_t *stop; /* shared */

static void worker_process(uint16_t slot)
{
    struct lane lane;

    node_attach(&node, &lane, slot, LANE_IS_WORKER);
    node_ran = NULL;
    while (!atomic_load_explicit(stop, memory_order_relaxed))
        if (!node_step(&lane))
            sched_yield();
    while (node_step(&lane))
        ;
    _exit(0);
}

START_TEST(results_are_right_among_processes)
{
    enum { ROUNDS = 200, WIDTH = 100 };
    static uint32_t tasks[WIDTH], sums[WIDTH / 4];
    pid_t workers[2];

    stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 2; i++) {
        lane_detach(&lanes[WORKER + i]);
        if ((workers[i] = fork()) == 0)
            worker_process((uint16_t)(WORKER + i));
    }
    struct lane *driver = &lanes[DRIVER];
    for (int round = 0; round < ROUNDS; round++) {
        struct node_shape shape = {.kind = RECORD_TASK,
                                   .result_bytes = round % 3 == 0 ? 200 : 0,
                                   .argument_bytes = round % 5 == 0 ? 500 : 0};
        for (int i = 0; i < WIDTH; i++)
            tasks[i] = node_submit(driver, NULL, 0, &shape);
        for (int i = 0; i < WIDTH / 4; i++)
            sums[i] = node_submit(driver, &tasks[i * 4], 4, &shape);
        for (int i = 0; i < WIDTH; i++)
            lane_drop(driver, tasks[i]);
        for (int i = 0; i < WIDTH / 4; i++) {
            while (!life_ended(record_life(lane_record(driver, sums[i]))))
                sched_yield();
            ck_assert_uint_eq(node_value(driver, sums[i]), 5);
            lane_drop(driver, sums[i]);
        }
        lane_tick(driver);
    }
    atomic_store(stop, 1);
    for (int i = 0; i < 2; i++) {
        int status;
        ck_assert_int_eq(waitpid(workers[i], &status, 0), workers[i]);
        ck_assert_int_eq(status, 0);
        node_attach(&node, &lanes[WORKER + i], (uint16_t)(WORKER + i), LANE_IS_WORKER);
        /* It left no word, as after a death: its private stacks are found again by repair. */
        struct repair_calls calls = node_repair_calls(&lanes[0]);
        lane_detach(&lanes[WORKER + i]);
        ck_assert(lane_repair(&lanes[0], (uint16_t)(WORKER + i), &calls));
        node_attach(&node, &lanes[WORKER + i], (uint16_t)(WORKER + i), LANE_IS_WORKER);
    }
    lane_tick(driver);
    munmap((void *)stop, 4096);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_task_runs_once_and_its_result_is_seen);
    tcase_add_test(laws, a_task_waits_for_all_its_inputs);
    tcase_add_test(laws, inputs_are_kept_by_the_tasks_that_wait_for_them);
    tcase_add_test(laws, fire_and_forget_leaves_nothing);
    tcase_add_test(laws, a_chain_of_100000_runs_and_is_freed);
    tcase_add_test(laws, holds_of_others_keep_an_object);
    tcase_add_test(laws, many_foreign_holds_are_counted);
    tcase_add_test(laws, a_mailbox_keeps_the_order);
    tcase_add_test(laws, calls_general_tasks_and_requests_find_their_way);
    tcase_add_test(laws, holds_on_inputs_are_no_holds_of_the_user);
    tcase_add_test(laws, a_full_queue_is_told_and_nothing_is_lost);
    tcase_add_test(laws, records_run_out_with_a_word_and_come_back);
    tcase_add_test(laws, one_slot_does_not_end_up_with_all_records);
    tcase_add_test(laws, one_slot_cannot_take_what_is_kept_for_another);
    tcase_add_test(laws, a_word_without_a_cell_is_not_lost);
    tcase_add_test(laws, an_abandoned_task_lets_its_inputs_go);
    tcase_add_test(laws, a_cancelled_task_fails_and_does_not_run);
    tcase_add_test(laws, an_edge_to_a_record_of_an_earlier_life_does_nothing);
    tcase_add_test(laws, a_requeued_task_counts_its_attempts);
    tcase_add_test(laws, a_worker_takes_its_own_newest_and_others_oldest);
    tcase_add_test(laws, from_a_slot_without_a_process_one_is_stolen_at_a_time);
    tcase_add_test(laws, a_batch_is_stolen_from_who_never_pops);
    tcase_add_test(laws, only_descendants_are_stolen_for_a_waiter);
    tcase_add_test(laws, what_a_wait_needs_is_found_through_those_that_sleep);
    tcase_add_test(laws, who_awaits_a_record_is_told);
    tcase_add_test(laws, large_arguments_and_results_are_freed_with_the_task);
    tcase_add_test(laws, a_result_in_the_record_leaves_the_arguments_whole);
    tcase_add_test(laws, a_record_whose_generation_would_wrap_is_retired);
    tcase_add_test(laws, slots_beyond_the_first_word_hold_and_wait_too);
    tcase_add_test(laws, results_are_right_among_processes);
    return law_run("lane", laws);
}
