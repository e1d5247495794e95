#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/array.h"
#include "base/log.h"
#include "base/time.h"
#include "node/agent.h"
#include "node/guard.h"
#include "node/head.h"
#include "node/remote.h"
#include "node/routes.h"
#include "sched/lane/repair.h"
#include "store/arena/window.h"

/*
 * Processes of the node, by slot:
 *
 *     UNUSED ─spawn─▶ STARTING ─started─▶ RUNNING ─exited─▶ (repair) ─▶ STARTING again, or UNUSED
 *
 * A worker that dies is replaced at once; what it ran is told to the task's owner or tried again. Where
 * QUICK_DEATHS_MAX in a row die before their first task, the job ends. A spare is started when a process
 * that waits has left its core and work lies about; it stays.
 */

enum { QUICK_DEATHS_MAX = 20 };

static const uint64_t STUCK_NS = 2000000000;
static const uint64_t FORK_AGAIN_NS = TIME_NS_PER_S, FORK_TOLD_NS = 60 * TIME_NS_PER_S;

/* The first hardware thread of a core of ours; -1: workers are not bound. */
static int32_t topology_first_cpu(const struct topology_choice *choice, int core)
{
    if (core < 0 || !choice->place_count)
        return -1;
    const struct topology_set *place = &choice->places[(uint32_t)core % choice->place_count];
    for (int word = 0; word < TOPOLOGY_CPUS_MAX / 64; word++)
        if (place->bits[word])
            return word * 64 + __builtin_ctzll(place->bits[word]);
    return -1;
}

/* ---- In the new process ---- */

static const char *task_name(void)
{
    return run_name();
}

void process_entry(void *context, const struct process_order *order)
{
    static char name[32];
    int32_t worker_index;
    uint32_t actor;

    (void)context;
    memcpy(&worker_index, order->payload, sizeof(worker_index));
    memcpy(&actor, order->payload + 4, sizeof(actor));
    log_start((enum log_level)agent.settings.log, (int)agent.rank);
    snprintf(name, sizeof(name), order->kind == PROCESS_ACTOR ? "actor %u" : "worker %u",
             order->slot);
    guard_install(&(struct guard_options){.rank = agent.rank, .process = name, .task = task_name});
    me.slot = order->slot;
    me.role = order->kind == PROCESS_ACTOR ? ROLE_ACTOR : ROLE_WORKER;
    me.owner = agent.rank + 1;
    me.window = agent.window;
    me.rank = agent.rank;
    me.rank_count = agent.rank_count;
    me.alone = agent.rank_count == 1;
    me.doorbell = agent.doorbell;
    me.token = -1;
    thread_owner = true;
    struct lane_control *control = window_rw(agent.window, 0);
    me.node = (struct node_shared *)control->node;
    if (me.node->core_count > agent.cores.core_count && agent.cores.place_count) {
        agent.cores.place_count = 0; /* more workers than cores: they float (topology.h) */
        topology_bind(&agent.cores, -1);
    }
    if (lane_attach(&me.lane, control, order->slot,
                    order->kind == PROCESS_ACTOR ? LANE_IS_ACTOR : LANE_IS_WORKER, process_wake,
                    NULL) != MORAY_OK)
        process_end(1);
    atomic_store(&me.lane.self->pid, (uint32_t)getpid());
    atomic_store(&me.lane.self->cpu, topology_first_cpu(&agent.cores, order->core));
    atomic_store(&me.lane.self->incarnation, order->incarnation);
    if (order->kind == PROCESS_ACTOR)
        actor_main(actor);
    else
        worker_main(worker_index, worker_index < 0);
    process_leave();
}

/* ---- Starting ---- */

