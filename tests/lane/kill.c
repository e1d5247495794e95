#include "tests/lane/kill.h"

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
#include <time.h>
#include <unistd.h>

enum { CHANGES_MAX = 1 << 16, STEPS_MAX = 1 << 22, LONG_STEPS = 5000 };

static struct shared { /* of main, labs and victims */
    _Atomic int done;  /* the operation is over */
    uint32_t change_count, steps;
    uint32_t changes[CHANGES_MAX]; /* instructions after which shared memory was another */
    unsigned long at[CHANGES_MAX]; /* … and where the program was then */
    char failure[512];
} * shared;

extern const char __executable_start[];

static const struct kill_case *current;
static uint32_t current_step;
static unsigned long current_ip;

#define DEMAND(condition, ...)                       \
    do {                                             \
        if (!(condition))                            \
            fail(#condition, __LINE__, __VA_ARGS__); \
    } while (0)

static _Noreturn void fail(const char *condition, int line, const char *what, unsigned long value)
{
    snprintf(shared->failure, sizeof(shared->failure),
             "%s, %s, killed at instruction %u (%#lx): %s: %s (%lu), line %d", current->operation,
             current->state, current_step, current_ip, what, condition, value, line);
    _exit(1);
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

/* ---- The world ---- */

static const enum lane_slot_kind kinds[KILL_SLOTS] = {LANE_IS_AGENT, LANE_IS_DRIVER, LANE_IS_WORKER,
                                                      LANE_IS_WORKER, LANE_IS_ACTOR};

static uint32_t runs[4096];

static void count_run(uint32_t index, uint32_t generation)
{
    (void)generation;
    if (index < 4096)
        runs[index]++;
}

static void world_open(struct world *world)
{
    *world = (struct world){0};
    node_open(&world->node, &(struct lane_options){.data_bytes = 1 << 20,
                                                   .slot_count = KILL_SLOTS,
                                                   .queue_max = 64,
                                                   .record_count = 8 * POOL_SLAB_ITEMS});
    for (uint16_t slot = 0; slot < KILL_SLOTS; slot++)
        node_attach(&world->node, &world->lanes[slot], slot, kinds[slot]);
}

static void live(struct world *world, uint16_t without)
{
    bool any;
    int turns = 0;

    do {
        any = false;
        for (uint16_t slot = 0; slot < KILL_SLOTS; slot++)
            if (slot != without)
                any |= node_step(&world->lanes[slot]);
        DEMAND(++turns < 10000, "the living do not come to rest", turns);
    } while (any);
}

/* ---- The victim ---- */

static pid_t victim_start(struct world *world)
{
    pid_t pid = fork();

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(2);
        raise(SIGTRAP);
        current->act(world);
        atomic_store(&shared->done, 1);
        for (;;)
            pause();
    }
    atomic_store(&shared->done, 0);
    int status;
    if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) {
        fprintf(stderr, "no process can be traced here\n");
        _exit(77);
    }
    return pid;
}

/* One instruction on. False: the operation is over. */
static bool step(pid_t pid)
{
    int status;

    if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid)
        fail("ptrace", __LINE__, strerror(errno), 0);
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP)
        fail("the victim ended by itself", __LINE__, "status", (unsigned long)status);
    return !atomic_load(&shared->done);
}

static unsigned long where(pid_t pid)
{
    struct user_regs_struct registers;

    if (ptrace(PTRACE_GETREGS, pid, NULL, &registers) != 0)
        return 0;
    return registers.rip - (unsigned long)__executable_start;
}

static void kill_now(pid_t pid)
{
    int status;

    current_ip = where(pid);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
}

/* What a death can leave: all but the payload of blocks and the node's own use of the control block. */
static size_t compare_parts(const struct world *world, const char *other, bool tables_only)
{
    const struct arena_layout *layout = &world->node.layout;
    const char *region = world->node.region;

    if (!tables_only && memcmp(region, other, offsetof(struct lane_control, node)) != 0)
        return 1;
    size_t from = tables_only ? layout->records : layout->slots;
    return memcmp(region + from, other + from, layout->data - from) != 0;
}

