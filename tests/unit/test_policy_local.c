#include <string.h>

#include "sched/policy/local.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { CORES = 4, CORE = RESOURCES_CORE, MEMORY = 1000 };

static struct local *local;
static struct local_action action;
static struct moray_error error;
static struct local_lane lane;
static uint64_t now_ns;

static const struct local_options options = {
    .rank = 3,
    .have = {CORES * CORE, MEMORY},
    .worker_count = CORES,
    .near_bytes = 1 << 20,
    .queue_max = 8,
};

static enum moray_code submit(uint64_t id, uint64_t core_parts, uint64_t memory_bytes)
{
    struct local_task task = {.id = id, .need = {core_parts, memory_bytes}};

    return local_submit(local, &task, &error);
}

/* The next action but reports, which have tests of their own. */
static bool next(void)
{
    bool found;

    do
        found = local_next(local, &action);
    while (found && action.kind == LOCAL_REPORT);
    return found;
}

/* Whether the next action that is not for the lane is this one. */
static bool acts(int kind, uint64_t task)
{
    while (next())
        if (action.kind != LOCAL_LANE_WORKERS)
            return (int)action.kind == kind && action.task == task;
    return false;
}

/* The lane does at once what it was told. */
static void obey(uint32_t worker_count)
{
    lane.worker_count = worker_count;
    local_lane(local, &lane, now_ns);
}

static void setup(void)
{
    lane = (struct local_lane){.worker_count = CORES};
    now_ns = 1;
    ck_assert_int_eq(local_create(&options, &local, NULL), MORAY_OK);
}

static void teardown(void)
{
    local_destroy(local);
}

START_TEST(a_task_runs_once_the_lane_gave_the_cores)
{
    ck_assert_int_eq(submit(1, 2 * CORE, 0), MORAY_OK);
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS && action.worker_count == 2);
    ck_assert(!next());
    obey(3); /* one worker still runs its task */
    ck_assert(!next());
    obey(2);
    ck_assert(acts(LOCAL_RUN, 1) && !next());
    ck_assert(local_done(local, 1) && !local_done(local, 1));
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS && action.worker_count == CORES);
    ck_assert_uint_eq(local_free(local).core_parts, 0); /* all the lane's again */
}
END_TEST

START_TEST(fractions_of_a_core_share_it)
{
    for (uint64_t id = 1; id <= 4; id++)
        ck_assert_int_eq(submit(id, CORE / 4, 0), MORAY_OK);
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS && action.worker_count == 3);
    obey(3);
    for (uint64_t id = 1; id <= 4; id++)
        ck_assert(acts(LOCAL_RUN, id));
    ck_assert_uint_eq(local_free(local).core_parts, 0);
    ck_assert_int_eq(submit(5, 1, 0), MORAY_OK); /* 0.0001 core */
    ck_assert(next() && action.worker_count == 2);
}
END_TEST

START_TEST(what_no_node_could_meet_is_an_error)
{
    struct resources nodes[] = {{CORES * CORE, MEMORY}, {8 * CORE, 10}, {2 * CORE, 9000}};

    ck_assert_int_eq(submit(1, 100 * CORE, 0), MORAY_OK); /* the others are not known yet */
    ck_assert(acts(LOCAL_HAND_OVER, 1));
    ck_assert_int_eq(local_cluster(local, nodes, 3, &error), MORAY_OK);
    ck_assert_int_eq(submit(2, 100 * CORE, 0), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "100.0000 cores"));
    ck_assert_ptr_nonnull(strstr(error.text, "8.0000 cores"));
    ck_assert_int_eq(submit(2, 8 * CORE, 9000), MORAY_INVALID); /* no node has both */
    ck_assert_int_eq(submit(2, 8 * CORE, 10), MORAY_OK);
    ck_assert(acts(LOCAL_HAND_OVER, 2));
}
END_TEST

