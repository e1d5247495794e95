/**
 * How long objects live: semantics.md 38. Run with a store of 256 MiB (laws.sh).
 */
#include "objects.h"

MORAY_TASK(int32_t, first_of, (moray_view, first), (int32_t, second))
{
    return *(const int32_t *)first.data + second;
}

/* Ends badly, or gives back another buffer, with a buffer of its own unused. */
MORAY_TASK(moray_buffer, wastes, (uint64_t, size), (int32_t, how), (int32_t, bad))
{
    moray_buffer buffer = moray_result(size);

    switch (how) {
    case 0:
        moray_fail(MORAY_FAILED, "it was asked to fail");
        return buffer;
    case 1:
        return moray_result(8);
    case 2:
        moray_get_as(int32_t, moray_call(after_failing, 0));
        return buffer;
    default:
        return (moray_buffer){(void *)buffer.data, bad, buffer.place + 1};
    }
}

MORAY_ACTOR(summary, (uint64_t, sum), (moray_ref, handed));
MORAY_CONSTRUCTOR(summary, (moray_view, bytes), (int32_t, plus), (moray_future, handed))
{
    self->sum = hash(bytes.data, bytes.size) + (uint64_t)plus;
    self->handed = handed.ref;
    moray_keep(handed.ref);
}
MORAY_METHOD(uint64_t, summary, sum)
{
    return self->sum + moray_get_as(uint64_t, self->handed);
}

MORAY_TASK(parcel, rewrap, (parcel, p))
{
    return p;
}

MORAY_ACTOR(opened, (uint64_t, sum));
MORAY_CONSTRUCTOR(opened, (int32_t, slow), (parcel, p))
{
    moray_view view;

    (void)slow;
    if (moray_get_view(p.inside, &view, 0) != MORAY_OK) {
        moray_fail(MORAY_STALE, "what the parcel contains is not there");
        return;
    }
    self->sum = hash(view.data, view.size);
    moray_view_release(&view);
}
MORAY_METHOD(uint64_t, opened, sum)
{
    return self->sum;
}

MORAY_TASK(uint64_t, unwrap_after, (int32_t, slow), (parcel, p))
{
    moray_view view;
    uint64_t sum;

    if (moray_get_view(p.inside, &view, 0) != MORAY_OK) {
        moray_fail(moray_last(NULL), "after %d: %s", slow, last_story());
        return 0;
    }
    sum = hash(view.data, view.size);
    moray_view_release(&view);
    return sum;
}
MORAY_METHOD(uint64_t, shelf, hash_inside, (int32_t, slow), (parcel, p))
{
    moray_view view;
    uint64_t sum = (uint64_t)slow;

    if (moray_get_view(p.inside, &view, 0) != MORAY_OK)
        return 0;
    sum = hash(view.data, view.size);
    moray_view_release(&view);
    return sum;
}

/* Gives back the bare reference to what it made. */
MORAY_TASK(moray_future, makes, (uint64_t, size), (uint32_t, seed))
{
    moray_buffer buffer = moray_create(size);

    fill(buffer.data, size, seed);
    return moray_pass(moray_seal(buffer));
}

/* A reference that leads nowhere is used while another one, which may have its index, is waited for. */
MORAY_TASK(int32_t, survives_stale, (moray_future, live), (parcel, stale))
{
    int32_t value = -1;

    if (moray_get_bytes(stale.inside, NULL, 0, 5000) != MORAY_STALE)
        return -2;
    return moray_get(live.ref, &value, 5000) == MORAY_OK ? value : -3;
}

/* Lets its hold on what it was handed go twice, while a task of its own waits with it. */
MORAY_TASK(int32_t, releases_twice, (moray_future, f))
{
    moray_ref slow = moray_call(after, 100, 1), pending = moray_call(first_of, f.ref, slow);

    if (moray_release(f.ref) != MORAY_OK)
        return -1;
    if (moray_release(f.ref) != MORAY_STALE)
        return -2;
    return moray_take_as(int32_t, pending);
}

/* ---- 38 ---- */

enum { HELD_BYTES = 16 * MIB };

