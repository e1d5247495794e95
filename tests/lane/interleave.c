/**
 * All ways in which two operations of the lane can meet, with up to two switches: A runs i
 * instructions, B runs j, A runs to its end, B to its end; for every i and j. Both are processes of
 * their own that run the objects of the library, stepped by ptrace. (A step is one instruction with all
 * that it does to memory: reorderings by the processor are the business of ThreadSanitizer.)
 *
 * Then each process goes on as it would, and without any repair all tasks must have run, with the right
 * values, once; and nothing may be in use that nobody holds. Last, everything is counted.
 *
 *   interleave [--stride=N] [--only=NAME]    every Nth i, and every Nth j, shifted; 1: all
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

#include "sched/lane/inside.h"
#include "tests/lane/lab.h"

enum { STEPS_MAX = 100000, ROUNDS = 2, MANY = 1000 };

struct meeting {
    const char *name;
    void (*setup)(struct world *world);
    uint16_t slot[LAB_PLAYERS];
    void (*act[LAB_PLAYERS])(struct world *world);
};

#define LANE(slot) (&world->lanes[slot])

static const struct meeting *current;

static uint32_t generation_of(const struct world *world, uint32_t index)
{
    return life_generation(record_life(lane_record(&world->lanes[AGENT], index)));
}

static void warm(struct world *world)
{
    for (uint16_t slot = 0; slot < KILL_SLOTS; slot++) {
        lane_abandon(LANE(slot), lane_make(LANE(slot), RECORD_TASK));
        pool_give(&LANE(slot)->cell_pool, cell_take(LANE(slot)));
    }
}

/* ---- Operations ---- */

static void driver_drops(struct world *world)
{
    lane_drop(LANE(DRIVER), world->a);
}

static void worker_drops(struct world *world)
{
    lane_drop(LANE(WORKER), world->a);
}

static void other_drops(struct world *world)
{
    lane_drop(LANE(OTHER), world->a);
}

static void worker_runs_a(struct world *world)
{
    node_run(LANE(WORKER), world->a);
}

static void other_runs_b(struct world *world)
{
    node_run(LANE(OTHER), world->b);
}

static void driver_submits_on_a(struct world *world)
{
    (void)!lane_depends(LANE(DRIVER), world->c, world->a, 0);
    (void)!lane_submit(LANE(DRIVER), world->c);
}

static void driver_submits_c(struct world *world)
{
    (void)!lane_submit(LANE(DRIVER), world->c);
}

static void driver_awaits_a(struct world *world)
{
    /* As a sleeper does: told that it has not ended, it must be woken. */
    uint32_t seen = atomic_load(&LANE(DRIVER)->self->wake);
    if (!lane_await(LANE(DRIVER), world->a))
        lab_shared->note = (uint64_t)1 << 32 | seen;
}

static void worker_pops(struct world *world)
{
    world->c = lane_next(LANE(WORKER));
}

static void other_steals(struct world *world)
{
    world->c = lane_steal_from(LANE(OTHER), WORKER);
}

static void other_steals_driver(struct world *world)
{
    world->c = lane_steal_from(LANE(OTHER), DRIVER);
}

static void worker_steals_driver(struct world *world)
{
    world->c = lane_steal_from(LANE(WORKER), DRIVER);
}

static void other_pushes(struct world *world)
{
    (void)!lane_submit(LANE(OTHER), world->c);
}

static void fill_nothing(void *context, uint32_t index)
{
    (void)context;
    (void)index;
}

static void driver_cancels_b(struct world *world)
{
    lane_cancel(LANE(DRIVER), world->b, generation_of(world, world->b), fill_nothing, NULL);
}

static void worker_claims_b(struct world *world)
{
    world->c =
        lane_claim(LANE(WORKER), world->b, generation_of(world, world->b)) ? world->b : RECORD_NONE;
}

static void driver_calls(struct world *world)
{
    (void)!lane_submit_call(LANE(DRIVER), world->c, ACTOR);
}

static void actor_reads(struct world *world)
{
    node_step(LANE(ACTOR));
}

static void other_settles(struct world *world)
{
    lane_settle_freed(LANE(OTHER));
}

static void driver_settles(struct world *world)
{
    lane_settle_freed(LANE(DRIVER));
}

/* As the agent does with a result that it fetches; this flag has no meaning after the end. */
static void other_flags_b(struct world *world)
{
    atomic_fetch_or(&lane_record(LANE(OTHER), world->b)->flags, RECORD_ALONE);
}

/* ---- Start states ---- */

/* Last holds: the driver's (home) and the worker's, of an object with a block. */
static void last_two_holds(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(DRIVER), 3, 600);
    lane_hold(LANE(WORKER), world->a);
}

static void last_two_foreign_holds(struct world *world)
{
    last_two_holds(world);
    lane_hold(LANE(OTHER), world->a);
    lane_drop(LANE(DRIVER), world->a);
}

