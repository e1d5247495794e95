/**
 * The section "Bad input": each mistake gives a code and a story that names what to change,
 * never a crash or a hang. Without arguments: the laws that need one job. What ends a job, or keeps one
 * from starting, is a mode of its own, run by bad_input.sh:
 *
 *     idle             starts, says "started", ends     (for settings that cannot be)
 *     mpi              moray_init after MPI_Init
 *     uncaught         moray_take_as of a failed task in the driver
 *     setup            a moray_setup function that ends its process
 *     waits            ends while tasks wait; says how many of them went on as if they had waited
 *     threads          two other threads make their first calls while the first thread is in one
 *     cells            calls of each kind where the table of what waits for what is full
 *     cells general    the same where the agent places those that wait
 *     again            moray_init_with of what cannot be, many times; says how many descriptors it
 *                      left open; then one that can be
 *     main_ends        the first thread ends, others go on
 *     records          one process takes all records and lets them go; another needs some then
 */
#include "law.h"

#include <dirent.h>
#include <dlfcn.h>
#include <sys/wait.h>

MORAY_TASK(int32_t, add, (int32_t, a), (int32_t, b))
{
    return a + b;
}

MORAY_TASK(int32_t, fails, (int32_t, value))
{
    moray_fail(MORAY_FAILED, "a story of %d", value);
    return 0;
}

MORAY_ACTOR(tally, (int32_t, value));
MORAY_ACTOR(other);
MORAY_METHOD(int32_t, tally, add, (int32_t, by))
{
    return self->value += by;
}

static enum moray_code before_init[8];

static void call_all(enum moray_code *codes)
{
    int32_t value = 3;
    moray_ref ref = moray_put(&value, sizeof(value));

    codes[0] = ref.owner ? MORAY_OK : moray_last(NULL);
    ref = moray_call(add, 1, 2);
    codes[1] = ref.owner ? MORAY_OK : moray_last(NULL);
    ref = (moray_ref){1, 1, 1, 0};
    codes[2] = moray_get(ref, &value, 0);
    codes[3] = moray_release(ref);
    codes[4] = moray_wait(&ref, 1, 1, NULL, NULL, NULL, NULL, 0, 0);
    codes[5] = moray_kv_put("a", "b", "c", 1, 0);
    tally_actor actor = moray_new(tally);
    codes[6] = actor.handle.node ? MORAY_OK : moray_last(NULL);
    codes[7] = moray_scope_begin();
}

static void a_call_before_init_is_refused(void)
{
    for (size_t i = 0; i < COUNT_OF(before_init); i++)
        DEMAND_SAME(before_init[i], MORAY_WRONG_STATE);
}

