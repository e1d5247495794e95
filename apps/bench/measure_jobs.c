/**
 * Jobs: how soon the first task is done, and what an idle job costs.
 */
#include <stdlib.h>

#include "child.h"

MORAY_TASK(int64_t, where)
{
    return moray_rank();
}

MORAY_ACTOR(idler, (int64_t, value));
MORAY_METHOD(int64_t, idler, look)
{
    return self->value;
}

/* When the first result was there: bench knows when it executed mpirun. */
static double start(struct child *child)
{
    int64_t rank = moray_take_as(int64_t, moray_call(where));
    double at = (double)bench_now_ns() / 1e9;

    child_tell(child, " first_on_rank=%lld", (long long)rank);
    return at;
}

/* Work for each worker and one actor, which then idle. */
static double idle(struct child *child)
{
    static idler_actor actor;
    static bool has_actor;
    moray_ref refs[100];

    (void)child;
    if (!has_actor) {
        actor = moray_new(idler);
        has_actor = true;
    }
    for (int i = 0; i < 100; i++)
        refs[i] = moray_call(where);
    for (int i = 0; i < 100; i++)
        moray_take_as(int64_t, refs[i]);
    moray_take_as(int64_t, moray_call(idler_look, actor));
    return 0;
}

const struct child_measure measures_of_jobs[] = {{"start", start}, {"idle", idle}, {NULL, NULL}};
