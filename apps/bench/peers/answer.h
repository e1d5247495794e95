/**
 * How a peer that stays answers bench: "run" on stdin, "value=…" on stdout. Shared by C and C++.
 */
#ifndef MORAY_BENCH_ANSWER_H
#define MORAY_BENCH_ANSWER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double answer_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Whether another run is wanted. */
static inline int answer_wanted(void)
{
    char line[64];

    return fgets(line, sizeof line, stdin) && !strncmp(line, "run", 3);
}

static inline void answer_value(double value)
{
    printf("value=%.9g\n", value);
    fflush(stdout);
}

/* Whether `word` is among the arguments. */
static inline int answer_word(int argc, char **argv, const char *word)
{
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], word))
            return 1;
    return 0;
}

static inline int answer_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

#endif
