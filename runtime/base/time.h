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

#endif
