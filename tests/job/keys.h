/**
 * What tasks did is counted by keys of the job, so that it holds on every rank.
 * Who calls: the programs of laws beside this file. Threads: any.
 */
#ifndef MORAY_TESTS_JOB_KEYS_H
#define MORAY_TESTS_JOB_KEYS_H

#include "law.h"

static inline int64_t counted(const char *key)
{
    int64_t sum = 0;

    if (moray_kv_add("law", key, 0, &sum) != MORAY_OK)
        return -1;
    return sum;
}

static inline int64_t count(const char *key)
{
    int64_t sum = -1;
    moray_kv_add("law", key, 1, &sum);
    return sum;
}

typedef struct {
    char text[24];
} word;

static inline word say(const char *text)
{
    word w = {""};
    snprintf(w.text, sizeof(w.text), "%s", text);
    return w;
}

MORAY_TASK(int32_t, after_gate, (word, gate), (int32_t, value))
{
    gate_wait(gate.text);
    return value;
}

/* Ends its process in a way, but for the run `good` and later. */
MORAY_TASK(int32_t, dies_until, (word, key), (int32_t, how), (int32_t, good))
{
    int64_t run = count(key.text);

    if (run >= good)
        return (int32_t)run;
    if (how == 0)
        exit(7);
    if (how == -1)
        abort();
    if (how == -2)
        _exit(0);
    raise(how);
    law_sleep_ms(1000);
    return 0;
}

#endif
