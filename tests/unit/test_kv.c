#include <string.h>

#include "gcs/kv.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

static struct kv *kv;
static struct moray_error error;
static uint64_t version;

static struct kv_span span(const char *text)
{
    return (struct kv_span){text, strlen(text)};
}

static enum moray_code put(const char *space, const char *key, const char *value)
{
    return kv_put(kv, span(space), span(key), span(value), KV_OVERWRITE, &version, &error);
}

static bool holds(const char *space, const char *key, const char *value)
{
    struct kv_value found = kv_get(kv, span(space), span(key));

    if (!value)
        return !found.value.data && found.version == 0;
    return found.value.data && found.value.bytes == strlen(value) &&
           memcmp(found.value.data, value, found.value.bytes) == 0;
}

static void setup(void)
{
    ck_assert_int_eq(kv_create(&(struct kv_options){.key_bytes_max = 32,
                                                    .value_bytes_max = 100,
                                                    .total_bytes_max = 100000},
                               &kv, NULL),
                     MORAY_OK);
}

static void teardown(void)
{
    kv_destroy(kv);
}

START_TEST(what_was_put_is_there_until_it_is_deleted)
{
    ck_assert(holds("a", "k", NULL));
    ck_assert_int_eq(put("a", "k", "one"), MORAY_OK);
    ck_assert_int_eq(put("b", "k", "two"), MORAY_OK);
    ck_assert(holds("a", "k", "one") && holds("b", "k", "two"));
    ck_assert_int_eq(put("a", "k", ""), MORAY_OK);
    ck_assert(holds("a", "k", ""));
    kv_delete(kv, span("a"), span("k"), &version);
    ck_assert(version == 4 && holds("a", "k", NULL) && holds("b", "k", "two"));
    kv_delete(kv, span("a"), span("k"), &version);
    ck_assert_uint_eq(version, 0);
    ck_assert_uint_eq(kv_version(kv), 4);
}
END_TEST

START_TEST(only_if_absent_keeps_what_is_there)
{
    struct kv_span no = span("no");

    ck_assert_int_eq(put("a", "k", "one"), MORAY_OK);
    ck_assert_int_eq(kv_put(kv, span("a"), span("k"), no, KV_IF_ABSENT, &version, &error),
                     MORAY_EXISTS);
    ck_assert_uint_eq(version, 1);
    ck_assert(holds("a", "k", "one"));
    ck_assert_int_eq(kv_put(kv, span("a"), span("l"), no, KV_IF_ABSENT, &version, NULL), MORAY_OK);
}
END_TEST

START_TEST(namespace_and_key_do_not_run_into_each_other)
{
    ck_assert_int_eq(put("ab", "c", "1"), MORAY_OK);
    ck_assert_int_eq(put("a", "bc", "2"), MORAY_OK);
    ck_assert(holds("ab", "c", "1") && holds("a", "bc", "2") && holds("", "abc", NULL));
}
END_TEST

START_TEST(several_are_read_at_once)
{
    struct kv_span keys[] = {span("x"), span("none"), span("y")};
    struct kv_value out[3];

    ck_assert_int_eq(put("a", "x", "1"), MORAY_OK);
    ck_assert_int_eq(put("a", "y", "22"), MORAY_OK);
    kv_get_many(kv, span("a"), keys, 3, out);
    ck_assert(out[0].version == 1 && out[1].version == 0 && out[2].version == 2);
    ck_assert(!out[1].value.data && out[2].value.bytes == 2);
}
END_TEST

