/**
 * The libfabric carrier: frames by fi_send, reads by fi_read in pieces, sleep by the queue's
 * descriptor. Known to behave with tcp;ofi_rxm: a pollable descriptor and prompt, true errors.
 *
 * A rank's address comes over its doorbell once its discovery is done. Until then, and until our own
 * is, small frames go over the doorbell too, so that a job does not wait for discovery to begin with
 * its work (the stream puts in order what comes both ways); long frames and pieces wait.
 * Discovery costs a tenth of a second of processor time and more, just when the first tasks start: so
 * it begins when something waits for it, here or at the other end (WANTED), or after begin_after_ns,
 * whichever is first. Whoever names a provider is told at once whether it is there.
 * The first send to a rank makes rxm connect and says EAGAIN until it has: a later poll tries again,
 * and a rank that takes no first frame within connect_limit_ms is lost. After that an EAGAIN means a
 * full queue and is no failure: the end of a rank is the doorbell's to tell.
 */
#include "fabric/ofi.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS_MAX = 32, ROUNDS_MAX = 4 };
static const uint64_t again_ns =
    1000000; /* a look at what EAGAIN refused, while the agent sleeps */
static const uint64_t begin_after_ns = 100000000; /* a job shorter than this discovers nothing */

static_assert(sizeof(struct fi_context2) == 64, "room for a context");
static_assert(offsetof(struct stream_slot, kind) == offsetof(struct stream_slot, context) + 64 &&
                  offsetof(struct reads_piece, kind) ==
                      offsetof(struct reads_piece, context) + 64 &&
                  offsetof(struct ofi_receive, kind) == offsetof(struct ofi_receive, context) + 64,
              "the kind lies behind the context");

static struct ofi *ofi_of(struct fabric *fabric)
{
    return (struct ofi *)fabric;
}

void ofi_rank_fail(struct ofi *ofi, uint32_t rank, const char *what, int result)
{
    char reason[128];

    snprintf(reason, sizeof(reason), "libfabric cannot %s it: %s", what,
             ofi_library.strerror(result));
    fabric_ending(&ofi->base, rank, reason);
}

/* ---- Opening and closing ---- */

/* Starts discovery, once. */
static void begin(struct ofi *ofi)
{
    if (ofi->begin_ns)
        return;
    ofi->begin_ns = fabric_now_ns();
    ofi->base.counts.begun_ns = ofi->begin_ns - ofi->open_ns;
    if (ofi_setup_start(ofi, &ofi->failure) != MORAY_OK)
        atomic_store(&ofi->state, OFI_FAILED); /* the next poll tells it */
}

void ofi_want(struct ofi *ofi, uint32_t rank)
{
    begin(ofi);
    if (!ofi->asked[rank] && doorbell_up(ofi->base.doorbell, rank))
        ofi->asked[rank] =
            doorbell_tell(ofi->base.doorbell, rank, DOORBELL_WANTED, NULL, 0) == MORAY_OK;
}

static void names_free(struct ofi *ofi)
{
    for (uint32_t rank = 0; ofi->names && rank < ofi->base.options.rank_count; rank++)
        free(ofi->names[rank]);
    free(ofi->names);
}

static enum moray_code ofi_open(struct fabric *fabric, struct moray_error *error)
{
    struct ofi *ofi = ofi_of(fabric);
    uint32_t rank_count = fabric->options.rank_count;
    enum moray_code code;

    ofi->ready_fd = -1;
    ofi->open_ns = fabric_now_ns();
    ofi->addresses = calloc(rank_count, sizeof(*ofi->addresses));
    ofi->stuck_ns = calloc(rank_count, sizeof(*ofi->stuck_ns));
    ofi->names = calloc(rank_count, sizeof(*ofi->names));
    ofi->asked = calloc(rank_count, sizeof(*ofi->asked));
    ofi->by_door = calloc(rank_count, sizeof(*ofi->by_door));
    ofi->had_ns = calloc(rank_count, sizeof(*ofi->had_ns));
    if (!ofi->addresses || !ofi->stuck_ns || !ofi->names || !ofi->asked || !ofi->by_door ||
        !ofi->had_ns) {
        code = error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", rank_count);
        goto undo;
    }
    for (uint32_t rank = 0; rank < rank_count; rank++)
        ofi->addresses[rank] = FI_ADDR_NOTAVAIL;
    ofi->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (ofi->ready_fd < 0) {
        code = error_set(error, MORAY_SYSTEM, "no descriptor for libfabric: %s (ulimit -n?)",
                         strerror(errno));
        goto undo;
    }
    if ((code = fabric_watch(fabric, ofi->ready_fd, error)) != MORAY_OK)
        goto undo;
    if (fabric->options.provider)
        begin(ofi);
    return MORAY_OK;
undo:
    ofi_setup_close(ofi);
    free(ofi->asked);
    free(ofi->by_door);
    free(ofi->had_ns);
    names_free(ofi);
    free(ofi->addresses);
    free(ofi->stuck_ns);
    return code;
}

