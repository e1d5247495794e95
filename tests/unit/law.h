/**
 * What the tests of the pure machines share: one suite a program, and random numbers from a seed.
 * Threads: one.
 */
#ifndef MORAY_TESTS_UNIT_LAW_H
#define MORAY_TESTS_UNIT_LAW_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { LAW_TIMEOUT_S = 60 };

/** A number below `limit` from the seed, which moves on (xorshift; a seed of 0 is made another). */
static inline uint32_t law_random(uint64_t *seed, uint32_t limit)
{
    if (!*seed)
        *seed = 0x9e3779b97f4a7c15u;
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed * 0x2545f4914f6cdd1du) >> 33) % limit;
}

/** The time that this thread has had on a CPU: what costs are compared by. */
static inline uint64_t law_cpu_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/** Demands a law in the middle of a long history. ck_assert() writes to a file each time it holds;
 *  this says something only when it does not, and names the seed that replays the history. */
#define LAW(condition, seed, event)                                         \
    do {                                                                    \
        if (!(condition))                                                   \
            ck_abort_msg("seed %d, event %d: %s", seed, event, #condition); \
    } while (0)

/** Runs the suite and frees it. Returns the program's exit status. */
static inline int law_run(const char *name, TCase *laws)
{
    Suite *suite = suite_create(name);
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(laws, LAW_TIMEOUT_S);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