bool workers_spawn(uint16_t slot, enum process_kind kind, int core, int worker_index,
                   uint32_t actor)
{
    struct slot_state *state = &agent.slots[slot];
    struct process_order order = {
        .slot = slot, .kind = (uint16_t)kind, .incarnation = ++state->incarnation, .core = core};
    int32_t index = worker_index;
    struct moray_error error;

    memcpy(order.payload, &index, sizeof(index));
    memcpy(order.payload + 4, &actor, sizeof(actor));
    if (kind != PROCESS_ACTOR && slot >= atomic_load(&agent.node->slot_first_actor))
        atomic_store(&agent.node->slot_first_actor, slot + 1u);
    state->use = SLOT_STARTING;
    state->kind = kind == PROCESS_ACTOR ? LANE_IS_ACTOR : LANE_IS_WORKER;
    state->worker_index = worker_index;
    state->actor = actor;
    state->general = 0;
    state->killed_by_us = false;
    state->ran_before = atomic_load_explicit(&agent.lane.slots[slot].ran, memory_order_relaxed);
    if (zygote_spawn(agent.zygote, &order, &error) == MORAY_OK)
        return true;
    log_error("cannot start a process: %s", error.text);
    state->use = SLOT_UNUSED;
    agent.workers_missing |= kind == PROCESS_WORKER;
    agent.fork_again_ns = agent.now_ns + FORK_AGAIN_NS;
    return false;
}

bool workers_spawn_spare(void)
{
    for (uint32_t slot = agent.spare_first;
         slot < agent.spare_end && agent.now_ns >= agent.fork_again_ns; slot++)
        if (agent.slots[slot].use == SLOT_UNUSED)
            return workers_spawn((uint16_t)slot, PROCESS_SPARE, -1, -1, 0);
    return false;
}

/* Those that could not be started are tried again. */
static void workers_refill(void)
{
    if (!agent.workers_missing || agent.now_ns < agent.fork_again_ns)
        return;
    agent.workers_missing = false;
    for (uint32_t i = 0; i < agent.worker_count; i++)
        if (agent.slots[2 + i].use == SLOT_UNUSED)
            workers_spawn((uint16_t)(2 + i), PROCESS_WORKER, (int)i, (int)i, 0);
}

bool workers_start(void)
{
    for (uint32_t i = 0; i < agent.worker_count; i++)
        if (!workers_spawn((uint16_t)(2 + i), PROCESS_WORKER, (int)i, (int)i, 0))
            return false;
    return true;
}

uint32_t workers_free_actor_slot(void)
{
    for (uint32_t slot = agent.actor_first; slot < agent.slot_count; slot++)
        if (agent.slots[slot].use == SLOT_UNUSED)
            return slot;
    return 0;
}

/* All processes wait, and there can be no more: of those that wait, one that needs a task which lies
 * there runs it on its own stack. */
static void waiters_help(uint32_t free_cores)
{
    uint32_t generation, last = RECORD_NONE;

    for (uint32_t slot = 2; slot < agent.spare_end && free_cores; slot++) {
        uint32_t waits = atomic_load(&agent.lane.slots[slot].waits);
        if (!(waits & LANE_HELPS) || agent.slots[slot].use != SLOT_RUNNING)
            continue;
        uint32_t needed = lane_needed(&agent.lane, (waits & ~LANE_HELPS) - 1, &generation);
        if (needed == RECORD_NONE || needed == last)
            continue;
        lane_wake(&agent.lane, (uint16_t)slot);
        last = needed;
        free_cores--;
    }
}

static uint64_t ran_sum(void)
{
    uint64_t ran = 0;

    for (uint32_t slot = 2; slot < agent.spare_end; slot++)
        ran += atomic_load_explicit(&agent.lane.slots[slot].ran, memory_order_relaxed);
    return ran;
}

/* Who waits in moray_wait, or with a time limit, runs nothing meanwhile, and nobody runs in a wait what asks
 * for cores, memory or a place (decisions.md, 25). */
static void stuck_look(uint64_t since_ns)
{
    uint32_t spares = agent.spare_end - agent.spare_first;
    uint64_t ran = ran_sum();

    agent.stuck_ns = since_ns && ran == agent.stuck_ran ? since_ns : agent.now_ns;
    agent.stuck_ran = ran;
    if (agent.stuck_told || agent.now_ns < agent.fork_again_ns ||
        agent.now_ns - agent.stuck_ns < STUCK_NS)
        return;
    agent.stuck_told = true;
    if (!lane_has_work(&agent.lane)) {
        log_warning(
            "a task that has its cores finds no process: all %u workers and %u spares of this "
            "rank have tasks, of which none has ended for some time; raise MORAY_SPARES_MAX "
            "(it is %u)",
            agent.worker_count, spares, spares);
        return;
    }
    log_warning("tasks lie ready and a core is free, but all %u workers and %u spares of this rank "
                "wait for other tasks; raise MORAY_SPARES_MAX (it is %u), or let tasks wait by "
                "moray_get without a limit, which runs what it waits for",
                agent.worker_count, spares, spares);
}