static void an_unregistered_function_is_refused(void)
{
    static const struct moray_function unknown = {.name = "stranger", .file = "x.c", .line = 1};
    moray_ref ref = moray_submit(&unknown, NULL, NULL, NULL, 0, NULL);

    DEMAND(ref.owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "stranger");
    DEMAND_NAMES(last_story(), "MORAY_TASK");
    ref = moray_submit(NULL, NULL, NULL, NULL, 0, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND(moray_new_actor(NULL, NULL, NULL, NULL, 0).node == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "MORAY_ACTOR");
}

static void wrong_arguments_are_refused(void)
{
    int32_t a = 1;
    int64_t wide = 2;
    struct moray_argument arguments[3] = {{.data = &a, .size = sizeof(a)},
                                          {.data = &wide, .size = sizeof(wide)},
                                          {.data = &a, .size = sizeof(a)}};
    moray_ref ref = moray_submit(&add_function, NULL, NULL, arguments, 1, NULL);

    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "add takes 2 arguments, not 1");
    ref = moray_submit(&add_function, NULL, NULL, arguments, 3, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    ref = moray_submit(&add_function, NULL, NULL, arguments, 2, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "argument 2 of add has 8 bytes");
    ref = moray_submit(&tally_add_function, NULL, NULL, arguments, 1, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    tally_actor actor = moray_new(tally);
    other_actor other = moray_new(other);
    ref = moray_submit_method(other.handle, &tally_add_function, NULL, NULL, arguments, 1, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_WRONG_TYPE);
    DEMAND_OK(moray_actor_release(other));
    ref = moray_submit_method(actor.handle, &add_function, NULL, NULL, arguments, 1, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_OK(moray_actor_release(actor));
}

typedef struct {
    int64_t first, second;
} pair;

MORAY_TASK(pair, make_pair)
{
    return (pair){1, 2};
}

MORAY_TASK(int32_t, takes_tally, (tally_actor, actor))
{
    return actor.handle.node != 0;
}

MORAY_TASK(int32_t, takes_future, (moray_future, future))
{
    return future.ref.owner != 0;
}

static void other_kinds_of_arguments_are_refused(void)
{
    moray_ref two = moray_call(make_pair), ref = moray_call(takes_tally, two);
    struct moray_argument future = {.data = &two, .size = 4};

    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_WRONG_TYPE);
    ref = moray_submit(&takes_future_function, NULL, NULL, &future, 1, NULL);
    DEMAND(ref.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_OK(moray_release(two));
}

static void options_of_an_actor_are_refused_for_its_methods(void)
{
    static const struct moray_task_options bad[] = {{.cores = 2},
                                                    {.memory = 1},
                                                    {.on_rank = 1},
                                                    {.spread = 1},
                                                    {.attempts = 5},
                                                    {.retry_errors = 1},
                                                    {.calls_per_process = 1},
                                                    {.attempts = MORAY_ENDLESS}};
    tally_actor actor = moray_new(tally);
    int32_t one = 1;
    struct moray_argument argument = {.data = &one, .size = sizeof(one)};

    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        moray_ref ref = moray_submit_method(actor.handle, &tally_add_function, NULL, &bad[i],
                                            &argument, 1, NULL);
        DEMAND(ref.owner == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
        DEMAND_NAMES(last_story(), "moray_new_with");
    }
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.name = "named", .attempts = 1), tally_add,
                                                       actor, 1)),
                1);
    DEMAND_OK(moray_actor_release(actor));
    DEMAND(moray_new_with((.name = "", .get_if_exists = 1), tally).handle.node == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    actor = moray_new_with((.pending_max = UINT32_MAX), tally);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_add, actor, 3)), 3);
    DEMAND_OK(moray_actor_release(actor));
}

MORAY_TASK_RESULTS(halves, ((int32_t, one), (int32_t, other)), (int32_t, of))
{
    return (halves_results){of / 2, of - of / 2};
}

static void results_that_nobody_wants_are_let_go(void)
{
    int32_t five = 5;
    struct moray_argument argument = {.data = &five, .size = sizeof(five)};
    moray_ref first = moray_submit(&halves_function, NULL, NULL, &argument, 1, NULL);

    DEMAND_SAME(moray_take_as(int32_t, first), 2);
}

