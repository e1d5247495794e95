#include "sched/policy/local.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/index.h"
#include "sched/policy/capacity.h"
#include "sched/policy/reporter.h"

enum state {
    FREE,      /* in the list of free records */
    QUEUED,    /* in `queue`; a claim of the lane waits there too */
    HANDED,    /* in `tell`: to be handed over */
    STARTING,  /* in `tell`: to be run; holds its resources */
    RUNNING,   /* in no list; holds its resources */
    BLOCKED,   /* in no list; holds its memory only */
    RETURNING, /* in `returning`: wants its cores back; holds its memory only */
    RESUMING,  /* in `tell`: to be resumed; holds its resources */
};

struct task {
    uint64_t id; /* 0: a claim, the lane's place in the queue for one worker that it gave up */
    struct resources need;
    enum state state;
    uint32_t passed_count;  /* later entries that began while this one was the head */
    uint32_t before, after; /* neighbours in its list; INDEX_NONE at the ends */
};

struct list {
    uint32_t head, tail; /* INDEX_NONE: empty */
};

/* lane_target + claims in the queue == worker_count
 * held.core_parts + max(lane_now, lane_target) * RESOURCES_CORE <= have.core_parts */
struct local {
    struct local_options options;
    struct task *tasks; /* owned; records never move to another position */
    uint32_t capacity;
    struct list unused, spare_claims, queue, returning, tell;
    struct index by_id;
    uint64_t queued_count;  /* tasks in `queue`, claims not counted */
    uint32_t running_count; /* STARTING, RUNNING, RESUMING */
    struct resources held;  /* by tasks */
    uint32_t lane_target;   /* workers that the lane may use */
    uint32_t lane_now;      /* workers that it said it uses */
    uint32_t lane_told;     /* the target that it was told last */
    enum {
        TURN_OVER,   /* the lane may be squeezed */
        TURN_BEGINS, /* it got workers back, and is to be told */
        TURN_LASTS,  /* until turn_end_ns it keeps them */
    } turn;
    uint64_t turn_end_ns;
    struct local_lane lane;  /* its last counts */
    uint64_t still_since_ns; /* when its counts last showed that a task ended */
    struct reporter reporter;
    bool report_due;
    struct capacity offered; /* of the job's nodes; of this one alone until they are known */
    bool cluster_known;
};

static void list_append(struct local *local, struct list *list, uint32_t at)
{
    struct task *task = &local->tasks[at];

    task->before = list->tail;
    task->after = INDEX_NONE;
    if (list->tail == INDEX_NONE)
        list->head = at;
    else
        local->tasks[list->tail].after = at;
    list->tail = at;
}

static void list_remove(struct local *local, struct list *list, uint32_t at)
{
    struct task *task = &local->tasks[at];

    if (task->before == INDEX_NONE)
        list->head = task->after;
    else
        local->tasks[task->before].after = task->after;
    if (task->after == INDEX_NONE)
        list->tail = task->before;
    else
        local->tasks[task->after].before = task->before;
}

static uint32_t find(const struct local *local, uint64_t id)
{
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&local->by_id, index_mix(id), &cursor)) != INDEX_NONE)
        if (local->tasks[at].id == id)
            break;
    return at;
}

/* Makes sure that one record is unused. */
static bool reserve(struct local *local)
{
    uint32_t capacity = local->capacity ? 2 * local->capacity : 32;
    struct task *tasks;

    if (!index_reserve(&local->by_id, 1))
        return false;
    if (local->unused.head != INDEX_NONE)
        return true;
    if (local->capacity > UINT32_MAX / 4)
        return false;
    tasks = realloc(local->tasks, capacity * sizeof(*tasks));
    if (!tasks)
        return false;
    local->tasks = tasks;
    for (uint32_t at = local->capacity; at < capacity; at++) {
        tasks[at] = (struct task){0};
        list_append(local, &local->unused, at);
    }
    local->capacity = capacity;
    return true;
}

