/** The laws of runtime/fabric/talk: bytes of a stranger never get past the handshake. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/talk.h"

enum { RANK_COUNT = 4, SEEDS = 300 };

static const uint8_t secret[AUTH_SECRET_BYTES] = "one secret of thirty-two bytes..";
static struct talk *dialler, *listener;

static void setup(void)
{
    ck_assert_int_eq(auth_start(NULL), MORAY_OK);
    dialler = calloc(1, sizeof(*dialler));
    listener = calloc(1, sizeof(*listener));
    talk_dial(dialler, 2, 1);
    talk_listen(listener, 1);
}

static void teardown(void)
{
    free(dialler);
    free(listener);
}

/* Carries what one side has said to the other; returns how much it was. */
static size_t carry(struct talk *from, struct talk *to)
{
    size_t count = from->out_count;

    memcpy(to->in + to->in_count, from->out, count);
    to->in_count += count;
    from->out_count = 0;
    return count;
}

static const char *step(struct talk *talk)
{
    bool moved;

    return talk_step(talk, secret, RANK_COUNT, &moved);
}

static void greet(void)
{
    ck_assert_uint_gt(carry(dialler, listener), 0);
    ck_assert_ptr_null(step(listener));
    ck_assert_uint_gt(carry(listener, dialler), 0);
    ck_assert_ptr_null(step(dialler));
    ck_assert_uint_gt(carry(dialler, listener), 0);
    ck_assert_ptr_null(step(listener));
    ck_assert_int_eq(dialler->state, TALK_UP);
    ck_assert_int_eq(listener->state, TALK_UP);
    ck_assert_uint_eq(listener->rank, 2);
}

static int take(struct talk *talk, uint8_t data[DOORBELL_RECORD_MAX], size_t *count)
{
    enum doorbell_word word;

    return talk_take(talk, &word, data, count);
}

START_TEST(both_prove_and_records_pass)
{
    uint8_t data[DOORBELL_RECORD_MAX];
    size_t count;

    greet();
    for (int i = 0; i < 5; i++) {
        ck_assert(talk_put(dialler, DOORBELL_BELL, "four", 4));
        ck_assert(talk_put(listener, DOORBELL_READ, NULL, 0));
    }
    carry(dialler, listener);
    carry(listener, dialler);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(take(listener, data, &count), 1);
        ck_assert_uint_eq(count, 4);
        ck_assert_int_eq(take(dialler, data, &count), 1);
        ck_assert_uint_eq(count, 0);
    }
    ck_assert_int_eq(take(listener, data, &count), 0);
}
END_TEST

/* Any bit of any message of the handshake, changed on its way, ends it on one of the sides. */
START_TEST(a_changed_bit_ends_the_handshake)
{
    struct talk *to[] = {listener, dialler, listener}, *from[] = {dialler, listener, dialler};
    size_t lengths[] = {32, 48, 32};

    for (int message = 0; message < 3; message++) {
        for (size_t bit = 0; bit < lengths[message] * 8; bit += 3) {
            const char *why = NULL;
            memset(dialler, 0, sizeof(*dialler));
            memset(listener, 0, sizeof(*listener));
            talk_dial(dialler, 2, 1);
            talk_listen(listener, 1);
            for (int i = 0; i < 3 && !why; i++) {
                ck_assert_uint_eq(carry(from[i], to[i]), lengths[i]);
                if (i == message)
                    to[i]->in[bit / 8] ^= (uint8_t)(1 << bit % 8);
                why = step(to[i]);
            }
            ck_assert_msg(why != NULL, "message %d, bit %zu", message, bit);
            ck_assert_int_ne(listener->state, TALK_UP);
        }
    }
}
END_TEST

START_TEST(half_a_message_is_waited_for)
{
    size_t count = dialler->out_count;
    bool moved;

    for (size_t i = 0; i < count; i++) {
        ck_assert_ptr_null(talk_step(listener, secret, RANK_COUNT, &moved));
        ck_assert(!moved);
        listener->in[listener->in_count++] = dialler->out[i];
    }
    ck_assert_ptr_null(talk_step(listener, secret, RANK_COUNT, &moved));
    ck_assert(moved);
    ck_assert_int_eq(listener->state, TALK_PROOF);
}
END_TEST

