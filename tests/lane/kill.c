#include "tests/lane/kill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { STEPS_MAX = 1 << 22, LONG_STEPS = 5000 };

static const struct kill_case *current;

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

static void watch(const void *nothing)
{
    static struct world world;
    char *shadow;
    uint32_t *steps = &lab_shared->steps[0];
    pid_t victim;

    (void)nothing;
    world_open(&world);
    current->setup(&world);
    shadow = copy_of(&world);
    victim = player_start(&world, 0, current->act);
    lab_shared->change_count = *steps = 0;
    for (bool more = true; more;) {
        more = player_step(victim, 0);
        DEMAND(++*steps < STEPS_MAX, "too long", *steps);
        if (!compare_parts(&world, shadow, false))
            continue;
        memcpy(shadow, world.node.region, world.node.layout.data);
        DEMAND(lab_shared->change_count < LAB_CHANGES_MAX, "too many changes",
               lab_shared->change_count);
        lab_shared->at[lab_shared->change_count] = player_where(victim);
        lab_shared->changes[lab_shared->change_count++] = *steps;
    }
    player_kill(victim);
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
    lab_fail("a second repair finds what runs", __LINE__, "record", index);
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

static void kill_at(const void *argument)
{
    static struct world world;
    uint32_t k = *(const uint32_t *)argument, step = 0;
    pid_t victim;

    world_open(&world);
    current->setup(&world);
    victim = player_start(&world, 0, current->act);
    while (step < k && player_step(victim, 0))
        step++;
    snprintf(lab_shared->what, sizeof(lab_shared->what), "%s, %s, killed at instruction %u (%#lx)",
             current->operation, current->state, k, player_where(victim));
    player_kill(victim);
    world_note(&world);
    lane_detach(&world.lanes[current->victim]);
    repair_twice(&world);
    world_live(&world, 1u << current->victim);
    for (uint32_t i = 0; i < world.owned_count; i++)
        if (world.owned[i].slot != current->victim && !world.owned[i].needs_slot)
            world_check(&world, &world.owned[i]);
    node_attach(&world.node, &world.lanes[current->victim], current->victim,
                world_kind(current->victim));
    world_live(&world, 0);
    for (uint32_t i = 0; i < world.owned_count; i++) {
        if (world.owned[i].slot == current->victim)
            continue;
        world_check(&world, &world.owned[i]);
        lane_drop(&world.lanes[world.owned[i].slot], world.owned[i].index);
    }
    world_live(&world, 0);
    world_count(&world);
}

struct totals {
    unsigned long cases, steps, kills, failures;
};

static double seconds(const struct timespec *from, const struct timespec *to)
{
    return (double)(to->tv_sec - from->tv_sec) + (double)(to->tv_nsec - from->tv_nsec) * 1e-9;
}

/* The changes to kill at: all, or of each place in the program the first and the last few. Between two
 * changes, which are looked for after each instruction, a death leaves the same bytes. */
static uint32_t choose(uint32_t *at, bool all)
{
    uint32_t count = 0, total = lab_shared->change_count;
    uint32_t of_each = lab_shared->steps[0] > LONG_STEPS ? 1 : 4; /* long ones are long loops */

    for (uint32_t i = 0; i < total; i++) {
        uint32_t before = 0, after = 0;
        for (uint32_t k = i; k-- > 0 && before < of_each;)
            before += lab_shared->at[k] == lab_shared->at[i];
        for (uint32_t k = i + 1; k < total && after < of_each; k++)
            after += lab_shared->at[k] == lab_shared->at[i];
        if (all || before < of_each || after < of_each)
            at[count++] = lab_shared->changes[i];
    }
    return count;
}

static bool run_case(bool every, bool all, uint32_t stride, struct totals *totals)
{
    unsigned long kills = 0, failures = 0;
    uint32_t steps, count;
    static uint32_t at[LAB_CHANGES_MAX];
    struct timespec began, ended;

    clock_gettime(CLOCK_MONOTONIC, &began);
    snprintf(lab_shared->what, sizeof(lab_shared->what), "%s, %s", current->operation,
             current->state);
    if (!lab_run(watch, NULL)) {
        printf("not ok: %s\n", lab_shared->failure);
        totals->failures++;
        return false;
    }
    steps = lab_shared->steps[0];
    count = choose(at, all);
    for (uint32_t i = 0; every ? i <= steps : i <= count; i += every ? stride : 1) {
        uint32_t k = every ? i : i == 0 ? 0 : at[i - 1];
        kills++;
        if (lab_run(kill_at, &k))
            continue;
        if (failures++ == 0)
            printf("not ok: %s\n", lab_shared->failure);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%-22s %-34s %7u %7u %6lu %7.2f s%s\n", current->operation, current->state, steps,
           lab_shared->change_count, kills, seconds(&began, &ended), failures ? "  FAILED" : "");
    fflush(stdout);
    totals->cases++;
    totals->steps += steps;
    totals->kills += kills;
    totals->failures += failures;
    return failures == 0;
}

int main(int argc, char **argv)
{
    bool every = false, all = false, must_fail = false;
    uint32_t stride = 1;
    const char *only = NULL;
    struct totals totals = {0};
    struct timespec began, ended;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--every") == 0)
            every = true;
        else if (strcmp(argv[i], "--every-change") == 0)
            all = true;
        else if (strncmp(argv[i], "--stride=", 9) == 0)
            stride = (uint32_t)atoi(argv[i] + 9);
        else if (strcmp(argv[i], "--must-fail") == 0)
            must_fail = true;
        else if (strncmp(argv[i], "--only=", 7) == 0)
            only = argv[i] + 7;
        else {
            fprintf(stderr,
                    "usage: %s [--every-change | --every [--stride=N]] [--only=OPERATION] "
                    "[--must-fail]\n",
                    argv[0]);
            return 2;
        }
    }
    if (stride == 0 || !lab_open())
        return 2;
    clock_gettime(CLOCK_MONOTONIC, &began);
    printf("%-22s %-34s %7s %7s %6s\n", "operation", "start state", "instr.", "changes", "kills");
    for (unsigned i = 0; i < kill_case_count; i++) {
        current = &kill_cases[i];
        if (only && strcmp(only, current->operation) != 0)
            continue;
        if (!run_case(every, all, stride, &totals) && must_fail)
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
