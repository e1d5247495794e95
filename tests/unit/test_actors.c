#include <string.h>

#include "gcs/actors.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { SECOND = 1000000000 };

static struct actors *actors;
static struct actors_action action;
static struct moray_error error;
static uint64_t now_ns, made;

static enum moray_code create(uint64_t id, const char *name, int32_t restarts, bool or_get)
{
    struct actors_spec spec = {.id = id,
                               .creator = 0,
                               .epoch = ++now_ns,
                               .name = name,
                               .or_get = or_get,
                               .function = 77,
                               .start = "args",
                               .start_bytes = 5,
                               .restarts = restarts};

    return actors_create(actors, &spec, now_ns, &made, &error);
}

static enum moray_code hold(uint64_t id, uint32_t rank, uint64_t epoch, bool set)
{
    return actors_hold(actors, id, rank, epoch, set, now_ns, &error);
}

/* Whether the next action is this one. */
static bool acts(int kind, uint64_t id, uint32_t rank)
{
    return actors_next(actors, &action) && (int)action.kind == kind && action.id == id &&
           action.rank == rank;
}

static bool quiet(void)
{
    return !actors_next(actors, &action);
}

static enum actors_state state(uint64_t id)
{
    struct actors_line line;

    return actors_get(actors, id, &line) ? line.state : ACTORS_DEAD;
}

/* Brings an actor to life on rank 5. */
static void bring_up(uint64_t id, const char *name, int32_t restarts)
{
    ck_assert_int_eq(create(id, name, restarts, false), MORAY_OK);
    ck_assert(acts(ACTORS_CHOOSE, id, UINT32_MAX));
    ck_assert(actors_placed(actors, id, 5, now_ns));
    ck_assert(acts(ACTORS_START, id, 5) && action.incarnation == 1);
    ck_assert(action.line.start_bytes == 5 && memcmp(action.line.start, "args", 5) == 0);
    actors_started(actors, id, 1, 42, now_ns);
    ck_assert(acts(ACTORS_TELL, id, 0) && action.line.state == ACTORS_ALIVE);
    ck_assert(action.line.node == 5 && action.line.slot == 42 && quiet());
}

static void setup(void)
{
    now_ns = 0;
    ck_assert_int_eq(
        actors_create_table(&(struct actors_options){.rank_count = 8, .actor_max = 100}, &actors,
                            NULL),
        MORAY_OK);
}

static void teardown(void)
{
    actors_destroy_table(actors);
}

START_TEST(an_actor_comes_to_life_and_ends_with_its_last_handle)
{
    bring_up(1, NULL, 0);
    ck_assert_int_eq(hold(1, 3, 9, true), MORAY_OK);
    ck_assert(acts(ACTORS_TELL, 1, 3) && action.line.state == ACTORS_ALIVE && quiet());
    ck_assert_int_eq(hold(1, 0, 100, false), MORAY_OK);
    ck_assert(quiet());
    ck_assert_int_eq(hold(1, 3, 9, false), MORAY_OK);
    ck_assert(acts(ACTORS_FINISH, 1, 5) && quiet());
    actors_exited(actors, 1, 1, true, "exited", now_ns);
    ck_assert(acts(ACTORS_RELEASE, 1, 5));
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_DEAD);
    ck_assert(acts(ACTORS_TELL, 1, 3) && quiet());
    ck_assert_uint_eq(actors_count(actors), 0);
    ck_assert_int_eq(hold(1, 3, 10, true), MORAY_STALE);
}
END_TEST

