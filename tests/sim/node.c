/* A node: its lane of workers, and the agent that drives its local scheduler. */
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum {
    SEND_NS = 2000,
    NEAR_BYTES = 1 << 20
}; /* cost of sending a task; see decisions on nearness */

static void lane_push(struct lane *lane, uint32_t id)
{
    if (lane->count == lane->capacity) {
        size_t capacity = lane->capacity ? 2 * lane->capacity : 64;
        uint32_t *ids = malloc(capacity * sizeof(*ids));
        if (!ids)
            abort();
        for (size_t i = 0; i < lane->count; i++)
            ids[i] = lane->ids[(lane->head + i) & (lane->capacity - 1)];
        free(lane->ids);
        *lane = (struct lane){.ids = ids, .capacity = capacity, .count = lane->count};
    }
    lane->ids[(lane->head + lane->count++) & (lane->capacity - 1)] = id;
}

static uint32_t lane_pop(struct lane *lane)
{
    uint32_t id = lane->ids[lane->head];

    lane->head = (lane->head + 1) & (lane->capacity - 1);
    lane->count--;
    return id;
}

static bool plain(const struct task *task)
{
    return task->need.core_parts == RESOURCES_CORE && task->need.memory_bytes == 0;
}

static bool has_input(const struct sim *sim, uint32_t rank, const struct task *task)
{
    return task->input == UINT32_MAX || (sim->tasks[task->input].copies >> rank & 1);
}

/* A worker of the lane is free again. The agent hears of it when the queue is empty, or when it waits
 * for a worker's end. */
static void leave_worker(struct node *node, const struct task *task)
{
    node->running--;
    node->started_sum_ns -= task->started_ns;
    node->tell |= node->queue.count == 0 || node->running >= node->allowed;
}

/* A task waits for its input without a worker: if the object has to be remade, someone must run it. */
static void fetch(struct sim *sim, uint32_t rank, uint32_t id)
{
    sim->tasks[id].state = FETCHES;
    object_want(sim, rank, id);
}

/* Begins to run a task, whose resources or worker are taken. */
static void run(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];

    if (!has_input(sim, rank, task)) { /* evicted since */
        if (!task->special)
            leave_worker(&sim->nodes[rank], task);
        else if (!local_done(sim->nodes[rank].local, (uint64_t)id + 1))
            sim_fail(sim, "the local scheduler of rank %u does not know task %u", rank, id);
        fetch(sim, rank, id);
        return;
    }
    task->state = RUNS;
    if (++task->run_count > task->run_max)
        sim_fail(sim, "task %u runs %u times, %u are allowed", id, task->run_count, task->run_max);
    if (task->input != UINT32_MAX)
        sim->tasks[task->input].users[rank]++;
    world_post(sim->world, task->duration_ns,
               (struct event){.kind = TIMER_TASK, .to = rank, .a = id});
}

static void lane_run(struct sim *sim, uint32_t rank)
{
    struct node *node = &sim->nodes[rank];
    uint32_t id;

    while (node->running < node->allowed && node->queue.count > 0) {
        node->running++;
        id = lane_pop(&node->queue);
        sim->tasks[id].started_ns = world_now(sim->world);
        node->started_sum_ns += sim->tasks[id].started_ns;
        run(sim, rank, id);
        node->tell |= node->queue.count == 0;
    }
}

static void enter_lane(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct node *node = &sim->nodes[rank];

    sim->tasks[id].state = QUEUED;
    sim->tasks[id].special = false;
    node->tell |= node->queue.count == 0;
    lane_push(&node->queue, id);
}

/* The global scheduler is to decide; it is told where the input lies. */
static void hand_over(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];
    struct global_input inputs[OBJECT_RANKS_MAX];
    uint32_t ranks[OBJECT_RANKS_MAX];
    size_t count = 0;

    if (task->input != UINT32_MAX)
        count = directory_copies(sim->nodes[rank].directory, (uint64_t)task->input + 1, ranks,
                                 OBJECT_RANKS_MAX);
    if (count > 0) { /* one copy says where the bytes are */
        inputs[0] = (struct global_input){ranks[0], sim->tasks[task->input].bytes};
        count = 1;
    }
    task->state = TRAVELS;
    task->special = false;
    world_send(sim->world, 0, (struct event){.kind = MSG_HAND_OVER, .from = rank, .to = 0, .a = id},
               inputs, count * sizeof(*inputs));
}

/* A task has come to this rank: from its owner here, or from elsewhere by the global one's word. */
static void accept(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];
    struct moray_error error;
    bool near = has_input(sim, rank, task) || sim->tasks[task->input].bytes < NEAR_BYTES;
    struct local_task wish = {.id = (uint64_t)id + 1,
                              .need = task->need,
                              .missing_bytes = near ? 0 : sim->tasks[task->input].bytes,
                              .place = task->placed                ? LOCAL_HERE
                                       : task->where == GLOBAL_ANY ? LOCAL_ANYWHERE
                                                                   : LOCAL_ASK};

    task->at = rank;
    if (!sim->nodes[rank].local) { /* the head alone runs nothing */
        hand_over(sim, rank, id);
        return;
    }
    if (!has_input(sim, rank, task) && (task->placed || (near && task->where == GLOBAL_ANY))) {
        fetch(sim, rank, id);
        return;
    }
    if (plain(task) && (task->placed || (near && task->where == GLOBAL_ANY))) {
        enter_lane(sim, rank, id);
        return;
    }
    task->state = QUEUED;
    task->special = true;
    if (local_submit(sim->nodes[rank].local, &wish, &error) != MORAY_OK)
        sim_fail(sim, "task %u: %s", id, error.text);
}