static char *copy_of(const struct world *world)
{
    char *copy = malloc(world->node.layout.data);
    if (!copy)
        abort();
    memcpy(copy, world->node.region, world->node.layout.data);
    return copy;
}

/* ---- Labs ---- */

static void watch(void)
{
    static struct world world;
    char *shadow;
    pid_t victim;

    world_open(&world);
    current->setup(&world);
    shadow = copy_of(&world);
    victim = victim_start(&world);
    shared->change_count = shared->steps = 0;
    for (bool more = true; more;) {
        more = step(victim);
        DEMAND(++shared->steps < STEPS_MAX, "too long", shared->steps);
        if (!compare_parts(&world, shadow, false))
            continue;
        memcpy(shadow, world.node.region, world.node.layout.data);
        DEMAND(shared->change_count < CHANGES_MAX, "too many changes", shared->change_count);
        shared->at[shared->change_count] = where(victim);
        shared->changes[shared->change_count++] = shared->steps;
    }
    kill_now(victim);
    _exit(0);
}

static void no_call(void *context, uint32_t index)
{
    (void)context;
    (void)index;
}

static void no_running(void *context, uint32_t index, bool innermost)
{
    (void)context;
    (void)innermost;
    fail("a second repair finds what runs", __LINE__, "record", index);
}

static void repair_twice(struct world *world)
{
    struct lane *agent = &world->lanes[AGENT];
    struct repair_calls calls = node_repair_calls(agent);
    struct repair_calls nothing = {NULL, no_running, no_call, no_call, no_call, no_call};
    char *before;

    DEMAND(lane_repair(agent, current->victim, &calls), "repair was put off at rest", 0ul);
    before = copy_of(world);
    DEMAND(lane_repair(agent, current->victim, &nothing), "repair was put off at rest", 0ul);
    DEMAND(current->posts || !compare_parts(world, before, true),
           "a second repair changed something", 0ul);
    free(before);
}

static void note_states(struct world *world)
{
    for (uint32_t i = 0; i < world->owned_count; i++) {
        struct owned *owned = &world->owned[i];
        owned->at_death = life_state(record_life(lane_record(&world->lanes[AGENT], owned->index)));
    }
    memset(runs, 0, sizeof(runs));
    node_ran = count_run;
}

static void check_owned(struct world *world, const struct owned *owned)
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

static void count_all(struct world *world)
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

static void kill_at(uint32_t k)
{
    static struct world world;
    pid_t victim;

    world_open(&world);
    current->setup(&world);
    victim = victim_start(&world);
    current_step = 0;
    while (current_step < k && step(victim))
        current_step++;
    kill_now(victim);
    note_states(&world);
    lane_detach(&world.lanes[current->victim]);
    repair_twice(&world);
    live(&world, current->victim);
    for (uint32_t i = 0; i < world.owned_count; i++)
        if (world.owned[i].slot != current->victim && !world.owned[i].needs_slot)
            check_owned(&world, &world.owned[i]);
    node_attach(&world.node, &world.lanes[current->victim], current->victim,
                kinds[current->victim]);
    live(&world, KILL_SLOTS);
    for (uint32_t i = 0; i < world.owned_count; i++) {
        if (world.owned[i].slot == current->victim)
            continue;
        check_owned(&world, &world.owned[i]);
        lane_drop(&world.lanes[world.owned[i].slot], world.owned[i].index);
    }
    live(&world, KILL_SLOTS);
    count_all(&world);
    _exit(0);
}

/* Runs a lab; false: the law is broken, and shared->failure says how. */
static bool lab(void (*what)(uint32_t), uint32_t k)
{
    int status;
    pid_t pid;

    shared->failure[0] = 0;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(600);
        what(k);
    }
    while (waitpid(pid, &status, 0) != pid)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        exit(77);
    if (status != 0 && !shared->failure[0])
        snprintf(shared->failure, sizeof(shared->failure),
                 "%s, %s, killed at instruction %u: the lab ended with status %x",
                 current->operation, current->state, k, (unsigned)status);
    return status == 0;
}

static void watch_lab(uint32_t k)
{
    (void)k;
    watch();
}