static void tell_address(struct ofi *ofi, uint32_t rank)
{
    if (doorbell_tell(ofi->base.doorbell, rank, DOORBELL_ADDRESS, ofi->name, ofi->name_bytes) ==
        MORAY_BUSY)
        fabric_ending(&ofi->base, rank, "it does not take what is told to it");
}

static void address_insert(struct ofi *ofi, uint32_t rank, const void *bytes, size_t count)
{
    uint8_t name[OFI_NAME_MAX] = {0};
    struct moray_error error;

    if (count != ofi->name_bytes) {
        error_set(&error, MORAY_PROTOCOL, "an address of rank %u was dropped: %zu bytes", rank,
                  count);
        fabric_refuse(&ofi->base, &error);
        return;
    }
    memcpy(name, bytes, count);
    if (fi_av_insert(ofi->av, name, 1, &ofi->addresses[rank], 0, NULL) != 1) {
        ofi->addresses[rank] = FI_ADDR_NOTAVAIL;
        fabric_ending(&ofi->base, rank, "libfabric does not take its address");
    }
}

/* The thread is done: from here on the endpoint is the agent's. */
static void take_over(struct ofi *ofi)
{
    const struct fabric_handler *handler = ofi->base.handler;
    uint64_t one;
    int fd, result;

    ofi_setup_join(ofi);
    ofi->started = true;
    ofi->base.counts.ready_ns = fabric_now_ns() - ofi->begin_ns;
    if (read(ofi->ready_fd, &one, sizeof(one)) < 0)
        one = 0; /* it was written before the state was set */
    if (ofi->state == OFI_READY && (fi_control(&ofi->cq->fid, FI_GETWAIT, &fd) ||
                                    fabric_watch(&ofi->base, fd, &ofi->failure) != MORAY_OK)) {
        error_set(&ofi->failure, MORAY_SYSTEM, "libfabric's provider %s cannot sleep",
                  ofi->info->fabric_attr->prov_name);
        ofi->state = OFI_FAILED;
    }
    if (ofi->state == OFI_READY && (result = ofi_regions_keep(ofi))) {
        error_set(&ofi->failure, MORAY_SYSTEM, "libfabric cannot register the arena: %s",
                  ofi_library.strerror(-result));
        ofi->state = OFI_FAILED;
    }
    if (ofi->state == OFI_FAILED) {
        handler->failed(handler->context, &ofi->failure);
        return;
    }
    snprintf(ofi->base.text + strlen(ofi->base.text),
             sizeof(ofi->base.text) - strlen(ofi->base.text), ", %s",
             ofi->info->fabric_attr->prov_name);
    for (uint32_t rank = 0; rank < ofi->base.options.rank_count; rank++) {
        struct ofi_name *name = ofi->names[rank];
        if (ofi_is_alive(ofi, rank) && doorbell_up(ofi->base.doorbell, rank))
            tell_address(ofi, rank);
        if (ofi_is_alive(ofi, rank) && name)
            address_insert(ofi, rank, name->data, name->bytes);
        free(name);
        ofi->names[rank] = NULL;
    }
}

bool ofi_is_working(const struct ofi *ofi)
{
    return ofi->started && ofi->state == OFI_READY;
}

static bool ofi_ready(const struct fabric *fabric)
{
    return ofi_is_working((const struct ofi *)fabric);
}