START_TEST(a_node_alone_hands_nothing_over)
{
    struct local_options alone = options;
    struct local_task task = {
        .id = 1, .need = {CORE, 1}, .missing_bytes = 1 << 30, .place = LOCAL_ASK};

    alone.alone = true;
    local_destroy(local);
    ck_assert_int_eq(local_create(&alone, &local, NULL), MORAY_OK);
    ck_assert_int_eq(submit(9, 5 * CORE, 0), MORAY_INVALID);
    ck_assert_int_eq(local_submit(local, &task, &error), MORAY_OK);
    obey(3);
    ck_assert(acts(LOCAL_RUN, 1));
}
END_TEST

START_TEST(a_task_is_handed_over_for_one_of_four_reasons)
{
    struct local_task asked = {.id = 1, .need = {CORE, 1}, .place = LOCAL_ASK};
    struct local_task far = {.id = 2, .need = {CORE, 1}, .missing_bytes = 1 << 20};
    struct local_task near = {.id = 3, .need = {CORE, 1}, .missing_bytes = (1 << 20) - 1};
    struct local_task sent = {
        .id = 4, .need = {CORE, 1}, .missing_bytes = 1 << 30, .place = LOCAL_HERE};

    ck_assert_int_eq(local_submit(local, &asked, &error), MORAY_OK);
    ck_assert(acts(LOCAL_HAND_OVER, 1));
    ck_assert_int_eq(local_submit(local, &far, &error), MORAY_OK);
    ck_assert(acts(LOCAL_HAND_OVER, 2));
    ck_assert_int_eq(submit(5, 5 * CORE, 0), MORAY_OK); /* larger than this node */
    ck_assert(acts(LOCAL_HAND_OVER, 5));
    ck_assert_int_eq(local_submit(local, &near, &error), MORAY_OK);
    ck_assert_int_eq(local_submit(local, &sent, &error), MORAY_OK);
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS);
    for (uint64_t id = 10; id < 16; id++)
        ck_assert_int_eq(submit(id, CORE, 1), MORAY_OK);
    while (next())
        ck_assert_int_eq(action.kind, LOCAL_LANE_WORKERS);
    ck_assert_int_eq(submit(16, CORE, 1), MORAY_OK); /* 8 wait here */
    ck_assert(acts(LOCAL_HAND_OVER, 16));
    ck_assert_int_eq(submit(10, CORE, 1), MORAY_EXISTS);
    sent.id = 17;
    sent.need.core_parts = 5 * CORE;
    ck_assert_int_eq(local_submit(local, &sent, &error), MORAY_INVALID);
}
END_TEST

START_TEST(a_task_that_waits_gives_its_cores_and_takes_them_back_first)
{
    ck_assert_int_eq(submit(1, 4 * CORE, 500), MORAY_OK);
    obey(0);
    ck_assert(acts(LOCAL_RUN, 1));
    ck_assert_int_eq(submit(2, 4 * CORE, 500), MORAY_OK);
    ck_assert_int_eq(submit(3, 4 * CORE, 500), MORAY_OK);
    ck_assert(!next() && !local_unblock(local, 1));
    ck_assert(local_block(local, 1) && !local_block(local, 1));
    ck_assert(acts(LOCAL_RUN, 2) && !next()); /* 3 has cores but no memory: 1 keeps its own */
    ck_assert(local_unblock(local, 1) && !next());
    ck_assert(local_done(local, 2));
    ck_assert(acts(LOCAL_RESUME, 1) && !next()); /* before 3 */
    ck_assert(local_done(local, 1) && acts(LOCAL_RUN, 3));
    ck_assert(local_block(local, 3) && local_done(local, 3)); /* it may die while it waits */
}
END_TEST

START_TEST(a_small_task_passes_a_large_one_a_bounded_number_of_times)
{
    uint64_t id = 100;

    ck_assert_int_eq(submit(1, 3 * CORE, 0), MORAY_OK);
    obey(1);
    ck_assert(acts(LOCAL_RUN, 1));
    ck_assert_int_eq(submit(2, 4 * CORE, 0), MORAY_OK); /* waits for 1 */
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS && action.worker_count == 0);
    obey(0);
    for (int pass = 0; pass < LOCAL_PASSED_MAX; pass++) {
        ck_assert_int_eq(submit(++id, CORE, 0), MORAY_OK);
        ck_assert(acts(LOCAL_RUN, id) && local_done(local, id));
    }
    ck_assert_int_eq(submit(++id, CORE, 0), MORAY_OK);
    ck_assert(!next());
    ck_assert(local_done(local, 1) && acts(LOCAL_RUN, 2) && !next());
    ck_assert(local_done(local, 2) && acts(LOCAL_RUN, id));
}
END_TEST

