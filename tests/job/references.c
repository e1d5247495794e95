/**
 * References and buffers in the hands of a process: decisions.md 8, 9 and 38 to 40.
 */
#include "objects.h"

MORAY_TASK(moray_buffer, overruns, (uint64_t, size), (uint64_t, by))
{
    moray_buffer buffer = moray_result(size);

    memset(buffer.data, 1, size);
    ((volatile char *)buffer.data)[size + by - 1] = 7;
    return buffer;
}

/* In a scope the method's own hold is let go; the one that was kept stays. */
MORAY_METHOD(int32_t, shelf, make)
{
    moray_ref made = moray_call(after, 0, 4);

    if (moray_keep(made) || moray_scope_begin() || moray_release(made) || moray_scope_end())
        return (int32_t)moray_last(NULL);
    self->kept = made;
    return MORAY_OK;
}
MORAY_METHOD(int32_t, shelf, value_kept)
{
    return moray_get_as(int32_t, self->kept);
}

MORAY_TASK(int32_t, misreads, (moray_future, f))
{
    return (int32_t)moray_get_as(double, f.ref);
}

MORAY_TASK(int32_t, hands_on, (moray_future, f))
{
    return moray_take_as(int32_t, moray_call(after, 0, f.ref));
}

MORAY_TASK(int32_t, holds_again, (moray_future, f))
{
    for (int i = 0; i < 3; i++)
        if (moray_release(f.ref) || moray_hold(f.ref))
            return -1;
    return moray_get_as(int32_t, f.ref);
}

/* Holds, releases and scopes in any order. A release takes the newest hold, in this scope or around it;
 * where there is none it is told. Returns how many steps went as they had to. */
MORAY_TASK(int32_t, holds_at_random, (moray_future, a), (moray_future, b), (int32_t, steps),
           (uint32_t, seed))
{
    enum { DEEPEST = 6 };
    int held[DEEPEST][2] = {{1, 1}}, depth = 0; /* each is handed with one */

    for (int32_t step = 0; step < steps; step++) {
        unsigned choice = (seed = seed * 1664525 + 1013904223) >> 24, which = choice % 2;
        moray_ref ref = which ? b.ref : a.ref;
        int at = depth;
        choice = choice / 2 % 16;
        if (choice == 0 && depth < DEEPEST - 1) {
            if (moray_scope_begin() != MORAY_OK)
                return step;
            depth++;
            held[depth][0] = held[depth][1] = 0;
        } else if (choice == 1 && depth) {
            if (moray_scope_end() != MORAY_OK)
                return step;
            depth--;
        } else if (choice < 8) {
            if (moray_hold(ref) != MORAY_OK)
                return step;
            held[depth][which]++;
        } else {
            while (at >= 0 && !held[at][which])
                at--;
            if (moray_release(ref) != (at < 0 ? MORAY_STALE : MORAY_OK))
                return step;
            if (at >= 0)
                held[at][which]--;
        }
    }
    while (depth--)
        moray_scope_end();
    return steps;
}

MORAY_TASK(uint64_t, hash_behind, (moray_future, f))
{
    moray_view view;
    uint64_t sum;

    if (moray_get_view(f.ref, &view, 0) != MORAY_OK)
        return 0;
    sum = hash(view.data, view.size);
    moray_view_release(&view);
    return sum;
}

/* ---- Decisions 8, 9, 38, 39, 40 ---- */

static void holds_are_counted(void)
{
    moray_ref ref = moray_put_value(int32_t, 3);

    DEMAND_OK(moray_hold(ref));
    DEMAND_OK(moray_release(ref));
    DEMAND_SAME(moray_get_as(int32_t, ref), 3);
    DEMAND_OK(moray_release(ref));
    DEMAND_CODE(moray_release(ref), MORAY_STALE);
    DEMAND_CODE(moray_hold(ref), MORAY_STALE);
    DEMAND_NAMES(last_story(), "released");
    for (int node = 0; node < node_count(); node++) { /* also while its task runs */
        ref = moray_call_with((.on_rank = on_node(node)), after, 100, 1);
        DEMAND_OK(moray_hold(ref));
        DEMAND_OK(moray_release(ref));
        DEMAND_OK(moray_release(ref));
        DEMAND_CODE(moray_hold(ref), MORAY_STALE);
        DEMAND_NAMES(last_story(), "released");
        moray_ref next = moray_call_with((.on_rank = on_node(node)), after, 50, 1);
        moray_ref waits = moray_call(after, 0, next);
        DEMAND_OK(moray_release(next));
        if (moray_hold(next) ==
            MORAY_OK) /* the call that waits for it has it, and it can be lent */
            DEMAND_OK(moray_release(next));
        DEMAND_SAME(moray_take_as(int32_t, waits), 1);
    }
}

