#include "sched/policy/global_inside.h"

#include <assert.h>
#include <inttypes.h>

/* What a task may still take there now. */
static bool has_free(const struct node *node, struct resources need)
{
    struct resources used = resources_more(need, node->given);

    return resources_fit(used, node->load.free);
}

/* Expected time until the task could begin on `node`, when so many bytes of its inputs are missing. */
static uint64_t expect_ns(const struct global *global, const struct node *node,
                          struct resources need, uint64_t missing_bytes)
{
    uint64_t wait = global_wait_ns(global, (uint32_t)(node - global->nodes));
    uint64_t rate = node->load.bytes_per_s ? node->load.bytes_per_s : global->options.bytes_per_s;

    if (wait == 0 && !has_free(node, need))
        wait = global_task_ns(global, node);
    return wait + (uint64_t)((double)missing_bytes / (double)rate * 1e9);
}

/* Where the bytes that `rank` can read in place are counted: at its host's first rank. */
static struct node *bucket(struct global *global, uint32_t rank)
{
    struct node *node = &global->nodes[rank];

    return node->worker_count && node->host != UINT32_MAX ? &global->nodes[node->host] : node;
}

/* Counts the inputs by host, and returns their bytes; with `clear` takes the counts away again. */
static uint64_t count_inputs(struct global *global, const struct global_task *task, bool clear)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < task->input_count; i++) {
        uint32_t rank = task->inputs[i].rank;
        sum += task->inputs[i].bytes;
        if (rank >= global->options.rank_count)
            continue;
        if (clear)
            bucket(global, rank)->present_bytes = 0;
        else
            bucket(global, rank)->present_bytes += task->inputs[i].bytes;
    }
    return sum;
}

enum moray_code global_possible(const struct global *global, struct resources need,
                                struct moray_error *error)
{
    struct resources best = {0};
    uint32_t count = 0;

    for (uint32_t rank = 0; rank < global->options.rank_count; rank++) {
        const struct node *node = &global->nodes[rank];
        if (!node->alive)
            continue;
        if (resources_fit(need, node->have))
            return MORAY_OK;
        count++;
        if (node->have.core_parts > best.core_parts)
            best = node->have;
    }
    return error_set(
        error, MORAY_INVALID,
        "it asks for %" PRIu64 ".%04" PRIu64 " cores and %" PRIu64
        " bytes of memory; none of the job's %u nodes has both: the largest has %" PRIu64
        ".%04" PRIu64 " cores and %" PRIu64 " bytes",
        need.core_parts / RESOURCES_CORE, need.core_parts % RESOURCES_CORE, need.memory_bytes,
        count, best.core_parts / RESOURCES_CORE, best.core_parts % RESOURCES_CORE,
        best.memory_bytes);
}

static struct node *place_spread(struct global *global, const struct global_task *task)
{
    struct node *best = NULL;

    for (uint32_t rank = 0; rank < global->options.rank_count; rank++) {
        struct node *node = global_alive(global, rank);
        if (node && resources_fit(task->need, node->have) &&
            (!best || node->spread_count < best->spread_count))
            best = node;
    }
    if (best)
        best->spread_count++;
    return best;
}

static struct node *place_any(struct global *global, const struct global_task *task)
{
    uint64_t input_bytes = count_inputs(global, task, false), best_ns = 0, best_present = 0;
    struct node *best = NULL;

    for (uint32_t i = 0; i < global->options.rank_count; i++) {
        /* From the asker on, so that it wins a tie, and those behind it share what it cannot take. */
        uint32_t rank = (uint32_t)(((uint64_t)task->asker + i) % global->options.rank_count);
        struct node *node = global_alive(global, rank);
        uint64_t present, ns;

        if (!node || !resources_fit(task->need, node->have))
            continue;
        present = bucket(global, rank)->present_bytes;
        ns = expect_ns(global, node, task->need, input_bytes - present);
        if (!best || ns < best_ns || (ns == best_ns && present > best_present)) {
            best = node;
            best_ns = ns;
            best_present = present;
        }
    }
    count_inputs(global, task, true);
    return best;
}

