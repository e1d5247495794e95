#include <string.h>

#include "gcs/nodes.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { RANKS = 5 };

static struct nodes *nodes;
static struct moray_error error;

static enum moray_code join(uint32_t rank, uint64_t share_key, uint64_t now_ns)
{
    struct nodes_line line = {.rank = rank,
                              .host_name = "host",
                              .runs_tasks = rank != 0,
                              .worker_count = 2,
                              .have = {2 * RESOURCES_CORE, 100},
                              .store_bytes = 1000};

    return nodes_join(nodes, &line, share_key, now_ns, &error);
}

static void setup(void)
{
    ck_assert_int_eq(nodes_create(RANKS, &nodes, NULL), MORAY_OK);
}

static void teardown(void)
{
    nodes_destroy(nodes);
}

START_TEST(a_rank_joins_once_and_is_lost_for_ever)
{
    ck_assert_int_eq(nodes_get(nodes, 1)->state, NODES_ABSENT);
    ck_assert_int_eq(join(1, 0, 10), MORAY_OK);
    ck_assert_int_eq(join(1, 0, 11), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "rank 1"));
    ck_assert(nodes_lose(nodes, 1) && !nodes_lose(nodes, 1));
    ck_assert_int_eq(join(1, 0, 12), MORAY_INVALID);
    ck_assert_int_eq(join(RANKS, 0, 12), MORAY_INVALID);
    ck_assert_ptr_null(nodes_get(nodes, RANKS));
    ck_assert_str_eq(nodes_get(nodes, 1)->host_name, "host");
}
END_TEST

START_TEST(a_report_has_an_age)
{
    struct load load = {.queued_count = 7};

    ck_assert(!nodes_report(nodes, 1, &load, 0, 5));
    ck_assert_int_eq(join(1, 0, 10), MORAY_OK);
    ck_assert_uint_eq(nodes_age_ns(nodes, 1, 15), 5);
    ck_assert(nodes_report(nodes, 1, &load, 500, 20));
    ck_assert_uint_eq(nodes_age_ns(nodes, 1, 21), 1);
    ck_assert_uint_eq(nodes_get(nodes, 1)->load.queued_count, 7);
    ck_assert_uint_eq(nodes_get(nodes, 1)->store_used_bytes, 500);
    nodes_lose(nodes, 1);
    ck_assert(!nodes_report(nodes, 1, &load, 0, 30) && !nodes_report(nodes, 99, &load, 0, 30));
}
END_TEST

START_TEST(ranks_that_share_memory_have_one_host_number)
{
    ck_assert_int_eq(join(0, 77, 1), MORAY_OK);
    ck_assert_int_eq(join(1, 0, 1), MORAY_OK);
    ck_assert_int_eq(join(2, 77, 1), MORAY_OK);
    ck_assert_int_eq(join(3, 0, 1), MORAY_OK);
    ck_assert_uint_eq(nodes_get(nodes, 0)->host, 0);
    ck_assert_uint_eq(nodes_get(nodes, 2)->host, 0);
    ck_assert_uint_eq(nodes_get(nodes, 1)->host, 1); /* the same host name does not suffice */
    ck_assert_uint_eq(nodes_get(nodes, 3)->host, 3);
}
END_TEST

START_TEST(the_total_is_what_living_nodes_offer)
{
    for (uint32_t rank = 0; rank < RANKS; rank++)
        ck_assert_int_eq(join(rank, 0, 1), MORAY_OK);
    ck_assert_uint_eq(nodes_total(nodes).core_parts, 8 * RESOURCES_CORE); /* not the head's */
    nodes_lose(nodes, 4);
    nodes_lose(nodes, 0);
    ck_assert_uint_eq(nodes_total(nodes).core_parts, 6 * RESOURCES_CORE);
    ck_assert_uint_eq(nodes_total(nodes).memory_bytes, 300);
}
END_TEST

START_TEST(a_reader_gets_what_changed_since_its_version)
{
    const struct nodes_line *lines[2];
    uint32_t cursor = 0;

    for (uint32_t rank = 0; rank < RANKS; rank++)
        ck_assert_int_eq(join(rank, 0, 1), MORAY_OK);
    uint64_t seen = nodes_version(nodes);
    ck_assert_uint_eq(nodes_changed(nodes, seen, &cursor, lines, 2), 0);
    nodes_lose(nodes, 3);
    nodes_report(nodes, 1, &(struct load){0}, 0, 2);
    nodes_report(nodes, 4, &(struct load){0}, 0, 2);
    cursor = 0;
    ck_assert_uint_eq(nodes_changed(nodes, seen, &cursor, lines, 2), 2);
    ck_assert(lines[0]->rank == 1 && lines[1]->rank == 3);
    ck_assert_uint_eq(nodes_changed(nodes, seen, &cursor, lines, 2), 1);
    ck_assert(lines[0]->rank == 4 && nodes_changed(nodes, seen, &cursor, lines, 2) == 0);
}
END_TEST

START_TEST(any_history_keeps_the_counts)
{
    uint64_t seed = (uint64_t)_i + 1;

    for (int event = 0; event < 200; event++) {
        uint32_t rank = law_random(&seed, RANKS + 1), sum = 0, cores = 0;
        switch (law_random(&seed, 8)) {
        case 0:
            nodes_lose(nodes, rank);
            break;
        case 1:
        case 2:
            nodes_report(nodes, rank, &(struct load){0}, 0, 10);
            break;
        default:
            ck_assert(join(rank, law_random(&seed, 3), 1) != MORAY_NO_MEMORY);
        }
        for (int state = NODES_ABSENT; state <= NODES_LOST; state++)
            sum += nodes_count(nodes, state);
        for (uint32_t other = 1; other < RANKS; other++)
            cores += nodes_get(nodes, other)->state == NODES_ALIVE ? 2 : 0;
        LAW(sum == RANKS, _i, event);
        LAW(nodes_total(nodes).core_parts == cores * (uint64_t)RESOURCES_CORE, _i, event);
    }
}
END_TEST

START_TEST(a_failed_allocation_is_said)
{
    for (fault_first(); fault_again(); fault_next()) {
        struct nodes *own;
        enum moray_code code = FAULTY(nodes_create(3, &own, NULL));
        ck_assert((code == MORAY_OK) == (own != NULL));
        nodes_destroy(own);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_rank_joins_once_and_is_lost_for_ever);
    tcase_add_test(laws, a_report_has_an_age);
    tcase_add_test(laws, ranks_that_share_memory_have_one_host_number);
    tcase_add_test(laws, the_total_is_what_living_nodes_offer);
    tcase_add_test(laws, a_reader_gets_what_changed_since_its_version);
    tcase_add_loop_test(laws, any_history_keeps_the_counts, 0, 50);
    tcase_add_test(laws, a_failed_allocation_is_said);
    return law_run("gcs/nodes", laws);
}