static void a_pending_task_keeps_its_inputs(void)
{
    uint64_t before = free_bytes(), sum;
    moray_ref ref = put_filled(HELD_BYTES, 5, &sum), slow = moray_call(after, 300, 1);
    moray_ref pending = moray_call(first_of, ref, slow), hashed = moray_call(hash_of, ref);
    int32_t first;
    moray_view view;

    DEMAND_OK(moray_get_view(ref, &view, 0));
    memcpy(&first, view.data, sizeof(first));
    moray_view_release(&view);
    DEMAND_OK(moray_release(ref));
    DEMAND_OK(moray_release(slow));
    DEMAND(moray_take_as(uint64_t, hashed) == sum);
    DEMAND_SAME(moray_take_as(int32_t, pending), (int32_t)((uint32_t)first + 1));
    DEMAND(becomes_free(before - MIB));
}

static void a_second_release_takes_nothing_from_a_view(void)
{
    for (int node = -1; node < node_count(); node++) {
        moray_ref ref = node < 0 ? moray_put_value(int32_t, 7)
                                 : moray_call_with((.on_rank = on_node(node)), after, 0, 7);
        moray_view view, other;
        int32_t value;

        DEMAND_OK(moray_get_view(ref, &view, 0));
        DEMAND_OK(moray_get_view(ref, &other, 0));
        DEMAND_OK(moray_release(ref));
        DEMAND_CODE(moray_release(ref), MORAY_STALE);
        DEMAND_CODE(moray_release(view.ref), MORAY_STALE);
        DEMAND_OK(moray_release(moray_put_value(int32_t, 9))); /* where it lay, if it went */
        memcpy(&value, view.data, sizeof(value));
        DEMAND_SAME(value, 7);
        moray_view_release(&other);
        DEMAND_CODE(moray_release(view.ref), MORAY_STALE);
        memcpy(&value, view.data, sizeof(value));
        DEMAND_SAME(value, 7);
        moray_view_release(&view);
    }
}

static void a_second_release_takes_nothing_from_a_task(void)
{
    moray_ref ref = moray_put_value(int32_t, 5), slow = moray_call(after, 200, 1), next;
    moray_ref pending = moray_call(first_of, ref, slow), again;

    DEMAND_OK(moray_release(ref));
    DEMAND_CODE(moray_release(ref), MORAY_STALE);
    DEMAND_NAMES(last_story(), "released");
    next = moray_put_value(int32_t, 9);
    DEMAND_SAME(moray_take_as(int32_t, pending), 6);
    /* a hold of one's own beside that of the task is one, and as good as ever */
    pending = moray_call(first_of, next, slow);
    again = moray_call(first_of, next, slow);
    DEMAND_OK(moray_hold(next));
    DEMAND_OK(moray_release(next));
    DEMAND_OK(moray_release(next));
    DEMAND_CODE(moray_release(next), MORAY_STALE);
    DEMAND_SAME(moray_take_as(int32_t, pending), 10);
    DEMAND_SAME(moray_take_as(int32_t, again), 10);
    DEMAND_OK(moray_release(slow));
    for (int node = 0; node < node_count(); node++) {
        ref = moray_put_value(int32_t, 5);
        moray_ref there =
            moray_call_with((.on_rank = on_node(node)), releases_twice, moray_pass(ref));
        DEMAND_SAME(moray_take_as(int32_t, there), 6);
        DEMAND_OK(moray_release(ref));
    }
}

/* What is released while its task runs may be gone when the task ends: who waits for it then gets the
 * value or is told so, and does not wait for ever. */
static void who_waits_for_what_it_let_go_goes_on(void)
{
    int32_t value = 7;

    for (int node = 0; node < node_count(); node++)
        for (int way = 0; way < 4; way++) {
            moray_ref two[2] = {
                moray_put_value(int32_t, 7),
                moray_call_with((.on_rank = on_node(node)), after, 200, 7),
            };
            moray_view views[2] = {{0}};
            enum moray_code code = MORAY_OK;
            DEMAND_OK(moray_release(two[1]));
            if (way == 0)
                code = moray_get(two[1], &value, 5000);
            else if (way == 1)
                code = moray_get_view(two[1], views, 5000);
            else if (way == 2)
                code = moray_get_many(two, 2, views, 5000);
            else
                code = moray_wait(two, 2, 2, NULL, NULL, NULL, NULL, 5000, 0);
            DEMAND_SAME(value, 7);
            moray_view_release(&views[0]);
            moray_view_release(&views[1]);
            DEMAND_OK(moray_release(two[0]));
            if (code != MORAY_OK) {
                DEMAND_CODE(code, MORAY_STALE);
                DEMAND_NAMES(last_story(), "released");
            }
        }
}