START_TEST(a_queued_task_can_be_cancelled)
{
    ck_assert_int_eq(submit(1, 4 * CORE, 0), MORAY_OK);
    ck_assert(local_cancel(local, 1) && !local_cancel(local, 1));
    ck_assert(!next()); /* the lane was not told yet, and keeps what it has */
    ck_assert_int_eq(submit(2, CORE, 0), MORAY_OK);
    obey(3);
    while (next())
        ;
    ck_assert(!local_cancel(local, 2)); /* it runs */
}
END_TEST

START_TEST(neither_side_starves_the_other)
{
    uint32_t lane_turns = 0, runs = 0;
    uint64_t id = 0;

    lane.queued_count = 1000;
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(submit(++id, 4 * CORE, 0), MORAY_OK);
    for (int step = 0; step < 2000; step++) {
        uint64_t ended = 0;
        bool told = false;
        now_ns += 100 * 1000;
        local_lane(local, &lane, now_ns);
        while (next()) {
            if (action.kind == LOCAL_LANE_WORKERS) {
                told = true;
                lane_turns += action.worker_count == CORES;
                lane.worker_count = action.worker_count;
            } else if (action.kind == LOCAL_RUN) {
                runs++;
                ended = action.task;
            }
        }
        if (told)
            local_lane(local, &lane, now_ns);
        if (ended) {
            LAW(local_done(local, ended), 0, step);
            LAW(submit(++id, 4 * CORE, 0) == MORAY_OK, 0, step);
        }
    }
    ck_assert_uint_gt(lane_turns, 50);
    ck_assert_uint_gt(runs, 50);
}
END_TEST

START_TEST(the_lane_does_not_take_back_what_it_gives_up)
{
    lane.queued_count = 100;
    ck_assert_int_eq(submit(1, 4 * CORE, 0), MORAY_OK);
    ck_assert(next() && action.kind == LOCAL_LANE_WORKERS && action.worker_count == 0);
    for (uint32_t left = 3; left > 0; left--) {
        obey(left);
        ck_assert(!next());
    }
    obey(0);
    ck_assert(acts(LOCAL_RUN, 1));
}
END_TEST

/* Counts the reports that one state of the lane causes. */
static int reports(uint64_t queued, uint32_t running, uint64_t mean_ns, uint64_t age_ns)
{
    int count = 0;

    lane.queued_count = queued;
    lane.running_count = running;
    lane.mean_task_ns = mean_ns;
    lane.running_ns = age_ns;
    local_lane(local, &lane, now_ns);
    while (local_next(local, &action))
        count += action.kind == LOCAL_REPORT;
    return count;
}

START_TEST(a_load_is_reported_when_it_matters)
{
    struct load load;

    ck_assert_int_eq(reports(0, 0, 0, 0), 1); /* the first */
    ck_assert_uint_eq(local_deadline(local), UINT64_MAX);
    ck_assert_int_eq(reports(0, 0, 0, 0), 0);
    now_ns += 2000 * 1000;
    ck_assert_int_eq(reports(0, 4, 0, 10),
                     0); /* no worker is free any more, perhaps not for long */
    ck_assert_uint_le(local_deadline(local), now_ns + 1000 * 1000);
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(0, 4, 0, 10), 1);
    now_ns += 1000;
    ck_assert_int_eq(reports(1000, 4, 0, 10), 0); /* nothing known of the tasks yet */
    ck_assert_uint_le(local_deadline(local), now_ns + 1000 * 1000);
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(996, 4, 0, 1000 * 1000),
                     1); /* they run long: 996 wait for 1 ms each */
    local_load(local, &load);
    ck_assert(load.queued_count == 996 && load.running_count == 4 && load.running_ns == 1000000);
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(992, 4, 0, 1000 * 1000), 0);
    ck_assert_int_eq(reports(990, 4, 5000 * 1000, 0), 1); /* the wait more than doubled */
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(0, 4, 5000 * 1000, 0), 1); /* hungry */
    now_ns += 2000 * 1000;
    ck_assert_int_eq(reports(0, 3, 5000 * 1000, 0), 1); /* a worker is free */
    ck_assert_int_eq(reports(0, 4, 5000 * 1000, 0), 0); /* not so soon again */
    ck_assert_uint_le(local_deadline(local), now_ns + 1000 * 1000);
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(0, 4, 5000 * 1000, 0), 1);
}
END_TEST