START_TEST(whoever_names_a_wrong_rank_is_refused)
{
    static const uint32_t pairs[][2] = {{2, 3}, {1, 1}, {4, 1}, {UINT32_MAX, 1}};

    for (size_t i = 0; i < 4; i++) {
        memset(listener, 0, sizeof(*listener));
        memset(dialler, 0, sizeof(*dialler));
        talk_dial(dialler, pairs[i][0], pairs[i][1]);
        talk_listen(listener, 1);
        carry(dialler, listener);
        ck_assert_ptr_nonnull(step(listener));
    }
}
END_TEST

START_TEST(a_record_changed_repeated_or_left_out_is_not_taken)
{
    uint8_t data[DOORBELL_RECORD_MAX], first[64], second[64];
    size_t count, bytes;

    greet();
    ck_assert(talk_put(dialler, DOORBELL_BELL, "1", 1));
    bytes = dialler->out_count;
    memcpy(first, dialler->out, bytes);
    dialler->out_count = 0;
    ck_assert(talk_put(dialler, DOORBELL_BELL, "2", 1));
    memcpy(second, dialler->out, bytes);

    for (size_t bit = 0; bit < bytes * 8; bit++) {
        memcpy(listener->in, first, bytes);
        listener->in[bit / 8] ^= (uint8_t)(1 << bit % 8);
        listener->in_count = bytes;
        ck_assert_msg(take(listener, data, &count) != 1, "bit %zu", bit);
    }
    memcpy(listener->in, second, bytes); /* the first was left out */
    listener->in_count = bytes;
    ck_assert_int_eq(take(listener, data, &count), -1);
    memcpy(listener->in, first, bytes);
    ck_assert_int_eq(take(listener, data, &count), 1);
    memcpy(listener->in, first, bytes); /* once more */
    listener->in_count = bytes;
    ck_assert_int_eq(take(listener, data, &count), -1);
}
END_TEST

/* What a peer said on one connection proves nothing on the next: the nonces differ. */
START_TEST(a_recorded_handshake_does_not_open_again)
{
    uint8_t hello[32], proof[32];

    memcpy(hello, dialler->out, sizeof(hello));
    carry(dialler, listener);
    step(listener);
    carry(listener, dialler);
    step(dialler);
    memcpy(proof, dialler->out, sizeof(proof));
    memset(listener, 0, sizeof(*listener));
    talk_listen(listener, 1);
    memcpy(listener->in, hello, sizeof(hello));
    listener->in_count = sizeof(hello);
    ck_assert_ptr_null(step(listener));
    memcpy(listener->in, proof, sizeof(proof));
    listener->in_count = sizeof(proof);
    ck_assert_ptr_nonnull(step(listener));
}
END_TEST

/* Random bytes, a seed (_i): no crash, nobody is up, no record is told. */
START_TEST(garbage_gets_nowhere)
{
    uint8_t data[DOORBELL_RECORD_MAX];
    unsigned seed = (unsigned)_i + 1;
    size_t count;

    if (_i % 2)
        greet();
    for (int round = 0; round < 50; round++) {
        struct talk *talk = round % 2 ? dialler : listener;
        talk->in_count = (size_t)rand_r(&seed) % TALK_IN_BYTES;
        for (size_t i = 0; i < talk->in_count; i++)
            talk->in[i] = (uint8_t)(rand_r(&seed) >> 4);
        if (talk->state == TALK_UP)
            ck_assert_int_ne(take(talk, data, &count), 1);
        else if (step(talk))
            return;
        ck_assert(_i % 2 || talk->state != TALK_UP);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fabric/talk");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, both_prove_and_records_pass);
    tcase_add_test(laws, a_changed_bit_ends_the_handshake);
    tcase_add_test(laws, half_a_message_is_waited_for);
    tcase_add_test(laws, whoever_names_a_wrong_rank_is_refused);
    tcase_add_test(laws, a_record_changed_repeated_or_left_out_is_not_taken);
    tcase_add_test(laws, a_recorded_handshake_does_not_open_again);
    tcase_add_loop_test(laws, garbage_gets_nowhere, 0, SEEDS);
    tcase_set_timeout(laws, 20);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