static void holds_are_let_go_once_whatever_the_order(void)
{
    moray_ref a = moray_put_value(int32_t, 3), b = moray_put_value(int32_t, 4);

    for (int node = 0; node < node_count(); node++) {
        moray_ref there = moray_call_with((.on_rank = on_node(node)), holds_again, moray_pass(a));
        DEMAND_SAME(moray_take_as(int32_t, there), 3);
        for (uint32_t seed = 0; seed < 20; seed++) {
            int32_t steps = seed < 15 ? 200 : 6000;
            there = moray_call_with((.on_rank = on_node(node)), holds_at_random, moray_pass(a),
                                    moray_pass(b), steps, seed);
            DEMAND_SAME(moray_take_as(int32_t, there), steps);
        }
        shelf_actor actor = moray_new_with((.on_rank = on_node(node)), shelf);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_make, actor)), 0);
        law_sleep_ms(20);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_value_kept, actor)), 4);
        DEMAND_SAME(moray_take_as(int32_t, moray_call(shelf_forget, actor)), 0);
        DEMAND_OK(moray_actor_release(actor));
    }
    DEMAND_OK(moray_release(a));
    DEMAND_OK(moray_release(b));
}

static void a_scope_lets_go_at_its_end(void)
{
    moray_ref outer, inner, kept;

    DEMAND_CODE(moray_scope_end(), MORAY_WRONG_STATE);
    DEMAND_CODE(moray_keep(outer = moray_put_value(int32_t, 1)), MORAY_WRONG_STATE);
    DEMAND_OK(moray_release(outer));
    DEMAND_OK(moray_scope_begin());
    outer = moray_put_value(int32_t, 1);
    DEMAND_OK(moray_scope_begin());
    inner = moray_call(after, 0, 2);
    kept = moray_put_value(int32_t, 3);
    DEMAND_OK(moray_keep(kept));
    DEMAND_SAME(moray_take_as(int32_t, moray_call(after, 0, 9)), 9);
    DEMAND_OK(moray_scope_end());
    DEMAND(becomes_stale(inner));
    DEMAND_SAME(moray_get_as(int32_t, outer), 1);
    DEMAND_OK(moray_scope_end());
    DEMAND_CODE(moray_hold(outer), MORAY_STALE);
    DEMAND_SAME(moray_take_as(int32_t, kept), 3);
}

static void bytes_that_look_like_a_reference_keep_nothing(void)
{
    moray_ref ref = moray_put_value(int32_t, 3), bytes, copy;

    bytes = moray_put(&ref, sizeof(ref));
    DEMAND_OK(moray_release(ref));
    DEMAND_OK(moray_get(bytes, &copy, 0));
    DEMAND_CODE(moray_get_bytes(copy, NULL, 0, 0), MORAY_STALE);
    DEMAND_OK(moray_release(bytes));
    parcel boxed = {copy, 0};
    moray_ref there = moray_call(unwrap, boxed);
    DEMAND_CODE(moray_get_bytes(there, NULL, 0, 0), MORAY_STALE);
    DEMAND_OK(moray_release(there));
}

static void a_reference_knows_the_type_of_its_object(void)
{
    moray_ref number = moray_call(after, 0, 3);
    moray_ref wrong = moray_call(misreads, moray_pass(number));
    char bytes[64];

    DEMAND_CODE(moray_get_bytes(wrong, NULL, 0, 0), MORAY_WRONG_TYPE);
    DEMAND_NAMES(moray_error(wrong), "int32_t");
    DEMAND_NAMES(moray_error(wrong), "after");
    DEMAND_NAMES(moray_error(wrong), "references.c:");
    DEMAND_NAMES(moray_error(wrong), "double");
    DEMAND_OK(moray_release(wrong));
    /* as an argument: when it is resolved, or at the call if that can be seen there */
    moray_ref misused = moray_call(unwrap, number);
    if (misused.owner) {
        DEMAND_CODE(moray_get_bytes(misused, NULL, 0, 0), MORAY_WRONG_TYPE);
        DEMAND_OK(moray_release(misused));
    } else
        DEMAND_SAME(moray_last(NULL), MORAY_WRONG_TYPE);
    DEMAND_CODE(moray_get_bytes(number, bytes, 64, 0), MORAY_WRONG_TYPE);
    DEMAND_NAMES(last_story(), "4 bytes, not 64");
    DEMAND_OK(moray_release(number));
    /* bytes of no declared type stand for any type of their size */
    moray_ref untyped = moray_put("\1\0\0", 4);
    DEMAND_SAME(moray_take_as(int32_t, moray_call(after, 0, untyped)), 1);
    DEMAND_OK(moray_release(untyped));
    untyped = moray_put("\1\0\0", 3);
    misused = moray_call(after, 0, untyped);
    DEMAND_CODE(moray_get_bytes(misused, NULL, 0, 0), MORAY_WRONG_TYPE);
    DEMAND_OK(moray_release(misused));
    DEMAND_OK(moray_release(untyped));
}

