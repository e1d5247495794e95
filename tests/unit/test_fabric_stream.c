/** The laws of runtime/fabric/stream and auth: whole, once, in order, proven, or not at all. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "fabric/stream.h"

enum { RANK_COUNT = 3, SEED_COUNT = 60, SPACE = 1 << 20 };

static const uint8_t secret[AUTH_SECRET_BYTES] = "one secret of thirty-two bytes..";
static struct stream *a, *b; /* ranks 0 and 1 */
static struct {
    uint32_t rank;
    size_t count;
    uint32_t sum;
} told[4096];
static size_t told_count;

static uint32_t sum(const uint8_t *bytes, size_t count)
{
    uint32_t value = 1;

    for (size_t i = 0; i < count; i++)
        value = value * 31 + bytes[i];
    return value;
}

static void on_message(void *context, uint32_t rank, const void *bytes, size_t count)
{
    (void)context;
    ck_assert_uint_eq((uintptr_t)bytes % 8, 0);
    told[told_count].rank = rank;
    told[told_count].count = count;
    told[told_count++].sum = sum(bytes, count);
}

static const struct fabric_handler handler = {.message = on_message};

static struct stream *create(uint32_t rank, const uint8_t *key, size_t in_flight_bytes_max)
{
    struct stream_options options = {.secret = key,
                                     .rank = rank,
                                     .rank_count = RANK_COUNT,
                                     .in_flight_bytes_max = in_flight_bytes_max};
    struct stream *stream;

    ck_assert_int_eq(stream_create(&options, &stream, NULL), MORAY_OK);
    return stream;
}

static void setup(void)
{
    ck_assert_int_eq(auth_start(NULL), MORAY_OK);
    a = create(0, secret, 64 << 20);
    b = create(1, secret, 64 << 20);
    told_count = 0;
}

static void teardown(void)
{
    stream_destroy(a);
    stream_destroy(b);
}

/* Takes the first frame out of a's queue, as a carrier does, into memory aligned to 8. */
static size_t carry(uint64_t frame[STREAM_FRAME_MAX / 8 + 1])
{
    struct stream_slot *slot = stream_first(a, 1);
    size_t bytes = slot->bytes;

    memcpy(frame, slot->frame, bytes);
    stream_posted(a, 1);
    stream_sent(a, slot);
    return bytes;
}

static enum moray_code receive(const void *frame, size_t bytes)
{
    struct moray_error error;
    enum moray_code code = stream_receive(b, frame, bytes, &handler, &error);

    ck_assert(code == MORAY_OK || strlen(error.text) > 10);
    return code;
}

static uint8_t *pattern(unsigned *seed, size_t count)
{
    uint8_t *bytes = malloc(count);

    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)(rand_r(seed) >> 8);
    return bytes;
}

START_TEST(every_length_arrives_whole)
{
    static const size_t lengths[] = {1,
                                     2,
                                     7,
                                     8,
                                     2007,
                                     2008,
                                     2009,
                                     STREAM_PAYLOAD_MAX - 1,
                                     STREAM_PAYLOAD_MAX,
                                     STREAM_PAYLOAD_MAX + 1,
                                     3 * STREAM_PAYLOAD_MAX,
                                     FABRIC_MESSAGE_BYTES_MAX};
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    unsigned seed = 7;

    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        uint8_t *bytes = pattern(&seed, lengths[i]);
        ck_assert_int_eq(stream_push(a, 1, bytes, lengths[i]), MORAY_OK);
        while (stream_first(a, 1))
            ck_assert_int_eq(receive(frame, carry(frame)), MORAY_OK);
        ck_assert_uint_eq(told_count, i + 1);
        ck_assert_uint_eq(told[i].count, lengths[i]);
        ck_assert_uint_eq(told[i].sum, sum(bytes, lengths[i]));
        ck_assert_uint_eq(told[i].rank, 0);
        free(bytes);
    }
    ck_assert_uint_eq(stream_unsent(a), 0);
    ck_assert_uint_eq(stream_in_flight(a, 1), 0);
    ck_assert_uint_eq(stream_posted_count(a, 1), stream_received_count(b, 0));
}
END_TEST

/* One random history a seed (_i): frames of many messages overtake each other within a window, and
 * some come twice; the messages come out in order all the same, and each once. */
START_TEST(overtaking_changes_nothing)
{
    enum { MESSAGES = 60, FRAMES = 512, WINDOW = 20 };
    static uint64_t frames[FRAMES][STREAM_FRAME_MAX / 8 + 1];
    size_t bytes[FRAMES], count = 0, next = 0;
    uint32_t sums[MESSAGES];
    bool gone[FRAMES] = {false};
    unsigned seed = (unsigned)_i + 1;

    for (int i = 0; i < MESSAGES; i++) {
        size_t length =
            1 + (size_t)rand_r(&seed) % (rand_r(&seed) % 4 ? 3000 : 4 * STREAM_PAYLOAD_MAX);
        uint8_t *message = pattern(&seed, length);
        sums[i] = sum(message, length);
        ck_assert_int_eq(stream_push(a, 1, message, length), MORAY_OK);
        free(message);
    }
    while (stream_first(a, 1)) {
        ck_assert_uint_lt(count, FRAMES);
        bytes[count] = carry(frames[count]);
        count++;
    }
    while (next < count) {
        size_t pick = next + (size_t)rand_r(&seed) % WINDOW;
        if (pick >= count)
            continue;
        ck_assert_msg(receive(frames[pick], bytes[pick]) ==
                          (gone[pick] ? MORAY_PROTOCOL : MORAY_OK),
                      "seed %d, frame %zu", _i, pick);
        gone[pick] = true;
        while (next < count && gone[next])
            next++;
    }
    ck_assert_uint_eq(told_count, MESSAGES);
    for (int i = 0; i < MESSAGES; i++)
        ck_assert_msg(told[i].sum == sums[i], "seed %d, message %d", _i, i);
}
END_TEST

