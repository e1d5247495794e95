/**
 * Keys and values, publish and subscribe, from any process of the job: semantics.md 43 and 44.
 */
#include <malloc.h>

#include "law.h"

typedef struct {
    char text[40];
} word;

static word say(const char *text)
{
    word w = {""};
    snprintf(w.text, sizeof(w.text), "%s", text);
    return w;
}

MORAY_TASK(int32_t, puts_key, (word, key), (int32_t, value))
{
    return (int32_t)moray_kv_put("law", key.text, &value, sizeof(value), 0);
}

MORAY_TASK(int32_t, reads_key, (word, key))
{
    int32_t value = -1;
    size_t size;
    if (moray_kv_get("law", key.text, &value, sizeof(value), &size) != MORAY_OK)
        return -1;
    return value;
}

MORAY_TASK(int32_t, adds, (word, key), (int32_t, times))
{
    int64_t sum;
    for (int32_t i = 0; i < times; i++)
        if (moray_kv_add("law", key.text, 1, &sum) != MORAY_OK)
            return 1;
    return 0;
}

/* Raises a number by compare-and-swap, as often as it is told. */
MORAY_TASK(int32_t, swaps, (word, key), (int32_t, times))
{
    int32_t lost = 0;
    while (times > 0) {
        int32_t now = 0, next;
        size_t size;
        enum moray_code code = moray_kv_get("law", key.text, &now, sizeof(now), &size);
        bool some = code == MORAY_OK;
        next = now + 1;
        code = moray_kv_swap("law", key.text, some ? &now : NULL, some ? sizeof(now) : 0, &next,
                             sizeof(next));
        if (code == MORAY_OK)
            times--;
        else if (code != MORAY_EXISTS && code != MORAY_NOT_FOUND)
            return -1;
        else
            lost++;
    }
    return lost;
}

typedef struct {
    int32_t publisher, number;
} note;

MORAY_TASK(int32_t, publishes, (word, channel), (int32_t, publisher), (int32_t, count))
{
    for (int32_t i = 0; i < count; i++) {
        note n = {publisher, i};
        enum moray_code code = moray_publish(channel.text, &n, sizeof(n));
        if (code != MORAY_OK) {
            moray_fail(code, "%s", last_story());
            return 0;
        }
    }
    return count;
}

MORAY_TASK(int32_t, subscribes, (word, channel), (word, ready), (int32_t, count))
{
    moray_subscription *subscription;
    int32_t got = 0, next = 0, one = 1;
    if (moray_subscribe(channel.text, &subscription) != MORAY_OK)
        return -1;
    moray_kv_put("law", ready.text, &one, sizeof(one), 0);
    while (got < count) {
        note n;
        size_t size;
        uint64_t lost;
        if (moray_next(subscription, &n, sizeof(n), &size, &lost, 5000) != MORAY_OK || lost ||
            size != sizeof(n) || n.number != next)
            break;
        got++;
        next++;
    }
    moray_unsubscribe(subscription);
    return got;
}

