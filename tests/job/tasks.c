/**
 * Tasks: semantics.md 12 to 18 and 20, cancelling of queued tasks, decisions.md 28, 41 and 42.
 */
#include "keys.h"

#include <math.h>

MORAY_TASK(int32_t, counts, (word, key), (int32_t, value))
{
    count(key.text);
    return value;
}

MORAY_TASK(int32_t, fails, (word, key), (int32_t, code))
{
    count(key.text);
    moray_fail((enum moray_code)code, "no luck with %s", key.text);
    return 0;
}

MORAY_TASK(int32_t, fails_until, (word, key), (int32_t, good))
{
    int64_t run = count(key.text);
    if (run < good)
        moray_fail(MORAY_FAILED, "run %d is too early", (int)run);
    return (int32_t)run;
}

MORAY_TASK(void, does_nothing, (int32_t, ms))
{
    law_sleep_ms(ms);
}

MORAY_TASK(int32_t, without_arguments)
{
    return 41;
}

MORAY_TASK_RESULTS(three_ways, ((int32_t, one), (double, two), (word, three)), (int32_t, a))
{
    three_ways_results r = {a, a / 2.0, {""}};
    r.three = say("three");
    if (a < 0)
        moray_fail(MORAY_FAILED, "a is negative");
    return r;
}

MORAY_TASK(int32_t, add, (int32_t, a), (int32_t, b))
{
    return a + b;
}

MORAY_TASK(int32_t, ten_arguments, (int32_t, a), (double, b), (word, c), (int8_t, d),
           (moray_view, e), (int64_t, f), (float, g), (moray_future, h), (uint16_t, i),
           (int32_t, j))
{
    return (int32_t)(a + b + (double)strlen(c.text) + d + (double)e.size + (double)f + g +
                     moray_get_as(int32_t, h.ref) + i + j);
}

typedef struct {
    int32_t scale;
    moray_ref later;
} order;
MORAY_REFS(order, later);

MORAY_TASK(int32_t, is_ready, (order, o), (int64_t, limit_ms))
{
    int32_t value;
    return o.scale * (moray_get(o.later, &value, limit_ms) == MORAY_TIMEOUT ? 1 : 2);
}

MORAY_TASK(int64_t, process_of_call, (int32_t, ms))
{
    law_sleep_ms(ms);
    return (int64_t)getpid() << 8 | (moray_rank() & 0xff);
}

MORAY_TASK(int32_t, rank_of)
{
    return moray_rank();
}

MORAY_TASK(int64_t, parent_of, (word, key), (int32_t, good))
{
    count("parents");
    moray_ref child = moray_call(dies_until, key, SIGKILL, good);
    int32_t value;
    enum moray_code code = moray_get(child, &value, 0);
    if (code != MORAY_OK) {
        moray_fail(code, "the child failed: %s", moray_error(child));
        return 0;
    }
    return value;
}

MORAY_TASK(int32_t, takes_what_failed, (moray_future, f))
{
    int32_t value = moray_take_as(int32_t, f.ref);
    count("went on");
    return value;
}

/* Returns, and is killed a moment later. Its zygote is stopped meanwhile, and tells nobody until later still;
 * then `other` is, for a moment. */
MORAY_TASK(int32_t, leaves_its_killer, (int64_t, other))
{
    pid_t zygote = getppid(), process = getpid();

    if (other != process && fork() == 0) {
        law_sleep_ms(50);
        kill(zygote, SIGSTOP);
        kill(process, SIGKILL);
        law_sleep_ms(200);
        kill((pid_t)other, SIGSTOP);
        kill(zygote, SIGCONT);
        law_sleep_ms(100);
        kill((pid_t)other, SIGCONT);
        _exit(0);
    }
    return other != process;
}

MORAY_TASK(int64_t, process_after, (int32_t, ms))
{
    law_sleep_ms(ms);
    return getpid();
}

MORAY_TASK(int32_t, dies_once_after, (int32_t, ms))
{
    if (moray_attempt() == 1) {
        law_sleep_ms(ms);
        raise(SIGKILL);
    }
    return (int32_t)moray_attempt();
}

MORAY_ACTOR(tally, (int32_t, value));
MORAY_METHOD(int32_t, tally, add, (int32_t, by))
{
    return self->value += by;
}

MORAY_TASK(int32_t, adds_and_dies_once, (tally_actor, actor))
{
    int32_t sum = moray_take_as(int32_t, moray_call(tally_add, actor, 1));
    if (moray_attempt() == 1)
        raise(SIGKILL);
    return sum;
}

