/* Rank 0: the table of nodes and the global scheduler. */
#include <string.h>

#include "tests/sim/sim.h"

static void place(struct sim *sim, const struct event *event)
{
    const struct task *task = &sim->tasks[event->a];
    struct global_task wish = {.need = task->need,
                               .where = task->where,
                               .rank = task->where_rank,
                               .asker = event->from,
                               .inputs = event->data,
                               .input_count = event->bytes / sizeof(struct global_input)};
    struct moray_error error;
    uint32_t rank;

    if (global_place(sim->global, &wish, &rank, &error) != MORAY_OK)
        sim_fail(sim, "task %u has no place: %s", (uint32_t)event->a, error.text);
    else
        sim_send(sim, 0, MSG_PLACED, 0, event->from, event->a, rank, 0);
}

void head_event(struct sim *sim, const struct event *event)
{
    struct global_move move;

    switch (event->kind) {
    case MSG_REPORT:
        if (!nodes_report(sim->table, event->from, event->data, 0, world_now(sim->world)) ||
            !global_report(sim->global, event->from, event->data))
            sim_fail(sim, "a report of rank %u is not taken", event->from);
        break;
    case MSG_HAND_OVER:
        place(sim, event);
        break;
    case MSG_MOVED:
        move = (struct global_move){event->from, (uint32_t)event->a, event->c};
        if (!global_moved(sim->global, &move, event->b))
            sim_fail(sim, "rank %u answers a move that is not open", event->from);
        break;
    }
    while (global_next(sim->global, &move))
        sim_send(sim, 0, MSG_MOVE, 0, move.from, move.to, move.count, 0);
}
