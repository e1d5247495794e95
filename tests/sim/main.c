/**
 * The simulator as a program: workloads by name, each seed replayable.
 *
 *     sim                          the short run of the tests: each workload, a few seeds
 *     sim --workload burst --seeds 1:1000 [--nodes N] [--workers W]
 *     sim --workload burst --seeds 17 --trace        one run, event by event
 *
 * A run that breaks a law prints the line that replays it. Every eighth seed is run twice, and must
 * give the same trace.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/sim.h"

enum { US = 1000, MS = 1000 * 1000 };

struct workload {
    const char *name;
    void (*fill)(struct sim *sim);
    bool (*judge)(const struct sim *sim); /* NULL: the laws alone */
    struct sim_options options;           /* those of a run without --nodes and --workers */
    uint32_t seed_count;                  /* of the short run */
    uint32_t paths;                       /* that it walks in the short run, as bits */
};

#define P(name) (1u << PATH_##name)
#define ACTOR_PATHS \
    (P(RESTARTED) | P(FINISHED) | P(STOPPED) | P(REFUSED) | P(NO_ROOM) | P(SHARED_NAME))
#define OBJECT_PATHS (P(FETCHED) | P(HERE) | P(NO_COPY) | P(REMADE) | P(FREED))
#define TASK_PATHS (P(MOVED) | P(PLACED) | P(SQUEEZED))

/* One task's 1,000 children that sleep 10 ms, on one of two nodes of 8 workers. */
static void fill_balance(struct sim *sim)
{
    uint32_t first = sim_add(sim, sim->options.rank_count - 1, 1000, 10 * MS);

    sim_submit(sim, first, 1000, 0);
}

/* All workers busy to the end, or the longest task alone. */
static uint64_t ideal_ns(const struct sim *sim)
{
    uint64_t sum = 0, longest = 0, nodes = sim->options.rank_count - sim->options.head_alone;

    for (uint32_t id = 0; id < sim->task_count; id++) {
        uint64_t ns = sim->tasks[id].duration_ns;
        sum += ns;
        longest = ns > longest ? ns : longest;
    }
    sum /= nodes * sim->options.worker_count;
    return sum > longest ? sum : longest;
}

/* Within a quarter of the ideal, and hardly a task moved twice. */
static bool judge_balance(const struct sim *sim)
{
    uint64_t nodes = sim->options.rank_count, away = sim->task_count - sim->task_count / nodes;

    printf("    %.1f ms, %.3f of the ideal; %" PRIu64 " moved, %" PRIu64 " reports\n",
           (double)sim->done_ns / MS, (double)sim->done_ns / (double)ideal_ns(sim),
           sim->paths[PATH_MOVED], sim->reports);
    return sim->done_ns <= ideal_ns(sim) * 5 / 4 && sim->paths[PATH_MOVED] < (away + 40) * 6 / 5;
}

/* A million tasks of 1 us at one node: to move one costs more than to run it. */
static void fill_micro(struct sim *sim)
{
    uint32_t first = sim_add(sim, sim->options.rank_count - 1, 1000 * 1000, 1 * US);

    sim_submit(sim, first, 1000 * 1000, 0);
}

static bool judge_micro(const struct sim *sim)
{
    printf("    %.1f ms; %" PRIu64 " moved, %" PRIu64 " reports\n", (double)sim->done_ns / MS,
           sim->paths[PATH_MOVED], sim->reports);
    return sim->paths[PATH_MOVED] == 0 && sim->reports < 200;
}

/* Tasks of all lengths and needs, from all ranks, in bursts. */
static void fill_burst(struct sim *sim)
{
    uint64_t longest_ns = 10ull << world_random(sim->world, 20);

    for (uint32_t rank = 0; rank < sim->options.rank_count; rank++) {
        uint32_t count =
            (uint32_t)world_random(sim->world, world_chance(sim->world, 200) ? 500 : 30);
        uint32_t first = sim_add(sim, rank, count, 0);
        for (uint32_t id = first; id < first + count; id++) {
            struct task *task = &sim->tasks[id];
            task->duration_ns = world_random(sim->world, longest_ns);
            if (world_chance(sim->world, 250))
                task->need.core_parts =
                    1 + world_random(sim->world, sim->options.worker_count * RESOURCES_CORE);
            if (world_chance(sim->world, 50))
                task->need.memory_bytes = world_random(sim->world, 1 << 30);
            if (world_chance(sim->world, 100))
                task->where = GLOBAL_SPREAD;
            if (world_chance(sim->world, 50)) {
                task->where = GLOBAL_NODE;
                task->where_rank = sim->options.rank_count - 1;
            }
        }
        if (count)
            sim_submit(sim, first, count, world_random(sim->world, 20 * MS));
    }
}

