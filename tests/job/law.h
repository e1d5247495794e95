/**
 * Laws of a running job: each is a function of the driver, run in order in one job, told as TAP.
 *
 *     static void law(void) { DEMAND(x == 1); }
 *     static const struct law laws[] = {{"line 7: what must hold", law, 10}};
 *     int main(int argc, char **argv) { return laws_main(argc, argv, laws, COUNT_OF(laws)); }
 *
 * The first demand that fails ends its law with file, line and the last story; the others still run.
 * A law that takes longer than its limit is named, and ends the job. A text on the command line picks
 * the laws whose names contain it; to pick none is a failure. laws.sh runs the programs, and demands that
 * nothing is left in use.
 * Who calls: the programs beside this file. Threads: the driver's first thread alone demands.
 */
#ifndef MORAY_TESTS_JOB_LAW_H
#define MORAY_TESTS_JOB_LAW_H

#include <moray.h>

#include <inttypes.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

struct law {
    const char *name; /* "line N: …" or "decision N: …", static */
    void (*run)(void);
    unsigned limit_s;
};

static jmp_buf law_over;
static const char *law_name = "moray_init";
static unsigned law_number;

#define DEMAND(condition)                               \
    do {                                                \
        if (!(condition))                               \
            law_failed(__FILE__, __LINE__, #condition); \
    } while (0)

/* Two integers are the same; both are told if not. */
#define DEMAND_SAME(a, b)                                                \
    do {                                                                 \
        int64_t law_a = (int64_t)(a), law_b = (int64_t)(b);              \
        if (law_a != law_b)                                              \
            law_differs(__FILE__, __LINE__, #a " == " #b, law_a, law_b); \
    } while (0)

/* A call gave this code; else the code it gave and the story are told. */
#define DEMAND_CODE(call, want) law_code(__FILE__, __LINE__, #call, call, want)
#define DEMAND_OK(call) law_code(__FILE__, __LINE__, #call, call, MORAY_OK)

/* A story names something. */
#define DEMAND_NAMES(story, word)                            \
    do {                                                     \
        const char *law_story = (story);                     \
        if (!strstr(law_story, word))                        \
            law_silent(__FILE__, __LINE__, law_story, word); \
    } while (0)

static void __attribute__((noreturn)) law_end(const char *text)
{
    printf("not ok %u - %s\n", law_number, law_name);
    for (const char *at = text; *at;) {
        int length = (int)strcspn(at, "\n");
        printf("# %.*s\n", length, at);
        at += length + (at[length] != '\0');
    }
    fflush(stdout);
    longjmp(law_over, 1);
}

static inline void __attribute__((noreturn))
law_failed(const char *file, int line, const char *what)
{
    char text[2048];
    const char *story;
    enum moray_code code = moray_last(&story);

    snprintf(text, sizeof(text), "%s:%d: %s\nlast story: %s: %s", file, line, what,
             moray_code_name(code), story);
    law_end(text);
}

static inline void __attribute__((noreturn))
law_differs(const char *file, int line, const char *what, int64_t a, int64_t b)
{
    char text[2048];

    snprintf(text, sizeof(text), "%s:%d: %s: %" PRId64 " and %" PRId64, file, line, what, a, b);
    law_end(text);
}

static inline void law_code(const char *file, int line, const char *call, enum moray_code got,
                            enum moray_code want)
{
    char text[2048];
    const char *story;

    if (got == want)
        return;
    moray_last(&story);
    snprintf(text, sizeof(text), "%s:%d: %.300s: gave %s, not %s\nlast story: %s", file, line, call,
             moray_code_name(got), moray_code_name(want), story);
    law_end(text);
}

static inline void law_silent(const char *file, int line, const char *story, const char *word)
{
    char text[4096];

    snprintf(text, sizeof(text), "%s:%d: the story does not name \"%s\": %s", file, line, word,
             story);
    law_end(text);
}

/* The story of this thread's last failed call. */
static __attribute__((noinline, unused)) const char *last_story(void)
{
    const char *story;
    moray_last(&story);
    return story;
}

static inline uint64_t law_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A gate is a key of the job: a task waits at it until the law has seen what it wants to see. */
static inline bool gate_is_open(const char *gate)
{
    int64_t sum = 0;
    return moray_kv_add("gate", gate, 0, &sum) != MORAY_OK || sum > 0;
}

static inline void gate_open(const char *gate)
{
    int64_t sum;
    moray_kv_add("gate", gate, 1, &sum);
}

static inline void law_sleep_ms(int64_t ms)
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    while (nanosleep(&pause, &pause) != 0)
        ;
}

static inline void *law_kill(void *us)
{
    usleep((useconds_t) * (int32_t *)us);
    raise(SIGKILL);
    return NULL;
}

/* The process is killed that many microseconds later, in the middle of what it does; `us` stays till then. */
static inline bool law_dies_after(int32_t *us)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, law_kill, us) == 0;
}

