/**
 * Random kills under load: processes of a node run nested, chained, general and called tasks, the
 * agent kills one every ~10 ms, repairs, and forks another into the slot. Every result must be right,
 * and in the end nothing in use.
 *
 *   chaos [--seconds=N] [--seed=S] [--every-ms=N]
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/lane/load.h"

enum { SLOTS = 7, DRIVERS = 2, FIRST_KILLED = 3, ACTOR = 6 };

static struct shared {
    _Atomic int stop; /* workers leave */
    _Atomic int over; /* drivers come to an end */
    _Atomic uint64_t rounds;
    char failure[256];
} * shared;

static struct node node;

static bool over(void)
{
    return atomic_load(&shared->over);
}

static void rest(void)
{
    sched_yield();
}

static _Noreturn void serve(uint16_t slot)
{
    struct lane lane;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    node_attach(&node, &lane, slot, slot == ACTOR ? LANE_IS_ACTOR : LANE_IS_WORKER);
    for (int idle = 0; !atomic_load(&shared->stop);) {
        if (node_step(&lane))
            idle = 0;
        else if (++idle > 100)
            usleep(100);
        else
            sched_yield();
    }
    _exit(0);
}

static _Noreturn void drive(uint16_t slot, uint64_t seed)
{
    struct load load = {
        .seed = seed + slot, .actor = ACTOR, .limit_s = 60, .over = over, .pause = rest};
    struct lane lane;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    node_attach(&node, &lane, slot, LANE_IS_DRIVER);
    while (!over()) {
        if (!load_round(&lane, &load)) {
            memcpy(shared->failure, load.failure, sizeof(shared->failure));
            _exit(1);
        }
        atomic_fetch_add(&shared->rounds, 1);
    }
    /* What was fired and forgotten comes to an end too, and is freed here. */
    for (int i = 0; i < 2000 && !atomic_load(&shared->stop); i++) {
        lane_tick(&lane);
        usleep(1000);
    }
    _exit(0);
}

static pid_t pids[SLOTS];

static void start(uint16_t slot, uint64_t seed)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (slot < FIRST_KILLED)
            drive(slot, seed);
        serve(slot);
    }
    pids[slot] = pid;
}

/* The kernel has said that the process is gone; its slot is repaired before it is given again. */
static bool bury(struct lane *agent, uint16_t slot)
{
    struct repair_calls calls = node_repair_calls(agent);
    double until = load_now() + 30;

    while (!lane_repair(agent, slot, &calls)) {
        if (load_now() > until)
            return false;
        node_step(agent);
        sched_yield();
    }
    return true;
}

static bool driver_is_wrong(void)
{
    for (uint16_t slot = 1; slot <= DRIVERS; slot++) {
        int status;
        if (pids[slot] && waitpid(pids[slot], &status, WNOHANG) == pids[slot]) {
            pids[slot] = 0;
            if (status != 0) {
                if (!shared->failure[0])
                    snprintf(shared->failure, sizeof(shared->failure), "driver %u ended with %x",
                             slot, (unsigned)status);
                return true;
            }
        }
    }
    return false;
}

static bool drivers_live(void)
{
    return pids[1] || pids[2];
}

static unsigned long chaos(struct lane *agent, double seconds, uint64_t *seed, uint32_t every_ms)
{
    double end = load_now() + seconds, next = load_now();
    unsigned long kills = 0;

    while (load_now() < end && !driver_is_wrong()) {
        if (!node_step(agent))
            usleep(200);
        if (load_now() < next)
            continue;
        next = load_now() + (0.5 + load_random(seed, 1000) / 1000.0) * every_ms / 1000.0;
        uint16_t slot = (uint16_t)(FIRST_KILLED + load_random(seed, SLOTS - FIRST_KILLED));
        kill(pids[slot], SIGKILL);
        waitpid(pids[slot], NULL, 0);
        kills++;
        if (!bury(agent, slot)) {
            snprintf(shared->failure, sizeof(shared->failure), "a repair was put off for ever");
            break;
        }
        start(slot, 0);
    }
    return kills;
}

static bool in_use(struct node_census *census)
{
    node_census(&node, NULL, census);
    return census->records || census->held_blocks || census->run_bytes;
}

static bool come_to_rest(struct lane *agent)
{
    struct node_census census;
    double until = load_now() + 60;

    atomic_store(&shared->over, 1);
    while (in_use(&census) && load_now() < until && !shared->failure[0]) {
        driver_is_wrong();
        if (!node_step(agent))
            usleep(500);
        if (!drivers_live())
            break;
    }
    atomic_store(&shared->stop, 1);
    for (uint16_t slot = 1; slot < SLOTS; slot++)
        if (pids[slot]) {
            waitpid(pids[slot], NULL, 0);
            if (!bury(agent, slot))
                return false;
        }
    node_step(agent);
    lane_detach(agent);
    node_count(&node, &census);
    if (!shared->failure[0] &&
        (census.records || census.cells || census.held_blocks || census.run_bytes ||
         census.records_lost || census.cells_lost || census.pages_lost))
        snprintf(shared->failure, sizeof(shared->failure),
                 "in use: %u records, %u cells, %llu blocks, %llu bytes of runs; lost: %u records, "
                 "%u cells, %llu pages",
                 census.records, census.cells, (unsigned long long)census.held_blocks,
                 (unsigned long long)census.run_bytes, census.records_lost, census.cells_lost,
                 (unsigned long long)census.pages_lost);
    return !shared->failure[0];
}

int main(int argc, char **argv)
{
    double seconds = 5;
    uint64_t seed = 1;
    uint32_t every_ms = 10;
    struct lane agent;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--seconds=", 10) == 0)
            seconds = atof(argv[i] + 10);
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            seed = strtoull(argv[i] + 7, NULL, 10);
        else if (strncmp(argv[i], "--every-ms=", 11) == 0)
            every_ms = (uint32_t)atoi(argv[i] + 11);
        else {
            fprintf(stderr, "usage: %s [--seconds=N] [--seed=S] [--every-ms=N]\n", argv[0]);
            return 2;
        }
    }
    if (seed == 0)
        seed = 1;
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 2;
    node_compute = load_nested;
    load_pause = rest;
    node_open(&node, &(struct lane_options){.data_bytes = 128 << 20,
                                            .slot_count = SLOTS,
                                            .queue_max = 1024,
                                            .record_count = 64 * POOL_SLAB_ITEMS});
    node_attach(&node, &agent, LANE_AGENT, LANE_IS_AGENT);
    for (uint16_t slot = 1; slot < SLOTS; slot++)
        start(slot, seed);
    unsigned long kills = chaos(&agent, seconds, &seed, every_ms);
    bool right = come_to_rest(&agent);
    printf("%s: %lu kills in %.0f s, %llu graphs of tasks%s%s\n", right ? "ok" : "not ok", kills,
           seconds, (unsigned long long)atomic_load(&shared->rounds), right ? "" : ": ",
           shared->failure);
    node_close(&node);
    return right ? 0 : 1;
}