MORAY_TASK(int32_t, most_at_once, (int32_t, ms))
{
    int64_t now = atomic_fetch_add(&shared[0], 1) + 1, most = atomic_load(&shared[1]);
    while (now > most && !atomic_compare_exchange_weak(&shared[1], &most, now))
        ;
    law_sleep_ms(ms);
    atomic_fetch_sub(&shared[0], 1);
    return (int32_t)atomic_load(&shared[1]);
}

MORAY_TASK(int32_t, clear_most)
{
    atomic_store(&shared[1], 0);
    return 0;
}

/* ---- 12 ---- */

static void submission_returns_at_once(void)
{
    moray_ref refs[100];

    refs[0] = moray_call(after_gate, say("12"), 1);
    for (int i = 1; i < 100; i++)
        refs[i] = moray_call(add, refs[i - 1], 1);
    gate_open("12");
    DEMAND_SAME(moray_get_as(int32_t, refs[99]), 100);
    for (int i = 0; i < 100; i++)
        DEMAND_OK(moray_release(refs[i]));
}

static void references_are_resolved_before_the_body_runs(void)
{
    for (int node = 0; node < node_count(); node++) {
        moray_ref slow = moray_call_with((.on_rank = on_node(node)), after, 100, 20);
        moray_ref sum = moray_call_with((.on_rank = on_node(node + 1)), add, slow, slow);
        DEMAND_SAME(moray_take_as(int32_t, sum), 40);
        DEMAND_OK(moray_release(slow));
    }
    moray_ref h = moray_put_value(int32_t, 2), e = moray_put("abc", 3);
    moray_ref all =
        moray_call(ten_arguments, h, 1.5, say("four"), 3, e, 2, 0.5, moray_pass(h), 65000, -65000);
    DEMAND_SAME(moray_take_as(int32_t, all), 18);
    DEMAND_OK(moray_release(h));
    DEMAND_OK(moray_release(e));
    DEMAND_SAME(moray_take_as(int32_t, moray_call(without_arguments)), 41);
}

static void a_reference_inside_a_value_stays_a_reference(void)
{
    moray_ref slow = moray_call(after_gate, say("12 inside"), 1);
    order o = {7, slow};
    moray_ref there = moray_call(is_ready, o, MORAY_NOW);

    DEMAND_SAME(moray_take_as(int32_t, there), 7); /* it ran before `slow` was there */
    gate_open("12 inside");
    DEMAND_OK(moray_get_bytes(slow, NULL, 0, 0));
    there = moray_call(is_ready, o, 5000);
    DEMAND_SAME(moray_take_as(int32_t, there), 14);
    DEMAND_OK(moray_release(slow));
}

/* ---- 13 ---- */

static void a_task_whose_input_failed_does_not_run(void)
{
    for (int node = 0; node < node_count(); node++) {
        moray_ref bad =
            moray_call_with((.on_rank = on_node(node)), fails, say("root cause"), MORAY_NOT_FOUND);
        moray_ref middle = moray_call_with((.on_rank = on_node(node + 1)), counts, say("13"), bad);
        moray_ref last = moray_call_with((.name = "the last one"), add, 1, middle);
        DEMAND_CODE(moray_get_bytes(last, NULL, 0, 5000), MORAY_UPSTREAM);
        DEMAND_SAME(counted("13"), 0);
        const char *story = moray_error(last);
        DEMAND_NAMES(story, "task add \"the last one\"");
        DEMAND_NAMES(story, "counts");
        DEMAND_NAMES(story, "fails");
        DEMAND_NAMES(story, "MORAY_NOT_FOUND");
        DEMAND_NAMES(story, "no luck with root cause");
        DEMAND_OK(moray_release(bad));
        DEMAND_OK(moray_release(middle));
        DEMAND_OK(moray_release(last));
    }
}

/* ---- 14 ---- */