/* A rank tells of its last handle when the calls under way there have had their time. */
START_TEST(the_time_to_finish_counts_from_when_the_last_handle_went)
{
    bring_up(1, NULL, 3);
    ck_assert_int_eq(hold(1, 7, ++now_ns, true), MORAY_OK);
    while (actors_next(actors, &action))
        ;
    uint64_t finish_ns = 30 * (uint64_t)SECOND, first = now_ns, last = first + finish_ns / 2;
    ck_assert_int_eq(actors_hold(actors, 1, 7, ++now_ns, false, last, &error), MORAY_OK);
    now_ns = first + finish_ns; /* so late comes the word of the rank whose handle went first */
    ck_assert_int_eq(actors_hold(actors, 1, 0, now_ns, false, first, &error), MORAY_OK);
    ck_assert(acts(ACTORS_FINISH, 1, 5) && quiet());
    actors_tick(actors, last + finish_ns - 1);
    ck_assert(quiet());
    actors_tick(actors, last + finish_ns);
    ck_assert(acts(ACTORS_STOP, 1, 5));
}
END_TEST

START_TEST(one_that_does_not_finish_in_time_is_stopped)
{
    bring_up(1, NULL, -1);
    ck_assert_int_eq(hold(1, 0, 100, false), MORAY_OK);
    ck_assert(acts(ACTORS_FINISH, 1, 5) && quiet());
    ck_assert_uint_eq(actors_deadline(actors), now_ns + 30 * (uint64_t)SECOND);
    actors_tick(actors, now_ns + 30 * (uint64_t)SECOND - 1);
    ck_assert(quiet());
    actors_tick(actors, now_ns + 30 * (uint64_t)SECOND);
    ck_assert(acts(ACTORS_STOP, 1, 5) && action.incarnation == 1);
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_DEAD && quiet());
    ck_assert_uint_eq(actors_count(actors), 1); /* its process may be there still */
    actors_exited(actors, 1, 1, false, "killed by signal 9", now_ns);
    ck_assert(acts(ACTORS_RELEASE, 1, 5) && quiet());
    ck_assert_uint_eq(actors_count(actors), 0);
    ck_assert_uint_eq(actors_deadline(actors), UINT64_MAX);
}
END_TEST

START_TEST(a_process_that_died_comes_back_on_its_node_without_a_call)
{
    bring_up(1, NULL, 2);
    now_ns += 5 * (uint64_t)SECOND;
    actors_exited(actors, 1, 1, false, "killed by signal 11", now_ns);
    ck_assert(acts(ACTORS_START, 1, 5) && action.incarnation == 2);
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_RESTARTING);
    ck_assert_str_eq(action.line.story, "killed by signal 11");
    ck_assert_int_eq(action.line.restarts_left, 1);
    actors_exited(actors, 1, 1, false, "said again", now_ns); /* late: ignored */
    actors_started(actors, 1, 1, 9, now_ns);
    ck_assert(quiet());
    actors_started(actors, 1, 2, 43, now_ns);
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.slot == 43 && quiet());
    now_ns += 5 * (uint64_t)SECOND;
    actors_exited(actors, 1, 2, false, "again", now_ns);
    ck_assert(acts(ACTORS_START, 1, 5) && acts(ACTORS_TELL, 1, 0) && quiet());
    actors_exited(actors, 1, 3, false, "and again", now_ns);
    ck_assert(acts(ACTORS_RELEASE, 1, 5));
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_DEAD);
    ck_assert(action.line.code == MORAY_ACTOR_DIED && quiet());
    ck_assert_str_eq(action.line.story, "and again");
}
END_TEST

START_TEST(a_clean_exit_is_never_restarted)
{
    bring_up(1, "n", ACTORS_ENDLESS);
    actors_exited(actors, 1, 1, true, "it called exit", now_ns);
    ck_assert(acts(ACTORS_RELEASE, 1, 5) && acts(ACTORS_TELL, 1, 0));
    ck_assert(action.line.state == ACTORS_DEAD && quiet());
    ck_assert_int_eq(create(2, "n", 0, false), MORAY_OK); /* the name is free */
}
END_TEST

