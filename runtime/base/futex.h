/**
 * Futexes between processes: sleep while a word has a value, wake those who do.
 *
 *     waiter                                   waker
 *       says that it sleeps (its own word)       changes the word
 *       futex_wait(word, value it saw)           futex_wake(word, n), if anybody says so
 *
 * Not private: the words lie in memory that processes share. A wait ends for any reason (a wake, a
 * changed word, the limit, a signal): the caller looks at its condition again, always.
 * Threads: any. Cost: a wait or a wake of somebody ~5 us, a wake of nobody ~0.4 us: one system call.
 */
#ifndef MORAY_BASE_FUTEX_H
#define MORAY_BASE_FUTEX_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/time.h"

#define FUTEX_LIMIT_MAX_NS TIME_NS_PER_S /* no sleep is longer: then it looks again */

/** Sleeps while `*word == value`, at most `limit_ns` and never more than FUTEX_LIMIT_MAX_NS.
 *  Returns false if the limit passed, true for every other end. Keeps errno. */
static inline bool futex_wait(const _Atomic uint32_t *word, uint32_t value, uint64_t limit_ns)
{
    int before = errno;
    long result;
    bool timed_out;

    if (limit_ns > FUTEX_LIMIT_MAX_NS)
        limit_ns = FUTEX_LIMIT_MAX_NS;
    struct timespec limit = {.tv_sec = (time_t)(limit_ns / TIME_NS_PER_S),
                             .tv_nsec = (long)(limit_ns % TIME_NS_PER_S)};
    result = syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0);
    timed_out = result < 0 && errno == ETIMEDOUT;
    assert(result == 0 || timed_out || errno == EAGAIN || errno == EINTR);
    errno = before;
    return !timed_out;
}

/** Wakes at most `count` sleepers of the word (INT_MAX: all). Returns how many it woke. */
static inline int futex_wake(const _Atomic uint32_t *word, int count)
{
    int before = errno;
    long result = syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);

    assert(result >= 0);
    errno = before;
    return (int)result;
}

#endif
