/**
 * Objects on their way between ranks, where the fabric does not do at once what it is asked for: at most
 * MORAY_INFLIGHT_BYTES at a time, a grant that must wait, a read that is refused, a result that came by
 * a third rank. Run with MORAY_SHARE=0, MORAY_HEAD=node and MORAY_INFLIGHT_BYTES=3MiB on 3 ranks.
 *
 * The linker puts the functions below in the place of the fabric's: they count what rank 0 asks for and
 * has not got, and refuse what they are told to. Rank 0's agent is a thread of the driver's process;
 * that of another rank is told by a task there, in words that the rank's processes share.
 */
#include "law.h"

#include "fabric/fabric.h"
#include "node/message.h"
#include "sched/lane/lane.h"
#include "store/arena/arena.h"

enum { MIB = 1 << 20, OBJECTS = 24, FIRST_BUSY = 5 };

static _Atomic int pulls, pulls_most, reads_refused;

enum moray_code __real_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count);
enum moray_code __wrap_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count);
enum moray_code __wrap_fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes,
                                   size_t count)
{
    enum moray_code code = __real_fabric_send(fabric, rank, bytes, count);
    struct item item;

    for (size_t at = 0; code == MORAY_OK && at < count; at += sizeof(item) + item.bytes) {
        memcpy(&item, (const char *)bytes + at, sizeof(item));
        if (item.kind == ITEM_PULL && atomic_fetch_add(&pulls, 1) >= atomic_load(&pulls_most))
            atomic_store(&pulls_most, atomic_load(&pulls));
        else if (item.kind == ITEM_PULLED)
            atomic_fetch_sub(&pulls, 1);
    }
    return code;
}

enum moray_code __real_fabric_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                                     struct fabric_window *window, struct moray_error *error);
enum moray_code __wrap_fabric_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                                     struct fabric_window *window, struct moray_error *error);
enum moray_code __wrap_fabric_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                                     struct fabric_window *window, struct moray_error *error)
{
    static int calls;

    if (calls++ < FIRST_BUSY) {
        *window = (struct fabric_window){0};
        return MORAY_BUSY; /* as while a provider is looked for */
    }
    return __real_fabric_expose(fabric, offset, bytes, window, error);
}

enum moray_code __real_fabric_read(struct fabric *fabric, uint32_t rank,
                                   const struct fabric_window *window, uint64_t offset, void *local,
                                   uint64_t bytes, uint64_t cookie);
enum moray_code __wrap_fabric_read(struct fabric *fabric, uint32_t rank,
                                   const struct fabric_window *window, uint64_t offset, void *local,
                                   uint64_t bytes, uint64_t cookie);
enum moray_code __wrap_fabric_read(struct fabric *fabric, uint32_t rank,
                                   const struct fabric_window *window, uint64_t offset, void *local,
                                   uint64_t bytes, uint64_t cookie)
{
    if (atomic_load(&reads_refused))
        return MORAY_NO_MEMORY;
    return __real_fabric_read(fabric, rank, window, offset, local, bytes, cookie);
}

/* A task with such arguments finds no room for them at a rank whose shared word says so. */
typedef struct {
    char bytes[776];
} odd;

static pid_t agent_pid;

uint32_t __real_arena_alloc(struct arena *arena, uint64_t bytes, uint32_t record);
uint32_t __wrap_arena_alloc(struct arena *arena, uint64_t bytes, uint32_t record);
uint32_t __wrap_arena_alloc(struct arena *arena, uint64_t bytes, uint32_t record)
{
    if (bytes >= sizeof(odd) && bytes < 2 * sizeof(odd) && getpid() == agent_pid &&
        atomic_load(&shared[0]))
        return 0;
    return __real_arena_alloc(arena, bytes, record);
}

/* Nor does an agent find a cell, where another word says so. */
static bool is_without_cells(void)
{
    return getpid() == agent_pid && atomic_load(&shared[1]);
}

uint32_t __real_cell_take(struct lane *lane);
uint32_t __wrap_cell_take(struct lane *lane);
uint32_t __wrap_cell_take(struct lane *lane)
{
    return is_without_cells() ? POOL_NONE : __real_cell_take(lane);
}

enum moray_code __real_lane_post(struct lane *lane, uint16_t slot, uint32_t index,
                                 uint32_t generation, enum lane_cell_kind kind, uint32_t detail);
