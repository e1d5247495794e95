#include "fabric/stream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct stream_frame) == STREAM_HEAD_BYTES, "the head of a frame");
static_assert(offsetof(struct stream_frame, sequence) == AUTH_TAG_BYTES, "the tag stands first");

/* A sender keeps to STREAM_AHEAD_MAX; twice that leaves room for frames sent and still on their way. */
enum { EARLY_MAX = 2 * STREAM_AHEAD_MAX };
enum { POOL_LARGE_MAX = 64, POOL_SMALL_MAX = 1024 }; /* free slots that are kept */

struct peer {
    struct auth_key out_key, in_key;
    uint64_t out_sequence; /* of the next frame pushed */
    uint64_t in_sequence;  /* of the next frame to deliver: all before it were delivered */
    uint64_t posted, received;
    size_t in_flight_bytes;              /* payload and heads in the queue and with the carrier */
    struct stream_slot *first, *last;    /* to post; owned */
    struct stream_slot *oldest, *newest; /* with the carrier, as posted; borrowed */
    uint32_t carried;                    /* how many those are */
    struct stream_slot *early;           /* came too soon; sorted by sequence; owned */
    uint32_t early_count;
    uint8_t *joining; /* a message of several frames; owned; room for joining_bytes */
    uint32_t joining_bytes, joined_bytes;
    uint32_t waiting_index; /* in stream.waiting, while first != NULL */
    bool dropped;
};

struct stream {
    struct stream_options options;
    struct peer *peers;
    uint32_t *waiting; /* ranks whose queue is not empty: waiting[peer.waiting_index] == rank */
    uint32_t waiting_count;
    struct stream_slot *pool[2]; /* small, large; owned */
    size_t pool_count[2];
    uint64_t unsent; /* slots pushed and not yet sent */
    uint64_t told_messages, told_bytes;
};

enum moray_code stream_create(const struct stream_options *options, struct stream **out,
                              struct moray_error *error)
{
    struct stream *stream = calloc(1, sizeof(*stream));

    *out = NULL;
    if (stream) {
        stream->options = *options;
        stream->options.secret = NULL;
        stream->peers = calloc(options->rank_count, sizeof(*stream->peers));
        stream->waiting = calloc(options->rank_count, sizeof(*stream->waiting));
    }
    if (!stream || !stream->peers || !stream->waiting) {
        stream_destroy(stream);
        return error_set(error, MORAY_NO_MEMORY, "no memory for the streams of %u ranks",
                         options->rank_count);
    }
    for (uint32_t rank = 0; rank < options->rank_count; rank++) {
        struct peer *peer = &stream->peers[rank];
        auth_derive(options->secret, "moray frame", options->rank, rank, NULL, 0, &peer->out_key);
        auth_derive(options->secret, "moray frame", rank, options->rank, NULL, 0, &peer->in_key);
    }
    *out = stream;
    return MORAY_OK;
}

static uint64_t sequence_of(const struct stream_slot *slot)
{
    return ((const struct stream_frame *)slot->frame)->sequence;
}

static void slot_free(struct stream *stream, struct stream_slot *slot)
{
    if (stream->options.slot_freed)
        stream->options.slot_freed(stream->options.context, slot);
    free(slot);
}

/* Gives a slot for a frame of `bytes`, from the pool if there is one. */
static struct stream_slot *slot_take(struct stream *stream, size_t bytes)
{
    bool large = bytes > STREAM_SMALL_MAX;
    struct stream_slot *slot = stream->pool[large];
    size_t slot_bytes;

    if (slot) {
        stream->pool[large] = slot->next;
        stream->pool_count[large]--;
        slot->next = NULL;
        return slot;
    }
    slot_bytes = sizeof(*slot) + (large ? STREAM_FRAME_MAX : STREAM_SMALL_MAX);
    slot = aligned_alloc(64, (slot_bytes + 63) / 64 * 64);
    if (!slot)
        return NULL;
    memset(slot, 0, sizeof(*slot));
    slot->large = large;
    if (stream->options.slot_made &&
        stream->options.slot_made(stream->options.context, slot, slot_bytes)) {
        free(slot);
        return NULL;
    }
    return slot;
}

