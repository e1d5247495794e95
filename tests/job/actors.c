/**
 * Actors: semantics.md 23 to 25, 27 and 28, on every node of the job.
 */
#include "actors.h"

MORAY_TASK(int32_t, notes, (diary_actor, actor), (int32_t, value))
{
    return moray_take_as(int32_t, moray_call(diary_note, actor, value));
}

MORAY_TASK(int32_t, makes_and_uses, (int32_t, value))
{
    diary_actor actor = moray_new(diary);
    int32_t sum = moray_take_as(int32_t, moray_call(diary_note, actor, value));
    moray_actor_release(actor);
    return sum;
}

/* ---- 23 ---- */

static void calls_run_in_the_order_of_submission(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = diary_on(node);
        for (int i = 0; i < 200; i++)
            DEMAND_OK(moray_release(moray_call(diary_note, actor, i)));
        list log = moray_take_as(list, moray_call(diary_read, actor));
        DEMAND_SAME(log.count, 200);
        for (int i = 0; i < 200; i++)
            DEMAND_SAME(log.values[i], i);
        DEMAND_OK(moray_actor_release(actor));
    }
}

MORAY_ACTOR(post, (diary_actor, to));
MORAY_CONSTRUCTOR(post, (diary_actor, to))
{
    self->to = to;
    moray_actor_keep(to);
}
MORAY_METHOD(void, post, notes, (int32_t, ms), (int32_t, value))
{
    if (ms)
        moray_call(diary_note, self->to, moray_call(after, ms, value));
    else
        moray_call(diary_note, self->to, value);
}

/* All its methods together: what a later one calls comes after what an earlier one has called. */
static void an_actor_is_one_submitter(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = moray_new_with((.on_rank = on_node(node)), diary);
        post_actor post = moray_new_with((.on_rank = on_node(0)), post, actor);
        moray_take_as(void, moray_call(post_notes, post, 300, 0));
        for (int i = 1; i < 5; i++)
            moray_take_as(void, moray_call(post_notes, post, 0, i));
        list log = {0, {0}};
        for (uint64_t until = law_ms() + 8000; log.count < 5 && law_ms() < until; law_sleep_ms(5))
            log = moray_take_as(list, moray_call(diary_read, actor));
        DEMAND_OK(moray_actor_release(post));
        DEMAND_OK(moray_actor_release(actor));
        DEMAND_SAME(log.count, 5);
        for (int i = 0; i < 5; i++)
            DEMAND_SAME(log.values[i], i);
    }
}

