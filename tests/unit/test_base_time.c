#include <check.h>

#include "base/time.h"
#include "tests/unit/law.h"

START_TEST(the_clock_goes_while_somebody_looks)
{
    struct time_awake awake = {.seen_ns = 7};

    ck_assert_uint_eq(time_awake_ns(&awake, 7), 7);
    for (uint64_t now = 8; now < 100 * TIME_NS_PER_S; now += TIME_STOOD_NS)
        ck_assert_uint_eq(time_awake_ns(&awake, now), now);
}
END_TEST

START_TEST(the_clock_stands_while_nobody_can)
{
    struct time_awake awake = {.seen_ns = 100};
    uint64_t minute = 60 * TIME_NS_PER_S;

    ck_assert_uint_eq(time_awake_ns(&awake, 200), 200);
    ck_assert_uint_eq(time_awake_ns(&awake, 200 + minute), 200);
    ck_assert_uint_eq(time_awake_ns(&awake, 300 + minute), 300);
    ck_assert_uint_eq(time_awake_ns(&awake, 300 + 3 * minute), 300);
    ck_assert_uint_eq(time_awake_ns(&awake, 301 + 3 * minute), 301);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_test(laws, the_clock_goes_while_somebody_looks);
    tcase_add_test(laws, the_clock_stands_while_nobody_can);
    return law_run("base_time", laws);
}
