#include <check.h>

#include "base/chaos.h"
#include "tests/unit/law.h"

static struct chaos chaos;

START_TEST(what_is_understood)
{
    static const struct {
        const char *text;
        uint64_t mean_ns;
        uint32_t seed;
    } right[] = {{"", 0, 0},
                 {"worker=1us", 1000, 1},
                 {"worker=100ms", 100000000, 1},
                 {"worker=2s,seed=0", UINT64_C(2000000000), 0},
                 {"worker=5000000us,seed=2", UINT64_C(5000000000), 2},
                 {"worker=1000000s,seed=4294967295", UINT64_C(1000000000000000), UINT32_MAX}};

    for (size_t i = 0; i < sizeof(right) / sizeof(*right); i++) {
        ck_assert_msg(chaos_read(right[i].text, &chaos), "%s", right[i].text);
        ck_assert_uint_eq(chaos.mean_ns, right[i].mean_ns);
        ck_assert_uint_eq(chaos.seed, right[i].seed);
    }
}
END_TEST

START_TEST(what_is_not_leaves_the_old_one)
{
    static const char *const wrong[] = {"worker",
                                        "worker=",
                                        "worker=1",
                                        "worker=0ms",
                                        "worker=-1ms",
                                        "worker=+1ms",
                                        "worker= 1ms",
                                        "worker=1 ms",
                                        "rank=1s",
                                        "worker=1h",
                                        "worker=1m",
                                        "worker=1ms,",
                                        "worker=1ms,fast",
                                        "worker=1.5s",
                                        "worker=infs",
                                        "worker=nanms",
                                        "worker=1ms,seed=",
                                        "worker=1ms,seed=x",
                                        "worker=1ms,seed=7x",
                                        "worker=1ms,seed=-1",
                                        "worker=1ms,seed=4294967296",
                                        "worker=1ms,seed=1,seed=2",
                                        "worker=1ms,worker=2ms",
                                        "worker=1000001s",
                                        "worker=1000000001ms",
                                        "worker=18446744073709551615s",
                                        "worker=99999999999999999999s",
                                        ",seed=3",
                                        " "};

    chaos = (struct chaos){.mean_ns = 5, .seed = 6};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        ck_assert_msg(!chaos_read(wrong[i], &chaos), "%s", wrong[i]);
        ck_assert_uint_eq(chaos.mean_ns, 5);
        ck_assert_uint_eq(chaos.seed, 6);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_test(laws, what_is_understood);
    tcase_add_test(laws, what_is_not_leaves_the_old_one);
    return law_run("base_chaos", laws);
}
