/**
 * Makes allocations fail, one after the other: the first, then the second, until none is left.
 *
 *     for (fault_first(); fault_again(); fault_next()) {
 *         code = FAULTY(machine_create(&machine));   // what is in FAULTY() is meant
 *         ... must end well or with MORAY_NO_MEMORY ...
 *         FAULTY((machine_destroy(machine), 0));
 *         ck_assert_int_eq(fault_blocks, 0);         // and nothing leaked
 *     }
 *
 * For a program that is linked with -Wl,--wrap= for malloc, calloc, realloc and free: calls of the
 * program's own objects come here. The test framework's do too, so only those within FAULTY() are
 * counted and fail.
 * Threads: one. Include it in one file of a program.
 */
#ifndef MORAY_TESTS_UNIT_FAULT_H
#define MORAY_TESTS_UNIT_FAULT_H

#include <stdbool.h>
#include <stddef.h>

static bool fault_armed;   /* within FAULTY() */
static long fault_at = -1; /* which allocation of the scenario fails; -1: none */
static long fault_count;   /* allocations since the scenario began */
static long fault_blocks;  /* blocks that were allocated and not freed within FAULTY() */
static bool fault_hit;     /* the scenario reached its failure */

#define FAULTY(expression)                                  \
    __extension__({                                         \
        fault_armed = true;                                 \
        __typeof__(expression) fault_result = (expression); \
        fault_armed = false;                                \
        fault_result;                                       \
    })

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *block, size_t bytes);
void __real_free(void *block);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __wrap_free(void *block);

static inline bool fault_now(void)
{
    if (!fault_armed || fault_at < 0 || fault_count++ != fault_at)
        return false;
    fault_hit = true;
    return true;
}

void *__wrap_malloc(size_t bytes)
{
    void *block = fault_now() ? NULL : __real_malloc(bytes);

    fault_blocks += fault_armed && block;
    return block;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *block = fault_now() ? NULL : __real_calloc(count, bytes);

    fault_blocks += fault_armed && block;
    return block;
}

void *__wrap_realloc(void *old, size_t bytes)
{
    void *block = fault_now() ? NULL : __real_realloc(old, bytes);

    fault_blocks += fault_armed && block && !old;
    return block;
}

void __wrap_free(void *block)
{
    fault_blocks -= fault_armed && block;
    __real_free(block);
}

static inline void fault_first(void)
{
    fault_at = 0;
    fault_hit = true;
}

/** Whether there is a scenario to run: the one before it reached its failure. */
static inline bool fault_again(void)
{
    bool again = fault_hit;

    fault_hit = false;
    fault_count = 0;
    if (!again)
        fault_at = -1;
    return again;
}

static inline void fault_next(void)
{
    fault_at++;
}

#endif
