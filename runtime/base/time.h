/**
 * The one clock: monotonic nanoseconds, and limits counted from it.
 * Threads: any. Cost: ~30 ns (vDSO); never on a task's path.
 */
#ifndef MORAY_BASE_TIME_H
#define MORAY_BASE_TIME_H

#include <assert.h>
#include <stdint.h>
#include <time.h>

#define TIME_NS_PER_S UINT64_C(1000000000)
#define TIME_NS_PER_MS UINT64_C(1000000)
#define TIME_NS_PER_US UINT64_C(1000)
#define TIME_NEVER UINT64_MAX /* a deadline that does not come */

/** Nanoseconds since some fixed moment of this boot; the same in all processes of the host. */
static inline uint64_t time_ns(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_MONOTONIC, &now);

    assert(!failed);
    (void)failed;
    return (uint64_t)now.tv_sec * TIME_NS_PER_S + (uint64_t)now.tv_nsec;
}

/** The moment `limit_ns` from `now_ns`; TIME_NEVER for a limit of TIME_NEVER or one beyond the end. */
static inline uint64_t time_after(uint64_t now_ns, uint64_t limit_ns)
{
    return limit_ns > TIME_NEVER - now_ns ? TIME_NEVER : now_ns + limit_ns;
}

/** What is left until `deadline_ns`: 0 once it has passed; TIME_NEVER stays. */
static inline uint64_t time_left(uint64_t now_ns, uint64_t deadline_ns)
{
    return deadline_ns == TIME_NEVER ? TIME_NEVER
           : deadline_ns <= now_ns   ? 0
                                     : deadline_ns - now_ns;
}

/** A clock that stands while its reader does. Who looks every second, and did not for TIME_STOOD_NS, was
 *  stopped (a job that is suspended): what it waits for was stopped too, or could not be seen. */
struct time_awake {
    uint64_t seen_ns, stood_ns; /* time_ns() at the last look; how long it stood, all in all */
};

#define TIME_STOOD_NS (4 * TIME_NS_PER_S)

/** `now_ns` on that clock: never less than at the look before. `seen_ns` begins as time_ns(). */
static inline uint64_t time_awake_ns(struct time_awake *awake, uint64_t now_ns)
{
    if (now_ns - awake->seen_ns > TIME_STOOD_NS)
        awake->stood_ns += now_ns - awake->seen_ns;
    awake->seen_ns = now_ns;
    return now_ns - awake->stood_ns;
}

#endif
