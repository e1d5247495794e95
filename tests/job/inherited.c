/**
 * What a task's process has of its rank: the memory of main as moray_init found it, what moray_setup
 * ships (decisions.md 12), and the signals of a launcher.
 */
#include "keys.h"

#include <dlfcn.h>
#include <sys/wait.h>

static int32_t setup_value;
static void setup_fn(const void *value, size_t size)
{
    if (size == sizeof(setup_value))
        memcpy(&setup_value, value, size);
}
MORAY_TASK(int32_t, set_up)
{
    return setup_value;
}
MORAY_ACTOR(asked);
MORAY_METHOD(int32_t, asked, set_up)
{
    return setup_value;
}

static int32_t before_init, after_init;
MORAY_TASK(int32_t, globals)
{
    return before_init * 10 + after_init;
}

/* ---- Decision 12 ---- */

static void what_main_did_after_init_is_not_seen_by_tasks(void)
{
    after_init = 5;
    for (int node = 0; node < node_count(); node++)
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(node)), globals)),
                    70);
}

MORAY_TASK(int32_t, sets_up)
{
    int32_t value = 1;
    return (int32_t)moray_setup(setup_fn, &value, sizeof(value));
}

static void settings_are_shipped_by_moray_setup(void)
{
    int32_t value = 1234;

    DEMAND_OK(moray_setup(setup_fn, &value, sizeof(value)));
    value = 0;
    for (int i = 0; i < 20; i++)
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(i)), set_up)), 1234);
    /* a process that starts later as well: a worker after a death, and an actor */
    for (int node = 0; node < node_count(); node++) {
        asked_actor actor = moray_new_with((.on_rank = on_node(node)), asked);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(asked_set_up, actor)), 1234);
        DEMAND_OK(moray_actor_release(actor));
    }
    moray_ref dead = moray_call_with((.attempts = 1), dies_until, say("setup"), SIGKILL, 2);
    DEMAND_CODE(moray_get_bytes(dead, NULL, 0, 0), MORAY_DIED);
    DEMAND_OK(moray_release(dead));
    for (int i = 0; i < 20; i++)
        DEMAND_SAME(moray_take_as(int32_t, moray_call(set_up)), 1234);
    DEMAND_CODE(moray_setup(NULL, &value, 4), MORAY_INVALID);
    DEMAND_CODE(moray_setup(setup_fn, &value, 65537), MORAY_INVALID);
    DEMAND_CODE(moray_setup(setup_fn, NULL, 4), MORAY_INVALID);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(sets_up)), MORAY_WRONG_STATE);
    if (moray_ranks() > 1) { /* a library lies elsewhere there */
        void (*of_a_library)(const void *, size_t);
        *(void **)&of_a_library = dlsym(dlopen(NULL, RTLD_LAZY), "getpid");
        DEMAND_CODE(moray_setup(of_a_library, &value, 4), MORAY_INVALID);
    }
}

MORAY_TASK(int32_t, calls_set_up_later)
{
    gate_open("a task has begun");
    gate_wait("set up");
    return moray_take_as(int32_t, moray_call(set_up));
}

/* On the stack of a task that began before, too. */
static void what_is_set_up_is_there_for_the_next_task(void)
{
    int32_t value = 4321;
    moray_ref ref = moray_call(calls_set_up_later);

    gate_wait("a task has begun");
    DEMAND_OK(moray_setup(setup_fn, &value, sizeof(value)));
    gate_open("set up");
    DEMAND_SAME(moray_take_as(int32_t, ref), 4321);
}

/* ---- Signals ---- */

/* The signal that ended a child of the task. */
MORAY_TASK(int32_t, ends_its_child, (bool, executes), (int32_t, number))
{
    int32_t status = 0;
    pid_t child = fork();

    if (child == 0) {
        if (executes)
            execlp("sleep", "sleep", "5", (char *)NULL);
        sleep(5);
        _exit(0);
    }
    usleep(executes ? 100000 : 0); /* it is to be another program by then */
    kill(child, number);
    return waitpid(child, &status, 0) == child && WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

MORAY_TASK(int32_t, passes_by, (int32_t, number))
{
    return raise(number);
}

/* Launchers send these to every process of a job; a worker goes on, but what it started ends. */
static void signals_for_the_rank_end_what_a_task_starts(void)
{
    static const int32_t signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};

    for (size_t i = 0; i < COUNT_OF(signals); i++) {
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.attempts = 1), passes_by, signals[i])),
                    0);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(ends_its_child, true, signals[i])),
                    signals[i]);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(ends_its_child, false, signals[i])),
                    signals[i]);
    }
}

static const struct law laws[] = {
    {"decision 12: what main did after moray_init is not seen by tasks",
     what_main_did_after_init_is_not_seen_by_tasks, 10},
    {"decision 12: settings are shipped by moray_setup", settings_are_shipped_by_moray_setup, 20},
    {"decision 12: … before the next task, on a waiter's stack too",
     what_is_set_up_is_there_for_the_next_task, 30},
    {"signals for the rank end what a task starts", signals_for_the_rank_end_what_a_task_starts,
     60},
};

int main(int argc, char **argv)
{
    before_init = 7;
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