static void null_references_and_pointers_are_refused(void)
{
    moray_ref none = {0, 0, 0, 0};
    moray_view view;

    DEMAND_CODE(moray_get_view(none, &view, 0), MORAY_INVALID);
    DEMAND(moray_release(none) != MORAY_OK);
    DEMAND(moray_cancel(none) != MORAY_OK);
    DEMAND(moray_wait(&none, 1, 1, NULL, NULL, NULL, NULL, 0, 0) != MORAY_OK);
    DEMAND(moray_call(add, none, 1).owner == 0);
    DEMAND(moray_put(NULL, 4).owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    moray_ref put = moray_put_value(int32_t, 1);
    DEMAND_CODE(moray_get_view(put, NULL, 0), MORAY_INVALID);
    DEMAND_CODE(moray_get_many(&put, 1, NULL, 0), MORAY_INVALID);
    DEMAND_OK(moray_release(put));
    tally_actor nobody = {{0, 0, 0, 0}};
    DEMAND(moray_call(tally_add, nobody, 1).owner == 0);
    DEMAND_CODE(moray_actor_release(nobody), MORAY_INVALID);
    DEMAND_CODE(moray_kill(nobody, 0), MORAY_INVALID);
}

static void stale_references_are_refused(void)
{
    moray_ref ref = moray_put_value(int32_t, 1), wild[4];
    int32_t value;

    DEMAND_OK(moray_release(ref));
    DEMAND_CODE(moray_release(ref), MORAY_STALE); /* released twice */
    DEMAND_NAMES(last_story(), "released");
    DEMAND_CODE(moray_get(ref, &value, 0), MORAY_STALE);
    DEMAND(moray_call(add, ref, 1).owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_STALE);
    wild[0] = (moray_ref){ref.owner, 0xfffffff0, 7, 0};
    wild[1] = (moray_ref){0xffff, 1, 1, 0};
    wild[2] = (moray_ref){ref.owner, ref.index, ref.generation + 1000, 0};
    wild[3] = (moray_ref){0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff};
    for (int i = 0; i < 4; i++) {
        DEMAND_CODE(moray_get(wild[i], &value, 0), MORAY_STALE);
        DEMAND_CODE(moray_release(wild[i]), MORAY_STALE);
    }
}

static volatile int32_t interrupted_code;

static void handler(int signal)
{
    int32_t value = 1;
    moray_ref ref = moray_put(&value, sizeof(value));

    (void)signal;
    if (!ref.owner)
        interrupted_code = (int32_t)moray_last(NULL);
    else
        moray_release(ref);
}

static void *keep_interrupting(void *thread)
{
    for (int i = 0; i < 400 && !interrupted_code; i++) {
        pthread_kill(*(pthread_t *)thread, SIGUSR1);
        law_sleep_ms(1);
    }
    return NULL;
}

static void a_signal_handler_that_interrupts_a_call_is_refused(void)
{
    pthread_t self = pthread_self(), other;
    static char bytes[1 << 20];

    signal(SIGUSR1, handler);
    DEMAND(pthread_create(&other, NULL, keep_interrupting, &self) == 0);
    for (uint64_t until = law_ms() + 3000; !interrupted_code && law_ms() < until;) {
        moray_ref ref = moray_put(bytes, sizeof(bytes));
        DEMAND_OK(moray_release(ref));
    }
    pthread_join(other, NULL);
    signal(SIGUSR1, SIG_DFL);
    DEMAND_SAME(interrupted_code, MORAY_WRONG_STATE);
    /* and the interrupted thread goes on */
    DEMAND_SAME(moray_take_as(int32_t, moray_call(add, 1, 2)), 3);
}

MORAY_TASK(int32_t, leaves_scopes_open, (int32_t, count))
{
    moray_ref ref = {0, 0, 0, 0};

    for (int32_t i = 0; i < count; i++) {
        moray_scope_begin();
        ref = moray_call(add, i, 1);
    }
    return moray_get_as(int32_t, ref);
}

MORAY_METHOD(int32_t, tally, leave_scope)
{
    moray_scope_begin();
    moray_ref ref = moray_call(add, self->value, 1);
    self->value = moray_get_as(int32_t, ref);
    return self->value;
}

static void a_scope_left_open_ends_with_its_task(void)
{
    tally_actor actor = moray_new(tally);

    for (int i = 1; i <= 20; i++) {
        moray_ref ref = moray_call_with((.attempts = 1), leaves_scopes_open, 3);
        int32_t value = 0;
        DEMAND_OK(moray_get(ref, &value, 5000));
        DEMAND_SAME(value, 3);
        DEMAND_OK(moray_release(ref));
        DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_leave_scope, actor)), i);
    }
    DEMAND_OK(moray_actor_release(actor));
}

typedef struct {
    int32_t how, turn;
} interruption;

static const char *gate_of(interruption of)
{
    static _Thread_local char gate[32];
    snprintf(gate, sizeof(gate), "interrupted %d %d", of.how, of.turn);
    return gate;
}

MORAY_TASK(int32_t, after_the_signal, (interruption, of))
{
    gate_wait(gate_of(of));
    return of.how;
}

struct interrupter {
    pthread_t thread;
    interruption of;
};

static void *interrupt_once(void *at)
{
    struct interrupter *interrupter = at;

    law_sleep_ms(100);
    pthread_kill(interrupter->thread, SIGUSR1);
    law_sleep_ms(20);
    gate_open(gate_of(interrupter->of));
    return NULL;
}

