/**
 * Makes allocations fail, one after the other: the first, then the second, until none is left.
 *
 *     for (fault_first(); fault_again(); fault_next())
 *         one_whole_scenario(); // must end well or with MORAY_NO_MEMORY, and leak nothing
 *
 * For a test that is linked with FAULT_LINK (see meson.build): malloc, calloc and realloc of the
 * program's own objects come here; those of libraries do not. Include it in one file of a program.
 * Threads: one.
 */
#ifndef MORAY_TESTS_UNIT_FAULT_H
#define MORAY_TESTS_UNIT_FAULT_H

#include <stdbool.h>
#include <stddef.h>

static long fault_at = -1;     /* which allocation fails; -1: none */
static long fault_count;       /* allocations since the scenario began */
static long fault_blocks;      /* blocks that are allocated now */
static bool fault_ever = true; /* the last scenario got as far as the failure */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void __real_free(void *block);

static bool fault_now(void)
{
    if (fault_at < 0 || fault_count++ != fault_at)
        return false;
    fault_ever = true;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    void *block = fault_now() ? NULL : __real_malloc(bytes);

    fault_blocks += block != NULL;
    return block;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *block = fault_now() ? NULL : __real_calloc(count, bytes);

    fault_blocks += block != NULL;
    return block;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    void *block = fault_now() ? NULL : __real_realloc(old, bytes);

    fault_blocks += block != NULL && old == NULL;
    return block;
}

void __wrap_free(void *block)
{
    fault_blocks -= block != NULL;
    __real_free(block);
}

static inline void fault_first(void)
{
    fault_at = 0;
    fault_count = 0;
    fault_ever = true;
}

/** Whether there is a scenario to run: the one before it reached its failure. */
static inline bool fault_again(void)
{
    bool again = fault_ever;

    fault_ever = false;
    fault_count = 0;
    if (!again)
        fault_at = -1;
    return again;
}

static inline void fault_next(void)
{
    fault_at++;
}

/** Lets all allocations succeed for the rest of this scenario, to look at what it left. */
static inline void fault_pause(void)
{
    fault_count = fault_at + 1;
}

#endif