static void ofi_address(struct fabric *fabric, uint32_t rank, const void *bytes, size_t count)
{
    struct ofi *ofi = ofi_of(fabric);
    struct ofi_name *name;

    if (ofi->addresses[rank] != FI_ADDR_NOTAVAIL || ofi->names[rank])
        return; /* told once more on a second connection */
    if (ofi_is_working(ofi)) {
        address_insert(ofi, rank, bytes, count);
        return;
    }
    name = malloc(sizeof(*name) + count); /* until our own discovery is done */
    if (!name) {
        fabric_ending(fabric, rank, "no memory for its address");
        return;
    }
    name->bytes = count;
    memcpy(name->data, bytes, count);
    ofi->names[rank] = name;
}

static bool ofi_close(struct fabric *fabric, bool clean)
{
    struct ofi *ofi = ofi_of(fabric);

    atomic_store(&ofi->closing, true);
    ofi_setup_join(ofi);
    if (ofi->ep) /* first: then nothing is posted any more */
        fi_close(&ofi->ep->fid);
    ofi->ep = NULL;
    stream_destroy(fabric->stream);
    fabric->stream = NULL;
    ofi_regions_close(ofi);
    ofi_setup_close(ofi);
    names_free(ofi);
    free(ofi->asked);
    free(ofi->by_door);
    free(ofi->had_ns);
    free(ofi->addresses);
    free(ofi->stuck_ns);
    return clean;
}

/* ---- Posting ---- */

void ofi_receive_post(struct ofi *ofi, struct ofi_receive *receive)
{
    void *descriptor = ofi->receives_mr ? fi_mr_desc(ofi->receives_mr) : NULL;

    if (fi_recv(ofi->ep, receive->frame, STREAM_FRAME_MAX, descriptor, FI_ADDR_UNSPEC,
                receive->context) == 0)
        return;
    receive->next = ofi->unposted; /* the next poll tries again */
    ofi->unposted = receive;
}

/* The registration of a slot's memory, made when it is first posted. */
static int slot_describe(struct ofi *ofi, struct stream_slot *slot, void **descriptor)
{
    size_t bytes = slot->large ? STREAM_FRAME_MAX : STREAM_SMALL_MAX;
    int result = 0;

    *descriptor = NULL;
    if (!ofi_wants_descriptors(ofi))
        return 0;
    if (!slot->descriptor) {
        struct fid_mr *mr = NULL;
        result = ofi_register(ofi, slot->frame, bytes, FI_SEND, &mr);
        slot->descriptor = result ? NULL : mr;
    }
    if (slot->descriptor)
        *descriptor = fi_mr_desc(slot->descriptor);
    return result;
}

static void ofi_slot_freed(void *fabric, struct stream_slot *slot)
{
    struct fid_mr *mr = slot->descriptor;

    (void)fabric;
    if (mr)
        fi_close(&mr->fid);
}

/* A first frame that is refused for too long: the rank cannot be connected with. */
static void frame_again(struct ofi *ofi, uint32_t rank)
{
    uint64_t now = ofi->base.awake_ns;

    if (ofi->stuck_ns[rank] == OFI_CONNECTED)
        return;
    if (!ofi->stuck_ns[rank])
        ofi->stuck_ns[rank] = now;
    if (now - ofi->stuck_ns[rank] > ofi->base.options.connect_limit_ms * UINT64_C(1000000))
        fabric_ending(&ofi->base, rank, "libfabric does not connect with it in time");
}

/* What fits goes over the doorbell, as far as it takes it. */
static void frames_post_early(struct ofi *ofi, uint32_t rank)
{
    struct stream_slot *slot;

    while ((slot = stream_first(ofi->base.stream, rank)) && slot->bytes <= DOORBELL_RECORD_MAX &&
           doorbell_tell(ofi->base.doorbell, rank, DOORBELL_FRAME, slot->frame, slot->bytes) ==
               MORAY_OK) {
        stream_posted(ofi->base.stream, rank);
        stream_sent(ofi->base.stream, slot);
        ofi->by_door[rank] = true;
    }
    if (slot && slot->bytes > DOORBELL_RECORD_MAX)
        ofi_want(ofi, rank);
}

/* Many may lie unread in the connection: those by libfabric would overtake more of them than a receiver
 * keeps aside. So the first of these waits until all of those are there. */
