#include <check.h>
#include <string.h>

#include "base/map.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

enum { KEYS = 300, STEPS = 4000 };

/* One random history a seed (_i), against a plain array; the message names the seed. */
START_TEST(behaves_like_an_array)
{
    uint64_t seed = (uint64_t)_i + 1, value;
    struct map map = {0};
    bool there[KEYS] = {false};
    uint64_t values[KEYS] = {0};
    size_t used = 0;

    for (int step = 0; step < STEPS; step++) {
        uint32_t key = law_random(&seed, KEYS);
        uint64_t spread = _i % 2 ? key : (uint64_t)key << 40; /* neighbours, and far apart */
        if (law_random(&seed, 3)) {
            ck_assert(map_set(&map, spread, (uint64_t)step));
            used += !there[key];
            there[key] = true;
            values[key] = (uint64_t)step;
        } else {
            ck_assert_msg(map_remove(&map, spread, &value) == there[key], "seed %d, step %d", _i,
                          step);
            ck_assert(!there[key] || value == values[key]);
            used -= there[key];
            there[key] = false;
        }
        ck_assert_uint_eq(map.used, used);
    }
    for (uint32_t key = 0; key < KEYS; key++) {
        uint64_t *found = map_get(&map, _i % 2 ? key : (uint64_t)key << 40);
        ck_assert_msg((found != NULL) == there[key], "seed %d, key %u", _i, key);
        ck_assert(!found || *found == values[key]);
    }
    size_t cursor = 0, walked = 0;
    while (map_next(&map, &cursor))
        walked++;
    ck_assert_uint_eq(walked, used);
    map_clear(&map);
    ck_assert_ptr_null(map_get(&map, 1));
}
END_TEST

START_TEST(an_empty_map_has_nothing)
{
    struct map map = {0};
    size_t cursor = 0;

    ck_assert_ptr_null(map_get(&map, 0));
    ck_assert(!map_remove(&map, 0, NULL));
    ck_assert_ptr_null(map_next(&map, &cursor));
    map_clear(&map);
}
END_TEST

START_TEST(a_reserved_map_cannot_fail)
{
    struct map map = {0};

    ck_assert(map_reserve(&map, 1000));
    struct map_cell *cells = map.cells;
    for (uint64_t key = 0; key < 1000; key++)
        ck_assert(map_set(&map, key, key));
    ck_assert_ptr_eq(map.cells, cells);
    map_clear(&map);
}
END_TEST

static bool fill(struct map *map)
{
    for (uint64_t key = 0; key < 100; key++)
        if (!map_set(map, key, key * 2))
            return false;
    return true;
}

START_TEST(without_memory_nothing_changes_and_nothing_leaks)
{
    for (fault_first(); fault_again(); fault_next()) {
        struct map map = {0};
        bool filled = FAULTY(fill(&map));
        ck_assert(filled || fault_hit);
        for (uint64_t key = 0; key < map.used; key++)
            ck_assert_uint_eq(*map_get(&map, key), key * 2);
        FAULTY((map_clear(&map), 0));
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("map");

    tcase_add_loop_test(laws, behaves_like_an_array, 0, 20);
    tcase_add_test(laws, an_empty_map_has_nothing);
    tcase_add_test(laws, a_reserved_map_cannot_fail);
    tcase_add_test(laws, without_memory_nothing_changes_and_nothing_leaks);
    return law_run("map", laws);
}