enum moray_code __wrap_lane_post(struct lane *lane, uint16_t slot, uint32_t index,
                                 uint32_t generation, enum lane_cell_kind kind, uint32_t detail);
enum moray_code __wrap_lane_post(struct lane *lane, uint16_t slot, uint32_t index,
                                 uint32_t generation, enum lane_cell_kind kind, uint32_t detail)
{
    return is_without_cells() ? MORAY_BUSY
                              : __real_lane_post(lane, slot, index, generation, kind, detail);
}

/* ---- Tasks ---- */

MORAY_TASK(moray_buffer, filled, (uint64_t, size), (int32_t, byte))
{
    moray_buffer buffer = moray_result(size);

    if (buffer.data)
        memset(buffer.data, byte, size);
    return buffer;
}

typedef struct {
    moray_ref inside;
    int64_t number;
} parcel;
MORAY_REFS(parcel, inside);

MORAY_TASK(parcel, wrap, (int32_t, ms), (int64_t, number))
{
    law_sleep_ms(ms);
    return (parcel){moray_put_value(int64_t, number), number};
}

MORAY_TASK(int32_t, nap, (int32_t, ms))
{
    law_sleep_ms(ms);
    return ms;
}

MORAY_TASK(int32_t, has_room, (int32_t, yes))
{
    atomic_store(&shared[0], !yes);
    return 0;
}

MORAY_TASK(int32_t, has_cells, (int32_t, yes))
{
    atomic_store(&shared[1], !yes);
    return 0;
}

MORAY_ACTOR(scale, (int32_t, sum));
MORAY_METHOD(int32_t, scale, add, (int32_t, value))
{
    return self->sum += value;
}

MORAY_ACTOR(built, (int32_t, value));
MORAY_CONSTRUCTOR(built, (int32_t, value))
{
    self->value = value;
}
MORAY_METHOD(int32_t, built, value)
{
    return self->value;
}

/* What its agent can give to no process now it gives later. */
MORAY_TASK(int32_t, asks_without_cells)
{
    int32_t ms = 0;
    moray_ref ref;

    (void)moray_take_as(int32_t, moray_call_with((.cores = 0.5, .on_rank = moray_rank() + 1), nap,
                                                 1)); /* a process is there */
    atomic_store(&shared[1], 1);
    ref = moray_call_with((.cores = 0.5, .on_rank = moray_rank() + 1), nap, 1);
    law_sleep_ms(30);
    atomic_store(&shared[1], 0);
    return moray_get(ref, &ms, 5000) == MORAY_OK && moray_release(ref) == MORAY_OK ? ms : -1;
}

MORAY_TASK(int32_t, weighs, (moray_view, a), (moray_future, b), (odd, c))
{
    (void)b;
    (void)c;
    return (int32_t)a.size;
}

static void demand_bytes(moray_ref ref, size_t size, int byte)
{
    moray_view view;

    DEMAND_OK(moray_get_view(ref, &view, 20000));
    DEMAND_SAME(view.size, size);
    for (size_t i = 0; i < size; i += 4096)
        DEMAND_SAME(((const unsigned char *)view.data)[i], byte);
    moray_view_release(&view);
}

/* The word that ends a pull goes with the agent's next message. */
static void demand_pulls_over(void)
{
    for (int i = 0; i < 1000 && atomic_load(&pulls); i++)
        law_sleep_ms(1);
    DEMAND_SAME(atomic_load(&pulls), 0);
}

/* ---- Laws ---- */

static void a_grant_that_must_wait_is_given_later(void)
{
    moray_ref ref = moray_call_with((.on_rank = 2), filled, (uint64_t)MIB, 9);

    demand_bytes(ref, MIB, 9);
    DEMAND_OK(moray_release(ref));
}

static void bytes_on_their_way_have_a_bound(void)
{
    moray_ref refs[OBJECTS];
    size_t ready;

    for (int i = 0; i < OBJECTS; i++)
        refs[i] = moray_call_with((.on_rank = 2), filled, (uint64_t)MIB, i);
    DEMAND_OK(moray_wait(refs, OBJECTS, OBJECTS, NULL, &ready, NULL, NULL, 0, 0));
    demand_pulls_over();
    atomic_store(&pulls_most, 0);
    DEMAND_OK(moray_wait(refs, OBJECTS, OBJECTS, NULL, &ready, NULL, NULL, 0, MORAY_FETCH));
    for (int i = OBJECTS; i-- > 0;) {
        demand_bytes(refs[i], MIB, i);
        DEMAND_OK(moray_release(refs[i]));
    }
    DEMAND_SAME(atomic_load(&pulls_most), 3);
    demand_pulls_over();
}