static bool door_is_empty(struct ofi *ofi, uint32_t rank)
{
    uint64_t now;

    if (!ofi->by_door[rank])
        return true;
    now = fabric_now_ns();
    if (now - ofi->had_ns[rank] >= again_ns &&
        doorbell_tell(ofi->base.doorbell, rank, DOORBELL_HAD, NULL, 0) == MORAY_OK)
        ofi->had_ns[rank] = now;
    return false;
}

static void frames_post(struct ofi *ofi, uint32_t rank)
{
    struct stream_slot *slot;
    void *descriptor;
    ssize_t result = 0;

    if (!ofi_is_alive(ofi, rank))
        return;
    if (!ofi_is_working(ofi) || ofi->addresses[rank] == FI_ADDR_NOTAVAIL) {
        frames_post_early(ofi, rank);
        return;
    }
    if (stream_first(ofi->base.stream, rank) && !door_is_empty(ofi, rank))
        return;
    while (!result && (slot = stream_first(ofi->base.stream, rank))) {
        result = slot_describe(ofi, slot, &descriptor);
        slot->kind = OFI_SEND;
        if (!result)
            result = fi_send(ofi->ep, slot->frame, slot->bytes, descriptor, ofi->addresses[rank],
                             slot->context);
        if (!result) {
            stream_posted(ofi->base.stream, rank);
            ofi->base.counts.frames_sent++;
        }
    }
    if (result == -FI_EAGAIN)
        frame_again(ofi, rank);
    else if (result)
        ofi_rank_fail(ofi, rank, "send to", (int)-result);
}

static void ofi_post(struct fabric *fabric, uint32_t rank)
{
    struct ofi *ofi = ofi_of(fabric);
    const uint32_t *waiting;

    if (rank != UINT32_MAX) {
        frames_post(ofi, rank);
        return;
    }
    /* From the end: a rank whose queue empties is replaced by the last one. */
    for (size_t i = stream_waiting(fabric->stream, &waiting); i-- > 0;)
        frames_post(ofi, waiting[i]);
    ofi_pieces_post(ofi);
}

static void ofi_wanted(struct fabric *fabric, uint32_t rank)
{
    (void)rank;
    begin(ofi_of(fabric));
}

static void ofi_had(struct fabric *fabric, uint32_t rank, uint64_t frames)
{
    struct ofi *ofi = ofi_of(fabric);

    if (!ofi->by_door[rank] || frames < stream_posted_count(fabric->stream, rank))
        return;
    ofi->by_door[rank] = false;
    frames_post(ofi, rank);
}

static void ofi_up(struct fabric *fabric, uint32_t rank)
{
    if (ofi_is_working(ofi_of(fabric)))
        tell_address(ofi_of(fabric), rank);
    frames_post(ofi_of(fabric), rank);
}

/* ---- Polling ---- */

static void receive_done(struct ofi *ofi, struct ofi_receive *receive, size_t bytes)
{
    fabric_receive(&ofi->base, receive->frame, bytes);
    ofi_receive_post(ofi, receive);
}

static struct stream_slot *slot_of(uint64_t *context)
{
    return (struct stream_slot *)((char *)context - offsetof(struct stream_slot, context));
}

static struct reads_piece *piece_of(uint64_t *context)
{
    return (struct reads_piece *)((char *)context - offsetof(struct reads_piece, context));
}

static void event(struct ofi *ofi, const struct fi_cq_msg_entry *entry)
{
    uint64_t *context = entry->op_context;

    switch (context[8]) {
    case OFI_SEND:
        ofi->stuck_ns[slot_of(context)->rank] = OFI_CONNECTED;
        stream_sent(ofi->base.stream, slot_of(context));
        return;
    case OFI_RECEIVE:
        receive_done(ofi, (struct ofi_receive *)context, entry->len);
        return;
    case OFI_PIECE:
        ofi_piece_forget(ofi, piece_of(context));
        reads_done(ofi->base.reads, piece_of(context), true);
        return;
    }
    abort(); /* a context that nobody posted: memory is corrupt */
}