/* How 0: a wait; 1: a get. */
static void wait_interrupted(int32_t how, int32_t turn)
{
    struct interrupter interrupter = {pthread_self(), {how, turn}};
    moray_ref ref = moray_call(after_the_signal, interrupter.of);
    int32_t value = 0;
    pthread_t other;

    interrupted_code = 0;
    DEMAND(pthread_create(&other, NULL, interrupt_once, &interrupter) == 0);
    if (how == 0)
        DEMAND_OK(moray_wait(&ref, 1, 1, NULL, NULL, NULL, NULL, 10000, 0));
    DEMAND_OK(moray_get(ref, &value, 10000));
    pthread_join(other, NULL);
    DEMAND_OK(moray_release(ref));
}

static void a_signal_handler_that_interrupts_a_wait_is_refused(void)
{
    signal(SIGUSR1, handler);
    for (int32_t how = 0; how < 2; how++) {
        /* The signal may come too early on a machine that does much else. */
        for (int32_t turn = 0; turn < 10 && (!turn || interrupted_code == 0); turn++)
            wait_interrupted(how, turn);
        DEMAND_SAME(interrupted_code, MORAY_WRONG_STATE);
    }
    signal(SIGUSR1, SIG_DFL);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(add, 1, 2)), 3);
}

/* Returns whether every call was refused in a child that the program made. */
static bool fork_and_call(void)
{
    enum moray_code codes[8];
    int32_t status = 0;
    pid_t child = fork();

    if (child == 0) {
        call_all(codes);
        for (size_t i = 0; i < COUNT_OF(codes); i++)
            status |= codes[i] != MORAY_WRONG_STATE || !strstr(last_story(), "fork");
        _exit(status | (moray_finalize() != 1));
    }
    return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

MORAY_TASK(bool, forks)
{
    return fork_and_call();
}

static void a_call_in_a_child_of_fork_is_refused(void)
{
    DEMAND(fork_and_call());
    DEMAND(moray_take_as(bool, moray_call(forks)));
    DEMAND_SAME(moray_take_as(int32_t, moray_call(add, 1, 2)), 3);
}

/* What became of a child that returns 100 as if it were the task; the parent goes on after it. */
static int32_t child_returns(void)
{
    int32_t status = 0;
    pid_t child = fork();

    if (child == 0)
        return 100;
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

MORAY_TASK(int32_t, forks_and_returns)
{
    return child_returns();
}

MORAY_METHOD(int32_t, tally, fork_and_return)
{
    return child_returns();
}

static void a_child_of_fork_that_returns_from_the_body_ends(void)
{
    tally_actor actor = moray_new(tally);

    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.attempts = 1), forks_and_returns)), 1);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_fork_and_return, actor)), 1);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_fork_and_return, actor)), 1);
    DEMAND_OK(moray_actor_release(actor));
}

MORAY_TASK(int32_t, starts_again)
{
    return (int32_t)moray_init_with(NULL, NULL, (struct moray_options){0});
}

static void a_second_init_is_refused(void)
{
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.attempts = 1), starts_again)),
                MORAY_WRONG_STATE);
    DEMAND_CODE(moray_init_with(NULL, NULL, (struct moray_options){0}), MORAY_WRONG_STATE);
    DEMAND_NAMES(last_story(), "second time");
    DEMAND_SAME(moray_take_as(int32_t, moray_call(add, 1, 2)), 3);
}

static const struct law laws[] = {
    {"bad input: a call before init", a_call_before_init_is_refused, 10},
    {"bad input: an unregistered function", an_unregistered_function_is_refused, 10},
    {"bad input: wrong number or size of arguments", wrong_arguments_are_refused, 10},
    {"bad input: other kinds of arguments", other_kinds_of_arguments_are_refused, 10},
    {"bad input: options of an actor for its methods",
     options_of_an_actor_are_refused_for_its_methods, 10},
    {"bad input: further results that nobody wants", results_that_nobody_wants_are_let_go, 10},
    {"bad input: null references", null_references_and_pointers_are_refused, 10},
    {"bad input: stale references, and release twice", stale_references_are_refused, 10},
    {"bad input: a call in a signal handler that interrupted a call (decision 44)",
     a_signal_handler_that_interrupts_a_call_is_refused, 20},
    {"bad input: … and in one that interrupted a wait",
     a_signal_handler_that_interrupts_a_wait_is_refused, 20},
    {"bad input: moray_init twice", a_second_init_is_refused, 10},
    {"bad input: a scope that its task did not end", a_scope_left_open_ends_with_its_task, 10},
    {"bad input: a call in a child of fork", a_call_in_a_child_of_fork_is_refused, 10},
    {"bad input: a child of fork that returns from the body",
     a_child_of_fork_that_returns_from_the_body_ends, 10},
};

