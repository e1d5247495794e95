/**
 * Deaths of actors, and what becomes of their calls: semantics.md 29 and 30, on every node of the job.
 */
#include "actors.h"

/* ---- 29, 30 ---- */

static void a_death_without_restarts_fails_all_calls_with_the_reason(void)
{
    static const struct {
        int how;
        const char *told;
    } deaths[] = {{SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"}, {0, "exit(5)"}};

    for (int node = 0; node < node_count(); node++)
        for (size_t i = 0; i < COUNT_OF(deaths); i++) {
            diary_actor actor = diary_on(node);
            DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
            moray_ref slow = moray_call(after, 100, 1);
            moray_ref under_way = moray_call(diary_dies, actor, deaths[i].how);
            moray_ref queued = moray_call(diary_note, actor, 2);
            moray_ref waiting = moray_call(diary_note, actor, slow);
            DEMAND_CODE(moray_get_bytes(under_way, NULL, 0, 5000), MORAY_ACTOR_DIED);
            DEMAND_CODE(moray_get_bytes(queued, NULL, 0, 5000), MORAY_ACTOR_DIED);
            DEMAND_CODE(moray_get_bytes(waiting, NULL, 0, 5000), MORAY_ACTOR_DIED);
            moray_ref later = moray_call(diary_note, actor, 4);
            DEMAND_CODE(moray_get_bytes(later, NULL, 0, 5000), MORAY_ACTOR_DIED);
            DEMAND_NAMES(moray_error(queued), deaths[i].told);
            DEMAND_NAMES(moray_error(later), deaths[i].told);
            DEMAND_NAMES(moray_error(later), "diary");
            DEMAND_OK(moray_release(slow));
            DEMAND_OK(moray_release(under_way));
            DEMAND_OK(moray_release(queued));
            DEMAND_OK(moray_release(waiting));
            DEMAND_OK(moray_release(later));
            DEMAND_OK(moray_actor_release(actor));
        }
}

static void with_restarts_it_starts_again_from_its_constructor(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("29", node);
        built_actor actor =
            moray_new_with((.restarts = 2, .on_rank = on_node(node)), built, key, 40);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, actor, 2)), 42);
        for (int life = 1; life <= 2; life++) {
            moray_ref dies = moray_call(built_dies, actor, life == 1 ? SIGKILL : -3);
            DEMAND_CODE(moray_get_bytes(dies, NULL, 0, 5000), MORAY_ACTOR_DIED);
            DEMAND_OK(moray_release(dies));
            /* even if no call is pending */
            DEMAND(count_becomes(key.text, life + 1));
            DEMAND_SAME(moray_take_as(int32_t, moray_call(built_add, actor, 1)), 41);
        }
        /* none left */
        moray_ref dies = moray_call(built_dies, actor, SIGKILL);
        DEMAND_CODE(moray_get_bytes(dies, NULL, 0, 5000), MORAY_ACTOR_DIED);
        DEMAND_OK(moray_release(dies));
        moray_ref later = moray_call(built_value, actor);
        DEMAND_CODE(moray_get_bytes(later, NULL, 0, 5000), MORAY_ACTOR_DIED);
        DEMAND_OK(moray_release(later));
        DEMAND_SAME(counted(key.text), 3);
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void queued_calls_run_after_a_restart(void)
{
    for (int node = 0; node < node_count(); node++) {
        diary_actor actor =
            moray_new_with((.restarts = MORAY_ENDLESS, .on_rank = on_node(node)), diary);
        moray_ref refs[20];
        moray_ref dies = moray_call(diary_dies, actor, SIGKILL);
        for (int i = 0; i < 20; i++)
            refs[i] = moray_call(diary_note, actor, i);
        DEMAND_CODE(moray_get_bytes(dies, NULL, 0, 5000), MORAY_ACTOR_DIED);
        for (int i = 0; i < 20; i++)
            DEMAND_SAME(moray_take_as(int32_t, refs[i]), i + 1);
        list log = moray_take_as(list, moray_call(diary_read, actor));
        DEMAND_SAME(log.count, 20);
        for (int i = 0; i < 20; i++)
            DEMAND_SAME(log.values[i], i);
        DEMAND_OK(moray_release(dies));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void a_call_under_way_is_run_at_most_once(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("30", node);
        diary_actor actor = moray_new_with((.restarts = 5, .on_rank = on_node(node)), diary);
        moray_ref once = moray_call(diary_dies_until, actor, key, 100);
        DEMAND_CODE(moray_get_bytes(once, NULL, 0, 5000), MORAY_ACTOR_DIED);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(diary_note, actor, 1)), 1);
        DEMAND_SAME(counted(key.text), 1);
        DEMAND_OK(moray_release(once));
        DEMAND_OK(moray_actor_release(actor));
    }
}