START_TEST(a_constructor_that_fails_is_the_cause_of_death)
{
    ck_assert_int_eq(create(1, NULL, 3, false), MORAY_OK);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX) && actors_placed(actors, 1, 5, now_ns));
    ck_assert(acts(ACTORS_START, 1, 5));
    actors_failed(actors, 1, 1, MORAY_FAILED, "no such file");
    ck_assert(acts(ACTORS_RELEASE, 1, 5) && acts(ACTORS_TELL, 1, 0));
    ck_assert(action.line.state == ACTORS_DEAD && action.line.code == MORAY_FAILED);
    ck_assert_str_eq(action.line.story, "no such file");
    ck_assert_int_eq(hold(1, 4, 1, true), MORAY_OK); /* a late holder is told as well */
    ck_assert(acts(ACTORS_TELL, 1, 4) && action.line.code == MORAY_FAILED && quiet());
    ck_assert_int_eq(hold(1, 4, 1, false), MORAY_OK);
    ck_assert_int_eq(hold(1, 0, 100, false), MORAY_OK);
    ck_assert(quiet());
    ck_assert_uint_eq(actors_count(actors), 0);
}
END_TEST

START_TEST(a_death_right_after_the_start_waits_longer_each_time)
{
    uint64_t expected[] = {0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000};

    bring_up(1, NULL, ACTORS_ENDLESS);
    for (uint32_t i = 0; i < 10; i++) {
        actors_exited(actors, 1, i + 1, false, "crash", now_ns);
        if (expected[i] > 0) {
            ck_assert_uint_eq(actors_deadline(actors), now_ns + expected[i] * 1000000);
            ck_assert(acts(ACTORS_TELL, 1, 0) && quiet());
            now_ns = actors_deadline(actors);
            actors_tick(actors, now_ns);
            ck_assert(acts(ACTORS_START, 1, 5) && quiet());
        } else {
            ck_assert(acts(ACTORS_START, 1, 5) && acts(ACTORS_TELL, 1, 0) && quiet());
        }
    }
    actors_started(actors, 1, 11, 1, now_ns);
    ck_assert(acts(ACTORS_TELL, 1, 0) && quiet());
    now_ns += 2 * (uint64_t)SECOND; /* this one lived */
    actors_exited(actors, 1, 11, false, "crash", now_ns);
    ck_assert(acts(ACTORS_START, 1, 5) && acts(ACTORS_TELL, 1, 0) && quiet());
}
END_TEST

START_TEST(kill_is_final_unless_a_restart_is_allowed)
{
    bring_up(1, "n", 1);
    ck_assert(actors_kill(actors, 1, true, "killed by rank 3"));
    ck_assert(acts(ACTORS_STOP, 1, 5) && action.incarnation == 1 && quiet());
    now_ns += 2 * (uint64_t)SECOND;
    actors_exited(actors, 1, 1, false, "killed by signal 9", now_ns);
    ck_assert(acts(ACTORS_START, 1, 5) && acts(ACTORS_TELL, 1, 0) && quiet());
    ck_assert(actors_kill(actors, 1, false, "killed by rank 3"));
    ck_assert(!actors_kill(actors, 1, false, "again"));
    ck_assert(acts(ACTORS_STOP, 1, 5) && action.incarnation == 2);
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_DEAD && quiet());
    ck_assert_str_eq(action.line.story, "killed by rank 3");
    actors_started(actors, 1, 2, 8, now_ns); /* crossed the STOP on the wire */
    ck_assert(quiet() && state(1) == ACTORS_DEAD);
    actors_exited(actors, 1, 2, false, "killed by signal 9", now_ns);
    ck_assert(acts(ACTORS_RELEASE, 1, 5) && quiet());
    ck_assert(!actors_kill(actors, 99, false, ""));
}
END_TEST

START_TEST(one_killed_before_it_was_placed_never_starts)
{
    ck_assert_int_eq(create(1, NULL, 3, false), MORAY_OK);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX));
    ck_assert(actors_kill(actors, 1, false, "killed"));
    ck_assert(!actors_placed(actors, 1, 5, now_ns)); /* the caller gives the place back */
    ck_assert(acts(ACTORS_TELL, 1, 0) && quiet());
    ck_assert_int_eq(create(2, NULL, 3, false), MORAY_OK);
    ck_assert(acts(ACTORS_CHOOSE, 2, UINT32_MAX) && actors_placed(actors, 2, 5, now_ns));
    ck_assert(actors_kill(actors, 2, false, "killed")); /* START was not taken yet */
    ck_assert(acts(ACTORS_RELEASE, 2, 5) && acts(ACTORS_TELL, 2, 0) && quiet());
}
END_TEST