static void a_view_keeps_its_object(void)
{
    uint64_t before = free_bytes(), sum;
    moray_ref ref = put_filled(HELD_BYTES, 6, &sum);
    moray_view view;

    DEMAND_OK(moray_get_view(ref, &view, 0));
    DEMAND_OK(moray_release(ref));
    law_sleep_ms(50);
    DEMAND(free_bytes() + HELD_BYTES <= before + MIB);
    DEMAND(hash(view.data, view.size) == sum);
    moray_view_release(&view);
    DEMAND(becomes_free(before - MIB));
}

/* The inside of `outer`, held by nobody else, is there on every node, and goes with it. */
static void is_kept_by(moray_ref outer, uint64_t sum, uint64_t free_before)
{
    law_sleep_ms(50);
    for (int node = 0; node < node_count(); node++) {
        moray_ref there = moray_call_with((.on_rank = on_node(node)), unwrap, outer);
        DEMAND(moray_take_as(uint64_t, there) == sum);
    }
    DEMAND_OK(moray_release(outer));
    DEMAND(becomes_free(free_before - MIB));
}

static void an_object_keeps_what_it_contains(void)
{
    uint64_t before = free_bytes(), sum;
    moray_ref inner = put_filled(HELD_BYTES, 7, &sum);
    parcel boxed = {inner, 3};
    moray_ref outer = moray_put_refs(&boxed, sizeof(boxed), &inner, 1);

    DEMAND(outer.owner != 0);
    DEMAND_OK(moray_release(inner));
    is_kept_by(outer, sum, before);
}

static void a_result_keeps_what_it_contains(void)
{
    uint64_t before = free_bytes();
    char *want = malloc(HELD_BYTES);

    fill(want, HELD_BYTES, 8);
    uint64_t sum = hash(want, HELD_BYTES);
    free(want);
    for (int node = 0; node < node_count(); node++) {
        moray_ref outer =
            moray_call_with((.on_rank = on_node(node)), wrap, (uint64_t)HELD_BYTES, 8);
        DEMAND_OK(moray_get_bytes(outer, NULL, 0, 0));
        law_sleep_ms(50);
        moray_ref there = moray_call_with((.on_rank = on_node(node + 1)), unwrap, outer);
        DEMAND(moray_take_as(uint64_t, there) == sum);
        /* the driver may use what is inside as long as it holds what is around */
        parcel boxed;
        moray_view view;
        DEMAND_OK(moray_get(outer, &boxed, 0));
        DEMAND_OK(moray_get_view(boxed.inside, &view, 0));
        DEMAND(hash(view.data, view.size) == sum);
        moray_view_release(&view);
        DEMAND_OK(moray_release(outer));
    }
    DEMAND(becomes_free(before - MIB));
}

/* The call ends, and with it what its argument held: by then the owner knows that the result has it. */
static void what_is_inside_is_never_held_by_nobody_on_its_way(void)
{
    char want[1000];

    fill(want, sizeof(want), 8);
    uint64_t sum = hash(want, sizeof(want));
    for (int i = 0; i < 100; i++) {
        moray_ref outer = moray_call_with((.on_rank = on_node(i)), wrap, (uint64_t)sizeof(want), 8);
        parcel boxed = moray_get_as(parcel, outer);
        moray_ref moved = moray_call_with((.on_rank = on_node(i + 1)), rewrap, boxed);
        DEMAND_OK(moray_release(outer));
        DEMAND_OK(moray_get_bytes(moved, NULL, 0, 0));
        moray_ref there = moray_call_with((.on_rank = on_node(i + 2)), unwrap, moved);
        DEMAND_OK(moray_release(moved));
        DEMAND(moray_take_as(uint64_t, there) == sum);
    }
}