START_TEST(a_list_is_in_order_and_paged)
{
    const char *keys[] = {"p3", "q", "p1", "p2", "p", "o"};
    struct kv_entry page[2];
    bool more;

    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(put("a", keys[i], "v"), MORAY_OK);
    ck_assert_int_eq(put("A", "p0", "v"), MORAY_OK);
    ck_assert_int_eq(put("b", "p0", "v"), MORAY_OK);
    ck_assert_uint_eq(kv_list(kv, span("a"), span("p"), NULL, page, 2, &more), 2);
    ck_assert(more && page[0].key.bytes == 1 && memcmp(page[1].key.data, "p1", 2) == 0);
    kv_delete(kv, span("a"), span("p1"), &version); /* the page's end may vanish between pages */
    struct kv_span after = span("p1");
    ck_assert_uint_eq(kv_list(kv, span("a"), span("p"), &after, page, 2, &more), 2);
    ck_assert(!more && memcmp(page[0].key.data, "p2", 2) == 0);
    ck_assert(memcmp(page[1].key.data, "p3", 2) == 0);
    ck_assert_uint_eq(kv_list(kv, span("c"), span(""), NULL, page, 2, &more), 0);
    ck_assert(!more);
}
END_TEST

START_TEST(an_addition_is_atomic_and_checked)
{
    int64_t sum;

    ck_assert_int_eq(kv_add(kv, span("a"), span("n"), 5, &sum, &version, &error), MORAY_OK);
    ck_assert_int_eq(kv_add(kv, span("a"), span("n"), -7, &sum, &version, &error), MORAY_OK);
    ck_assert(sum == -2 && version == 2);
    ck_assert_int_eq(kv_add(kv, span("a"), span("n"), INT64_MIN, &sum, &version, &error),
                     MORAY_INVALID);
    ck_assert_int_eq(put("a", "t", "text"), MORAY_OK);
    ck_assert_int_eq(kv_add(kv, span("a"), span("t"), 1, &sum, &version, &error), MORAY_WRONG_TYPE);
    ck_assert(holds("a", "t", "text"));
}
END_TEST

START_TEST(a_swap_happens_only_over_what_was_expected)
{
    struct kv_span one = span("one"), two = span("two");
    struct kv_value now;
    bool swapped;

    ck_assert_int_eq(kv_swap(kv, span("a"), span("k"), &one, two, &swapped, &now, &version, &error),
                     MORAY_OK);
    ck_assert(!swapped && !now.value.data);
    ck_assert_int_eq(kv_swap(kv, span("a"), span("k"), NULL, one, &swapped, &now, &version, &error),
                     MORAY_OK);
    ck_assert(swapped && holds("a", "k", "one"));
    ck_assert_int_eq(kv_swap(kv, span("a"), span("k"), NULL, two, &swapped, &now, &version, &error),
                     MORAY_OK);
    ck_assert(!swapped && now.value.bytes == 3 && now.version == 1);
    ck_assert_int_eq(kv_swap(kv, span("a"), span("k"), &one, two, &swapped, &now, &version, &error),
                     MORAY_OK);
    ck_assert(swapped && holds("a", "k", "two") && now.version == version);
}
END_TEST

START_TEST(each_bound_is_named_and_changes_nothing)
{
    char large[128] = "";

    memset(large, 'x', 101);
    ck_assert_int_eq(put("a", "k", large), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "value_bytes_max"));
    ck_assert_int_eq(put("a", large, "v"), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "key_bytes_max"));
    ck_assert_uint_eq(kv_key_count(kv), 0);
    large[100] = 0;
    enum moray_code code = MORAY_OK;
    size_t count = 0;
    for (char key[16]; code == MORAY_OK && count < 10000; count++) {
        snprintf(key, sizeof(key), "%zu", count);
        code = put("a", key, large);
    }
    ck_assert_int_eq(code, MORAY_FULL);
    ck_assert_ptr_nonnull(strstr(error.text, "total_bytes_max"));
    ck_assert_uint_eq(kv_key_count(kv), count - 1);
    ck_assert_uint_le(kv_total_bytes(kv), 100000);
    ck_assert_int_eq(put("a", "0", "small"), MORAY_OK); /* what makes room is allowed */
    kv_delete(kv, span("a"), span("1"), &version);
    ck_assert_int_eq(put("a", "1", large), MORAY_OK);
}
END_TEST

