#include "tests/lane/lab.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

struct lab_shared *lab_shared;

extern const char __executable_start[];

_Noreturn void lab_fail(const char *condition, int line, const char *what, unsigned long value)
{
    snprintf(lab_shared->failure, sizeof(lab_shared->failure), "%s: %s: %s (%lu), line %d",
             lab_shared->what, what, condition, value, line);
    _exit(1);
}

/* Lab and players take turns: on one core a step costs a switch, on two a wake-up. */
static void stay_on_one_core(void)
{
    cpu_set_t one;
    int core = sched_getcpu();

    CPU_ZERO(&one);
    CPU_SET(core < 0 ? 0 : core, &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
}

bool lab_open(void)
{
    lab_shared =
        mmap(NULL, sizeof(*lab_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    stay_on_one_core();
    return lab_shared != MAP_FAILED;
}

bool lab_run(void (*lab)(const void *argument), const void *argument)
{
    int status;
    pid_t pid;

    lab_shared->failure[0] = 0;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(600);
        lab(argument);
        _exit(0);
    }
    while (waitpid(pid, &status, 0) != pid)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        exit(77);
    if (status != 0 && !lab_shared->failure[0])
        snprintf(lab_shared->failure, sizeof(lab_shared->failure),
                 "%s: the lab ended with status %x", lab_shared->what, (unsigned)status);
    return status == 0;
}

/* ---- Players ---- */

pid_t player_start(struct world *world, unsigned number, void (*act)(struct world *world))
{
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(2);
        raise(SIGTRAP);
        act(world);
        atomic_store(&lab_shared->done[number], 1);
        for (;;)
            pause();
    }
    atomic_store(&lab_shared->done[number], 0);
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        fprintf(stderr, "no process can be traced here\n");
        _exit(77);
    }
    return pid;
}

bool player_step(pid_t pid, unsigned number)
{
    int status;

    do { /* who stops the whole test, and lets it go on, is no part of it */
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid)
            lab_fail("ptrace", __LINE__, strerror(errno), 0);
    } while (WIFSTOPPED(status) && (WSTOPSIG(status) == SIGSTOP || WSTOPSIG(status) == SIGCONT));
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
        lab_fail("a player ended by itself", __LINE__, "status", (unsigned long)status);
    return !atomic_load(&lab_shared->done[number]);
}

unsigned long player_where(pid_t pid)
{
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0)
        return 0;
    return registers.rip - (unsigned long)__executable_start;
}

void player_kill(pid_t pid)
{
    int status;

    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

/* ---- The world ---- */

static const enum lane_slot_kind kinds[KILL_SLOTS] = {LANE_IS_AGENT, LANE_IS_DRIVER, LANE_IS_WORKER,
                                                      LANE_IS_WORKER, LANE_IS_ACTOR};

static uint32_t runs[4096];

enum lane_slot_kind world_kind(uint16_t slot)
{
    return kinds[slot];
}

static void count_run(uint32_t index, uint32_t generation)
{
    (void)generation;
    if (index < 4096)
        runs[index]++;
}

uint32_t world_own(struct world *world, uint16_t slot, uint32_t index, uint64_t value)
{
    uint64_t life = record_life(lane_record(&world->lanes[AGENT], index));

    if (world->owned_count == WORLD_OWNED_MAX || index == RECORD_NONE)
        abort();
    world->owned[world->owned_count++] = (struct owned){
        .index = index, .generation = life_generation(life), .value = value, .slot = slot};
    return index;
}

void world_open(struct world *world)
{
    *world = (struct world){0};
    node_open(&world->node, &(struct lane_options){.data_bytes = 1 << 20,
                                                   .slot_count = KILL_SLOTS,
                                                   .queue_max = 64,
                                                   .record_count = 8 * POOL_SLAB_ITEMS});
    for (uint16_t slot = 0; slot < KILL_SLOTS; slot++)
        node_attach(&world->node, &world->lanes[slot], slot, kinds[slot]);
}

void world_live(struct world *world, uint32_t without)
{
    bool any;
    int turns = 0;

    do {
        any = false;
        for (uint16_t slot = 0; slot < KILL_SLOTS; slot++)
            if (!(without >> slot & 1))
                any |= node_step(&world->lanes[slot]);
        DEMAND(++turns < 10000, "the living do not come to rest", turns);
    } while (any);
}

void world_note(struct world *world)
{
    for (uint32_t i = 0; i < world->owned_count; i++) {
        struct owned *owned = &world->owned[i];
        owned->at_death = life_state(record_life(lane_record(&world->lanes[AGENT], owned->index)));
    }
    memset(runs, 0, sizeof(runs));
    node_ran = count_run;
}

void world_check(struct world *world, const struct owned *owned)
{
    struct lane *lane = &world->lanes[AGENT];
    struct record *record = lane_find(lane, owned->index, owned->generation);
    bool ended_before = owned->at_death >= RECORD_DONE;

    DEMAND(record, "a record that is held is gone", (unsigned long)owned->index);
    uint64_t life = record_life(record);
    DEMAND(life_ended(life), "a task was lost", (unsigned long)life);
    if (life_state(life) == RECORD_DONE)
        DEMAND(node_value(lane, owned->index) == owned->value, "a result is wrong",
               (unsigned long)node_value(lane, owned->index));
    else
        DEMAND(owned->may_fail, "a task failed", (unsigned long)owned->index);
    if (record->kind != RECORD_OBJECT)
        DEMAND(runs[owned->index] == (ended_before || life_state(life) == RECORD_FAILED ? 0 : 1),
               "run twice, or not at all", (unsigned long)runs[owned->index]);
}

void world_count(struct world *world)
{
    struct lane *all[KILL_SLOTS];
    struct node_census census;

    for (int slot = 0; slot < KILL_SLOTS; slot++)
        all[slot] = &world->lanes[slot];
    node_census(&world->node, all, &census);
    DEMAND(census.records == 0, "records in use", (unsigned long)census.records);
    DEMAND(census.cells == 0, "cells in use", (unsigned long)census.cells);
    DEMAND(census.held_blocks == 0, "blocks in use", (unsigned long)census.held_blocks);
    node_lost(&world->node, world->lanes, &census);
    DEMAND(census.records_lost == 0, "records lost to the living",
           (unsigned long)census.records_lost);
    DEMAND(census.cells_lost == 0, "cells lost to the living", (unsigned long)census.cells_lost);
    DEMAND(census.blocks_lost == 0, "blocks lost to the living", (unsigned long)census.blocks_lost);
    DEMAND(census.pages_lost == 0, "pages lost to the living", (unsigned long)census.pages_lost);
    for (int slot = 0; slot < KILL_SLOTS; slot++)
        lane_detach(&world->lanes[slot]);
    node_count(&world->node, &census);
    DEMAND(census.records_lost == 0, "records lost", (unsigned long)census.records_lost);
    DEMAND(census.cells_lost == 0, "cells lost", (unsigned long)census.cells_lost);
    DEMAND(census.pages_lost == 0, "pages lost", (unsigned long)census.pages_lost);
}