static void slot_give(struct stream *stream, struct stream_slot *slot)
{
    if (stream->pool_count[slot->large] >= (slot->large ? POOL_LARGE_MAX : POOL_SMALL_MAX)) {
        slot_free(stream, slot);
        return;
    }
    slot->next = stream->pool[slot->large];
    stream->pool[slot->large] = slot;
    stream->pool_count[slot->large]++;
}

static void slots_give(struct stream *stream, struct stream_slot *slot)
{
    while (slot) {
        struct stream_slot *next = slot->next;
        slot_give(stream, slot);
        slot = next;
    }
}

void stream_destroy(struct stream *stream)
{
    if (!stream)
        return;
    for (uint32_t rank = 0; stream->peers && rank < stream->options.rank_count; rank++)
        stream_drop(stream, rank);
    for (int large = 0; large < 2; large++) {
        while (stream->pool[large]) {
            struct stream_slot *slot = stream->pool[large];
            stream->pool[large] = slot->next;
            slot_free(stream, slot);
        }
    }
    free(stream->peers);
    free(stream->waiting);
    free(stream);
}

static void waiting_add(struct stream *stream, uint32_t rank)
{
    stream->peers[rank].waiting_index = stream->waiting_count;
    stream->waiting[stream->waiting_count++] = rank;
}

static void waiting_remove(struct stream *stream, uint32_t rank)
{
    uint32_t index = stream->peers[rank].waiting_index;
    uint32_t moved = stream->waiting[--stream->waiting_count];

    assert(stream->waiting[index] == rank);
    stream->waiting[index] = moved;
    stream->peers[moved].waiting_index = index;
}

/* Fills a slot with `count` bytes from `offset` on of a message of `total` bytes. */
static void slot_fill(struct stream *stream, struct stream_slot *slot, uint32_t rank,
                      uint64_t sequence, const uint8_t *bytes, uint32_t total, uint32_t offset,
                      uint32_t count)
{
    struct stream_frame *frame = (struct stream_frame *)slot->frame;

    frame->sequence = sequence;
    frame->from = stream->options.rank;
    frame->bytes = count;
    frame->total = total;
    frame->offset = offset;
    memcpy(frame->data, bytes + offset, count);
    auth_tag(&stream->peers[rank].out_key, &frame->sequence,
             STREAM_HEAD_BYTES - AUTH_TAG_BYTES + count, frame->tag);
    slot->rank = rank;
    slot->bytes = STREAM_HEAD_BYTES + count;
}

enum moray_code stream_push(struct stream *stream, uint32_t rank, const void *bytes, size_t count)
{
    struct peer *peer = &stream->peers[rank];
    struct stream_slot *first = NULL, **tail = &first, *last = NULL;
    uint64_t sequence = peer->out_sequence;
    size_t frames = (count + STREAM_PAYLOAD_MAX - 1) / STREAM_PAYLOAD_MAX;
    size_t wire_bytes = count + frames * STREAM_HEAD_BYTES;

    assert(count >= 1 && count <= FABRIC_MESSAGE_BYTES_MAX);
    if (peer->dropped)
        return MORAY_LOST;
    if (peer->in_flight_bytes &&
        peer->in_flight_bytes + wire_bytes > stream->options.in_flight_bytes_max)
        return MORAY_BUSY;
    for (size_t offset = 0; offset < count; offset += STREAM_PAYLOAD_MAX) {
        size_t part = count - offset < STREAM_PAYLOAD_MAX ? count - offset : STREAM_PAYLOAD_MAX;
        struct stream_slot *slot = slot_take(stream, part + STREAM_HEAD_BYTES);
        if (!slot) {
            slots_give(stream, first);
            return MORAY_NO_MEMORY;
        }
        slot_fill(stream, slot, rank, sequence++, bytes, (uint32_t)count, (uint32_t)offset,
                  (uint32_t)part);
        *tail = last = slot;
        tail = &slot->next;
    }
    peer->out_sequence = sequence;
    peer->in_flight_bytes += wire_bytes;
    stream->unsent += frames;
    if (peer->first) {
        peer->last->next = first;
    } else {
        peer->first = first;
        waiting_add(stream, rank);
    }
    peer->last = last;
    return MORAY_OK;
}

size_t stream_waiting(const struct stream *stream, const uint32_t **ranks)
{
    *ranks = stream->waiting;
    return stream->waiting_count;
}