START_TEST(a_changed_bit_anywhere_is_refused)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    size_t bytes;

    ck_assert_int_eq(stream_push(a, 1, "twelve bytes", 12), MORAY_OK);
    bytes = carry(frame);
    ck_assert_uint_eq(bytes, STREAM_HEAD_BYTES + 12);
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        ((uint8_t *)frame)[bit / 8] ^= (uint8_t)(1 << bit % 8);
        ck_assert_msg(receive(frame, bytes) == MORAY_PROTOCOL, "bit %zu", bit);
        ((uint8_t *)frame)[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_uint_eq(told_count, 0);
    ck_assert_int_eq(receive(frame, bytes), MORAY_OK);
    ck_assert_uint_eq(told_count, 1);
}
END_TEST

START_TEST(a_wrong_length_is_refused)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    size_t bytes;

    ck_assert_int_eq(stream_push(a, 1, "twelve bytes", 12), MORAY_OK);
    bytes = carry(frame);
    for (size_t length = 0; length < bytes + 100; length++)
        if (length != bytes)
            ck_assert_msg(receive(frame, length) == MORAY_PROTOCOL, "length %zu", length);
    ck_assert_int_eq(receive(frame, (size_t)STREAM_FRAME_MAX + 1), MORAY_PROTOCOL);
    ck_assert_uint_eq(told_count, 0);
}
END_TEST

START_TEST(a_replay_is_refused)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    size_t bytes;

    ck_assert_int_eq(stream_push(a, 1, "once", 4), MORAY_OK);
    bytes = carry(frame);
    ck_assert_int_eq(receive(frame, bytes), MORAY_OK);
    ck_assert_int_eq(receive(frame, bytes), MORAY_PROTOCOL);
    ck_assert_uint_eq(told_count, 1);
}
END_TEST

/* A frame sent back to its sender, or to a third rank, proves nothing there. */
START_TEST(a_frame_is_for_one_rank_only)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    struct stream *c = create(2, secret, SPACE);
    size_t bytes;

    ck_assert_int_eq(stream_push(a, 1, "for rank 1", 10), MORAY_OK);
    bytes = carry(frame);
    ck_assert_int_eq(stream_receive(c, frame, bytes, &handler, NULL), MORAY_PROTOCOL);
    ck_assert_int_eq(stream_receive(a, frame, bytes, &handler, NULL), MORAY_PROTOCOL);
    ck_assert_uint_eq(told_count, 0);
    stream_destroy(c);
}
END_TEST

START_TEST(another_job_is_refused)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    uint8_t other[AUTH_SECRET_BYTES];
    struct stream *c;
    struct stream_slot *slot;

    memcpy(other, secret, sizeof(other));
    other[31] ^= 1;
    c = create(0, other, SPACE);
    ck_assert_int_eq(stream_push(c, 1, "hello", 5), MORAY_OK);
    slot = stream_first(c, 1);
    memcpy(frame, slot->frame, slot->bytes);
    ck_assert_int_eq(receive(frame, slot->bytes), MORAY_PROTOCOL);
    stream_destroy(c);
}
END_TEST

START_TEST(the_bound_says_busy_and_sending_frees_it)
{
    struct stream *c = create(0, secret, 100000);
    uint8_t *bytes = calloc(1, SPACE);
    struct stream_slot *slot;

    ck_assert_int_eq(stream_push(c, 1, bytes, SPACE),
                     MORAY_OK); /* an empty peer takes any message */
    ck_assert_int_eq(stream_push(c, 1, bytes, 1), MORAY_BUSY);
    ck_assert_int_eq(stream_push(c, 2, bytes, 50000),
                     MORAY_OK); /* another peer has its own bound */
    ck_assert_int_eq(stream_push(c, 2, bytes, 50000), MORAY_BUSY);
    while ((slot = stream_first(c, 1))) {
        stream_posted(c, 1);
        stream_sent(c, slot);
    }
    ck_assert_int_eq(stream_push(c, 1, bytes, 1), MORAY_OK);
    free(bytes);
    stream_destroy(c);
}
END_TEST

