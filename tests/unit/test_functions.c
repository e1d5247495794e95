#include <string.h>

#include "gcs/functions.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

static const struct functions_entry entries[] = {
    {"add", "int64_t (int64_t, int64_t)", "main.c", 10, 16, 8, 0},
    {"norm2", "double (point)", "main.c", 20, 16, 8, 0},
    {"counter", "actor (int64_t)", "counter.c", 5, 0, 0, 8},
};
static const struct functions_table ours = {entries, 3};
static struct functions_entry changed[3];
static struct functions_table theirs = {changed, 3};
static struct functions *functions;
static struct moray_error error;

static void setup(void)
{
    memcpy(changed, entries, sizeof(changed));
    theirs.count = 3;
    ck_assert_int_eq(functions_create(&ours, 3, &functions, NULL), MORAY_OK);
}

static void teardown(void)
{
    functions_destroy(functions);
}

START_TEST(order_and_place_do_not_count)
{
    changed[0] = entries[2];
    changed[2] = entries[0];
    changed[1].file = "/elsewhere/main.c";
    changed[1].line = 21;
    ck_assert(functions_digest(&ours) == functions_digest(&theirs));
    ck_assert_int_eq(functions_compare(&ours, 0, &theirs, 1, &error), MORAY_OK);
}
END_TEST

START_TEST(name_types_and_sizes_count)
{
    for (int what = 0; what < 6; what++) {
        memcpy(changed, entries, sizeof(changed));
        struct functions_entry *entry = &changed[_i];
        switch (what) {
        case 0:
            entry->name = "other";
            break;
        case 1:
            entry->types = "void (void)";
            break;
        case 2:
            entry->argument_bytes++;
            break;
        case 3:
            entry->result_bytes++;
            break;
        case 4:
            entry->state_bytes++;
            break;
        default:
            changed[_i] = changed[2];
            theirs.count = 2;
            if (_i == 2)
                continue; /* the table without its last line: fewer functions */
        }
        ck_assert_msg(functions_digest(&ours) != functions_digest(&theirs), "%d", what);
        ck_assert_int_eq(functions_compare(&ours, 0, &theirs, 1, &error), MORAY_INVALID);
        theirs.count = 3;
    }
}
END_TEST

START_TEST(a_difference_names_both_places_and_ranks)
{
    changed[0].types = "double (double, double)";
    changed[0].file = "old.c";
    changed[0].line = 99;
    ck_assert_int_eq(functions_compare(&ours, 0, &theirs, 7, &error), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "add"));
    ck_assert_ptr_nonnull(strstr(error.text, "main.c:10"));
    ck_assert_ptr_nonnull(strstr(error.text, "old.c:99"));
    ck_assert_ptr_nonnull(strstr(error.text, "rank 0"));
    ck_assert_ptr_nonnull(strstr(error.text, "rank 7"));
    memcpy(changed, entries, sizeof(changed));
    theirs.count = 2;
    ck_assert_int_eq(functions_compare(&ours, 0, &theirs, 7, &error), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "counter.c:5"));
    ck_assert_ptr_nonnull(strstr(error.text, "not in that of rank 7"));
}
END_TEST

START_TEST(a_name_defined_twice_names_both_places)
{
    ck_assert_int_eq(functions_check(&ours, &error), MORAY_OK);
    changed[2].name = "add";
    ck_assert_int_eq(functions_check(&theirs, &error), MORAY_EXISTS);
    ck_assert_ptr_nonnull(strstr(error.text, "main.c:10"));
    ck_assert_ptr_nonnull(strstr(error.text, "counter.c:5"));
}
END_TEST

START_TEST(details_are_asked_for_only_where_the_digest_differs)
{
    uint64_t digest = functions_digest(&ours);

    ck_assert_int_eq(functions_heard(functions, 1, digest), FUNCTIONS_WAIT);
    ck_assert_int_eq(functions_heard(functions, 1, digest), FUNCTIONS_WAIT);
    ck_assert_int_eq(functions_heard(functions, 9, digest), FUNCTIONS_WAIT);
    ck_assert_int_eq(functions_heard(functions, 2, digest + 1), FUNCTIONS_ASK);
    ck_assert_int_eq(functions_table_came(functions, 2, &theirs, &error), MORAY_PROTOCOL);
    changed[1].result_bytes = 4;
    ck_assert_int_eq(functions_table_came(functions, 2, &theirs, &error), MORAY_INVALID);
    ck_assert_int_eq(functions_heard(functions, 2, digest), FUNCTIONS_SAME);
}
END_TEST