void node_submit(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];

    task->placed = false;
    if (task->bytes && !task->object_known)
        object_add(sim, id);
    accept(sim, rank, id);
}

/* All is done: the owner is told. */
static void complete(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];
    uint64_t span = 0;

    if (task->special && !local_done(sim->nodes[rank].local, (uint64_t)id + 1))
        sim_fail(sim, "the local scheduler of rank %u does not know task %u", rank, id);
    task->state = DONE;
    if (task->bytes)
        task->copies |= 1ull << rank;
    if (task->input != UINT32_MAX && task->keeps) {
        span = object_keep(sim, rank, task->input);
        sim->tasks[task->input].held++;
        world_post(sim->world, world_random(sim->world, 20 * 1000 * 1000),
                   (struct event){.kind = TIMER_UNHOLD, .to = rank, .a = task->input});
    }
    sim_send(sim, 0, MSG_DONE, rank, task->owner, id, rank, span);
}

/* A task's own time is over. */
static void over(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];
    struct node *node = &sim->nodes[rank];

    if (!task->special) {
        leave_worker(node, task);
        node->mean_ns = node->mean_ns ? (7 * node->mean_ns + task->duration_ns) / 8
                                      : task->duration_ns + !task->duration_ns;
    }
    if (task->input != UINT32_MAX)
        object_used(sim, rank, id);
    if (task->child_count == 0 || task->children_left == 0) {
        complete(sim, rank, id);
        return;
    }
    task->state = BLOCKED;
    if (task->special && !local_block(node->local, (uint64_t)id + 1))
        sim_fail(sim, "task %u cannot wait on rank %u", id, rank);
    for (uint32_t child = 0; child < task->child_count; child++) {
        sim->tasks[task->first_child + child].owner = rank;
        node_submit(sim, rank, task->first_child + child);
    }
}

/* A child is done: the parent, on this rank, may be done as well. */
static void child_done(struct sim *sim, uint32_t rank, uint32_t id)
{
    struct task *task = &sim->tasks[id];

    if (--task->children_left > 0)
        return;
    if (!task->special)
        complete(sim, rank, id); /* what is left of it takes no time */
    else if (!local_unblock(sim->nodes[rank].local, (uint64_t)id + 1))
        sim_fail(sim, "task %u does not wait on rank %u", id, rank);
}

void node_fetched(struct sim *sim, uint32_t rank, uint32_t id)
{
    if (sim->tasks[id].state != FETCHES || sim->tasks[id].at != rank)
        sim_fail(sim, "rank %u got the input of task %u, which does not wait for it there", rank,
                 id);
    else
        accept(sim, rank, id);
}

/* Sends tasks from the tail of the queue, those that came last. */
static void move_away(struct sim *sim, uint32_t rank, uint32_t to, uint64_t count)
{
    struct lane *lane = &sim->nodes[rank].queue;
    uint64_t sent = count < lane->count ? count : lane->count;
    uint32_t *ids = malloc((sent + 1) * sizeof(*ids));

    if (!ids)
        abort();
    for (uint64_t i = 0; i < sent; i++) {
        ids[i] = lane->ids[(lane->head + lane->count - 1) & (lane->capacity - 1)];
        lane->count--;
        sim->tasks[ids[i]].state = TRAVELS;
    }
    sim->paths[PATH_MOVED] += sent;
    if (sent)
        world_send(sim->world, sent * SEND_NS,
                   (struct event){.kind = MSG_TASKS, .from = rank, .to = to}, ids,
                   sent * sizeof(*ids));
    sim_send(sim, 0, MSG_MOVED, rank, 0, to, sent, count);
    sim->nodes[rank].tell = true;
    free(ids);
}

static void tasks_came(struct sim *sim, const struct event *event)
{
    const uint32_t *ids = event->data;

    for (size_t i = 0; i < event->bytes / sizeof(*ids); i++) {
        sim->nodes[event->to].arrived++;
        sim->tasks[ids[i]].placed = true;
        accept(sim, event->to, ids[i]);
    }
    sim->nodes[event->to].tell = true;
}

static void placed(struct sim *sim, uint32_t rank, uint32_t id, uint32_t to)
{
    sim->paths[PATH_PLACED]++;
    if (to == rank) {
        sim->nodes[rank].arrived++;
        sim->nodes[rank].tell = true;
        sim->tasks[id].placed = true;
        accept(sim, rank, id);
        return;
    }
    sim->tasks[id].state = TRAVELS;
    world_send(sim->world, SEND_NS, (struct event){.kind = MSG_TASKS, .from = rank, .to = to}, &id,
               sizeof(id));
}