static void keys_are_put_got_and_deleted(void)
{
    char value[64];
    size_t size;
    char *large = calloc(1, (1 << 20) + 1);

    DEMAND_OK(moray_kv_put("a", "key", "one", 4, 0));
    DEMAND_OK(moray_kv_put("b", "key", "two", 4, 0)); /* another namespace */
    DEMAND_OK(moray_kv_get("a", "key", value, sizeof(value), &size));
    DEMAND(size == 4 && !strcmp(value, "one"));
    DEMAND_OK(moray_kv_get("b", "key", value, sizeof(value), &size));
    DEMAND(!strcmp(value, "two"));
    DEMAND_CODE(moray_kv_put("a", "key", "uno", 4, MORAY_IF_ABSENT), MORAY_EXISTS);
    DEMAND_OK(moray_kv_put("a", "key", "eins", 5, 0));
    DEMAND_CODE(moray_kv_get("a", "key", value, 3, &size), MORAY_FULL);
    DEMAND_SAME(size, 5);
    DEMAND_OK(moray_kv_put("a", "", "", 0, MORAY_IF_ABSENT)); /* empty key, empty value */
    DEMAND_OK(moray_kv_get("a", "", value, sizeof(value), &size));
    DEMAND_SAME(size, 0);
    DEMAND_OK(moray_kv_delete("a", "key"));
    DEMAND_CODE(moray_kv_delete("a", "key"), MORAY_NOT_FOUND);
    DEMAND_CODE(moray_kv_get("a", "key", value, sizeof(value), &size), MORAY_NOT_FOUND);
    DEMAND_NAMES(last_story(), "key");
    DEMAND_OK(moray_kv_delete("a", ""));
    DEMAND_OK(moray_kv_delete("b", "key"));
    DEMAND_OK(moray_kv_put("a", "large", large, 1 << 20, 0));
    DEMAND_CODE(moray_kv_put("a", "larger", large, (1 << 20) + 1, 0), MORAY_INVALID);
    DEMAND_OK(moray_kv_delete("a", "large"));
    DEMAND_CODE(moray_kv_put(NULL, "key", "x", 1, 0), MORAY_INVALID);
    DEMAND_CODE(moray_kv_put("a", NULL, "x", 1, 0), MORAY_INVALID);
    DEMAND_CODE(moray_kv_put("a", "key", NULL, 1, 0), MORAY_INVALID);
    DEMAND_CODE(moray_kv_put("a", "key", "x", 1, 64), MORAY_INVALID);
    free(large);
}

static void an_error_names_key_and_namespace(void)
{
    char value[8], *keys;
    int64_t sum;

    DEMAND_OK(moray_kv_put("town", "mayor", "abc", 3, 0));
    for (int i = 0; i < 6; i++) {
        enum moray_code code = i == 0   ? moray_kv_put("town", "mayor", "x", 1, MORAY_IF_ABSENT)
                               : i == 1 ? moray_kv_get("town", "mayor", value, 2, NULL)
                               : i == 2 ? moray_kv_add("town", "mayor", 1, &sum)
                               : i == 3 ? moray_kv_swap("town", "mayor", "d", 1, "e", 1)
                               : i == 4 ? moray_kv_put("town", "mayor", "x", 2 << 20, 0)
                                        : moray_kv_put("town", "mayor", NULL, 8, 0);
        DEMAND(code != MORAY_OK);
        DEMAND_NAMES(last_story(), "key \"mayor\" of \"town\": ");
    }
    DEMAND_OK(moray_kv_delete("town", "mayor"));
    DEMAND_CODE(moray_kv_delete("town", "mayor"), MORAY_NOT_FOUND);
    DEMAND_NAMES(last_story(), "key \"mayor\" of \"town\": ");
    DEMAND_CODE(moray_kv_get("town", "mayor", value, 8, NULL), MORAY_NOT_FOUND);
    DEMAND_NAMES(last_story(), "key \"mayor\" of \"town\": ");
    DEMAND_CODE(moray_kv_get("town", "mayor", NULL, 8, NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "null pointer");
    DEMAND_CODE(moray_kv_put("town", NULL, "x", 1, 0), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "null key");
    DEMAND_CODE(moray_kv_list(NULL, "m", &keys, NULL), MORAY_INVALID);
    DEMAND_NAMES(last_story(), "null namespace");
    DEMAND_CODE(moray_kv_list("town", "m", NULL, NULL), MORAY_INVALID);
}

static void a_message_needs_a_place(void)
{
    moray_subscription *subscription;
    char data[8];
    size_t size;

    DEMAND_OK(moray_subscribe("placeless", &subscription));
    DEMAND_OK(moray_publish("placeless", "four", 4));
    DEMAND_CODE(moray_next(subscription, NULL, 8, &size, NULL, 5000), MORAY_INVALID);
    DEMAND_OK(moray_next(subscription, data, sizeof(data), &size, NULL, 5000));
    DEMAND(size == 4 && !memcmp(data, "four", 4));
    moray_unsubscribe(subscription);
}

static void keys_are_listed_by_prefix(void)
{
    char *keys, key[24];
    size_t count, seen = 0;

    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "x%03d", i);
        DEMAND_OK(moray_kv_put("list", key, "", 0, 0));
    }
    DEMAND_OK(moray_kv_put("list", "y", "", 0, 0));
    DEMAND_OK(moray_kv_list("list", "x", &keys, &count));
    DEMAND_SAME(count, 300);
    for (const char *at = keys; seen < count; at += strlen(at) + 1, seen++) {
        snprintf(key, sizeof(key), "x%03zu", seen);
        DEMAND(!strcmp(at, key));
    }
    free(keys);
    DEMAND_OK(moray_kv_list("list", "nothing", &keys, &count));
    DEMAND_SAME(count, 0);
    free(keys);
    DEMAND_OK(moray_kv_list("list", "", &keys, &count));
    DEMAND_SAME(count, 301);
    free(keys);
}

