/**
 * Tasks that wait for tasks: semantics.md 19, decisions.md 18 (the driver's core) and 25 (what runs on
 * a waiter's stack). The driver that polls and the one that computes run with one core as well: laws.sh
 * is given MORAY_CORES=1 for that.
 */
#include "keys.h"

MORAY_TASK(int64_t, plus_one, (int64_t, x))
{
    return x + 1;
}

/* ---- 19 ---- */

MORAY_TASK(int64_t, fib, (int32_t, n))
{
    if (n < 2)
        return n;
    moray_ref a = moray_call(fib, n - 1), b = moray_call(fib, n - 2);
    return moray_take_as(int64_t, a) + moray_take_as(int64_t, b);
}

static void nested_tasks_that_wait_do_not_deadlock(void)
{
    DEMAND_SAME(moray_take_as(int64_t, moray_call(fib, 18)), 2584);
}

MORAY_TASK(int64_t, fib_of_many, (int32_t, n))
{
    moray_view views[2];
    int64_t sum;

    if (n < 2)
        return n;
    moray_ref refs[2] = {moray_call(fib_of_many, n - 1), moray_call(fib_of_many, n - 2)};
    if (moray_get_many(refs, 2, views, 0) != MORAY_OK)
        return -1000000;
    sum = *(const int64_t *)views[0].data + *(const int64_t *)views[1].data;
    moray_view_release(&views[0]);
    moray_view_release(&views[1]);
    return sum;
}

static void tasks_get_many_in_tasks(void)
{
    DEMAND_SAME(moray_take_as(int64_t, moray_call(fib_of_many, 16)), 987);
}

MORAY_TASK(int32_t, depth, (int32_t, left))
{
    return left ? moray_take_as(int32_t, moray_call(depth, left - 1)) + 1 : 0;
}

static void nesting_is_deeper_than_any_number_of_workers(void)
{
    DEMAND_SAME(moray_take_as(int32_t, moray_call(depth, 20000)), 20000);
}

/* With a limit nothing runs on the waiter's stack: each level gives its core to another process. */
MORAY_TASK(int32_t, depth_with_limit, (int32_t, left))
{
    int32_t value = 0;
    if (left == 0)
        return 0;
    moray_ref child = moray_call(depth_with_limit, left - 1);
    enum moray_code code = moray_get(child, &value, 30000);
    if (code != MORAY_OK)
        moray_fail(code, "%s", last_story());
    moray_release(child);
    return value + 1;
}

static void a_task_that_blocks_gives_its_core_up(void)
{
    uint64_t begin = law_ms();

    DEMAND_SAME(moray_take_as(int32_t, moray_call(depth_with_limit, 30)), 30);
    DEMAND(law_ms() - begin < 10000);
}

MORAY_TASK(int32_t, waits_with_wait, (int32_t, left))
{
    if (left == 0)
        return 0;
    moray_ref child = moray_call(waits_with_wait, left - 1);
    if (moray_wait(&child, 1, 1, NULL, NULL, NULL, NULL, 0, 0) != MORAY_OK)
        moray_fail(MORAY_FAILED, "%s", last_story());
    return moray_take_as(int32_t, child) + 1;
}

static void a_task_in_wait_gives_its_core_up(void)
{
    DEMAND_SAME(moray_take_as(int32_t, moray_call(waits_with_wait, 30)), 30);
}

/* Counts who computes at the same time on this node. */
static void compute(int32_t ms)
{
    int64_t now = atomic_fetch_add(&shared[0], 1) + 1, most = atomic_load(&shared[1]);
    while (now > most && !atomic_compare_exchange_weak(&shared[1], &most, now))
        ;
    law_sleep_ms(ms);
    atomic_fetch_sub(&shared[0], 1);
}

MORAY_TASK(int32_t, computes, (int32_t, ms))
{
    compute(ms);
    return 0;
}

MORAY_TASK(int32_t, computes_waits_computes, (int32_t, ms))
{
    int32_t value;

    compute(ms);
    moray_ref child = moray_call(computes, ms);
    if (moray_get(child, &value, 20000) != MORAY_OK)
        moray_fail(MORAY_FAILED, "%s", last_story());
    moray_release(child);
    compute(ms);
    return (int32_t)atomic_load(&shared[1]);
}

static void a_task_takes_its_core_back_before_it_goes_on(void)
{
    enum { PARENTS = 24 };
    int workers = moray_workers() / node_count();
    moray_ref refs[PARENTS];

    for (int i = 0; i < PARENTS; i++)
        refs[i] = moray_call(computes_waits_computes, 3);
    for (int i = 0; i < PARENTS; i++) {
        int32_t most = moray_take_as(int32_t, refs[i]);
        if (most > workers)
            DEMAND_SAME(most, workers);
    }
}