static void with_method_retries_no_call_is_lost_and_order_holds(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say_number("30r", node), each[30];
        diary_actor actor = moray_new_with(
            (.restarts = MORAY_ENDLESS, .method_retries = 3, .on_rank = on_node(node)), diary);
        moray_ref refs[30];
        for (int i = 0; i < 30; i++) {
            snprintf(each[i].text, sizeof(each[i].text), "30r %d %d", node, 100 + i);
            refs[i] = i == 10 || i == 20 ? moray_call(diary_dies_until, actor, key, i == 10 ? 3 : 5)
                                         : moray_call(diary_counts, actor, each[i], i);
        }
        for (int i = 0; i < 30; i++) {
            int32_t value = moray_take_as(int32_t, refs[i]);
            DEMAND_SAME(value, i == 10 ? 3 : i == 20 ? 5 : i);
            /* what had finished is not run again */
            if (i != 10 && i != 20)
                DEMAND_SAME(counted(each[i].text), 1);
        }
        /* the last life has what came after the last death, in order */
        list log = moray_take_as(list, moray_call(diary_read, actor));
        DEMAND_SAME(log.count, 10);
        DEMAND_SAME(log.values[0], 5);
        for (int i = 1; i < 10; i++)
            DEMAND_SAME(log.values[i], 20 + i);
        /* beyond its retries a call fails, and the others go on */
        word last = say_number("30f", node);
        moray_ref dies = moray_call(diary_dies_until, actor, last, 100);
        moray_ref goes_on = moray_call(diary_note, actor, 1);
        DEMAND_CODE(moray_get_bytes(dies, NULL, 0, 5000), MORAY_ACTOR_DIED);
        DEMAND_SAME(counted(last.text), 4);
        DEMAND_SAME(moray_take_as(int32_t, goes_on), 1);
        DEMAND_OK(moray_release(dies));
        DEMAND_OK(moray_actor_release(actor));
    }
}

/* ---- Where there is no actor (any more) ---- */

MORAY_ACTOR(careful, (int32_t, value));
MORAY_CONSTRUCTOR(careful, (int32_t, value))
{
    if (!self)
        count("without a self");
    else
        self->value = value;
}
MORAY_METHOD(int32_t, careful, value)
{
    return self->value;
}

static void a_constructor_runs_in_its_actors_process_or_not_at_all(void)
{
    for (int i = 0; i < 60; i++) {
        careful_actor actor =
            moray_new_with((.on_rank = on_node(i), .restarts = i % 3), careful, i);
        DEMAND(actor.handle.node != 0);
        moray_ref call = moray_call(careful_value, actor);
        usleep((useconds_t)(i % 20 * 100)); /* its process is being made */
        DEMAND_OK(moray_kill(actor, i % 3 == 2));
        int32_t value = i;
        enum moray_code code = moray_get(call, &value, 10000);
        DEMAND(code == MORAY_OK || code == MORAY_ACTOR_DIED);
        DEMAND_SAME(value, i);
        DEMAND_OK(moray_release(call));
        DEMAND_OK(moray_actor_release(actor));
    }
    law_sleep_ms(200);
    DEMAND_SAME(counted("without a self"), 0);
}

/* The bytes of a handle keep nothing alive; who uses them later is told. */
typedef struct {
    moray_actor handle;
} bytes_of_handle;

MORAY_TASK(int32_t, note_by_bytes, (bytes_of_handle, bytes))
{
    diary_actor actor = {bytes.handle};
    moray_ref call = moray_call(diary_note, actor, 1);
    enum moray_code code = call.owner ? moray_get_bytes(call, NULL, 0, 5000) : moray_last(NULL);

    if (call.owner)
        moray_release(call);
    return (int32_t)code;
}

