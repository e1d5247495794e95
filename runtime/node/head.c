#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gcs/actors.h"
#include "gcs/kv.h"
#include "gcs/pubsub.h"
#include "node/agent.h"
#include "node/head.h"
#include "node/remote.h"
#include "node/words.h"

/*
 * Rank 0's side of the GCS: drives the pure machines and carries their actions out. Requests come from
 * all ranks alike, this one included; each has a token that its rank chose and gets one answer.
 */

struct waiter { /* a moray_next that found nothing yet */
    uint32_t rank;
    uint64_t token;
    struct pubsub_who who;
    struct waiter *next;
};

struct head {
    struct kv *kv;
    struct pubsub *pubsub;
    struct actors *actors;
    struct waiter *waiters;
};

static void reply(uint32_t rank, uint64_t token, enum moray_code code, const void *bytes,
                  size_t count)
{
    if (rank == agent.rank)
        head_answered(token, code, bytes, (uint32_t)count);
    else
        remote_head_reply(rank, token, code, bytes, (uint32_t)count);
}

static void reply_error(uint32_t rank, uint64_t token, const struct moray_error *error)
{
    reply(rank, token, error->code, error->text, strlen(error->text) + 1);
}

static void reply_malformed(uint32_t rank, uint64_t token)
{
    static const char text[] = "a request to the GCS is malformed";
    reply(rank, token, MORAY_INVALID, text, sizeof(text));
}

/* ---- Keys and values ---- */

static void kv_list_all(uint32_t rank, uint64_t token, struct kv_span space, struct kv_span prefix)
{
    struct kv_entry entries[64];
    struct kv_span after;
    char *out = NULL, *last = NULL;
    size_t used = sizeof(struct answer_kv), capacity = 4096, count = 0;
    bool more = true;

    out = malloc(capacity);
    while (out && more) {
        size_t found =
            kv_list(agent.head->kv, space, prefix, last ? &after : NULL, entries, 64, &more);
        for (size_t i = 0; i < found; i++) {
            while (used + entries[i].key.bytes + 1 > capacity) {
                char *larger = realloc(out, capacity *= 2);
                if (!larger) {
                    free(out);
                    out = NULL;
                    goto end;
                }
                out = larger;
            }
            memcpy(out + used, entries[i].key.data, entries[i].key.bytes);
            used += entries[i].key.bytes;
            out[used++] = '\0';
            count++;
        }
        if (found) {
            free(last);
            last = malloc(entries[found - 1].key.bytes + 1);
            if (!last)
                break;
            memcpy(last, entries[found - 1].key.data, entries[found - 1].key.bytes);
            after = (struct kv_span){last, entries[found - 1].key.bytes};
        }
    }
end:
    free(last);
    if (!out) {
        static const char text[] = "no memory for a list of keys";
        reply(rank, token, MORAY_NO_MEMORY, text, sizeof(text));
        return;
    }
    if (agent.rank_count > 1 && used > BY_VALUE_BYTES_MAX) {
        char text[200];
        snprintf(text, sizeof(text),
                 "the %zu keys take %zu bytes; a list has at most %d: ask for a longer prefix",
                 count, used, BY_VALUE_BYTES_MAX);
        reply(rank, token, MORAY_FULL, text, strlen(text) + 1);
        free(out);
        return;
    }
    *(struct answer_kv *)out =
        (struct answer_kv){.bytes = used - sizeof(struct answer_kv), .count = count};
    reply(rank, token, MORAY_OK, out, used);
    free(out);
}

static void kv_get_one(uint32_t rank, uint64_t token, struct kv_span space, struct kv_span key)
{
    struct kv_value value = kv_get(agent.head->kv, space, key);

    if (!value.version) {
        static const char text[] = "there is no such key"; /* the asker names it */
        reply(rank, token, MORAY_NOT_FOUND, text, sizeof(text));
        return;
    }
    struct answer_kv *answer = malloc(sizeof(*answer) + value.value.bytes);
    if (!answer) {
        static const char text[] = "rank 0 has no memory for the answer";
        reply(rank, token, MORAY_NO_MEMORY, text, sizeof(text));
        return;
    }
    *answer = (struct answer_kv){.bytes = value.value.bytes};
    if (value.value.bytes)
        memcpy(answer + 1, value.value.data, value.value.bytes);
    reply(rank, token, MORAY_OK, answer, sizeof(*answer) + value.value.bytes);
    free(answer);
}