static void results_are_none_one_or_many(void)
{
    moray_ref nothing = moray_call(does_nothing, 50);
    DEMAND_CODE(moray_get_bytes(nothing, NULL, 0, MORAY_NOW), MORAY_TIMEOUT);
    moray_take_as(void, nothing);
    for (int node = 0; node < node_count(); node++) {
        three_ways_refs r = moray_call_with((.on_rank = on_node(node)), three_ways, 9);
        DEMAND_OK(moray_release(r.one)); /* each is independent of the others */
        DEMAND(moray_get_as(double, r.two) == 4.5);
        DEMAND_OK(moray_release(r.two));
        DEMAND(strcmp(moray_take_as(word, r.three).text, "three") == 0);
        r = moray_call_with((.on_rank = on_node(node)), three_ways, -1);
        DEMAND_CODE(moray_get_bytes(r.three, NULL, 0, 0), MORAY_FAILED);
        DEMAND_CODE(moray_get_bytes(r.two, NULL, 0, 0), MORAY_FAILED);
        DEMAND_CODE(moray_get_bytes(r.one, NULL, 0, 0), MORAY_FAILED);
        DEMAND_NAMES(moray_error(r.one), "a is negative");
        DEMAND_NAMES(moray_error(r.two), "a is negative");
        DEMAND_NAMES(moray_error(r.three), "a is negative");
        DEMAND_OK(moray_release(r.one));
        DEMAND_OK(moray_release(r.two));
        DEMAND_OK(moray_release(r.three));
    }
}

/* ---- 15, 41 ---- */

static const struct {
    int how;
    const char *told;
} deaths[] = {{SIGKILL, "signal 9 (SIGKILL)"},
              {SIGSEGV, "signal 11 (SIGSEGV)"},
              {-1, "signal 6 (SIGABRT)"},
              {0, "exit(7)"},
              {-2, "exit(0)"}};

static void a_death_fails_its_task_after_four_attempts(void)
{
    char key[24];

    for (size_t i = 0; i < COUNT_OF(deaths); i++) {
        snprintf(key, sizeof(key), "death %zu", i);
        moray_ref ref =
            moray_call_with((.on_rank = on_node((int)i)), dies_until, say(key), deaths[i].how, 100);
        DEMAND_CODE(moray_get_bytes(ref, NULL, 0, 10000), MORAY_DIED);
        DEMAND_SAME(counted(key), 4);
        const char *story = moray_error(ref);
        DEMAND_NAMES(story, "dies_until"); /* function */
        DEMAND_NAMES(story, "rank ");      /* node */
        DEMAND_NAMES(story, "host ");
        DEMAND_NAMES(story, "pid ");         /* process */
        DEMAND_NAMES(story, deaths[i].told); /* signal */
        DEMAND_NAMES(story, "attempt 4 of 4");
        DEMAND_OK(moray_release(ref));
    }
}

/* The next process of its slot finds the mail and runs the task, which the agent has given to another process
 * by then. No third may be at hand: so this is the first of the laws. */
static void a_task_given_to_a_dead_process_dies_once_more(void)
{
    int64_t pids[2];
    int32_t attempt, ran;
    moray_ref refs[2];

    for (int i = 0; i < 2; i++)
        refs[i] = moray_call_with((.cores = 0.25, .on_rank = on_node(0)), process_after, 50);
    for (int i = 0; i < 2; i++)
        pids[i] = moray_take_as(int64_t, refs[i]);
    for (int i = 0; i < 2 && pids[0] != pids[1]; i++) { /* by which one, the agent decides */
        ran = moray_take_as(int32_t, moray_call_with((.cores = 0.25, .on_rank = on_node(0)),
                                                     leaves_its_killer, pids[i]));
        if (!ran)
            continue;
        law_sleep_ms(100);
        moray_ref ref =
            moray_call_with((.cores = 0.25, .on_rank = on_node(0), .attempts = MORAY_ENDLESS),
                            dies_once_after, 300);
        DEMAND_OK(moray_get(ref, &attempt, 5000));
        DEMAND_SAME(attempt, 2);
        DEMAND_OK(moray_release(ref));
        return;
    }
}

/* Each death frees a slot that the next process of these very tasks may take. */
static void tasks_with_places_of_their_own_die_side_by_side(void)
{
    enum { TASKS = 8, LIVES = 6 };
    moray_ref refs[TASKS];

    for (int i = 0; i < TASKS; i++) {
        word key = {""};
        snprintf(key.text, sizeof(key.text), "side by side %d", i);
        refs[i] = moray_call_with((.cores = 0.25, .on_rank = on_node(0), .attempts = MORAY_ENDLESS),
                                  dies_until, key, SIGKILL, LIVES);
    }
    for (int i = 0; i < TASKS; i++)
        DEMAND_SAME(moray_take_as(int32_t, refs[i]), LIVES);
}

static void a_task_lives_when_an_attempt_does(void)
{
    moray_ref fourth = moray_call_with((.name = "only a name"), dies_until, say("41"), SIGKILL, 4);
    DEMAND_SAME(moray_take_as(int32_t, fourth), 4);
}