MORAY_TASK(bytes_of_handle, one_that_dies, (int32_t, on_rank))
{
    diary_actor actor = moray_new_with((.on_rank = on_rank), diary);
    bytes_of_handle bytes = {actor.handle};

    if (moray_take_as(int32_t, moray_call(diary_note, actor, 1)) != 1)
        moray_fail(MORAY_FAILED, "it is no diary");
    moray_kill(actor, 0);
    if (!diary_is_dead(actor))
        moray_fail(MORAY_FAILED, "it lives");
    moray_actor_release(actor);
    return bytes;
}

static void a_handle_of_a_forgotten_actor_is_stale(void)
{
    for (int node = 0; node < node_count(); node++) {
        moray_ref made =
            moray_call_with((.on_rank = on_node(node)), one_that_dies, on_node(node + 1));
        bytes_of_handle bytes = moray_take_as(bytes_of_handle, made);
        law_sleep_ms(100); /* rank 0 forgets it */
        for (int from = 0; from < node_count(); from++) {
            moray_ref ref = moray_call_with((.on_rank = on_node(from)), note_by_bytes, bytes);
            enum moray_code code = (enum moray_code)moray_take_as(int32_t, ref);
            DEMAND(code == MORAY_STALE || code == MORAY_ACTOR_DIED);
        }
    }
}

/* ---- Words that come late ---- */

MORAY_ACTOR(unborn, (int32_t, nothing));
MORAY_CONSTRUCTOR(unborn, (word, key), (int32_t, ms))
{
    (void)self;
    count(key.text);
    law_sleep_ms(ms);
    moray_fail(MORAY_FAILED, "it is never born");
}
MORAY_METHOD(int32_t, unborn, use)
{
    return self->nothing;
}

enum { STOPPED_MS = 900, UNBORN_MS = 400 };

static void *rank_stops(void *pid)
{
    kill(*(pid_t *)pid, SIGSTOP);
    law_sleep_ms(STOPPED_MS);
    kill(*(pid_t *)pid, SIGCONT);
    return NULL;
}

static void *kills_late(void *actor)
{
    law_sleep_ms(100);
    moray_kill(*(unborn_actor *)actor, 0);
    return NULL;
}

/* Rank 0 hears of a new actor and of the kill before it hears that the first one has failed. */
MORAY_TASK(int32_t, makes_while_rank_0_is_stopped, (int32_t, pid), (int32_t, on_rank),
           (unborn_actor, first))
{
    pthread_t stops, kills;
    int32_t noted = -1;

    if (pthread_create(&stops, NULL, rank_stops, &pid) ||
        pthread_create(&kills, NULL, kills_late, &first))
        return -1;
    law_sleep_ms(100);
    diary_actor second = moray_new_with((.on_rank = on_rank), diary);
    law_sleep_ms(STOPPED_MS);
    moray_get(moray_call(diary_note, second, 7), &noted, 10000);
    moray_actor_release(second);
    pthread_join(stops, NULL);
    pthread_join(kills, NULL);
    return noted;
}

static void a_late_kill_does_not_meet_who_came_after(void)
{
    for (int round = 0; round < 2 && !head_is_node(); round++) {
        word key = say_number("late", round);
        int32_t on_rank = on_node(round);
        unborn_actor first = moray_new_with((.on_rank = on_rank), unborn, key, UNBORN_MS);
        DEMAND(count_becomes(key.text, 1));
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_rank),
                                                           makes_while_rank_0_is_stopped,
                                                           (int32_t)getpid(), on_rank, first)),
                    1);
        DEMAND_OK(moray_actor_release(first));
    }
}

static const struct law laws[] = {
    {"line 29: a death without restarts fails all calls with the reason",
     a_death_without_restarts_fails_all_calls_with_the_reason, 60},
    {"line 29: with restarts it starts again from its constructor",
     with_restarts_it_starts_again_from_its_constructor, 20},
    {"line 29: queued calls run after a restart", queued_calls_run_after_a_restart, 20},
    {"line 30: a call under way is run at most once", a_call_under_way_is_run_at_most_once, 20},
    {"line 30: with method retries no call is lost, and order holds",
     with_method_retries_no_call_is_lost_and_order_holds, 30},
    {"line 29: a constructor runs in its actor's process or not at all",
     a_constructor_runs_in_its_actors_process_or_not_at_all, 30},
    {"line 29: a handle of a forgotten actor is stale", a_handle_of_a_forgotten_actor_is_stale, 60},
    {"line 29: a late kill does not meet who came after", a_late_kill_does_not_meet_who_came_after,
     30},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
