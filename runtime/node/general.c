#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/remote.h"
#include "sched/policy/local.h"

/*
 * Tasks that ask for more than one core, or less, or memory, or a place: the agent runs the local
 * scheduler (sched/policy/local) for them and gives each to a process of its own choice.
 *
 *     mailbox ─▶ local_submit ─▶ RUN: a process without other work gets it by mail
 *                             ─▶ HAND_OVER: to rank 0's scheduler, by the message lane
 *     its end ─▶ local_done ─▶ the next one
 * The lane's workers use the cores that are left: `lane_workers` says how many may take tasks.
 */

struct general { /* a task in the local scheduler */
    uint32_t index, generation;
    uint16_t slot; /* that runs it; 0: none yet */
    bool lent;     /* it sleeps, and its cores are used by others */
    bool resumes;  /* it would go on: RESUME will come */
};

static struct map known; /* record -> index + 1 in tasks */
static struct general *tasks;
static uint32_t task_count, task_capacity;
static uint32_t actors_waiting;                /* for their resources */
static uint32_t actors_asked[NODE_ACTORS_MAX]; /* how often, so that no id comes twice; odd: now */
static uint64_t next_lane_ns;

enum { LOOK_NS = 500000 };
static uint32_t *unassigned, unassigned_count, unassigned_capacity;

/* A task takes no clock: how long tasks run is measured here, at each look, by what each process has
 * run since the last one and whether it runs now. */
static struct seen {
    uint64_t ran, since_ns;
    bool runs;
} * seen;
static uint64_t looked_ns, mean_task_ns;

static uint64_t id_of(uint32_t index, uint32_t generation)
{
    return (uint64_t)generation << 32 | (index + 1);
}

static struct resources need_of(uint32_t index)
{
    const struct record_long *details = lane_long(&agent.lane, lane_record(&agent.lane, index));
    struct resources need = {.core_parts = 10000};

    if (details) {
        if (details->cores)
            need.core_parts = details->cores;
        need.memory_bytes = details->memory_bytes;
    }
    return need;
}

enum moray_code general_start(struct moray_error *error)
{
    struct local_options options = {
        .rank = agent.rank,
        .have = {.core_parts = (uint64_t)(agent.worker_count ? agent.worker_count : 1) * 10000,
                 .memory_bytes = window_memory_limit_of_node()},
        .worker_count = agent.worker_count ? agent.worker_count : 1,
        .near_bytes = agent.settings.near_bytes,
        .queue_max = agent.settings.spill_queue * (agent.worker_count ? agent.worker_count : 1),
        .alone = agent.rank_count == 1,
    };

    atomic_store(&agent.node->lane_workers, agent.worker_count);
    return local_create(&options, &agent.local, error);
}

void general_end(void)
{
    local_destroy(agent.local);
    agent.local = NULL;
    map_clear(&known);
    free(tasks);
    free(unassigned);
    free(seen);
    seen = NULL;
    tasks = NULL;
    unassigned = NULL;
    task_count = task_capacity = unassigned_count = unassigned_capacity = 0;
}

bool general_possible(const struct request_need *need, struct moray_error *error)
{
    struct resources asked = {.core_parts = need->cores ? need->cores : 10000,
                              .memory_bytes = need->memory_bytes};
    return remote_possible(asked, need->on_rank, error);
}

enum { ID_OF_ACTOR = 1u << 31 };

static uint64_t id_of_actor(uint32_t index)
{
    return (uint64_t)actors_asked[index] << 32 | ID_OF_ACTOR | index;
}

bool general_hold(uint32_t index, struct resources need, struct moray_error *error)
{
    actors_asked[index] += 1;
    struct local_task task = {.id = id_of_actor(index), .need = need, .place = LOCAL_HERE};

    if (local_submit(agent.local, &task, error) != MORAY_OK) {
        actors_asked[index] += 1;
        return false;
    }
    actors_waiting++;
    return true;
}

void general_let_go(uint32_t index)
{
    if (local_cancel(agent.local, id_of_actor(index)))
        actors_waiting--;
    else
        local_done(agent.local, id_of_actor(index));
    actors_asked[index] += 1;
}

static void grant(uint64_t id)
{
    uint32_t index = (uint32_t)id & ~(uint32_t)ID_OF_ACTOR;

    actors_waiting--;
    if (index < NODE_ACTORS_MAX && id_of_actor(index) == id)
        actors_granted(index);
    else
        local_done(agent.local, id);
}