START_TEST(a_name_has_one_actor_in_a_namespace)
{
    struct actors_spec other = {.id = 9, .space = "other", .name = "n"};
    struct actors_spec wrong = {
        .id = 8, .creator = 4, .epoch = 1, .name = "n", .function = 78, .or_get = true};
    uint64_t id;

    ck_assert_int_eq(actors_find(actors, NULL, "n", 77, 4, 1, &id, &error), MORAY_NOT_FOUND);
    bring_up(1, "n", 0);
    ck_assert_int_eq(create(2, "n", 0, false), MORAY_EXISTS);
    ck_assert_int_eq(create(2, "n", 0, true), MORAY_OK); /* get or create: one winner */
    ck_assert_uint_eq(made, 1);
    ck_assert_int_eq(actors_find(actors, NULL, "n", 78, 4, 1, &id, &error), MORAY_WRONG_TYPE);
    ck_assert_int_eq(actors_create(actors, &wrong, now_ns, &made, &error), MORAY_WRONG_TYPE);
    ck_assert(quiet()); /* rank 4 holds nothing by that */
    ck_assert_int_eq(actors_create(actors, &other, now_ns, &made, &error), MORAY_OK);
    ck_assert_int_eq(actors_find(actors, NULL, "n", 77, 4, 1, &id, &error), MORAY_OK);
    ck_assert_uint_eq(id, 1);
    ck_assert(acts(ACTORS_CHOOSE, 9, UINT32_MAX));
    ck_assert(acts(ACTORS_TELL, 1, 4)); /* it begins to hold; rank 0 knows already */
    ck_assert_int_eq(hold(1, 0, 1000, false), MORAY_OK);
    ck_assert(quiet() && state(1) == ACTORS_ALIVE);
    ck_assert_int_eq(hold(1, 4, 1, false), MORAY_OK);
    ck_assert(acts(ACTORS_FINISH, 1, 5)); /* nobody can reach it: the name is free */
    ck_assert_int_eq(actors_find(actors, NULL, "n", 77, 4, 2, &id, &error), MORAY_NOT_FOUND);
    ck_assert_int_eq(create(3, "n", 0, true), MORAY_OK);
    ck_assert_uint_eq(made, 3);
}
END_TEST

/* In the order in which they came, and from the last to the first; the CPU's time of each. */
START_TEST(many_that_wait_for_room_may_go_in_any_order)
{
    enum { COUNT = 20000 };
    uint64_t took_ns[2];

    actors_destroy_table(actors);
    ck_assert_int_eq(actors_create_table(&(struct actors_options){.rank_count = 8}, &actors, NULL),
                     MORAY_OK);
    for (int turn = 0; turn < 2; turn++) {
        int made_count = 0, waits = 0, killed = 0;
        for (uint64_t id = 1; id <= COUNT; id++)
            made_count += create(id, NULL, 0, false) == MORAY_OK;
        for (; actors_next(actors, &action); waits++)
            actors_unplaced(actors, action.id, MORAY_BUSY, "", now_ns);
        uint64_t from_ns = law_cpu_ns();
        for (uint64_t id = 1; id <= COUNT; id++)
            killed += actors_kill(actors, turn ? COUNT + 1 - id : id, false, "killed");
        took_ns[turn] = law_cpu_ns() - from_ns;
        ck_assert(made_count == COUNT && waits == COUNT && killed == COUNT);
        for (uint64_t id = 1; id <= COUNT; id++)
            ck_assert_int_eq(hold(id, 0, now_ns + 1, false), MORAY_OK);
        while (actors_next(actors, &action))
            ;
        ck_assert_uint_eq(actors_count(actors), 0);
    }
    ck_assert_msg(took_ns[1] < 10 * took_ns[0] + 10000000, "the oldest first %llu us, last %llu",
                  (unsigned long long)took_ns[0] / 1000, (unsigned long long)took_ns[1] / 1000);
}
END_TEST