static void a_reference_returned_bare_is_kept(void)
{
    uint64_t before = free_bytes();
    char *want = malloc(HELD_BYTES);

    fill(want, HELD_BYTES, 8);
    for (int node = 0; node < node_count(); node++) {
        moray_ref outer =
            moray_call_with((.on_rank = on_node(node)), makes, (uint64_t)HELD_BYTES, 8);
        moray_future made;
        moray_view view;
        DEMAND_OK(moray_get(outer, &made, 0));
        law_sleep_ms(50);
        DEMAND_OK(moray_get_view(made.ref, &view, 0));
        DEMAND_SAME(view.size, HELD_BYTES);
        DEMAND(memcmp(view.data, want, HELD_BYTES) == 0);
        moray_view_release(&view);
        DEMAND_OK(moray_release(outer));
    }
    free(want);
    DEMAND(becomes_free(before - MIB));
}

MORAY_TASK(int32_t, takes_bare, (moray_future, outer))
{
    moray_future inner = moray_get_as(moray_future, outer.ref);
    int32_t value = moray_get_as(int32_t, inner.ref);
    moray_ref again = moray_put_value(moray_future, inner);

    inner = moray_take_as(moray_future, again);
    return value + moray_take_as(int32_t, inner.ref);
}

static void a_reference_put_bare_is_kept(void)
{
    uint64_t before = free_bytes(), sum;
    moray_ref big = put_filled(HELD_BYTES, 7, &sum);
    moray_ref outer = moray_put_value(moray_future, moray_pass(big));
    moray_view view;

    DEMAND_OK(moray_release(big));
    law_sleep_ms(50);
    moray_future inner = moray_take_as(moray_future, outer); /* with a hold */
    law_sleep_ms(50);
    DEMAND_OK(moray_get_view(inner.ref, &view, 0));
    DEMAND(hash(view.data, view.size) == sum);
    moray_view_release(&view);
    DEMAND_OK(moray_release(inner.ref));
    DEMAND(becomes_free(before - MIB));
    for (int node = 0; node < node_count(); node++) {
        moray_ref small = moray_call_with((.on_rank = on_node(node)), after, 0, 21);
        outer = moray_put_value(moray_future, moray_pass(small));
        DEMAND_OK(moray_release(small));
        moray_ref there =
            moray_call_with((.on_rank = on_node(node + 1)), takes_bare, moray_pass(outer));
        DEMAND_OK(moray_release(outer));
        DEMAND_SAME(moray_take_as(int32_t, there), 42);
    }
}

static void a_put_value_keeps_what_it_contains(void)
{
    uint64_t before = free_bytes(), sum;
    moray_ref inner = put_filled(HELD_BYTES, 7, &sum);
    parcel boxed = {inner, 3}, empty = {{0, 0, 0, 0}, 0};
    moray_ref outer = moray_put_value(parcel, boxed), none = moray_put_value(parcel, empty);

    DEMAND(outer.owner != 0 && none.owner != 0);
    DEMAND_OK(moray_release(none));
    DEMAND_OK(moray_release(inner));
    is_kept_by(outer, sum, before);
}

static void a_pending_call_keeps_what_its_values_contain(void)
{
    uint64_t before = free_bytes(), sum;

    for (int node = 0; node < node_count(); node++) {
        shelf_actor actor = moray_new_with((.on_rank = on_node(node)), shelf);
        moray_ref slow = moray_call(after, 200, 1), inner = put_filled(HELD_BYTES, 7, &sum);
        parcel boxed = {inner, 3};
        moray_ref task = moray_call_with((.on_rank = on_node(node)), unwrap_after, slow, boxed);
        moray_ref method = moray_call(shelf_hash_inside, actor, slow, boxed);
        DEMAND_OK(moray_release(inner));
        DEMAND_OK(moray_release(slow));
        DEMAND(moray_get_as(uint64_t, task) == sum);
        DEMAND(moray_get_as(uint64_t, method) == sum);
        /* and no longer, though the results be held */
        DEMAND(becomes_free(before - MIB));
        DEMAND_OK(moray_release(task));
        DEMAND_OK(moray_release(method));
        DEMAND_OK(moray_actor_release(actor));
    }
}