static inline void gate_wait(const char *gate)
{
    for (uint64_t until = law_ms() + 20000; !gate_is_open(gate) && law_ms() < until;)
        law_sleep_ms(2);
}

MORAY_TASK(int32_t, after, (int32_t, ms), (int32_t, value))
{
    law_sleep_ms(ms);
    return value;
}

MORAY_TASK(int32_t, law_nothing)
{
    return 0;
}

/* Whether rank 0 runs tasks, or is the head alone: a task for it is refused then. */
static inline bool head_is_node(void)
{
    static int is = -1;

    if (is < 0) {
        moray_ref ref = moray_call_with((.on_rank = 1), law_nothing);
        is = ref.owner != 0;
        if (is)
            moray_release(ref);
    }
    return is;
}

static inline int node_count(void)
{
    return moray_ranks() - !head_is_node();
}

/* `.on_rank` of the node-th node of the job. */
static inline int32_t on_node(int node)
{
    return 1 + !head_is_node() + node % node_count();
}

/* Words shared by all processes of a rank, as they were mapped before the fork. */
enum { SHARED_WORDS = 64 };
static _Atomic int64_t *shared;

static void law_too_long(int signal)
{
    char text[300];
    int length = snprintf(text, sizeof(text), "not ok %u - %s\n# it did not end within its limit\n",
                          law_number, law_name);

    (void)signal;
    (void)!write(STDOUT_FILENO, text, (size_t)length);
    _exit(3);
}

/* Before moray_init: what all processes inherit. */
static void laws_begin(void)
{
    shared = mmap(NULL, SHARED_WORDS * sizeof(*shared), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        exit(2);
}

/* Runs the laws in this job. Returns how many failed. */
static unsigned laws_run(const char *pick, const struct law *laws, size_t count)
{
    static volatile unsigned failed;
    const char *times = getenv("TEST_TIMES");
    unsigned factor = times && atoi(times) > 0 ? (unsigned)atoi(times) : 1;

    signal(SIGALRM, law_too_long);
    for (volatile size_t i = 0; i < count; i++) {
        if (pick && !strstr(laws[i].name, pick))
            continue;
        law_name = laws[i].name;
        law_number++;
        alarm(laws[i].limit_s * factor);
        if (setjmp(law_over)) {
            failed++;
            continue;
        }
        uint64_t begin = law_ms();
        laws[i].run();
        printf("ok %u - %s # %" PRIu64 " ms\n", law_number, law_name, law_ms() - begin);
        fflush(stdout);
    }
    if (law_number == 0) {
        printf("not ok 1 - a law is picked\n# no law's name contains \"%s\"\n", pick ? pick : "");
        fflush(stdout);
        failed++;
    }
    law_name = "moray_finalize";
    alarm(20 * factor);
    return failed;
}

static inline int laws_main(int argc, char **argv, const struct law *laws, size_t count)
{
    unsigned failed;
    int status;

    laws_begin();
    signal(SIGALRM, law_too_long);
    moray_init(&argc, &argv);
    failed = laws_run(argc > 1 ? argv[1] : NULL, laws, count);
    status = moray_finalize();
    return failed ? 1 : status;
}

#endif
