/**
 * Tasks and actors: rates, round trips, trees.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"
#include "core.h"

enum { BATCH = 10000, MANY = 1000000, SLEEPERS = 1000, SLEEP_MS = 10, BLOCKERS_MAX = 4096 };

static moray_ref refs[BATCH];

MORAY_TASK(int64_t, empty)
{
    return 1;
}

/* ---- Rates ---- */

static double batches(struct child *child)
{
    int64_t count = child->quick ? 5 * BATCH : MANY, sum = 0;
    uint64_t start_ns = bench_now_ns();

    for (int64_t done = 0; done < count; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            refs[i] = moray_call(empty);
        for (int i = 0; i < BATCH; i++)
            sum += moray_take_as(int64_t, refs[i]);
    }
    double seconds = child_seconds(start_ns);
    CHILD_MUST(sum == count);
    return (double)count / seconds;
}

typedef struct {
    int64_t value, tasks;
} fib_result;

MORAY_TASK(fib_result, fib, (int32_t, n))
{
    if (n < 2)
        return (fib_result){n, 0};
    moray_ref first = moray_call(fib, n - 1), second = moray_call(fib, n - 2);
    fib_result a = moray_take_as(fib_result, first), b = moray_take_as(fib_result, second);
    return (fib_result){a.value + b.value, a.tasks + b.tasks + 2};
}

/* The root is the driver's: 242,784 tasks. */
static double nested(struct child *child)
{
    int32_t n = 25;
    uint64_t start_ns = bench_now_ns();
    moray_ref first = moray_call(fib, n - 1), second = moray_call(fib, n - 2);
    fib_result a = moray_take_as(fib_result, first), b = moray_take_as(fib_result, second);
    double seconds = child_seconds(start_ns);

    CHILD_MUST(a.value + b.value == 75025);
    CHILD_MUST(a.tasks + b.tasks + 2 == 242784);
    child_tell(child, " tasks=%lld", (long long)(a.tasks + b.tasks + 2));
    return seconds;
}

/* Shared by the driver and the workers, which are forked from it. */
struct gate {
    _Atomic int started, open;
};
static struct gate *gate;