static void a_call_that_waits_holds_back_its_submitters_later_ones(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = diary_on(node);
        word gate = say_number("23", node);
        moray_ref slow = moray_call_with((.on_rank = on_node(0)), after_gate, gate, 2);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
        moray_ref two = moray_call(diary_note, actor, slow);
        moray_ref three = moray_call(diary_note, actor, 3);
        /* another submitter's call is not held back */
        moray_ref other = moray_call_with((.on_rank = on_node(1)), notes, actor, 100);
        DEMAND_SAME(moray_take_as(int32_t, other), 2);
        gate_open(gate.text);
        DEMAND_SAME(moray_take_as(int32_t, two), 3);
        DEMAND_SAME(moray_take_as(int32_t, three), 4);
        list log = moray_take_as(list, moray_call(diary_read, actor));
        DEMAND_SAME(log.count, 4);
        DEMAND_SAME(log.values[0], 1);
        DEMAND_SAME(log.values[1], 100);
        DEMAND_SAME(log.values[2], 2);
        DEMAND_SAME(log.values[3], 3);
        DEMAND_OK(moray_release(slow));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void calls_of_several_submitters_run_one_at_a_time(void)
{
    diary_actor actor = diary_on(1);
    moray_ref refs[50];

    for (int i = 0; i < 50; i++)
        refs[i] = moray_call(notes, actor, i);
    for (int i = 0; i < 50; i++)
        DEMAND(moray_take_as(int32_t, refs[i]) >= 1);
    list log = moray_take_as(list, moray_call(diary_read, actor));
    bool seen[50] = {false};
    DEMAND_SAME(log.count, 50);
    for (int i = 0; i < 50; i++) {
        DEMAND(!seen[log.values[i]]);
        seen[log.values[i]] = true;
    }
    DEMAND_OK(moray_actor_release(actor));
}

struct submitter {
    diary_actor actor;
    int first;
    bool ok;
};

static void *submit_some(void *context)
{
    struct submitter *s = context;

    s->ok = true;
    for (int i = 0; i < 50; i++)
        s->ok = s->ok && moray_release(moray_call(diary_note, s->actor, s->first + i)) == MORAY_OK;
    int32_t value;
    moray_ref last = moray_call(diary_note, s->actor, s->first + 50);
    s->ok = s->ok && moray_get(last, &value, 10000) == MORAY_OK && moray_release(last) == MORAY_OK;
    return NULL;
}

static void each_thread_of_the_driver_is_a_submitter(void)
{
    diary_actor actor = diary_on(0);
    struct submitter submitters[4];
    pthread_t threads[4];
    int next[4] = {0};
    moray_ref slow = moray_call(after_gate, say("29"), -1);
    moray_ref held = moray_call(diary_note, actor, slow);

    for (int i = 0; i < 4; i++) {
        submitters[i] = (struct submitter){actor, i * 1000, false};
        DEMAND(pthread_create(&threads[i], NULL, submit_some, &submitters[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        DEMAND(submitters[i].ok);
    }
    gate_open("29");
    list log = moray_take_as(list, moray_call(diary_read, actor));
    DEMAND_SAME(log.count, 205);
    DEMAND_SAME(log.values[204], -1); /* it waited, and held the others' calls not back */
    log.count--;
    for (int i = 0; i < 204; i++)
        DEMAND_SAME(log.values[i] % 1000, next[log.values[i] / 1000]++);
    DEMAND_SAME(moray_take_as(int32_t, held), 205);
    DEMAND_OK(moray_release(slow));
    DEMAND_OK(moray_actor_release(actor));
}

/* ---- 24 ---- */

MORAY_TASK(door, gives_door, (built_actor, actor))
{
    return (door){actor};
}

MORAY_TASK(int32_t, adds_by_door, (int32_t, by), (door, open))
{
    return moray_take_as(int32_t, moray_call(built_add, open.actor, by));
}

MORAY_ACTOR(customer, (int32_t, sum));
MORAY_CONSTRUCTOR(customer, (int32_t, slow), (built_actor, bare), (door, open))
{
    self->sum = slow + moray_take_as(int32_t, moray_call(built_add, bare, 1)) +
                moray_take_as(int32_t, moray_call(built_add, open.actor, 1));
}
MORAY_METHOD(int32_t, customer, sum)
{
    return self->sum;
}

static void state_lasts_and_handles_travel(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = diary_on(node);
        keeper_actor box = moray_new_with((.on_rank = on_node(node + 1)), keeper);
        for (int i = 0; i < node_count(); i++) {
            moray_ref ref = moray_call_with((.on_rank = on_node(i)), notes, actor, i);
            DEMAND_SAME(moray_take_as(int32_t, ref), i + 1);
        }
        DEMAND_SAME(moray_take_as(int32_t, moray_call(keeper_take, box, actor)), 0);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(keeper_note, box, 7)), node_count() + 1);
        DEMAND_OK(moray_actor_release(actor)); /* the keeper has it still */
        DEMAND_SAME(moray_take_as(int32_t, moray_call(keeper_note, box, 8)), node_count() + 2);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(keeper_drop, box)), 0);
        DEMAND_OK(moray_actor_release(box));
    }
    moray_ref inside[4];
    for (int i = 0; i < 4; i++)
        inside[i] = moray_call_with((.on_rank = on_node(i)), makes_and_uses, i);
    for (int i = 0; i < 4; i++)
        DEMAND_SAME(moray_take_as(int32_t, inside[i]), 1);
}