static void an_object_above_the_bound_goes_alone(void)
{
    moray_ref refs[4];
    moray_view views[4];

    for (int i = 0; i < 4; i++)
        refs[i] =
            moray_call_with((.on_rank = 2 + i % 2), filled, (uint64_t)(i % 2 ? 8 : 1) * MIB, i);
    DEMAND_OK(moray_get_many(refs, 4, views, 20000));
    for (int i = 0; i < 4; i++) {
        DEMAND_SAME(((const unsigned char *)views[i].data)[views[i].size - 1], i);
        moray_view_release(&views[i]);
        DEMAND_OK(moray_release(refs[i]));
    }
}

static void a_read_that_is_refused_leaves_nothing(void)
{
    moray_ref ref = moray_call_with((.on_rank = 2), filled, (uint64_t)MIB, 4);
    moray_view view;

    DEMAND_OK(moray_wait(&ref, 1, 1, NULL, NULL, NULL, NULL, 0, 0));
    atomic_store(&reads_refused, 1);
    DEMAND_CODE(moray_get_view(ref, &view, 20000), MORAY_LOST);
    DEMAND_NAMES(last_story(), "could not read");
    atomic_store(&reads_refused, 0);
    demand_pulls_over();
    demand_bytes(ref, MIB, 4);
    DEMAND_OK(moray_release(ref)); /* and rank 1 must have nothing in use at the end */
}

/* Rank 2 is held up while rank 0's tasks go to rank 1; then it takes some of them from there. */
static void a_result_that_moved_twice_keeps_what_it_contains(void)
{
    enum { TASKS = 120 };
    moray_ref refs[TASKS], busy = moray_call_with((.on_rank = 3), nap, 250);
    int64_t inside;
    parcel boxed;

    for (int i = 0; i < TASKS; i++)
        refs[i] = moray_call(wrap, 8, i);
    DEMAND_OK(moray_wait(refs, TASKS, TASKS, NULL, NULL, NULL, NULL, 0, 0));
    law_sleep_ms(100);
    for (int i = 0; i < TASKS; i++) {
        DEMAND_OK(moray_get(refs[i], &boxed, 0));
        DEMAND_SAME(boxed.number, i);
        DEMAND_OK(moray_get(boxed.inside, &inside, 20000));
        DEMAND_SAME(inside, i);
        DEMAND_OK(moray_release(refs[i]));
    }
    DEMAND_SAME(moray_take_as(int32_t, busy), 250);
}

/* Line 38 sees what is kept of the inputs, here and there. */
static void a_task_that_is_refused_keeps_no_inputs(void)
{
    static char bytes[MIB];
    moray_ref here = moray_put(bytes, sizeof(bytes)), slow = moray_call(nap, 100);
    moray_ref there = moray_call_with((.on_rank = 3), filled, (uint64_t)MIB, 1);

    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = 2), has_room, 0)), 0);
    for (int i = 0; i < 3; i++) {
        moray_ref a[] = {here, there, here}, b[] = {slow, here, there};
        moray_ref refused =
            moray_call_with((.on_rank = 2), weighs, a[i], moray_pass(b[i]), (odd){""});
        DEMAND_CODE(moray_get_bytes(refused, NULL, 0, 20000), MORAY_FULL);
        DEMAND_NAMES(moray_error(refused), "no room");
        DEMAND_OK(moray_release(refused));
    }
    DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = 2), has_room, 1)), 0);
    moray_ref taken = moray_call_with((.on_rank = 2), weighs, here, moray_pass(there), (odd){""});
    DEMAND_SAME(moray_take_as(int32_t, taken), MIB);
    DEMAND_OK(moray_release(here));
    DEMAND_OK(moray_release(there));
    DEMAND_SAME(moray_take_as(int32_t, slow), 100);
}

MORAY_TASK(int32_t, weighs_after, (int32_t, ms), (moray_view, a))
{
    law_sleep_ms(ms);
    return (int32_t)a.size;
}

