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

MORAY_ACTOR(tally, (int32_t, sum));
MORAY_METHOD(int32_t, tally, add, (int32_t, value))
{
    return self->sum += value;
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

/* Whoever posts to it sees that it is gone, and asks the agent to fail the call: by a cell. */
static void a_call_to_an_actor_that_is_gone_ends(void)
{
    tally_actor actor = moray_new_with((.on_rank = on_node(0)), tally);
    enum moray_code code = MORAY_OK;

    DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_add, actor, 1)), 1);
    DEMAND_OK(moray_kill(actor, 0));
    for (uint64_t until = law_ms() + 5000; code == MORAY_OK && law_ms() < until;) {
        moray_ref ref = moray_call(tally_add, actor, 1);
        code = moray_get_bytes(ref, NULL, 0, 5000);
        DEMAND_OK(moray_release(ref));
    }
    DEMAND_SAME(code, MORAY_ACTOR_DIED);
    for (int cells = 0; cells < 4; cells++) {
        cells_left = cells;
        moray_ref ref = moray_call(tally_add, actor, 1);
        cells_left = -1;
        if (!ref.owner) {
            DEMAND_NAMES(last_story(), "MORAY_QUEUE_MAX");
            continue;
        }
        code = moray_get_bytes(ref, NULL, 0, 5000);
        DEMAND(code == MORAY_ACTOR_DIED || (cells < 2 && code == MORAY_BUSY));
        DEMAND_OK(moray_release(ref));
    }
    DEMAND_OK(moray_actor_release(actor));
}

static const struct law laws[] = {
    {"decision 26: a task that finds no cell to ask for its cores by ends with that",
     a_task_that_finds_no_cell_ends_with_that, 20},
    {"line 29: a call to an actor that is gone ends, though no cell was left to tell of it",
     a_call_to_an_actor_that_is_gone_ends, 30},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
