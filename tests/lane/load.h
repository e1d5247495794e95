/**
 * What tests/lane/threads and chaos let a driver do: random graphs of tasks whose results it knows.
 *
 *     plain     1 + the sum of its inputs
 *     general   the same, run by the agent
 *     call      the same, run by the actor of slot `actor`
 *     nested    counts the calls of fib(n): submits two tasks, runs them itself or waits, adds up
 * Arguments and results lie in the record, in a block or in a run of pages, by chance.
 */
#ifndef MORAY_TESTS_LANE_LOAD_H
#define MORAY_TESTS_LANE_LOAD_H

#include "tests/lane/node.h"

struct load {
    uint64_t seed;
    uint16_t actor;      /* 0: none */
    double limit_s;      /* a result that takes longer is lost */
    bool (*over)(void);  /* no need to go on */
    void (*pause)(void); /* while a result is not there */
    char failure[256];
};

/** One graph, from the first task to the last drop. False: `failure` says what was wrong. */
bool load_round(struct lane *lane, struct load *load);

/** For node_compute. */
uint64_t load_nested(struct lane *lane, uint32_t function);
/** Called while load_nested() waits for a child that another process runs. */
extern void (*load_pause)(void);

double load_now(void);
uint32_t load_random(uint64_t *seed, uint32_t limit);

#endif
