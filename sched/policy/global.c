#include "sched/policy/global_inside.h"

#include <stdlib.h>

enum { FEEDERS_MAX = 4, OPEN_MAX = 1 << 20 }; /* sources asked for one hungry node; open orders */

#define COUNT_MAX ((uint64_t)1 << 40)   /* tasks of a node that are believed */
#define TIME_MAX_NS ((uint64_t)1 << 50) /* 13 days: a task's time that is believed */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The time of one task there, as far as is known. A task that runs long counts before it is done: at
 * any moment tasks of equal length are half through on average. And tasks that were moved there take
 * as long as where they came from. */
uint64_t global_task_ns(const struct global *global, const struct node *node)
{
    uint64_t ns = most(most(node->load.mean_task_ns, 2 * node->load.running_ns), node->expected_ns);

    return node->load.mean_task_ns ? ns : most(ns, global->mean_task_ns);
}

/* Tasks that wait beyond those which free workers take at once; below 0: workers that stay free. */
static int64_t backlog(const struct node *node)
{
    int64_t queued = (int64_t)(node->load.queued_count + node->coming) - (int64_t)node->leaving;
    int64_t running = node->load.running_count;
    int64_t idle = (int64_t)node->worker_count - running;

    if (queued < 0)
        queued = 0;
    return queued - (idle > 0 ? idle : 0);
}

/* How long the workers need for what waits. */
static uint64_t work_ns(const struct global *global, const struct node *node)
{
    int64_t tasks = backlog(node);

    return tasks > 0 ? (uint64_t)tasks * (global_task_ns(global, node) / node->worker_count + 1)
                     : 0;
}

uint64_t global_wait_ns(const struct global *global, uint32_t rank)
{
    const struct node *node;

    if (rank >= global->options.rank_count || !global->nodes[rank].alive)
        return UINT64_MAX;
    node = &global->nodes[rank];
    return backlog(node) < 0
               ? 0
               : work_ns(global, node) + global_task_ns(global, node) / node->worker_count;
}

static void set_remove(struct global *global, struct node *node)
{
    struct set *set = &global->sets[node->kind];
    uint32_t last;

    if (node->kind == NEITHER)
        return;
    last = set->ranks[--set->count];
    set->ranks[node->place] = last;
    global->nodes[last].place = node->place;
    node->kind = NEITHER;
}

void global_classify(struct global *global, struct node *node)
{
    const struct global_options *options = &global->options;
    uint64_t work = work_ns(global, node);
    bool known = node->load.mean_task_ns || node->load.running_ns;
    enum kind kind = NEITHER;

    if (node->alive && known && work > options->move_wait_ns &&
        global_task_ns(global, node) >= options->move_factor * options->move_ns)
        kind = LOADED;
    else if (node->alive && work < options->hungry_ns)
        kind = HUNGRY;
    if (kind == node->kind)
        return;
    set_remove(global, node);
    node->kind = kind;
    if (kind != NEITHER) {
        node->place = global->sets[kind].count++;
        global->sets[kind].ranks[node->place] = (uint32_t)(node - global->nodes);
    }
}

/* Orders a move; without memory for it there is none, and a later report tries again. */
static bool order(struct global *global, struct node *from, struct node *to, uint64_t count)
{
    struct global_move move = {(uint32_t)(from - global->nodes), (uint32_t)(to - global->nodes),
                               least(count, global->options.move_max)};

    if (!fifo_reserve(&global->orders, 1, sizeof(move)))
        return false;
    if (global->open_count == global->open_capacity) {
        size_t capacity = global->open_capacity ? 2 * global->open_capacity : 16;
        struct global_move *open =
            capacity > OPEN_MAX ? NULL : realloc(global->open, capacity * sizeof(*open));
        if (!open)
            return false;
        global->open = open;
        global->open_capacity = capacity;
    }
    global->open[global->open_count++] = move;
    fifo_push(&global->orders, &move, sizeof(move));
    from->leaving += move.count;
    to->coming += move.count;
    to->expected_ns = most(to->expected_ns, global_task_ns(global, from));
    global_classify(global, to);
    return true;
}

/* What waits there, as a number of tasks that take `each_ns`: short tasks count for less. */
static int64_t backlog_in(const struct global *global, const struct node *node, uint64_t each_ns)
{
    int64_t tasks = backlog(node);

    if (tasks <= 0 || each_ns == 0)
        return tasks;
    return (int64_t)(work_ns(global, node) * node->worker_count / each_ns);
}

/* Tasks that `from` has in its queue for sure: those on their way to it cannot be sent yet. */
static uint64_t movable(const struct node *from)
{
    uint64_t waiting = backlog(from) > 0 ? (uint64_t)backlog(from) : 0;
    uint64_t queued = from->load.queued_count;

    return least(waiting, queued > from->leaving ? queued - from->leaving : 0);
}