static void attempts_are_as_many_as_asked(void)
{
    moray_ref once = moray_call_with((.attempts = 1), dies_until, say("once"), SIGKILL, 2);
    moray_ref endless =
        moray_call_with((.attempts = MORAY_ENDLESS), dies_until, say("endless"), SIGKILL, 12);

    DEMAND_CODE(moray_get_bytes(once, NULL, 0, 5000), MORAY_DIED);
    DEMAND_SAME(counted("once"), 1);
    DEMAND_OK(moray_release(once));
    DEMAND_SAME(moray_take_as(int32_t, endless), 12);
}

static void a_death_fails_only_what_it_ran(void)
{
    moray_ref good[40], bad = {0, 0, 0, 0};

    for (int i = 0; i < 40; i++) {
        good[i] = moray_call_with((.attempts = 1), after, 2, i);
        if (i == 20)
            bad = moray_call_with((.attempts = 1), dies_until, say("only"), SIGKILL, 2);
    }
    DEMAND_CODE(moray_get_bytes(bad, NULL, 0, 5000), MORAY_DIED);
    for (int i = 0; i < 40; i++)
        DEMAND_SAME(moray_take_as(int32_t, good[i]), i);
    DEMAND_OK(moray_release(bad));
}

static void what_waits_on_a_dead_stack_runs_again_without_charge(void)
{
    int64_t parents = counted("parents");
    moray_ref parent = moray_call_with((.attempts = 1), parent_of, say("stack"), 3);

    DEMAND_SAME(moray_take_as(int64_t, parent), 3);
    DEMAND(counted("parents") - parents >= 1);
    /* and a child that always dies fails in the end, whatever stack it ran on */
    parent = moray_call_with((.attempts = 1), parent_of, say("stack of death"), 1000);
    DEMAND_CODE(moray_get_bytes(parent, NULL, 0, 10000), MORAY_DIED);
    DEMAND_NAMES(moray_error(parent), "the child failed");
    DEMAND_NAMES(moray_error(parent), "SIGKILL");
    DEMAND_OK(moray_release(parent));
}

/* ---- 16 ---- */

static void reported_errors_are_not_retried_unless_asked(void)
{
    moray_ref bad = moray_call_with((.attempts = 5), fails, say("16"), MORAY_EXISTS);

    DEMAND_CODE(moray_get_bytes(bad, NULL, 0, 0), MORAY_EXISTS);
    DEMAND_SAME(counted("16"), 1);
    /* it reaches every reader with code and message */
    for (int node = 0; node < node_count(); node++) {
        moray_ref reader = moray_call_with((.on_rank = on_node(node)), add, bad, 1);
        DEMAND_CODE(moray_get_bytes(reader, NULL, 0, 0), MORAY_UPSTREAM);
        DEMAND_NAMES(moray_error(reader), "MORAY_EXISTS");
        DEMAND_NAMES(moray_error(reader), "no luck with 16");
        DEMAND_OK(moray_release(reader));
    }
    DEMAND_NAMES(moray_error(bad), "no luck with 16");
    DEMAND_OK(moray_release(bad));
    bad = moray_call_with((.retry_errors = 1), fails_until, say("16b"), 3);
    DEMAND_SAME(moray_take_as(int32_t, bad), 3);
    bad = moray_call_with((.retry_errors = 1, .attempts = 2), fails_until, say("16c"), 3);
    DEMAND_CODE(moray_get_bytes(bad, NULL, 0, 0), MORAY_FAILED);
    DEMAND_NAMES(moray_error(bad), "run 2 is too early");
    DEMAND_SAME(counted("16c"), 2);
    DEMAND_OK(moray_release(bad));
}

/* One that the agent gave to a process lies in no queue. */
static void a_placed_task_is_retried_as_well(void)
{
    moray_ref bad;

    for (int node = 0; node < node_count(); node++) {
        char key[24];
        snprintf(key, sizeof(key), "16p%d", node);
        bad = moray_call_with((.retry_errors = 1, .cores = 0.5, .on_rank = on_node(node)),
                              fails_until, say(key), 3);
        DEMAND_SAME(moray_take_as(int32_t, bad), 3);
    }
    bad = moray_call_with((.retry_errors = 1, .memory = 5, .calls_per_process = 1), fails_until,
                          say("16q"), 3);
    DEMAND_SAME(moray_take_as(int32_t, bad), 3);
    bad = moray_call_with((.retry_errors = 1, .cores = 0.5, .attempts = 2), fails_until, say("16r"),
                          3);
    DEMAND_CODE(moray_get_bytes(bad, NULL, 0, 0), MORAY_FAILED);
    DEMAND_NAMES(moray_error(bad), "run 2 is too early");
    DEMAND_SAME(counted("16r"), 2);
    DEMAND_OK(moray_release(bad));
}

