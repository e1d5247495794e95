/**
 * How fast the bare lane is between two processes: a figure to look at, not a law.
 *
 *     batch   the driver submits 10,000 empty tasks, then takes each result: tasks/s
 *     trip    one task, there and back, both sides awake: ns
 *
 * The best of all batches, and of all hundreds of trips, is what a quiet machine does throughout.
 *
 *   speed [SECONDS]    prints both; the driver on the first core it may use, the worker on the second
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "tests/lane/node.h"

enum { BATCH = 10000, WORKER = 2 };

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void bind_to(int which)
{
    cpu_set_t all, one;

    sched_getaffinity(0, sizeof(all), &all);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all) && which-- == 0)
            CPU_SET(cpu, &one);
    if (CPU_COUNT(&one))
        sched_setaffinity(0, sizeof(one), &one);
}

static _Noreturn void work(const struct node *node, const _Atomic int *stop)
{
    struct lane lane;

    bind_to(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    node_attach(node, &lane, WORKER, LANE_IS_WORKER);
    while (!atomic_load_explicit(stop, memory_order_relaxed)) {
        uint32_t index = lane_next(&lane);
        if (index == RECORD_NONE) {
            __builtin_ia32_pause();
            continue;
        }
        struct record *record = lane_record(&lane, index);
        *(uint64_t *)record->result.value = record->function;
        record_set_result_bytes(record, 8);
        lane_finish(&lane, index, RECORD_DONE);
    }
    _exit(0);
}

static uint32_t submit(struct lane *lane, uint32_t number)
{
    uint32_t index = lane_make(lane, RECORD_TASK);

    lane_record(lane, index)->function = number;
    if (lane_submit(lane, index) != MORAY_OK)
        abort();
    return index;
}

static void take(struct lane *lane, uint32_t index, uint32_t number)
{
    struct record *record = lane_record(lane, index);

    while (!life_ended(record_life(record)))
        __builtin_ia32_pause();
    if (*(uint64_t *)record->result.value != number)
        abort();
    lane_drop(lane, index);
}

int main(int argc, char **argv)
{
    double seconds = argc > 1 ? atof(argv[1]) : 1, began, took;
    static uint32_t tasks[BATCH];
    struct node node;
    struct lane lane;
    uint64_t count = 0;
    double best_batch = 0, best_trip = 0;
    _Atomic int *stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    node_open(&node, &(struct lane_options){.data_bytes = 4 << 20,
                                            .slot_count = 4,
                                            .queue_max = 2 * BATCH,
                                            .record_count = 4 * BATCH});
    pid_t worker = fork();
    if (worker == 0)
        work(&node, stop);
    bind_to(0);
    node_attach(&node, &lane, NODE_DRIVER, LANE_IS_DRIVER);
    for (int warm = 1; warm >= 0; warm--)
        for (count = 0, began = now_s(); (took = now_s() - began) < (warm ? 0.2 : seconds);) {
            double from = now_s();
            for (uint32_t i = 0; i < BATCH; i++)
                tasks[i] = submit(&lane, i);
            for (uint32_t i = 0; i < BATCH; i++)
                take(&lane, tasks[i], i);
            count += BATCH;
            lane_tick(&lane);
            if (best_batch == 0 || now_s() - from < best_batch)
                best_batch = now_s() - from;
        }
    printf("batch: %.2f M tasks/s, the best %.2f (%llu tasks, batches of %d)\n",
           (double)count / took * 1e-6, BATCH / best_batch * 1e-6, (unsigned long long)count,
           BATCH);
    for (count = 0, began = now_s(); (took = now_s() - began) < seconds; count += 100) {
        double from = now_s();
        for (uint32_t i = 0; i < 100; i++)
            take(&lane, submit(&lane, i), i);
        if (best_trip == 0 || now_s() - from < best_trip)
            best_trip = now_s() - from;
    }
    printf("trip:  %.0f ns, the best %.0f (%llu trips)\n", took / (double)count * 1e9,
           best_trip * 1e7, (unsigned long long)count);
    atomic_store(stop, 1);
    waitpid(worker, NULL, 0);
    lane_detach(&lane);
    node_close(&node);
    return 0;
}
