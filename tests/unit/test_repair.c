/** The laws of lane_repair() that tests/lane/kill, where all but one rest, does not meet. */
#include "sched/lane/inside.h"
#include "sched/lane/queue.h"
#include "tests/lane/node.h"
#include "tests/unit/law.h"

enum { SLOTS = 5, DRIVER = NODE_DRIVER, WORKER = 2, OTHER = 3, ACTOR = 4 };

static struct node node;
static struct lane lanes[SLOTS];
static uint32_t woken, running, innermost, queued, called, cancelled, ended;

static void wake(void *context, uint16_t slot)
{
    (void)context;
    woken |= 1u << slot;
}

static void on_running(void *context, uint32_t index, bool top)
{
    running++;
    innermost += top;
    lane_requeue_dead(context, index, top);
}

static void on_queued(void *context, uint32_t index)
{
    queued++;
    lane_push_hint(context, index);
}

static void on_call(void *context, uint32_t index)
{
    (void)context;
    (void)index;
    called++;
}

static void on_cancelled(void *context, uint32_t index)
{
    (void)context;
    (void)index;
    cancelled++;
}

static void on_ended(void *context, uint32_t index)
{
    (void)context;
    (void)index;
    ended++;
}

static const struct repair_calls calls = {&lanes[0], on_running,   on_queued,
                                          on_call,   on_cancelled, on_ended};

static void setup(void)
{
    static const enum lane_slot_kind kinds[SLOTS] = {LANE_IS_AGENT, LANE_IS_DRIVER, LANE_IS_WORKER,
                                                     LANE_IS_WORKER, LANE_IS_ACTOR};

    node_open(&node, &(struct lane_options){.data_bytes = 1 << 20,
                                            .slot_count = SLOTS,
                                            .queue_max = 64,
                                            .record_count = 4096});
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        ck_assert_int_eq(lane_attach(&lanes[slot], node.region, slot, kinds[slot], wake, NULL),
                         MORAY_OK);
    woken = running = innermost = queued = called = cancelled = ended = 0;
}

static void teardown(void)
{
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        lane_detach(&lanes[slot]);
    node_close(&node);
}

static uint32_t generation_of(uint32_t index)
{
    return life_generation(record_life(lane_record(&lanes[0], index)));
}

START_TEST(only_the_innermost_task_is_charged)
{
    uint32_t tasks[3];

    for (int i = 0; i < 3; i++)
        tasks[i] = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    for (int i = 0; i < 2; i++)
        ck_assert(lane_claim(&lanes[WORKER], tasks[i], generation_of(tasks[i])));
    atomic_store(&lanes[WORKER].self->top, tasks[1] + 1);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(running, 2);
    ck_assert_uint_eq(innermost, 1);
    ck_assert_uint_eq(life_attempt(record_life(lane_record(&lanes[0], tasks[0]))), 0);
    ck_assert_uint_eq(life_attempt(record_life(lane_record(&lanes[0], tasks[1]))), 1);
}
END_TEST

static void note_free(void *context, const struct lane_mail *mail)
{
    if (mail->kind == CELL_FREE_ME)
        *(struct lane_mail *)context = *mail;
}

/* It was being put when its process died, and the agent holds what is inside of it. */
START_TEST(what_the_agent_keeps_for_one_in_the_making_is_let_go)
{
    uint32_t object = lane_make(&lanes[WORKER], RECORD_OBJECT), plain;
    struct record *record = lane_record(&lanes[0], object);
    uint32_t generation = generation_of(object);
    struct lane_mail mail = {0};

    plain = lane_make(&lanes[WORKER], RECORD_OBJECT);
    atomic_fetch_or(&record->flags, RECORD_CONTAINS | RECORD_BLOCK);
    lane_detach(&lanes[WORKER]);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], plain))), RECORD_ORPHAN);
    lane_mail(&lanes[0], note_free, &mail);
    ck_assert_uint_eq(mail.index, object);
    ck_assert_uint_eq(mail.generation, generation);
    ck_assert(lane_find(&lanes[0], object, generation) == record);
    atomic_fetch_and(&record->flags, (uint16_t)~RECORD_CONTAINS);
    lane_look(&lanes[0], object);
    node_attach(&node, &lanes[WORKER], WORKER, LANE_IS_WORKER);
    pool_collect(&lanes[WORKER].record_pool, ~(uint64_t)0);
    ck_assert_uint_eq(pool_free_count(&lanes[WORKER].record_pool), POOL_SLAB_ITEMS);
}
END_TEST