/* `to` has `own` tasks and gets its share, by its workers, of all `tasks`. */
static uint64_t share(const struct node *to, int64_t own, int64_t tasks, uint64_t workers)
{
    int64_t level = tasks > 0 ? (int64_t)((uint64_t)tasks * to->worker_count / workers) : 0;

    return level > own ? (uint64_t)(level - own) : 0;
}

/* Whether a task that moves begins sooner, by more than what moving takes. */
static bool gains(const struct global *global, const struct node *from, const struct node *to)
{
    uint64_t there =
        backlog(to) < 0 ? 0 : work_ns(global, to) + global_task_ns(global, from) / to->worker_count;

    return work_ns(global, from) > there + global->options.move_wait_ns;
}

/* A loaded node gives to all hungry ones, each its share by its number of workers. */
static void give(struct global *global, struct node *from)
{
    struct set *hungry = &global->sets[HUNGRY];
    uint64_t workers = from->worker_count, each_ns = global_task_ns(global, from);
    int64_t tasks = backlog(from);

    for (uint32_t i = 0; i < hungry->count; i++) {
        struct node *to = &global->nodes[hungry->ranks[i]];
        workers += to->worker_count;
        tasks += backlog_in(global, to, each_ns);
    }
    /* Backwards: an order may take the node out of the set, and the last one takes its place. */
    for (uint32_t i = hungry->count; i-- > 0 && movable(from) > 0;) {
        struct node *to = &global->nodes[hungry->ranks[i]];
        int64_t own = backlog_in(global, to, each_ns);
        uint64_t count = least(share(to, own, tasks, workers), movable(from));
        if (count && gains(global, from, to) && !order(global, from, to, count))
            break;
    }
    global_classify(global, from);
}

static struct node *most_loaded(struct global *global)
{
    struct set *loaded = &global->sets[LOADED];
    struct node *found = NULL;
    uint64_t most_ns = 0;

    for (uint32_t at = 0; at < loaded->count; at++) {
        struct node *node = &global->nodes[loaded->ranks[at]];
        uint64_t ns = work_ns(global, node);
        if (ns > most_ns && movable(node) > 0) {
            most_ns = ns;
            found = node;
        }
    }
    return found;
}

/* A hungry node takes from the most loaded ones. */
static void feed(struct global *global, struct node *to)
{
    for (int i = 0; i < FEEDERS_MAX && to->kind == HUNGRY; i++) {
        struct node *from = most_loaded(global);
        int64_t own;
        uint64_t count;

        if (!from || !gains(global, from, to))
            return;
        own = backlog_in(global, to, global_task_ns(global, from));
        count =
            share(to, own, backlog(from) + own, (uint64_t)from->worker_count + to->worker_count);
        count = least(count, movable(from));
        if (!count || !order(global, from, to, count))
            return;
        global_classify(global, from);
    }
}

static void settle(struct global *global, struct node *node)
{
    global_classify(global, node);
    if (node->kind == LOADED)
        give(global, node);
    else if (node->kind == HUNGRY)
        feed(global, node);
}

/* What is thought of nodes that have not finished a task yet. */
static void learn(struct global *global, const struct load *load)
{
    if (load->mean_task_ns)
        global->mean_task_ns = global->mean_task_ns
                                   ? (7 * global->mean_task_ns + load->mean_task_ns) / 8
                                   : load->mean_task_ns;
    else
        global->mean_task_ns = most(global->mean_task_ns, 2 * load->running_ns);
}

bool global_report(struct global *global, uint32_t rank, const struct load *load)
{
    struct node *node = global_alive(global, rank);
    uint64_t arrived, kept;

    if (!node)
        return false;
    arrived = load->arrived_count > node->load.arrived_count
                  ? load->arrived_count - node->load.arrived_count
                  : 0;
    node->coming -= least(arrived, node->coming);
    kept = node->load.arrived_count + arrived; /* a count that went back is not believed */
    if (node->coming == 0 && load->mean_task_ns != node->load.mean_task_ns)
        node->expected_ns /= 2; /* what was moved there begins to show in its own numbers */
    node->load = *load;
    node->load.arrived_count = kept;
    /* From the wire: absurd numbers must not make our sums overflow. */
    node->load.queued_count = least(load->queued_count, COUNT_MAX);
    node->load.mean_task_ns = least(load->mean_task_ns, TIME_MAX_NS);
    node->load.running_ns = least(load->running_ns, TIME_MAX_NS);
    node->given = (struct resources){0};
    learn(global, &node->load);
    settle(global, node);
    return true;
}