/* ---- 17 ---- */

static void a_process_ends_after_n_calls(void)
{
    enum { CALLS = 40, EACH = 3 };
    moray_ref refs[CALLS];
    int64_t pids[CALLS];

    for (int i = 0; i < CALLS; i++)
        refs[i] = moray_call_with((.calls_per_process = EACH), process_of_call, 1);
    for (int i = 0; i < CALLS; i++) {
        DEMAND_OK(moray_get(refs[i], &pids[i], 10000));
        DEMAND_OK(moray_release(refs[i]));
        int same = 0;
        for (int k = 0; k <= i; k++)
            same += pids[k] == pids[i];
        DEMAND(same <= EACH);
    }
}

MORAY_TASK(int64_t, other_process_of_call)
{
    return getpid();
}

/* The process, if its child, after which it is to end, ran in it as well; else 0. */
MORAY_TASK(int64_t, runs_a_last_call)
{
    int64_t pid =
        moray_take_as(int64_t, moray_call_with((.calls_per_process = 1), other_process_of_call));
    return pid == getpid() ? pid : 0;
}

static void calls_are_counted_for_each_function(void)
{
    enum { CALLS = 40, EACH = 3 };
    int64_t pids[2][CALLS];

    for (int i = 0; i < CALLS; i++) {
        pids[0][i] = moray_take_as(
            int64_t, moray_call_with((.calls_per_process = EACH), process_of_call, 0));
        pids[1][i] = moray_take_as(
            int64_t, moray_call_with((.calls_per_process = EACH), other_process_of_call));
        for (int which = 0; which < 2; which++) {
            int same = 0;
            for (int k = 0; k <= i; k++)
                same += pids[which][k] == pids[which][i];
            DEMAND(same <= EACH);
        }
    }
}

static void a_last_call_on_a_waiters_stack_ends_the_process(void)
{
    int64_t pids[20];

    for (int i = 0; i < 20; i++) {
        pids[i] = moray_take_as(int64_t, moray_call(runs_a_last_call));
        for (int k = 0; k < i; k++)
            DEMAND(!pids[i] || pids[k] != pids[i]);
    }
}

/* ---- 18 ---- */

