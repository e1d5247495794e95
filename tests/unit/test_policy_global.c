#include <string.h>

#include "sched/policy/global.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { RANKS = 6, CORE = RESOURCES_CORE, US = 1000, MS = 1000 * 1000 };

static struct global *global;
static struct global_move moves[64];
static struct moray_error error;

static void join(uint32_t rank, uint32_t workers, uint32_t host)
{
    struct global_node node = {
        .rank = rank, .host = host, .worker_count = workers, .have = {workers * CORE, 1000}};

    ck_assert_int_eq(global_join(global, &node, &error), MORAY_OK);
}

static size_t take(void)
{
    size_t count = 0;

    while (count < 64 && global_next(global, &moves[count]))
        count++;
    return count;
}

static struct load load_of(uint32_t workers, uint64_t queued, uint32_t running, uint64_t mean_ns)
{
    return (struct load){.worker_count = workers,
                         .queued_count = queued,
                         .running_count = running,
                         .mean_task_ns = mean_ns,
                         .free = {(workers - running) * CORE, 1000}};
}

/* A rank of 8 workers says how it is; returns how many moves that orders. */
static size_t report(uint32_t rank, uint64_t queued, uint32_t running, uint64_t mean_ns)
{
    struct load load = load_of(8, queued, running, mean_ns);

    ck_assert(global_report(global, rank, &load));
    return take();
}

static enum moray_code place(enum global_where where, uint32_t rank, uint32_t asker, uint32_t *out)
{
    struct global_task task = {.need = {CORE, 0}, .where = where, .rank = rank, .asker = asker};

    return global_place(global, &task, out, &error);
}

static void setup(void)
{
    ck_assert_int_eq(global_create(&(struct global_options){.rank_count = RANKS}, &global, NULL),
                     MORAY_OK);
}

static void teardown(void)
{
    global_destroy(global);
}

static void two_nodes(void)
{
    join(1, 8, 1);
    join(2, 8, 2);
    take();
}

START_TEST(a_loaded_node_gives_an_idle_one_its_share_at_once)
{
    two_nodes();
    ck_assert_uint_eq(report(1, 992, 8, 10 * MS), 1);
    ck_assert(moves[0].from == 1 && moves[0].to == 2);
    ck_assert_uint_ge(moves[0].count, 495);
    ck_assert_uint_le(moves[0].count, 505);
    ck_assert_uint_eq(report(1, 990, 8, 10 * MS), 0); /* the order still counts */
    ck_assert(global_moved(global, &moves[0], moves[0].count));
    ck_assert(!global_moved(global, &moves[0], moves[0].count));
    ck_assert_uint_eq(report(1, 490, 8, 10 * MS), 0);
    ck_assert_uint_eq(report(2, 0, 0, 0), 0); /* they are on their way still */
}
END_TEST

START_TEST(an_idle_node_takes_from_the_most_loaded)
{
    two_nodes();
    join(3, 8, 3);
    report(2, 100, 8, 1 * US); /* busy, and not worth moving */
    report(3, 100, 8, 1 * US);
    ck_assert_uint_eq(report(1, 500, 8, 1 * US), 0);
    struct load busy = load_of(8, 400, 8, 5 * MS);
    ck_assert(global_report(global, 2, &busy) && take() == 2); /* 1 and 3 are hungry: 1 us tasks */
    ck_assert(moves[0].from == 2 && moves[1].from == 2);
}
END_TEST

START_TEST(tasks_of_a_microsecond_stay_where_they_are)
{
    two_nodes();
    ck_assert_uint_eq(report(1, 1000 * 1000, 8, 1 * US), 0);
    ck_assert_uint_eq(report(2, 0, 0, 0), 0);
    ck_assert_uint_eq(report(1, 900 * 1000, 8, 2 * US), 0);
    ck_assert_uint_eq(report(1, 900 * 1000, 8, 20 * US), 1); /* these are worth it */
    ck_assert_uint_le(moves[0].count, 4096);
}
END_TEST

START_TEST(a_task_that_runs_long_counts_before_it_is_done)
{
    struct load load = load_of(8, 992, 8, 0);

    two_nodes();
    load.running_ns = 1 * US;
    ck_assert(global_report(global, 1, &load) && take() == 0);
    load.running_ns = 400 * US;
    ck_assert(global_report(global, 1, &load) && take() == 1);
}
END_TEST