bool global_moved(struct global *global, const struct global_move *move, uint64_t sent_count)
{
    struct node *from = global_alive(global, move->from), *to = global_alive(global, move->to);
    size_t at = 0;

    while (at < global->open_count &&
           (global->open[at].from != move->from || global->open[at].to != move->to ||
            global->open[at].count != move->count))
        at++;
    if (at == global->open_count)
        return false;
    global->open[at] = global->open[--global->open_count];
    sent_count = least(sent_count, move->count);
    if (from) {
        from->leaving -= least(move->count, from->leaving);
        from->load.queued_count -= least(sent_count, from->load.queued_count);
        /* It had fewer than it said: until it says more, nothing is to be had there. */
        if (sent_count < move->count)
            from->load.queued_count = least(from->load.queued_count, from->leaving);
        global_classify(global, from);
    }
    if (to) {
        to->coming -= least(move->count - sent_count, to->coming);
        settle(global, to);
    }
    return true;
}

bool global_next(struct global *global, struct global_move *out)
{
    while (fifo_pop(&global->orders, out, sizeof(*out)))
        if (global_alive(global, out->from) && global_alive(global, out->to))
            return true;
    return false;
}

enum moray_code global_join(struct global *global, const struct global_node *node,
                            struct moray_error *error)
{
    struct node *own;

    if (node->rank >= global->options.rank_count)
        return error_set(error, MORAY_INVALID, "rank %u joins a job of %u ranks", node->rank,
                         global->options.rank_count);
    if (node->host != UINT32_MAX && node->host >= global->options.rank_count)
        return error_set(error, MORAY_INVALID, "rank %u joins with host number %u", node->rank,
                         node->host);
    own = &global->nodes[node->rank];
    if (own->worker_count)
        return error_set(error, MORAY_INVALID, "rank %u joined before", node->rank);
    if (!node->worker_count)
        return error_set(error, MORAY_INVALID, "rank %u joins with no worker", node->rank);
    *own = (struct node){.alive = true,
                         .host = node->host,
                         .worker_count = node->worker_count,
                         .have = node->have,
                         .actors_max = UINT32_MAX,
                         .load = {.worker_count = node->worker_count, .free = node->have}};
    settle(global, own);
    return MORAY_OK;
}

void global_lose(struct global *global, uint32_t rank)
{
    struct node *node = global_alive(global, rank);
    size_t kept = 0;

    if (!node)
        return;
    node->alive = false;
    set_remove(global, node);
    /* Orders from or to it get no answer: what they counted elsewhere is taken back now. */
    for (size_t i = 0; i < global->open_count; i++) {
        struct global_move *move = &global->open[i];
        struct node *from = global_alive(global, move->from), *to = global_alive(global, move->to);
        if (move->from == rank && to) {
            to->coming -= least(move->count, to->coming);
            global_classify(global, to);
        } else if (move->to == rank && from) {
            from->leaving -= least(move->count, from->leaving);
            global_classify(global, from);
        } else if (from && to) {
            global->open[kept++] = *move;
        }
    }
    global->open_count = kept;
}

static void set_defaults(struct global_options *options)
{
    if (!options->move_ns)
        options->move_ns = 2000;
    if (!options->move_factor)
        options->move_factor = 4;
    if (!options->move_wait_ns)
        options->move_wait_ns = 200 * 1000;
    if (!options->move_max)
        options->move_max = 4096;
    if (!options->hungry_ns)
        options->hungry_ns = 500 * 1000;
    if (!options->bytes_per_s)
        options->bytes_per_s = 1000 * 1000 * 1000;
}

enum moray_code global_create(const struct global_options *options, struct global **out,
                              struct moray_error *error)
{
    struct global *global;

    *out = NULL;
    if (options->rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    global = calloc(1, sizeof(*global) + options->rank_count * sizeof(struct node));
    if (!global)
        goto no_memory;
    for (int kind = HUNGRY; kind < KINDS; kind++) {
        global->sets[kind].ranks = calloc(options->rank_count, sizeof(uint32_t));
        if (!global->sets[kind].ranks)
            goto no_memory;
    }
    global->options = *options;
    set_defaults(&global->options);
    *out = global;
    return MORAY_OK;

no_memory:
    global_destroy(global);
    return error_set(error, MORAY_NO_MEMORY, "no memory for the scheduler of %u ranks",
                     options->rank_count);
}

void global_destroy(struct global *global)
{
    if (!global)
        return;
    for (int kind = HUNGRY; kind < KINDS; kind++)
        free(global->sets[kind].ranks);
    fifo_clear(&global->orders);
    free(global->open);
    free(global);
}
