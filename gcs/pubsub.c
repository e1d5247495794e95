#include "gcs/pubsub.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/index.h"

enum { CHANNEL_BYTES_MAX = 255 };

/* A message and its place in the backlog of each subscriber are one block: to publish is one
 * allocation, and taking from a backlog needs none. */
struct message {
    size_t bytes;
    uint32_t link_count;
    uint32_t uses; /* backlogs that it is in, and 1 while its delivery is borrowed */
    struct link {
        struct message *message;
        struct link *next; /* the newer neighbour in the backlog */
    } links[];             /* followed by the bytes */
};

struct subscriber {
    struct pubsub_who who;
    bool used;
    uint32_t channel;       /* position */
    uint32_t before, after; /* neighbours of the channel */
    uint32_t next_unused;
    struct link *oldest, *newest; /* its backlog */
    uint32_t waiting_count;
    size_t waiting_bytes;
    uint64_t lost_count;         /* dropped before `oldest`, not yet told */
    uint64_t sent, acknowledged; /* deliveries; sent - acknowledged <= window_max */
};

struct channel {
    uint32_t first; /* subscriber; INDEX_NONE: the channel is unused */
    uint32_t next_unused;
    uint32_t subscriber_count;
    uint8_t bytes;
    char name[CHANNEL_BYTES_MAX];
};

struct pubsub {
    struct pubsub_options options;
    struct subscriber *subscribers; /* owned */
    struct channel *channels;       /* owned */
    uint32_t subscriber_capacity, channel_capacity;
    uint32_t unused_subscriber, unused_channel; /* heads of the lists */
    size_t subscriber_count, message_count;
    struct index by_who, by_name;
    struct message *borrowed; /* of the last delivery */
};

static void drop_message(struct pubsub *pubsub, struct message *message)
{
    assert(message->uses > 0);
    if (--message->uses == 0) {
        pubsub->message_count--;
        free(message);
    }
}

static uint64_t who_hash(const struct pubsub_who *who)
{
    return index_mix(who->id ^ index_mix((uint64_t)who->rank << 32 | who->slot));
}

static uint32_t find_who(const struct pubsub *pubsub, const struct pubsub_who *who)
{
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&pubsub->by_who, who_hash(who), &cursor)) != INDEX_NONE) {
        const struct pubsub_who *other = &pubsub->subscribers[at].who;
        if (other->rank == who->rank && other->slot == who->slot && other->id == who->id)
            break;
    }
    return at;
}

static uint32_t find_channel(const struct pubsub *pubsub, const void *name, size_t bytes)
{
    uint64_t hash = index_hash(0, name, bytes);
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&pubsub->by_name, hash, &cursor)) != INDEX_NONE) {
        const struct channel *channel = &pubsub->channels[at];
        if (channel->bytes == bytes && memcmp(channel->name, name, bytes) == 0)
            break;
    }
    return at;
}

/* Takes the oldest message out of a backlog; the caller has its use. */
static struct message *take_oldest(struct subscriber *subscriber)
{
    struct message *message = subscriber->oldest->message;

    subscriber->oldest = subscriber->oldest->next;
    if (!subscriber->oldest)
        subscriber->newest = NULL;
    subscriber->waiting_count--;
    subscriber->waiting_bytes -= message->bytes;
    return message;
}

static void append(struct pubsub *pubsub, struct subscriber *subscriber, struct link *link)
{
    const struct pubsub_options *options = &pubsub->options;

    if (subscriber->newest)
        subscriber->newest->next = link;
    else
        subscriber->oldest = link;
    subscriber->newest = link;
    subscriber->waiting_count++;
    subscriber->waiting_bytes += link->message->bytes;
    while (
        subscriber->waiting_count > options->backlog_max ||
        (subscriber->waiting_count > 1 && subscriber->waiting_bytes > options->backlog_bytes_max)) {
        drop_message(pubsub, take_oldest(subscriber));
        subscriber->lost_count++;
    }
}

/* Makes sure of one unused subscriber, one unused channel, and room in both indexes. */
static bool reserve(struct pubsub *pubsub)
{
    if (!index_reserve(&pubsub->by_who, 1) || !index_reserve(&pubsub->by_name, 1))
        return false;
    if (pubsub->unused_subscriber == INDEX_NONE) {
        uint32_t capacity = pubsub->subscriber_capacity ? 2 * pubsub->subscriber_capacity : 16;
        struct subscriber *subscribers =
            realloc(pubsub->subscribers, capacity * sizeof(*subscribers));
        if (!subscribers)
            return false;
        pubsub->subscribers = subscribers;
        while (pubsub->subscriber_capacity < capacity) {
            subscribers[pubsub->subscriber_capacity] =
                (struct subscriber){.next_unused = pubsub->unused_subscriber};
            pubsub->unused_subscriber = pubsub->subscriber_capacity++;
        }
    }
    if (pubsub->unused_channel == INDEX_NONE) {
        uint32_t capacity = pubsub->channel_capacity ? 2 * pubsub->channel_capacity : 16;
        struct channel *channels = realloc(pubsub->channels, capacity * sizeof(*channels));
        if (!channels)
            return false;
        pubsub->channels = channels;
        while (pubsub->channel_capacity < capacity) {
            channels[pubsub->channel_capacity] =
                (struct channel){.first = INDEX_NONE, .next_unused = pubsub->unused_channel};
            pubsub->unused_channel = pubsub->channel_capacity++;
        }
    }
    return true;
}