/* What the agent is to free, told by a cell that it has not: the slot's next process tells it. */
START_TEST(what_the_agent_keeps_is_let_go_without_a_cell_too)
{
    static uint32_t cells[4096];
    uint32_t count = 0, index = node_put(&lanes[WORKER], 1, 64);
    struct record *record = lane_record(&lanes[0], index);
    uint32_t generation = life_generation(record_life(record));

    atomic_fetch_or(&record->flags, RECORD_CONTAINS);
    pool_give(&lanes[WORKER].cell_pool, cell_take(&lanes[WORKER])); /* a slab of its own */
    while ((cells[count] = cell_take(&lanes[0])) != POOL_NONE)
        count++;
    lane_detach(&lanes[WORKER]);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_ptr_nonnull(lane_find(&lanes[0], index, generation));
    for (uint32_t i = 0; i < count; i++)
        pool_give(&lanes[0].cell_pool, cells[i]);
    node_attach(&node, &lanes[WORKER], WORKER, LANE_IS_WORKER);
    while (node_step(&lanes[0]) || node_step(&lanes[WORKER]))
        ;
    ck_assert_ptr_null(lane_find(&lanes[0], index, generation));
}
END_TEST

START_TEST(what_stands_in_a_queue_is_not_queued_again)
{
    for (int i = 0; i < 30; i++)
        node_submit(&lanes[DRIVER], NULL, 0, NULL);
    /* A thief took sixteen, kept fifteen in its own queue, and died with one claimed. */
    uint32_t claimed = lane_next(&lanes[WORKER]);
    ck_assert_uint_ne(claimed, RECORD_NONE);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(queued, 1);
    /* Taken off a queue, and not claimed: in no queue any more. */
    uint64_t entries[LANE_STEAL_MAX];
    bool empty;
    ck_assert_uint_eq(queue_steal(&lanes[OTHER], DRIVER, 4, entries, &empty), 4);
    ck_assert(lane_repair(&lanes[0], OTHER, &calls));
    ck_assert_uint_eq(queued, 5);
}
END_TEST

/* It died between the two steps of popping its last entry, and a thief saw the queue as it was before. */
START_TEST(a_thief_that_looked_before_a_death_gets_nothing_after_the_repair)
{
    struct lane_slot *slot = lanes[WORKER].self;
    uint32_t task = node_submit(&lanes[WORKER], NULL, 0, NULL);
    uint64_t thief = atomic_load(&slot->head);

    atomic_fetch_sub(&slot->tail, 1);
    lane_detach(&lanes[WORKER]);
    lane_hold(&lanes[DRIVER], task);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(queued, 1);
    ck_assert(!atomic_compare_exchange_strong(&slot->head, &thief, thief + 1));
    node_attach(&node, &lanes[WORKER], WORKER, LANE_IS_WORKER);
    task = node_submit(&lanes[WORKER], NULL, 0, NULL);
    ck_assert_uint_eq(lane_steal_from(&lanes[OTHER], WORKER), task);
}
END_TEST