static void counters_add_in_one_step(void)
{
    moray_ref refs[16];
    int64_t sum;

    for (int i = 0; i < 16; i++)
        refs[i] = moray_call_with((.on_rank = on_node(i)), adds, say("counter"), 50);
    for (int i = 0; i < 16; i++)
        DEMAND_SAME(moray_take_as(int32_t, refs[i]), 0);
    DEMAND_OK(moray_kv_add("law", "counter", -800, &sum));
    DEMAND_SAME(sum, 0);
    DEMAND_OK(moray_kv_add("law", "big", INT64_MAX, &sum));
    DEMAND_CODE(moray_kv_add("law", "big", 1, &sum), MORAY_INVALID);
    DEMAND_OK(moray_kv_put("law", "text", "abc", 3, 0));
    DEMAND_CODE(moray_kv_add("law", "text", 1, &sum), MORAY_WRONG_TYPE);
}

static void swaps_are_one_step(void)
{
    moray_ref refs[8];
    int32_t value = 0;
    size_t size;

    DEMAND_CODE(moray_kv_swap("law", "none", "a", 1, "b", 1), MORAY_NOT_FOUND);
    DEMAND_OK(moray_kv_swap("law", "none", NULL, 0, "b", 1));
    DEMAND_CODE(moray_kv_swap("law", "none", NULL, 0, "c", 1), MORAY_EXISTS);
    DEMAND_CODE(moray_kv_swap("law", "none", "a", 1, "c", 1), MORAY_EXISTS);
    DEMAND_OK(moray_kv_swap("law", "none", "b", 1, "c", 1));
    for (int i = 0; i < 8; i++)
        refs[i] = moray_call_with((.on_rank = on_node(i)), swaps, say("swapped"), 20);
    for (int i = 0; i < 8; i++)
        DEMAND(moray_take_as(int32_t, refs[i]) >= 0);
    DEMAND_OK(moray_kv_get("law", "swapped", &value, sizeof(value), &size));
    DEMAND_SAME(value, 160);
}

/* What goes to rank 0 and back must fit in a message, from whatever rank it is asked. */
enum { MIB = 1 << 20 };

MORAY_TASK(int32_t, asks_for_much, (int32_t, key_bytes))
{
    char *large = calloc(1, MIB), *key = malloc((size_t)key_bytes + 1), *keys = NULL;
    int32_t code = MORAY_OK;
    size_t size;

    memset(key, 'k', (size_t)key_bytes);
    key[key_bytes] = '\0';
    code = code ? code : (int32_t)moray_kv_put("much", "key", large, MIB, 0);
    code = code ? code : (int32_t)moray_kv_swap("much", "key", large, MIB, large, MIB);
    code = code ? code : (int32_t)moray_kv_get("much", "key", large, MIB, &size);
    code = code ? code : (int32_t)moray_kv_delete("much", "key");
    if (!code && moray_kv_delete("much", key) != MORAY_INVALID && moray_ranks() > 1)
        code = -1;
    if (!code && moray_publish(key, large, MIB) != MORAY_INVALID && moray_ranks() > 1)
        code = -2;
    code = code ? code : (int32_t)moray_kv_list("many", "", &keys, NULL);
    free(large);
    free(key);
    free(keys);
    return code;
}