static int (*finalize_mpi)(void);

static void end_mpi(void)
{
    finalize_mpi();
}

/* MPI is in the library; the program itself need not be built with it. Who started MPI ends it, also
 * where moray_init ends the process: without that MPI leaves a directory behind. */
static void start_mpi(void)
{
    void *mpi = dlopen("libmpi.so.40", RTLD_NOW | RTLD_GLOBAL);
    int (*init)(int *, char ***) = NULL;

    if (mpi) {
        *(void **)&init = dlsym(mpi, "MPI_Init");
        *(void **)&finalize_mpi = dlsym(mpi, "MPI_Finalize");
    }
    if (!init || !finalize_mpi || init(NULL, NULL) != 0 || atexit(end_mpi))
        exit(77);
}

static void dies(const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    abort();
}

MORAY_TASK(int32_t, naps, (int32_t, ms))
{
    law_sleep_ms(ms);
    return 1;
}

static void leaves(void)
{
    atomic_fetch_add(&shared[2], 1);
}

MORAY_TASK(int32_t, waits, (bool, all))
{
    moray_ref refs[2] = {moray_call(naps, 20000), moray_call(naps, 20000)};
    moray_view views[2];

    atomic_fetch_add(&shared[0], 1);
    if (all)
        (void)moray_get_many(refs, 2, views, 10000);
    else
        (void)moray_wait(refs, 2, 2, NULL, NULL, NULL, NULL, 0, 0);
    atomic_fetch_add(&shared[1], 1);
    return 1;
}

static int end_while_tasks_wait(void)
{
    int32_t value;

    moray_call(waits, true);
    moray_call(waits, false);
    moray_ref never = moray_call(naps, 20000);
    for (uint64_t until = law_ms() + 5000; atomic_load(&shared[0]) < 2 && law_ms() < until;)
        (void)moray_get(never, &value, 20); /* its core is theirs meanwhile */
    (void)moray_get(never, &value, 100);
    int status = moray_finalize();
    printf("%d waited, %d went on\n", (int)shared[0], (int)shared[1]);
    return status;
}

MORAY_ACTOR(flooder);
MORAY_METHOD(int32_t, flooder, flood, (int32_t, count))
{
    (void)self;
    moray_at_worker_exit(leaves);
    for (int32_t i = 0; i < count; i++) {
        atomic_store(&shared[0], i);
        moray_release(moray_call(naps, 20000));
    }
    atomic_fetch_add(&shared[1], 1);
    return count;
}

/* One that waits for room in its queue, which there will not be. */
static int end_while_a_call_waits(void)
{
    moray_ref never = moray_call(naps, 20000);

    moray_call(flooder_flood, moray_new(flooder), 1000);
    for (uint64_t until = law_ms() + 5000; atomic_load(&shared[0]) < 16 && law_ms() < until;)
        law_sleep_ms(10);
    law_sleep_ms(100);
    moray_release(never);
    int status = moray_finalize();
    printf("%d left, %d went on\n", (int)shared[2], (int)shared[1]);
    return status;
}

static void *waits_in_vain(void *context)
{
    moray_ref *refs = context;
    int32_t value;

    atomic_store(&shared[0], 1);
    atomic_store(&shared[1], moray_get(refs[0], &value, 0));
    return NULL;
}

/* Another thread of the driver waits while the first ends the job. */
static int end_while_a_thread_waits(void)
{
    moray_ref never = moray_call(naps, 20000);
    pthread_t thread;

    if (pthread_create(&thread, NULL, waits_in_vain, &never) != 0)
        return 2;
    while (!atomic_load(&shared[0]))
        law_sleep_ms(1);
    law_sleep_ms(100);
    int status = moray_finalize();
    pthread_join(thread, NULL);
    printf("the thread's wait gave %s\n", moray_code_name((enum moray_code)shared[1]));
    return status;
}