START_TEST(a_short_queue_is_left_alone)
{
    two_nodes();
    ck_assert_uint_eq(report(1, 8, 8, 100 * US), 0); /* 100 us of work: less than moving takes */
    ck_assert_uint_eq(report(1, 1, 8, 10 * MS), 1);  /* one task, but 1.25 ms to wait */
    ck_assert_uint_eq(moves[0].count, 1);
}
END_TEST

START_TEST(a_task_that_would_wait_as_long_there_stays)
{
    two_nodes();
    report(2, 0, 8, 1 * MS);                        /* nothing queued, but no worker free */
    ck_assert_uint_eq(report(1, 2, 8, 1 * MS), 0);  /* 250 us here, 125 there, 200 to move */
    ck_assert_uint_eq(report(1, 16, 8, 1 * MS), 1); /* 2 ms here */
}
END_TEST

START_TEST(long_tasks_that_came_count_as_long_before_one_is_done)
{
    struct load load = load_of(8, 488, 8, 1 * US); /* all that it has finished were short */

    two_nodes();
    report(2, 0, 0, 1 * US);
    ck_assert_uint_eq(report(1, 992, 8, 10 * MS), 1);
    ck_assert(global_moved(global, &moves[0], moves[0].count));
    load.arrived_count = moves[0].count;
    ck_assert(global_report(global, 2, &load) && take() == 0);
    ck_assert_uint_eq(report(1, 490, 8, 10 * MS), 0);
}
END_TEST

START_TEST(a_source_that_had_less_is_not_asked_again_on_old_news)
{
    two_nodes();
    ck_assert_uint_eq(report(1, 500, 8, 1 * MS), 1);
    ck_assert(global_moved(global, &moves[0], 0)); /* it ran them all meanwhile */
    ck_assert_uint_eq(take(), 0);
    ck_assert_uint_eq(report(2, 0, 0, 1 * MS), 0);
    ck_assert_uint_eq(report(1, 100, 8, 1 * MS), 1);
}
END_TEST

START_TEST(tasks_do_not_go_back_and_forth)
{
    uint64_t queued[3] = {0, 300, 0}, moved = 0, arrived[3] = {0};

    two_nodes();
    for (int round = 0; round < 200; round++) {
        for (uint32_t rank = 1; rank <= 2; rank++) {
            struct load load = load_of(8, queued[rank], 8, 1 * MS);
            load.arrived_count = arrived[rank];
            ck_assert(global_report(global, rank, &load));
            size_t count = take();
            for (size_t i = 0; i < count; i++) {
                uint64_t *from = &queued[moves[i].from];
                uint64_t sent = moves[i].count < *from ? moves[i].count : *from;
                *from -= sent;
                queued[moves[i].to] += sent;
                arrived[moves[i].to] += sent;
                moved += sent;
                ck_assert(global_moved(global, &moves[i], sent));
            }
        }
        for (uint32_t rank = 1; rank <= 2; rank++) /* both run equally fast */
            queued[rank] -= queued[rank] < 4 ? queued[rank] : 4;
    }
    ck_assert_uint_eq(queued[1] + queued[2], 0);
    ck_assert_uint_ge(moved, 140);
    ck_assert_uint_le(moved, 180); /* half of them once, and little more */
}
END_TEST

