/**
 * Publish and subscribe: a pure state machine of the GCS.
 *
 *     publish --> channel --> each subscriber's backlog --(it asks; window)--> delivery to its rank
 *                              [ waits | waits | sent | sent ] --> acknowledged: gone
 *                                 ^ full: the oldest that waits is dropped and counted as lost
 *
 * A subscriber gets every message published after it subscribed, in the order in which the GCS took
 * them, so each publisher's in its own order. At most window_max messages are on their way to one
 * subscriber; it acknowledges what it took. What waits beyond backlog_max messages or backlog_bytes_max
 * bytes is dropped, oldest first, and the next delivery says how many were lost before it.
 * Always, for each subscriber: published since it subscribed == delivered + waiting + lost.
 *
 * A message's bytes are stored once, however many subscribers wait for it.
 * Threads: one caller at a time (rank 0's agent). Cost: publish O(subscribers of the channel).
 */
#ifndef MORAY_GCS_PUBSUB_H
#define MORAY_GCS_PUBSUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct pubsub;

struct pubsub_options {       /* zeros are the defaults */
    uint32_t window_max;      /* messages on their way to one subscriber; 0: 64 */
    uint32_t backlog_max;     /* messages that wait for one subscriber; 0: 10,000 */
    size_t backlog_bytes_max; /* bytes that wait for one subscriber; 0: 16 MiB */
    size_t message_bytes_max; /* bytes of one message; 0: 1 MiB */
    uint32_t subscriber_max;  /* subscribers of the job; 0: 1,000,000 */
};

struct pubsub_who { /* a subscriber: where it lives, and its own number there */
    uint32_t rank;
    uint32_t slot; /* the process */
    uint64_t id;   /* the process's own number for this subscription; unique in the process */
};

struct pubsub_delivery {
    uint64_t lost_count; /* messages that were dropped just before this one */
    uint64_t sequence;   /* 1, 2, … of the deliveries to this subscriber; acknowledge it */
    const void *data;    /* borrowed until the next call to this machine */
    size_t bytes;
};

/** Makes the machine. Owner: the caller, until pubsub_destroy(); `options` is copied.
 *  Errors: MORAY_NO_MEMORY; then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code pubsub_create(const struct pubsub_options *options,
                                               struct pubsub **out, struct moray_error *error);

/** Frees the machine; NULL is allowed. */
void pubsub_destroy(struct pubsub *pubsub);

/** `who` gets what is published on `channel` (any bytes, up to 255) from now on.
 *  Errors: MORAY_EXISTS if `who` is subscribed already, to whatever; MORAY_INVALID for a channel of
 *  0 or too many bytes; MORAY_BUSY at subscriber_max; MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code pubsub_subscribe(struct pubsub *pubsub, const void *channel,
                                                  size_t channel_bytes,
                                                  const struct pubsub_who *who,
                                                  struct moray_error *error);

/** Ends a subscription; what waited for it is forgotten. Errors: false if there is none. */
bool pubsub_unsubscribe(struct pubsub *pubsub, const struct pubsub_who *who);

/** Publishes a copy of the bytes. `*reached` (may be NULL) is the number of subscribers.
 *  Errors: MORAY_INVALID over message_bytes_max; MORAY_NO_MEMORY; then nobody gets it. */
MORAY_MUST_CHECK enum moray_code pubsub_publish(struct pubsub *pubsub, const void *channel,
                                                size_t channel_bytes, const void *data,
                                                size_t bytes, uint64_t *reached,
                                                struct moray_error *error);

/** `who` took all deliveries up to `sequence`: its window opens. A late or repeated word is
 *  harmless. Errors: false if there is no such subscriber, or nothing so new was sent to it. */
bool pubsub_acknowledge(struct pubsub *pubsub, const struct pubsub_who *who, uint64_t sequence);

/** All subscriptions of a process, or of a rank, end. (Until jobs survive the loss of a rank, nobody but
 *  tests asks for the second.) */
void pubsub_process_gone(struct pubsub *pubsub, uint32_t rank, uint32_t slot);
void pubsub_rank_lost(struct pubsub *pubsub, uint32_t rank);

/** The next delivery to `who`. Errors: false if nothing waits for it, or its window is shut. */
bool pubsub_next(struct pubsub *pubsub, const struct pubsub_who *who, struct pubsub_delivery *out);

/** How many subscribers there are, and how many messages are stored; for tools and tests. */
size_t pubsub_subscriber_count(const struct pubsub *pubsub);
size_t pubsub_message_count(const struct pubsub *pubsub);

#endif