struct stream_slot *stream_first(const struct stream *stream, uint32_t rank)
{
    const struct peer *peer = &stream->peers[rank];

    if (peer->carried >= STREAM_POSTED_MAX)
        return NULL;
    if (peer->first && peer->oldest &&
        sequence_of(peer->first) - sequence_of(peer->oldest) >= STREAM_AHEAD_MAX)
        return NULL;
    return peer->first;
}

void stream_posted(struct stream *stream, uint32_t rank)
{
    struct peer *peer = &stream->peers[rank];
    struct stream_slot *slot = peer->first;

    peer->posted++;
    peer->first = slot->next;
    slot->next = NULL;
    slot->before = peer->newest;
    if (slot->before)
        slot->before->next = slot;
    else
        peer->oldest = slot;
    peer->newest = slot;
    peer->carried++;
    if (!peer->first)
        waiting_remove(stream, rank);
}

void stream_sent(struct stream *stream, struct stream_slot *slot)
{
    struct peer *peer = &stream->peers[slot->rank];

    assert(stream->unsent > 0);
    stream->unsent--;
    if (!peer->dropped) {
        peer->in_flight_bytes -= slot->bytes;
        peer->carried--;
        *(slot->before ? &slot->before->next : &peer->oldest) = slot->next;
        *(slot->next ? &slot->next->before : &peer->newest) = slot->before;
    }
    slot_give(stream, slot);
}

/* Whether the frame is well formed and proven; tells the rank it comes from. */
static enum moray_code frame_check(const struct stream *stream, const struct stream_frame *frame,
                                   size_t bytes, struct moray_error *error)
{
    if (bytes <= STREAM_HEAD_BYTES || bytes > STREAM_FRAME_MAX)
        return error_set(error, MORAY_PROTOCOL, "a frame of %zu bytes was dropped: no such length",
                         bytes);
    if (frame->from >= stream->options.rank_count || frame->from == stream->options.rank)
        return error_set(error, MORAY_PROTOCOL, "a frame that names rank %u was dropped: no peer",
                         frame->from);
    if (frame->bytes != bytes - STREAM_HEAD_BYTES || frame->total > FABRIC_MESSAGE_BYTES_MAX ||
        frame->offset > frame->total || frame->bytes > frame->total - frame->offset)
        return error_set(error, MORAY_PROTOCOL,
                         "a frame that names rank %u was dropped: its lengths do not agree",
                         frame->from);
    if (!auth_check(&stream->peers[frame->from].in_key, &frame->sequence, bytes - AUTH_TAG_BYTES,
                    frame->tag))
        return error_set(error, MORAY_PROTOCOL,
                         "a frame that names rank %u was dropped: it does not prove the job's "
                         "secret",
                         frame->from);
    return MORAY_OK;
}

static void tell(struct stream *stream, const struct fabric_handler *handler, uint32_t rank,
                 const void *bytes, size_t count)
{
    stream->told_messages++;
    stream->told_bytes += count;
    handler->message(handler->context, rank, bytes, count);
}

/* Takes the next frame in order: joins it to its message and tells the message once it is whole. */
static enum moray_code frame_deliver(struct stream *stream, struct peer *peer,
                                     const struct stream_frame *frame,
                                     const struct fabric_handler *handler,
                                     struct moray_error *error)
{
    peer->in_sequence++;
    if (frame->bytes == frame->total) {
        tell(stream, handler, frame->from, frame->data, frame->bytes);
        return MORAY_OK;
    }
    if (frame->offset != peer->joined_bytes)
        return error_set(error, MORAY_PROTOCOL, "a frame of rank %u is in the wrong place",
                         frame->from);
    if (frame->offset == 0 && peer->joining_bytes < frame->total) {
        free(peer->joining);
        peer->joining_bytes = 0;
        peer->joining = malloc(frame->total);
        if (!peer->joining)
            return error_set(error, MORAY_NO_MEMORY, "no memory for a message of %u bytes",
                             frame->total);
        peer->joining_bytes = frame->total;
    }
    if (frame->total > peer->joining_bytes)
        return error_set(error, MORAY_PROTOCOL, "a frame of rank %u changes its message's length",
                         frame->from);
    memcpy(peer->joining + frame->offset, frame->data, frame->bytes);
    peer->joined_bytes += frame->bytes;
    if (peer->joined_bytes == frame->total) {
        peer->joined_bytes = 0;
        tell(stream, handler, frame->from, peer->joining, frame->total);
    }
    return MORAY_OK;
}