static uint32_t add_channel(struct pubsub *pubsub, const void *name, size_t bytes)
{
    uint32_t at = pubsub->unused_channel;
    struct channel *channel = &pubsub->channels[at];

    pubsub->unused_channel = channel->next_unused;
    *channel = (struct channel){.first = INDEX_NONE, .bytes = (uint8_t)bytes};
    memcpy(channel->name, name, bytes);
    index_add(&pubsub->by_name, index_hash(0, name, bytes), at);
    return at;
}

enum moray_code pubsub_subscribe(struct pubsub *pubsub, const void *channel, size_t channel_bytes,
                                 const struct pubsub_who *who, struct moray_error *error)
{
    struct subscriber *subscriber;
    uint32_t at, room;

    if (channel_bytes == 0 || channel_bytes > CHANNEL_BYTES_MAX)
        return error_set(error, MORAY_INVALID, "a channel's name of %zu bytes; it has 1 to %d",
                         channel_bytes, CHANNEL_BYTES_MAX);
    if (find_who(pubsub, who) != INDEX_NONE)
        return error_set(error, MORAY_EXISTS,
                         "subscription %llu of process %u of rank %u exists already",
                         (unsigned long long)who->id, who->slot, who->rank);
    if (pubsub->subscriber_count >= pubsub->options.subscriber_max)
        return error_set(error, MORAY_BUSY, "the job has %u subscriptions (subscriber_max)",
                         pubsub->options.subscriber_max);
    if (!reserve(pubsub))
        return error_set(error, MORAY_NO_MEMORY, "no memory for a subscription");

    room = find_channel(pubsub, channel, channel_bytes);
    if (room == INDEX_NONE)
        room = add_channel(pubsub, channel, channel_bytes);
    at = pubsub->unused_subscriber;
    subscriber = &pubsub->subscribers[at];
    pubsub->unused_subscriber = subscriber->next_unused;
    *subscriber = (struct subscriber){.who = *who,
                                      .used = true,
                                      .channel = room,
                                      .before = INDEX_NONE,
                                      .after = pubsub->channels[room].first};
    if (subscriber->after != INDEX_NONE)
        pubsub->subscribers[subscriber->after].before = at;
    pubsub->channels[room].first = at;
    pubsub->channels[room].subscriber_count++;
    pubsub->subscriber_count++;
    index_add(&pubsub->by_who, who_hash(who), at);
    return MORAY_OK;
}

static void remove_subscriber(struct pubsub *pubsub, uint32_t at)
{
    struct subscriber *subscriber = &pubsub->subscribers[at];
    struct channel *channel = &pubsub->channels[subscriber->channel];

    while (subscriber->oldest)
        drop_message(pubsub, take_oldest(subscriber));
    index_remove(&pubsub->by_who, who_hash(&subscriber->who), at);
    if (subscriber->before == INDEX_NONE)
        channel->first = subscriber->after;
    else
        pubsub->subscribers[subscriber->before].after = subscriber->after;
    if (subscriber->after != INDEX_NONE)
        pubsub->subscribers[subscriber->after].before = subscriber->before;
    if (--channel->subscriber_count == 0) {
        index_remove(&pubsub->by_name, index_hash(0, channel->name, channel->bytes),
                     subscriber->channel);
        channel->next_unused = pubsub->unused_channel;
        pubsub->unused_channel = subscriber->channel;
    }
    *subscriber = (struct subscriber){.next_unused = pubsub->unused_subscriber};
    pubsub->unused_subscriber = at;
    pubsub->subscriber_count--;
}

bool pubsub_unsubscribe(struct pubsub *pubsub, const struct pubsub_who *who)
{
    uint32_t at = find_who(pubsub, who);

    if (at != INDEX_NONE)
        remove_subscriber(pubsub, at);
    return at != INDEX_NONE;
}

enum moray_code pubsub_publish(struct pubsub *pubsub, const void *channel, size_t channel_bytes,
                               const void *data, size_t bytes, uint64_t *reached,
                               struct moray_error *error)
{
    uint32_t room = find_channel(pubsub, channel, channel_bytes), next, i = 0;
    uint32_t count = room == INDEX_NONE ? 0 : pubsub->channels[room].subscriber_count;
    struct message *message;