START_TEST(children_that_nobody_holds_are_cancelled_others_live)
{
    uint32_t input = node_submit(&lanes[WORKER], NULL, 0, NULL);
    uint32_t alone = node_submit(&lanes[WORKER], &input, 1, NULL);
    uint32_t held = node_submit(&lanes[WORKER], &input, 1, NULL);

    lane_hold(&lanes[DRIVER], held);
    lane_drop(&lanes[WORKER], input);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(cancelled, 1); /* `alone`; `input` is held by `held` */
    ck_assert_int_le(life_state(record_life(lane_record(&lanes[0], alone))), RECORD_ORPHAN);
    uint32_t task;
    while ((task = lane_next(&lanes[OTHER])) != RECORD_NONE)
        node_run(&lanes[OTHER], task);
    ck_assert_uint_eq(node_value(&lanes[DRIVER], held), 2);
}
END_TEST

START_TEST(calls_to_and_of_the_dead_are_told)
{
    struct node_shape call = {.kind = RECORD_METHOD, .actor = ACTOR};

    node_submit(&lanes[DRIVER], NULL, 0, &call);
    node_submit(&lanes[DRIVER], NULL, 0, &call);
    ck_assert(lane_repair(&lanes[0], ACTOR, &calls));
    ck_assert_uint_eq(called, 2);
}
END_TEST

START_TEST(who_sleeps_is_woken)
{
    atomic_store(&lanes[OTHER].self->asleep, 1);
    atomic_store(&lanes[DRIVER].self->asleep, 1);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(woken & (1u << OTHER | 1u << DRIVER), 1u << OTHER | 1u << DRIVER);
}
END_TEST

/* The dead was pushing an edge on the list of a record that a living process is just telling: whether
 * the cell is among those in its hands shows only when it is done. */
START_TEST(a_repair_waits_while_the_list_is_in_other_hands)
{
    uint32_t input = node_submit(&lanes[DRIVER], NULL, 0, NULL);
    uint32_t task = lane_make(&lanes[WORKER], RECORD_TASK);
    uint32_t cell = cell_take(&lanes[WORKER]);

    lane_hold(&lanes[WORKER], input);
    node_run(&lanes[OTHER], lane_next(&lanes[OTHER]));
    atomic_store(&lanes[WORKER].self->push_list, input);
    atomic_store(&lanes[WORKER].self->push_cell, cell + 1);
    atomic_store(&lanes[WORKER].cells[cell].task, task + 1);
    lanes[WORKER].cells[cell].generation = generation_of(task);
    ck_assert(tell_claim(&lanes[OTHER], input, generation_of(input)));
    ck_assert(!lane_repair(&lanes[0], WORKER, &calls));
    ck_assert(!lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], task))), RECORD_MAKING);
    tell_edges(&lanes[OTHER], input);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(atomic_load(&lanes[0].cells[cell].task), CELL_FREED);
    ck_assert_int_eq(life_state(record_life(lane_record(&lanes[0], task))), RECORD_ORPHAN);
    lane_drop(&lanes[DRIVER], input);
}
END_TEST

START_TEST(a_repair_waits_while_a_mailbox_is_read)
{
    uint32_t cell = cell_take(&lanes[WORKER]), other = cell_take(&lanes[OTHER]);

    atomic_store(&lanes[WORKER].self->push_list, ACTOR | LANE_LIST_MAILBOX);
    atomic_store(&lanes[WORKER].self->push_cell, cell + 1);
    atomic_store(&lanes[WORKER].cells[cell].task, 1);
    atomic_store(&lanes[ACTOR].self->chain, other + 1);
    ck_assert(!lane_repair(&lanes[0], WORKER, &calls));
    atomic_store(&lanes[ACTOR].self->chain, 0);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(atomic_load(&lanes[0].cells[cell].task), CELL_FREED);
}
END_TEST

/* A cell that the dead had freed, and that its owner uses again by now, is not freed once more. */
START_TEST(a_cell_that_has_gone_on_is_left_alone)
{
    struct lane_slot *dead = lanes[WORKER].self;

    ck_assert_int_eq(lane_post(&lanes[OTHER], ACTOR, 1, 0, CELL_RESOLVE, 5), MORAY_OK);
    uint32_t link = atomic_load(&lanes[ACTOR].self->mailbox);
    atomic_store(&dead->undo_cell, link);
    atomic_store(&dead->chain, 0);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(atomic_load(&lanes[0].cells[link - 1].task), 2);
}
END_TEST

