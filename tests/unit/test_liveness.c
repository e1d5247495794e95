#include "gcs/liveness.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { RANKS = 4, DOUBT_NS = 500, GIVE_UP_NS = 2000 };

static struct liveness *liveness;
static struct liveness_action actions[RANKS];

static void setup(void)
{
    ck_assert_int_eq(liveness_create(&(struct liveness_options){RANKS, DOUBT_NS, GIVE_UP_NS}, 0,
                                     &liveness, NULL),
                     MORAY_OK);
}

static void teardown(void)
{
    liveness_destroy(liveness);
}

/* Time goes on in steps that no one takes for a pause. */
static size_t tick_until(uint64_t from_ns, uint64_t to_ns)
{
    size_t count = 0;

    for (uint64_t ns = from_ns; ns <= to_ns; ns += 100)
        count += liveness_tick(liveness, ns, actions);
    return count;
}

START_TEST(a_quiet_rank_is_doubted_then_given_up)
{
    for (uint64_t ns = 100; ns < DOUBT_NS; ns += 100) {
        ck_assert_uint_eq(liveness_tick(liveness, ns, actions), 0);
        liveness_heard(liveness, 0, ns, actions);
    }
    ck_assert_uint_eq(liveness_tick(liveness, DOUBT_NS, actions), RANKS - 1);
    ck_assert(actions[0].rank == 1 && actions[0].state == LIVENESS_DOUBTED);
    ck_assert_int_eq(liveness_state(liveness, 0), LIVENESS_PRESENT);
    tick_until(600, GIVE_UP_NS - 100);
    ck_assert_int_eq(liveness_state(liveness, 1), LIVENESS_DOUBTED);
    ck_assert_uint_eq(liveness_tick(liveness, GIVE_UP_NS, actions), RANKS - 1);
    ck_assert_int_eq(liveness_state(liveness, 1), LIVENESS_GONE);
}
END_TEST

START_TEST(a_sign_takes_the_doubt_away)
{
    tick_until(100, DOUBT_NS);
    ck_assert_uint_eq(liveness_heard(liveness, 2, DOUBT_NS + 1, actions), 1);
    ck_assert(actions[0].rank == 2 && actions[0].state == LIVENESS_PRESENT);
    ck_assert_uint_eq(liveness_heard(liveness, 2, DOUBT_NS + 2, actions), 0);
}
END_TEST

START_TEST(a_cut_link_is_final)
{
    ck_assert_uint_eq(liveness_cut(liveness, 3, 10, actions), 1);
    ck_assert_int_eq(actions[0].state, LIVENESS_GONE);
    ck_assert_uint_eq(liveness_cut(liveness, 3, 11, actions), 0);
    ck_assert_uint_eq(liveness_heard(liveness, 3, 12, actions), 0);
    ck_assert_int_eq(liveness_state(liveness, 3), LIVENESS_GONE);
}
END_TEST

START_TEST(a_listener_that_slept_blames_nobody)
{
    ck_assert_uint_eq(liveness_tick(liveness, 10 * GIVE_UP_NS, actions), 0);
    for (uint32_t rank = 0; rank < RANKS; rank++)
        ck_assert_int_eq(liveness_state(liveness, rank), LIVENESS_PRESENT);
    ck_assert_uint_eq(tick_until(10 * GIVE_UP_NS + 100, 10 * GIVE_UP_NS + DOUBT_NS), RANKS);
}
END_TEST

START_TEST(who_awakes_and_hears_one_sign_first_blames_nobody_either)
{
    uint64_t awake_ns = 10 * GIVE_UP_NS;

    ck_assert_uint_eq(liveness_heard(liveness, 2, awake_ns, actions), 0);
    ck_assert_uint_eq(liveness_tick(liveness, awake_ns + 1, actions), 0);
    ck_assert_int_eq(liveness_state(liveness, 1), LIVENESS_PRESENT);
    ck_assert_uint_eq(tick_until(awake_ns + 100, awake_ns + DOUBT_NS + 100), RANKS);
}
END_TEST

START_TEST(ranks_out_of_range_and_bad_options_are_refused)
{
    struct liveness *other;
    struct moray_error error;

    ck_assert_uint_eq(liveness_heard(liveness, RANKS, 1, actions), 0);
    ck_assert_uint_eq(liveness_cut(liveness, UINT32_MAX, 1, actions), 0);
    ck_assert_int_eq(liveness_create(&(struct liveness_options){0, 1, 2}, 0, &other, &error),
                     MORAY_INVALID);
    ck_assert_int_eq(liveness_create(&(struct liveness_options){1, 2, 2}, 0, &other, &error),
                     MORAY_INVALID);
    ck_assert_ptr_null(other);
}
END_TEST

START_TEST(whatever_happens_a_loss_is_told_once_and_last)
{
    uint64_t seed = (uint64_t)_i + 1, now_ns = 0;
    bool gone[RANKS] = {false};
    enum liveness_state told[RANKS] = {LIVENESS_PRESENT};

    for (int event = 0; event < 500; event++) {
        uint32_t rank = law_random(&seed, RANKS), kind = law_random(&seed, 20);
        now_ns += law_random(&seed, 300);
        size_t count = kind == 0   ? liveness_cut(liveness, rank, now_ns, actions)
                       : kind < 10 ? liveness_heard(liveness, rank, now_ns, actions)
                                   : liveness_tick(liveness, now_ns, actions);
        for (size_t i = 0; i < count; i++) {
            LAW(!gone[actions[i].rank], _i, event);
            LAW(told[actions[i].rank] != actions[i].state, _i, event);
            told[actions[i].rank] = actions[i].state;
            gone[actions[i].rank] = actions[i].state == LIVENESS_GONE;
        }
        for (uint32_t other = 0; other < RANKS; other++)
            LAW(liveness_state(liveness, other) == told[other], _i, event);
    }
}
END_TEST

START_TEST(a_failed_allocation_is_said)
{
    for (fault_first(); fault_again(); fault_next()) {
        struct liveness *own;
        enum moray_code code =
            FAULTY(liveness_create(&(struct liveness_options){9, 1, 2}, 0, &own, NULL));
        ck_assert((code == MORAY_OK) == (own != NULL));
        ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
        liveness_destroy(own);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_quiet_rank_is_doubted_then_given_up);
    tcase_add_test(laws, a_sign_takes_the_doubt_away);
    tcase_add_test(laws, a_cut_link_is_final);
    tcase_add_test(laws, a_listener_that_slept_blames_nobody);
    tcase_add_test(laws, who_awakes_and_hears_one_sign_first_blames_nobody_either);
    tcase_add_test(laws, ranks_out_of_range_and_bad_options_are_refused);
    tcase_add_loop_test(laws, whatever_happens_a_loss_is_told_once_and_last, 0, 200);
    tcase_add_test(laws, a_failed_allocation_is_said);
    return law_run("gcs/liveness", laws);
}
