/* The job as a whole: making it, running it, and what must hold when it has come to rest. */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EVENTS_MAX 30000000ull /* a run that has more does not come to rest */

void sim_fail(struct sim *sim, const char *format, ...)
{
    va_list arguments;

    if (sim->failure[0])
        return;
    va_start(arguments, format);
    vsnprintf(sim->failure, sizeof(sim->failure), format, arguments);
    va_end(arguments);
}

void sim_send(struct sim *sim, uint64_t extra_ns, uint32_t kind, uint32_t from, uint32_t to,
              uint64_t a, uint64_t b, uint64_t c)
{
    world_send(sim->world, extra_ns,
               (struct event){.kind = kind, .from = from, .to = to, .a = a, .b = b, .c = c}, NULL,
               0);
}

uint32_t sim_add(struct sim *sim, uint32_t owner, uint32_t count, uint64_t duration_ns)
{
    uint32_t first = sim->task_count;

    sim->tasks = realloc(sim->tasks, (first + (size_t)count + 1) * sizeof(*sim->tasks));
    if (!sim->tasks)
        abort();
    sim->task_count += count;
    for (uint32_t id = first; id < sim->task_count; id++)
        sim->tasks[id] = (struct task){.owner = owner,
                                       .duration_ns = duration_ns,
                                       .need = {.core_parts = RESOURCES_CORE},
                                       .parent = UINT32_MAX,
                                       .input = UINT32_MAX,
                                       .run_max = 1};
    return first;
}

void sim_submit(struct sim *sim, uint32_t first, uint32_t count, uint64_t delay_ns)
{
    world_post(
        sim->world, delay_ns,
        (struct event){.kind = SUBMIT, .to = sim->tasks[first].owner, .a = first, .b = count});
}

static void dispatch(struct sim *sim, const struct event *event)
{
    if (sim->options.trace)
        printf("%12" PRIu64 " kind %2u %5u -> %5u  %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
               event->time_ns, event->kind, event->from, event->to, event->a, event->b, event->c);
    if (event->kind >= ACTOR_KINDS)
        actors_event(sim, event);
    else if (event->kind == MSG_REPORT || event->kind == MSG_HAND_OVER || event->kind == MSG_MOVED)
        head_event(sim, event);
    else if (event->kind == TIMER_UNHOLD || event->kind >= MSG_WANT)
        object_event(sim, event);
    else
        node_event(sim, event);
    object_settle(sim, event->to);
    node_settle(sim, event->to);
}

bool sim_run(struct sim *sim)
{
    struct event event;

    while (!sim->failure[0] && world_next(sim->world, &event)) {
        dispatch(sim, &event);
        free(event.data);
        if (world_count(sim->world) > EVENTS_MAX)
            sim_fail(sim, "it does not come to rest");
    }
    if (!sim->failure[0])
        sim_check_rest(sim);
    return !sim->failure[0];
}

static void check_task(struct sim *sim, uint32_t id)
{
    const struct task *task = &sim->tasks[id];

    if (task->run_count == 0 || task->state != DONE)
        sim_fail(sim, "task %u ran %u times and is in state %d on rank %u at the end", id,
                 task->run_count, (int)task->state, task->at);
    if (task->run_count != task->run_max)
        sim_fail(sim, "task %u ran %u times instead of %u", id, task->run_count, task->run_max);
    if (task->object_known && (!task->object_free || task->copies || task->held))
        sim_fail(sim, "object %u is left at the end: %s, copies %" PRIx64, id,
                 task->object_free ? "free" : "not free", task->copies);
}

void sim_check_rest(struct sim *sim)
{
    for (uint32_t id = 0; id < sim->task_count; id++)
        check_task(sim, id);
    for (uint32_t rank = 0; rank < sim->options.rank_count; rank++) {
        struct node *node = &sim->nodes[rank];
        struct load load;
        if (directory_count(node->directory))
            sim_fail(sim, "rank %u owns objects at the end", rank);
        if (!node->local)
            continue;
        local_load(node->local, &load);
        if (node->running || node->queue.count || load.queued_count || load.running_count)
            sim_fail(sim, "rank %u is busy at the end", rank);
        if (node->allowed != sim->options.worker_count)
            sim_fail(sim, "rank %u's lane has %u workers at the end", rank, node->allowed);
        if (load.free.core_parts != (uint64_t)sim->options.worker_count * RESOURCES_CORE)
            sim_fail(sim, "rank %u has %" PRIu64 " core parts free at the end", rank,
                     load.free.core_parts);
        if (global_wait_ns(sim->global, rank) != 0)
            sim_fail(sim, "the global scheduler thinks that rank %u is busy at the end", rank);
    }
    actors_check(sim);
}

static void join(struct sim *sim, uint32_t rank)
{
    bool runs = rank > 0 || !sim->options.head_alone;
    struct nodes_line line = {
        .rank = rank,
        .host_name = "virtual",
        .runs_tasks = runs,
        .worker_count = sim->options.worker_count,
        .have = {(uint64_t)sim->options.worker_count * RESOURCES_CORE, 1 << 30}};
    struct global_node node = {
        .rank = rank, .host = UINT32_MAX, .worker_count = line.worker_count, .have = line.have};
    struct directory_options directory = {.rank = rank, .rank_count = sim->options.rank_count};

    if (nodes_join(sim->table, &line, 0, 0, NULL) != MORAY_OK ||
        (runs && global_join(sim->global, &node, NULL) != MORAY_OK) ||
        directory_create(&directory, &sim->nodes[rank].directory, NULL) != MORAY_OK)
        abort();
    sim->nodes[rank].epoch = 1; /* the span of an owner's first reference */
    if (runs)
        node_start(sim, rank);
}

struct sim *sim_create(const struct sim_options *options)
{
    struct sim *sim = calloc(1, sizeof(*sim));
    struct global_options global = {.rank_count = options->rank_count};
    struct actors_options actors = {.rank_count = options->rank_count};

    if (!sim)
        abort();
    sim->options = *options;
    sim->world = world_create(options->seed, options->calm);
    sim->nodes = calloc(options->rank_count, sizeof(*sim->nodes));
    if (!sim->nodes || nodes_create(options->rank_count, &sim->table, NULL) != MORAY_OK ||
        global_create(&global, &sim->global, NULL) != MORAY_OK ||
        actors_create_table(&actors, &sim->actors, NULL) != MORAY_OK)
        abort();
    for (uint32_t rank = 0; rank < options->rank_count; rank++)
        join(sim, rank);
    return sim;
}

void sim_destroy(struct sim *sim)
{
    for (uint32_t rank = 0; rank < sim->options.rank_count; rank++) {
        local_destroy(sim->nodes[rank].local);
        directory_destroy(sim->nodes[rank].directory);
        free(sim->nodes[rank].queue.ids);
    }
    actors_end(sim);
    actors_destroy_table(sim->actors);
    nodes_destroy(sim->table);
    global_destroy(sim->global);
    world_destroy(sim->world);
    free(sim->nodes);
    free(sim->tasks);
    free(sim);
}
