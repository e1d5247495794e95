/**
 * How long actors live, and their names: semantics.md 33 and 34, on every node of the job.
 */
#include <malloc.h>

#include "actors.h"

/* Calls that were made just then may still have run: soon there are none. */
static bool built_is_dead(built_actor actor, char *story, size_t bytes)
{
    enum moray_code code = MORAY_OK;

    for (uint64_t until = law_ms() + 10000; code == MORAY_OK && law_ms() < until;) {
        moray_ref later = moray_call(built_value, actor);
        code = moray_get_bytes(later, NULL, 0, 5000);
        snprintf(story, bytes, "%s", moray_error(later));
        moray_release(later);
    }
    return code == MORAY_ACTOR_DIED;
}

/* ---- 33 ---- */

static void the_last_handle_ends_it_after_its_queued_calls(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("33", node);
        built_actor actor =
            moray_new_with((.restarts = 5, .on_rank = on_node(node)), built, key, 1);
        moray_ref refs[10];
        char ended[40];
        for (int i = 0; i < 10; i++)
            refs[i] = moray_call(built_add, actor, 1);
        DEMAND_OK(moray_actor_release(actor));
        DEMAND_CODE(moray_actor_release(actor), MORAY_STALE);
        for (int i = 0; i < 10; i++)
            DEMAND_SAME(moray_take_as(int32_t, refs[i]), i + 2);
        snprintf(ended, sizeof(ended), "%s ended", key.text);
        DEMAND(count_becomes(ended, 1));
        law_sleep_ms(100);
        DEMAND_SAME(counted(key.text), 1); /* a clean end is not restarted */
    }
}

MORAY_TASK(int32_t, makes_and_ends, (word, key), (int32_t, how))
{
    built_actor actor = moray_new(built, key, 1);

    if (moray_take_as(int32_t, moray_call(built_value, actor)) != 1)
        return 0;
    if (how)
        raise(how);
    return 1; /* its process ends with it: .calls_per_process */
}

static built_actor makes_one(word key)
{
    built_actor actor = moray_new(built, key, 1);

    if (moray_take_as(int32_t, moray_call(built_value, actor)) != 1)
        moray_fail(MORAY_FAILED, "it has another value");
    return actor;
}

MORAY_TASK(int32_t, makes_and_leaves, (word, key), (int32_t, keeps))
{
    built_actor actor = makes_one(key);

    if (keeps)
        return (int32_t)moray_actor_keep(actor);
    moray_actor_hold(actor);
    moray_actor_hold(actor);
    moray_release(moray_call(built_add, actor, 5)); /* which is run before the end */
    return (int32_t)moray_actor_release(actor);
}

MORAY_TASK(built_actor, makes_bare, (word, key))
{
    return makes_one(key);
}

MORAY_TASK(door, makes_door, (word, key))
{
    return (door){makes_one(key)};
}

static void what_a_task_made_ends_with_it_unless_another_has_it(void)
{
    DEMAND_CODE(moray_actor_keep(((built_actor){{1, 1, 1, 1}})), MORAY_WRONG_STATE);
    for (int node = 0; node < node_count(); node++)
        for (int how = 0; how < 4; how++) {
            word key = say_number("33 task", node * 4 + how);
            char ended[64];
            snprintf(ended, sizeof(ended), "%s ended", key.text);
            if (how < 2) {
                moray_ref ref =
                    moray_call_with((.on_rank = on_node(node)), makes_and_leaves, key, how);
                DEMAND_SAME(moray_take_as(int32_t, ref), MORAY_OK);
                if (how) { /* kept: as long as the process */
                    law_sleep_ms(150);
                    DEMAND_SAME(counted(ended), 0);
                    continue;
                }
            } else if (how == 2) {
                moray_ref ref = moray_call_with((.on_rank = on_node(node)), makes_bare, key);
                built_actor actor = moray_take_as(built_actor, ref);
                law_sleep_ms(50);
                DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, actor, 2)), 3);
                DEMAND_OK(moray_actor_release(actor));
            } else {
                moray_ref ref = moray_call_with((.on_rank = on_node(node)), makes_door, key);
                door open = moray_get_as(door, ref);
                law_sleep_ms(50);
                DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, open.actor, 2)), 3);
                DEMAND_OK(moray_release(ref));
            }
            DEMAND(count_becomes(ended, 1));
        }
}

static void a_process_that_ends_holds_nothing_any_more(void)
{
    for (int node = 0; node < node_count(); node++)
        for (int i = 0; i < 2; i++) {
            word key = say_number(i ? "33 exit" : "33 kill", node);
            char ended[40];
            moray_ref ref =
                moray_call_with((.attempts = 1, .calls_per_process = 1, .on_rank = on_node(node)),
                                makes_and_ends, key, i ? 0 : SIGKILL);
            DEMAND_CODE(moray_get_bytes(ref, NULL, 0, 10000), i ? MORAY_OK : MORAY_DIED);
            DEMAND_OK(moray_release(ref));
            snprintf(ended, sizeof(ended), "%s ended", key.text);
            DEMAND(count_becomes(ended, 1));
        }
}