MORAY_TASK(int32_t, puts_until_it_dies, (parcel, p), (int32_t, us))
{
    if (!law_dies_after(&us))
        return 0;
    for (;;) {
        moray_release(moray_put_value(parcel, p));
        moray_release(moray_put_refs("x", 1, &p.inside, 1));
    }
}

static void a_value_that_was_being_put_leaves_nothing(void)
{
    uint64_t before = free_bytes(), sum;

    for (int i = 0; i < 40; i++) {
        moray_ref inner = put_filled(HELD_BYTES, 7, &sum);
        parcel boxed = {inner, 3};
        moray_ref dies = moray_call_with((.attempts = 1, .on_rank = on_node(i)), puts_until_it_dies,
                                         boxed, 200 + i * 37);
        DEMAND_CODE(moray_get_bytes(dies, NULL, 0, 10000), MORAY_DIED);
        DEMAND_OK(moray_release(dies));
        DEMAND_OK(moray_release(inner));
        DEMAND(becomes_free(before - MIB));
    }
}

static void a_constructor_keeps_what_its_values_contain(void)
{
    uint64_t before = free_bytes(), sum;

    for (int node = 0; node < node_count(); node++)
        for (int restarts = 0; restarts < 2; restarts++) {
            moray_ref slow = moray_call(after, 200, 1), inner = put_filled(HELD_BYTES, 7, &sum);
            parcel boxed = {inner, 3};
            opened_actor actor = moray_new_with((.on_rank = on_node(node), .restarts = restarts),
                                                opened, slow, boxed);
            DEMAND_OK(moray_release(inner));
            DEMAND_OK(moray_release(slow));
            DEMAND(moray_take_as(uint64_t, moray_call(opened_sum, actor)) == sum);
            if (restarts) {
                DEMAND_OK(moray_kill(actor, 1));
                law_sleep_ms(100);
                DEMAND(moray_take_as(uint64_t, moray_call(opened_sum, actor)) == sum);
            } else /* it is never needed again */
                DEMAND(becomes_free(before - MIB));
            DEMAND_OK(moray_actor_release(actor));
        }
    DEMAND(becomes_free(before - MIB));
}

/* Also for the next process of an actor that restarts. */
static void a_constructor_keeps_its_arguments(void)
{
    uint64_t before = free_bytes(), sum;

    for (int node = 0; node < node_count(); node++) {
        moray_ref bytes = put_filled(100000, 11, &sum), plus = moray_call(after, 100, 3);
        moray_ref handed = moray_put_value(uint64_t, 7);
        summary_actor actor = moray_new_with((.on_rank = on_node(node), .restarts = 1), summary,
                                             bytes, plus, moray_pass(handed));
        DEMAND_OK(moray_release(bytes));
        DEMAND_OK(moray_release(plus));
        DEMAND_OK(moray_release(handed));
        DEMAND(moray_take_as(uint64_t, moray_call(summary_sum, actor)) == sum + 10);
        DEMAND_OK(moray_kill(actor, 1));
        law_sleep_ms(100);
        DEMAND(moray_take_as(uint64_t, moray_call(summary_sum, actor)) == sum + 10);
        DEMAND_OK(moray_actor_release(actor));
    }
    for (int i = 0; i < 2; i++) { /* the second never starts: there is one of that name */
        moray_ref bytes = put_filled(HELD_BYTES, 12, &sum), handed = moray_put_value(uint64_t, 7);
        summary_actor actor = moray_new_with((.name = "summary", .get_if_exists = 1), summary,
                                             bytes, 3, moray_pass(handed));
        DEMAND_OK(moray_release(bytes));
        DEMAND_OK(moray_release(handed));
        moray_ref there = moray_call(summary_sum, actor);
        DEMAND_OK(moray_get_bytes(there, NULL, 0, 0));
        DEMAND_OK(moray_release(there));
        if (i == 1)
            DEMAND_OK(moray_kill(actor, 0));
    }
    DEMAND(becomes_free(before - MIB));
}

