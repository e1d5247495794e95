#include <string.h>

#include "gcs/pubsub.h"
#include "tests/unit/fault.h"
#include "tests/unit/law.h"

static struct pubsub *pubsub;
static struct pubsub_delivery delivery;
static struct moray_error error;

static enum moray_code subscribe(const char *channel, struct pubsub_who who)
{
    return pubsub_subscribe(pubsub, channel, strlen(channel), &who, &error);
}

static uint64_t publish(const char *channel, const char *text)
{
    uint64_t reached;

    ck_assert_int_eq(
        pubsub_publish(pubsub, channel, strlen(channel), text, strlen(text), &reached, &error),
        MORAY_OK);
    return reached;
}

static bool delivers(struct pubsub_who who, const char *text, uint64_t lost)
{
    return pubsub_next(pubsub, &who, &delivery) && delivery.bytes == strlen(text) &&
           memcmp(delivery.data, text, delivery.bytes) == 0 && delivery.lost_count == lost;
}

static const struct pubsub_who a = {1, 0, 7}, b = {2, 3, 7};

static void setup(void)
{
    ck_assert_int_eq(pubsub_create(&(struct pubsub_options){.window_max = 2,
                                                            .backlog_max = 3,
                                                            .backlog_bytes_max = 100,
                                                            .message_bytes_max = 60,
                                                            .subscriber_max = 40},
                                   &pubsub, NULL),
                     MORAY_OK);
}

static void teardown(void)
{
    pubsub_destroy(pubsub);
}

START_TEST(a_subscriber_gets_what_is_published_after_it_subscribed)
{
    ck_assert_uint_eq(publish("c", "before"), 0);
    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    ck_assert_uint_eq(publish("c", "one"), 1);
    ck_assert_int_eq(subscribe("c", b), MORAY_OK);
    ck_assert_uint_eq(publish("c", "two"), 2);
    ck_assert_uint_eq(publish("d", "other"), 0);
    ck_assert(delivers(a, "one", 0));
    ck_assert(delivers(b, "two", 0));
    ck_assert(delivers(a, "two", 0) && delivery.sequence == 2);
    ck_assert(!pubsub_next(pubsub, &a, &delivery));
}
END_TEST

START_TEST(the_window_opens_by_acknowledgement)
{
    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    publish("c", "1");
    publish("c", "2");
    publish("c", "3");
    ck_assert(delivers(a, "1", 0) && delivers(a, "2", 0) && !pubsub_next(pubsub, &a, &delivery));
    ck_assert(!pubsub_acknowledge(pubsub, &a, 3)); /* never sent */
    ck_assert(!pubsub_acknowledge(pubsub, &b, 0)); /* no subscriber */
    ck_assert(pubsub_acknowledge(pubsub, &a, 1) && delivers(a, "3", 0));
    ck_assert(pubsub_acknowledge(pubsub, &a, 3));
    publish("c", "4");
    publish("c", "5");
    ck_assert(pubsub_acknowledge(pubsub, &a, 1)); /* late: it takes nothing back */
    ck_assert(delivers(a, "4", 0) && delivers(a, "5", 0) && !pubsub_next(pubsub, &a, &delivery));
}
END_TEST

START_TEST(what_is_dropped_is_counted_before_the_next)
{
    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    for (const char *text = "1234567"; *text; text++)
        publish("c", (char[]){*text, 0}); /* a backlog of 3: 1 to 4 are dropped */
    ck_assert(delivers(a, "5", 4) && delivers(a, "6", 0));
    ck_assert(pubsub_acknowledge(pubsub, &a, 2) && delivers(a, "7", 0));
}
END_TEST

START_TEST(a_backlog_is_bounded_in_bytes_too)
{
    char large[61] = "";

    memset(large, 'x', 60);
    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    publish("c", large);
    publish("c", large);
    ck_assert(delivers(a, large, 1) && !pubsub_next(pubsub, &a, &delivery));
    ck_assert_int_eq(pubsub_publish(pubsub, "c", 1, large, 61, NULL, &error), MORAY_INVALID);
    ck_assert_ptr_nonnull(strstr(error.text, "message_bytes_max"));
}
END_TEST

START_TEST(a_process_or_rank_that_is_gone_gets_nothing)
{
    struct pubsub_who other = {1, 1, 7}, third = {1, 1, 8};

    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    ck_assert_int_eq(subscribe("c", b), MORAY_OK);
    ck_assert_int_eq(subscribe("c", other), MORAY_OK);
    ck_assert_int_eq(subscribe("d", third), MORAY_OK);
    publish("c", "x");
    pubsub_process_gone(pubsub, 1, 1);
    ck_assert_uint_eq(pubsub_subscriber_count(pubsub), 2);
    ck_assert(!pubsub_next(pubsub, &other, &delivery));
    pubsub_rank_lost(pubsub, 2);
    ck_assert(!pubsub_next(pubsub, &b, &delivery));
    ck_assert(delivers(a, "x", 0) && !pubsub_next(pubsub, &a, &delivery));
    ck_assert(pubsub_unsubscribe(pubsub, &a) && !pubsub_unsubscribe(pubsub, &a));
    ck_assert_uint_eq(pubsub_message_count(pubsub), 0);
}
END_TEST