/* An operation failed. What it was tells whose end it is. */
static void event_failed(struct ofi *ofi)
{
    struct fi_cq_err_entry entry = {0};
    uint64_t *context;

    if (fi_cq_readerr(ofi->cq, &entry, 0) != 1 || !(context = entry.op_context))
        return;
    if (context[8] == OFI_SEND) {
        ofi_rank_fail(ofi, slot_of(context)->rank, "send to", entry.err);
        stream_sent(ofi->base.stream, slot_of(context));
    } else if (context[8] == OFI_PIECE) {
        ofi_rank_fail(ofi, piece_of(context)->rank, "read from", entry.err);
        ofi_piece_forget(ofi, piece_of(context));
        reads_done(ofi->base.reads, piece_of(context), false);
    } else if (entry.err != FI_ECANCELED) { /* too long a message, or half of one */
        struct moray_error error;
        error_set(&error, MORAY_PROTOCOL, "libfabric dropped what came in: %s",
                  ofi_library.strerror(entry.err));
        fabric_refuse(&ofi->base, &error);
        ofi_receive_post(ofi, (struct ofi_receive *)context);
    }
}

static void unposted_post(struct ofi *ofi)
{
    struct ofi_receive *receive = ofi->unposted;

    ofi->unposted = NULL;
    while (receive) {
        struct ofi_receive *next = receive->next;
        ofi_receive_post(ofi, receive);
        receive = next;
    }
}

static size_t ofi_poll(struct fabric *fabric)
{
    struct ofi *ofi = ofi_of(fabric);
    struct fi_cq_msg_entry entries[EVENTS_MAX];
    const uint32_t *waiting;
    size_t work = 0;

    if (!ofi->started &&
        atomic_load_explicit(&ofi->state, memory_order_acquire) != OFI_DISCOVERING) {
        take_over(ofi);
        work++;
    }
    if (!ofi_is_working(ofi)) {
        if (!ofi->begin_ns && fabric_now_ns() - ofi->open_ns >= begin_after_ns)
            begin(ofi);
        if (stream_waiting(fabric->stream, &waiting) || reads_count(fabric->reads))
            ofi_post(fabric, UINT32_MAX);
        return work;
    }
    for (int round = 0; round < ROUNDS_MAX; round++) {
        ssize_t count = fi_cq_read(ofi->cq, entries, EVENTS_MAX);
        if (count == -FI_EAVAIL) {
            event_failed(ofi);
            work++;
            continue;
        }
        if (count <= 0)
            break;
        for (ssize_t i = 0; i < count; i++)
            event(ofi, &entries[i]);
        work += (size_t)count;
        if (count < EVENTS_MAX)
            break;
    }
    if (ofi->unposted)
        unposted_post(ofi);
    if (stream_waiting(fabric->stream, &waiting) || reads_count(fabric->reads))
        ofi_post(fabric, UINT32_MAX);
    return work;
}

static bool ofi_may_sleep(struct fabric *fabric)
{
    struct ofi *ofi = ofi_of(fabric);
    struct fid *queue;
    const uint32_t *waiting;

    if (!ofi->begin_ns)
        fabric_nap(fabric, begin_after_ns);
    if (!ofi_is_working(ofi))
        return ofi->started || atomic_load(&ofi->state) == OFI_DISCOVERING;
    queue = &ofi->cq->fid;
    if (fi_trywait(ofi->fabric, &queue, 1) != 0)
        return false;
    if (ofi->unposted || stream_waiting(fabric->stream, &waiting) ||
        (reads_count(fabric->reads) && !reads_in_flight(fabric->reads)))
        fabric_nap(fabric, again_ns);
    return true;
}

static void ofi_fence(struct fabric *fabric, uint32_t rank)
{
    struct ofi *ofi = ofi_of(fabric);

    if (ofi->addresses[rank] != FI_ADDR_NOTAVAIL)
        fi_av_remove(ofi->av, &ofi->addresses[rank], 1, 0);
    ofi->addresses[rank] = FI_ADDR_NOTAVAIL;
}

const struct fabric_ops fabric_ofi = {
    .name = "ofi",
    .bytes = sizeof(struct ofi),
    .open = ofi_open,
    .post = ofi_post,
    .poll = ofi_poll,
    .expose = ofi_expose,
    .conceal = ofi_conceal,
    .may_sleep = ofi_may_sleep,
    .ready = ofi_ready,
    .up = ofi_up,
    .address = ofi_address,
    .wanted = ofi_wanted,
    .had = ofi_had,
    .fence = ofi_fence,
    .close = ofi_close,
    .slot_freed = ofi_slot_freed,
};