static void a_result_that_fails_leaves_nothing(void)
{
    enum { TIMES = 12, WASTED = 32 * MIB }; /* more than the store has */

    for (int node = 0; node < node_count(); node++)
        for (int i = 0; i < TIMES; i++)
            for (int how = 0; how < 4; how++) {
                static const enum moray_code want[] = {MORAY_FAILED, MORAY_OK, MORAY_FAILED,
                                                       MORAY_INVALID};
                uint64_t size = how == 3 ? 1000 : WASTED;
                moray_ref ref = moray_call_with((.on_rank = on_node(node)), wastes, size, how, 8);
                DEMAND_CODE(moray_get_bytes(ref, NULL, 0, 0), want[how]);
                DEMAND_OK(moray_release(ref));
            }
}

static void a_stale_reference_harms_no_live_one(void)
{
    for (int node = 0; node < node_count(); node++) {
        moray_ref stale = moray_call(after, 0, 1), live;
        DEMAND_SAME(moray_get_as(int32_t, stale), 1);
        DEMAND_OK(moray_release(stale));
        becomes_stale(stale);
        live = moray_call(after, 150, 7);
        for (int i = 0; i < 20 && live.index != stale.index; i++) {
            DEMAND_OK(moray_release(live));
            live = moray_call(after, 150, 7);
        }
        parcel boxed = {stale, 0};
        moray_ref there =
            moray_call_with((.on_rank = on_node(node)), survives_stale, moray_pass(live), boxed);
        DEMAND_SAME(moray_take_as(int32_t, there), 7);
        DEMAND_OK(moray_release(live));
    }
}

static void an_actors_state_keeps_what_it_was_told_to(void)
{
    uint64_t before = free_bytes(), sum;
    for (int node = 0; node < node_count(); node++) {
        shelf_actor actor = moray_new_with((.on_rank = on_node(node)), shelf);
        moray_ref ref = put_filled(HELD_BYTES, 9, &sum);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_store, actor, moray_pass(ref))), 0);
        DEMAND_OK(moray_release(ref));
        law_sleep_ms(50);
        DEMAND(moray_take_as(uint64_t, moray_call(shelf_hash_kept, actor)) == sum);
        DEMAND(free_bytes() + HELD_BYTES <= before + MIB);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_forget, actor)), 0);
        DEMAND(becomes_free(before - MIB));
        /* and what it did not let go ends with it */
        ref = put_filled(HELD_BYTES, 9, &sum);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_store, actor, moray_pass(ref))), 0);
        DEMAND_OK(moray_release(ref));
        DEMAND_OK(moray_actor_release(actor));
        DEMAND(becomes_free(before - MIB));
    }
}

static const struct law laws[] = {
    {"line 38: a pending task keeps its inputs", a_pending_task_keeps_its_inputs, 10},
    {"line 38: a second release takes nothing from an open view",
     a_second_release_takes_nothing_from_a_view, 10},
    {"line 38: a second release takes nothing from a pending task",
     a_second_release_takes_nothing_from_a_task, 10},
    {"line 38: a view keeps its object", a_view_keeps_its_object, 10},
    {"line 38: an object keeps what it contains", an_object_keeps_what_it_contains, 20},
    {"line 38: a result keeps what it contains", a_result_keeps_what_it_contains, 20},
    {"line 38: what is inside is never held by nobody on its way",
     what_is_inside_is_never_held_by_nobody_on_its_way, 30},
    {"line 38: a reference returned bare is kept", a_reference_returned_bare_is_kept, 20},
    {"line 38: a reference put bare is kept", a_reference_put_bare_is_kept, 20},
    {"line 38: a value that is put keeps what it contains", a_put_value_keeps_what_it_contains, 20},
    {"line 38: a value that was being put when its process died leaves nothing",
     a_value_that_was_being_put_leaves_nothing, 60},
    {"line 38: a pending call keeps what its values contain",
     a_pending_call_keeps_what_its_values_contain, 20},
    {"line 38: a constructor keeps its arguments", a_constructor_keeps_its_arguments, 30},
    {"line 38: a constructor keeps what its values contain",
     a_constructor_keeps_what_its_values_contain, 30},
    {"line 38: a result that fails leaves nothing", a_result_that_fails_leaves_nothing, 30},
    {"line 38: who waits for what it let go goes on", who_waits_for_what_it_let_go_goes_on, 30},
    {"line 38: a stale reference harms no live one", a_stale_reference_harms_no_live_one, 30},
    {"line 38: an actor's state keeps what it was told to",
     an_actors_state_keeps_what_it_was_told_to, 20},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