__attribute__((constructor)) static void make_gate(void)
{
    gate = mmap(NULL, sizeof *gate, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (gate == MAP_FAILED)
        abort();
}

/* Keeps a worker busy until the driver opens the gate. Moray does not know that it waits. */
MORAY_TASK(int64_t, block)
{
    atomic_fetch_add(&gate->started, 1);
    while (!atomic_load(&gate->open))
        usleep(50);
    return 0;
}

static double resident_shared_bytes(void)
{
    long pages[3] = {0};
    FILE *file = fopen("/proc/self/statm", "re");

    if (file) {
        if (fscanf(file, "%ld %ld %ld", &pages[0], &pages[1], &pages[2]) != 3)
            pages[2] = 0;
        fclose(file);
    }
    return (double)pages[2] * (double)sysconf(_SC_PAGESIZE);
}

static double queued(struct child *child)
{
    int count = child->quick ? MANY / 50 : MANY, blockers = moray_workers();
    moray_ref *all = malloc((size_t)count * sizeof *all), held[BLOCKERS_MAX];
    int64_t sum = 0;

    CHILD_MUST(all && blockers <= BLOCKERS_MAX);
    for (int i = 0; i < count; i++)
        all[i] = (moray_ref){0}; /* touches the memory of the references */
    for (int i = 0; i < blockers; i++)
        held[i] = moray_call(block);
    while (atomic_load(&gate->started) < blockers)
        usleep(1000);

    double before = resident_shared_bytes();
    uint64_t start_ns = bench_now_ns();
    for (int i = 0; i < count; i++)
        all[i] = moray_call(empty);
    double submit = child_seconds(start_ns);
    atomic_store(&gate->open, 1);
    uint64_t pause_ns = bench_now_ns();
    double bytes = resident_shared_bytes() - before;
    uint64_t paused_ns = bench_now_ns() - pause_ns;
    for (int i = 0; i < count; i++)
        sum += moray_take_as(int64_t, all[i]);
    double seconds = child_seconds(start_ns) - (double)paused_ns / 1e9;

    CHILD_MUST(sum == count);
    for (int i = 0; i < blockers; i++)
        moray_take_as(int64_t, held[i]);
    free(all);
    child_tell(child, " tasks=%d submit_s=%.3f bytes_a_task=%.0f", count, submit, bytes / count);
    return seconds;
}

MORAY_TASK(int64_t, nap)
{
    usleep(SLEEP_MS * 1000);
    return moray_rank();
}

typedef struct {
    int64_t count[2]; /* tasks that ran on rank 0 and on others */
} balance_result;

MORAY_TASK(balance_result, naps, (int32_t, count))
{
    balance_result result = {{0, 0}};
    moray_ref all[SLEEPERS];

    for (int i = 0; i < count; i++)
        all[i] = moray_call(nap);
    for (int i = 0; i < count; i++)
        result.count[moray_take_as(int64_t, all[i]) != 0]++;
    return result;
}

static double balance(struct child *child)
{
    int count = child->quick ? SLEEPERS / 5 : SLEEPERS, workers = moray_workers();
    uint64_t start_ns = bench_now_ns();
    balance_result result = moray_take_as(balance_result, moray_call(naps, count));
    double seconds = child_seconds(start_ns);

    CHILD_MUST(result.count[0] + result.count[1] == count && workers == 16);
    child_tell(child, " seconds=%.3f rank_0=%lld rank_1=%lld", seconds, (long long)result.count[0],
               (long long)result.count[1]);
    return seconds / (count * SLEEP_MS / 1e3 / workers);
}

/* ---- Round trips ---- */

static double round_trip(struct child *child)
{
    int trips = child->quick ? 2000 : 100000;
    uint64_t start_ns = bench_now_ns();

    for (int i = 0; i < trips; i++)
        moray_take_as(int64_t, moray_call(empty));
    return child_seconds(start_ns) * 1e6 / trips;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* The median of trips with a sleep before each. */
static double trips_with_gap(int gap_ms, int trips)
{
    static double us[10000];

    for (int i = 0; i < trips; i++) {
        if (gap_ms)
            usleep((useconds_t)gap_ms * 1000);
        uint64_t start_ns = bench_now_ns();
        moray_take_as(int64_t, moray_call(empty));
        us[i] = child_seconds(start_ns) * 1e6;
    }
    qsort(us, (size_t)trips, sizeof *us, by_value);
    return us[trips / 2];
}

static double told(struct child *child, int gap_ms, int trips)
{
    child_tell(child, " trips=%d", trips);
    return trips_with_gap(gap_ms, trips);
}

static double round_trip_idle(struct child *child)
{
    return told(child, 5, child->quick ? 20 : 200);
}

/* A tenth of a run: after some trips it is as in a run that was never left. */
static double round_trip_idle_part(struct child *child)
{
    static unsigned part;

    core_begin_on(part++);
    return trips_with_gap(5, child->quick ? 1 : 20);
}

static double round_trip_across(struct child *child)
{
    return told(child, 0, child->quick ? 200 : 2000);
}

/* ---- Actors ---- */

MORAY_ACTOR(tally, (int64_t, value));
MORAY_METHOD(int64_t, tally, add, (int64_t, by))
{
    return self->value += by;
}

static tally_actor counter;
static int64_t counted;

static void make_counter(void)
{
    if (counted)
        return;
    counter = moray_new(tally);
    counted += moray_take_as(int64_t, moray_call(tally_add, counter, 1));
    CHILD_MUST(counted == 1);
}

static double actor_round_trip(struct child *child)
{
    int trips = child->quick ? 2000 : 100000;

    make_counter();
    uint64_t start_ns = bench_now_ns();
    for (int i = 0; i < trips; i++)
        CHILD_MUST(moray_take_as(int64_t, moray_call(tally_add, counter, 1)) == ++counted);
    return child_seconds(start_ns) * 1e6 / trips;
}

static double actor_stream(struct child *child)
{
    int calls = child->quick ? 50000 : MANY;

    make_counter();
    uint64_t start_ns = bench_now_ns();
    for (int i = 1; i < calls; i++)
        moray_release(moray_call(tally_add, counter, 1));
    counted += calls;
    CHILD_MUST(moray_take_as(int64_t, moray_call(tally_add, counter, 1)) == counted);
    return calls / child_seconds(start_ns);
}

const struct child_measure measures_of_tasks[] = {
    {"batches", batches},
    {"nested", nested},
    {"queued", queued},
    {"balance", balance},
    {"round_trip", round_trip},
    {"round_trip_idle", round_trip_idle},
    {"round_trip_idle_part", round_trip_idle_part},
    {"round_trip_across", round_trip_across},
    {"actor_round_trip", actor_round_trip},
    {"actor_stream", actor_stream},
    {NULL, NULL},
};