static void what_does_not_fit_in_a_message_is_refused(void)
{
    enum { KEYS = 700, KEY_BYTES = 4000 };
    static char key[KEY_BYTES + 1];
    char *keys;
    size_t count;

    for (int i = 0; i < KEYS; i++) {
        memset(key, 'x', KEY_BYTES);
        memcpy(key + snprintf(key, sizeof(key), "%03d", i), "x", 1);
        DEMAND_OK(moray_kv_put("many", key, "", 0, 0));
    }
    for (int node = 0; node < node_count(); node++)
        DEMAND_SAME(moray_take_as(int32_t, moray_call_with((.on_rank = on_node(node)),
                                                           asks_for_much, 3 * MIB)),
                    moray_ranks() > 1 ? MORAY_FULL : MORAY_OK);
    DEMAND_CODE(moray_kv_list("many", "", &keys, &count),
                moray_ranks() > 1 ? MORAY_FULL : MORAY_OK);
    if (moray_ranks() > 1)
        DEMAND_NAMES(last_story(), "prefix");
    free(keys);
    DEMAND_OK(moray_kv_list("many", "1", &keys, &count));
    DEMAND_SAME(count, 100);
    free(keys);
}

static void any_process_can_use_it(void)
{
    for (int node = 0; node < node_count(); node++) {
        word key = say("from a task");
        moray_ref put = moray_call_with((.on_rank = on_node(node)), puts_key, key, node + 5);
        DEMAND_SAME(moray_take_as(int32_t, put), 0);
        for (int other = 0; other < node_count(); other++) {
            moray_ref got = moray_call_with((.on_rank = on_node(other)), reads_key, key);
            DEMAND_SAME(moray_take_as(int32_t, got), node + 5);
        }
    }
}

static void a_subscriber_gets_every_message_in_order(void)
{
    enum { PUBLISHERS = 4, MESSAGES = 100 };
    moray_subscription *subscription, *late;
    moray_ref refs[PUBLISHERS];
    int32_t next[PUBLISHERS] = {0};
    note n;
    size_t size;
    uint64_t lost;
    char small[1];

    DEMAND_OK(moray_publish("news", "before", 6)); /* before it subscribed: not for it */
    DEMAND_OK(moray_subscribe("news", &subscription));
    DEMAND_CODE(moray_next(subscription, &n, sizeof(n), &size, &lost, 20), MORAY_TIMEOUT);
    DEMAND_CODE(moray_next(subscription, &n, sizeof(n), &size, &lost, MORAY_NOW), MORAY_TIMEOUT);
    DEMAND_OK(moray_publish("other news", "x", 1));
    for (int i = 0; i < PUBLISHERS; i++)
        refs[i] = moray_call_with((.on_rank = on_node(i)), publishes, say("news"), i, MESSAGES);
    for (int i = 0; i < PUBLISHERS * MESSAGES; i++) {
        DEMAND_OK(moray_next(subscription, &n, sizeof(n), &size, &lost, 5000));
        DEMAND_SAME(size, sizeof(n));
        DEMAND_SAME(lost, 0);
        DEMAND(n.publisher >= 0 && n.publisher < PUBLISHERS);
        DEMAND_SAME(n.number, next[n.publisher]++);
    }
    for (int i = 0; i < PUBLISHERS; i++)
        DEMAND_SAME(moray_take_as(int32_t, refs[i]), MESSAGES);
    /* room too small: the message stays */
    DEMAND_OK(moray_publish("news", &n, sizeof(n)));
    DEMAND_CODE(moray_next(subscription, small, 1, &size, NULL, 5000), MORAY_FULL);
    DEMAND_SAME(size, sizeof(n));
    DEMAND_OK(moray_next(subscription, &n, sizeof(n), &size, NULL, 5000));
    /* a late subscriber gets nothing of the past */
    DEMAND_OK(moray_subscribe("news", &late));
    DEMAND_CODE(moray_next(late, &n, sizeof(n), &size, &lost, 20), MORAY_TIMEOUT);
    moray_unsubscribe(late);
    moray_unsubscribe(subscription);
    moray_unsubscribe(NULL);
}