static void resources_are_checked_at_the_call(void)
{
    moray_ref none;
    static const double wrong_cores[] = {-1, -0.0001, 0.00001, 1e9, NAN, INFINITY};

    for (size_t i = 0; i < COUNT_OF(wrong_cores); i++) {
        none = moray_call_with((.cores = wrong_cores[i]), add, 1, 1);
        DEMAND(none.owner == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
        DEMAND_NAMES(last_story(), "cores");
        DEMAND_NAMES(last_story(), "0.0001 to 100000");
    }
    none = moray_call_with((.cores = 5000), add, 1, 1); /* no node could ever meet it */
    DEMAND(none.owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "cores");
    none = moray_call_with((.memory = (uint64_t)1 << 50), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "memory");
    none = moray_call_with((.memory = UINT64_MAX), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    none = moray_call_with((.resource = "gpu", .resource_amount = 1), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "\"gpu\"");
    none = moray_call_with((.attempts = 256), add, 1, 1);
    DEMAND(none.owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "255");
    none = moray_call_with((.attempts = -2), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "attempts");
    none = moray_call_with((.on_rank = moray_ranks() + 1), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "on_rank");
    none = moray_call_with((.on_rank = -1), add, 1, 1);
    DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
    if (!head_is_node()) {
        none = moray_call_with((.on_rank = 1), add, 1, 1);
        DEMAND(none.owner == 0 && moray_last(NULL) == MORAY_INVALID);
        DEMAND_NAMES(last_story(), "rank 0");
    }
}

MORAY_TASK(int32_t, uses_what_was_never_set, (int32_t, fails))
{
    moray_ref never = {0, 0, 0, 0};
    char byte;
    size_t size;

    if (fails)
        (void)moray_call_with((.attempts = 300), add, 1, 1);
    if (moray_kv_get("no such space", "key", &byte, 1, &size) != MORAY_NOT_FOUND)
        return -1;
    if (moray_release(never) != MORAY_INVALID || !strstr(last_story(), "a null reference"))
        return -2;
    return !!strstr(last_story(), "attempts") + 4 * !!strstr(moray_error(never), "attempts");
}

/* It tells of the call that gave it, and of no other. */
static void a_null_reference_tells_its_story(void)
{
    moray_ref none = moray_call_with((.cores = -1), add, 1, 1);
    char byte;
    size_t size;

    DEMAND_CODE(moray_kv_get("no such space", "key", &byte, 1, &size), MORAY_NOT_FOUND);
    for (int i = 0; i < 3; i++) {
        DEMAND_CODE(moray_get_bytes(none, NULL, 0, 0), MORAY_INVALID);
        DEMAND_NAMES(last_story(), "a null reference");
        DEMAND_NAMES(last_story(), "cores = -1");
        DEMAND_NAMES(last_story(), "tasks.c:");
        DEMAND(!strstr(strstr(last_story(), "null reference") + 1, "null reference"));
        DEMAND_NAMES(moray_error(none), "cores = -1");
        none = moray_call(add, none, 1); /* which fails for the same */
        DEMAND(none.owner == 0);
    }
    for (int i = 0; i < 30; i++) { /* what another task was given does not matter */
        moray_ref there = moray_call(uses_what_was_never_set, i % 2);
        DEMAND_SAME(moray_take_as(int32_t, there), i % 2 ? 5 : 0); /* 1 + 4 */
    }
}

static void tasks_ask_for_cores_and_memory(void)
{
    int workers = moray_workers() / node_count();
    moray_ref refs[12];

    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.cores = 0.0001), add, 1, 1)), 2);
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.cores = 0.5), add, 1, 1)), 2);
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.cores = 1), add, 1, 1)), 2);
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.memory = 1 << 20), add, 1, 1)), 2);
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.cores = workers, .memory = 5), add, 1, 1)),
                2);
    /* all cores of a node: one at a time */
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(0)), clear_most)), 0);
    for (int i = 0; i < 12; i++)
        refs[i] = moray_call_with((.cores = workers, .on_rank = on_node(0)), most_at_once, 2);
    for (int i = 0; i < 12; i++)
        DEMAND_SAME(moray_take_as(int32_t, refs[i]), 1);
    /* and a task that waits for its cores does not keep the others from running */
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(0)), clear_most)), 0);
    for (int i = 0; i < 12; i++)
        refs[i] =
            moray_call_with((.cores = i % 3 ? 1 : workers, .on_rank = on_node(0)), most_at_once, 2);
    for (int i = 0; i < 12; i++) /* one may share a core, until it ends, with who was just woken */
        DEMAND(moray_take_as(int32_t, refs[i]) <= workers + 1);
    /* half a core each: twice as many at a time */
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(0)), clear_most)), 0);
    for (int i = 0; i < 12; i++)
        refs[i] = moray_call_with((.cores = 0.5, .on_rank = on_node(0)), most_at_once, 150);
    int32_t most = 0;
    for (int i = 0; i < 12; i++) {
        int32_t at_once = moray_take_as(int32_t, refs[i]);
        most = at_once > most ? at_once : most;
    }
    DEMAND(most <= 2 * workers);
    DEMAND(most > workers);
}

static void a_task_runs_where_it_is_told_to(void)
{
    for (int i = 0; i < 3 * node_count(); i++) {
        moray_ref ref = moray_call_with((.on_rank = on_node(i)), rank_of);
        DEMAND_SAME(moray_take_as(int32_t, ref), on_node(i) - 1);
    }
}

/* ---- 20 ---- */

static void effects_on_actors_remain(void)
{
    for (int node = 0; node < node_count(); node++) {
        tally_actor actor = moray_new_with((.on_rank = on_node(node)), tally);
        moray_ref twice = moray_call(adds_and_dies_once, actor);
        DEMAND_SAME(moray_take_as(int32_t, twice), 2);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(tally_add, actor, 0)), 2);
        DEMAND_OK(moray_actor_release(actor));
    }
}

/* ---- 21: queued tasks ---- */