/* Tasks with resources of their own give them up as well. */
MORAY_TASK(int32_t, holds_all_and_waits, (int32_t, workers))
{
    int32_t value = -1;
    moray_ref lane = moray_call(after, 1, 5);
    moray_ref whole = moray_call_with((.cores = workers), after, 1, 6);

    moray_get(lane, &value, 10000);
    moray_release(lane);
    if (value != 5)
        return value;
    moray_get(whole, &value, 10000);
    moray_release(whole);
    return value;
}

static void a_task_with_all_cores_gives_them_up_while_it_waits(void)
{
    int workers = moray_workers() / node_count();

    for (int node = 0; node < node_count(); node++) {
        moray_ref ref = moray_call_with((.cores = workers, .on_rank = on_node(node)),
                                        holds_all_and_waits, workers);
        DEMAND_SAME(moray_take_as(int32_t, ref), 6);
    }
}

/* ---- 25 ---- */

MORAY_ACTOR(listener);
MORAY_METHOD(int32_t, listener, listen, (moray_future, to))
{
    (void)self;
    return moray_get_as(int32_t, to.ref) + 1;
}

MORAY_TASK(int32_t, waits_for_actor, (listener_actor, actor), (moray_future, a))
{
    return moray_take_as(int32_t, moray_call(listener_listen, actor, moray_pass(a.ref)));
}

MORAY_TASK(int32_t, a_task)
{
    /* X runs elsewhere or is queued; B lies in this process's queue, and waits for what waits for A */
    return moray_take_as(int32_t, moray_call(after, 100, 3));
}

static void a_waiter_does_not_run_what_waits_for_it(void)
{
    for (int round = 0; round < 5; round++) {
        listener_actor actor = moray_new(listener);
        moray_ref a = moray_call(a_task);
        moray_ref b[4];
        for (int i = 0; i < 4; i++)
            b[i] = moray_call(waits_for_actor, actor, moray_pass(a));
        DEMAND_SAME(moray_take_as(int32_t, a), 3);
        for (int i = 0; i < 4; i++)
            DEMAND_SAME(moray_take_as(int32_t, b[i]), 4);
        DEMAND_OK(moray_actor_release(actor));
    }
}

MORAY_TASK(int32_t, submits_b_and_waits_for_x, (listener_actor, actor), (moray_future, self))
{
    /* as above, but B is this process's own child: it lies on top of its queue */
    moray_ref x = moray_call(after, 50, 1);
    moray_ref b = moray_call(waits_for_actor, actor, moray_pass(self.ref));
    int32_t value = moray_take_as(int32_t, x);
    moray_release(b);
    return value;
}

static void nor_its_own_child_that_waits_for_it(void)
{
    listener_actor actor = moray_new(listener);
    moray_ref gate = moray_call(after, 20, 7);
    moray_ref a = moray_call(submits_b_and_waits_for_x, actor, moray_pass(gate));

    DEMAND_SAME(moray_take_as(int32_t, a), 1);
    DEMAND_OK(moray_release(gate));
    DEMAND_OK(moray_actor_release(actor));
}

enum { CHAIN = 100000 };

MORAY_TASK(int64_t, follows_a_chain, (int32_t, length))
{
    moray_ref at = moray_call(plus_one, (int64_t)0);
    for (int32_t i = 1; i < length; i++) {
        moray_ref next = moray_call(plus_one, at);
        moray_release(at);
        at = next;
    }
    return moray_take_as(int64_t, at);
}

static void a_chain_of_a_hundred_thousand(void)
{
    /* Where each link goes to another rank and back, a tenth: nobody's stack is in it. */
    const char *share = getenv("MORAY_SHARE");
    int64_t length = share && *share == '0' && !head_is_node() ? CHAIN / 10 : CHAIN;
    moray_ref first = moray_put_value(int64_t, 0), at = moray_call(plus_one, first);

    DEMAND_OK(moray_release(first));
    for (int64_t i = 1; i < length; i++) {
        moray_ref next = moray_call(plus_one, at);
        DEMAND_OK(moray_release(at));
        at = next;
    }
    DEMAND_SAME(moray_take_as(int64_t, at), length);
    for (int node = 0; node < node_count(); node++) {
        at = moray_call_with((.on_rank = on_node(node)), follows_a_chain, CHAIN);
        DEMAND_SAME(moray_take_as(int64_t, at), CHAIN);
    }
}

