/**
 * The lane under ThreadSanitizer: every slot is a thread of one process, all on one region, with the
 * random graphs of load.h. A data race, a wrong result or something left in use fails.
 *
 *   threads [--seconds=N] [--seed=S]
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lane/load.h"

enum { SLOTS = 8, DRIVERS = 2, ACTOR = 7 };

static struct node node;
static struct lane lanes[SLOTS];
static struct load loads[SLOTS];
static _Atomic int over, stop;
static _Atomic int wrong;
static _Atomic unsigned long rounds;

static bool is_over(void)
{
    return atomic_load(&over);
}

static void rest(void)
{
    sched_yield();
}

static void *serve(void *argument)
{
    struct lane *lane = argument;

    while (!atomic_load(&stop))
        if (!node_step(lane))
            usleep(50);
    return NULL;
}

static void *drive(void *argument)
{
    struct lane *lane = argument;
    struct load *load = &loads[lane->slot];

    while (!is_over() && !atomic_load(&wrong)) {
        if (!load_round(lane, load))
            atomic_store(&wrong, 1);
        atomic_fetch_add(&rounds, 1);
    }
    while (!atomic_load(&stop)) { /* what was fired and forgotten is freed here */
        lane_tick(lane);
        usleep(200);
    }
    return NULL;
}

static bool rests(void)
{
    struct node_census census;

    node_census(&node, NULL, &census);
    return census.records == 0 && census.held_blocks == 0;
}

int main(int argc, char **argv)
{
    pthread_t threads[SLOTS];
    struct node_census census;
    double seconds = 5, until;
    uint64_t seed = 1;

    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--seconds=", 10) == 0)
            seconds = atof(argv[i] + 10);
        else if (strncmp(argv[i], "--seed=", 7) == 0)
            seed = strtoull(argv[i] + 7, NULL, 10);
        else {
            fprintf(stderr, "usage: %s [--seconds=N] [--seed=S]\n", argv[0]);
            return 2;
        }
    }
    node_compute = load_nested;
    load_pause = rest;
    node_open(&node, &(struct lane_options){.data_bytes = 64 << 20,
                                            .slot_count = SLOTS,
                                            .queue_max = 256,
                                            .record_count = 32 * POOL_SLAB_ITEMS});
    for (uint16_t slot = 0; slot < SLOTS; slot++) {
        node_attach(&node, &lanes[slot], slot,
                    slot == LANE_AGENT ? LANE_IS_AGENT
                    : slot <= DRIVERS  ? LANE_IS_DRIVER
                    : slot == ACTOR    ? LANE_IS_ACTOR
                                       : LANE_IS_WORKER);
        loads[slot] = (struct load){
            .seed = seed + slot + 1, .actor = ACTOR, .limit_s = 60, .over = is_over, .pause = rest};
    }
    for (int slot = 0; slot < SLOTS; slot++)
        if (pthread_create(&threads[slot], NULL, slot >= 1 && slot <= DRIVERS ? drive : serve,
                           &lanes[slot]))
            abort();
    until = load_now() + seconds;
    while (load_now() < until && !atomic_load(&wrong))
        usleep(10000);
    atomic_store(&over, 1);
    usleep(100000);
    until = load_now() + 30;
    while (!rests() && load_now() < until && !atomic_load(&wrong))
        usleep(10000);
    atomic_store(&stop, 1);
    for (int slot = 0; slot < SLOTS; slot++)
        pthread_join(threads[slot], NULL);
    for (int slot = 1; slot <= DRIVERS; slot++)
        if (loads[slot].failure[0])
            printf("not ok: %s\n", loads[slot].failure);
    if (atomic_load(&wrong))
        return 1;
    while (node_step(&lanes[LANE_AGENT]))
        ;
    node_lost(&node, lanes, &census);
    bool right = rests() && !census.records_lost && !census.cells_lost && !census.blocks_lost &&
                 !census.pages_lost;
    printf("%s: %lu graphs of tasks; lost: %u records, %u cells, %u blocks, %llu pages\n",
           right ? "ok" : "not ok", atomic_load(&rounds), census.records_lost, census.cells_lost,
           census.blocks_lost, (unsigned long long)census.pages_lost);
    for (int slot = 0; slot < SLOTS; slot++)
        lane_detach(&lanes[slot]);
    node_close(&node);
    return right ? 0 : 1;
}