MORAY_TASK(int32_t, asks_by_the_wrong_class, (word, name), (int32_t, makes))
{
    keeper_actor wrong = makes ? moray_new_with((.name = name.text, .get_if_exists = 1), keeper)
                               : moray_actor_named(keeper, name.text);

    return wrong.handle.node ? 0 : (int32_t)moray_last(NULL);
}

static void who_asks_for_an_actor_by_the_wrong_class_holds_nothing(void)
{
    for (int i = 0; i < 4; i++) {
        word key = say_number("33 class", i);
        char ended[40];
        built_actor actor =
            moray_new_with((.name = key.text, .on_rank = on_node(i / 2)), built, key, 1);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_value, actor)), 1);
        for (int node = 0; node < node_count(); node++)
            DEMAND_SAME(
                moray_take_as(int32_t, moray_call_with((.on_rank = on_node(node)),
                                                       asks_by_the_wrong_class, key, i % 2)),
                MORAY_WRONG_TYPE);
        DEMAND_OK(moray_actor_release(actor));
        snprintf(ended, sizeof(ended), "%s ended", key.text);
        DEMAND(count_becomes(ended, 1));
    }
}

/* The agent of a job of one rank is a thread of the driver's process: what it keeps is found here. */
static int64_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

static void an_actor_that_is_not_made_leaves_nothing_behind(void)
{
    built_actor one = moray_new_with((.name = "34 is there"), built, say("34 is there"), 1);
    int64_t before = heap_bytes();

    for (int i = 0; i < 8000; i++) {
        built_actor other = moray_new_with((.name = "34 is there", .get_if_exists = i % 2), built,
                                           say("34 is not made"), 2);
        DEMAND_SAME(other.handle.node != 0, i % 2);
        if (i % 2)
            DEMAND_OK(moray_actor_release(other));
    }
    DEMAND(moray_ranks() > 1 || heap_bytes() - before < 1 << 20);
    DEMAND_OK(moray_actor_release(one));
    DEMAND(count_becomes("34 is there ended", 1));
}

MORAY_TASK(int32_t, asks_until_it_dies, (word, name), (int32_t, us))
{
    if (!law_dies_after(&us))
        return 0;
    for (;;)
        moray_actor_release(moray_actor_named(built, name.text));
}

/* Rank 0 counts who asks for an actor by name among its holders: also who hears no answer any more. */
static void a_process_that_ends_while_it_asks_holds_nothing(void)
{
    for (int round = 0; round < 20; round++) {
        word key = say_number("33 asks", round);
        char ended[40];
        built_actor actor =
            moray_new_with((.name = key.text, .on_rank = on_node(round)), built, key, 1);
        for (int i = 0; i < 6; i++) {
            moray_ref ref = moray_call_with((.attempts = 1, .on_rank = on_node(round + i)),
                                            asks_until_it_dies, key, 200 + (i * 13 + round * 7));
            DEMAND_CODE(moray_get_bytes(ref, NULL, 0, 10000), MORAY_DIED);
            DEMAND_OK(moray_release(ref));
        }
        DEMAND_OK(moray_actor_release(actor));
        snprintf(ended, sizeof(ended), "%s ended", key.text);
        DEMAND(count_becomes(ended, 1));
    }
}

MORAY_TASK(door, puts_handles_until_it_dies, (built_actor, actor), (int32_t, us))
{
    door open = {actor};

    if (moray_attempt() > 1) /* what the first had put, or was returning, is gone */
        return open;
    if (!law_dies_after(&us))
        return open;
    for (;;) {
        moray_release(moray_put_value(door, open));
        moray_release(moray_put_value(built_actor, actor));
        moray_actor_hold(actor);
        moray_actor_release(actor);
    }
}

static void who_dies_while_it_takes_a_handle_leaves_none(void)
{
    for (int i = 0; i < 24; i++) {
        word key = say_number("33 dies", i);
        built_actor actor = moray_new_with((.on_rank = on_node(i)), built, key, 4);
        char ended[64];
        snprintf(ended, sizeof(ended), "%s ended", key.text);
        moray_ref there = moray_call_with((.on_rank = on_node(i + 1)), puts_handles_until_it_dies,
                                          actor, 200 + i * 61);
        DEMAND_OK(moray_actor_release(actor));
        door open = moray_get_as(door, there);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, open.actor, 1)), 5);
        DEMAND_OK(moray_release(there));
        DEMAND(count_becomes(ended, 1));
    }
}