START_TEST(a_task_goes_where_it_waits_least)
{
    uint32_t rank;

    two_nodes();
    ck_assert_int_eq(place(GLOBAL_ANY, 0, 2, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 2); /* all are free: near the submitter */
    report(2, 100, 8, 1 * MS);
    ck_assert_int_eq(place(GLOBAL_ANY, 0, 2, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    report(1, 800, 8, 1 * MS);
    ck_assert_int_eq(place(GLOBAL_ANY, 0, 2, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 2);
}
END_TEST

START_TEST(what_was_placed_counts_before_the_next_report)
{
    uint32_t rank, count[3] = {0};

    two_nodes();
    report(1, 0, 8, 1 * MS);
    report(2, 0, 8, 1 * MS);
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(place(GLOBAL_ANY, 0, 1, &rank), MORAY_OK);
        count[rank]++;
    }
    ck_assert_uint_ge(count[1], 49);
    ck_assert_uint_le(count[1], 51);
    struct load load = load_of(8, 0, 0, 1 * MS);
    load.arrived_count = 50;
    ck_assert(global_report(global, 2, &load));
    ck_assert_uint_eq(global_wait_ns(global, 2), 0);
}
END_TEST

START_TEST(what_a_placed_task_takes_is_not_free_any_more)
{
    struct global_task task = {.need = {CORE, 600}, .asker = 1};
    uint32_t rank;

    two_nodes();
    report(1, 0, 4, 1 * MS);
    report(2, 0, 4, 1 * MS);
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 2); /* rank 1 has 400 bytes left, until it says otherwise */
    report(1, 0, 4, 1 * MS);
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
}
END_TEST

START_TEST(a_task_goes_near_its_bytes_unless_the_wait_there_is_longer)
{
    struct global_input inputs[] = {{2, 400 * MS}, {2, 100 * MS}, {1, 1}}; /* 0.5 s at 1 GB/s */
    struct global_task task = {.need = {CORE, 0}, .asker = 1, .inputs = inputs, .input_count = 3};
    uint32_t rank;

    two_nodes();
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 2);
    report(2, 800 * 1000, 8, 7 * US); /* 0.7 s, in tasks that are too short to move */
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
}
END_TEST

START_TEST(bytes_of_a_neighbour_on_the_host_are_near)
{
    struct global_input input = {0, 500 * MS}; /* at the head, which runs no task */
    struct global_task task = {.need = {CORE, 0}, .asker = 1, .inputs = &input, .input_count = 1};
    uint32_t rank;

    join(1, 8, 1);
    join(2, 8, UINT32_MAX);
    join(3, 8, 0); /* shares its host with rank 0 */
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 3);
    input.rank = 2;
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 2);
    input.rank = 99; /* from the wire: counts for nobody */
    ck_assert_int_eq(global_place(global, &task, &rank, &error), MORAY_OK);
}
END_TEST