    if (reached)
        *reached = count;
    if (bytes > pubsub->options.message_bytes_max)
        return error_set(error, MORAY_INVALID,
                         "a message of %zu bytes; at most %zu (message_bytes_max)", bytes,
                         pubsub->options.message_bytes_max);
    if (count == 0)
        return MORAY_OK;
    message = malloc(sizeof(*message) + count * sizeof(struct link) + bytes);
    if (!message)
        return error_set(error, MORAY_NO_MEMORY, "no memory for a message of %zu bytes to %u",
                         bytes, count);
    message->bytes = bytes;
    message->link_count = count;
    message->uses = count + 1; /* one is ours: a backlog's bound may drop it at once */
    if (bytes)
        memcpy(&message->links[count], data, bytes);
    pubsub->message_count++;
    for (uint32_t at = pubsub->channels[room].first; at != INDEX_NONE; at = next) {
        next = pubsub->subscribers[at].after;
        message->links[i] = (struct link){.message = message};
        append(pubsub, &pubsub->subscribers[at], &message->links[i++]);
    }
    assert(i == count);
    drop_message(pubsub, message);
    return MORAY_OK;
}

bool pubsub_acknowledge(struct pubsub *pubsub, const struct pubsub_who *who, uint64_t sequence)
{
    uint32_t at = find_who(pubsub, who);
    struct subscriber *subscriber;

    if (at == INDEX_NONE || sequence > pubsub->subscribers[at].sent)
        return false;
    subscriber = &pubsub->subscribers[at];
    if (sequence > subscriber->acknowledged)
        subscriber->acknowledged = sequence;
    return true;
}

void pubsub_process_gone(struct pubsub *pubsub, uint32_t rank, uint32_t slot)
{
    for (uint32_t at = 0; at < pubsub->subscriber_capacity; at++) {
        const struct subscriber *subscriber = &pubsub->subscribers[at];
        if (subscriber->used && subscriber->who.rank == rank && subscriber->who.slot == slot)
            remove_subscriber(pubsub, at);
    }
}

void pubsub_rank_lost(struct pubsub *pubsub, uint32_t rank)
{
    for (uint32_t at = 0; at < pubsub->subscriber_capacity; at++)
        if (pubsub->subscribers[at].used && pubsub->subscribers[at].who.rank == rank)
            remove_subscriber(pubsub, at);
}

bool pubsub_next(struct pubsub *pubsub, const struct pubsub_who *who, struct pubsub_delivery *out)
{
    uint32_t at = find_who(pubsub, who);
    struct subscriber *subscriber;
    struct message *message;

    if (pubsub->borrowed)
        drop_message(pubsub, pubsub->borrowed);
    pubsub->borrowed = NULL;
    if (at == INDEX_NONE)
        return false;
    subscriber = &pubsub->subscribers[at];
    if (!subscriber->oldest ||
        subscriber->sent - subscriber->acknowledged >= pubsub->options.window_max)
        return false;
    message = take_oldest(subscriber);

    *out = (struct pubsub_delivery){.lost_count = subscriber->lost_count,
                                    .sequence = ++subscriber->sent,
                                    .data = &message->links[message->link_count],
                                    .bytes = message->bytes};
    subscriber->lost_count = 0;
    pubsub->borrowed = message; /* its use is ours now */
    return true;
}

size_t pubsub_subscriber_count(const struct pubsub *pubsub)
{
    return pubsub->subscriber_count;
}

size_t pubsub_message_count(const struct pubsub *pubsub)
{
    return pubsub->message_count;
}

enum moray_code pubsub_create(const struct pubsub_options *options, struct pubsub **out,
                              struct moray_error *error)
{
    struct pubsub *pubsub = *out = calloc(1, sizeof(*pubsub));

    if (!pubsub)
        return error_set(error, MORAY_NO_MEMORY, "no memory for publish and subscribe");
    pubsub->options = *options;
    if (!options->window_max)
        pubsub->options.window_max = 64;
    if (!options->backlog_max)
        pubsub->options.backlog_max = 10 * 1000;
    if (!options->backlog_bytes_max)
        pubsub->options.backlog_bytes_max = 16 << 20;
    if (!options->message_bytes_max)
        pubsub->options.message_bytes_max = 1 << 20;
    if (!options->subscriber_max)
        pubsub->options.subscriber_max = 1000 * 1000;
    pubsub->unused_subscriber = pubsub->unused_channel = INDEX_NONE;
    return MORAY_OK;
}

void pubsub_destroy(struct pubsub *pubsub)
{
    if (!pubsub)
        return;
    for (uint32_t at = 0; at < pubsub->subscriber_capacity; at++)
        if (pubsub->subscribers[at].used)
            remove_subscriber(pubsub, at);
    if (pubsub->borrowed)
        drop_message(pubsub, pubsub->borrowed);
    assert(pubsub->message_count == 0);
    index_clear(&pubsub->by_who);
    index_clear(&pubsub->by_name);
    free(pubsub->subscribers);
    free(pubsub->channels);
    free(pubsub);
}