static void a_task_lends_its_handle_until_it_ends(void)
{
    diary_actor actor = diary_on(0);
    moray_ref slow = moray_call(after, 200, 5);
    moray_ref pending = moray_call(notes, actor, slow);

    DEMAND_OK(moray_release(slow));
    DEMAND_OK(moray_actor_release(actor)); /* the pending task has it still */
    DEMAND_SAME(moray_take_as(int32_t, pending), 1);
}

/* An object keeps the actor whose handle its bytes contain; so does a call that has them as an argument. */
static void a_handle_in_a_value_keeps_its_actor(void)
{
    for (int node = 0; node < node_count(); node++)
        for (int how = 0; how < 3; how++) {
            word key = say_number(how == 0 ? "24p" : how == 1 ? "24r" : "24a", node);
            built_actor actor = moray_new_with((.on_rank = on_node(node)), built, key, 4);
            door open = {actor};
            char ended[40];
            moray_ref slow = moray_call(after, 200, 5), kept, sum;
            snprintf(ended, sizeof(ended), "%s ended", key.text);
            if (how < 2) {
                kept = how ? moray_call_with((.on_rank = on_node(node + 1)), gives_door, actor)
                           : moray_put_value(door, open);
                DEMAND_OK(moray_get_bytes(kept, NULL, 0, 0));
                DEMAND_OK(moray_actor_release(actor));
                law_sleep_ms(100);
                DEMAND_SAME(counted(ended), 0);
                sum = moray_call_with((.on_rank = on_node(node + 1)), adds_by_door, slow, kept);
                DEMAND_SAME(moray_take_as(int32_t, sum), 9);
                DEMAND_OK(moray_release(kept));
            } else {
                sum = moray_call_with((.on_rank = on_node(node + 1)), adds_by_door, slow, open);
                DEMAND_OK(moray_actor_release(actor));
                DEMAND_SAME(moray_take_as(int32_t, sum), 9);
            }
            DEMAND(count_becomes(ended, 1));
            DEMAND_OK(moray_release(slow));
        }
}

MORAY_TASK(built_actor, gives_bare, (built_actor, actor))
{
    return actor;
}

MORAY_TASK(int32_t, adds_bare, (int32_t, by), (built_actor, actor))
{
    return moray_take_as(int32_t, moray_call(built_add, actor, by));
}

/* So does an object that is a handle; who takes it has a hold of its own. */
static void a_handle_that_is_a_value_keeps_its_actor(void)
{
    for (int node = 0; node < node_count(); node++)
        for (int how = 0; how < 4; how++) {
            word key = say_number(how & 1 ? "24q" : "24s", node * 2 + how / 2);
            built_actor actor = moray_new_with((.on_rank = on_node(node)), built, key, 4);
            char ended[64];
            snprintf(ended, sizeof(ended), "%s ended", key.text);
            moray_ref kept =
                how & 1 ? moray_call_with((.on_rank = on_node(node + 1)), gives_bare, actor)
                        : moray_put_value(built_actor, actor);
            DEMAND_OK(moray_get_bytes(kept, NULL, 0, 0));
            DEMAND_OK(moray_actor_release(actor));
            law_sleep_ms(100);
            DEMAND_SAME(counted(ended), 0);
            if (how < 2) {
                moray_ref slow = moray_call(after, 200, 5);
                moray_ref sum =
                    moray_call_with((.on_rank = on_node(node + 1)), adds_bare, slow, kept);
                DEMAND_OK(moray_release(slow));
                DEMAND_OK(moray_release(kept));
                DEMAND_SAME(moray_take_as(int32_t, sum), 9);
            } else {
                built_actor taken = moray_take_as(built_actor, kept);
                law_sleep_ms(50);
                DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, taken, 5)), 9);
                DEMAND_OK(moray_actor_release(taken));
            }
            DEMAND(count_becomes(ended, 1));
        }
}