static void kv_request(uint32_t rank, uint64_t token, const void *bytes, uint32_t count)
{
    const struct request_kv *request = bytes;
    const char *at = (const char *)(request + 1);
    struct moray_error error = {.code = MORAY_OK};
    struct answer_kv answer = {0};
    uint64_t version;

    if (count < sizeof(*request) || (uint64_t)request->space_bytes + request->key_bytes +
                                            request->expected_bytes + request->value_bytes >
                                        count - sizeof(*request)) {
        reply_malformed(rank, token);
        return;
    }
    struct kv_span space = {at, request->space_bytes};
    struct kv_span key = {at += request->space_bytes, request->key_bytes};
    struct kv_span expected = {at += request->key_bytes, request->expected_bytes};
    struct kv_span value = {at + request->expected_bytes, request->value_bytes};

    switch ((enum request_kv_operation)request->operation) {
    case KV_GET:
        kv_get_one(rank, token, space, key);
        return;
    case KV_LIST:
        kv_list_all(rank, token, space, key);
        return;
    case KV_PUT:
        (void)!kv_put(agent.head->kv, space, key, value,
                      request->flags & MORAY_IF_ABSENT ? KV_IF_ABSENT : KV_OVERWRITE, &version,
                      &error);
        break;
    case KV_DELETE:
        kv_delete(agent.head->kv, space, key, &version);
        if (!version)
            error_set(&error, MORAY_NOT_FOUND, "there is no such key");
        break;
    case KV_ADD:
        (void)!kv_add(agent.head->kv, space, key, request->delta, &answer.sum, &version, &error);
        break;
    case KV_SWAP: {
        bool swapped;
        struct kv_value now;
        if (kv_swap(agent.head->kv, space, key, request->has_expected ? &expected : NULL, value,
                    &swapped, &now, &version, &error) == MORAY_OK &&
            !swapped)
            error_set(&error, now.version ? MORAY_EXISTS : MORAY_NOT_FOUND,
                      now.version ? "the key has another value than expected"
                                  : "there is no such key, but a value was expected");
        break;
    }
    default:
        reply_malformed(rank, token);
        return;
    }
    if (error.code != MORAY_OK)
        reply_error(rank, token, &error);
    else
        reply(rank, token, MORAY_OK, &answer, sizeof(answer));
}

/* ---- Publish and subscribe ---- */

static bool same(const struct pubsub_who *a, const struct pubsub_who *b)
{
    return a->rank == b->rank && a->slot == b->slot && a->id == b->id;
}

/* Answers who waits with the next message for it. Errors: false if there is none yet. */
static bool answer_waiter(const struct waiter *waiter)
{
    struct pubsub_delivery out;

    if (!pubsub_next(agent.head->pubsub, &waiter->who, &out))
        return false;
    struct answer_next *answer = malloc(sizeof(*answer) + out.bytes);
    if (!answer) {
        static const char text[] = "no memory for a message: it is lost";
        reply(waiter->rank, waiter->token, MORAY_NO_MEMORY, text, sizeof(text));
        return true;
    }
    *answer = (struct answer_next){
        .sequence = out.sequence, .lost = out.lost_count, .bytes = (uint32_t)out.bytes};
    if (out.bytes)
        memcpy(answer + 1, out.data, out.bytes);
    reply(waiter->rank, waiter->token, MORAY_OK, answer, sizeof(*answer) + out.bytes);
    free(answer);
    return true;
}

/* Messages meet those who wait for them. What nobody asks for stays in its backlog, which is bounded. */
static void deliver(void)
{
    for (struct waiter **at = &agent.head->waiters; *at;) {
        struct waiter *waiter = *at;
        if (!answer_waiter(waiter)) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        free(waiter);
    }
}