/* Keeps a frame that came before its turn. */
static enum moray_code frame_keep(struct stream *stream, struct peer *peer,
                                  const struct stream_frame *frame, size_t bytes,
                                  struct moray_error *error)
{
    struct stream_slot **place = &peer->early, *slot;

    while (*place && sequence_of(*place) < frame->sequence)
        place = &(*place)->next;
    if (*place && sequence_of(*place) == frame->sequence)
        return error_set(error, MORAY_PROTOCOL, "a frame of rank %u was dropped: it came twice",
                         frame->from);
    if (peer->early_count == EARLY_MAX)
        return error_set(error, MORAY_NO_MEMORY, "%d frames of rank %u wait for an earlier one",
                         EARLY_MAX, frame->from);
    slot = slot_take(stream, bytes);
    if (!slot)
        return error_set(error, MORAY_NO_MEMORY, "no memory for a frame of rank %u", frame->from);
    memcpy(slot->frame, frame, bytes);
    slot->bytes = (uint32_t)bytes;
    slot->next = *place;
    *place = slot;
    peer->early_count++;
    return MORAY_OK;
}

/* Delivers the kept frames whose turn has come. */
static enum moray_code early_deliver(struct stream *stream, struct peer *peer,
                                     const struct fabric_handler *handler,
                                     struct moray_error *error)
{
    enum moray_code code = MORAY_OK;

    while (code == MORAY_OK && peer->early) {
        struct stream_slot *slot = peer->early;
        const struct stream_frame *frame = (const struct stream_frame *)slot->frame;
        if (frame->sequence != peer->in_sequence)
            break;
        peer->early = slot->next;
        peer->early_count--;
        code = frame_deliver(stream, peer, frame, handler, error);
        slot_give(stream, slot);
    }
    return code;
}

enum moray_code stream_receive(struct stream *stream, const void *bytes, size_t count,
                               const struct fabric_handler *handler, struct moray_error *error)
{
    const struct stream_frame *frame = bytes;
    enum moray_code code = frame_check(stream, frame, count, error);
    struct peer *peer;

    if (code != MORAY_OK)
        return code;
    peer = &stream->peers[frame->from];
    if (peer->dropped)
        return error_set(error, MORAY_LOST, "a frame of rank %u came after its end", frame->from);
    if (frame->sequence < peer->in_sequence)
        return error_set(error, MORAY_PROTOCOL, "a frame of rank %u was dropped: replayed",
                         frame->from);
    if (frame->sequence > peer->in_sequence) {
        code = frame_keep(stream, peer, frame, count, error);
        peer->received += code == MORAY_OK;
        return code;
    }
    peer->received++;
    code = frame_deliver(stream, peer, frame, handler, error);
    return code == MORAY_OK ? early_deliver(stream, peer, handler, error) : code;
}

void stream_drop(struct stream *stream, uint32_t rank)
{
    struct peer *peer = &stream->peers[rank];

    if (peer->first)
        waiting_remove(stream, rank);
    for (struct stream_slot *slot = peer->first; slot; slot = slot->next)
        stream->unsent--;
    slots_give(stream, peer->first);
    slots_give(stream, peer->early);
    free(peer->joining);
    peer->first = peer->last = peer->early = peer->oldest = peer->newest = NULL;
    peer->joining = NULL;
    peer->early_count = peer->joining_bytes = peer->joined_bytes = 0;
    peer->in_flight_bytes = 0;
    peer->dropped = true;
}

size_t stream_in_flight(const struct stream *stream, uint32_t rank)
{
    return stream->peers[rank].in_flight_bytes;
}

uint64_t stream_posted_count(const struct stream *stream, uint32_t rank)
{
    return stream->peers[rank].posted;
}

uint64_t stream_received_count(const struct stream *stream, uint32_t rank)
{
    return stream->peers[rank].received;
}

void stream_told(const struct stream *stream, uint64_t *messages, uint64_t *bytes)
{
    *messages = stream->told_messages;
    *bytes = stream->told_bytes;
}

uint64_t stream_unsent(const struct stream *stream)
{
    return stream->unsent;
}