static void a_reference_can_be_handed_on_unresolved(void)
{
    moray_ref slow = moray_call(after, 100, 6);
    moray_ref there = moray_call_with((.on_rank = on_node(0)), hands_on, moray_pass(slow));

    DEMAND_OK(moray_release(slow));
    DEMAND_SAME(moray_take_as(int32_t, there), 6);
}

static void an_object_is_an_input_in_both_ways_at_once(void)
{
    enum { TASKS = 8 };
    static unsigned char bytes[8 * MIB];

    for (int node = 0; node < node_count(); node++) {
        moray_ref read[TASKS], handed[TASKS];
        fill(bytes, sizeof(bytes), (uint32_t)node);
        moray_ref ref = moray_put(bytes, sizeof(bytes));
        for (int i = 0; i < TASKS; i++) { /* the first begins to fetch it for all */
            read[i] = moray_call_with((.on_rank = on_node(node)), hash_of, ref);
            handed[i] = moray_call_with((.on_rank = on_node(node)), hash_behind, moray_pass(ref));
        }
        DEMAND_OK(moray_release(ref));
        for (int i = 0; i < TASKS; i++) {
            DEMAND(moray_take_as(uint64_t, read[i]) == hash(bytes, sizeof(bytes)));
            DEMAND(moray_take_as(uint64_t, handed[i]) == hash(bytes, sizeof(bytes)));
        }
    }
}

static void a_write_past_the_end_is_noticed(void)
{
    /* behind a large buffer lies a page that cannot be written; a small one has a canary */
    moray_ref large = moray_call_with((.attempts = 1), overruns, (uint64_t)MIB, 1);
    moray_ref small = moray_call_with((.attempts = 1), overruns, (uint64_t)1000, 1);
    moray_ref odd = moray_call_with((.attempts = 1), overruns, (uint64_t)MIB + 5, 64);

    DEMAND_CODE(moray_get_bytes(large, NULL, 0, 0), MORAY_DIED);
    DEMAND_NAMES(moray_error(large), "SIGSEGV");
    DEMAND_CODE(moray_get_bytes(small, NULL, 0, 0), MORAY_INVALID);
    DEMAND_NAMES(moray_error(small), "overruns");
    DEMAND_NAMES(moray_error(small), "1000 bytes");
    DEMAND_CODE(moray_get_bytes(odd, NULL, 0, 0), MORAY_DIED);
    DEMAND_OK(moray_release(large));
    DEMAND_OK(moray_release(small));
    DEMAND_OK(moray_release(odd));
}

static void buffers_are_filled_in_place(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        moray_buffer buffer = moray_create(sizes[i]);
        DEMAND(buffer.data != NULL && (uintptr_t)buffer.data % 64 == 0);
        fill(buffer.data, sizes[i], (uint32_t)i);
        uint64_t sum = hash(buffer.data, sizes[i]);
        moray_ref ref = moray_seal(buffer);
        DEMAND(ref.owner != 0);
        DEMAND(moray_seal(buffer).owner == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_STALE);
        DEMAND(moray_take_as(uint64_t, moray_call(hash_of, ref)) == sum);
        DEMAND_OK(moray_release(ref));
        moray_buffer dropped = moray_create(sizes[i]);
        moray_drop(dropped);
        DEMAND(moray_seal(dropped).owner == 0);
    }
    moray_buffer outside = moray_result(8);
    DEMAND(outside.data == NULL);
    DEMAND_SAME(moray_last(NULL), MORAY_WRONG_STATE);
}

static const struct law laws[] = {
    {"decision 38: holds are counted", holds_are_counted, 10},
    {"decision 38: holds are let go once, whatever the order",
     holds_are_let_go_once_whatever_the_order, 30},
    {"decision 38: a scope lets go at its end", a_scope_lets_go_at_its_end, 10},
    {"decision 38: bytes that look like a reference keep nothing",
     bytes_that_look_like_a_reference_keep_nothing, 10},
    {"decision 39: a reference knows the type of its object",
     a_reference_knows_the_type_of_its_object, 10},
    {"decision 40: a reference can be handed on unresolved",
     a_reference_can_be_handed_on_unresolved, 10},
    {"decision 40: an object is read by one task and handed on to another at once",
     an_object_is_an_input_in_both_ways_at_once, 20},
    {"decision 9: a write past the end of a buffer is noticed", a_write_past_the_end_is_noticed,
     20},
    {"decision 8: buffers are filled in place", buffers_are_filled_in_place, 20},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