/* Questions of one subscription, or of all those of a process (`whole`), end unanswered. */
static void cancel_waiters(const struct pubsub_who *who, bool whole, const char *story)
{
    for (struct waiter **at = &agent.head->waiters; *at;) {
        struct waiter *waiter = *at;
        if (!(whole ? waiter->who.rank == who->rank && waiter->who.slot == who->slot
                    : same(&waiter->who, who))) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        reply(waiter->rank, waiter->token, MORAY_CANCELLED, story, strlen(story) + 1);
        free(waiter);
    }
}

static void process_gone(uint32_t rank, uint64_t token, const void *bytes, uint32_t count)
{
    struct pubsub_who who = {.rank = rank};

    if (count != sizeof(who.slot)) {
        reply_malformed(rank, token);
        return;
    }
    memcpy(&who.slot, bytes, sizeof(who.slot));
    pubsub_process_gone(agent.head->pubsub, rank, who.slot);
    cancel_waiters(&who, true, "the process that subscribed has ended");
}

static void subscription_request(uint32_t rank, uint64_t token, uint32_t kind, const void *bytes,
                                 uint32_t count)
{
    const struct request_subscription *request = bytes;
    struct moray_error error = {.code = MORAY_OK};

    if (count < sizeof(*request) || request->channel_bytes > count - sizeof(*request)) {
        reply_malformed(rank, token);
        return;
    }
    struct pubsub_who who = {rank, request->slot, request->id};
    if (kind == REQUEST_SUBSCRIBE) {
        if (pubsub_subscribe(agent.head->pubsub, request + 1, request->channel_bytes, &who,
                             &error) != MORAY_OK)
            reply_error(rank, token, &error);
        else
            reply(rank, token, MORAY_OK, NULL, 0);
        return;
    }
    if (kind == REQUEST_UNSUBSCRIBE) {
        pubsub_unsubscribe(agent.head->pubsub, &who);
        cancel_waiters(&who, false, "unsubscribed");
        reply(rank, token, MORAY_OK, NULL, 0);
        return;
    }
    if (request->taken)
        pubsub_acknowledge(agent.head->pubsub, &who, request->taken);
    struct waiter *waiter = malloc(sizeof(*waiter));
    if (!waiter)
        return;
    *waiter = (struct waiter){rank, token, who, agent.head->waiters};
    agent.head->waiters = waiter;
    deliver();
}

static void publish_request(uint32_t rank, uint64_t token, const void *bytes, uint32_t count)
{
    const struct request_publish *request = bytes;
    struct moray_error error;

    if (count < sizeof(*request) ||
        (uint64_t)request->channel_bytes + request->data_bytes > count - sizeof(*request)) {
        reply_malformed(rank, token);
        return;
    }
    const char *channel = (const char *)(request + 1);
    if (pubsub_publish(agent.head->pubsub, channel, request->channel_bytes,
                       channel + request->channel_bytes, request->data_bytes, NULL,
                       &error) != MORAY_OK)
        reply_error(rank, token, &error);
    else
        reply(rank, token, MORAY_OK, NULL, 0);
    deliver();
}

/* ---- All of them ---- */

void head_request(uint32_t rank, uint64_t token, uint32_t kind, const void *bytes, uint32_t count)
{
    switch (kind) {
    case REQUEST_KV:
        kv_request(rank, token, bytes, count);
        return;
    case REQUEST_PUBLISH:
        publish_request(rank, token, bytes, count);
        return;
    case REQUEST_SUBSCRIBE:
    case REQUEST_UNSUBSCRIBE:
    case REQUEST_NEXT:
        subscription_request(rank, token, kind, bytes, count);
        return;
    case HEAD_PROCESS_GONE:
        process_gone(rank, token, bytes, count);
        return;
    case REQUEST_ACTOR_NEW:
    case REQUEST_ACTOR_NAMED:
    case REQUEST_ACTOR_HOLD:
    case REQUEST_ACTOR_KILL:
    case REQUEST_ACTOR_WHERE:
    case HEAD_ACTOR_STARTED:
    case HEAD_ACTOR_FAILED:
    case HEAD_ACTOR_EXITED:
    case HEAD_ACTOR_REFUSED:
        head_actor_request(rank, token, kind, bytes, count);
        return;
    default:
        reply_malformed(rank, token);
    }
}