START_TEST(no_room_waits_and_no_hope_is_death)
{
    for (uint64_t id = 1; id <= 3; id++) {
        ck_assert_int_eq(create(id, NULL, 0, false), MORAY_OK);
        ck_assert(acts(ACTORS_CHOOSE, id, UINT32_MAX));
        actors_unplaced(actors, id, MORAY_BUSY, "full", now_ns);
    }
    ck_assert(quiet());
    ck_assert(actors_kill(actors, 1, false, "killed") && acts(ACTORS_TELL, 1, 0));
    ck_assert_uint_eq(actors_room(actors, 1), 1);
    ck_assert(acts(ACTORS_CHOOSE, 2, UINT32_MAX) && quiet()); /* the oldest first */
    ck_assert(actors_placed(actors, 2, 5, now_ns) && acts(ACTORS_START, 2, 5));
    actors_refused(actors, 2, 1); /* the node found no room after all */
    ck_assert(acts(ACTORS_RELEASE, 2, 5) && acts(ACTORS_CHOOSE, 2, UINT32_MAX));
    ck_assert(actors_placed(actors, 2, 6, now_ns) && acts(ACTORS_START, 2, 6));
    ck_assert_uint_eq(actors_room(actors, 9), 0);
    ck_assert(acts(ACTORS_CHOOSE, 3, UINT32_MAX));
    actors_unplaced(actors, 3, MORAY_INVALID, "no node has 99 cores", now_ns);
    ck_assert(acts(ACTORS_TELL, 3, 0) && action.line.code == MORAY_INVALID && quiet());
}
END_TEST

START_TEST(a_wait_for_room_that_may_never_come_has_an_end)
{
    for (uint64_t id = 1; id <= 2; id++) {
        ck_assert_int_eq(create(id, NULL, 0, false), MORAY_OK);
        ck_assert(acts(ACTORS_CHOOSE, id, UINT32_MAX));
        actors_unplaced(actors, id, MORAY_BUSY, id == 1 ? "no process" : "", now_ns);
    }
    ck_assert(quiet());
    ck_assert_uint_eq(actors_deadline(actors), (uint64_t)SECOND + 1); /* from the first on */
    for (int second = 1; second < 10; second++) { /* all ask again, the oldest first */
        now_ns += (uint64_t)SECOND;
        actors_tick(actors, now_ns);
        ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX) && acts(ACTORS_CHOOSE, 2, UINT32_MAX));
        actors_unplaced(actors, 1, MORAY_BUSY, "no process", now_ns);
        actors_unplaced(actors, 2, MORAY_BUSY, "", now_ns);
        ck_assert(quiet());
    }
    ck_assert_uint_eq(actors_room(actors, 1), 1);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX));
    ck_assert(actors_placed(actors, 1, 5, now_ns) && acts(ACTORS_START, 1, 5));
    now_ns += (uint64_t)SECOND;
    actors_tick(actors, now_ns); /* its time is over, but it waits no more */
    ck_assert(acts(ACTORS_CHOOSE, 2, UINT32_MAX) && quiet());
    actors_unplaced(actors, 2, MORAY_BUSY, "", now_ns);
    actors_refused(actors, 1, 1);
    ck_assert(acts(ACTORS_RELEASE, 1, 5) && acts(ACTORS_CHOOSE, 1, UINT32_MAX));
    actors_unplaced(actors, 1, MORAY_BUSY, "no process", now_ns);
    actors_tick(actors, now_ns);
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_DEAD);
    ck_assert(action.line.code == MORAY_BUSY && strcmp(action.line.story, "no process") == 0);
    now_ns += 20 * (uint64_t)SECOND;
    actors_tick(actors, now_ns); /* a wait for what others hold has none */
    ck_assert(acts(ACTORS_CHOOSE, 2, UINT32_MAX) && quiet());
    actors_unplaced(actors, 2, MORAY_BUSY, "", now_ns);
    actors_tick(actors, now_ns);
    ck_assert(quiet() && state(2) == ACTORS_PENDING);
}
END_TEST