static void done(struct sim *sim, const struct event *event)
{
    struct task *task = &sim->tasks[event->a];

    if (task->object_known)
        object_done(sim, event);
    if (task->input != UINT32_MAX)
        object_done(sim, event);
    if (task->run_count == 1) {
        sim->done_count++;
        sim->done_ns = world_now(sim->world);
        if (task->parent != UINT32_MAX)
            child_done(sim, event->to, task->parent);
    }
}

void node_event(struct sim *sim, const struct event *event)
{
    switch (event->kind) {
    case SUBMIT:
        for (uint64_t id = event->a; id < event->a + event->b; id++)
            node_submit(sim, event->to, (uint32_t)id);
        break;
    case TIMER_LANE:
        if (event->a == sim->nodes[event->to].timer) {
            sim->nodes[event->to].timer_ns = UINT64_MAX;
            sim->nodes[event->to].tell = true;
        }
        break;
    case TIMER_TASK:
        over(sim, event->to, (uint32_t)event->a);
        break;
    case MSG_PLACED:
        placed(sim, event->to, (uint32_t)event->a, (uint32_t)event->b);
        break;
    case MSG_MOVE:
        move_away(sim, event->to, (uint32_t)event->a, event->b);
        break;
    case MSG_TASKS:
        tasks_came(sim, event);
        break;
    case MSG_DONE:
        done(sim, event);
        break;
    }
}

static void act(struct sim *sim, uint32_t rank, const struct local_action *action)
{
    struct node *node = &sim->nodes[rank];
    uint32_t id = (uint32_t)(action->task - 1);

    switch (action->kind) {
    case LOCAL_RUN:
        run(sim, rank, id);
        break;
    case LOCAL_HAND_OVER:
        hand_over(sim, rank, id);
        break;
    case LOCAL_RESUME:
        sim->paths[PATH_RESUMED]++;
        complete(sim, rank, id);
        break;
    case LOCAL_LANE_WORKERS:
        sim->paths[PATH_SQUEEZED] += action->worker_count < node->allowed;
        node->allowed = action->worker_count;
        node->tell = true;
        break;
    case LOCAL_REPORT: {
        struct load load;
        local_load(node->local, &load);
        sim->reports++;
        world_send(sim->world, 0, (struct event){.kind = MSG_REPORT, .from = rank, .to = 0}, &load,
                   sizeof(load));
    }
    }
}

/* What is held by the model, not by the machine's word: it must fit into the node. */
static void check_node(struct sim *sim, uint32_t rank)
{
    struct node *node = &sim->nodes[rank];
    struct resources free_now = local_free(node->local); /* asserts that nothing is negative */
    struct load load;

    local_load(node->local, &load);
    if (free_now.core_parts > (uint64_t)sim->options.worker_count * RESOURCES_CORE ||
        load.free.core_parts > (uint64_t)sim->options.worker_count * RESOURCES_CORE)
        sim_fail(sim, "rank %u has more cores free than it has", rank);
}

void node_settle(struct sim *sim, uint32_t rank)
{
    struct node *node = &sim->nodes[rank];
    struct local_action action;
    uint64_t now_ns = world_now(sim->world), deadline_ns;

    if (!node->local)
        return;
    lane_run(sim, rank);
    do {
        while (local_next(node->local, &action))
            act(sim, rank, &action);
        lane_run(sim, rank);
        if (node->tell) {
            uint64_t age_ns = node->running ? now_ns - node->started_sum_ns / node->running : 0;
            struct local_lane lane = {.worker_count = node->running > node->allowed ? node->running
                                                                                    : node->allowed,
                                      .running_count = node->running,
                                      .queued_count = node->queue.count,
                                      .mean_task_ns = node->mean_ns,
                                      .running_ns = sim->options.blind ? 0 : age_ns,
                                      .arrived_count = node->arrived};
            node->tell = false;
            local_lane(node->local, &lane, now_ns);
            check_node(sim, rank);
        }
    } while (local_next(node->local, &action) ? (act(sim, rank, &action), true) : node->tell);
    deadline_ns = local_deadline(node->local);
    if (deadline_ns != UINT64_MAX && deadline_ns < node->timer_ns) {
        node->timer_ns = deadline_ns > now_ns ? deadline_ns : now_ns;
        world_post(sim->world, node->timer_ns - now_ns,
                   (struct event){.kind = TIMER_LANE, .to = rank, .a = ++node->timer});
    }
}

void node_start(struct sim *sim, uint32_t rank)
{
    struct node *node = &sim->nodes[rank];
    struct local_options options = {
        .rank = rank,
        .have = {(uint64_t)sim->options.worker_count * RESOURCES_CORE, 1 << 30},
        .worker_count = sim->options.worker_count,
        .near_bytes = NEAR_BYTES,
        .queue_max = 1000,
        .alone = sim->options.rank_count == 1};

    node->allowed = sim->options.worker_count;
    node->timer_ns = UINT64_MAX;
    if (local_create(&options, &node->local, NULL) != MORAY_OK)
        abort();
    node->tell = true;
    node_settle(sim, rank);
}