/* Gives a task to the local scheduler, which runs it here or, where its place allows, hands it over. */
static void submit(uint32_t index, uint32_t generation, enum local_place place)
{
    struct local_task task = {
        .id = id_of(index, generation), .need = need_of(index), .place = place};
    struct moray_error error;

    if (place == LOCAL_ANYWHERE)
        task.missing_bytes = remote_missing(index, agent.rank);
    if (local_submit(agent.local, &task, &error) != MORAY_OK) {
        if (agent_claim(index, generation))
            agent_end_failed(index, error.code, "%s", error.text);
        return;
    }
    tasks = array_grown(tasks, task_count, &task_capacity, sizeof(*tasks));
    tasks[task_count] = (struct general){.index = index, .generation = generation};
    map_set(&known, index, ++task_count);
}

/* A process that has nothing to do: a spare, or a worker whose core the lane may not use. */
static uint32_t free_process(void)
{
    for (uint32_t i = 0; i < agent.spare_end - 2; i++) {
        uint32_t slot = agent.spare_end - 1 - i;
        const struct slot_state *state = &agent.slots[slot];
        const struct lane_slot *lane_slot = &agent.lane.slots[slot];
        if (state->use != SLOT_RUNNING || state->general || atomic_load(&lane_slot->top) ||
            atomic_load(&lane_slot->blocked))
            continue;
        if (state->worker_index < 0 ||
            (uint32_t)state->worker_index >= atomic_load(&agent.node->lane_workers))
            return slot;
    }
    return 0;
}

/* It has ended, or its record is another one by now. */
static bool is_over(const struct general *general)
{
    uint64_t life = record_life(lane_record(&agent.lane, general->index));
    return life_ended(life) || life_generation(life) != general->generation;
}

/* It is looked at again every millisecond. */
static void put_off(uint32_t number)
{
    unassigned =
        array_grown(unassigned, unassigned_count, &unassigned_capacity, sizeof(*unassigned));
    unassigned[unassigned_count++] = number;
}

bool general_lacks_a_process(void)
{
    return unassigned_count != 0;
}

static void assign(uint32_t number)
{
    struct general *general = &tasks[number];
    uint32_t slot = free_process();

    if (!slot) { /* one more process; it gets the task once it runs */
        put_off(number);
        (void)!workers_spawn_spare();
        return;
    }
    if (is_over(general) || lane_await(&agent.lane, general->index)) {
        general_ended(general->index); /* it was cancelled while it lay in the queue */
        return;
    }
    if (lane_post(&agent.lane, (uint16_t)slot, general->index, general->generation, CELL_CALL, 0) !=
        MORAY_OK) { /* until mail has been read */
        put_off(number);
        return;
    }
    general->slot = (uint16_t)slot;
    agent.slots[slot].general = id_of(general->index, general->generation);
}

/* A process ran it that had found the mail of a dead one, and has died too: whom the agent gave it to may have
 * looked meanwhile, in vain. Twice in a mailbox it is harmless. */
static void give_again(uint32_t number)
{
    const struct general *general = &tasks[number];

    if (general->slot && lane_post(&agent.lane, general->slot, general->index, general->generation,
                                   CELL_CALL, 0) != MORAY_OK) {
        agent.slots[general->slot].general = 0;
        tasks[number].slot = 0;
        put_off(number);
    }
}

void general_take(uint32_t index, uint32_t generation)
{
    struct record *record = lane_record(&agent.lane, index);
    const struct record_long *details = lane_long(&agent.lane, record);
    bool is_ours = lane_home(&agent.lane, index) != LANE_AGENT; /* it did not come by a message */

    general_ended(index); /* a former life of the record that was cancelled */
    if (life_state(record_life(record)) != RECORD_QUEUED)
        return;
    const uint64_t *at = map_get(&known, index);
    if (at) {
        give_again((uint32_t)*at - 1);
        return;
    }
    if (details && !(record_flags(record) & RECORD_PROXY) &&
        ((details->on_rank >= 0 && details->on_rank != (int32_t)agent.rank) || details->spread ||
         !agent.worker_count)) {
        if (remote_place(index, generation, details))
            return;
        is_ours = false;
    }
    submit(index, generation,
           is_ours && !(details && details->on_rank >= 0) ? LOCAL_ANYWHERE : LOCAL_HERE);
}

