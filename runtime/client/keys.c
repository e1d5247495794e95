#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/process.h"
#include "client/requests.h"

/* Keys and values, publish and subscribe: requests to the GCS at rank 0, by way of the agent. */

enum { VALUE_BYTES_MAX = 1 << 20 };

struct moray_subscription {
    uint64_t id, taken;
    char *kept; /* a message that found too little room */
    struct answer_next kept_head;
    uint32_t asked; /* record + 1 of the question that is open; 0: none */
};

static uint32_t question_open(moray_subscription *subscription);

/* The last story is of this key: who told it did not know. */
static enum moray_code kv_failed(enum moray_code code, const char *space, const char *key)
{
    struct moray_error why;
    const char *story;

    moray_last(&story);
    snprintf(why.text, sizeof(why.text), "%s", story);
    return last_set(code, "key \"%.80s\" of \"%.80s\": %s", key, space, why.text);
}

static enum moray_code kv_check(const void *expected, size_t expected_size, const void *value,
                                size_t size)
{
    if (!value && size)
        return last_set(MORAY_INVALID, "a null value of %zu bytes", size);
    if (!expected && expected_size)
        return last_set(MORAY_INVALID, "a null expected value of %zu bytes", expected_size);
    if (size > VALUE_BYTES_MAX || expected_size > VALUE_BYTES_MAX)
        return last_set(MORAY_INVALID, "a value of %zu bytes; at most 1 MiB: put what is larger",
                        size > expected_size ? size : expected_size);
    return MORAY_OK;
}

static enum moray_code kv_call(enum request_kv_operation operation, unsigned flags,
                               const char *space, const char *key, const void *expected,
                               size_t expected_size, const void *value, size_t size, int64_t delta,
                               uint32_t *record, const struct answer_kv **answer)
{
    size_t space_bytes = space ? strlen(space) : 0, key_bytes = key ? strlen(key) : 0;
    struct request_kv *request;
    uint64_t answer_bytes;
    const void *bytes;
    char *at;
    enum moray_code code;

    if (!space || !key)
        return last_set(MORAY_INVALID, "a null %s", space ? "key" : "namespace");
    if ((code = kv_check(expected, expected_size, value, size)) != MORAY_OK)
        return kv_failed(code, space, key);
    size_t all = sizeof(*request) + space_bytes + key_bytes + expected_size + size;
    request = malloc(all);
    if (!request)
        return last_set(MORAY_NO_MEMORY, "no memory for a value of %zu bytes", size);
    *request = (struct request_kv){.operation = operation,
                                   .flags = flags,
                                   .space_bytes = (uint32_t)space_bytes,
                                   .key_bytes = (uint32_t)key_bytes,
                                   .expected_bytes = (uint32_t)expected_size,
                                   .value_bytes = (uint32_t)size,
                                   .delta = delta,
                                   .has_expected = expected != NULL};
    at = (char *)(request + 1);
    memcpy(at, space, space_bytes);
    memcpy(at += space_bytes, key, key_bytes);
    if (expected_size)
        memcpy(at + key_bytes, expected, expected_size);
    if (size)
        memcpy(at + key_bytes + expected_size, value, size);
    code = request_call(REQUEST_KV, request, (uint32_t)all, record, &bytes, &answer_bytes);
    *answer = bytes;
    free(request);
    return code == MORAY_OK ? code : kv_failed(code, space, key);
}

static enum moray_code kv_simple(enum request_kv_operation operation, unsigned flags,
                                 const char *space, const char *key, const void *expected,
                                 size_t expected_size, const void *value, size_t size,
                                 int64_t delta, int64_t *sum)
{
    enum moray_code code = enter();
    const struct answer_kv *answer;
    uint32_t record;

    if (code != MORAY_OK)
        return code;
    code = kv_call(operation, flags, space, key, expected, expected_size, value, size, delta,
                   &record, &answer);
    if (code == MORAY_OK) {
        if (sum)
            *sum = answer->sum;
        request_done(record);
    }
    leave();
    return code;
}

enum moray_code moray_kv_put(const char *space, const char *key, const void *value, size_t size,
                             unsigned flags)
{
    if (flags & ~MORAY_IF_ABSENT)
        return last_set(MORAY_INVALID, "unknown flags %x; moray_kv_put knows MORAY_IF_ABSENT",
                        flags);
    return kv_simple(KV_PUT, flags, space, key, NULL, 0, value, size, 0, NULL);
}