static void a_cancelled_task_never_runs(void)
{
    moray_ref slow = moray_call(after_gate, say("21"), 1);
    moray_ref waiting = moray_call(counts, say("21"), slow);
    moray_ref dependent = moray_call(counts, say("21"), waiting);

    DEMAND_OK(moray_cancel(waiting));
    DEMAND_CODE(moray_get_bytes(waiting, NULL, 0, 5000), MORAY_CANCELLED);
    DEMAND_NAMES(moray_error(waiting), "counts");
    DEMAND_CODE(moray_get_bytes(dependent, NULL, 0, 5000), MORAY_UPSTREAM);
    DEMAND_NAMES(moray_error(dependent), "MORAY_CANCELLED");
    gate_open("21");
    DEMAND_OK(moray_get_bytes(slow, NULL, 0, 0));
    DEMAND_OK(moray_cancel(slow)); /* a finished one is untouched */
    DEMAND_SAME(moray_take_as(int32_t, slow), 1);
    DEMAND_SAME(counted("21"), 0);
    moray_ref put = moray_put_value(int32_t, 1);
    DEMAND_CODE(moray_cancel(put), MORAY_INVALID);
    DEMAND_CODE(moray_cancel_with(waiting, MORAY_FORCE), MORAY_INVALID);
    DEMAND_OK(moray_release(waiting));
    DEMAND_OK(moray_release(dependent));
    DEMAND_OK(moray_release(put));
    DEMAND_CODE(moray_cancel(put), MORAY_STALE); /* of a task the agent may still have a hold */
}

MORAY_TASK(int32_t, cancels, (moray_future, task))
{
    return moray_cancel(task.ref);
}

/* On every node two tasks wait for all its cores: one is cancelled here, one by a task elsewhere. Who has
 * the cores meanwhile makes no call: a call that waits would lend them. */
static void who_holds_a_queued_task_cancels_it_anywhere(void)
{
    int cores = moray_workers() / node_count();

    for (int node = 0; node < node_count(); node++) {
        moray_ref all = moray_call_with((.on_rank = on_node(node), .cores = cores), after, 1000, 1);
        moray_ref queued[2];
        for (int i = 0; i < 2; i++)
            queued[i] = moray_call_with((.on_rank = on_node(node), .cores = cores), counts,
                                        say("21 anywhere"), 1);
        DEMAND_OK(moray_cancel(queued[0]));
        if (node_count() > 1)
            DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(node + 1)),
                                                               cancels, moray_pass(queued[1]))),
                        MORAY_OK);
        else
            DEMAND_OK(moray_cancel(queued[1]));
        for (int i = 0; i < 2; i++) {
            DEMAND_CODE(moray_get_bytes(queued[i], NULL, 0, 10000), MORAY_CANCELLED);
            DEMAND_NAMES(moray_error(queued[i]), "counts");
            DEMAND_OK(moray_release(queued[i]));
        }
        DEMAND_SAME(moray_take_as(int32_t, all), 1);
    }
    DEMAND_SAME(counted("21 anywhere"), 0);
}

static void many_random_cancels_hang_nothing(void)
{
    enum { TASKS = 5000 };
    static moray_ref refs[TASKS];
    unsigned seed = 7;

    for (int i = 0; i < TASKS; i++) {
        if (i > 10 && rand_r(&seed) % 2)
            refs[i] = moray_call(add, refs[i - 1 - rand_r(&seed) % 10], 1);
        else if (rand_r(&seed) % 8)
            refs[i] = moray_call(add, i, 1);
        else
            refs[i] = moray_call_with((.on_rank = on_node(i), .cores = 0.5), add, i, 1);
        if (rand_r(&seed) % 4 == 0)
            DEMAND_OK(moray_cancel(refs[(unsigned)rand_r(&seed) % (unsigned)(i + 1)]));
    }
    for (int i = 0; i < TASKS; i++) {
        int32_t value;
        enum moray_code code = moray_get(refs[i], &value, 10000);
        DEMAND(code == MORAY_OK || code == MORAY_CANCELLED || code == MORAY_UPSTREAM);
    }
    for (int i = 0; i < TASKS; i++)
        DEMAND_OK(moray_release(refs[i]));
    /* what was cancelled holds no resources */
    for (int node = 0; node < node_count(); node++) {
        moray_ref whole = moray_call_with(
            (.on_rank = on_node(node), .cores = moray_workers() / node_count()), add, 1, 1);
        DEMAND_SAME(moray_take_as(int32_t, whole), 2);
    }
}

/* ---- Decision 42 ---- */