static void forget(uint32_t number)
{
    map_remove(&known, tasks[number].index, NULL);
    for (uint32_t i = 0; i < unassigned_count; i++)
        if (unassigned[i] == number)
            unassigned[i] = unassigned[--unassigned_count];
    if (number != --task_count) {
        tasks[number] = tasks[task_count];
        map_set(&known, tasks[number].index, number + 1);
        for (uint32_t i = 0; i < unassigned_count; i++)
            if (unassigned[i] == task_count)
                unassigned[i] = number;
    }
}

void general_ended(uint32_t index)
{
    uint64_t *at = map_get(&known, index);

    if (!at)
        return;
    uint32_t number = (uint32_t)*at - 1;
    struct general general = tasks[number];

    if (!is_over(&general))
        return; /* a word about the record's former life */
    uint64_t id = id_of(general.index, general.generation);

    if (general.slot && agent.slots[general.slot].general == id)
        agent.slots[general.slot].general = 0;
    if (!local_done(agent.local, id))
        local_cancel(agent.local, id);
    forget(number);
}

void general_look(void)
{
    for (uint32_t i = task_count; i-- > 0;) /* the last one takes the place of one that goes */
        general_ended(tasks[i].index);
}

void general_process_died(uint16_t slot)
{
    for (uint32_t i = 0; i < task_count; i++)
        if (tasks[i].slot == slot) {
            uint64_t life = record_life(lane_record(&agent.lane, tasks[i].index));
            agent.slots[slot].general = 0;
            if (life_ended(life) || life_generation(life) != tasks[i].generation) {
                general_ended(tasks[i].index);
                i--;
                continue;
            }
            tasks[i].slot = 0; /* it is QUEUED again, its resources still taken */
            if (tasks[i].lent && !tasks[i].resumes) {
                local_unblock(agent.local, id_of(tasks[i].index, tasks[i].generation));
                tasks[i].resumes = true;
            }
            if (!tasks[i].lent)
                assign(i);
        }
}

/* It has its cores again, and goes on; or begins again, if its process died meanwhile. */
static void resume(uint32_t number)
{
    struct general *general = &tasks[number];

    general->lent = general->resumes = false;
    if (!general->slot) {
        assign(number);
        return;
    }
    atomic_store(&agent.lane.slots[general->slot].blocked, SLOT_AWAKE);
    lane_wake(&agent.lane, general->slot);
}

/* Tasks that sleep in get or wait lend their cores (client/cores.c). */
static void lend_cores(void)
{
    for (uint32_t i = 0; i < task_count; i++) {
        struct general *general = &tasks[i];
        if (!general->slot)
            continue;
        _Atomic uint32_t *blocked = &agent.lane.slots[general->slot].blocked;
        uint32_t state = atomic_load(blocked);
        uint64_t id = id_of(general->index, general->generation);
        if (state == SLOT_LENDS && atomic_compare_exchange_strong(blocked, &state, SLOT_LENT)) {
            general->lent |= local_block(agent.local, id);
        } else if (state == SLOT_WANTS && !general->resumes) {
            if (general->lent)
                general->resumes = local_unblock(agent.local, id);
            if (!general->resumes)
                resume(i);
        }
    }
}

/* The queue here is too long for it, or its inputs lie elsewhere; it may be best here all the same. */
static void hand_over(uint32_t number)
{
    struct general general = tasks[number];

    forget(number);
    if (!is_over(&general) &&
        !remote_place(general.index, general.generation,
                      lane_long(&agent.lane, lane_record(&agent.lane, general.index))))
        submit(general.index, general.generation, LOCAL_HERE);
}

/* Where forks failed the unassigned have asked for a process in vain. */
static void spawn_for_unassigned(void)
{
    uint32_t starting = 0;

    for (uint32_t slot = agent.spare_first; slot < agent.spare_end; slot++)
        starting += agent.slots[slot].use == SLOT_STARTING;
    if (starting < unassigned_count)
        (void)!workers_spawn_spare();
}