/* Until it has run; where it may run again, as long as the actor is there. */
static void a_constructor_keeps_the_handles_it_takes(void)
{
    for (int node = 0; node < node_count(); node++)
        for (int restarts = 0; restarts < 2; restarts++) {
            word keys[2] = {say_number(restarts ? "24c" : "24b", node),
                            say_number(restarts ? "24e" : "24d", node)};
            built_actor shops[2];
            char ended[2][64];
            for (int i = 0; i < 2; i++) {
                shops[i] = moray_new_with((.on_rank = on_node(node + i)), built, keys[i], 10 * i);
                snprintf(ended[i], sizeof(ended[i]), "%s ended", keys[i].text);
            }
            moray_ref slow = moray_call(after, 200, 5);
            customer_actor actor =
                moray_new_with((.on_rank = on_node(node + 1), .restarts = restarts), customer, slow,
                               shops[0], (door){shops[1]});
            DEMAND_OK(moray_release(slow));
            DEMAND_OK(moray_actor_release(shops[0]));
            DEMAND_OK(moray_actor_release(shops[1]));
            DEMAND_SAME(moray_take_as(int32_t, moray_call(customer_sum, actor)), 17);
            if (restarts) {
                DEMAND_OK(moray_kill(actor, 1));
                law_sleep_ms(100);
                DEMAND_SAME(moray_take_as(int32_t, moray_call(customer_sum, actor)), 19);
                DEMAND_SAME(counted(ended[0]) + counted(ended[1]), 0);
                DEMAND_OK(moray_actor_release(actor));
            }
            DEMAND(count_becomes(ended[0], 1));
            DEMAND(count_becomes(ended[1], 1));
            if (!restarts)
                DEMAND_OK(moray_actor_release(actor));
        }
}

/* The call ends, and with it what its argument held: by then it is known that the result holds the actor. */
static void a_handle_is_never_held_by_nobody_on_its_way(void)
{
    for (int i = 0; i < 60; i++) {
        built_actor actor = moray_new_with((.on_rank = on_node(i)), built, say_number("24h", i), 4);
        moray_ref open = moray_call_with((.on_rank = on_node(i / 2 + 1)), gives_door, actor);
        DEMAND_OK(moray_actor_release(actor));
        DEMAND_OK(moray_get_bytes(open, NULL, 0, 0));
        moray_ref sum = moray_call_with((.on_rank = on_node(i + 2)), adds_by_door, 5, open);
        DEMAND_OK(moray_release(open));
        DEMAND_SAME(moray_take_as(int32_t, sum), 9);
    }
}

/* ---- 25 ---- */

static void a_methods_error_leaves_the_actor_usable(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = diary_on(node);
        moray_ref bad = moray_call(diary_fails, actor, 13);
        moray_ref good = moray_call(diary_note, actor, 1);
        DEMAND_CODE(moray_get_bytes(bad, NULL, 0, 0), MORAY_FAILED);
        DEMAND_NAMES(moray_error(bad), "method diary_fails");
        DEMAND_NAMES(moray_error(bad), "13 is not a value");
        DEMAND_SAME(moray_take_as(int32_t, good), 1);
        /* an argument that failed: the call does not run, the actor goes on */
        moray_ref upstream = moray_call(diary_note, actor, bad);
        DEMAND_CODE(moray_get_bytes(upstream, NULL, 0, 0), MORAY_UPSTREAM);
        DEMAND_NAMES(moray_error(upstream), "13 is not a value");
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 2)), 2);
        DEMAND_OK(moray_release(bad));
        DEMAND_OK(moray_release(upstream));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void a_constructors_error_makes_every_call_fail_with_it(void)
{
    for (int node = 0; node < node_count(); node++) {
        built_actor actor =
            moray_new_with((.on_rank = on_node(node), .restarts = 3), built, say("25"), -4);
        moray_ref first = moray_call(built_value, actor);
        DEMAND_CODE(moray_get_bytes(first, NULL, 0, 5000), MORAY_NOT_FOUND);
        DEMAND_NAMES(moray_error(first), "no actor of value -4");
        moray_ref later = moray_call(built_value, actor);
        DEMAND_CODE(moray_get_bytes(later, NULL, 0, 5000), MORAY_NOT_FOUND);
        DEMAND_NAMES(moray_error(later), "no actor of value -4");
        DEMAND_NAMES(moray_error(later), "constructor");
        DEMAND_OK(moray_release(first));
        DEMAND_OK(moray_release(later));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void a_constructor_waits_for_its_arguments(void)
{
    for (int node = 0; node < node_count(); node++) {
        moray_ref slow = moray_call(after, 100, 6);
        built_actor actor =
            moray_new_with((.on_rank = on_node(node)), built, say_number("waits", node), slow);
        DEMAND_OK(moray_release(slow));
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_value, actor)), 6);
        DEMAND_OK(moray_actor_release(actor));
    }
}