/* Takes a record for a task; reserve() made sure of one. */
static uint32_t take_record(struct local *local, uint64_t id, struct resources need)
{
    uint32_t at = local->unused.head;

    list_remove(local, &local->unused, at);
    local->tasks[at] = (struct task){.id = id, .need = need};
    index_add(&local->by_id, index_mix(id), at);
    return at;
}

/* Forgets a task that is in no list. */
static void forget(struct local *local, uint32_t at)
{
    index_remove(&local->by_id, index_mix(local->tasks[at].id), at);
    local->tasks[at] = (struct task){0};
    list_append(local, &local->unused, at);
}

static uint32_t lane_holds(const struct local *local)
{
    return local->lane_now > local->lane_target ? local->lane_now : local->lane_target;
}

struct resources local_free(const struct local *local)
{
    uint64_t held_parts = local->held.core_parts + (uint64_t)lane_holds(local) * RESOURCES_CORE;

    assert(held_parts <= local->options.have.core_parts);
    assert(local->held.memory_bytes <= local->options.have.memory_bytes);
    return (struct resources){local->options.have.core_parts - held_parts,
                              local->options.have.memory_bytes - local->held.memory_bytes};
}

static struct resources cores_only(struct resources need)
{
    return (struct resources){.core_parts = need.core_parts};
}

static void hold(struct local *local, struct resources need)
{
    local->held = resources_more(local->held, need);
}

static void let_go(struct local *local, struct resources need)
{
    assert(resources_fit(need, local->held));
    local->held = resources_less(local->held, need);
}

/* The lane is to give up as many workers as it takes to free `wanted_parts` in all; for each it gets
 * a claim at the end of the queue. */
static void squeeze(struct local *local, uint64_t wanted_parts)
{
    uint64_t coming = local_free(local).core_parts;

    if (local->turn != TURN_OVER)
        return;
    if (local->lane_now > local->lane_target)
        coming += (uint64_t)(local->lane_now - local->lane_target) * RESOURCES_CORE;
    while (coming < wanted_parts && local->lane_target > 0) {
        uint32_t at = local->spare_claims.head;
        list_remove(local, &local->spare_claims, at);
        local->tasks[at] = (struct task){.need = {.core_parts = RESOURCES_CORE}, .state = QUEUED};
        list_append(local, &local->queue, at);
        local->lane_target--;
        coming += RESOURCES_CORE;
    }
}

/* Whether an entry of the queue could start now. A claim may take back what the lane still has. */
static bool fits(const struct local *local, const struct task *task)
{
    if (!task->id && local->lane_now > local->lane_target)
        return true;
    return resources_fit(task->need, local_free(local));
}

/* Starts an entry of the queue, which fits: a task runs, a claim gives the lane a worker back. */
static void start(struct local *local, uint32_t at)
{
    struct task *task = &local->tasks[at];

    list_remove(local, &local->queue, at);
    if (!task->id) {
        local->lane_target++;
        list_append(local, &local->spare_claims, at);
        return;
    }
    local->queued_count--;
    local->running_count++;
    hold(local, task->need);
    task->state = STARTING;
    list_append(local, &local->tell, at);
}

/* Those that waited go on before anything new starts. Returns whether all could. */
static bool resume_all(struct local *local)
{
    while (local->returning.head != INDEX_NONE) {
        uint32_t at = local->returning.head;
        struct task *task = &local->tasks[at];

        if (!resources_fit(cores_only(task->need), local_free(local))) {
            squeeze(local, task->need.core_parts);
            if (!resources_fit(cores_only(task->need), local_free(local)))
                return false;
        }
        list_remove(local, &local->returning, at);
        hold(local, cores_only(task->need));
        local->running_count++;
        task->state = RESUMING;
        list_append(local, &local->tell, at);
    }
    return true;
}

/* Whether an entry has a say: the lane claims nothing while it has nothing to run. */
static bool wants(const struct local *local, const struct task *task)
{
    return task->id || local->lane.queued_count > 0;
}