MORAY_TASK(int32_t, sum_of_8, (int32_t, a), (int32_t, b), (int32_t, c), (int32_t, d), (int32_t, e),
           (int32_t, f), (int32_t, g), (int32_t, h))
{
    return a + b + c + d + e + f + g + h;
}

MORAY_METHOD(int32_t, tally, add_two, (int32_t, a), (int32_t, b))
{
    return self->value += a + b;
}

static void busy(bool refused, const char *what)
{
    const char *story = "";

    if (!refused || moray_last(&story) != MORAY_BUSY || !strstr(story, "MORAY_QUEUE_MAX"))
        printf("%s is not refused as it should be: %s\n", what, story);
}

/* Each of many tasks waits for another, eight times: what tells one of the other's end runs out before the
 * records do. */
static int fill_the_cells(bool general)
{

    enum { SUMS_MAX = 1 << 20 };
    moray_ref *sums = calloc(SUMS_MAX, sizeof(*sums)), late;
    moray_subscription *subscription;
    tally_actor actor = moray_new(tally);
    int32_t value = 0;
    size_t count = 0;

    if (!sums || moray_subscribe("channel", &subscription) != MORAY_OK)
        return 2;
    value = moray_take_as(int32_t, moray_call(tally_add, actor, 1));
    late = moray_call(naps, 1500);
    do
        sums[count] = moray_call_with((.cores = general ? 0.5 : 0), sum_of_8, late, late, late,
                                      late, late, late, late, late);
    while (sums[count].owner && ++count < SUMS_MAX);
    busy(count < SUMS_MAX, "a task");
    for (int i = 0; i < 600 && !general; i++) { /* more than one slab of records */
        moray_ref ref = moray_call(tally_add, actor, 1);
        busy(!ref.owner, "a method");
        ref = moray_call(tally_add_two, actor, late, 1);
        busy(!ref.owner, "a method that waits");
        busy(moray_kv_put("a", "b", "c", 1, 0) != MORAY_OK, "a request");
        busy(moray_next(subscription, &value, 4, NULL, NULL, MORAY_NOW) != MORAY_OK, "a question");
    }
    for (size_t i = 0; i < count; i++)
        if (moray_get(sums[i], &value, 0) != MORAY_OK || moray_release(sums[i]) != MORAY_OK)
            return 3;
    moray_release(late);
    value = moray_take_as(int32_t, moray_call(tally_add, actor, 1));
    moray_unsubscribe(subscription);
    moray_actor_release(actor);
    free(sums);
    printf("%s, then %d\n", count ? "full" : "never full", value);
    return moray_finalize();
}

MORAY_TASK(int32_t, nests, (int32_t, children))
{
    moray_ref refs[64];
    int32_t sum = 0;

    for (int32_t i = 0; i < children && i < 64; i++)
        refs[i] = moray_call(add, i, 1);
    for (int32_t i = 0; i < children && i < 64; i++)
        sum += moray_take_as(int32_t, refs[i]);
    return sum;
}

static int fill_the_records(void)
{
    enum { PUTS_MAX = 1 << 20 };
    moray_ref *refs = calloc(PUTS_MAX, sizeof(*refs)), nested;
    int32_t value = 0;
    size_t count = 0;

    while (refs && count < PUTS_MAX && (refs[count] = moray_put_value(int32_t, 1)).owner)
        count++;
    busy(count < PUTS_MAX, "a put");
    for (size_t i = 0; i < count; i++)
        moray_release(refs[i]);
    for (int i = 0; i < 20; i++) {
        nested = moray_call(nests, 64);
        if (moray_get(nested, &value, 5000) != MORAY_OK)
            printf("%s\n", moray_error(nested));
        moray_release(nested);
    }
    free(refs);
    printf("%s, then %d\n", count ? "full" : "never full", value);
    return moray_finalize();
}

struct caller {
    pthread_t thread;
    int after_ms;
    uint64_t end_ms;
};