START_TEST(a_dropped_peer_takes_and_gives_nothing)
{
    uint64_t frame[STREAM_FRAME_MAX / 8 + 1];
    const uint32_t *waiting;
    uint8_t *bytes = calloc(1, SPACE);
    size_t count;

    ck_assert_int_eq(stream_push(a, 1, bytes, SPACE), MORAY_OK);
    ck_assert_int_eq(stream_push(a, 2, bytes, 100), MORAY_OK);
    count = carry(frame);
    struct stream_slot *posted = stream_first(a, 1);
    stream_posted(a, 1); /* the carrier has it over the drop */
    stream_drop(a, 1);
    stream_sent(a, posted);
    ck_assert_int_eq(stream_push(a, 1, bytes, 1), MORAY_LOST);
    ck_assert_uint_eq(stream_waiting(a, &waiting), 1);
    ck_assert_uint_eq(waiting[0], 2);
    ck_assert_uint_eq(stream_unsent(a), 1);
    stream_drop(b, 0);
    ck_assert_int_eq(receive(frame, count), MORAY_LOST);
    ck_assert_uint_eq(told_count, 0);
    free(bytes);
}
END_TEST

/* A frame that its carrier is slow with (a rendezvous) is not left behind without end. */
START_TEST(no_frame_runs_far_ahead_of_an_unsent_one)
{
    struct stream_slot *oldest, *slot;

    for (int i = 0; i < 2 * STREAM_AHEAD_MAX; i++)
        ck_assert_int_eq(stream_push(a, 1, "frame", 5), MORAY_OK);
    oldest = stream_first(a, 1);
    stream_posted(a, 1);
    for (int i = 1; i < STREAM_AHEAD_MAX; i++) {
        slot = stream_first(a, 1);
        ck_assert_ptr_nonnull(slot);
        stream_posted(a, 1);
        stream_sent(a, slot);
    }
    ck_assert_ptr_null(stream_first(a, 1));
    stream_sent(a, oldest);
    ck_assert_ptr_nonnull(stream_first(a, 1));
}
END_TEST

/* A peer that does not take its frames leaves room in the carrier's queues. */
START_TEST(the_carrier_has_few_frames_of_a_peer)
{
    struct stream_slot *posted[STREAM_POSTED_MAX];

    for (int i = 0; i < 2 * STREAM_POSTED_MAX; i++)
        ck_assert_int_eq(stream_push(a, 1, "frame", 5), MORAY_OK);
    for (int i = 0; i < STREAM_POSTED_MAX; i++) {
        posted[i] = stream_first(a, 1);
        ck_assert_ptr_nonnull(posted[i]);
        stream_posted(a, 1);
    }
    ck_assert_ptr_null(stream_first(a, 1));
    stream_sent(a, posted[3]);
    ck_assert_ptr_nonnull(stream_first(a, 1));
    for (int i = 0; i < STREAM_POSTED_MAX; i++)
        if (i != 3)
            stream_sent(a, posted[i]);
}
END_TEST

static int slots_alive;

static enum moray_code slot_made(void *context, struct stream_slot *slot, size_t bytes)
{
    (void)context;
    (void)slot;
    (void)bytes;
    slots_alive++;
    return MORAY_OK;
}

static void slot_freed(void *context, struct stream_slot *slot)
{
    (void)context;
    (void)slot;
    slots_alive--;
}

/* In steady state nothing is allocated: a thousand messages pass through the slots of the first. */
START_TEST(slots_are_used_again)
{
    struct stream_options options = {.secret = secret,
                                     .rank_count = RANK_COUNT,
                                     .in_flight_bytes_max = SPACE,
                                     .slot_made = slot_made,
                                     .slot_freed = slot_freed};
    struct stream *c;
    uint8_t bytes[5000] = {0};

    slots_alive = 0;
    ck_assert_int_eq(stream_create(&options, &c, NULL), MORAY_OK);
    for (int i = 0; i < 1000; i++) {
        ck_assert_int_eq(stream_push(c, 1, bytes, i % 2 ? 10 : sizeof(bytes)), MORAY_OK);
        struct stream_slot *slot = stream_first(c, 1);
        stream_posted(c, 1);
        stream_sent(c, slot);
    }
    ck_assert_int_eq(slots_alive, 2);
    stream_destroy(c);
    ck_assert_int_eq(slots_alive, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("fabric/stream");
    TCase *laws = tcase_create("laws");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, every_length_arrives_whole);
    tcase_add_loop_test(laws, overtaking_changes_nothing, 0, SEED_COUNT);
    tcase_add_test(laws, a_changed_bit_anywhere_is_refused);
    tcase_add_test(laws, a_wrong_length_is_refused);
    tcase_add_test(laws, a_replay_is_refused);
    tcase_add_test(laws, a_frame_is_for_one_rank_only);
    tcase_add_test(laws, another_job_is_refused);
    tcase_add_test(laws, the_bound_says_busy_and_sending_frees_it);
    tcase_add_test(laws, a_dropped_peer_takes_and_gives_nothing);
    tcase_add_test(laws, no_frame_runs_far_ahead_of_an_unsent_one);
    tcase_add_test(laws, the_carrier_has_few_frames_of_a_peer);
    tcase_add_test(laws, slots_are_used_again);
    tcase_set_timeout(laws, 20);
    suite_add_tcase(suite, laws);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