static bool spare_may_come(void)
{
    for (uint32_t slot = agent.spare_first; slot < agent.spare_end; slot++)
        if (agent.slots[slot].use == SLOT_UNUSED || agent.slots[slot].use == SLOT_STARTING)
            return true;
    return false;
}

/* A further process, where a core is free because its process waits, and nobody is there to use it:
 * for the work that lies about, or comes next. */
void workers_spare(void)
{
    uint32_t cores = atomic_load(&agent.node->lane_workers), free_cores = 0, at_hand = 0;
    uint64_t stuck_ns = agent.stuck_ns;

    agent.spareless = false;
    agent.stuck_ns = 0;
    if (!agent.worker_count)
        return;
    if (general_lacks_a_process() && !spare_may_come())
        stuck_look(stuck_ns);
    if (cores > agent.node->core_count)
        cores = agent.node->core_count;
    for (uint32_t core = 0; core < cores; core++)
        free_cores += atomic_load(&agent.node->tokens[core]) == 0;
    if (!free_cores)
        return;
    for (uint32_t slot = 2; slot < agent.spare_end; slot++) {
        const struct slot_state *state = &agent.slots[slot];
        at_hand +=
            state->use == SLOT_STARTING || (state->use == SLOT_RUNNING && !state->general &&
                                            (lane_bit(agent.node->coreless, slot) ||
                                             (!atomic_load(&agent.lane.slots[slot].top) &&
                                              !atomic_load(&agent.lane.slots[slot].asleep))));
    }
    if (at_hand) {
        if (lane_has_work(&agent.lane))
            cores_offer(&agent.lane, agent.node);
        return;
    }
    if (workers_spawn_spare())
        return;
    agent.spareless = true;
    if (lane_has_work(&agent.lane)) {
        lane_rouse(&agent.lane); /* it may be us who were woken in the stead of an idle worker */
        waiters_help(free_cores);
        stuck_look(stuck_ns);
    }
}

void core_bind(int core)
{
    if (topology_bind(&agent.cores, core) == 0)
        atomic_store(&me.lane.self->cpu, topology_first_cpu(&agent.cores, core));
}

void workers_kill(uint16_t slot, int signal)
{
    struct moray_error error;

    if (agent.slots[slot].use == SLOT_STARTING || agent.slots[slot].use == SLOT_RUNNING)
        (void)!zygote_kill(agent.zygote, slot, agent.slots[slot].incarnation, signal, &error);
}

/* ---- Deaths ---- */

bool wait_story(int status, char *text, size_t bytes)
{
    if (status == WAIT_NEVER_STARTED) {
        snprintf(text, bytes, "not started: no further process could be made");
        return false;
    }
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        snprintf(text, bytes, "killed by signal %d (SIG%s)", WTERMSIG(status), name ? name : "?");
        return false;
    }
    snprintf(text, bytes, "ended by exit(%d)", WEXITSTATUS(status));
    return WEXITSTATUS(status) == 0;
}

static struct {
    uint16_t slot;
    int status;
    pid_t pid;
} dead;

void workers_push_ready(uint32_t index)
{
    struct record *record = lane_record(&agent.lane, index);

    if (record->kind != RECORD_TASK || life_state(record_life(record)) != RECORD_QUEUED)
        return;
    uint64_t tail = atomic_load(&agent.lane.self->tail), head = atomic_load(&agent.lane.self->head);
    if (tail - head < agent.lane.ring_mask / 2) {
        lane_push_hint(&agent.lane, index);
        return;
    }
    agent.ready_overflow = array_grown(agent.ready_overflow, agent.ready_overflow_count,
                                       &agent.ready_overflow_capacity, sizeof(uint32_t));
    agent.ready_overflow[agent.ready_overflow_count++] = index;
}