/* Walks along the queue and starts what fits. Returns the cores to ask of the lane: enough for the
 * tasks that do not fit, as far as the first claim. A claim passes no task that waits for cores, or
 * the lane would take back what it gives up for that task. */
static uint64_t walk(struct local *local)
{
    uint64_t wanted_parts = 0;
    uint32_t head = INDEX_NONE, next; /* head: the first that does not fit */
    int looks = LOCAL_LOOK_MAX;
    bool claimed = false;

    for (uint32_t at = local->queue.head; at != INDEX_NONE && looks > 0; at = next) {
        struct task *task = &local->tasks[at];
        bool may_start = fits(local, task) && (task->id || wanted_parts == 0);

        next = task->after;
        if (!wants(local, task))
            continue;
        looks--;
        if (may_start) {
            if (!task->id)
                local->turn = TURN_BEGINS;
            if (head != INDEX_NONE)
                local->tasks[head].passed_count++;
            start(local, at);
        } else {
            if (head == INDEX_NONE)
                head = at;
            claimed = claimed || !task->id;
            if (!claimed && task->need.memory_bytes <= local_free(local).memory_bytes)
                wanted_parts += task->need.core_parts;
        }
        if (head != INDEX_NONE && local->tasks[head].passed_count >= LOCAL_PASSED_MAX)
            break; /* its turn has come: nobody passes any more */
    }
    return wanted_parts;
}

/* Cores that nobody in the queue can use go back to the lane, so that its workers are ready. */
static void give_rest_to_lane(struct local *local)
{
    uint32_t next;

    for (uint32_t at = local->queue.head; at != INDEX_NONE; at = next) {
        next = local->tasks[at].after;
        assert(!local->tasks[at].id);
        if (fits(local, &local->tasks[at]))
            start(local, at);
    }
}

static void dispatch(struct local *local)
{
    uint64_t wanted_parts;

    if (!resume_all(local))
        return;
    while ((wanted_parts = walk(local)) > 0) {
        uint64_t free_parts = local_free(local).core_parts;
        squeeze(local, wanted_parts);
        if (local_free(local).core_parts == free_parts)
            return; /* the lane has to obey first, or has nothing left to give */
    }
    if (local->queued_count == 0)
        give_rest_to_lane(local);
}

enum moray_code local_possible(const struct local *local, struct resources need,
                               struct moray_error *error)
{
    if (resources_fit(need, local->options.have))
        return MORAY_OK;
    if (!local->options.alone && !local->cluster_known)
        return MORAY_OK; /* the others are not known yet */
    return capacity_check(&local->offered, need, error);
}

enum moray_code local_cluster(struct local *local, const struct resources *nodes, size_t node_count,
                              struct moray_error *error)
{
    enum moray_code code = capacity_set(&local->offered, nodes, node_count, error);

    local->cluster_known |= code == MORAY_OK;
    return code;
}

/* Whether another node should have the task. It fits some node of the job. */
static bool better_elsewhere(const struct local *local, const struct local_task *task)
{
    const struct local_options *options = &local->options;

    if (options->alone || task->place == LOCAL_HERE)
        return false;
    return task->place == LOCAL_ASK || !resources_fit(task->need, options->have) ||
           (options->near_bytes && task->missing_bytes >= options->near_bytes) ||
           (options->queue_max && local->queued_count >= options->queue_max);
}

enum moray_code local_submit(struct local *local, const struct local_task *task,
                             struct moray_error *error)
{
    enum moray_code code = local_possible(local, task->need, error);
    uint32_t at;

    if (code != MORAY_OK)
        return code;
    if (task->place == LOCAL_HERE && !resources_fit(task->need, local->options.have))
        return error_set(error, MORAY_INVALID,
                         "task %" PRIu64 " was placed on rank %u, which can never hold it",
                         task->id, local->options.rank);
    assert(task->id != 0);
    if (find(local, task->id) != INDEX_NONE)
        return error_set(error, MORAY_EXISTS, "task %" PRIu64 " is on rank %u already", task->id,
                         local->options.rank);
    if (!reserve(local))
        return error_set(error, MORAY_NO_MEMORY, "no memory to queue a task on rank %u",
                         local->options.rank);