enum moray_code global_place(struct global *global, const struct global_task *task, uint32_t *out,
                             struct moray_error *error)
{
    struct node *node = NULL;

    if (task->where == GLOBAL_NODE || task->where == GLOBAL_NODE_SOFT) {
        node = global_alive(global, task->rank);
        if (!node && task->where == GLOBAL_NODE)
            return error_set(error, MORAY_LOST,
                             "the task asks for rank %u, which is no node of this job (any more)",
                             task->rank);
        if (node && !resources_fit(task->need, node->have)) {
            if (task->where == GLOBAL_NODE)
                return error_set(error, MORAY_INVALID,
                                 "the task asks for rank %u, whose %" PRIu64 " cores and %" PRIu64
                                 " bytes of memory do not suffice",
                                 task->rank, node->have.core_parts / RESOURCES_CORE,
                                 node->have.memory_bytes);
            node = NULL;
        }
    } else if (task->where == GLOBAL_SPREAD) {
        node = place_spread(global, task);
    }
    if (!node)
        node = place_any(global, task);
    if (!node) {
        enum moray_code code = global_possible(global, task->need, error);
        assert(code != MORAY_OK);
        return code;
    }
    node->coming++;
    node->given = resources_more(node->given, task->need);
    global_classify(global, node);
    *out = (uint32_t)(node - global->nodes);
    return MORAY_OK;
}

/* Whether an actor that can go to either goes to `a`. */
static bool better_for_actor(const struct node *a, const struct node *b)
{
    bool a_idle = a->load.running_count < a->worker_count;
    bool b_idle = b->load.running_count < b->worker_count;

    if (a_idle != b_idle)
        return a_idle;
    return (uint64_t)a->actor_count * b->worker_count < (uint64_t)b->actor_count * a->worker_count;
}

enum moray_code global_place_actor(struct global *global, struct resources need, uint32_t only,
                                   uint32_t *out, struct moray_error *error)
{
    struct node *best = NULL;
    bool refuses = false, could = false;

    for (uint32_t rank = 0; rank < global->options.rank_count; rank++) {
        struct node *node = global_alive(global, rank);
        if (!node || (only != UINT32_MAX && rank != only) || !resources_fit(need, node->have))
            continue;
        could = true;
        if (!resources_fit(resources_more(need, node->held), node->have))
            continue;
        if (node->actor_count >= node->actors_max) {
            refuses = true;
            continue;
        }
        if (!best || better_for_actor(node, best))
            best = node;
    }
    if (!could) {
        enum moray_code code = global_possible(global, need, error);
        return code != MORAY_OK
                   ? code
                   : error_set(error, MORAY_INVALID,
                               "the actor asks for rank %" PRIu32 ", which is no node of this job "
                               "with what it asks for",
                               only);
    }
    if (!best && refuses)
        return error_set(error, MORAY_FULL, "no node has a process for one more actor now");
    if (!best)
        return error_set(error, MORAY_BUSY, "no node has room for one more actor of this kind now");
    best->held = resources_more(best->held, need);
    best->actor_count++;
    *out = (uint32_t)(best - global->nodes);
    return MORAY_OK;
}

void global_actor_ended(struct global *global, uint32_t rank, struct resources need)
{
    struct node *node = global_alive(global, rank);

    if (!node)
        return; /* the rank was lost, and all that it held with it */
    assert(node->actor_count > 0 && resources_fit(need, node->held));
    node->actor_count--;
    node->held = resources_less(node->held, need);
}

void global_actor_refused(struct global *global, uint32_t rank)
{
    struct node *node = global_alive(global, rank);

    if (node && node->actor_count && node->actor_count - 1 < node->actors_max)
        node->actors_max = node->actor_count - 1;
}

void global_actors_again(struct global *global)
{
    for (uint32_t rank = 0; rank < global->options.rank_count; rank++)
        global->nodes[rank].actors_max = UINT32_MAX;
}