static void running(struct world *world)
{
    warm(world);
    world->a = node_submit(LANE(DRIVER), NULL, 0, NULL);
    lane_claim(LANE(WORKER), world->a, generation_of(world, world->a));
}

static void running_and_owned(struct world *world)
{
    running(world);
    world_own(world, DRIVER, world->a, 1);
}

/* A task c that is to wait for a, which runs; somebody else holds it and will look. */
static void running_and_a_dependent(struct world *world)
{
    static const struct node_shape shape = {.kind = RECORD_TASK};
    running_and_owned(world);
    world->c = node_make(LANE(DRIVER), NULL, 0, &shape);
    struct record *record = lane_record(LANE(DRIVER), world->c);
    uint32_t *input = (uint32_t *)record->arguments;
    input[1] = world->a;
    input[2] = generation_of(world, world->a);
    record->argument_bytes = 16;
    record->reference_mask = 1;
    lane_hold(LANE(DRIVER), world->a);
    atomic_fetch_or(&record->flags, RECORD_HOLDS_INPUTS);
    world_own(world, DRIVER, world->c, 2);
}

static void running_and_made_dependent(struct world *world)
{
    running_and_owned(world);
    world->c = node_make(LANE(DRIVER), &world->a, 1, NULL);
    world_own(world, DRIVER, world->c, 2);
}

static void two_running_one_waits(struct world *world)
{
    running_and_owned(world);
    world->b = world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    lane_claim(LANE(OTHER), world->b, generation_of(world, world->b));
    world_own(world, DRIVER, node_submit(LANE(DRIVER), (uint32_t[]){world->a, world->b}, 2, NULL),
              3);
}

static void one_in_the_queue(struct world *world)
{
    warm(world);
    world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    uint32_t second = world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    uint32_t first = lane_next(LANE(WORKER)); /* a batch: the second lies in the worker's queue */
    node_run(LANE(WORKER), first);
    (void)second;
}

static void two_in_the_queue(struct world *world)
{
    world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    one_in_the_queue(world);
}

static void empty_queue_bit_set(struct world *world)
{
    warm(world);
    uint32_t before = world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    node_run(LANE(WORKER), lane_steal_from(LANE(WORKER), DRIVER));
    (void)before;
    lane_bit_set(LANE(DRIVER)->control->queues, DRIVER);
    LANE(OTHER)->empty_looks = MANY; /* so that it clears the bit at this look */
    world->c = world_own(world, DRIVER, node_make(LANE(DRIVER), NULL, 0, NULL), 1);
}

static void queue_of_other_empty(struct world *world)
{
    warm(world);
    world->c = world_own(world, OTHER, node_make(LANE(OTHER), NULL, 0, NULL), 1);
    lane_bit_set(LANE(OTHER)->control->queues, OTHER);
    LANE(WORKER)->empty_looks = MANY;
}

static void worker_steals_other(struct world *world)
{
    world->c = lane_steal_from(LANE(WORKER), OTHER);
}

static void five_of_the_driver(struct world *world)
{
    warm(world);
    for (int i = 0; i < 5; i++)
        world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
}

static void waits_for_a(struct world *world)
{
    running_and_owned(world);
    world->b = world_own(world, DRIVER, node_submit(LANE(DRIVER), &world->a, 1, NULL), 2);
    world->owned[1].may_fail = true;
}

static void queued_b(struct world *world)
{
    warm(world);
    world->b = world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, NULL), 1);
    world->owned[0].may_fail = true;
}

static void a_call_to_come(struct world *world)
{
    static const struct node_shape call = {.kind = RECORD_METHOD, .actor = ACTOR};
    warm(world);
    world_own(world, DRIVER, node_submit(LANE(DRIVER), NULL, 0, &call), 1);
    world->c = world_own(world, DRIVER, node_make(LANE(DRIVER), NULL, 0, &call), 1);
}

/* The home, which is another, looks at its freed records while two let the last holds go. */
static void freed_while_settled(struct world *world)
{
    warm(world);
    world->a = node_put(LANE(OTHER), 3, 600);
    lane_hold(LANE(WORKER), world->a);
    lane_drop(LANE(OTHER), world->a);
    lane_tick(LANE(OTHER));
}

/* Task b has ended; its home has not yet let its input go. */
static void ended_with_an_input(struct world *world)
{
    running_and_owned(world);
    world->b = world_own(world, DRIVER, node_submit(LANE(DRIVER), &world->a, 1, NULL), 2);
    world->owned[1].flags = RECORD_ALONE;
    node_run(LANE(WORKER), world->a);
    lane_claim(LANE(OTHER), world->b, generation_of(world, world->b));
    node_run(LANE(OTHER), world->b);
}