    at = take_record(local, task->id, task->need);
    if (better_elsewhere(local, task)) {
        local->tasks[at].state = HANDED;
        list_append(local, &local->tell, at);
        return MORAY_OK;
    }
    local->tasks[at].state = QUEUED;
    list_append(local, &local->queue, at);
    local->queued_count++;
    dispatch(local);
    return MORAY_OK;
}

bool local_done(struct local *local, uint64_t id)
{
    uint32_t at = find(local, id);
    struct resources keeps;

    if (at == INDEX_NONE)
        return false;
    keeps = local->tasks[at].need;
    switch (local->tasks[at].state) {
    case STARTING:
    case RESUMING:
        list_remove(local, &local->tell, at);
        local->running_count--;
        break;
    case RUNNING:
        local->running_count--;
        break;
    case RETURNING:
        list_remove(local, &local->returning, at);
        keeps.core_parts = 0;
        break;
    case BLOCKED:
        keeps.core_parts = 0;
        break;
    default:
        return false;
    }
    let_go(local, keeps);
    forget(local, at);
    dispatch(local);
    return true;
}

bool local_block(struct local *local, uint64_t id)
{
    uint32_t at = find(local, id);

    if (at == INDEX_NONE || local->tasks[at].state != RUNNING)
        return false;
    local->tasks[at].state = BLOCKED;
    local->running_count--;
    let_go(local, cores_only(local->tasks[at].need));
    dispatch(local);
    return true;
}

bool local_unblock(struct local *local, uint64_t id)
{
    uint32_t at = find(local, id);

    if (at == INDEX_NONE || local->tasks[at].state != BLOCKED)
        return false;
    local->tasks[at].state = RETURNING;
    list_append(local, &local->returning, at);
    dispatch(local);
    return true;
}

bool local_cancel(struct local *local, uint64_t id)
{
    uint32_t at = find(local, id);

    if (at == INDEX_NONE || local->tasks[at].state != QUEUED)
        return false;
    list_remove(local, &local->queue, at);
    local->queued_count--;
    forget(local, at);
    dispatch(local); /* it may have been the head, behind which others waited */
    return true;
}

/* How long the lane's tasks run, for an agent that cannot tell: since the last sign that one ended, if
 * tasks wait and none of them begins. */
static uint64_t stands_still_ns(struct local *local, const struct local_lane *lane, uint64_t now_ns)
{
    bool moved = lane->queued_count != local->lane.queued_count ||
                 lane->mean_task_ns != local->lane.mean_task_ns;

    if (moved || lane->queued_count == 0 || lane->running_count == 0)
        local->still_since_ns = now_ns;
    return now_ns - local->still_since_ns;
}

void local_lane(struct local *local, const struct local_lane *lane, uint64_t now_ns)
{
    struct load load;
    uint64_t still_ns;

    still_ns = stands_still_ns(local, lane, now_ns);
    local->lane = *lane;
    if (lane->running_ns == 0)
        local->lane.running_ns = still_ns;
    /* It never takes workers by itself, so a larger count is no news. */
    if (lane->worker_count < local->lane_now)
        local->lane_now = lane->worker_count;
    if (local->turn == TURN_LASTS && now_ns >= local->turn_end_ns)
        local->turn = TURN_OVER;
    if (local->turn == TURN_BEGINS && local->lane_told == local->lane_target) {
        local->turn = TURN_LASTS;
        local->turn_end_ns = now_ns + LOCAL_TURN_NS;
    }
    dispatch(local);

    local_load(local, &load);
    local->report_due |= reporter_look(&local->reporter, &load, now_ns);
}

uint64_t local_deadline(const struct local *local)
{
    if (local->turn == TURN_BEGINS)
        return 0;
    if (local->turn == TURN_LASTS && local->turn_end_ns < local->reporter.deadline_ns)
        return local->turn_end_ns;
    return local->reporter.deadline_ns;
}