START_TEST(a_slab_claimed_without_a_word_is_found)
{
    struct lane_control *control = lanes[0].control;
    struct pool_slab *slabs = lanes[0].record_pool.slabs;
    uint32_t slab = atomic_load(&control->records_claimed);

    atomic_store(&slabs[slab].owner, WORKER + 1);
    lane_detach(&lanes[WORKER]);
    ck_assert(lane_repair(&lanes[0], WORKER, &calls));
    ck_assert_uint_eq(atomic_load(&control->records_claimed), slab + 1);
    node_attach(&node, &lanes[WORKER], WORKER, LANE_IS_WORKER);
    ck_assert_uint_eq(pool_free_count(&lanes[WORKER].record_pool), POOL_SLAB_ITEMS);
}
END_TEST

/* A job that has had a million tasks has their records for ever, free, and its processes die as before. */
START_TEST(records_that_are_free_cost_a_death_one_look_each)
{
    enum { SLABS = 512, RECORDS = SLABS * POOL_SLAB_ITEMS };
    uint64_t walk_ns = UINT64_MAX, repair_ns = UINT64_MAX, alive = 0;
    struct node large;
    struct lane agent;

    node_open(&large, &(struct lane_options){.data_bytes = 1 << 20,
                                             .slot_count = SLOTS,
                                             .queue_max = 64,
                                             .record_count = RECORDS});
    node_attach(&large, &agent, LANE_AGENT, LANE_IS_AGENT);
    struct pool_slab *slabs = agent.record_pool.slabs;
    for (uint32_t slab = 0; slab < SLABS; slab++)
        atomic_store(&slabs[slab].owner, DRIVER + 1);
    atomic_store(&agent.control->records_claimed, SLABS);
    for (int i = 0; i < 7; i++) {
        uint64_t from_ns = law_cpu_ns();
        for (uint32_t index = 0; index < RECORDS; index++)
            alive += life_state(record_life(lane_record(&agent, index))) > RECORD_ORPHAN;
        uint64_t between_ns = law_cpu_ns();
        ck_assert(lane_repair(&agent, WORKER, &calls));
        uint64_t end_ns = law_cpu_ns();
        if (between_ns - from_ns < walk_ns)
            walk_ns = between_ns - from_ns;
        if (end_ns - between_ns < repair_ns)
            repair_ns = end_ns - between_ns;
    }
    lane_detach(&agent);
    node_close(&large);
    ck_assert_uint_eq(alive, 0);
    ck_assert_msg(repair_ns < 5 * walk_ns, "%u free records: a walk %llu us, a repair %llu",
                  RECORDS, (unsigned long long)walk_ns / 1000,
                  (unsigned long long)repair_ns / 1000);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, only_the_innermost_task_is_charged);
    tcase_add_test(laws, what_the_agent_keeps_for_one_in_the_making_is_let_go);
    tcase_add_test(laws, what_the_agent_keeps_is_let_go_without_a_cell_too);
    tcase_add_test(laws, what_stands_in_a_queue_is_not_queued_again);
    tcase_add_test(laws, a_thief_that_looked_before_a_death_gets_nothing_after_the_repair);
    tcase_add_test(laws, children_that_nobody_holds_are_cancelled_others_live);
    tcase_add_test(laws, calls_to_and_of_the_dead_are_told);
    tcase_add_test(laws, who_sleeps_is_woken);
    tcase_add_test(laws, a_repair_waits_while_the_list_is_in_other_hands);
    tcase_add_test(laws, a_repair_waits_while_a_mailbox_is_read);
    tcase_add_test(laws, a_cell_that_has_gone_on_is_left_alone);
    tcase_add_test(laws, a_slab_claimed_without_a_word_is_found);
    tcase_add_test(laws, records_that_are_free_cost_a_death_one_look_each);
    return law_run("repair", laws);
}
