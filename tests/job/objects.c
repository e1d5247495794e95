/**
 * Objects: semantics.md 1 to 11 and 38, decisions.md 38 to 40. Run with a store of 256 MiB (laws.sh).
 * How much of the driver's arena is free is read from the story of a put that cannot fit.
 */
#include "law.h"

enum { MIB = 1 << 20 };

static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *byte = data;
    uint64_t sum = 0xcbf29ce484222325;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ byte[i]) * 0x100000001b3;
    return sum;
}

static void fill(void *data, size_t size, uint32_t seed)
{
    unsigned char *byte = data;

    for (size_t i = 0; i < size; i++)
        byte[i] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
}

MORAY_TASK(uint64_t, hash_of, (moray_view, v))
{
    return hash(v.data, v.size);
}

MORAY_TASK(moray_buffer, filled, (uint64_t, size), (uint32_t, seed))
{
    moray_buffer buffer = moray_result(size);

    if (buffer.data)
        fill(buffer.data, size, seed);
    return buffer;
}

MORAY_TASK(moray_buffer, filled_after, (int32_t, ms), (uint64_t, size), (uint32_t, seed))
{
    law_sleep_ms(ms);
    moray_buffer buffer = moray_result(size);

    if (buffer.data)
        fill(buffer.data, size, seed);
    return buffer;
}

MORAY_TASK(int32_t, after, (int32_t, ms), (int32_t, value))
{
    law_sleep_ms(ms);
    return value;
}

MORAY_TASK(int32_t, after_failing, (int32_t, ms))
{
    law_sleep_ms(ms);
    moray_fail(MORAY_FAILED, "it was asked to fail");
    return 0;
}

MORAY_TASK(uint64_t, address_of, (moray_view, v))
{
    return (uint64_t)(uintptr_t)v.data;
}

MORAY_TASK(int32_t, writes_through, (moray_view, v))
{
    *(volatile char *)(uintptr_t)v.data = 'x';
    return 0;
}

MORAY_TASK(int32_t, first_of, (moray_view, first), (int32_t, second))
{
    return *(const int32_t *)first.data + second;
}