START_TEST(a_place_that_was_asked_for_is_kept_or_refused)
{
    uint32_t rank;

    two_nodes();
    report(2, 1000, 8, 1 * MS);
    ck_assert_int_eq(place(GLOBAL_NODE, 2, 1, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 2);
    ck_assert_int_eq(place(GLOBAL_NODE, 5, 1, &rank), MORAY_LOST);
    ck_assert_int_eq(place(GLOBAL_NODE_SOFT, 5, 1, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    struct global_task large = {.need = {9 * CORE, 0}, .where = GLOBAL_NODE, .rank = 1};
    ck_assert_int_eq(global_place(global, &large, &rank, &error), MORAY_INVALID);
    large.where = GLOBAL_ANY;
    ck_assert_int_eq(global_place(global, &large, &rank, &error), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "9.0000 cores"));
    ck_assert_ptr_nonnull(strstr(error.text, "8.0000 cores"));
}
END_TEST

START_TEST(spread_gives_each_node_as_many)
{
    uint32_t rank, count[RANKS] = {0};

    for (uint32_t r = 1; r < RANKS; r++)
        join(r, r, r);
    for (int i = 0; i < 50; i++) {
        ck_assert_int_eq(place(GLOBAL_SPREAD, 0, 1, &rank), MORAY_OK);
        count[rank]++;
    }
    for (uint32_t r = 1; r < RANKS; r++)
        ck_assert_uint_eq(count[r], 10);
}
END_TEST

START_TEST(actors_go_where_there_are_fewest)
{
    uint32_t rank, count[3] = {0};

    two_nodes();
    for (int i = 0; i < 10; i++) {
        ck_assert_int_eq(
            global_place_actor(global, (struct resources){0}, UINT32_MAX, &rank, &error), MORAY_OK);
        count[rank]++;
    }
    ck_assert(count[1] == 5 && count[2] == 5);
    report(1, 0, 8, 1 * MS); /* no free core there */
    ck_assert_int_eq(global_place_actor(global, (struct resources){0}, UINT32_MAX, &rank, &error),
                     MORAY_OK);
    ck_assert_uint_eq(rank, 2);
    ck_assert_int_eq(global_place_actor(global, (struct resources){0}, 1, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    ck_assert_int_eq(global_place_actor(global, (struct resources){0}, 0, &rank, &error),
                     MORAY_INVALID);
}
END_TEST

START_TEST(a_node_that_refused_gets_no_more_actors_than_it_has)
{
    struct resources none = {0};
    uint32_t rank;

    two_nodes();
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(global_place_actor(global, none, 1, &rank, &error), MORAY_OK);
    global_actor_refused(global, 1);
    global_actor_ended(global, 1, none);
    ck_assert_int_eq(global_place_actor(global, none, 1, &rank, &error), MORAY_FULL);
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(global_place_actor(global, none, UINT32_MAX, &rank, &error), MORAY_OK);
        ck_assert_uint_eq(rank, 2);
    }
    global_actor_refused(global, 2);
    global_actor_ended(global, 2, none);
    ck_assert_int_eq(global_place_actor(global, none, UINT32_MAX, &rank, &error), MORAY_FULL);
    global_actor_ended(global, 1, none);
    ck_assert_int_eq(global_place_actor(global, none, UINT32_MAX, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    ck_assert_int_eq(global_place_actor(global, none, UINT32_MAX, &rank, &error), MORAY_FULL);
    global_actors_again(global);
    ck_assert_int_eq(global_place_actor(global, none, UINT32_MAX, &rank, &error), MORAY_OK);
}
END_TEST

START_TEST(what_an_actor_holds_for_life_is_counted)
{
    struct resources half = {5 * CORE, 600};
    uint32_t rank;

    two_nodes();
    ck_assert_int_eq(global_place_actor(global, half, UINT32_MAX, &rank, &error), MORAY_OK);
    ck_assert_int_eq(global_place_actor(global, half, UINT32_MAX, &rank, &error), MORAY_OK);
    ck_assert_int_eq(global_place_actor(global, half, UINT32_MAX, &rank, &error), MORAY_BUSY);
    global_actor_ended(global, 1, half);
    ck_assert_int_eq(global_place_actor(global, half, UINT32_MAX, &rank, &error), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    half.memory_bytes = 1001;
    ck_assert_int_eq(global_place_actor(global, half, UINT32_MAX, &rank, &error), MORAY_INVALID);
}
END_TEST

START_TEST(a_lost_rank_gets_and_gives_nothing)
{
    uint32_t rank;

    two_nodes();
    ck_assert_uint_eq(report(1, 992, 8, 10 * MS), 1);
    global_lose(global, 2);
    ck_assert(!global_moved(global, &moves[0], moves[0].count));
    struct load load = load_of(8, 0, 0, 0);
    ck_assert(!global_report(global, 2, &load) && !global_report(global, 99, &load));
    ck_assert_uint_eq(global_wait_ns(global, 2), UINT64_MAX);
    ck_assert_uint_ge(global_wait_ns(global, 1), 1200 * (uint64_t)MS); /* it has all 992 again */
    ck_assert_int_eq(place(GLOBAL_NODE, 2, 1, &rank), MORAY_LOST);
    ck_assert_int_eq(place(GLOBAL_ANY, 0, 1, &rank), MORAY_OK);
    ck_assert_uint_eq(rank, 1);
    global_lose(global, 1);
    ck_assert_int_eq(place(GLOBAL_ANY, 0, 1, &rank), MORAY_INVALID);
}
END_TEST

START_TEST(mistakes_at_the_join_are_refused)
{
    struct global_node node = {.rank = 1, .host = 1, .worker_count = 1, .have = {CORE, 0}};

    ck_assert_int_eq(global_join(global, &node, &error), MORAY_OK);
    ck_assert_int_eq(global_join(global, &node, &error), MORAY_INVALID);
    node.rank = RANKS;
    ck_assert_int_eq(global_join(global, &node, &error), MORAY_INVALID);
    node.rank = 2;
    node.host = RANKS;
    ck_assert_int_eq(global_join(global, &node, &error), MORAY_INVALID);
    node.host = 2;
    node.worker_count = 0;
    ck_assert_int_eq(global_join(global, &node, &error), MORAY_INVALID);
}
END_TEST

/* Reports, answers and losses in any order, absurd numbers among them: orders stay sensible. */
START_TEST(in_any_history_orders_are_between_living_nodes)
{
    uint64_t seed = (uint64_t)_i + 1, arrived[RANKS] = {0};
    bool lost[RANKS] = {true};
    struct global_move open[256];
    size_t open_count = 0;

    for (uint32_t rank = 1; rank < RANKS; rank++)
        join(rank, 1 + law_random(&seed, 8), rank);
    for (int event = 0; event < 2000; event++) {
        uint32_t rank = law_random(&seed, RANKS), where;
        struct load load = {.queued_count = law_random(&seed, 2) ? law_random(&seed, 2000) : 0,
                            .running_count = law_random(&seed, 9),
                            .mean_task_ns = law_random(&seed, 2) ? law_random(&seed, 50 * MS) : 0,
                            .running_ns = law_random(&seed, MS),
                            .free = {law_random(&seed, 80000), 1000}};
        switch (law_random(&seed, 12)) {
        case 0:
            if (law_random(&seed, 100) == 0) {
                global_lose(global, rank);
                lost[rank] = true;
            }
            break;
        case 1:
        case 2:
            if (place(law_random(&seed, 4), law_random(&seed, RANKS + 1), rank, &where) ==
                MORAY_OK) {
                LAW(!lost[where], _i, event);
                arrived[where] += law_random(&seed, 2);
            }
            break;
        case 3:
        case 4:
        case 5:
            if (open_count > 0) {
                uint32_t at = law_random(&seed, (uint32_t)open_count);
                uint64_t sent = law_random(&seed, (uint32_t)open[at].count + 1);
                bool known = global_moved(global, &open[at], sent);
                LAW(known == (!lost[open[at].from] && !lost[open[at].to]), _i, event);
                arrived[open[at].to] += sent;
                open[at] = open[--open_count];
            }
            break;
        default:
            load.arrived_count = law_random(&seed, 50) ? arrived[rank] : law_random(&seed, 1000);
            LAW(global_report(global, rank, &load) == !lost[rank], _i, event);
        }
        while (open_count < 256 && global_next(global, &open[open_count])) {
            struct global_move *move = &open[open_count++];
            LAW(move->from != move->to && move->count > 0 && move->count <= 4096, _i, event);
            LAW(!lost[move->from] && !lost[move->to], _i, event);
        }
    }
}
END_TEST

START_TEST(a_failed_allocation_orders_less)
{
    struct load loaded = load_of(8, 992, 8, 10 * MS);
    struct global_node node = {.host = 1, .worker_count = 8, .have = {8 * CORE, 0}};

    for (fault_first(); fault_again(); fault_next()) {
        struct global *own;
        enum moray_code code =
            FAULTY(global_create(&(struct global_options){.rank_count = 2}, &own, &error));
        ck_assert((code == MORAY_OK) == (own != NULL));
        if (own) {
            struct global_move move;
            for (node.rank = 0; node.rank < 2; node.rank++)
                ck_assert_int_eq(global_join(own, &node, &error), MORAY_OK);
            FAULTY(global_report(own, 0, &loaded));
            if (global_next(own, &move))
                ck_assert(global_moved(own, &move, 0));
        }
        FAULTY((global_destroy(own), 0));
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_loaded_node_gives_an_idle_one_its_share_at_once);
    tcase_add_test(laws, an_idle_node_takes_from_the_most_loaded);
    tcase_add_test(laws, tasks_of_a_microsecond_stay_where_they_are);
    tcase_add_test(laws, a_task_that_runs_long_counts_before_it_is_done);
    tcase_add_test(laws, a_short_queue_is_left_alone);
    tcase_add_test(laws, a_task_that_would_wait_as_long_there_stays);
    tcase_add_test(laws, long_tasks_that_came_count_as_long_before_one_is_done);
    tcase_add_test(laws, a_source_that_had_less_is_not_asked_again_on_old_news);
    tcase_add_test(laws, tasks_do_not_go_back_and_forth);
    tcase_add_test(laws, a_task_goes_where_it_waits_least);
    tcase_add_test(laws, what_was_placed_counts_before_the_next_report);
    tcase_add_test(laws, what_a_placed_task_takes_is_not_free_any_more);
    tcase_add_test(laws, a_task_goes_near_its_bytes_unless_the_wait_there_is_longer);
    tcase_add_test(laws, bytes_of_a_neighbour_on_the_host_are_near);
    tcase_add_test(laws, a_place_that_was_asked_for_is_kept_or_refused);
    tcase_add_test(laws, spread_gives_each_node_as_many);
    tcase_add_test(laws, actors_go_where_there_are_fewest);
    tcase_add_test(laws, a_node_that_refused_gets_no_more_actors_than_it_has);
    tcase_add_test(laws, what_an_actor_holds_for_life_is_counted);
    tcase_add_test(laws, a_lost_rank_gets_and_gives_nothing);
    tcase_add_test(laws, mistakes_at_the_join_are_refused);
    tcase_add_loop_test(laws, in_any_history_orders_are_between_living_nodes, 0, 50);
    tcase_add_test(laws, a_failed_allocation_orders_less);
    return law_run("sched/policy/global", laws);
}