/* ---- 27 ---- */

MORAY_TASK(int32_t, meets, (int32_t, others))
{
    uint64_t until = law_ms() + 10000;

    atomic_fetch_add(&shared[2], 1);
    while (atomic_load(&shared[2]) < others && law_ms() < until)
        law_sleep_ms(1);
    return (int32_t)atomic_load(&shared[2]);
}

static void an_idle_actor_holds_no_core(void)
{
    enum { MANY = 20 };
    diary_actor actors[MANY];
    int workers = moray_workers() / node_count();
    moray_ref together[64];

    for (int i = 0; i < MANY; i++)
        actors[i] = moray_new(diary);
    for (int i = 0; i < MANY; i++)
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actors[i], i)), 1);
    /* all workers of a node run tasks at the same time */
    for (int i = 0; i < workers; i++)
        together[i] = moray_call_with((.on_rank = on_node(0)), meets, workers);
    for (int i = 0; i < workers; i++)
        DEMAND_SAME(moray_take_as(int32_t, together[i]), workers);
    for (int i = 0; i < MANY; i++)
        DEMAND_OK(moray_actor_release(actors[i]));
}

static void resources_asked_for_are_held_for_life(void)
{
    int workers = moray_workers() / node_count();
    diary_actor actor = moray_new_with((.cores = workers, .on_rank = on_node(0)), diary);
    diary_actor bad;

    DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
    moray_ref waits = moray_call_with((.cores = workers, .on_rank = on_node(0)), after, 0, 5);
    DEMAND_CODE(moray_get_bytes(waits, NULL, 0, 300), MORAY_TIMEOUT);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 2);
    DEMAND_OK(moray_actor_release(actor));
    DEMAND_OK(moray_get_bytes(waits, NULL, 0, 5000));
    DEMAND_OK(moray_release(waits));
    bad = moray_new_with((.cores = 5000), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    bad = moray_new_with((.cores = -1), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    bad = moray_new_with((.resource = "gpu"), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    DEMAND_NAMES(last_story(), "gpu");
    bad = moray_new_with((.restarts = -2), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    bad = moray_new_with((.on_rank = 99), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    bad = moray_new_with((.memory = (uint64_t)1 << 50), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    bad = moray_new_with((.get_if_exists = 1), diary);
    DEMAND(bad.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    /* using the null handle tells the story */
    moray_ref none = moray_call(diary_note, bad, 1);
    DEMAND(none.owner == 0);
    DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "get_if_exists without a name");
    none = moray_call(diary_note, moray_actor_named(diary, "none has it"), 1);
    DEMAND_CODE(moray_get_bytes(none, NULL, 0, 0), MORAY_NOT_FOUND);
    DEMAND_NAMES(moray_error(none), "none has it");
}

/* ---- 28 ---- */

static void more_calls_than_the_limit_are_refused(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor = moray_new_with((.pending_max = 3, .on_rank = on_node(node)), diary);
        moray_ref refs[10];
        int refused = 0, taken = 0;
        word gate = say_number("28", node);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
        for (int i = 0; i < 10; i++) {
            moray_ref ref = moray_call(diary_note_at_gate, actor, gate, i);
            if (ref.owner)
                refs[taken++] = ref;
            else {
                DEMAND_SAME(moray_last(NULL), MORAY_BUSY);
                DEMAND_NAMES(last_story(), "pending_max");
                refused++;
            }
        }
        gate_open(gate.text);
        DEMAND(taken >= 3 && taken <= 4); /* one may have begun */
        DEMAND_SAME(refused + taken, 10);
        for (int i = 0; i < taken; i++)
            DEMAND_SAME(moray_take_as(int32_t, refs[i]), i + 2);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), taken + 2);
        DEMAND_OK(moray_actor_release(actor));
    }
}

/* More handles than a process keeps rows for. */
static void many_handles_come_and_go(void)
{
    enum { HANDLES = 5000 };
    diary_actor actor = moray_new_with((.pending_max = 1), diary), other = actor;
    word gate = say_number("many", 0);
    moray_ref waits;

    DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
    waits = moray_call(diary_note_at_gate, actor, gate, 1);
    DEMAND(waits.owner != 0);
    for (int i = 0; i < HANDLES; i++) {
        other.handle.index = actor.handle.index + 1000000 + i; /* of none that there is */
        (void)!moray_actor_add(other.handle);
        DEMAND_OK(moray_actor_release(other));
    }
    DEMAND_CODE(moray_actor_release(other), MORAY_STALE);
    DEMAND(moray_call(diary_note, actor, 1).owner == 0); /* the one under way is known still */
    DEMAND_NAMES(last_story(), "pending_max");
    gate_open(gate.text);
    DEMAND_SAME(moray_take_as(int32_t, waits), 2);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 3);
    DEMAND_OK(moray_actor_release(actor));
    DEMAND_CODE(moray_actor_release(actor), MORAY_STALE);
}

typedef struct {
    unsigned char bytes[3 << 19]; /* 1.5 MiB: one goes in a message, two do not */
} block;

MORAY_ACTOR(heap, (int32_t, sum));
MORAY_METHOD(int32_t, heap, adds, (block, a))
{
    self->sum += a.bytes[sizeof(a.bytes) - 1];
    return self->sum;
}
MORAY_METHOD(int32_t, heap, adds_two, (block, a), (block, b))
{
    self->sum += a.bytes[0] + b.bytes[0];
    return self->sum;
}
MORAY_ACTOR(wide, (int32_t, sum));
MORAY_CONSTRUCTOR(wide, (block, a), (block, b))
{
    self->sum = a.bytes[0] + b.bytes[0];
}

MORAY_TASK(int32_t, makes_wide)
{
    static block b;

    (void)moray_new(wide, b, b);
    return (int32_t)moray_last(NULL);
}

static void large_arguments_travel_or_are_refused(void)
{
    static block b;

    memset(&b, 3, sizeof(b));
    for (int node = 0; node < node_count(); node++) {
        heap_actor actor = moray_new_with((.on_rank = on_node(node)), heap);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(heap_adds, actor, b)), 3);
        if (moray_ranks() > 1) {
            DEMAND(moray_call(heap_adds_two, actor, b, b).owner == 0);
            DEMAND_SAME(moray_last(NULL), MORAY_INVALID);
            DEMAND_NAMES(last_story(), "put what is large");
        }
        DEMAND_SAME(moray_take_as(int32_t, moray_call(heap_adds, actor, b)), 6);
        moray_actor_release(actor);
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(node)), makes_wide)),
                    MORAY_INVALID);
    }
}