static void dead_running(void *context, uint32_t index, bool innermost)
{
    struct record *record = lane_record(&agent.lane, index);
    uint32_t attempt = life_attempt(record_life(record)) + 1;
    uint32_t charge = innermost && !agent.slots[dead.slot].killed_by_us;
    char how[64], what[512];

    (void)context;
    if (record->kind ==
        RECORD_OBJECT) { /* a further result that it was sealing: its task will again */
        lane_requeue_dead(&agent.lane, index, 0);
        return;
    }
    if (record->kind == RECORD_REQUEST) {
        lane_adopt_dead(&agent.lane, index);
        agent_end_failed(index, MORAY_DIED, "its process died");
        return;
    }
    if (record->kind == RECORD_METHOD || agent.slots[dead.slot].kind == LANE_IS_ACTOR) {
        if (actors_running_dead(index))
            return;
    }
    if (!innermost || record->attempts_max == 0 || attempt < record->attempts_max ||
        agent.slots[dead.slot].killed_by_us) {
        /* Run again without charge it would meet the same death, again and again. */
        if (!innermost)
            atomic_fetch_or(&record->flags, RECORD_ALONE);
        lane_requeue_dead(&agent.lane, index, charge);
        agent.retries++;
        return;
    }
    wait_story(dead.status, how, sizeof(how));
    record_describe(&agent.lane, record, what, sizeof(what));
    lane_adopt_dead(&agent.lane, index);
    agent_end_failed(
        index, MORAY_DIED,
        "%s: its process (worker %u, pid %d, rank %u, host %s) was %s in attempt %u of "
        "%u",
        what, dead.slot, (int)dead.pid, agent.rank, agent.node->host, how, attempt,
        record->attempts_max);
}

static void dead_queued(void *context, uint32_t index)
{
    struct record *record = lane_record(&agent.lane, index);
    uint16_t flags = record_flags(record);

    (void)context;
    /* Whoever was to post it to the agent may have died before; twice in the mailbox is harmless. Without a
     * cell it is untold, and the next tick looks. */
    if ((flags & (RECORD_GENERAL | RECORD_FAR_CALL)) || record->kind == RECORD_REQUEST)
        (void)!lane_post(&agent.lane, LANE_AGENT, index, life_generation(record_life(record)),
                         CELL_CALL, 0);
    else
        workers_push_ready(index);
}

static void dead_call(void *context, uint32_t index)
{
    (void)context;
    actors_call_dead(index);
}

static void dead_cancelled(void *context, uint32_t index)
{
    (void)context;
    story_fill(&agent.lane, agent.window, index, MORAY_CANCELLED,
               "the process that submitted it died, and nobody else holds it");
}

static void dead_ended(void *context, uint32_t index)
{
    (void)context;
    remote_ended(index, life_generation(record_life(lane_record(&agent.lane, index))));
}

static const struct repair_calls repair_calls = {.running = dead_running,
                                                 .queued = dead_queued,
                                                 .call = dead_call,
                                                 .cancelled = dead_cancelled,
                                                 .ended = dead_ended};

/* The same, from the agent's own look at all records: it needs no cell. */
static void untold_queued(void *context, uint32_t index)
{
    (void)context;
    agent_take_call(index, life_generation(record_life(lane_record(&agent.lane, index))));
}

static void untold_call(void *context, uint32_t index)
{
    (void)context;
    actors_call_untold(index);
}

static const struct repair_calls untold_calls = {
    .queued = untold_queued, .call = untold_call, .ended = dead_ended};

static void free_core_of(uint16_t slot)
{
    for (uint32_t core = 0; core < agent.node->core_count; core++) {
        uint64_t his = slot + 1u;
        if (atomic_compare_exchange_strong(&agent.node->tokens[core], &his, 0))
            cores_offer(&agent.lane, agent.node);
    }
    lane_bit_clear(agent.node->wanting, slot);
    lane_bit_clear(agent.node->coreless, slot);
}

/* Repairs the slot of a dead process and fills it again. While a living process walks the list that the
 * dead was working on, it is tried again a moment later. */