struct totals {
    unsigned long cases, steps, kills, failures;
};

static double seconds(const struct timespec *from, const struct timespec *to)
{
    return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) * 1e-9;
}

/* The changes to kill at: of each place in the program the first and the last few. */
static uint32_t choose(uint32_t *at)
{
    uint32_t count = 0, total = shared->change_count;
    uint32_t of_each = shared->steps > LONG_STEPS ? 1 : 4; /* long ones are long loops */

    for (uint32_t i = 0; i < total; i++) {
        uint32_t before = 0, after = 0;
        for (uint32_t k = i; k-- > 0 && before < of_each;)
            before += shared->at[k] == shared->at[i];
        for (uint32_t k = i + 1; k < total && after < of_each; k++)
            after += shared->at[k] == shared->at[i];
        if (before < of_each || after < of_each)
            at[count++] = shared->changes[i];
    }
    return count;
}

static bool run_case(bool every, uint32_t stride, struct totals *totals)
{
    unsigned long kills = 0, failures = 0;
    uint32_t steps, count;
    static uint32_t at[CHANGES_MAX];
    struct timespec began, ended;

    clock_gettime(CLOCK_MONOTONIC, &began);

    if (!lab(watch_lab, 0)) {
        printf("not ok: %s\n", shared->failure);
        totals->failures++;
        return false;
    }
    steps = shared->steps;
    count = choose(at);
    for (uint32_t i = 0; every ? i <= steps : i <= count; i += every ? stride : 1) {
        uint32_t k = every ? i : i == 0 ? 0 : at[i - 1];
        kills++;
        if (lab(kill_at, k))
            continue;
        if (failures++ == 0)
            printf("not ok: %s\n", shared->failure);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%-22s %-34s %7u %7u %6lu %7.2f s%s\n", current->operation, current->state, steps,
           shared->change_count, kills, seconds(&began, &ended), failures ? "  FAILED" : "");
    fflush(stdout);
    totals->cases++;
    totals->steps += steps;
    totals->kills += kills;
    totals->failures += failures;
    return failures == 0;
}

/* Lab and victim take turns: on one core a step costs a switch, on two a wake-up. */
static void stay_on_one_core(void)
{
    cpu_set_t one;
    int core = sched_getcpu();

    CPU_ZERO(&one);
    CPU_SET(core < 0 ? 0 : core, &one);
    (void)sched_setaffinity(0, sizeof(one), &one);
}

int main(int argc, char **argv)
{
    bool every = false, must_fail = false;
    uint32_t stride = 1;
    const char *only = NULL;
    struct totals totals = {0};
    struct timespec began, ended;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--every") == 0)
            every = true;
        else if (strncmp(argv[i], "--stride=", 9) == 0)
            stride = (uint32_t)atoi(argv[i] + 9);
        else if (strcmp(argv[i], "--must-fail") == 0)
            must_fail = true;
        else if (strncmp(argv[i], "--only=", 7) == 0)
            only = argv[i] + 7;
        else {
            fprintf(stderr, "usage: %s [--every [--stride=N]] [--only=OPERATION] [--must-fail]\n",
                    argv[0]);
            return 2;
        }
    }
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED || stride == 0)
        return 2;
    stay_on_one_core();
    clock_gettime(CLOCK_MONOTONIC, &began);
    printf("%-22s %-34s %7s %7s %6s\n", "operation", "start state", "instr.", "changes", "kills");
    for (unsigned i = 0; i < kill_case_count; i++) {
        current = &kill_cases[i];
        if (only && strcmp(only, current->operation) != 0)
            continue;
        if (!run_case(every, stride, &totals) && must_fail)
            break;
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%lu start states, %lu instructions, %lu kills, %lu broken, %.1f s\n", totals.cases,
           totals.steps, totals.kills, totals.failures, seconds(&began, &ended));
    if (must_fail)
        printf("%s: the mistake made on purpose was %sfound\n", totals.failures ? "ok" : "not ok",
               totals.failures ? "" : "not ");
    return must_fail ? totals.failures == 0 : totals.failures != 0;
}
