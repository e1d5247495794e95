/**
 * What is measured of Moray: `bench --child NAME [quick]`, a program like any user's.
 *
 * A measurement prepares at its first call, which is the warm-up, and times one run at each call.
 */
#ifndef MORAY_BENCH_CHILD_H
#define MORAY_BENCH_CHILD_H

#include <moray.h>

#include "bench.h"

struct child {
    bool quick;
    const char *name;
    char extra[BENCH_TEXT]; /* " key=value…" for the params; written anew by each run */
};

struct child_measure {
    const char *name;
    double (*run)(struct child *child);
};

extern const struct child_measure measures_of_tasks[], measures_of_objects[], measures_of_jobs[];

/** Adds " key=value" to what is told. */
void child_tell(struct child *child, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** Ends the program with the story of what failed. */
_Noreturn void child_fail(const char *what);

#define CHILD_MUST(condition)       \
    do {                            \
        if (!(condition))           \
            child_fail(#condition); \
    } while (0)

static inline double child_seconds(uint64_t start_ns)
{
    return (double)(bench_now_ns() - start_ns) / 1e9;
}

#endif