static void bury(uint16_t slot)
{
    struct slot_state *state = &agent.slots[slot];

    dead.slot = slot;
    dead.status = state->status;
    dead.pid = state->pid;
    if (!lane_repair(&agent.lane, slot, &repair_calls)) {
        state->use = SLOT_REPAIRING;
        agent.unjudged = true;
        return;
    }
    atomic_store(&agent.lane.slots[slot].kind, LANE_NOBODY);
    atomic_store(&agent.lane.slots[slot].blocked, 0);
    state->use = SLOT_UNUSED;
    if (atomic_load(&agent.node->ending))
        return;
    if (state->subscribed) {
        uint32_t gone = slot;
        state->subscribed = false;
        head_tell(HEAD_PROCESS_GONE, &gone, sizeof(gone));
    }
    state->use =
        SLOT_RESERVED; /* what is placed anew here may start a process, but not in this slot */
    general_process_died(slot);
    routes_drop_holder(slot);
    state->use = SLOT_UNUSED;
    if (state->kind == LANE_IS_ACTOR)
        actors_process_died(slot, state->actor, state->status);
    else
        workers_spawn(slot, state->worker_index < 0 ? PROCESS_SPARE : PROCESS_WORKER,
                      state->worker_index, state->worker_index, 0);
}

/* Who dies before its first task will in its next process, too: that has an end. Before its repair. */
static void quick_death(uint16_t slot)
{
    static uint32_t count;
    static uint64_t ran_at_last;
    const struct slot_state *state = &agent.slots[slot];
    const struct lane_slot *lane_slot = &agent.lane.slots[slot];
    char how[64];

    if (state->kind == LANE_IS_ACTOR || state->killed_by_us || agent.chaos_mean_ns ||
        atomic_load(&lane_slot->top) || atomic_load(&lane_slot->ran) != state->ran_before)
        return;
    if (ran_sum() != ran_at_last)
        count = 0;
    ran_at_last = ran_sum();
    if (++count < QUICK_DEATHS_MAX)
        return;
    wait_story(state->status, how, sizeof(how));
    agent_fail(
        "rank %u on %s: %u worker processes in a row died before their first task%s; the last "
        "one (worker %u, pid %d) was %s",
        agent.rank, agent.node->host, count,
        atomic_load(&agent.node->setup_count) ? " (in a function given to moray_setup?)" : "", slot,
        (int)state->pid, how);
}

static void exited(const struct zygote_event *event)
{
    struct slot_state *state = &agent.slots[event->slot];

    output_finish(agent.output, event->slot, event->incarnation, agent.now_ns);
    if (event->incarnation != state->incarnation || state->use == SLOT_UNUSED)
        return;
    state->status = event->status;
    state->pid = event->pid;
    agent.deaths += !(WIFEXITED(event->status) && WEXITSTATUS(event->status) == 0);
    quick_death(event->slot);
    free_core_of(event->slot);
    bury(event->slot);
}

/* At a limit of processes: the job goes on with those there are. None is tried for a while, and those
 * that wait help themselves meanwhile; else each look would ask for one more. */
static void not_started(const struct zygote_event *event)
{
    struct slot_state *state = &agent.slots[event->slot];
    static uint64_t told_ns;

    if (!told_ns || agent.now_ns - told_ns > FORK_TOLD_NS) {
        told_ns = agent.now_ns;
        log_error("a process could not be started: %s; raise MORAY_PROCESSES_MAX or the limit of "
                  "processes (it is tried again every second)",
                  strerror(event->error_number));
    }
    agent.fork_again_ns = agent.now_ns + FORK_AGAIN_NS;
    state->use = SLOT_UNUSED;
    if (state->kind == LANE_IS_ACTOR)
        actors_process_died(event->slot, state->actor, WAIT_NEVER_STARTED);
    else if (state->worker_index >= 0)
        agent.workers_missing = true;
}