/* Tasks that make children and wait for them, down to leaves. */
static void grow_tree(struct sim *sim, uint32_t id, uint32_t depth)
{
    uint32_t count = 1 + (uint32_t)world_random(sim->world, 4), first;

    if (depth == 0)
        return;
    first = sim_add(sim, 0, count, 0);
    sim->tasks[id].first_child = first;
    sim->tasks[id].child_count = sim->tasks[id].children_left = count;
    for (uint32_t child = first; child < first + count; child++) {
        sim->tasks[child].parent = id;
        sim->tasks[child].duration_ns = world_random(sim->world, 200 * US);
        if (world_chance(sim->world, 100))
            sim->tasks[child].need.core_parts =
                1 + world_random(sim->world, sim->options.worker_count * RESOURCES_CORE);
        grow_tree(sim, child, depth - 1);
    }
}

static void fill_tree(struct sim *sim)
{
    uint32_t owner = (uint32_t)world_random(sim->world, sim->options.rank_count);
    uint32_t root = sim_add(sim, owner, 1, 10 * US);

    grow_tree(sim, root, 3 + (uint32_t)world_random(sim->world, 4));
    sim_submit(sim, root, 1, 0);
}

/* Objects that many tasks read, on ranks that lose copies and keep references. */
static void fill_objects(struct sim *sim)
{
    for (uint32_t rank = 0; rank < sim->options.rank_count; rank++) {
        uint32_t count = 1 + (uint32_t)world_random(sim->world, 6);
        uint32_t first = sim_add(sim, rank, count, 0);
        for (uint32_t id = first; id < first + count; id++) {
            uint32_t readers = (uint32_t)world_random(sim->world, 12);
            uint32_t reader = sim_add(sim, rank, readers, 0);
            struct task *task = &sim->tasks[id];
            task->duration_ns = world_random(sim->world, 2 * MS);
            task->bytes = 1 + world_random(sim->world, 4 << 20);
            task->where = world_chance(sim->world, 500) ? GLOBAL_SPREAD : GLOBAL_ANY;
            task->first_consumer = reader;
            task->consumer_count = readers;
            for (uint32_t i = reader; i < reader + readers; i++) {
                sim->tasks[i].duration_ns = world_random(sim->world, 2 * MS);
                sim->tasks[i].input = id;
                sim->tasks[i].keeps = world_chance(sim->world, 300);
                sim->tasks[i].where = world_chance(sim->world, 500) ? GLOBAL_SPREAD : GLOBAL_ANY;
            }
        }
        sim_submit(sim, first, count, world_random(sim->world, 2 * MS));
    }
}

static void fill_actors(struct sim *sim)
{
    actors_start(sim, 20 + (uint32_t)world_random(sim->world, 80));
}

/* All at once. */
static void fill_mix(struct sim *sim)
{
    fill_burst(sim);
    fill_tree(sim);
    fill_objects(sim);
    fill_actors(sim);
}

static const struct workload workloads[] = {
    {"balance",
     fill_balance,
     judge_balance,
     {.rank_count = 2, .worker_count = 8, .calm = true},
     1,
     P(MOVED)},
    {"blind",
     fill_balance,
     judge_balance,
     {.rank_count = 2, .worker_count = 8, .calm = true, .blind = true},
     1,
     P(MOVED)},
    {"micro", fill_micro, judge_micro, {.rank_count = 2, .worker_count = 8, .calm = true}, 1, 0},
    {"burst", fill_burst, NULL, {.rank_count = 12, .worker_count = 4}, 60, TASK_PATHS},
    {"tree",
     fill_tree,
     NULL,
     {.rank_count = 6, .worker_count = 3, .head_alone = true},
     60,
     P(PLACED) | P(SQUEEZED) | P(RESUMED)},
    {"objects",
     fill_objects,
     NULL,
     {.rank_count = 8, .worker_count = 2, .evict_per_mille = 100},
     60,
     OBJECT_PATHS | P(PLACED)},
    {"actors", fill_actors, NULL, {.rank_count = 6, .worker_count = 4}, 60, ACTOR_PATHS},
    {"mix",
     fill_mix,
     NULL,
     {.rank_count = 16, .worker_count = 4, .evict_per_mille = 50},
     30,
     TASK_PATHS | OBJECT_PATHS | (ACTOR_PATHS & ~P(NO_ROOM))},
    {"wide",
     fill_burst,
     NULL,
     {.rank_count = 1000, .worker_count = 16},
     2,
     P(PLACED) | P(SQUEEZED)},
};
enum { WORKLOADS = sizeof(workloads) / sizeof(*workloads) };

