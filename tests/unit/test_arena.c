/** The laws of the arena's allocator in one process; tests/lane has those of deaths and of many. */
#include <string.h>
#include <sys/mman.h>

#include "store/arena/arena.h"
#include "tests/unit/law.h"

enum { SLOTS = 3, RECORDS = 4096, DATA_BYTES = 4 << 20 };

static struct arena_layout layout;
static struct arena arenas[SLOTS];
static char *region;
static uint32_t places[RECORDS]; /* what each record refers to: stands in for the lane */

static bool refers(const void *in, uint32_t record, uint32_t place)
{
    (void)in;
    return places[record] == place;
}

static void setup(void)
{
    struct arena_sizes sizes = {.data_bytes = DATA_BYTES,
                                .slot_count = SLOTS,
                                .slot_bytes = 64,
                                .ring_entries = 64,
                                .record_count = RECORDS,
                                .record_bytes = 128,
                                .cell_count = 512,
                                .cell_bytes = 16,
                                .control_bytes = 4096};

    ck_assert_int_eq(arena_plan(&sizes, &layout, NULL), MORAY_OK);
    region =
        mmap(NULL, layout.total_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(region, MAP_FAILED);
    memset(places, 0, sizeof(places));
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        arena_attach(&arenas[slot], region, &layout, slot, refers);
}

static uint64_t held_bytes(void)
{
    struct arena_usage usage;
    arena_usage(&arenas[0], &usage);
    return usage.held_bytes;
}

static void teardown(void)
{
    struct arena_usage usage;

    ck_assert_uint_eq(held_bytes(), 0);
    for (uint16_t slot = 0; slot < SLOTS; slot++) {
        arena_repair(&arenas[0], slot); /* as if it had died: all its slabs are empty */
        arena_repair(&arenas[0], slot);
    }
    arena_usage(&arenas[0], &usage);
    ck_assert_uint_eq(usage.free_page_bytes, DATA_BYTES);
    for (uint16_t slot = 0; slot < SLOTS; slot++)
        arena_detach(&arenas[slot]);
    munmap(region, layout.total_bytes);
}

static uint32_t alloc(uint16_t slot, uint64_t bytes, uint32_t record)
{
    uint32_t place = arena_alloc(&arenas[slot], bytes, record);

    places[record] = place;
    if (place)
        memset(arena_at(&arenas[slot], place), (int)record, bytes);
    return place;
}

static void let_go(uint16_t slot, uint32_t record)
{
    if (!places[record])
        return;
    arena_free(&arenas[slot], places[record], record);
    places[record] = 0;
}

START_TEST(blocks_are_large_enough_and_aligned)
{
    static const uint64_t sizes[] = {1, 32, 33, 64, 65, 500, 4096, 16384, 16385, 65536, 200000};

    for (uint32_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint32_t place = alloc(1, sizes[i], i);
        ck_assert_uint_ne(place, 0);
        ck_assert_uint_ge(arena_block_bytes(&arenas[1], place), sizes[i]);
        ck_assert_uint_eq(arena_block_bytes(&arenas[1], place), arena_rounded(sizes[i]));
        ck_assert_uint_eq((uintptr_t)arena_at(&arenas[1], place) % (sizes[i] > 32 ? 64 : 32), 0);
        let_go(1, i);
    }
}
END_TEST

START_TEST(what_somebody_else_freed_is_used_again)
{
    for (uint32_t turn = 0; turn < 100; turn++) {
        for (uint32_t record = 0; record < 100; record++)
            ck_assert_uint_ne(alloc(1, 1024, record), 0);
        for (uint32_t record = 0; record < 100; record++)
            let_go(2, record);
    }
    struct arena_usage usage;
    arena_usage(&arenas[0], &usage);
    ck_assert_uint_le(usage.slab_bytes, 4 * ARENA_PAGE_BYTES);
}
END_TEST

START_TEST(a_block_freed_twice_is_handed_out_once)
{
    uint32_t place = alloc(1, 500, 7), again;

    arena_free(&arenas[2], place, 7);
    arena_free(&arenas[0], place, 7); /* the repair of a death before the record let go */
    places[7] = 0;
    for (uint32_t record = 100; record < 300; record++)
        ck_assert_uint_ne(alloc(1, 500, record), 0);
    for (uint32_t record = 101; record < 300; record++)
        for (again = 100; again < record; again++)
            ck_assert_uint_ne(places[record], places[again]);
    for (uint32_t record = 100; record < 300; record++)
        let_go(1, record);
}
END_TEST

START_TEST(a_block_stays_while_its_record_refers_to_it)
{
    uint32_t place = alloc(1, 16384, 7);

    arena_free(&arenas[2], place, 7); /* its freer dies before the record lets go */
    for (uint32_t record = 100; record < 400; record++)
        if (alloc(1, 16384, record))
            ck_assert_uint_ne(places[record], place);
    for (uint32_t record = 100; record < 400; record++)
        let_go(1, record);
    let_go(0, 7);
}
END_TEST

START_TEST(full_is_told_and_room_comes_back_in_any_size)
{
    uint64_t sizes[] = {16384, 3 * ARENA_PAGE_BYTES, 100, DATA_BYTES / 2};

    for (int turn = 0; turn < 8; turn++) {
        uint64_t bytes = sizes[turn % 4], count = 0;
        uint32_t record = 0;
        while (record < RECORDS && alloc((uint16_t)(1 + turn % 2), bytes, record))
            record++, count++;
        ck_assert_uint_ge(count * arena_rounded(bytes), bytes == 100 ? 1 : DATA_BYTES * 3 / 4);
        for (uint32_t i = 0; i < record; i++)
            let_go(0, i);
        /* Slabs that the other slot keeps, all free, are its own until it needs room itself. */
        arena_alloc(&arenas[1 + turn % 2], DATA_BYTES * 2, 0);
    }
}
END_TEST

START_TEST(more_than_there_is_gets_nothing_and_changes_nothing)
{
    static const uint64_t sizes[] = {
        UINT64_MAX,
        UINT64_MAX - ARENA_PAGE_BYTES + 2,
        UINT64_MAX - ARENA_PAGE_BYTES,
        DATA_BYTES + 1,
        (uint64_t)1 << 48,
    };
    uint32_t kept = alloc(0, 100000, 1);

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
        ck_assert_uint_eq(arena_alloc(&arenas[0], sizes[i], 2), 0);
    ck_assert_uint_eq(arena_block_bytes(&arenas[0], kept), 2 * ARENA_PAGE_BYTES);
    ck_assert_uint_eq(held_bytes(), 2 * ARENA_PAGE_BYTES);
    let_go(0, 1);
}
END_TEST

START_TEST(what_the_dead_had_and_nobody_refers_to_is_free)
{
    uint32_t kept = alloc(1, 300, 1);
    arena_alloc(&arenas[1], 300, 2); /* no record ever heard of it */
    uint32_t run = alloc(1, 100000, 3);
    arena_alloc(&arenas[1], 100000, 4);
    arena_repair(&arenas[0], 1);

    struct arena_usage usage;
    arena_usage(&arenas[0], &usage);
    ck_assert_uint_eq(usage.run_bytes, 2 * ARENA_PAGE_BYTES);
    ck_assert_uint_eq(places[1], kept);
    ck_assert_uint_eq(places[3], run);
    ck_assert_int_eq(*(char *)arena_at(&arenas[0], kept), 1);
    arena_detach(&arenas[1]);
    arena_attach(&arenas[1], region, &layout, 1, refers);
    for (uint32_t record = 10; record < 150; record++) {
        ck_assert_uint_ne(alloc(1, 300, record), 0);
        ck_assert_uint_ne(places[record], kept);
    }
    for (uint32_t record = 0; record < 150; record++)
        let_go(1, record);
}
END_TEST

/* No two blocks that are in use overlap: each is filled with its number, and checked before it goes. */
START_TEST(a_random_history_mixes_no_blocks)
{
    static uint64_t bytes[RECORDS];
    uint64_t seed = (uint64_t)_i + 1;

    for (int event = 0; event < 20000; event++) {
        uint32_t record = law_random(&seed, 600);
        if (places[record]) {
            const unsigned char *at = arena_at(&arenas[0], places[record]);
            LAW(at[0] == (unsigned char)record && at[bytes[record] - 1] == (unsigned char)record,
                _i, event);
            let_go((uint16_t)law_random(&seed, SLOTS), record);
        } else {
            bytes[record] = 1 + law_random(&seed, law_random(&seed, 20) ? 3000 : 200000);
            alloc((uint16_t)law_random(&seed, SLOTS), bytes[record], record);
        }
    }
    for (uint32_t record = 0; record < RECORDS; record++)
        let_go(0, record);
}
END_TEST

static bool refers_always(const void *in, uint32_t record, uint32_t place)
{
    (void)in;
    (void)record;
    return place != 0;
}

/* The longest of ten stretches takes no more than a few times the shortest, though the last begins with
 * nine times as many slabs as the second. */
START_TEST(the_last_blocks_of_many_cost_what_the_first_did)
{
    enum { BLOCKS = 100000, STRETCH = BLOCKS / 10 };
    struct arena_sizes sizes = {.data_bytes = (uint64_t)BLOCKS * 16384 + DATA_BYTES,
                                .slot_count = SLOTS,
                                .slot_bytes = 64,
                                .ring_entries = 64,
                                .record_count = 512,
                                .record_bytes = 128,
                                .cell_count = 512,
                                .cell_bytes = 16,
                                .control_bytes = 4096};
    struct arena_layout large;
    struct arena arena;
    uint64_t least_ns = UINT64_MAX, most_ns = 0;
    int got = 0;

    ck_assert_int_eq(arena_plan(&sizes, &large, NULL), MORAY_OK);
    void *at = mmap(NULL, large.total_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(at, MAP_FAILED);
    arena_attach(&arena, at, &large, 1, refers_always);
    for (int stretch = 0; stretch < 10; stretch++) {
        uint64_t from_ns = law_cpu_ns(), ns;
        for (int i = 0; i < STRETCH; i++)
            got += arena_alloc(&arena, 16384, 1) != 0;
        ns = law_cpu_ns() - from_ns;
        least_ns = ns < least_ns ? ns : least_ns;
        most_ns = ns > most_ns ? ns : most_ns;
    }
    arena_detach(&arena);
    munmap(at, large.total_bytes);
    ck_assert_int_eq(got, BLOCKS);
    ck_assert_msg(most_ns < 6 * least_ns, "%d blocks took %llu us, and later or before %llu",
                  STRETCH, (unsigned long long)least_ns / 1000, (unsigned long long)most_ns / 1000);
}
END_TEST

START_TEST(sizes_that_make_no_sense_are_refused)
{
    struct arena_layout out;
    struct moray_error error;
    struct arena_sizes sizes = {.data_bytes = 1000, .slot_count = 2, .control_bytes = 64};

    ck_assert_int_eq(arena_plan(&sizes, &out, &error), MORAY_INVALID);
    ck_assert_ptr_ne(strstr(error.text, "MORAY_STORE_BYTES"), NULL);
    sizes.data_bytes = DATA_BYTES;
    sizes.slot_count = 0;
    ck_assert_int_eq(arena_plan(&sizes, &out, &error), MORAY_INVALID);
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, blocks_are_large_enough_and_aligned);
    tcase_add_test(laws, what_somebody_else_freed_is_used_again);
    tcase_add_test(laws, a_block_freed_twice_is_handed_out_once);
    tcase_add_test(laws, a_block_stays_while_its_record_refers_to_it);
    tcase_add_test(laws, full_is_told_and_room_comes_back_in_any_size);
    tcase_add_test(laws, more_than_there_is_gets_nothing_and_changes_nothing);
    tcase_add_test(laws, what_the_dead_had_and_nobody_refers_to_is_free);
    tcase_add_loop_test(laws, a_random_history_mixes_no_blocks, 0, 20);
    tcase_add_test(laws, the_last_blocks_of_many_cost_what_the_first_did);
    tcase_add_test(laws, sizes_that_make_no_sense_are_refused);
    return law_run("arena", laws);
}