/* ---- An actor that calls itself ---- */

MORAY_ACTOR(narcissus, (int32_t, looks));
MORAY_METHOD(int32_t, narcissus, look)
{
    return ++self->looks;
}
MORAY_METHOD(int32_t, narcissus, wait_for_own, (narcissus_actor, own), (int64_t, limit_ms))
{
    moray_ref look = moray_call(narcissus_look, own);
    const char *story;
    int32_t value;
    enum moray_code code = moray_get(look, &value, limit_ms);

    moray_last(&story);
    if (!limit_ms && !strstr(story, "a call of its own"))
        count("without a story");
    return (int32_t)code;
}
MORAY_METHOD(int32_t, narcissus, take_own, (narcissus_actor, own))
{
    return moray_take_as(int32_t, moray_call(narcissus_look, own));
}

/* Without a limit it would wait for ever, and say nothing. */
static void an_actor_that_waits_for_its_own_call_is_told(void)
{
    narcissus_actor actor = moray_new(narcissus);
    int32_t value;

    DEMAND_SAME(moray_take_as(int32_t, moray_call(narcissus_wait_for_own, actor, actor, 50)),
                MORAY_TIMEOUT);
    moray_ref wait = moray_call(narcissus_wait_for_own, actor, actor, 0);
    DEMAND_CODE(moray_get(wait, &value, 10000), MORAY_OK);
    DEMAND_SAME(value, MORAY_WRONG_STATE);
    DEMAND_OK(moray_release(wait));
    moray_ref taken = moray_call(narcissus_take_own, actor, actor);
    DEMAND_CODE(moray_get(taken, &value, 10000), MORAY_WRONG_STATE);
    DEMAND_NAMES(moray_error(taken), "a call of its own");
    DEMAND_OK(moray_release(taken));
    DEMAND_SAME(moray_take_as(int32_t, moray_call(narcissus_look, actor)), 4);
    DEMAND_OK(moray_actor_release(actor));
    DEMAND_SAME(counted("without a story"), 0);
}