/* The node's store takes a few of the inputs at a time: those behind them wait until some have gone. */
static void inputs_wait_for_room_that_tasks_will_free(void)
{
    enum { TASKS = 12, BYTES = 4 * MIB, LARGE = 30 * MIB };
    moray_ref inputs[TASKS], results[TASKS];
    moray_ref ballast = moray_call_with((.on_rank = 2), filled, (uint64_t)40 * MIB, 1);
    uint64_t begin;

    DEMAND_OK(moray_wait(&ballast, 1, 1, NULL, NULL, NULL, NULL, 0, 0));
    for (int i = 0; i < TASKS; i++) {
        moray_buffer buffer = moray_create(BYTES);
        DEMAND(buffer.data != NULL);
        inputs[i] = moray_seal(buffer);
    }
    for (int i = 0; i < TASKS; i++) {
        results[i] = moray_call_with((.on_rank = 2), weighs_after, 30, inputs[i]);
        DEMAND_OK(moray_release(inputs[i]));
    }
    for (int i = 0; i < TASKS; i++)
        DEMAND_SAME(moray_take_as(int32_t, results[i]), BYTES);
    /* where nobody will free any, it is an error soon */
    moray_buffer large = moray_create(LARGE);
    DEMAND(large.data != NULL);
    inputs[0] = moray_seal(large);
    begin = law_ms();
    results[0] = moray_call_with((.on_rank = 2), weighs_after, 0, inputs[0]);
    DEMAND_CODE(moray_get_bytes(results[0], NULL, 0, 20000), MORAY_UPSTREAM);
    DEMAND_NAMES(moray_error(results[0]), "no room");
    DEMAND(law_ms() - begin < 3000);
    DEMAND_OK(moray_release(results[0]));
    DEMAND_OK(moray_release(inputs[0]));
    DEMAND_OK(moray_release(ballast));
}

static void what_finds_no_cell_is_refused_or_waits(void)
{
    static char bytes[MIB];
    moray_ref here = moray_put(bytes, sizeof(bytes)), seven = moray_put_value(int32_t, 7);
    moray_ref results[3];
    scale_actor actor = moray_new_with((.on_rank = 2), scale);

    DEMAND_SAME(moray_take_as(int32_t, moray_call(scale_add, actor, 1)), 1);
    for (int32_t yes = 0; yes < 2; yes++) {
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = 2), has_cells, yes)), 0);
        results[0] = moray_call_with((.on_rank = 2), weighs_after, 0, here);
        results[1] = moray_call(scale_add, actor, 1);
        built_actor made = moray_new_with((.on_rank = 2), built, seven);
        results[2] = moray_call(built_value, made);
        for (int i = 0; i < 3; i++) {
            DEMAND_CODE(moray_get_bytes(results[i], NULL, 0, 10000), yes ? MORAY_OK : MORAY_FULL);
            DEMAND_NAMES(yes ? "MORAY_QUEUE_MAX" : moray_error(results[i]), "MORAY_QUEUE_MAX");
        }
        if (yes) {
            DEMAND_SAME(moray_get_as(int32_t, results[0]), MIB);
            DEMAND_SAME(moray_get_as(int32_t, results[1]), 2);
            DEMAND_SAME(moray_get_as(int32_t, results[2]), 7);
        }
        for (int i = 0; i < 3; i++)
            DEMAND_OK(moray_release(results[i]));
        DEMAND_OK(moray_actor_release(made));
    }
    DEMAND_SAME(
        moray_take_as(int32_t, moray_call_with((.cores = 0.5, .on_rank = 2), asks_without_cells)),
        1);
    DEMAND_OK(moray_release(seven));
    DEMAND_OK(moray_release(here));
    DEMAND_OK(moray_actor_release(actor));
}

static const struct law laws[] = {
    {"decision 34: a grant that must wait is given later", a_grant_that_must_wait_is_given_later,
     30},
    {"design 9: the bytes on their way have a bound", bytes_on_their_way_have_a_bound, 30},
    {"design 9: an object above the bound goes alone", an_object_above_the_bound_goes_alone, 30},
    {"decision 34: a read that is refused leaves nothing", a_read_that_is_refused_leaves_nothing,
     30},
    {"line 38: a result that moved twice keeps what it contains",
     a_result_that_moved_twice_keeps_what_it_contains, 30},
    {"decision 26: inputs wait for room that tasks will free",
     inputs_wait_for_room_that_tasks_will_free, 30},
    {"decision 26: what finds no cell is refused, or waits for one",
     what_finds_no_cell_is_refused_or_waits, 30},
    {"line 38: a task that is refused keeps no inputs", a_task_that_is_refused_keeps_no_inputs, 30},
};

int main(int argc, char **argv)
{
    agent_pid = getpid();
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