void general_actions(void)
{
    struct local_action action;

    for (uint32_t looks = unassigned_count; looks > 0 && unassigned_count && free_process();
         looks--) {
        uint32_t number = unassigned[0];
        unassigned[0] = unassigned[--unassigned_count];
        assign(number);
    }
    if (unassigned_count && agent.fork_again_ns)
        spawn_for_unassigned();
    lend_cores();
    while (local_next(agent.local, &action)) {
        if (action.kind == LOCAL_RUN && ((uint32_t)action.task & ID_OF_ACTOR)) {
            grant(action.task);
            continue;
        }
        uint64_t *at = map_get(&known, (uint32_t)action.task - 1);
        switch (action.kind) {
        case LOCAL_RUN:
            if (at)
                assign((uint32_t)*at - 1);
            else
                local_done(agent.local, action.task);
            break;
        case LOCAL_LANE_WORKERS:
            atomic_store(&agent.node->lane_workers, action.worker_count < agent.worker_count
                                                        ? action.worker_count
                                                        : agent.worker_count);
            for (uint32_t slot = 2; slot < agent.spare_end; slot++)
                if (agent.slots[slot].use == SLOT_RUNNING &&
                    (agent.slots[slot].worker_index >= 0 || lane_bit(agent.node->wanting, slot) ||
                     lane_bit(agent.node->coreless, slot)))
                    lane_wake(&agent.lane, (uint16_t)slot);
            next_lane_ns = 0;
            break;
        case LOCAL_REPORT:
            remote_report();
            break;
        case LOCAL_RESUME:
            if (at)
                resume((uint32_t)*at - 1);
            break;
        case LOCAL_HAND_OVER:
            if (at)
                hand_over((uint32_t)*at - 1);
            break;
        }
    }
}

/* ---- The lane's counts ---- */

static void look_at(uint32_t slot, bool runs, uint64_t *finished, uint64_t *busy_ns,
                    uint64_t *age_ns)
{
    struct seen *last = &seen[slot];
    uint64_t ran = atomic_load_explicit(&agent.lane.slots[slot].ran, memory_order_relaxed);
    uint64_t passed = agent.now_ns - looked_ns;

    *finished += ran - last->ran;
    if (runs || last->runs || ran != last->ran)
        *busy_ns += runs && last->runs ? passed : passed / 2;
    if (!runs || ran != last->ran || !last->runs)
        last->since_ns = agent.now_ns;
    if (runs)
        *age_ns += agent.now_ns - last->since_ns + 1;
    last->ran = ran;
    last->runs = runs;
}

void general_load(struct local_lane *out)
{
    uint64_t finished = 0, busy_ns = 0, age_ns = 0;

    *out = (struct local_lane){0};
    if (!seen)
        seen = calloc(agent.slot_count, sizeof(*seen));
    for (uint32_t i = 0; i < agent.actor_first && seen; i++) {
        struct lane_slot *slot = &agent.lane.slots[i];
        const struct slot_state *state = &agent.slots[i];
        uint64_t head = atomic_load(&slot->head), tail = atomic_load(&slot->tail);
        if (tail > head)
            out->queued_count += tail - head;
        if (i < 2 || state->use != SLOT_RUNNING)
            continue;
        bool runs = atomic_load(&slot->top) && !state->general && !atomic_load(&slot->blocked);
        bool may = state->worker_index >= 0 &&
                   (uint32_t)state->worker_index < atomic_load(&agent.node->lane_workers);
        out->worker_count += may || (runs && state->worker_index >= 0);
        out->running_count += runs;
        look_at(i, runs, &finished, &busy_ns, &age_ns);
    }
    looked_ns = agent.now_ns;
    if (finished) {
        uint64_t sample = busy_ns / finished + 1;
        mean_task_ns = mean_task_ns ? (3 * mean_task_ns + sample) / 4 : sample;
    }
    out->mean_task_ns = mean_task_ns;
    out->running_ns = out->running_count ? age_ns / out->running_count : 0;
    out->arrived_count = remote_arrived();
}

void general_tick(void)
{
    struct local_lane lane;

    /* Only where general tasks or other nodes make it matter. */
    if (!agent.worker_count || (!task_count && !actors_waiting && agent.rank_count == 1))
        return;
    if (agent.now_ns - looked_ns < LOOK_NS && agent.now_ns < next_lane_ns)
        return;
    general_load(&lane);
    local_lane(agent.local, &lane, agent.now_ns);
    general_actions();
    next_lane_ns = local_deadline(agent.local);
}

uint64_t general_deadline(void)
{
    if (unassigned_count || ((task_count || actors_waiting) && agent.worker_count))
        return agent.now_ns + TIME_NS_PER_MS;
    return agent.rank_count > 1 && agent.worker_count && agent.local ? next_lane_ns : UINT64_MAX;
}
