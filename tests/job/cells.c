/**
 * What finds no cell (sched/lane/cells.c) when it is to be told: it is refused with a story, or told later,
 * and never left alone. The linker puts the function below in the place of the pool's: a thread of the
 * driver finds as many cells as it is told to, and no more.
 */
#include "law.h"

#include "client/process.h"
#include "sched/lane/pool.h"

static _Thread_local int cells_left = -1; /* no bound */

uint32_t __real_pool_take(struct pool *pool);
uint32_t __wrap_pool_take(struct pool *pool);
uint32_t __wrap_pool_take(struct pool *pool)
{
    if (pool == &me.lane.cell_pool && cells_left >= 0 && cells_left-- == 0)
        return (uint32_t)(cells_left = 0, POOL_NONE);
    return __real_pool_take(pool);
}

MORAY_TASK(int32_t, twice, (int32_t, value))
{
    return 2 * value;
}

/* Its need is asked by the one cell that there is. */
static void a_task_that_finds_no_cell_ends_with_that(void)
{
    moray_ref seven = moray_put_value(int32_t, 7);

    cells_left = 1;
    moray_ref ref = moray_call_with((.cores = 0.5), twice, seven);
    cells_left = -1;
    DEMAND_CODE(moray_get_bytes(ref, NULL, 0, 5000), MORAY_BUSY);
    DEMAND_NAMES(moray_error(ref), "MORAY_QUEUE_MAX");
    DEMAND_OK(moray_release(ref));
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.cores = 0.5), twice, seven)), 14);
    DEMAND_OK(moray_release(seven));
}

static const struct law laws[] = {
    {"decision 26: a task that finds no cell to ask for its cores by ends with that",
     a_task_that_finds_no_cell_ends_with_that, 20},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