static void *calls_once(void *context)
{
    struct caller *caller = context;

    law_sleep_ms(caller->after_ms);
    moray_release(moray_put_value(int32_t, 1));
    caller->end_ms = law_ms();
    return NULL;
}

/* A put of many bytes is one call, which no other thread's may overlap: not the first, and not the one
 * that comes while the first waits. Only the first calls of a process have this to fear. */
static int call_from_threads(void)
{
    struct caller callers[] = {{.after_ms = 3}, {.after_ms = 8}, {.after_ms = 13}};
    size_t bytes = (size_t)192 << 20;
    void *data = calloc(1, bytes);
    const char *seen = "no call overlaps";

    for (size_t i = 0; data && i < COUNT_OF(callers); i++)
        if (pthread_create(&callers[i].thread, NULL, calls_once, &callers[i]) != 0)
            return 2;
    uint64_t begin = law_ms();
    moray_ref ref = moray_put(data, bytes);
    uint64_t end = law_ms();
    for (size_t i = 0; i < COUNT_OF(callers); i++) {
        pthread_join(callers[i].thread, NULL);
        if (callers[i].end_ms < begin + (end - begin) / 2)
            seen = "a call overlaps";
    }
    if (!ref.owner || end - begin < 40)
        seen = "the put took no time";
    moray_release(ref);
    free(data);
    puts(seen);
    return moray_finalize();
}

static void *sleeps_long(void *context)
{
    law_sleep_ms(60000);
    return context;
}

static int end_the_first_thread(void)
{
    pthread_t thread;

    if (pthread_create(&thread, NULL, sleeps_long, NULL) != 0)
        return 2;
    pthread_exit(NULL);
}

static int open_descriptors(void)
{
    DIR *files = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(files))
        count++;
    closedir(files);
    return count;
}

static void init_in_vain(void)
{
    int before = open_descriptors();

    for (int i = 0; i < 50; i++) {
        struct moray_options options = {.store_bytes = i % 2 ? "64TiB" : "nothing"};
        DEMAND_CODE(moray_init_with(NULL, NULL, options), MORAY_INVALID);
    }
    printf("%d descriptors more\n", open_descriptors() - before);
}

static int one_mode(const char *mode, int argc, char **argv)
{
    if (!strcmp(mode, "mpi"))
        start_mpi();
    if (!strcmp(mode, "again"))
        init_in_vain();
    laws_begin();
    moray_init(&argc, &argv);
    if (!strcmp(mode, "uncaught"))
        return moray_take_as(int32_t, moray_call(fails, 12));
    if (!strcmp(mode, "setup")) {
        int32_t nothing = 0;
        moray_setup(dies, &nothing, sizeof(nothing));
        return moray_take_as(int32_t, moray_call(law_nothing)) == 0;
    }
    if (!strcmp(mode, "waits"))
        return end_while_tasks_wait();
    if (!strcmp(mode, "floods"))
        return end_while_a_call_waits();
    if (!strcmp(mode, "thread_waits"))
        return end_while_a_thread_waits();
    if (!strcmp(mode, "threads"))
        return call_from_threads();
    if (!strcmp(mode, "cells"))
        return fill_the_cells(argc > 2);
    if (!strcmp(mode, "main_ends"))
        return end_the_first_thread();
    if (!strcmp(mode, "records"))
        return fill_the_records();
    puts("started");
    return moray_finalize();
}

int main(int argc, char **argv)
{
    enum moray_code after_end[8];
    unsigned failed;
    int status;

    if (argc > 1)
        return one_mode(argv[1], argc, argv);
    call_all(before_init);
    laws_begin();
    signal(SIGALRM, law_too_long);
    moray_init(&argc, &argv);
    failed = laws_run(NULL, laws, COUNT_OF(laws));
    status = moray_finalize();
    call_all(after_end);
    for (size_t i = 0; i < COUNT_OF(after_end); i++)
        status |= after_end[i] != MORAY_WRONG_STATE;
    status |= moray_finalize() != 1;
    printf("%s %u - bad input: calls after finalize\n", status ? "not ok" : "ok", law_number + 1);
    return failed || status;
}
