/**
 * Objects: semantics.md 1 to 11. Run with a store of 256 MiB (laws.sh).
 */
#include "objects.h"

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

MORAY_TASK(uint64_t, address_of, (moray_view, v))
{
    return (uint64_t)(uintptr_t)v.data;
}

MORAY_TASK(int32_t, writes_through, (moray_view, v))
{
    *(volatile char *)(uintptr_t)v.data = 'x';
    return 0;
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

typedef struct {
    char text[64];
} name;

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

/* ---- 1, 2 ---- */

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
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