void head_reply(uint32_t rank, uint64_t token, enum moray_code code, const void *bytes,
                size_t count)
{
    reply(rank, token, code, bytes, count);
}

struct actors *head_actors(void)
{
    return agent.head ? agent.head->actors : NULL;
}

void head_ask(uint32_t index, uint32_t kind, const void *bytes, uint32_t count)
{
    uint64_t token =
        (uint64_t)life_generation(record_life(lane_record(&agent.lane, index))) << 32 | index;

    if (agent.is_head)
        head_request(agent.rank, token, kind, bytes, count);
    else
        remote_head_ask(token, kind, bytes, count);
}

/* Whether an answer has what the process that asked will read. */
static bool answer_fits(enum request_kind kind, const void *bytes, uint32_t count)
{
    struct answer_kv kv;
    struct answer_next next;

    switch (kind) {
    case REQUEST_KV:
        if (count < sizeof(kv))
            return false;
        memcpy(&kv, bytes, sizeof(kv));
        return kv.bytes <= count - sizeof(kv);
    case REQUEST_NEXT:
        if (count < sizeof(next))
            return false;
        memcpy(&next, bytes, sizeof(next));
        return next.bytes <= count - sizeof(next);
    case REQUEST_ACTOR_NEW:
    case REQUEST_ACTOR_NAMED:
        return count == sizeof(moray_actor);
    default:
        return true;
    }
}

void head_answered(uint64_t token, enum moray_code code, const void *bytes, uint32_t count)
{
    uint32_t index = (uint32_t)token;
    struct record *record;

    if (index == RECORD_NONE) /* nobody waits for it */
        return;
    if (index == WORD_TOKEN) {
        word_heard((uint32_t)(token >> 32));
        return;
    }
    record = lane_find(&agent.lane, index, (uint32_t)(token >> 32));
    if (!record || record->kind != RECORD_REQUEST ||
        life_state(record_life(record)) != RECORD_RUNNING ||
        life_slot(record_life(record)) != LANE_AGENT)
        return;
    if (code == MORAY_OK && !answer_fits((enum request_kind)record->function, bytes, count))
        agent_end_failed(index, MORAY_PROTOCOL, "an answer of the GCS of %u bytes", count);
    else if (code == MORAY_OK) {
        if (record->function == REQUEST_ACTOR_NEW || record->function == REQUEST_ACTOR_NAMED)
            actors_answered(index, bytes);
        agent_answer(index, bytes, count);
    } else {
        if (record->function == REQUEST_ACTOR_NEW)
            actors_not_made(index);
        agent_end_failed(index, code, "%.*s", (int)count, (const char *)bytes);
    }
}

bool head_start(struct moray_error *error)
{
    agent.head = calloc(1, sizeof(*agent.head));
    if (!agent.head) {
        error_set(error, MORAY_NO_MEMORY, "no memory for the GCS");
        return false;
    }
    return kv_create(&(struct kv_options){0}, &agent.head->kv, error) == MORAY_OK &&
           pubsub_create(&(struct pubsub_options){0}, &agent.head->pubsub, error) == MORAY_OK &&
           actors_create_table(&(struct actors_options){.rank_count = agent.rank_count},
                               &agent.head->actors, error) == MORAY_OK;
}

uint64_t head_deadline(void)
{
    return agent.head ? actors_deadline(agent.head->actors) : UINT64_MAX;
}

void head_tick(void)
{
    if (!agent.head)
        return;
    if (actors_deadline(agent.head->actors) <= agent.now_ns)
        head_actors_tick();
}

void head_end(void)
{
    if (!agent.head)
        return;
    while (agent.head->waiters) {
        struct waiter *next = agent.head->waiters->next;
        free(agent.head->waiters);
        agent.head->waiters = next;
    }
    kv_destroy(agent.head->kv);
    pubsub_destroy(agent.head->pubsub);
    actors_destroy_table(agent.head->actors);
    free(agent.head);
    agent.head = NULL;
}