static const struct meeting meetings[] = {
    {"drop (home), drop", last_two_holds, {DRIVER, WORKER}, {driver_drops, worker_drops}},
    {"drop, drop (home away)",
     last_two_foreign_holds,
     {WORKER, OTHER},
     {worker_drops, other_drops}},
    {"drop, settle", freed_while_settled, {WORKER, OTHER}, {worker_drops, other_settles}},
    {"settle, flag", ended_with_an_input, {DRIVER, OTHER}, {driver_settles, other_flags_b}},
    {"finish, drop", running, {WORKER, DRIVER}, {worker_runs_a, driver_drops}},
    {"finish, depends",
     running_and_a_dependent,
     {WORKER, DRIVER},
     {worker_runs_a, driver_submits_on_a}},
    {"finish, submit",
     running_and_made_dependent,
     {WORKER, DRIVER},
     {worker_runs_a, driver_submits_c}},
    {"finish, finish", two_running_one_waits, {WORKER, OTHER}, {worker_runs_a, other_runs_b}},
    {"finish, await", running_and_owned, {WORKER, DRIVER}, {worker_runs_a, driver_awaits_a}},
    {"finish, cancel", waits_for_a, {WORKER, DRIVER}, {worker_runs_a, driver_cancels_b}},
    {"claim, cancel", queued_b, {WORKER, DRIVER}, {worker_claims_b, driver_cancels_b}},
    {"pop, steal: one", one_in_the_queue, {WORKER, OTHER}, {worker_pops, other_steals}},
    {"pop, steal: two", two_in_the_queue, {WORKER, OTHER}, {worker_pops, other_steals}},
    {"push, steal: none yet",
     queue_of_other_empty,
     {OTHER, WORKER},
     {other_pushes, worker_steals_other}},
    {"submit, steal: none yet",
     empty_queue_bit_set,
     {DRIVER, OTHER},
     {driver_submits_c, other_steals_driver}},
    {"steal, steal: a batch",
     five_of_the_driver,
     {WORKER, OTHER},
     {worker_steals_driver, other_steals_driver}},
    {"post, mail", a_call_to_come, {DRIVER, ACTOR}, {driver_calls, actor_reads}},
};

/* ---- Players ---- */

/* After its operation a player does what it would: runs what it has claimed, settles, looks for work. */
static void go_on(struct world *world, unsigned number)
{
    struct lane *lane = LANE(current->slot[number]);

    if (world->c != RECORD_NONE) {
        uint64_t life = record_life(lane_record(lane, world->c));
        if (life_state(life) == RECORD_RUNNING && life_slot(life) == lane->slot)
            node_run(lane, world->c);
    }
    while (node_step(lane))
        ;
}

static void play(struct world *world, unsigned number)
{
    current->act[number](world);
    atomic_store(&lab_shared->done[number], 1);
    raise(SIGTRAP);
    for (int round = 0; round < ROUNDS; round++) {
        go_on(world, number);
        raise(SIGTRAP);
    }
}

static void play_first(struct world *world)
{
    play(world, 0);
}

static void play_second(struct world *world)
{
    play(world, 1);
}