START_TEST(a_table_survives_the_wire)
{
    char wire[512];
    struct functions_table copy;
    size_t bytes = functions_encode(&ours, wire, sizeof(wire));

    ck_assert_uint_le(bytes, sizeof(wire));
    ck_assert_uint_eq(functions_encode(&ours, NULL, 0), bytes);
    ck_assert_int_eq(functions_decode(wire, bytes, &copy, &error), MORAY_OK);
    ck_assert_int_eq(functions_compare(&ours, 0, &copy, 1, &error), MORAY_OK);
    ck_assert(strcmp(copy.entries[2].file, "counter.c") == 0 && copy.entries[1].line == 20);
    free((void *)copy.entries);
    for (size_t cut = 0; cut < bytes; cut++)
        ck_assert_int_eq(functions_decode(wire, cut, &copy, &error), MORAY_PROTOCOL);
}
END_TEST

START_TEST(a_text_with_an_end_in_it_is_no_text)
{
    char wire[512], *name;
    size_t bytes = functions_encode(&ours, wire, sizeof(wire));
    struct functions_table copy;

    for (name = wire; memcmp(name, "norm2", 5) != 0; name++)
        ;
    name[2] = 0;
    ck_assert_int_eq(functions_decode(wire, bytes, &copy, &error), MORAY_PROTOCOL);
    ck_assert_ptr_null(copy.entries);
}
END_TEST

START_TEST(bad_bytes_are_no_table)
{
    char wire[512];
    size_t bytes = functions_encode(&ours, wire, sizeof(wire));
    uint64_t seed = (uint64_t)_i + 1;
    struct functions_table copy;

    for (int flips = 0; flips < 4; flips++)
        wire[law_random(&seed, (uint32_t)bytes)] = (char)law_random(&seed, 256);
    char *exact = malloc(bytes); /* so that a read past the end is seen */
    memcpy(exact, wire, bytes);
    if (functions_decode(exact, bytes, &copy, &error) == MORAY_OK) {
        functions_digest(&copy);
        free((void *)copy.entries);
    } else {
        ck_assert_ptr_null(copy.entries);
    }
    free(exact);
}
END_TEST

START_TEST(a_failed_allocation_is_said)
{
    char wire[512];
    size_t bytes = functions_encode(&ours, wire, sizeof(wire));

    for (fault_first(); fault_again(); fault_next()) {
        struct functions *own;
        struct functions_table copy = {0};
        enum moray_code code = FAULTY(functions_create(&ours, 3, &own, &error));
        if (code == MORAY_OK)
            code = FAULTY(functions_check(&ours, &error));
        if (code == MORAY_OK)
            code = FAULTY(functions_decode(wire, bytes, &copy, &error));
        if (code == MORAY_OK)
            code = FAULTY(functions_compare(&ours, 0, &copy, 1, &error));
        ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
        FAULTY((free((void *)copy.entries), functions_destroy(own), 0));
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, order_and_place_do_not_count);
    tcase_add_loop_test(laws, name_types_and_sizes_count, 0, 3);
    tcase_add_test(laws, a_difference_names_both_places_and_ranks);
    tcase_add_test(laws, a_name_defined_twice_names_both_places);
    tcase_add_test(laws, details_are_asked_for_only_where_the_digest_differs);
    tcase_add_test(laws, a_table_survives_the_wire);
    tcase_add_test(laws, a_text_with_an_end_in_it_is_no_text);
    tcase_add_loop_test(laws, bad_bytes_are_no_table, 0, 500);
    tcase_add_test(laws, a_failed_allocation_is_said);
    return law_run("gcs/functions", laws);
}