static const struct law laws[] = {
    {"line 23: calls run in the order of submission", calls_run_in_the_order_of_submission, 10},
    {"line 23: a call that waits holds back its submitter's later ones, not others'",
     a_call_that_waits_holds_back_its_submitters_later_ones, 20},
    {"line 23: calls of several submitters run one at a time",
     calls_of_several_submitters_run_one_at_a_time, 10},
    {"line 23: an actor is one submitter (decision 29)", an_actor_is_one_submitter, 30},
    {"line 23: each thread of the driver is a submitter (decision 29)",
     each_thread_of_the_driver_is_a_submitter, 20},
    {"line 23: large arguments travel, or are refused at the call",
     large_arguments_travel_or_are_refused, 20},
    {"line 24: state lasts, and handles travel", state_lasts_and_handles_travel, 20},
    {"line 24: a task lends its handle until it ends", a_task_lends_its_handle_until_it_ends, 10},
    {"line 24: a handle in a value keeps its actor", a_handle_in_a_value_keeps_its_actor, 30},
    {"line 24: a handle that is a value keeps its actor", a_handle_that_is_a_value_keeps_its_actor,
     30},
    {"line 24: a constructor keeps the handles it takes", a_constructor_keeps_the_handles_it_takes,
     30},
    {"line 24: a handle is never held by nobody on its way",
     a_handle_is_never_held_by_nobody_on_its_way, 30},
    {"line 25: a method's error leaves the actor usable", a_methods_error_leaves_the_actor_usable,
     10},
    {"line 25: a constructor's error makes every call fail with it",
     a_constructors_error_makes_every_call_fail_with_it, 20},
    {"line 25: a constructor waits for its arguments", a_constructor_waits_for_its_arguments, 10},
    {"line 27: an idle actor holds no core", an_idle_actor_holds_no_core, 20},
    {"line 27: resources asked for are held for life", resources_asked_for_are_held_for_life, 20},
    {"line 28: more calls than the limit are refused", more_calls_than_the_limit_are_refused, 10},
    {"line 24: many handles come and go, and those that stay are right", many_handles_come_and_go,
     60},
    {"header: an actor that waits for its own call is told",
     an_actor_that_waits_for_its_own_call_is_told, 30},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