void workers_event(const struct zygote_event *event)
{
    struct slot_state *state = &agent.slots[event->slot];
    char label[OUTPUT_LABEL_BYTES];
    struct moray_error error;

    switch (event->kind) {
    case ZYGOTE_STARTED:
        if (event->incarnation == state->incarnation) {
            state->use = SLOT_RUNNING;
            state->pid = event->pid;
        }
        snprintf(label, sizeof(label), "%s %u", state->kind == LANE_IS_ACTOR ? "actor" : "worker",
                 event->slot);
        if (output_add(agent.output, event->slot, event->incarnation, event->pid, event->out_fd,
                       event->err_fd, label, &error) != MORAY_OK)
            log_warning("what process %d prints is lost: %s", (int)event->pid, error.text);
        break;
    case ZYGOTE_EXITED:
        exited(event);
        break;
    case ZYGOTE_FAILED:
        not_started(event);
        break;
    case ZYGOTE_LOST:
        agent_fail("rank %u on %s: its zygote (pid %d), which holds all workers, was killed",
                   agent.rank, agent.node->host, (int)zygote_pid(agent.zygote));
        break;
    }
}

/* ---- Time ---- */

static void chaos(void)
{
    uint32_t running = 0, victim = 0;

    if (!agent.chaos_mean_ns || agent.now_ns < agent.chaos_next_ns)
        return;
    /* An exponential gap from the seed: -ln(u), by a small table-free series. */
    double u = (rand_r(&agent.chaos_seed) + 1.0) / ((double)RAND_MAX + 2.0);
    agent.chaos_next_ns =
        agent.now_ns + (uint64_t)((double)agent.chaos_mean_ns * -__builtin_log(u)) + 1;
    for (uint32_t slot = 2; slot < agent.spare_end; slot++)
        running += agent.slots[slot].use == SLOT_RUNNING;
    if (!running)
        return;
    victim = (uint32_t)rand_r(&agent.chaos_seed) % running;
    for (uint32_t slot = 2; slot < agent.spare_end; slot++)
        if (agent.slots[slot].use == SLOT_RUNNING && victim-- == 0) {
            workers_kill((uint16_t)slot, SIGKILL);
            return;
        }
}

void workers_tick(void)
{
    agent.zygote_late = zygote_again(agent.zygote);
    chaos();
    workers_refill();
    workers_spare();
    parked_rouse(&agent.lane, agent.node);
    if (agent.unjudged) {
        agent.unjudged = false;
        for (uint32_t slot = 1; slot < agent.slot_count; slot++)
            if (agent.slots[slot].use == SLOT_REPAIRING)
                bury((uint16_t)slot);
    }
    if (atomic_load(&agent.lane.control->untold)) {
        agent.ready_overflow_count = 0; /* all of it is found anew */
        general_look();
        (void)!lane_tell_untold(&agent.lane, &untold_calls); /* else at the next look */
    }
    while (agent.ready_overflow_count) {
        uint64_t tail = atomic_load(&agent.lane.self->tail);
        uint64_t head = atomic_load(&agent.lane.self->head);
        if (tail - head >= agent.lane.ring_mask / 2)
            break;
        workers_push_ready(agent.ready_overflow[--agent.ready_overflow_count]);
    }
}

static uint32_t running_count(void)
{
    uint32_t count = 0;
    for (uint32_t slot = 1; slot < agent.slot_count; slot++)
        count += agent.slots[slot].use == SLOT_STARTING || agent.slots[slot].use == SLOT_RUNNING;
    return count;
}

void workers_end(unsigned limit_ms)
{
    uint64_t until = time_ns() + limit_ms * TIME_NS_PER_MS;
    struct zygote_event event;
    bool forced = false;

    for (uint32_t slot = 1; slot < agent.slot_count; slot++)
        lane_wake(&agent.lane, (uint16_t)slot);
    while (running_count() > 0) {
        uint64_t now = time_ns();
        agent.now_ns = now;
        if (now > until && forced)
            break;
        if (now > until - limit_ms * TIME_NS_PER_MS / 2 && !forced) {
            forced = true;
            for (uint32_t slot = 1; slot < agent.slot_count; slot++)
                workers_kill((uint16_t)slot, SIGKILL);
        }
        output_poll(agent.output, now);
        if (zygote_wait(agent.zygote, &event, 10)) {
            workers_event(&event);
            if (event.kind == ZYGOTE_LOST)
                break;
        }
        for (uint32_t slot = 2; slot < agent.slot_count; slot++)
            if (agent.slots[slot].use == SLOT_RUNNING)
                lane_wake(&agent.lane, (uint16_t)slot);
    }
}