MORAY_TASK(moray_buffer, overruns, (uint64_t, size), (uint64_t, by))
{
    moray_buffer buffer = moray_result(size);

    memset(buffer.data, 1, size);
    ((volatile char *)buffer.data)[size + by - 1] = 7;
    return buffer;
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

/* Stops this node's agent for a while, from a process that does without it. */
MORAY_TASK(int32_t, stall, (int32_t, ms))
{
    char path[64], text[512];
    int zygote = getppid(), rank = 0;

    snprintf(path, sizeof(path), "/proc/%d/stat", zygote);
    FILE *stat = fopen(path, "r");
    if (!stat)
        return -1;
    if (fgets(text, sizeof(text), stat) && strrchr(text, ')'))
        sscanf(strrchr(text, ')') + 1, " %*c %d", &rank);
    fclose(stat);
    if (rank < 2 || kill(rank, SIGSTOP) != 0)
        return -1;
    law_sleep_ms(ms);
    return kill(rank, SIGCONT);
}

MORAY_ACTOR(shelf, (moray_ref, kept));
MORAY_METHOD(int32_t, shelf, store, (moray_future, what))
{
    self->kept = what.ref;
    return (int32_t)moray_keep(what.ref);
}
MORAY_METHOD(uint64_t, shelf, hash_kept)
{
    moray_view view;
    uint64_t sum = 0;

    if (moray_get_view(self->kept, &view, 0) == MORAY_OK) {
        sum = hash(view.data, view.size);
        moray_view_release(&view);
    }
    return sum;
}
MORAY_METHOD(int32_t, shelf, forget)
{
    return (int32_t)moray_release(self->kept);
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

typedef struct {
    moray_ref inside;
    int64_t number;
} parcel;
MORAY_REFS(parcel, inside);

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

MORAY_TASK(parcel, wrap, (uint64_t, size), (uint32_t, seed))
{
    moray_buffer buffer = moray_create(size);

    fill(buffer.data, size, seed);
    return (parcel){moray_seal(buffer), (int64_t)seed};
}

MORAY_TASK(parcel, rewrap, (parcel, p))
{
    return p;
}

MORAY_TASK(uint64_t, unwrap, (parcel, p))
{
    moray_view view;
    uint64_t sum;

    if (moray_get_view(p.inside, &view, 0) != MORAY_OK) {
        moray_fail(moray_last(NULL), "%s", last_story());
        return 0;
    }
    sum = hash(view.data, view.size);
    moray_view_release(&view);
    return sum;
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

MORAY_TASK(int32_t, misreads, (moray_future, f))
{
    return (int32_t)moray_get_as(double, f.ref);
}

MORAY_TASK(int32_t, hands_on, (moray_future, f))
{
    return moray_take_as(int32_t, moray_call(after, 0, f.ref));
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

typedef struct {
    char text[64];
} name;

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

MORAY_TASK(name, host_name)
{
    name host = {""};

    gethostname(host.text, sizeof(host.text) - 1);
    return host;
}

/* Whether the node's bytes must be fetched: it is on another host, or nothing may be shared. */
static bool is_apart(int node)
{
    const char *share = getenv("MORAY_SHARE");
    name here = {""}, there;

    if (moray_ranks() == 1)
        return false;
    if (share && !strcmp(share, "0"))
        return true;
    gethostname(here.text, sizeof(here.text) - 1);
    there = moray_take_as(name, moray_call_with((.on_rank = on_node(node)), host_name));
    return strcmp(here.text, there.text) != 0;
}

/* ---- Measuring ---- */

/* Bytes that the driver's arena has free. */
static uint64_t free_bytes(void)
{
    char byte = 0;
    moray_ref none = moray_put(&byte, (size_t)1 << 46);
    const char *rank = strstr(last_story(), "store of rank ");

    DEMAND(none.owner == 0);
    DEMAND(rank != NULL);
    return strtoull(strchr(rank, ':') + 1, NULL, 10);
}

static bool becomes_free(uint64_t at_least)
{
    uint64_t until = law_ms() + 3000;

    while (law_ms() < until) {
        if (free_bytes() >= at_least)
            return true;
        law_sleep_ms(10);
    }
    return free_bytes() >= at_least;
}

/* Nobody holds it: it goes as soon as those that were telling its end are done. */
static bool becomes_stale(moray_ref ref)
{
    enum moray_code code;

    for (uint64_t until = law_ms() + 3000;; law_sleep_ms(1)) {
        code = moray_get_bytes(ref, NULL, 0, MORAY_NOW);
        if (code == MORAY_STALE || law_ms() > until)
            break;
    }
    DEMAND_CODE(moray_hold(ref), MORAY_STALE);
    return code == MORAY_STALE;
}

static moray_ref put_filled(size_t size, uint32_t seed, uint64_t *sum)
{
    char *data = malloc(size ? size : 1);

    fill(data, size, seed);
    *sum = hash(data, size);
    moray_ref ref = moray_put(data, size);
    free(data);
    return ref;
}

/* ---- 1, 2 ---- */

static const size_t sizes[] = {0,     1,       7,    8,       9,       63,      64,
                               65,    1000,    4095, 4096,    4097,    65535,   65536,
                               65537, MIB - 1, MIB,  MIB + 1, 3 * MIB, 24 * MIB};

static void gets_give_what_was_put(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        uint64_t sum;
        moray_view view;
        moray_ref ref = put_filled(sizes[i], (uint32_t)i, &sum);
        DEMAND(ref.owner != 0);
        DEMAND_OK(moray_get_view(ref, &view, 0));
        DEMAND_SAME(view.size, sizes[i]);
        DEMAND(hash(view.data, view.size) == sum);
        moray_view_release(&view);
        char *copy = malloc(sizes[i] + 1);
        DEMAND_OK(moray_get_bytes(ref, copy, sizes[i], 0));
        DEMAND(hash(copy, sizes[i]) == sum);
        free(copy);
        for (int node = 0; node < node_count(); node++) {
            moray_ref there = moray_call_with((.on_rank = on_node(node)), hash_of, ref);
            DEMAND(moray_take_as(uint64_t, there) == sum);
        }
        DEMAND_OK(moray_release(ref));
    }
}

static void gets_of_results_made_on_any_rank(void)
{
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (int node = 0; node < node_count(); node++) {
            uint32_t seed = (uint32_t)(100 * node + (int)i);
            char *want = malloc(sizes[i] + 1);
            fill(want, sizes[i], seed);
            moray_view view;
            moray_ref ref =
                moray_call_with((.on_rank = on_node(node)), filled, (uint64_t)sizes[i], seed);
            DEMAND_OK(moray_get_view(ref, &view, 0));
            DEMAND_SAME(view.size, sizes[i]);
            DEMAND(memcmp(view.data, want, sizes[i]) == 0);
            moray_view_release(&view);
            /* and read on every other node */
            uint64_t sum = hash(want, sizes[i]);
            for (int other = 0; other < node_count(); other++) {
                moray_ref there = moray_call_with((.on_rank = on_node(other)), hash_of, ref);
                DEMAND(moray_take_as(uint64_t, there) == sum);
            }
            DEMAND_OK(moray_release(ref));
            free(want);
        }
}

static void values_come_in_the_order_of_references(void)
{
    moray_ref refs[10];
    moray_view views[10];

    for (int i = 0; i < 10; i++)
        refs[i] = moray_call(after, 5 * (10 - i), i);
    DEMAND_OK(moray_get_many(refs, 10, views, 0));
    for (int i = 0; i < 10; i++) {
        DEMAND_SAME(*(const int32_t *)views[i].data, i);
        moray_view_release(&views[i]);
        DEMAND_OK(moray_release(refs[i]));
    }
    DEMAND_OK(moray_get_many(NULL, 0, NULL, 0));
}

/* ---- 3, 4 ---- */

static void limits_pass_and_the_reference_serves_later(void)
{
    moray_ref slow = moray_call(after, 400, 5);
    int32_t value = 0;
    moray_view view;
    uint64_t begin = law_ms();

    DEMAND_CODE(moray_get(slow, &value, MORAY_NOW), MORAY_TIMEOUT);
    DEMAND_CODE(moray_get(slow, &value, 30), MORAY_TIMEOUT);
    DEMAND_CODE(moray_get_view(slow, &view, 30), MORAY_TIMEOUT);
    DEMAND(view.data == NULL);
    DEMAND_CODE(moray_get_many(&slow, 1, &view, 30), MORAY_TIMEOUT);
    DEMAND(view.data == NULL);
    DEMAND(law_ms() - begin >= 90 && law_ms() - begin < 350);
    DEMAND_CODE(moray_get(slow, &value, -5), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "MORAY_NOW");
    DEMAND_CODE(moray_get_many(&slow, 1, &view, -5), MORAY_INVALID);
    DEMAND_OK(moray_get(slow, &value, 5000));
    DEMAND_SAME(value, 5);
    DEMAND_OK(moray_get(slow, &value, MORAY_NOW));
    DEMAND_CODE(moray_get(slow, &value, -5), MORAY_INVALID);
    DEMAND_OK(moray_release(slow));
}

static void limits_hold_while_bytes_are_fetched(void)
{
    if (!is_apart(0))
        return; /* they are here, or are read where they lie */
    moray_ref ref = moray_call_with((.on_rank = on_node(0)), filled, (uint64_t)MIB, 5);
    moray_view view;
    uint64_t begin;

    DEMAND_OK(moray_wait(&ref, 1, 1, NULL, NULL, NULL, NULL, 0, 0));
    moray_ref stalled = moray_call_with((.on_rank = on_node(0)), stall, 600);
    law_sleep_ms(150);
    begin = law_ms();
    DEMAND_CODE(moray_get_view(ref, &view, MORAY_NOW), MORAY_TIMEOUT);
    DEMAND_CODE(moray_get_view(ref, &view, 30), MORAY_TIMEOUT);
    DEMAND_CODE(moray_get_many(&ref, 1, &view, 30), MORAY_TIMEOUT);
    DEMAND(view.data == NULL);
    DEMAND(law_ms() - begin >= 60 && law_ms() - begin < 400);
    DEMAND_OK(moray_get_view(ref, &view, 5000));
    moray_view_release(&view);
    DEMAND_SAME(moray_take_as(int32_t, stalled), 0);
    DEMAND_OK(moray_release(ref));
}

/* A reference inside a value is only borrowed: who looks for it now and then gets it all the same. */
static void polls_of_a_borrowed_reference_come_to_an_end(void)
{
    uint64_t before = free_bytes();

    for (int node = 0; node < node_count(); node++) {
        moray_ref outer = moray_call_with((.on_rank = on_node(node)), wrap, (uint64_t)4 * MIB, 3);
        uint64_t until = law_ms() + 5000;
        enum moray_code code;
        moray_view view;
        parcel boxed;

        DEMAND_OK(moray_get(outer, &boxed, 0));
        while ((code = moray_get_view(boxed.inside, &view, MORAY_NOW)) == MORAY_TIMEOUT &&
               law_ms() < until)
            law_sleep_ms(1);
        DEMAND_OK(code);
        DEMAND_SAME(view.size, 4 * MIB);
        moray_view_release(&view);
        DEMAND_OK(moray_release(outer));
    }
    DEMAND(becomes_free(before - MIB));
}

/* Threads of the driver that use one borrowed reference, each for the length of a call. */
static parcel boxed_for_all;
static _Atomic int wrong_reads;

static void *reads_what_is_borrowed(void *argument)
{
    uint64_t want = *(const uint64_t *)argument;
    moray_view view;

    for (int i = 0; i < 1000; i++) {
        if (moray_get_view(boxed_for_all.inside, &view, 5000) != MORAY_OK) {
            atomic_fetch_add(&wrong_reads, 1);
            break;
        }
        if (hash(view.data, view.size) != want)
            atomic_fetch_add(&wrong_reads, 1);
        moray_view_release(&view);
    }
    return NULL;
}

static void threads_borrow_one_reference(void)
{
    char data[100];
    pthread_t threads[3];
    moray_ref outer =
        moray_call_with((.on_rank = on_node(node_count() - 1)), wrap, sizeof(data), 21);

    fill(data, sizeof(data), 21);
    uint64_t want = hash(data, sizeof(data));
    DEMAND_OK(moray_get(outer, &boxed_for_all, 0));
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        DEMAND(!pthread_create(&threads[i], NULL, reads_what_is_borrowed, &want));
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    DEMAND_OK(moray_release(outer));
    DEMAND_SAME(atomic_load(&wrong_reads), 0);
}

MORAY_TASK(int32_t, slow_once_begun, (int32_t, ms))
{
    gate_open("the slow one runs");
    law_sleep_ms(ms);
    return 1;
}

/* How long a task waited for the error; -1: the slow one did not begin elsewhere. */
MORAY_TASK(int32_t, waits_for_an_error)
{
    moray_ref slow = moray_call(slow_once_begun, 1500);
    moray_ref refs[3] = {slow, moray_call(after, 0, slow), moray_call(after_failing, 300)};
    moray_view views[3];

    for (uint64_t until = law_ms() + 4000; !gate_is_open("the slow one runs");) {
        if (law_ms() > until)
            return -moray_get_as(int32_t, refs[1]);
        law_sleep_ms(2);
    }
    uint64_t begin = law_ms();
    enum moray_code code = moray_get_many(refs, 3, views, 0);
    begin = law_ms() - begin;
    (void)moray_wait(&refs[1], 1, 1, NULL, NULL, NULL, NULL, 20000,
                     0); /* nothing is left running */
    return code == MORAY_FAILED ? (int32_t)begin : INT32_MAX;
}

static void a_task_is_told_an_error_without_waiting_for_the_slow(void)
{
    int32_t ms = moray_take_as(int32_t, moray_call(waits_for_an_error));

    DEMAND(ms < 1000);
    if (moray_ranks() == 1 && moray_workers() > 1)
        DEMAND(ms >= 0);
}

static void an_error_is_told_without_waiting_for_the_slow(void)
{
    moray_ref slow = moray_call(after, 1500, 1);
    moray_ref refs[3] = {slow, moray_call(after_failing, 10), moray_call(after, 0, slow)};
    moray_view views[3];
    uint64_t begin = law_ms();

    DEMAND_CODE(moray_get_many(refs, 3, views, 0), MORAY_FAILED);
    if (moray_workers() > 1)
        DEMAND(law_ms() - begin < 1000);
    DEMAND_NAMES(last_story(), "it was asked to fail");
    for (int i = 0; i < 3; i++) {
        DEMAND(views[i].data == NULL);
        DEMAND_OK(moray_release(refs[i]));
    }
}

/* ---- 5 ---- */

static void readers_cannot_change_what_others_see(void)
{
    uint64_t sum;
    moray_view view;
    moray_ref ref = put_filled(100000, 3, &sum);

    for (int node = 0; node < node_count(); node++) {
        moray_ref writer =
            moray_call_with((.attempts = 1, .on_rank = on_node(node)), writes_through, ref);
        DEMAND_CODE(moray_get_bytes(writer, NULL, 0, 0), MORAY_DIED);
        DEMAND_NAMES(moray_error(writer), "SIGSEGV");
        DEMAND_NAMES(moray_error(writer), "writes_through");
        DEMAND_OK(moray_release(writer));
    }
    DEMAND_OK(moray_get_view(ref, &view, 0));
    DEMAND(hash(view.data, view.size) == sum);
    moray_view_release(&view);
    DEMAND_OK(moray_release(ref));
}

MORAY_TASK(int64_t, size_when, (moray_view, bytes), (moray_view, late))
{
    return (int64_t)(bytes.size + late.size);
}

/* Lets its parameter's view go, which is only lent, while a task that it has made waits with it. */
MORAY_TASK(int64_t, hands_a_view_on, (moray_view, bytes))
{
    moray_ref late = moray_call(filled_after, 100, 100, 3);
    moray_ref size = moray_call(size_when, bytes, late);

    moray_view_release(&bytes);
    return moray_take_as(int64_t, size);
}

static void a_view_of_a_parameter_is_not_let_go(void)
{
    char bytes[300] = "";

    for (int node = 0; node < node_count(); node++) {
        moray_ref ref = moray_put(bytes, sizeof(bytes)), sum;
        int64_t size = 0;
        sum = moray_call_with((.attempts = 1, .on_rank = on_node(node)), hands_a_view_on, ref);
        DEMAND_OK(moray_release(ref));
        DEMAND_OK(moray_get(sum, &size, 10000));
        DEMAND_OK(moray_release(sum));
        DEMAND_SAME(size, 400);
    }
}

/* A limit that passes between the views takes back those that are open, and no hold of the caller's. */
static void views_taken_back_leave_the_reference(void)
{
    int32_t five = 5;
    moray_ref refs[2] = {
        moray_put(&five, sizeof(five)),
        moray_call_with((.on_rank = on_node(node_count() - 1)), filled, 1 << 20, 3)};
    moray_view views[2];
    size_t ready;

    DEMAND_OK(moray_wait(&refs[1], 1, 1, NULL, &ready, NULL, NULL, 10000, 0));
    enum moray_code code = moray_get_many(refs, 2, views, MORAY_NOW);
    for (int i = 0; i < 2; i++) {
        DEMAND_SAME(views[i].ref.owner != 0, code == MORAY_OK);
        moray_view_release(&views[i]);
        DEMAND_OK(moray_release(refs[i]));
    }
}

static void a_view_outlives_its_reference(void)
{
    for (int node = 0; node < node_count(); node++) {
        uint32_t seed = 77 + (uint32_t)node;
        char *want = malloc(2 * MIB);
        moray_view view;
        moray_ref ref =
            moray_call_with((.on_rank = on_node(node)), filled, (uint64_t)2 * MIB, seed);
        fill(want, 2 * MIB, seed);
        DEMAND_OK(moray_get_view(ref, &view, 0));
        DEMAND_OK(moray_release(ref));
        for (int i = 0; i < 20; i++) /* what would take its place */
            DEMAND_OK(moray_release(moray_put(want, 2 * MIB)));
        DEMAND(memcmp(view.data, want, 2 * MIB) == 0);
        moray_view_release(&view);
        DEMAND(view.data == NULL);
        moray_view_release(&view);
        free(want);
    }
}

/* ---- 6, 7, 8, 9 ---- */

static void wait_gives_a_partition(void)
{
    moray_ref refs[6], ready[6], rest[6];
    size_t ready_count, rest_count;
    uint64_t begin;

    for (int i = 0; i < 6; i++)
        refs[i] = i % 2 ? moray_call(after, 800, i) : moray_put_value(int32_t, i);
    /* more than k ready: exactly k */
    DEMAND_OK(moray_wait(refs, 6, 2, ready, &ready_count, rest, &rest_count, 0, 0));
    DEMAND_SAME(ready_count, 2);
    DEMAND_SAME(rest_count, 4);
    DEMAND(ready[0].index == refs[0].index && ready[1].index == refs[2].index);
    DEMAND(rest[0].index == refs[1].index && rest[3].index == refs[5].index);
    /* a limit that passes is no error */
    begin = law_ms();
    DEMAND_OK(moray_wait(refs, 6, 6, ready, &ready_count, rest, &rest_count, 50, 0));
    DEMAND(law_ms() - begin >= 45 && law_ms() - begin < 600);
    DEMAND_SAME(ready_count, 3);
    DEMAND_SAME(rest_count, 3);
    DEMAND_OK(moray_wait(refs, 6, 4, ready, &ready_count, NULL, NULL, MORAY_NOW, 0));
    DEMAND_SAME(ready_count, 3);
    DEMAND_OK(moray_wait(refs, 6, 6, NULL, NULL, NULL, NULL, 0, 0));
    DEMAND_OK(moray_wait(refs, 6, 6, ready, &ready_count, rest, &rest_count, MORAY_NOW, 0));
    DEMAND_SAME(ready_count, 6);
    DEMAND_SAME(rest_count, 0);
    for (int i = 0; i < 6; i++) {
        DEMAND(ready[i].index == refs[i].index);
        DEMAND_OK(moray_release(refs[i]));
    }
}

static void wait_refuses_what_makes_no_sense(void)
{
    moray_ref two[2] = {moray_put_value(int32_t, 1), moray_put_value(int32_t, 2)};
    moray_ref twins[2] = {two[0], two[0]}, ready[2];
    size_t ready_count = 9, rest_count = 9;

    DEMAND_OK(moray_wait(NULL, 0, 0, NULL, &ready_count, NULL, &rest_count, 0, 0));
    DEMAND_SAME(ready_count, 0);
    DEMAND_SAME(rest_count, 0);
    DEMAND_OK(moray_wait(two, 0, 5, NULL, NULL, NULL, NULL, 0, 0));
    DEMAND_CODE(moray_wait(two, 2, 0, ready, NULL, NULL, NULL, 0, 0), MORAY_INVALID);
    DEMAND_CODE(moray_wait(two, 2, 3, ready, NULL, NULL, NULL, 0, 0), MORAY_INVALID);
    DEMAND_CODE(moray_wait(two, 2, 1, ready, NULL, NULL, NULL, -1, 0), MORAY_INVALID);
    DEMAND_CODE(moray_wait(twins, 2, 1, ready, NULL, NULL, NULL, 0, 0), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "twice");
    DEMAND_CODE(moray_wait(two, 2, 1, ready, NULL, NULL, NULL, 0, 64), MORAY_INVALID);
    DEMAND_CODE(moray_wait(NULL, 2, 1, ready, NULL, NULL, NULL, 0, 0), MORAY_INVALID);
    DEMAND_OK(moray_release(two[0]));
    DEMAND_OK(moray_release(two[1]));
}

MORAY_ACTOR(mortal);
MORAY_METHOD(int32_t, mortal, die)
{
    raise(SIGKILL);
    return 0;
}

static void what_failed_counts_as_ready(void)
{
    moray_ref blocker = moray_call(after, 300, 0);
    moray_ref queued = moray_call(after, 0, blocker); /* waits, so it can be cancelled */
    mortal_actor actor = moray_new(mortal);
    moray_ref refs[3] = {moray_call(after_failing, 0), queued, moray_call(mortal_die, actor)};
    moray_ref ready[3];
    size_t ready_count;

    DEMAND_OK(moray_cancel(queued));
    DEMAND_OK(moray_wait(refs, 3, 3, ready, &ready_count, NULL, NULL, 5000, 0));
    DEMAND_SAME(ready_count, 3);
    DEMAND_CODE(moray_get_bytes(refs[0], NULL, 0, 0), MORAY_FAILED);
    DEMAND_CODE(moray_get_bytes(refs[1], NULL, 0, 0), MORAY_CANCELLED);
    DEMAND_CODE(moray_get_bytes(refs[2], NULL, 0, 0), MORAY_ACTOR_DIED);
    for (int i = 0; i < 3; i++)
        DEMAND_OK(moray_release(refs[i]));
    DEMAND_OK(moray_release(blocker));
    DEMAND_OK(moray_actor_release(actor));
}

static void wait_moves_data_only_when_asked(void)
{
    bool apart = is_apart(0);
    uint64_t before = free_bytes(), until;
    moray_ref refs[2] = {
        moray_call_with((.on_rank = on_node(0)), filled, (uint64_t)16 * MIB, 1),
        moray_call(after, 600, 1),
    };
    moray_ref ready[2];
    size_t ready_count;

    DEMAND_OK(moray_wait(refs, 1, 1, NULL, NULL, NULL, NULL, 0, 0));
    law_sleep_ms(100);
    if (apart)
        DEMAND(free_bytes() + 8 * MIB > before);
    /* with fetch: it returns when the limit passes, and the transfer has begun all the same */
    DEMAND_OK(moray_wait(refs, 2, 2, ready, &ready_count, NULL, NULL, 20, MORAY_FETCH));
    if (apart) {
        for (until = law_ms() + 3000; free_bytes() + 16 * MIB > before + MIB && law_ms() < until;)
            law_sleep_ms(5);
        DEMAND(free_bytes() + 16 * MIB <= before + MIB);
    }
    moray_view view;
    DEMAND_OK(moray_get_view(refs[0], &view, 0));
    char *want = malloc(16 * MIB);
    fill(want, 16 * MIB, 1);
    DEMAND(memcmp(view.data, want, 16 * MIB) == 0);
    free(want);
    moray_view_release(&view);
    DEMAND_OK(moray_get_bytes(refs[1], NULL, 0, 0));
    DEMAND_OK(moray_release(refs[0]));
    DEMAND_OK(moray_release(refs[1]));
    DEMAND(becomes_free(before - MIB));
}

static void wait_fetches_what_is_still_to_be_made(void)
{
    uint64_t before = free_bytes(), until = law_ms() + 5000;
    moray_ref ref =
        moray_call_with((.on_rank = on_node(0)), filled_after, 200, (uint64_t)16 * MIB, 2);
    size_t ready_count;

    DEMAND_OK(moray_wait(&ref, 1, 1, NULL, &ready_count, NULL, NULL, MORAY_NOW, MORAY_FETCH));
    DEMAND_SAME(ready_count, 0);
    DEMAND_OK(moray_wait(&ref, 1, 1, NULL, &ready_count, NULL, NULL, 0, 0));
    if (is_apart(0)) {
        while (free_bytes() + 16 * MIB > before + MIB && law_ms() < until)
            law_sleep_ms(5);
        DEMAND(free_bytes() + 16 * MIB <= before + MIB);
    }
    DEMAND_OK(moray_release(ref));
    DEMAND(becomes_free(before - MIB));
}

/* ---- 10, 11 ---- */

static void what_does_not_fit_is_refused_and_nothing_lost(void)
{
    enum { PIECE = 24 * MIB, PIECES_MAX = 64 };
    moray_ref pieces[PIECES_MAX];
    uint64_t sums[PIECES_MAX], begin;
    size_t count = 0;

    while (count < PIECES_MAX) {
        pieces[count] = put_filled(PIECE, (uint32_t)count, &sums[count]);
        if (!pieces[count].owner)
            break;
        count++;
    }
    DEMAND(count >= 2 && count < PIECES_MAX);
    DEMAND_SAME(moray_last(NULL), MORAY_FULL);
    DEMAND_NAMES(last_story(), "25165824");          /* its size */
    DEMAND_NAMES(last_story(), "bytes are free");    /* what is left */
    DEMAND_NAMES(last_story(), "largest objects");   /* who has the rest */
    DEMAND_NAMES(last_story(), "MORAY_STORE_BYTES"); /* what to change */
    /* no call waits for room without end, nor does a result */
    begin = law_ms();
    moray_buffer none = moray_create(PIECE);
    DEMAND(none.data == NULL && moray_last(NULL) == MORAY_FULL);
    moray_ref small = moray_put_value(int32_t, 4);
    DEMAND(small.owner != 0);
    if (moray_ranks() == 1) {
        moray_ref result = moray_call(filled, (uint64_t)PIECE, 1);
        DEMAND_CODE(moray_get_bytes(result, NULL, 0, 0), MORAY_FULL);
        DEMAND_NAMES(moray_error(result), "MORAY_STORE_BYTES");
        DEMAND_OK(moray_release(result));
    }
    DEMAND(law_ms() - begin < 1000);
    for (size_t i = 0; i < count; i++) {
        moray_view view;
        DEMAND_OK(moray_get_view(pieces[i], &view, 0));
        DEMAND(hash(view.data, view.size) == sums[i]);
        moray_view_release(&view);
        DEMAND_OK(moray_release(pieces[i]));
    }
    DEMAND_OK(moray_release(small));
    /* and the room can be used again */
    pieces[0] = put_filled(PIECE, 1, &sums[0]);
    DEMAND(pieces[0].owner != 0);
    DEMAND_OK(moray_release(pieces[0]));
}

/* A negative length, for one, which adding and rounding up would make a small one. */
static void sizes_near_the_largest_are_refused(void)
{
    static const size_t sizes[] = {SIZE_MAX,         SIZE_MAX - 7,     SIZE_MAX - 62,
                                   SIZE_MAX - 65534, SIZE_MAX - 65535, (size_t)1 << 48};
    uint64_t sum;
    char byte = 1;

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        DEMAND(moray_put(&byte, sizes[i]).owner == 0);
        DEMAND_SAME(moray_last(NULL), MORAY_FULL);
        DEMAND_NAMES(last_story(), "MORAY_STORE_BYTES");
        DEMAND(moray_create(sizes[i]).data == NULL);
        DEMAND_SAME(moray_last(NULL), MORAY_FULL);
        DEMAND_NAMES(last_story(), "MORAY_STORE_BYTES");
        moray_ref result = moray_call(filled, (uint64_t)sizes[i], 1);
        DEMAND_CODE(moray_get_bytes(result, NULL, 0, 0), MORAY_FULL);
        DEMAND_OK(moray_release(result));
    }
    moray_ref after = put_filled(MIB, 1, &sum); /* the pages are as they were */
    moray_view view;
    DEMAND_OK(moray_get_view(after, &view, 0));
    DEMAND(hash(view.data, view.size) == sum);
    moray_view_release(&view);
    DEMAND_OK(moray_release(after));
}

static void results_that_do_not_fit_are_an_error_at_once(void)
{
    uint64_t begin = law_ms();

    for (int node = 0; node < node_count(); node++) {
        moray_ref result =
            moray_call_with((.on_rank = on_node(node)), filled, (uint64_t)1 << 40, 1);
        DEMAND_CODE(moray_get_bytes(result, NULL, 0, 0), MORAY_FULL);
        DEMAND_NAMES(moray_error(result), "1099511627776");
        DEMAND_NAMES(moray_error(result), "bytes are free");
        DEMAND_NAMES(moray_error(result), "MORAY_STORE_BYTES");
        DEMAND_OK(moray_release(result));
    }
    DEMAND(law_ms() - begin < 2000);
}

static void large_values_are_read_in_place(void)
{
    uint64_t sum, before;
    moray_view one, two;
    moray_ref ref = put_filled(8 * MIB, 1, &sum);

    before = free_bytes();
    DEMAND_OK(moray_get_view(ref, &one, 0));
    DEMAND_OK(moray_get_view(ref, &two, 0));
    DEMAND(one.data == two.data);
    DEMAND((uintptr_t)one.data % 64 == 0);
    for (int node = 0; node < node_count(); node++)
        if (!is_apart(node)) {
            moray_ref there = moray_call_with((.on_rank = on_node(node)), address_of, ref);
            DEMAND(moray_take_as(uint64_t, there) == (uint64_t)(uintptr_t)one.data);
        }
    DEMAND(free_bytes() + MIB > before);
    moray_view_release(&one);
    moray_view_release(&two);
    DEMAND_OK(moray_release(ref));
    /* small ones take no block of the arena: a thousand of them leave it as it was */
    moray_ref small[1000];
    before = free_bytes();
    for (int i = 0; i < 1000; i++)
        small[i] = moray_put_value(int64_t, i);
    DEMAND(free_bytes() + 16384 > before); /* half of what blocks would take */
    for (int i = 0; i < 1000; i++)
        DEMAND(moray_take_as(int64_t, small[i]) == i);
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
    DEMAND_NAMES(moray_error(wrong), "objects.c:");
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
    {"line 1: get gives what was put, byte for byte, on any rank", gets_give_what_was_put, 60},
    {"line 1: results of any rank are read on any rank", gets_of_results_made_on_any_rank, 60},
    {"line 2: values come in the order of the references", values_come_in_the_order_of_references,
     10},
    {"line 3: a limit passes, and the reference serves later",
     limits_pass_and_the_reference_serves_later, 10},
    {"line 3: a limit holds while bytes are fetched", limits_hold_while_bytes_are_fetched, 10},
    {"line 3: who polls for a borrowed reference gets it",
     polls_of_a_borrowed_reference_come_to_an_end, 30},
    {"line 5: threads of the driver borrow one reference", threads_borrow_one_reference, 30},
    {"line 5: the view of a parameter is only lent", a_view_of_a_parameter_is_not_let_go, 20},
    {"line 5: views that a limit takes back leave the reference",
     views_taken_back_leave_the_reference, 20},
    {"line 4: one failure is told without waiting for the slow",
     an_error_is_told_without_waiting_for_the_slow, 10},
    {"line 4: a task is told one failure without waiting for the slow",
     a_task_is_told_an_error_without_waiting_for_the_slow, 20},
    {"line 5: a reader cannot change what others see", readers_cannot_change_what_others_see, 20},
    {"line 5: a view outlives its reference", a_view_outlives_its_reference, 10},
    {"line 6: wait gives k ready and the rest", wait_gives_a_partition, 10},
    {"line 7: wait refuses what makes no sense", wait_refuses_what_makes_no_sense, 10},
    {"line 8: what failed, was cancelled or died counts as ready", what_failed_counts_as_ready, 10},
    {"line 9: wait moves data only when asked", wait_moves_data_only_when_asked, 20},
    {"line 9: wait fetches what is still to be made", wait_fetches_what_is_still_to_be_made, 20},
    {"line 10: what does not fit is refused, and nothing is lost",
     what_does_not_fit_is_refused_and_nothing_lost, 60},
    {"line 10: sizes near the largest are refused", sizes_near_the_largest_are_refused, 20},
    {"line 10: a result that does not fit is an error at once",
     results_that_do_not_fit_are_an_error_at_once, 10},
    {"line 11: large values are read in place, small ones take no block",
     large_values_are_read_in_place, 10},
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