/* On to where it stops by itself. */
static void let_run(pid_t pid)
{
    int status;

    if (ptrace(PTRACE_CONT, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid ||
        !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
        lab_fail("a player did not come to its end", __LINE__, "status", 0);
}

/* ---- Labs ---- */

struct schedule {
    unsigned first; /* who begins: 0 or 1 */
    uint32_t i, j;  /* instructions before the first and the second switch */
};

/* How many instructions each takes alone. */
static void watch(const void *argument)
{
    static struct world world;
    unsigned number = *(const unsigned *)argument;
    pid_t pid;

    world_open(&world);
    current->setup(&world);
    lab_shared->steps[number] = 0;
    pid = player_start(&world, number, number ? play_second : play_first);
    while (player_step(pid, number))
        DEMAND(++lab_shared->steps[number] < STEPS_MAX, "too long", lab_shared->steps[number]);
    player_kill(pid);
}

static void check(struct world *world, bool awaited)
{
    struct lane *agent = LANE(AGENT);
    struct node_census census;

    for (uint32_t i = 0; i < world->owned_count; i++) {
        const struct owned *owned = &world->owned[i];
        struct record *record = lane_find(agent, owned->index, owned->generation);
        DEMAND(record, "a record that is held is gone", (unsigned long)owned->index);
        uint64_t life = record_life(record);
        DEMAND(life_ended(life), "a task was lost", (unsigned long)life);
        DEMAND(life_state(life) == RECORD_DONE ? node_value(agent, owned->index) == owned->value
                                               : owned->may_fail,
               "a result is wrong", (unsigned long)life);
    }
    for (uint32_t i = 0; i < world->owned_count; i++)
        DEMAND((record_flags(lane_record(agent, world->owned[i].index)) & world->owned[i].flags) ==
                   world->owned[i].flags,
               "a flag was lost", (unsigned long)i);
    if (awaited)
        DEMAND((uint32_t)lab_shared->note != atomic_load(&LANE(DRIVER)->self->wake),
               "nobody woke the sleeper", (unsigned long)lab_shared->note);
    node_census(&world->node, NULL, &census);
    DEMAND(census.records == world->owned_count, "records in use that nobody holds",
           (unsigned long)census.records);
    DEMAND(census.cells == 0, "cells in use", (unsigned long)census.cells);
}

static void bury(struct world *world, uint16_t slot)
{
    struct repair_calls calls = node_repair_calls(LANE(AGENT));

    lane_detach(LANE(slot));
    DEMAND(lane_repair(LANE(AGENT), slot, &calls), "a repair was put off at rest",
           (unsigned long)slot);
    node_attach(&world->node, LANE(slot), slot, world_kind(slot));
}

static void meet(const void *argument)
{
    static struct world world;
    const struct schedule *schedule = argument;
    unsigned a = schedule->first, b = 1 - a;
    uint32_t players = 1u << current->slot[0] | 1u << current->slot[1];
    pid_t pids[LAB_PLAYERS];

    world_open(&world);
    world.c = RECORD_NONE;
    lab_shared->note = 0;
    current->setup(&world);
    pids[0] = player_start(&world, 0, play_first);
    pids[1] = player_start(&world, 1, play_second);
    for (uint32_t step = 0; step < schedule->i && player_step(pids[a], a);)
        step++;
    for (uint32_t step = 0; step < schedule->j && player_step(pids[b], b);)
        step++;
    let_run(pids[a]);
    let_run(pids[b]);
    for (int round = 0; round < ROUNDS; round++) {
        world_live(&world, players);
        let_run(pids[a]);
        let_run(pids[b]);
    }
    world_live(&world, players);
    check(&world, lab_shared->note != 0);
    player_kill(pids[0]);
    player_kill(pids[1]);
    bury(&world, current->slot[0]);
    bury(&world, current->slot[1]);
    for (uint32_t i = 0; i < world.owned_count; i++)
        if (!(players >> world.owned[i].slot & 1))
            lane_drop(&world.lanes[world.owned[i].slot], world.owned[i].index);
    world_live(&world, 0);
    world_count(&world);
}

static unsigned long run_meeting(uint32_t stride, unsigned long *count)
{
    unsigned long failures = 0, schedules = 0;
    unsigned numbers[LAB_PLAYERS] = {0, 1};
    struct timespec began, ended;

    clock_gettime(CLOCK_MONOTONIC, &began);
    snprintf(lab_shared->what, sizeof(lab_shared->what), "%s", current->name);
    for (int i = 0; i < LAB_PLAYERS; i++)
        if (!lab_run(watch, &numbers[i])) {
            printf("not ok: %s\n", lab_shared->failure);
            return 1;
        }
    uint32_t steps[LAB_PLAYERS] = {lab_shared->steps[0], lab_shared->steps[1]};
    for (unsigned first = 0; first < LAB_PLAYERS; first++)
        for (uint32_t i = 0; i <= steps[first]; i += stride)
            for (uint32_t j = i % stride; j <= steps[1 - first]; j += stride) {
                struct schedule schedule = {first, i, j};
                snprintf(lab_shared->what, sizeof(lab_shared->what), "%s: %u begins, %u, %u",
                         current->name, first, i, j);
                schedules++;
                if (!lab_run(meet, &schedule) && failures++ == 0)
                    printf("not ok: %s\n", lab_shared->failure);
            }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%-26s %6u %6u %8lu %7.2f s%s\n", current->name, steps[0], steps[1], schedules,
           (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) * 1e-9,
           failures ? "  FAILED" : "");
    fflush(stdout);
    *count += schedules;
    return failures;
}

int main(int argc, char **argv)
{
    uint32_t stride = 1;
    const char *only = NULL;
    unsigned long failures = 0, count = 0;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--stride=", 9) == 0)
            stride = (uint32_t)atoi(argv[i] + 9);
        else if (strncmp(argv[i], "--only=", 7) == 0)
            only = argv[i] + 7;
        else {
            fprintf(stderr, "usage: %s [--stride=N] [--only=NAME]\n", argv[0]);
            return 2;
        }
    }
    if (stride == 0 || !lab_open())
        return 2;
    printf("%-26s %6s %6s %8s\n", "operations", "instr.", "instr.", "ways");
    for (unsigned i = 0; i < sizeof(meetings) / sizeof(meetings[0]); i++) {
        current = &meetings[i];
        if (!only || strcmp(only, current->name) == 0)
            failures += run_meeting(stride, &count);
    }
    printf("%lu ways to meet, %lu broken\n", count, failures);
    return failures != 0;
}
