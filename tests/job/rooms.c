/* Actors for which there is no room at once: rooms.sh.
 *
 *   rooms processes N     one more than the job has processes for, which is N
 *   rooms many N          N actors, one after the other as there is room, each for one call
 *   rooms unlike          each asks for 2 cores, which not every node has
 *   rooms results N       N tasks of six results for rank 1, which has not the records for all of them
 *   rooms setup           moray_setup, where rank 1's store is full
 *   rooms held            two hold the cores of both nodes, a third waits for the first that ends
 */
#include <moray.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEMAND(condition)                                                            \
    do {                                                                             \
        const char *story_;                                                          \
        if (!(condition)) {                                                          \
            moray_last(&story_);                                                     \
            printf("%s:%d: %s\nlast: %s\n", __FILE__, __LINE__, #condition, story_); \
            fflush(stdout);                                                          \
            _Exit(1);                                                                \
        }                                                                            \
    } while (0)

MORAY_ACTOR(counter, (int32_t, count));
MORAY_METHOD(int32_t, counter, next)
{
    return ++self->count;
}
MORAY_METHOD(int32_t, counter, where)
{
    (void)self;
    return moray_rank();
}

static int32_t next(counter_actor actor)
{
    return moray_take_as(int32_t, moray_call(counter_next, actor));
}

static void processes(int count)
{
    counter_actor *actors = calloc((size_t)count, sizeof(*actors));
    moray_ref calls[3];

    for (int i = 0; i < count; i++) {
        actors[i] = moray_new(counter);
        DEMAND(actors[i].handle.node != 0);
    }
    for (int i = 0; i < count; i++)
        DEMAND(next(actors[i]) == 1);
    counter_actor more = moray_new(counter);
    DEMAND(more.handle.node != 0);
    for (int i = 0; i < 3; i++)
        calls[i] = moray_call(counter_next, more);
    DEMAND(moray_get_bytes(calls[0], NULL, 0, 500) == MORAY_TIMEOUT);
    DEMAND(next(actors[0]) == 2); /* the others go on */
    DEMAND(moray_kill(actors[0], 0) == MORAY_OK);
    for (int i = 0; i < 3; i++)
        DEMAND(moray_take_as(int32_t, calls[i]) == i + 1);
    printf("one that ended made room\n");
    counter_actor none = moray_new(counter);
    moray_ref fails = moray_call(counter_next, none);
    DEMAND(moray_get_bytes(fails, NULL, 0, 25000) == MORAY_BUSY);
    printf("%s\n", moray_error(fails));
    DEMAND(next(more) == 4);
    DEMAND(moray_release(fails) == MORAY_OK);
    DEMAND(moray_actor_release(none) == MORAY_OK);
    DEMAND(moray_actor_release(more) == MORAY_OK);
    for (int i = 0; i < count; i++)
        DEMAND(moray_actor_release(actors[i]) == MORAY_OK);
    free(actors);
}

MORAY_TASK(int32_t, zero)
{
    return 0;
}

MORAY_ACTOR(built, (int32_t, count));
MORAY_CONSTRUCTOR(built, (int32_t, first))
{
    self->count = first;
}
MORAY_METHOD(int32_t, built, next)
{
    return ++self->count;
}

static void many(int count)
{
    moray_ref *calls = calloc((size_t)count, sizeof(*calls)), first = moray_call(zero);

    for (int i = 0; i < count; i++) {
        built_actor actor = moray_new(built, first);
        calls[i] = moray_call(built_next, actor);
        DEMAND(moray_actor_release(actor) == MORAY_OK);
    }
    DEMAND(moray_release(first) == MORAY_OK);
    for (int i = 0; i < count; i++)
        DEMAND(moray_take_as(int32_t, calls[i]) == 1);
    free(calls);
}

static void unlike(void)
{
    for (int i = 0; i < 6; i++) {
        counter_actor actor = moray_new_with((.cores = 2), counter);
        DEMAND(next(actor) == 1);
        DEMAND(moray_actor_release(actor) == MORAY_OK);
    }
}

static void held(void)
{
    for (int which = 0; which < 2; which++) {
        counter_actor actors[2];
        int32_t rank[2], third;
        for (int i = 0; i < 2; i++) {
            actors[i] = moray_new_with((.cores = 2), counter);
            rank[i] = moray_take_as(int32_t, moray_call(counter_where, actors[i]));
        }
        DEMAND(rank[0] != rank[1]);
        counter_actor waits = moray_new_with((.cores = 2), counter);
        moray_ref call = moray_call(counter_where, waits);
        DEMAND(moray_get_bytes(call, NULL, 0, 300) == MORAY_TIMEOUT);
        DEMAND(moray_actor_release(actors[which]) == MORAY_OK);
        DEMAND(moray_get(call, &third, 10000) == MORAY_OK);
        DEMAND(third == rank[which]);
        DEMAND(moray_release(call) == MORAY_OK);
        DEMAND(moray_actor_release(waits) == MORAY_OK);
        DEMAND(moray_actor_release(actors[!which]) == MORAY_OK);
    }
}

MORAY_TASK(int64_t, opens, (int32_t, ms))
{
    struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&pause, NULL);
    return 0;
}