/* Against the simplest store there is: an array of 64 values. */
START_TEST(any_history_equals_that_of_an_array)
{
    uint64_t seed = (uint64_t)_i + 1;
    char model[64][8] = {{0}}; /* "" is absent */

    for (int event = 0; event < 3000; event++) {
        uint32_t at = law_random(&seed, 64);
        char key[4] = {(char)('a' + at / 8), (char)('a' + at % 8), 0};
        char value[8];
        snprintf(value, sizeof(value), "%u", law_random(&seed, 1000));
        switch (law_random(&seed, 4)) {
        case 0:
        case 1:
            ck_assert_int_eq(put("s", key, value), MORAY_OK);
            strcpy(model[at], value);
            break;
        case 2:
            kv_delete(kv, span("s"), span(key), &version);
            LAW((version != 0) == (model[at][0] != 0), _i, event);
            model[at][0] = 0;
            break;
        default:
            LAW(holds("s", key, model[at][0] ? model[at] : NULL), _i, event);
        }
        struct kv_entry list[64];
        bool more;
        char prefix[2] = {key[0], 0};
        size_t count = kv_list(kv, span("s"), span(prefix), NULL, list, 64, &more), i = 0;
        for (int k = 0; k < 8; k++) {
            int where = (key[0] - 'a') * 8 + k;
            if (!model[where][0])
                continue;
            LAW(i < count && ((const char *)list[i].key.data)[1] == 'a' + k, _i, event);
            i++;
        }
        LAW(i == count && !more, _i, event);
    }
}
END_TEST

/* A tree that degenerates into a list takes minutes for this. */
START_TEST(keys_in_order_do_not_make_it_slow)
{
    struct kv *own;
    char key[16];

    ck_assert_int_eq(kv_create(&(struct kv_options){0}, &own, NULL), MORAY_OK);
    for (int i = 0; i < 200000; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        LAW(kv_put(own, span("s"), span(key), span("v"), KV_IF_ABSENT, &version, &error) ==
                MORAY_OK,
            0, i);
    }
    ck_assert_uint_eq(kv_key_count(own), 200000);
    for (int i = 0; i < 200000; i++) {
        snprintf(key, sizeof(key), "%08d", i);
        kv_delete(own, span("s"), span(key), &version);
        LAW(version != 0, 0, i);
    }
    kv_destroy(own);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{

    for (fault_first(); fault_again(); fault_next()) {
        struct kv *own;
        int64_t sum = 0;
        if (FAULTY(kv_create(&(struct kv_options){0}, &own, &error)) == MORAY_OK) {
            enum moray_code code = FAULTY(kv_put(own, span("s"), span("k"), span("12345678"),
                                                 KV_OVERWRITE, &version, &error));
            if (code == MORAY_OK) {
                code = FAULTY(kv_add(own, span("s"), span("k"), 1, &sum, &version, &error));
                struct kv_value value = kv_get(own, span("s"), span("k"));
                ck_assert((memcmp(value.value.data, "12345678", 8) == 0) == (code != MORAY_OK));
            }
            ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
            ck_assert(kv_key_count(own) <= 1);
            FAULTY((kv_destroy(own), 0));
        }
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, what_was_put_is_there_until_it_is_deleted);
    tcase_add_test(laws, only_if_absent_keeps_what_is_there);
    tcase_add_test(laws, namespace_and_key_do_not_run_into_each_other);
    tcase_add_test(laws, several_are_read_at_once);
    tcase_add_test(laws, a_list_is_in_order_and_paged);
    tcase_add_test(laws, an_addition_is_atomic_and_checked);
    tcase_add_test(laws, a_swap_happens_only_over_what_was_expected);
    tcase_add_test(laws, each_bound_is_named_and_changes_nothing);
    tcase_add_loop_test(laws, any_history_equals_that_of_an_array, 0, 20);
    tcase_add_test(laws, keys_in_order_do_not_make_it_slow);
    tcase_add_test(laws, a_failed_allocation_changes_nothing);
    return law_run("gcs/kv", laws);
}