START_TEST(a_lost_node_sends_its_actors_elsewhere)
{
    bring_up(1, NULL, 1);
    bring_up(2, NULL, 0);
    ck_assert_int_eq(hold(2, 5, 3, true), MORAY_OK); /* the lost rank holds one, too */
    ck_assert(acts(ACTORS_TELL, 2, 5) && quiet());
    actors_rank_lost(actors, 5, now_ns);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX));
    ck_assert(acts(ACTORS_TELL, 1, 0) && action.line.state == ACTORS_RESTARTING);
    ck_assert(acts(ACTORS_TELL, 2, 0) && action.line.state == ACTORS_DEAD && quiet());
    ck_assert(actors_placed(actors, 1, 6, now_ns));
    ck_assert(acts(ACTORS_START, 1, 6) && action.incarnation == 2 && quiet());
    ck_assert_int_eq(hold(2, 5, 4, true), MORAY_STALE); /* the dead hold nothing */
    ck_assert_int_eq(hold(2, 0, 100, false), MORAY_OK);
    ck_assert(quiet());
    ck_assert_uint_eq(actors_count(actors), 1);
}
END_TEST

START_TEST(one_that_never_came_to_life_is_not_charged_for_a_lost_node)
{
    ck_assert_int_eq(create(1, NULL, 0, false), MORAY_OK);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX) && actors_placed(actors, 1, 5, now_ns));
    ck_assert(acts(ACTORS_START, 1, 5) && quiet());
    actors_rank_lost(actors, 5, now_ns);
    ck_assert(acts(ACTORS_CHOOSE, 1, UINT32_MAX) && quiet());
    ck_assert_int_eq(state(1), ACTORS_PENDING);
}
END_TEST

START_TEST(a_late_word_frees_nothing_and_revives_nothing)
{
    bring_up(1, NULL, 0);
    ck_assert_int_eq(hold(1, 3, 5, false), MORAY_OK); /* the end overtook the beginning */
    ck_assert_int_eq(hold(1, 3, 5, true), MORAY_OK);
    ck_assert(quiet());
    struct actors_line line;
    ck_assert(actors_get(actors, 1, &line) && line.holder_count == 1);
    ck_assert_int_eq(hold(1, 3, 7, true), MORAY_OK);
    ck_assert_int_eq(hold(1, 3, 6, false), MORAY_OK); /* of an older span */
    ck_assert_int_eq(hold(1, 0, 1, false), MORAY_OK);
    ck_assert(acts(ACTORS_TELL, 1, 3) && quiet() && state(1) == ACTORS_ALIVE);
}
END_TEST

START_TEST(mistakes_are_refused_by_name)
{
    char large[300] = "";

    memset(large, 'x', 299);
    ck_assert_int_eq(create(0, NULL, 0, false), MORAY_INVALID);
    ck_assert_int_eq(create(1, large, 0, false), MORAY_INVALID);
    ck_assert_int_eq(create(1, "", 0, false), MORAY_INVALID);
    ck_assert_int_eq(create(1, NULL, -2, false), MORAY_INVALID);
    enum moray_code code = MORAY_OK;
    for (uint64_t id = 1; code == MORAY_OK && id < 200; id++)
        code = create(id, NULL, 0, false);
    ck_assert_int_eq(code, MORAY_BUSY);
    ck_assert_ptr_nonnull(strstr(error.text, "actor_max"));
    ck_assert_int_eq(create(1, NULL, 0, false), MORAY_EXISTS);
}
END_TEST