MORAY_TASK_RESULTS(six,
                   ((int64_t, a), (int64_t, b), (int64_t, c), (int64_t, d), (int64_t, e),
                    (int64_t, f)),
                   (int64_t, gate), (int64_t, from))
{
    from += gate;
    six_results results = {from, from + 1, from + 2, from + 3, from + 4, from + 5};
    return results;
}

/* Each result is the right one, or says that there was no room. */
static void results(int count)
{
    six_refs *all = calloc((size_t)count, sizeof(*all));
    moray_ref gate = moray_call_with((.on_rank = 1), opens, 1500);
    int full = 0;

    for (int i = 0; i < count; i++)
        all[i] = moray_call_with((.on_rank = 2), six, gate, 6 * (int64_t)i);
    for (int i = 0; i < count; i++)
        for (int result = 0; result < 6; result++) {
            moray_ref ref = (&all[i].a)[result];
            int64_t value = -1;
            enum moray_code code = moray_get(ref, &value, 0);
            DEMAND(code == MORAY_FULL || (code == MORAY_OK && value == 6 * (int64_t)i + result));
            full += code == MORAY_FULL;
            DEMAND(moray_release(ref) == MORAY_OK);
        }
    DEMAND(full > 0 && full < 6 * count);
    DEMAND(moray_release(gate) == MORAY_OK);
    free(all);
}

static int32_t is_set_up;

static void sets_up(const void *value, size_t size)
{
    is_set_up = size == 65536 && *(const char *)value == 7;
}

MORAY_TASK(int32_t, asks_setup)
{
    return is_set_up;
}

typedef struct {
    char bytes[65536];
} lump;

typedef struct {
    char bytes[900];
} few;

MORAY_TASK(int32_t, takes, (few, one))
{
    return one.bytes[0];
}

/* All workers of rank 1 are busy: what tasks take waits there with them, until the store is full. */
static void setup(void)
{
    enum { COUNT = 30000 };
    static lump value = {.bytes = {7}};
    static moray_ref all[COUNT];
    few few = {{0}};
    moray_ref busy[2];

    for (int i = 0; i < 2; i++)
        busy[i] =
            moray_call_with((.on_rank = 2), opens, 20000); /* for longer than all that follows */
    for (int i = 0; i < COUNT; i++)
        all[i] = moray_call_with((.on_rank = 2), takes, few);
    nanosleep(&(struct timespec){.tv_sec = 2}, NULL); /* all are there, or refused */
    DEMAND(moray_setup(sets_up, &value, sizeof(value)) == MORAY_OK);
    DEMAND(moray_wait(busy, 2, 2, NULL, NULL, NULL, NULL, 0, 0) == MORAY_OK);
    DEMAND(moray_wait(all, COUNT, COUNT, NULL, NULL, NULL, NULL, 0, 0) == MORAY_OK);
    DEMAND(moray_take_as(int32_t, moray_call_with((.on_rank = 2), asks_setup)) == 1);
}

int main(int argc, char **argv)
{
    if (moray_init(&argc, &argv) != MORAY_OK || argc < 2)
        return 1;
    if (strcmp(argv[1], "processes") == 0)
        processes(argc > 2 ? atoi(argv[2]) : 1);
    else if (strcmp(argv[1], "many") == 0)
        many(argc > 2 ? atoi(argv[2]) : 1);
    else if (strcmp(argv[1], "unlike") == 0)
        unlike();
    else if (strcmp(argv[1], "setup") == 0)
        setup();
    else if (strcmp(argv[1], "results") == 0)
        results(argc > 2 ? atoi(argv[2]) : 1);
    else
        held();
    printf("done\n");
    return moray_finalize();
}
