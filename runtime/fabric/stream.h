/**
 * Whole, proven, ordered messages over a carrier of frames that may finish them in any order.
 *
 *     message ──push──▶ frames of at most 64 KiB in slots ──▶ the carrier posts, then `sent`
 *     frame   ──receive──▶ length, tag, sequence ──▶ early: kept aside ──▶ next: joined ──▶ message
 *
 * Used by ofi.c and mpi.c alike; knows neither. No clock, no system call, no thread.
 * A frame is 40 bytes and its payload. Its tag covers all that follows it, its sequence number counts
 * the frames of this direction from 0. A number behind the next one, or one that is kept already, is
 * a replay and refused; one ahead of it (a carrier fetches long frames while short ones pass) waits
 * until those before it are there.
 * Bounds: in_flight_bytes_max pushed and not sent, a peer (one message always passes an empty peer);
 * at most STREAM_POSTED_MAX frames of a peer with the carrier, so that one that does not take them
 * (stopped, cut off) leaves the carrier's queues to the others; no frame is posted that is
 * STREAM_AHEAD_MAX or more ahead of one not yet sent, so a receiver never keeps as many aside; one
 * message being joined a peer.
 * Cost of a frame of 64 KiB: one copy and one tag a side, about 60 us; of 128 bytes 0.2 us. Slots go
 * back to a pool and are used again.
 * Threads: one caller at a time.
 */
#ifndef MORAY_FABRIC_STREAM_H
#define MORAY_FABRIC_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "fabric/auth.h"
#include "fabric/fabric.h"

enum {
    STREAM_PAYLOAD_MAX = 64 * 1024,
    STREAM_HEAD_BYTES = 40,
    STREAM_FRAME_MAX = STREAM_PAYLOAD_MAX + STREAM_HEAD_BYTES,
    STREAM_SMALL_MAX = 2048, /* frames up to here live in small slots */
    STREAM_AHEAD_MAX = 512,
    STREAM_POSTED_MAX = 16,
};

/** On the wire, all in the byte order of the machine: a job runs on one kind of machine. */
struct stream_frame {
    uint8_t tag[AUTH_TAG_BYTES]; /* over everything behind it */
    uint64_t sequence;
    uint32_t from;   /* rank */
    uint32_t bytes;  /* payload in this frame, at least 1 */
    uint32_t total;  /* payload of the whole message */
    uint32_t offset; /* of this frame's payload in it */
    uint8_t data[];
};

/** A frame on its way. Owner: its peer's queue, from `stream_posted` to `stream_sent` the carrier. */
struct stream_slot {
    struct stream_slot *next, *before; /* in its list; `before` while the carrier has it */
    uint64_t context[8];               /* the carrier's, while it has the slot (fi_context2) */
    uint64_t kind;                     /* the carrier's, behind its context */
    void *descriptor;                  /* the carrier's, for as long as the slot's memory lives */
    uint32_t rank;                     /* where it goes */
    uint32_t bytes;                    /* the frame's */
    bool large;
    _Alignas(16) uint8_t frame[];
};

struct stream_options {
    const uint8_t *secret; /* borrowed during stream_create() */
    uint32_t rank, rank_count;
    size_t in_flight_bytes_max;
    /* Told of each new slot, and before it is freed: for registration. May be NULL. */
    enum moray_code (*slot_made)(void *context, struct stream_slot *slot, size_t bytes);
    void (*slot_freed)(void *context, struct stream_slot *slot);
    void *context;
};

struct stream;

/** Makes the state of all peers. Owner: the caller, until stream_destroy().
 *  Errors: MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code stream_create(const struct stream_options *options,
                                               struct stream **out, struct moray_error *error);

/** Frees all; the carrier holds no slot any more, or never looks at it again. NULL is allowed. */
void stream_destroy(struct stream *stream);

/** Cuts a message into frames and queues them. Errors: MORAY_BUSY, MORAY_LOST (after stream_drop),
 *  MORAY_NO_MEMORY; then nothing of it is queued. */
MORAY_MUST_CHECK enum moray_code stream_push(struct stream *stream, uint32_t rank,
                                             const void *bytes, size_t count);

/** The ranks that have frames to post, in any order; borrowed until the next call of this module. */
size_t stream_waiting(const struct stream *stream, const uint32_t **ranks);

/** The first frame to post to `rank`, or NULL: there is none, or older ones must be sent first. It
 *  stays first until stream_posted(). */
struct stream_slot *stream_first(const struct stream *stream, uint32_t rank);

/** The carrier took the first frame of `rank`: the slot is the carrier's until stream_sent(). */
void stream_posted(struct stream *stream, uint32_t rank);

/** The carrier is done with the slot, sent or not. */
void stream_sent(struct stream *stream, struct stream_slot *slot);

/** Takes a frame that came, and tells `handler->message` of each message that is whole with it.
 *  `frame` is aligned to 8 and borrowed during the call. Handlers may push, not drop.
 *  Errors: MORAY_PROTOCOL (malformed, wrong tag, replayed: dropped, `error` says why), MORAY_LOST
 *  (from a dropped peer), MORAY_NO_MEMORY (the message cannot be kept: the peer must be given up). */
MORAY_MUST_CHECK enum moray_code stream_receive(struct stream *stream, const void *frame,
                                                size_t bytes, const struct fabric_handler *handler,
                                                struct moray_error *error);

/** Forgets a peer: what is queued to it or half received from it is freed, pushes fail from now on. */
void stream_drop(struct stream *stream, uint32_t rank);

/** Bytes pushed to `rank` and not yet sent; frames ever posted to it and proven from it. */
size_t stream_in_flight(const struct stream *stream, uint32_t rank);
uint64_t stream_posted_count(const struct stream *stream, uint32_t rank);
uint64_t stream_received_count(const struct stream *stream, uint32_t rank);

/** Messages told so far, and their bytes. */
void stream_told(const struct stream *stream, uint64_t *messages, uint64_t *bytes);

/** Pushed and not yet sent, to all peers together: 0 means that everything is out. */
uint64_t stream_unsent(const struct stream *stream);

#endif