enum moray_code moray_kv_delete(const char *space, const char *key)
{
    return kv_simple(KV_DELETE, 0, space, key, NULL, 0, NULL, 0, 0, NULL);
}

enum moray_code moray_kv_add(const char *space, const char *key, int64_t delta, int64_t *sum)
{
    return kv_simple(KV_ADD, 0, space, key, NULL, 0, NULL, 0, delta, sum);
}

enum moray_code moray_kv_swap(const char *space, const char *key, const void *expected,
                              size_t expected_size, const void *value, size_t size)
{
    return kv_simple(KV_SWAP, 0, space, key, expected, expected_size, value, size, 0, NULL);
}

enum moray_code moray_kv_get(const char *space, const char *key, void *value, size_t room,
                             size_t *size)
{
    enum moray_code code = enter();
    const struct answer_kv *answer;
    uint32_t record;

    if (code != MORAY_OK)
        return code;
    if (!value && room)
        code = last_set(MORAY_INVALID, "moray_kv_get into a null pointer with room for %zu bytes",
                        room);
    else
        code = kv_call(KV_GET, 0, space, key, NULL, 0, NULL, 0, 0, &record, &answer);
    if (code == MORAY_OK) {
        size_t bytes = answer->bytes;
        if (bytes)
            memcpy(value, answer + 1, bytes < room ? bytes : room);
        if (size)
            *size = bytes;
        if (bytes > room)
            code = kv_failed(
                last_set(MORAY_FULL, "the value has %zu bytes, there is room for %zu", bytes, room),
                space, key);
        request_done(record);
    }
    leave();
    return code;
}

enum moray_code moray_kv_list(const char *space, const char *prefix, char **keys, size_t *count)
{
    enum moray_code code = enter();
    const struct answer_kv *answer;
    uint32_t record;

    if (code != MORAY_OK)
        return code;
    if (!keys) {
        leave();
        return last_set(MORAY_INVALID, "moray_kv_list into a null pointer");
    }
    *keys = NULL;
    code = kv_call(KV_LIST, 0, space, prefix, NULL, 0, NULL, 0, 0, &record, &answer);
    if (code == MORAY_OK) {
        *keys = malloc(answer->bytes + 1);
        if (*keys) {
            memcpy(*keys, answer + 1, answer->bytes);
            (*keys)[answer->bytes] = '\0';
            if (count)
                *count = answer->count;
        } else
            code = last_set(MORAY_NO_MEMORY, "no memory for a list of keys");
        request_done(record);
    }
    leave();
    return code;
}

/* ---- Publish and subscribe ---- */

enum moray_code moray_publish(const char *channel, const void *data, size_t size)
{
    enum moray_code code = enter();
    uint32_t record;
    const void *answer;
    uint64_t bytes;

    if (code != MORAY_OK)
        return code;
    if (!channel || !*channel || (!data && size) || size > VALUE_BYTES_MAX)
        code = last_set(MORAY_INVALID, "publish takes a channel and at most 1 MiB");
    else {
        size_t channel_bytes = strlen(channel);
        struct request_publish *request = malloc(sizeof(*request) + channel_bytes + size);
        if (!request)
            code = last_set(MORAY_NO_MEMORY, "no memory for a message of %zu bytes", size);
        else {
            *request = (struct request_publish){(uint32_t)channel_bytes, (uint32_t)size};
            memcpy(request + 1, channel, channel_bytes);
            if (size)
                memcpy((char *)(request + 1) + channel_bytes, data, size);
            code = request_call(REQUEST_PUBLISH, request,
                                (uint32_t)(sizeof(*request) + channel_bytes + size), &record,
                                &answer, &bytes);
            if (code == MORAY_OK)
                request_done(record);
            free(request);
        }
    }
    leave();
    return code;
}

static enum moray_code subscription_call(uint32_t kind, const moray_subscription *subscription,
                                         const char *channel)
{
    size_t channel_bytes = channel ? strlen(channel) : 0;
    struct request_subscription *request = calloc(1, sizeof(*request) + channel_bytes + 1);
    uint32_t record;
    const void *answer;
    uint64_t bytes;

    if (!request)
        return last_set(MORAY_NO_MEMORY, "no memory for a subscription");
    request->id = subscription->id;
    request->taken = subscription->taken;
    request->slot = me.slot;
    request->channel_bytes = (uint32_t)channel_bytes;
    if (channel_bytes)
        memcpy(request + 1, channel, channel_bytes);
    enum moray_code code = request_call(kind, request, (uint32_t)(sizeof(*request) + channel_bytes),
                                        &record, &answer, &bytes);
    if (code == MORAY_OK)
        request_done(record);
    free(request);
    return code;
}