static void an_uncaught_error_ends_the_callers_task_with_the_story(void)
{
    moray_ref bad = moray_call(fails, say("deep down"), MORAY_NOT_FOUND);
    moray_ref caller = moray_call(takes_what_failed, moray_pass(bad));

    DEMAND_CODE(moray_get_bytes(caller, NULL, 0, 0), MORAY_NOT_FOUND);
    DEMAND_NAMES(moray_error(caller), "takes_what_failed");
    DEMAND_NAMES(moray_error(caller), "tasks.c:");
    DEMAND_NAMES(moray_error(caller), "no luck with deep down");
    DEMAND_SAME(counted("went on"), 0);
    DEMAND_OK(moray_release(bad));
    DEMAND_OK(moray_release(caller));
}

typedef struct {
    unsigned char bytes[3 << 19]; /* 1.5 MiB: one goes in a message, two do not */
} block;

MORAY_TASK(int32_t, sums_block, (block, b))
{
    int32_t sum = 0;

    for (size_t i = 0; i < sizeof(b.bytes); i += 4096)
        sum += b.bytes[i];
    return sum;
}

MORAY_TASK(int32_t, sums_blocks, (block, a), (block, b))
{
    return a.bytes[0] + b.bytes[0];
}

/* What does not fit in a message is refused at the call, wherever the task would have run. */
static void large_arguments_travel_or_are_refused(void)
{
    static block b;

    memset(&b, 1, sizeof(b));
    for (int node = 0; node < node_count(); node++) {
        moray_ref ref = moray_call_with((.on_rank = on_node(node)), sums_block, b);
        DEMAND(ref.owner != 0);
        DEMAND_SAME(moray_take_as(int32_t, ref), sizeof(b) / 4096);
    }
    if (moray_ranks() == 1)
        return;
    DEMAND(moray_call(sums_blocks, b, b).owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "put what is large");
}

static const struct law laws[] = {
    {"line 15: a task given to a process that is dead dies once more",
     a_task_given_to_a_dead_process_dies_once_more, 10},
    {"line 12: submission returns at once", submission_returns_at_once, 10},
    {"line 12: references are resolved before the body runs",
     references_are_resolved_before_the_body_runs, 10},
    {"line 12: a reference inside a value stays a reference",
     a_reference_inside_a_value_stays_a_reference, 10},
    {"line 12: large arguments travel, or are refused at the call",
     large_arguments_travel_or_are_refused, 20},
    {"line 13: a task whose input failed does not run", a_task_whose_input_failed_does_not_run, 10},
    {"line 14: results are none, one or many", results_are_none_one_or_many, 10},
    {"line 15: a death fails its task after four attempts",
     a_death_fails_its_task_after_four_attempts, 30},
    {"line 15: tasks with places of their own die side by side",
     tasks_with_places_of_their_own_die_side_by_side, 30},
    {"line 15: a task lives when one of its attempts does (decision 41)",
     a_task_lives_when_an_attempt_does, 10},
    {"line 15: attempts are as many as asked", attempts_are_as_many_as_asked, 20},
    {"line 15: a death fails only what it ran", a_death_fails_only_what_it_ran, 10},
    {"line 15: what waits on a dead stack runs again without charge",
     what_waits_on_a_dead_stack_runs_again_without_charge, 20},
    {"line 16: reported errors are not retried unless asked",
     reported_errors_are_not_retried_unless_asked, 10},
    {"line 16: a task that the agent places is retried as well", a_placed_task_is_retried_as_well,
     10},
    {"line 17: a process ends after n calls", a_process_ends_after_n_calls, 20},
    {"line 17: calls are counted for each function", calls_are_counted_for_each_function, 30},
    {"line 17: a last call on a waiter's stack ends the process",
     a_last_call_on_a_waiters_stack_ends_the_process, 30},
    {"line 18: resources are checked at the call", resources_are_checked_at_the_call, 10},
    {"header: a null reference tells its story", a_null_reference_tells_its_story, 10},
    {"line 18: tasks ask for cores and memory", tasks_ask_for_cores_and_memory, 20},
    {"line 18: a task runs where it is told to", a_task_runs_where_it_is_told_to, 10},
    {"line 20: effects on actors remain", effects_on_actors_remain, 10},
    {"line 21: a cancelled task never runs", a_cancelled_task_never_runs, 10},
    {"line 21: who holds a queued task cancels it, wherever it lies",
     who_holds_a_queued_task_cancels_it_anywhere, 30},
    {"line 21: five thousand tasks with random cancels hang nothing",
     many_random_cancels_hang_nothing, 30},
    {"decision 42: an uncaught error ends the caller's task with the story",
     an_uncaught_error_ends_the_callers_task_with_the_story, 10},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