START_TEST(a_queue_that_stands_still_is_one_of_long_tasks)
{
    struct load load;

    reports(0, 4, 0, 0);
    now_ns += 2000 * 1000;
    reports(1000, 4, 0, 0);
    for (int look = 0; look < 5; look++) { /* tasks end: nobody knows how long they are */
        now_ns = local_deadline(local);
        ck_assert_int_eq(reports(999 - (uint64_t)look, 4, 0, 0), 0);
    }
    now_ns = local_deadline(local);
    ck_assert_int_eq(reports(995, 4, 0, 0), 1); /* none ended since the last look */
    local_load(local, &load);
    ck_assert_uint_ge(load.running_ns, 50 * 1000);
    now_ns += 1000 * 1000;
    ck_assert_int_eq(reports(994, 4, 900 * 1000, 0), 1); /* one of 0.9 ms */
    local_load(local, &load);
    ck_assert_uint_eq(load.running_ns, 0);
}
END_TEST

START_TEST(a_job_without_work_reports_nothing)
{
    int count = 0;

    reports(0, 0, 5000, 0);
    for (int i = 0; i < 100; i++) {
        ck_assert_uint_eq(local_deadline(local), UINT64_MAX);
        now_ns += 1000 * 1000 * 1000;
        count += reports(0, 0, 5000, 0);
    }
    ck_assert_int_eq(count, 0);
}
END_TEST

START_TEST(options_that_make_no_node_are_refused)
{
    struct local_options bad = options;
    struct local *other;

    bad.have.core_parts = CORE - 1;
    ck_assert_int_eq(local_create(&bad, &other, &error), MORAY_INVALID);
    bad = options;
    bad.worker_count = 0;
    ck_assert_int_eq(local_create(&bad, &other, &error), MORAY_INVALID);
    bad.worker_count = CORES + 1;
    ck_assert_int_eq(local_create(&bad, &other, &error), MORAY_INVALID);
    ck_assert_ptr_null(other);
}
END_TEST