START_TEST(mistakes_are_refused_by_name)
{
    char large[300] = "";

    memset(large, 'x', 299);
    ck_assert_int_eq(subscribe("", a), MORAY_INVALID);
    ck_assert_int_eq(subscribe(large, a), MORAY_INVALID);
    ck_assert_int_eq(subscribe("c", a), MORAY_OK);
    ck_assert_int_eq(subscribe("d", a), MORAY_EXISTS);
    enum moray_code code = MORAY_OK;
    for (uint32_t i = 0; code == MORAY_OK && i < 100; i++)
        code = subscribe("c", (struct pubsub_who){9, 9, i});
    ck_assert_int_eq(code, MORAY_BUSY);
    ck_assert_ptr_nonnull(strstr(error.text, "subscriber_max"));
}
END_TEST

/* Messages are numbers that go up by one a channel, so a subscriber sees what it missed. */
START_TEST(in_any_history_nothing_is_lost_untold)
{
    enum { WHO = 6, CHANNELS = 3 };
    uint64_t seed = (uint64_t)_i + 1;
    uint32_t published[CHANNELS] = {0}, expected[WHO] = {0};
    uint64_t taken[WHO] = {0};
    bool subscribed[WHO] = {false};

    for (int event = 0; event < 3000; event++) {
        uint32_t who = law_random(&seed, WHO), channel = who % CHANNELS;
        struct pubsub_who name = {who / 2, who % 2, 1};
        char text[2] = {(char)('a' + channel), 0};
        switch (law_random(&seed, 8)) {
        case 0:
            if (!subscribed[who]) {
                ck_assert_int_eq(subscribe(text, name), MORAY_OK);
                subscribed[who] = true;
                expected[who] = published[channel];
                taken[who] = 0;
            } else if (law_random(&seed, 10) == 0) {
                ck_assert(pubsub_unsubscribe(pubsub, &name));
                subscribed[who] = false;
            }
            break;
        case 1:
        case 2:
            if (subscribed[who])
                ck_assert(pubsub_acknowledge(pubsub, &name, taken[who]));
            break;
        case 3:
        case 4:
            ck_assert_int_eq(pubsub_publish(pubsub, text, 1, &published[channel],
                                            sizeof(*published), NULL, &error),
                             MORAY_OK);
            published[channel]++;
            break;
        default:
            if (pubsub_next(pubsub, &name, &delivery)) {
                uint32_t number;
                memcpy(&number, delivery.data, sizeof(number));
                LAW(subscribed[who] && expected[who] + delivery.lost_count == number, _i, event);
                LAW(delivery.sequence == ++taken[who], _i, event);
                expected[who] = number + 1;
            }
        }
    }
    for (uint32_t rank = 0; rank < WHO; rank++)
        pubsub_rank_lost(pubsub, rank);
    ck_assert(!pubsub_next(pubsub, &a, &delivery)); /* gives the last message back, too */
    ck_assert_uint_eq(pubsub_message_count(pubsub), 0);
    ck_assert_uint_eq(pubsub_subscriber_count(pubsub), 0);
}
END_TEST

START_TEST(a_failed_allocation_changes_nothing)
{
    for (fault_first(); fault_again(); fault_next()) {
        struct pubsub *own;
        if (FAULTY(pubsub_create(&(struct pubsub_options){0}, &own, &error)) == MORAY_OK) {
            enum moray_code code = FAULTY(pubsub_subscribe(own, "c", 1, &a, &error));
            ck_assert_uint_eq(pubsub_subscriber_count(own), code == MORAY_OK);
            if (code == MORAY_OK) {
                code = FAULTY(pubsub_publish(own, "c", 1, "x", 1, NULL, &error));
                ck_assert_uint_eq(pubsub_message_count(own), code == MORAY_OK);
            }
            ck_assert(code == MORAY_OK || code == MORAY_NO_MEMORY);
            FAULTY((pubsub_destroy(own), 0));
        }
        ck_assert_int_eq(fault_blocks, 0);
    }
}
END_TEST

int main(void)
{
    TCase *laws = tcase_create("laws");

    tcase_add_checked_fixture(laws, setup, teardown);
    tcase_add_test(laws, a_subscriber_gets_what_is_published_after_it_subscribed);
    tcase_add_test(laws, the_window_opens_by_acknowledgement);
    tcase_add_test(laws, what_is_dropped_is_counted_before_the_next);
    tcase_add_test(laws, a_backlog_is_bounded_in_bytes_too);
    tcase_add_test(laws, a_process_or_rank_that_is_gone_gets_nothing);
    tcase_add_test(laws, mistakes_are_refused_by_name);
    tcase_add_loop_test(laws, in_any_history_nothing_is_lost_untold, 0, 50);
    tcase_add_test(laws, a_failed_allocation_changes_nothing);
    return law_run("gcs/pubsub", laws);
}
