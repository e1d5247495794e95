/**
 * Where the trips of a part begin: the cores of a machine are not equally fast at every moment, and what is
 * measured beside a peer begins on the same one.
 */
#ifndef MORAY_BENCH_CORE_H
#define MORAY_BENCH_CORE_H

#include <sched.h>

/* Goes to the core `number` of those that this thread may use, counted round, and is not bound to it. */
static inline void core_begin_on(unsigned number)
{
    cpu_set_t all, one;

    if (sched_getaffinity(0, sizeof all, &all) || !CPU_COUNT(&all))
        return;
    number %= (unsigned)CPU_COUNT(&all);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &all) && number-- == 0) {
            CPU_SET(core, &one);
            break;
        }
    if (!sched_setaffinity(0, sizeof one, &one))
        sched_setaffinity(0, sizeof all, &all);
}

#endif