/* Nodes and holders that do all they may, in any order. At the end all let go, nodes answer, and
 * nothing is left. A STOP, RELEASE or START that nobody expects breaks a law. */
START_TEST(in_any_history_each_actor_ends_and_nothing_is_left)
{
    enum { IDS = 12, RANKS = 4 };
    struct {
        bool process; /* as its node sees it */
        bool counted; /* at the scheduler */
        uint32_t node, incarnation;
        bool choosing, finishing, stopping;
    } seen[IDS + 1] = {{0}};
    bool held[IDS + 1][RANKS] = {{false}};
    uint64_t epoch = 0, seed = (uint64_t)_i + 1;
    uint32_t lost = 0; /* ranks below are lost; rank 0 never */
    char name[2] = "a";

    for (int event = 0; event < 6000; event++) {
        bool ending = event > 4000;
        uint64_t id = 1 + law_random(&seed, IDS);
        uint32_t rank = law_random(&seed, RANKS), dice = law_random(&seed, 16);
        now_ns += law_random(&seed, 300) * 1000000ull;
        actors_tick(actors, now_ns);
        name[0] = (char)('a' + law_random(&seed, 3));
        struct actors_spec spec = {.id = id,
                                   .creator = rank,
                                   .epoch = ++epoch,
                                   .restarts = (int32_t)law_random(&seed, 4) - 1,
                                   .name = dice < 2 ? name : NULL};
        switch (dice) {
        case 0:
        case 1:
        case 2: /* make it, if the id is not in use */
            if (ending || state(id) != ACTORS_DEAD || (rank && rank <= lost))
                break;
            if (actors_create(actors, &spec, now_ns, &made, &error) == MORAY_OK) {
                memset(held[id], 0, sizeof(held[id]));
                held[id][rank] = true;
            }
            break;
        case 3:
        case 4: /* hold or let go */
            if (ending || held[id][rank]) {
                if (hold(id, rank, ++epoch, false) == MORAY_OK)
                    held[id][rank] = false;
            } else if (hold(id, rank, ++epoch, true) == MORAY_OK) {
                held[id][rank] = true;
            }
            break;
        case 5:
            actors_kill(actors, id, law_random(&seed, 2), "kill");
            break;
        case 6:
            if (law_random(&seed, 200) == 0 && lost < RANKS - 2) {
                lost++;
                actors_rank_lost(actors, lost, now_ns);
                for (uint64_t i = 1; i <= IDS; i++)
                    if (seen[i].counted && seen[i].node == lost)
                        seen[i].process = seen[i].counted = false;
            }
            break;
        case 7:
        case 8:
            if (seen[id].choosing) {
                seen[id].choosing = false;
                rank = rank && rank <= lost ? 0 : rank;
                if (law_random(&seed, 4) == 0) {
                    actors_unplaced(actors, id, MORAY_BUSY, "full", now_ns);
                } else if (actors_placed(actors, id, rank, now_ns)) {
                    LAW(!seen[id].counted, _i, event);
                    seen[id].counted = true;
                    seen[id].node = rank;
                }
            }
            break;
        case 9:
            actors_room(actors, 1);
            break;
        case 10:
            actors_started(actors, id, seen[id].incarnation, 1, now_ns);
            break;
        default: /* a final word */
            if (!seen[id].process || !(ending || seen[id].stopping || law_random(&seed, 8) == 0))
                break;
            seen[id].process = seen[id].stopping = false;
            if (dice == 11)
                actors_refused(actors, id, seen[id].incarnation);
            else if (dice == 12)
                actors_failed(actors, id, seen[id].incarnation, MORAY_FAILED, "constructor");
            else
                actors_exited(actors, id, seen[id].incarnation, dice == 13, "exit", now_ns);
        }
        while (actors_next(actors, &action)) {
            uint64_t of = action.id;
            switch (action.kind) {
            case ACTORS_CHOOSE:
                LAW(!seen[of].counted && !seen[of].process, _i, event);
                seen[of].choosing = true;
                break;
            case ACTORS_START:
                LAW(seen[of].counted && seen[of].node == action.rank && !seen[of].process, _i,
                    event);
                seen[of].process = true;
                seen[of].incarnation = action.incarnation;
                break;
            case ACTORS_STOP:
            case ACTORS_FINISH:
                LAW(seen[of].process && seen[of].incarnation == action.incarnation, _i, event);
                seen[of].stopping = true;
                break;
            case ACTORS_RELEASE:
                LAW(seen[of].counted && seen[of].node == action.rank && !seen[of].process, _i,
                    event);
                seen[of].counted = false;
                break;
            case ACTORS_TELL:
                LAW(action.rank == 0 || action.rank > lost, _i, event);
            }
        }
    }
    for (uint64_t id = 1; id <= IDS; id++)
        for (uint32_t rank = 0; rank < RANKS; rank++)
            (void)!hold(id, rank, ++epoch, false);
    while (actors_next(actors, &action))
        ;
    actors_tick(actors, now_ns + 100 * (uint64_t)SECOND);
    for (uint64_t id = 1; id <= IDS; id++)
        if (seen[id].process)
            actors_exited(actors, id, seen[id].incarnation, false, "end", now_ns);
    while (actors_next(actors, &action))
        ;
    for (uint64_t id = 1; id <= IDS; id++)
        ck_assert_msg(state(id) == ACTORS_DEAD, "seed %d: actor %d is left, in state %d", _i,
                      (int)id, (int)state(id));
    ck_assert_uint_eq(actors_count(actors), 0);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    struct actors_spec spec = {.id = 1, .name = "n", .start = "x", .start_bytes = 1};

    for (fault_first(); fault_again(); fault_next()) {
        struct actors *own;
        uint64_t id;
        enum moray_code code =
            FAULTY(actors_create_table(&(struct actors_options){.rank_count = 8}, &own, &error));
        if (code == MORAY_OK) {
            code = FAULTY(actors_create(own, &spec, 1, &id, &error));
            ck_assert_uint_eq(actors_count(own), code == MORAY_OK);
            for (uint32_t rank = 1; code == MORAY_OK && rank < 6; rank++)
                code = FAULTY(actors_hold(own, 1, rank, 1, true, 1, &error));
            FAULTY((actors_destroy_table(own), 0));
        }
        ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, an_actor_comes_to_life_and_ends_with_its_last_handle);
    tcase_add_test(laws, one_that_does_not_finish_in_time_is_stopped);
    tcase_add_test(laws, the_time_to_finish_counts_from_when_the_last_handle_went);
    tcase_add_test(laws, a_process_that_died_comes_back_on_its_node_without_a_call);
    tcase_add_test(laws, a_clean_exit_is_never_restarted);
    tcase_add_test(laws, a_constructor_that_fails_is_the_cause_of_death);
    tcase_add_test(laws, a_death_right_after_the_start_waits_longer_each_time);
    tcase_add_test(laws, kill_is_final_unless_a_restart_is_allowed);
    tcase_add_test(laws, one_killed_before_it_was_placed_never_starts);
    tcase_add_test(laws, a_name_has_one_actor_in_a_namespace);
    tcase_add_test(laws, many_that_wait_for_room_may_go_in_any_order);
    tcase_add_test(laws, no_room_waits_and_no_hope_is_death);
    tcase_add_test(laws, a_wait_for_room_that_may_never_come_has_an_end);
    tcase_add_test(laws, a_lost_node_sends_its_actors_elsewhere);
    tcase_add_test(laws, one_that_never_came_to_life_is_not_charged_for_a_lost_node);
    tcase_add_test(laws, a_late_word_frees_nothing_and_revives_nothing);
    tcase_add_test(laws, mistakes_are_refused_by_name);
    tcase_add_loop_test(laws, in_any_history_each_actor_ends_and_nothing_is_left, 0, 60);
    tcase_add_test(laws, a_failed_allocation_changes_nothing);
    return law_run("gcs/actors", laws);
}