static void a_clean_exit_is_never_restarted(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("33e", node);
        built_actor actor =
            moray_new_with((.restarts = 5, .on_rank = on_node(node)), built, key, 1);
        moray_ref exits = moray_call(built_dies, actor, 0);
        DEMAND_CODE(moray_get_bytes(exits, NULL, 0, 5000), MORAY_ACTOR_DIED);
        moray_ref later = moray_call(built_value, actor);
        DEMAND_CODE(moray_get_bytes(later, NULL, 0, 5000), MORAY_ACTOR_DIED);
        DEMAND_SAME(counted(key.text), 1);
        DEMAND_OK(moray_release(exits));
        DEMAND_OK(moray_release(later));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void kill_is_at_once_and_restarts_if_allowed(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("33k", node);
        char ended[40];
        uint64_t begin = law_ms();
        built_actor actor =
            moray_new_with((.restarts = 5, .on_rank = on_node(node)), built, key, 1);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, actor, 5)), 6);
        DEMAND_OK(moray_kill(actor, 1));
        DEMAND(count_becomes(key.text, 2));
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_value, actor)), 1);
        DEMAND_OK(moray_kill(actor, 0));
        char story[1000];
        DEMAND(built_is_dead(actor, story, sizeof(story)));
        DEMAND_NAMES(story, "kill");
        DEMAND_OK(moray_kill(actor, 0)); /* killing the dead is no error */
        DEMAND_OK(moray_actor_release(actor));
        snprintf(ended, sizeof(ended), "%s ended", key.text);
        DEMAND_SAME(counted(ended), 0); /* no destructor */
        DEMAND_SAME(counted(key.text), 2);
        DEMAND(law_ms() - begin < 10000);
    }
}

/* ---- 34 ---- */

static void names_are_unique_and_free_again_after_death(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor one = moray_new_with((.name = "the one", .on_rank = on_node(node)), diary);
        DEMAND(one.handle.node != 0);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, one, 1)), 1);
        diary_actor two = moray_new_with((.name = "the one"), diary);
        DEMAND(two.handle.node == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_EXISTS);
        DEMAND_NAMES(last_story(), "the one");
        diary_actor found = moray_actor_named(diary, "the one");
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, found, 2)), 2);
        diary_actor again = moray_new_with((.name = "the one", .get_if_exists = 1), diary);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, again, 3)), 3);
        keeper_actor wrong = moray_actor_named(keeper, "the one");
        DEMAND(wrong.handle.node == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_WRONG_TYPE);
        DEMAND_OK(moray_kill(one, 0));
        DEMAND(diary_is_dead(one));
        diary_actor gone = moray_actor_named(diary, "the one");
        DEMAND(gone.handle.node == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_NOT_FOUND);
        diary_actor next = moray_new_with((.name = "the one", .get_if_exists = 1), diary);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, next, 1)), 1);
        DEMAND_OK(moray_actor_release(one));
        DEMAND_OK(moray_actor_release(found));
        DEMAND_OK(moray_actor_release(again));
        DEMAND_OK(moray_kill(next, 0));
        DEMAND_OK(moray_actor_release(next));
        for (uint64_t until = law_ms() + 10000; law_ms() < until; law_sleep_ms(5)) {
            gone = moray_actor_named(diary, "the one");
            if (!gone.handle.node)
                break;
            DEMAND_OK(moray_actor_release(gone));
        }
        DEMAND(gone.handle.node == 0);
    }
    diary_actor nobody = moray_actor_named(diary, "");
    DEMAND(nobody.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
    nobody = moray_actor_named(diary, NULL);
    DEMAND(nobody.handle.node == 0 && moray_last(NULL) == MORAY_INVALID);
}

static const struct law laws[] = {
    {"line 33: the last handle ends it, after its queued calls",
     the_last_handle_ends_it_after_its_queued_calls, 20},
    {"line 33: what a task made ends with it, unless another has it",
     what_a_task_made_ends_with_it_unless_another_has_it, 30},
    {"line 33: a process that ends holds nothing any more",
     a_process_that_ends_holds_nothing_any_more, 30},
    {"line 33: a process that ends while it asks for an actor holds nothing",
     a_process_that_ends_while_it_asks_holds_nothing, 60},
    {"line 33: who asks for an actor by the wrong class holds nothing",
     who_asks_for_an_actor_by_the_wrong_class_holds_nothing, 60},
    {"line 34: an actor that is not made, as its name is taken, leaves nothing behind",
     an_actor_that_is_not_made_leaves_nothing_behind, 60},
    {"line 33: who dies while it takes a handle leaves none",
     who_dies_while_it_takes_a_handle_leaves_none, 30},
    {"line 33: a clean exit is never restarted", a_clean_exit_is_never_restarted, 20},
    {"line 33: kill is at once, and restarts if allowed", kill_is_at_once_and_restarts_if_allowed,
     20},
    {"line 34: names are unique, and free again after death",
     names_are_unique_and_free_again_after_death, 20},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