MORAY_TASK(int64_t, limit_against_a_slow_child, (word, gate))
{
    moray_ref child = moray_call(after_gate, gate, 1);
    uint64_t begin = law_ms();
    int32_t value;
    enum moray_code code = moray_get(child, &value, 10);
    int64_t took = (int64_t)(law_ms() - begin);

    moray_release(child);
    return code == MORAY_TIMEOUT ? took : -1;
}

static void a_limit_of_10_ms_against_an_endless_child(void)
{
    word gate = {"limit"};
    int64_t took = moray_take_as(int64_t, moray_call(limit_against_a_slow_child, gate));
    gate_open(gate.text);
    DEMAND(took >= 9);
    DEMAND(took < 5000);
}

MORAY_TASK(int32_t, k_of_n_with_an_endless_child, (int32_t, n), (word, gate))
{
    moray_ref refs[16] = {{0, 0, 0, 0}}, ready[16];
    size_t count;

    for (int32_t i = 0; i < n; i++)
        refs[i] = i == 1 ? moray_call(after_gate, gate, i) : moray_call(after, 1, i);
    if (moray_wait(refs, (size_t)n, (size_t)n - 1, ready, &count, NULL, NULL, 0, 0) != MORAY_OK)
        moray_fail(MORAY_FAILED, "%s", last_story());
    for (int32_t i = 0; i < n; i++)
        moray_release(refs[i]);
    return count == (size_t)n - 1;
}

static void k_of_n_with_one_endless_child(void)
{
    if (moray_workers() / node_count() < 2)
        return; /* the one core is the endless child's */
    word gate = {"k of n"};
    DEMAND_SAME(moray_take_as(int32_t, moray_call(k_of_n_with_an_endless_child, 8, gate)), 1);
    DEMAND(!gate_is_open(gate.text));
    gate_open(gate.text);
}

/* A child that is forced to end takes its waiter's stack with it: the waiter runs again. */
MORAY_TASK(int32_t, waits_for_a_child_that_is_killed, (int32_t, runs))
{
    moray_ref child;

    atomic_fetch_add(&shared[3], 1);
    child = moray_call(after, 1, runs);
    return moray_take_as(int32_t, child);
}

static void force_and_recursion_are_refused_by_name(void)
{
    moray_ref slow = moray_call(after, 100, 1);

    DEMAND_CODE(moray_cancel_with(slow, MORAY_FORCE), MORAY_INVALID);
    DEMAND_CODE(moray_cancel_with(slow, MORAY_RECURSIVE), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "later version");
    DEMAND_SAME(moray_take_as(int32_t, slow), 1);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(waits_for_a_child_that_is_killed, 4)), 4);
}

/* ---- 18 ---- */

MORAY_TASK(int64_t, time_of_run, (int32_t, ms))
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    law_sleep_ms(ms);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static int64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void a_driver_that_only_polls_gets_its_results(void)
{
    for (int round = 0; round < 20; round++) {
        moray_ref ref = moray_call(time_of_run, 0);
        int64_t begin = now_us(), value;
        enum moray_code code;
        while ((code = moray_get(ref, &value, MORAY_NOW)) == MORAY_TIMEOUT &&
               now_us() - begin < 5000000)
            ;
        DEMAND_SAME(code, MORAY_OK);
        DEMAND(value - begin < 3000000);
        DEMAND_OK(moray_release(ref));
        law_sleep_ms(round % 3);
    }
}

enum { TASKS = 8 };

/* Submits `count` tasks of 20 ms, computes for `compute_ms`, and looks when they began. */
static void tasks_begin_while_the_driver_computes(int count, int compute_ms)
{
    int workers = moray_workers() / node_count();
    moray_ref refs[TASKS];
    int64_t submitted = now_us(), begun[TASKS];
    uint64_t sum = 0;

    for (int i = 0; i < count; i++)
        refs[i] = moray_call(time_of_run, 20);
    while (now_us() - submitted < compute_ms * 1000)
        for (int i = 0; i < 1000; i++)
            sum = sum * 6364136223846793005u + 1;
    DEMAND(sum != 0);
    for (int i = 0; i < count; i++) {
        DEMAND_OK(moray_get(refs[i], &begun[i], 5000));
        DEMAND_OK(moray_release(refs[i]));
    }
    /* no ready task waits more than 10 ms for a parked worker: with all workers they begin in
     * ceil(count / workers) rounds of 20 ms. A machine that does other things may take longer, but who
     * waits for the driver waits for all that it computes. */
    for (int i = 0; i < count; i++) {
        int64_t waited_ms = (begun[i] - submitted) / 1000;
        int64_t rounds = (count + workers - 1) / workers;
        if (waited_ms > rounds * 20 + 110 && waited_ms > compute_ms * 3 / 4)
            DEMAND_SAME(waited_ms, rounds * 20 + 10);
    }
}