static void a_task_can_subscribe(void)
{
    for (int node = 0; node < node_count(); node++) {
        word channel = say("to a task"), ready = say("subscribed");
        char value[8];
        size_t size;
        DEMAND(moray_kv_delete("law", ready.text) != MORAY_INVALID);
        moray_ref got = moray_call_with((.on_rank = on_node(node)), subscribes, channel, ready, 50);
        while (moray_kv_get("law", ready.text, value, sizeof(value), &size) == MORAY_NOT_FOUND)
            law_sleep_ms(1);
        for (int i = 0; i < 50; i++) {
            note n = {0, i};
            DEMAND_OK(moray_publish(channel.text, &n, sizeof(n)));
        }
        DEMAND_SAME(moray_take_as(int32_t, got), 50);
    }
}

enum { PIECE = 512 << 10, PIECES = 20 };

/* Rank 0's agent is a thread of the driver's process: what it keeps is found here. */
static int64_t heap_bytes(void)
{
    struct mallinfo2 info = mallinfo2();
    return (int64_t)(info.uordblks + info.hblkhd);
}

static void publish_pieces(const char *channel)
{
    char *piece = calloc(1, PIECE);
    for (int i = 0; i < PIECES; i++)
        DEMAND_OK(moray_publish(channel, piece, PIECE));
    free(piece);
}

static void what_nobody_took_goes_with_its_subscription(void)
{
    char *piece = calloc(1, PIECE);
    moray_subscription *subscription;
    size_t size;

    publish_pieces("pieces"); /* what the first ones need, they keep */
    int64_t before = heap_bytes();
    DEMAND_OK(moray_subscribe("pieces", &subscription));
    publish_pieces("pieces");
    DEMAND_OK(moray_next(subscription, piece, PIECE, &size, NULL, 5000));
    moray_unsubscribe(subscription);
    DEMAND(heap_bytes() - before < PIECES * PIECE / 2);
    free(piece);
}

MORAY_TASK(int32_t, ends_subscribed, (word, channel), (bool, asks))
{
    moray_subscription *subscription;
    char byte;
    size_t size;
    if (moray_subscribe(channel.text, &subscription) != MORAY_OK)
        return -1;
    if (asks && moray_next(subscription, &byte, 1, &size, NULL, 20) != MORAY_TIMEOUT)
        return -2;
    raise(SIGKILL);
    return 0;
}

static void nothing_is_kept_for_a_process_that_ended(void)
{
    int32_t value;

    publish_pieces("the dead's");
    int64_t before = heap_bytes();
    for (int i = 0; i < 2 * node_count(); i++) {
        moray_ref ref = moray_call_with((.on_rank = on_node(i / 2), .attempts = 1), ends_subscribed,
                                        say("the dead's"), i % 2 == 0);
        DEMAND_CODE(moray_get(ref, &value, 10000), MORAY_DIED);
        moray_release(ref);
    }
    for (uint64_t until = law_ms() + 5000;;) { /* its rank tells rank 0 after the task's end */
        publish_pieces("the dead's");
        if (heap_bytes() - before < PIECES * PIECE / 2)
            return;
        DEMAND(law_ms() < until);
        law_sleep_ms(20);
    }
}

static const struct law laws[] = {
    {"line 43: keys are put, got and deleted", keys_are_put_got_and_deleted, 10},
    {"line 43: an error names key and namespace", an_error_names_key_and_namespace, 10},
    {"line 43: a message needs a place", a_message_needs_a_place, 15},
    {"line 43: keys are listed by prefix", keys_are_listed_by_prefix, 20},
    {"line 43: counters add in one step", counters_add_in_one_step, 20},
    {"line 43: compare and swap is one step", swaps_are_one_step, 20},
    {"line 43: what does not fit in a message is refused",
     what_does_not_fit_in_a_message_is_refused, 30},
    {"line 44: any process of the job can use it", any_process_can_use_it, 10},
    {"line 43: a subscriber gets every message, in each publisher's order",
     a_subscriber_gets_every_message_in_order, 20},
    {"line 44: a task can subscribe", a_task_can_subscribe, 20},
    {"line 43: what nobody took goes with its subscription",
     what_nobody_took_goes_with_its_subscription, 20},
    {"line 43: nothing is kept for a process that ended subscribed",
     nothing_is_kept_for_a_process_that_ended, 20},
};

int main(int argc, char **argv)
{
    return laws_main(argc, argv, laws, COUNT_OF(laws));
}