/* A model that knows the state of each task by the actions alone. */
START_TEST(in_any_history_nothing_is_held_twice_and_all_tasks_run)
{
    enum { TASKS = 200 };
    enum { NEW, WAITS, RUNS, BLOCKED, BACK, DONE } state[TASKS + 1] = {NEW};
    struct resources need[TASKS + 1] = {{0, 0}};
    uint64_t seed = (uint64_t)_i + 1;
    uint32_t target = CORES, made = 0, done = 0;

    for (int event = 0; done < TASKS; event++) {
        uint32_t id = 1 + law_random(&seed, TASKS);
        LAW(event < 1000000, _i, event); /* else tasks wait for ever */
        now_ns += law_random(&seed, 200000);
        switch (law_random(&seed, 6)) {
        case 0:
            if (state[id] != NEW)
                break;
            need[id] = (struct resources){law_random(&seed, 4 * CORE + 1), law_random(&seed, 1001)};
            struct local_task task = {.id = id, .need = need[id], .place = LOCAL_HERE};
            state[id] = WAITS;
            made++;
            LAW(local_submit(local, &task, &error) == MORAY_OK, _i, event);
            break;
        case 1:
            if (state[id] == RUNS && made > TASKS / 2) {
                LAW(local_done(local, id), _i, event);
                state[id] = DONE;
                done++;
            }
            break;
        case 2:
            LAW(local_block(local, id) == (state[id] == RUNS), _i, event);
            state[id] = state[id] == RUNS ? BLOCKED : state[id];
            break;
        case 3:
            LAW(local_unblock(local, id) == (state[id] == BLOCKED), _i, event);
            state[id] = state[id] == BLOCKED ? BACK : state[id];
            break;
        case 4:
            if (law_random(&seed, 20) == 0 && state[id] == WAITS && local_cancel(local, id)) {
                state[id] = DONE;
                done++;
            }
            break;
        default: /* the lane obeys slowly: one worker at a time */
            lane.queued_count = law_random(&seed, 3);
            if (lane.worker_count > target)
                lane.worker_count--;
            local_lane(local, &lane, now_ns);
        }
        while (next()) {
            if (action.kind == LOCAL_LANE_WORKERS) {
                target = action.worker_count;
                lane.worker_count = lane.worker_count < target ? target : lane.worker_count;
                continue;
            }
            LAW(action.kind == (state[action.task] == WAITS  ? LOCAL_RUN
                                : state[action.task] == BACK ? LOCAL_RESUME
                                                             : 99),
                _i, event);
            state[action.task] = RUNS;
        }
        struct resources sum = {(uint64_t)lane.worker_count * CORE, 0};
        for (uint32_t i = 1; i <= TASKS; i++) {
            sum.core_parts += state[i] == RUNS ? need[i].core_parts : 0;
            sum.memory_bytes += state[i] >= RUNS && state[i] != DONE ? need[i].memory_bytes : 0;
        }
        LAW(sum.core_parts <= CORES * CORE && sum.memory_bytes <= MEMORY, _i, event);
    }
    lane.queued_count = 0;
    local_lane(local, &lane, now_ns + LOCAL_TURN_NS);
    local_lane(local, &lane, now_ns + 2 * LOCAL_TURN_NS);
    while (next())
        target = action.kind == LOCAL_LANE_WORKERS ? action.worker_count : target;
    ck_assert_msg(target == CORES, "seed %d: the lane did not get its cores back", _i);
    ck_assert_uint_eq(local_free(local).memory_bytes, MEMORY);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    struct local_task task = {.id = 1, .need = {CORE, 1}};

    for (fault_first(); fault_again(); fault_next()) {
        struct local *own;
        if (FAULTY(local_create(&options, &own, &error)) == MORAY_OK) {
            enum moray_code code = FAULTY(local_cluster(own, &options.have, 1, &error));
            if (code == MORAY_OK)
                code = FAULTY(local_submit(own, &task, &error));
            ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
            ck_assert_int_eq(local_cancel(own, 1), code == MORAY_OK);
            FAULTY((local_destroy(own), 0));
        }
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_task_runs_once_the_lane_gave_the_cores);
    tcase_add_test(laws, fractions_of_a_core_share_it);
    tcase_add_test(laws, what_no_node_could_meet_is_an_error);
    tcase_add_test(laws, a_node_alone_hands_nothing_over);
    tcase_add_test(laws, a_task_is_handed_over_for_one_of_four_reasons);
    tcase_add_test(laws, a_task_that_waits_gives_its_cores_and_takes_them_back_first);
    tcase_add_test(laws, a_small_task_passes_a_large_one_a_bounded_number_of_times);
    tcase_add_test(laws, a_queued_task_can_be_cancelled);
    tcase_add_test(laws, neither_side_starves_the_other);
    tcase_add_test(laws, the_lane_does_not_take_back_what_it_gives_up);
    tcase_add_test(laws, a_load_is_reported_when_it_matters);
    tcase_add_test(laws, a_queue_that_stands_still_is_one_of_long_tasks);
    tcase_add_test(laws, a_job_without_work_reports_nothing);
    tcase_add_test(laws, options_that_make_no_node_are_refused);
    tcase_add_loop_test(laws, in_any_history_nothing_is_held_twice_and_all_tasks_run, 0, 40);
    tcase_add_test(laws, a_failed_allocation_changes_nothing);
    return law_run("sched/policy/local", laws);
}