static void nothing_waits_for_a_driver_that_computes(void)
{
    tasks_begin_while_the_driver_computes(TASKS, 2000);
}

/* So often that the driver's core is lent to the worker that runs its next task. */
static void wait_for_some_tasks(void)
{
    for (int i = 0; i < 10; i++) {
        law_sleep_ms(2);
        moray_take_as(int64_t, moray_call(time_of_run, 0));
    }
    law_sleep_ms(2);
}

static void nor_for_one_that_waited_for_each_task_before(void)
{
    wait_for_some_tasks();
    tasks_begin_while_the_driver_computes(1, 1500);
    wait_for_some_tasks();
    tasks_begin_while_the_driver_computes(TASKS, 1500);
    wait_for_some_tasks();
    for (int i = 0; i < 5; i++)
        tasks_begin_while_the_driver_computes(1 + i % 2, 600);
    wait_for_some_tasks();
    a_driver_that_only_polls_gets_its_results();
}

/* ---- The bound of the queue ---- */

MORAY_TASK(int32_t, leaf)
{
    return 1;
}

MORAY_DECLARE_TASK(int64_t, trunk, (int32_t, left));

/* More than lies in a queue at its least bound, the next of this kind as the last but one of them. */
static __attribute__((noinline)) int64_t grow(int32_t left)
{
    enum { MANY = 72 };
    volatile char room[1 << 16];
    moray_ref refs[MANY];
    int64_t sum = 0;

    for (size_t i = 0; i < sizeof(room); i += 1024)
        room[i] = 1;
    for (int i = 0; i < MANY; i++)
        refs[i] =
            i == MANY - 2 ? moray_call_with((.attempts = 1), trunk, left - 1) : moray_call(leaf);
    for (int i = 0; i < MANY; i++)
        sum += i == MANY - 2 ? moray_take_as(int64_t, refs[i]) : moray_take_as(int32_t, refs[i]);
    return sum + room[1024];
}

MORAY_DEFINE_TASK(int64_t, trunk, (int32_t, left))
{
    return left ? grow(left) : 0;
}

/* Its stack would have to be three times as large as it is. */
static void tasks_at_the_bound_of_the_queue_keep_to_their_stack(void)
{
    int64_t value = 0;
    moray_ref ref = moray_call_with((.attempts = 1), trunk, 400);

    DEMAND_OK(moray_get(ref, &value, 30000));
    DEMAND_OK(moray_release(ref));
    DEMAND_SAME(value, 400 * 72);
}

static const struct law laws[] = {
    {"line 19: nested tasks that wait do not deadlock", nested_tasks_that_wait_do_not_deadlock, 20},
    {"line 19: tasks that get many, inside of such tasks", tasks_get_many_in_tasks, 60},
    {"line 19: nesting is deeper than any number of workers",
     nesting_is_deeper_than_any_number_of_workers, 30},
    {"line 19: a task that blocks in get gives its core up", a_task_that_blocks_gives_its_core_up,
     20},
    {"line 19: a task that blocks in wait gives its core up", a_task_in_wait_gives_its_core_up, 20},
    {"line 19: a task takes its core back before it goes on",
     a_task_takes_its_core_back_before_it_goes_on, 20},
    {"line 19: a task with all cores gives them up while it waits",
     a_task_with_all_cores_gives_them_up_while_it_waits, 20},
    {"decision 25: a waiter does not run what waits for it",
     a_waiter_does_not_run_what_waits_for_it, 20},
    {"decision 25: nor its own child that does", nor_its_own_child_that_waits_for_it, 20},
    {"decision 25: a chain 100,000 deep", a_chain_of_a_hundred_thousand, 60},
    {"decision 25: a limit of 10 ms against an endless child",
     a_limit_of_10_ms_against_an_endless_child, 30},
    {"decision 25: k of n with one endless child", k_of_n_with_one_endless_child, 30},
    {"decision 25: forced and recursive cancel are refused by name",
     force_and_recursion_are_refused_by_name, 10},
    {"decision 26: tasks at the bound of the queue keep to their stack",
     tasks_at_the_bound_of_the_queue_keep_to_their_stack, 40},
    {"decision 18: a driver that only polls gets its results",
     a_driver_that_only_polls_gets_its_results, 30},
    {"decision 18: nothing waits for a driver that computes",
     nothing_waits_for_a_driver_that_computes, 20},
    {"decision 18: nor for one that waited for each task before",
     nor_for_one_that_waited_for_each_task_before, 30},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