struct run {
    bool good;
    uint64_t trace, events;
    uint64_t paths[PATH_COUNT];
};

static struct run run_once(const struct workload *workload, const struct sim_options *options,
                           uint64_t seed, bool quiet)
{
    struct sim_options own = *options;
    struct run run = {0};
    struct sim *sim;

    own.seed = seed;
    sim = sim_create(&own);
    workload->fill(sim);
    run.good = sim_run(sim);
    run.trace = world_trace(sim->world);
    run.events = world_count(sim->world);
    memcpy(run.paths, sim->paths, sizeof(run.paths));
    if (!run.good)
        printf("not ok: %s\n", sim->failure);
    else if (workload->judge && !quiet && !workload->judge(sim)) {
        run.good = false;
        printf("not ok: the bound is missed\n");
    }
    if (!run.good)
        printf("    replay: sim --workload %s --nodes %u --workers %u --seeds %" PRIu64
               " --trace\n",
               workload->name, own.rank_count, own.worker_count, seed);
    sim_destroy(sim);
    return run;
}

/* Whether the seeds together walked the paths that the workload is there for. */
static bool check_paths(const struct workload *workload, const uint64_t *paths)
{
#define X(name, text) text,
    static const char *const texts[] = {SIM_PATHS(X)};
#undef X
    bool good = true;

    for (int path = 0; path < PATH_COUNT; path++)
        if ((workload->paths >> path & 1) && paths[path] == 0) {
            printf("not ok: in no run of %s %s\n", workload->name, texts[path]);
            good = false;
        }
    return good;
}

/* Runs the seeds of one workload; returns whether all were good. */
static bool run_seeds(const struct workload *workload, const struct sim_options *options,
                      uint64_t first, uint64_t last, bool demand_paths)
{
    uint64_t events = 0, paths[PATH_COUNT] = {0};
    bool good = true;

    for (uint64_t seed = first; seed <= last && good; seed++) {
        struct run run = run_once(workload, options, seed, false);
        good = run.good;
        events += run.events;
        for (int path = 0; path < PATH_COUNT; path++)
            paths[path] += run.paths[path];
        if (good && seed % 8 == 1 && run_once(workload, options, seed, true).trace != run.trace) {
            printf("not ok: seed %" PRIu64 " of %s does not replay\n", seed, workload->name);
            good = false;
        }
    }
    if (good && demand_paths && last - first + 1 >= workload->seed_count)
        good = check_paths(workload, paths);
    printf("%s: %s, %" PRIu64 " seeds, %" PRIu64 " events\n", good ? "ok" : "FAILED",
           workload->name, last - first + 1, events);
    fflush(stdout);
    return good;
}

static const struct workload *find(const char *name)
{
    for (int i = 0; i < WORKLOADS; i++)
        if (strcmp(workloads[i].name, name) == 0)
            return &workloads[i];
    fprintf(stderr, "no workload \"%s\"; there are:", name);
    for (int i = 0; i < WORKLOADS; i++)
        fprintf(stderr, " %s", workloads[i].name);
    fprintf(stderr, "\n");
    exit(2);
}

static uint64_t number(const char *text, char **end)
{
    uint64_t value = strtoull(text, end, 10);

    if (*end == text || (**end && **end != ':')) {
        fprintf(stderr, "\"%s\" is no number\n", text);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv)
{
    static const struct option known[] = {
        {"workload", required_argument, NULL, 'w'}, {"seeds", required_argument, NULL, 's'},
        {"nodes", required_argument, NULL, 'n'},    {"workers", required_argument, NULL, 'k'},
        {"trace", no_argument, NULL, 't'},          {NULL, 0, NULL, 0}};
    const struct workload *workload = NULL;
    uint64_t first = 1, last = 0, nodes = 0, workers = 0;
    bool trace = false, good = true;
    char *end;
    int option;

    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'w':
            workload = find(optarg);
            break;
        case 's':
            first = last = number(optarg, &end);
            if (*end)
                last = number(end + 1, &end);
            break;
        case 'n':
            nodes = number(optarg, &end);
            break;
        case 'k':
            workers = number(optarg, &end);
            break;
        case 't':
            trace = true;
            break;
        default:
            return 2;
        }
    }
    for (int i = 0; i < WORKLOADS; i++) {
        struct sim_options options = workloads[i].options;
        if (workload && workload != &workloads[i])
            continue;
        options.rank_count = nodes ? (uint32_t)nodes : options.rank_count;
        options.worker_count = workers ? (uint32_t)workers : options.worker_count;
        options.trace = trace;
        good &= run_seeds(&workloads[i], &options, first, last ? last : workloads[i].seed_count,
                          !nodes && !workers);
    }
    return !good;
}
