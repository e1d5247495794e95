#include "tests/lane/load.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { WIDTH = 60, NESTED_MAX = 9, BYTES_ROOM = 6 };

void (*load_pause)(void);

double load_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

uint32_t load_random(uint64_t *seed, uint32_t limit)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return (uint32_t)((*seed * 0x2545f4914f6cdd1du) >> 33) % limit;
}

/* Calls of fib(n), itself among them. */
static uint64_t calls_of(uint32_t n)
{
    return n < 2 ? 1 : 1 + calls_of(n - 1) + calls_of(n - 2);
}

/* Its children alone run on its stack: what does not depend on it cannot make it wait for ever. */
static uint64_t await_child(struct lane *lane, uint32_t child)
{
    struct record *record = lane_record(lane, child);

    for (;;) {
        uint64_t life = record_life(record);
        if (life_ended(life))
            break;
        if (lane_claim(lane, child, life_generation(life))) {
            lane_unqueue(lane);
            node_run(lane, child);
        } else
            load_pause();
    }
    uint64_t value = node_value(lane, child);
    lane_drop(lane, child);
    return value;
}

uint64_t load_nested(struct lane *lane, uint32_t function)
{
    uint32_t n = function - 1, child[2];

    if (n < 2)
        return 1;
    for (uint32_t i = 0; i < 2; i++) {
        struct node_shape shape = {.kind = RECORD_TASK, .function = n - 1 - i + 1};
        while ((child[i] = node_submit(lane, NULL, 0, &shape)) == RECORD_NONE)
            load_pause();
    }
    lane_tick(lane);
    /* The second first: it is the newest of the own queue. */
    uint64_t second = await_child(lane, child[1]);
    return 1 + second + await_child(lane, child[0]);
}

static uint32_t some_bytes(uint64_t *seed)
{
    static const uint32_t bytes[BYTES_ROOM] = {0, 16, 48, 200, 5000, 100000};
    return bytes[load_random(seed, BYTES_ROOM)];
}

struct graph {
    uint32_t tasks[WIDTH];
    uint64_t values[WIDTH];
    uint32_t count;
};

static bool submit_one(struct lane *lane, struct load *load, struct graph *graph)
{
    uint32_t inputs[NODE_INPUTS_MAX], count = 0, n = 0;
    uint64_t value = 1;
    struct node_shape shape = {.kind = RECORD_TASK,
                               .argument_bytes = some_bytes(&load->seed),
                               .result_bytes = some_bytes(&load->seed)};
    uint32_t what = load_random(&load->seed, 16);

    if (what == 0)
        shape.flags = RECORD_GENERAL;
    else if (what == 1 && load->actor) {
        shape.kind = RECORD_METHOD;
        shape.actor = load->actor;
    } else if (what <= 3) {
        n = load_random(&load->seed, NESTED_MAX);
        shape.function = n + 1;
        value = calls_of(n);
    }
    if (graph->count > 0 && !shape.function)
        for (count = load_random(&load->seed, NODE_INPUTS_MAX + 1); n < count; n++) {
            uint32_t which = load_random(&load->seed, graph->count);
            inputs[n] = graph->tasks[which];
            value += graph->values[which];
        }
    uint32_t task = node_submit(lane, inputs, count, &shape);
    if (task == RECORD_NONE)
        return false;
    graph->tasks[graph->count] = task;
    graph->values[graph->count++] = value;
    return true;
}

static bool take_one(struct lane *lane, struct load *load, const struct graph *graph, uint32_t i)
{
    struct record *record = lane_record(lane, graph->tasks[i]);
    double until = load_now() + load->limit_s;

    if (load_random(&load->seed, 4) == 0)
        lane_await(lane, graph->tasks[i]);
    while (!life_ended(record_life(record))) {
        if (load_now() > until) {
            snprintf(load->failure, sizeof(load->failure),
                     "a task was lost: record %u, life %016llx, kind %u, flags %x", graph->tasks[i],
                     (unsigned long long)record_life(record), record->kind, record_flags(record));
            return false;
        }
        load->pause();
    }
    uint64_t value = node_value(lane, graph->tasks[i]);
    if (life_state(record_life(record)) != RECORD_DONE || value != graph->values[i]) {
        snprintf(load->failure, sizeof(load->failure), "record %u: state %u, %llu instead of %llu",
                 graph->tasks[i], life_state(record_life(record)), (unsigned long long)value,
                 (unsigned long long)graph->values[i]);
        return false;
    }
    return true;
}

bool load_round(struct lane *lane, struct load *load)
{
    static _Thread_local struct graph graph;
    bool dropped[WIDTH] = {false};

    graph.count = 0;
    while (graph.count < WIDTH)
        if (!submit_one(lane, load, &graph)) {
            snprintf(load->failure, sizeof(load->failure), "no room for a task");
            return false;
        }
    for (uint32_t i = 0; i < WIDTH; i++) /* some are fire and forget, but hold their inputs */
        if (load_random(&load->seed, 3) == 0) {
            lane_drop(lane, graph.tasks[i]);
            dropped[i] = true;
        }
    for (uint32_t i = WIDTH; i-- > 0;) {
        if (dropped[i])
            continue;
        if (!take_one(lane, load, &graph, i))
            return false;
        lane_drop(lane, graph.tasks[i]);
        lane_tick(lane);
    }
    return true;
}