enum moray_code moray_subscribe(const char *channel, moray_subscription **out)
{
    static uint64_t next;
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    if (!out || !channel || !*channel)
        code =
            last_set(MORAY_INVALID, "subscribe takes a channel and a place for the subscription");
    else if (!(*out = calloc(1, sizeof(**out))))
        code = last_set(MORAY_NO_MEMORY, "no memory for a subscription");
    else {
        (*out)->id = (uint64_t)atomic_load(&me.lane.self->incarnation) << 32 | ++next;
        code = subscription_call(REQUEST_SUBSCRIBE, *out, channel);
        if (code != MORAY_OK) {
            free(*out);
            *out = NULL;
        }
    }
    leave();
    return code;
}

static enum moray_code hand_over(moray_subscription *subscription, const struct answer_next *head,
                                 const char *bytes, void *data, size_t room, size_t *size,
                                 uint64_t *lost)
{
    if (size)
        *size = head->bytes;
    if (head->bytes > room) {
        if (!subscription->kept) {
            subscription->kept = malloc(head->bytes);
            if (!subscription->kept)
                return last_set(MORAY_NO_MEMORY, "no memory to keep a message");
            memcpy(subscription->kept, bytes, head->bytes);
            subscription->kept_head = *head;
        }
        return last_set(MORAY_FULL, "the message has %u bytes, there is room for %zu", head->bytes,
                        room);
    }
    if (head->bytes)
        memcpy(data, bytes, head->bytes);
    if (lost)
        *lost = head->lost;
    subscription->taken = head->sequence;
    free(subscription->kept);
    subscription->kept = NULL;
    return MORAY_OK;
}

static uint32_t question_open(moray_subscription *subscription)
{
    struct request_subscription request = {
        .id = subscription->id, .taken = subscription->taken, .slot = me.slot};
    uint32_t index;

    if (subscription->asked)
        return subscription->asked - 1;
    index = lane_make(&me.lane, RECORD_REQUEST);
    if (index == RECORD_NONE)
        return RECORD_NONE;
    struct record *record = lane_record(&me.lane, index);
    record->function = REQUEST_NEXT;
    record->argument_bytes = sizeof(request);
    memcpy(record->arguments, &request, sizeof(request));
    if (lane_submit(&me.lane, index) != MORAY_OK) {
        lane_abandon(&me.lane, index);
        return RECORD_NONE;
    }
    subscription->asked = index + 1;
    return index;
}

/* The question stays with the agent when the limit passes, and is asked again with the next call: the
 * answer that came meanwhile is not lost, since nothing was acknowledged. */
enum moray_code moray_next(moray_subscription *subscription, void *data, size_t room, size_t *size,
                           uint64_t *lost, int64_t limit_ms)
{
    enum moray_code code = enter();

    if (code != MORAY_OK)
        return code;
    if (!subscription || (!data && room)) {
        leave();
        return last_set(MORAY_INVALID, "moray_next %s",
                        subscription ? "into a null pointer with room" : "of a null subscription");
    }
    if (subscription->kept)
        code = hand_over(subscription, &subscription->kept_head, subscription->kept, data, room,
                         size, lost);
    else {
        uint32_t index = question_open(subscription);
        if (index == RECORD_NONE)
            code =
                last_set(MORAY_BUSY, "the node's table of objects is full; release references or "
                                     "raise MORAY_QUEUE_MAX");
        else
            code = record_wait(index, limit_ms);
        if (code == MORAY_OK) {
            struct record *record = lane_record(&me.lane, index);
            const void *answer;
            uint64_t bytes;
            subscription->asked = 0;
            if (life_state(record_life(record)) == RECORD_FAILED) {
                const char *text;
                code = failure_of(record, &text);
                last_set(code, "%s", text);
            } else if ((code = result_bytes(index, 0, &answer, &bytes)) == MORAY_OK) {
                const struct answer_next *head = answer;
                code =
                    hand_over(subscription, head, (const char *)(head + 1), data, room, size, lost);
            }
            lane_drop(&me.lane, index);
        }
    }
    leave();
    return code;
}

void moray_unsubscribe(moray_subscription *subscription)
{
    if (!subscription || enter() != MORAY_OK)
        return;
    (void)!subscription_call(REQUEST_UNSUBSCRIBE, subscription, NULL);
    if (subscription->asked)
        lane_drop(&me.lane, subscription->asked - 1);
    leave();
    free(subscription->kept);
    free(subscription);
}