void local_load(const struct local *local, struct load *out)
{
    uint64_t busy_parts =
        local->held.core_parts + (uint64_t)local->lane.running_count * RESOURCES_CORE;
    uint64_t have_parts = local->options.have.core_parts;

    *out = (struct load){
        .worker_count = local->options.worker_count,
        .running_count = local->lane.running_count + local->running_count,
        .queued_count = local->lane.queued_count + local->queued_count,
        .mean_task_ns = local->lane.mean_task_ns,
        .running_ns = local->lane.running_ns,
        .arrived_count = local->lane.arrived_count,
        .bytes_per_s = local->lane.bytes_per_s,
        .free = {busy_parts < have_parts ? have_parts - busy_parts : 0,
                 local->options.have.memory_bytes - local->held.memory_bytes},
    };
}

bool local_next(struct local *local, struct local_action *out)
{
    uint32_t at = local->tell.head;

    if (local->lane_told != local->lane_target) {
        local->lane_told = local->lane_target;
        local->lane_now = lane_holds(local); /* until it says that it uses fewer */
        *out =
            (struct local_action){.kind = LOCAL_LANE_WORKERS, .worker_count = local->lane_target};
        return true;
    }
    if (at != INDEX_NONE) {
        struct task *task = &local->tasks[at];

        list_remove(local, &local->tell, at);
        *out = (struct local_action){.task = task->id,
                                     .kind = task->state == HANDED     ? LOCAL_HAND_OVER
                                             : task->state == STARTING ? LOCAL_RUN
                                                                       : LOCAL_RESUME};
        if (task->state == HANDED)
            forget(local, at);
        else
            task->state = RUNNING;
        return true;
    }
    if (local->report_due) {
        local->report_due = false;
        *out = (struct local_action){.kind = LOCAL_REPORT};
        return true;
    }
    return false;
}

enum moray_code local_create(const struct local_options *options, struct local **out,
                             struct moray_error *error)
{
    struct local *local;

    *out = NULL;
    if (options->have.core_parts < RESOURCES_CORE)
        return error_set(error, MORAY_INVALID, "rank %u offers no whole core", options->rank);
    if (options->worker_count == 0 ||
        options->worker_count > options->have.core_parts / RESOURCES_CORE)
        return error_set(error, MORAY_INVALID,
                         "rank %u has %u workers for %" PRIu64
                         " cores; it needs 1 at least, and 1 a core at most",
                         options->rank, options->worker_count,
                         options->have.core_parts / RESOURCES_CORE);
    local = calloc(1, sizeof(*local));
    if (!local)
        return error_set(error, MORAY_NO_MEMORY, "no memory for rank %u's scheduler",
                         options->rank);

    local->options = *options;
    local->reporter.report_ns = options->report_ns ? options->report_ns : 100 * 1000 * 1000;
    local->reporter.hungry_ns = options->hungry_ns ? options->hungry_ns : 500 * 1000;
    local->reporter.deadline_ns = UINT64_MAX;
    local->unused = local->spare_claims = local->queue = local->returning = local->tell =
        (struct list){INDEX_NONE, INDEX_NONE};
    local->lane_target = local->lane_now = local->lane_told = options->worker_count;
    local->tasks = calloc(options->worker_count, sizeof(*local->tasks));
    if (!local->tasks || capacity_set(&local->offered, &options->have, 1, NULL) != MORAY_OK) {
        free(local->tasks);
        free(local);
        return error_set(error, MORAY_NO_MEMORY, "no memory for rank %u's scheduler",
                         options->rank);
    }
    /* One record for each claim that the lane can ever have. */
    local->capacity = options->worker_count;
    for (uint32_t at = 0; at < local->capacity; at++)
        list_append(local, &local->spare_claims, at);
    *out = local;
    return MORAY_OK;
}

void local_destroy(struct local *local)
{
    if (!local)
        return;
    index_clear(&local->by_id);
    free(local->tasks);
    capacity_clear(&local->offered);
    free(local);
}
