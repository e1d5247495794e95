/**
 * What both fabrics share: the ranks' states, messages and reads on their way to the carrier, the
 * poll, the sleep with its bells (inside.h), and how a loss is told.
 */
#include "fabric/fabric.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fabric/inside.h"

enum { REFUSED_TOLD_MAX = 8 }; /* stories a fabric tells; the rest is only counted */
static const uint64_t doorbell_every_ns = 20000;
static const uint64_t reading_trust_ns = 1000000000; /* a reader says READING again within it */
static const uint64_t owing_patience_ns = 2000000;   /* of polling for a frame on its way */
static const uint64_t quick_bell_ns = 30000; /* bells that follow each other as fast as a stream */
enum { quick_bells_max = 3 };
static const uint64_t rescue_ns = 900000000; /* a sleep that only the timer ended */
static const uint64_t bell_late_ns = 200000000;

uint64_t fabric_now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

enum moray_code fabric_watch(struct fabric *fabric, int fd, struct moray_error *error)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

    if (epoll_ctl(fabric->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return error_set(error, MORAY_SYSTEM, "a descriptor cannot be watched: %s",
                         strerror(errno));
    return MORAY_OK;
}

/* ---- What the doorbell tells ---- */

void fabric_ending(struct fabric *fabric, uint32_t rank, const char *reason)
{
    struct fabric_rank *peer = &fabric->ranks[rank];

    if (peer->state != FABRIC_RANK_ALIVE)
        return;
    peer->state = FABRIC_RANK_ENDING;
    snprintf(peer->reason, sizeof(peer->reason), "%.*s", (int)sizeof(peer->reason) - 1, reason);
    fabric->ending[fabric->ending_count++] = rank;
    fabric->reading_count -= peer->reading;
    peer->reading = false;
}

void fabric_refuse(struct fabric *fabric, const struct moray_error *error)
{
    fabric->counts.refused++;
    if (fabric->refused_told < REFUSED_TOLD_MAX) {
        fabric->refused_told++;
        fabric->handler->refused(fabric->handler->context, error);
    }
}

void fabric_receive(struct fabric *fabric, const void *frame, size_t bytes)
{
    struct moray_error error;
    enum moray_code code = stream_receive(fabric->stream, frame, bytes, fabric->handler, &error);

    if (code == MORAY_PROTOCOL)
        fabric_refuse(fabric, &error);
    else if (code == MORAY_NO_MEMORY)
        fabric_ending(fabric, ((const struct stream_frame *)frame)->from, error.text);
}

void fabric_ring(struct fabric *fabric, uint32_t rank)
{
    struct fabric_rank *peer = &fabric->ranks[rank];
    enum moray_code code;
    struct fabric_bell bell;
    uint64_t now;

    if (peer->believed_awake || peer->state != FABRIC_RANK_ALIVE)
        return;
    now = fabric_now_ns();
    peer->quick_bells = now - peer->bell_ns < quick_bell_ns ? peer->quick_bells + 1 : 0;
    peer->bell_ns = now;
    bell = (struct fabric_bell){.posted = stream_posted_count(fabric->stream, rank),
                                .keep = peer->quick_bells >= quick_bells_max};
    code = doorbell_tell(fabric->doorbell, rank, DOORBELL_BELL, &bell, sizeof(bell));
    peer->believed_awake = code == MORAY_OK && peer->quick_bells >= quick_bells_max;
    peer->bell_wanted = code == MORAY_UNAVAILABLE;
    fabric->counts.bells += code == MORAY_OK;
    if (code == MORAY_UNAVAILABLE)
        doorbell_dial(fabric->doorbell, rank);
}

static void on_up(void *context, uint32_t rank)
{
    struct fabric *fabric = context;
    struct fabric_rank *peer = &fabric->ranks[rank];

    fabric->heard++;
    if (peer->state != FABRIC_RANK_ALIVE)
        return;
    fabric->ops->up(fabric, rank);
    if (peer->bell_wanted)
        fabric_ring(fabric, rank);
}

/* The peer sleeps, and had this many of our frames when it decided to: what came after needs a bell. */
static void hear_asleep(struct fabric *fabric, uint32_t rank, const void *bytes)
{
    uint64_t had;

    memcpy(&had, bytes, sizeof(had));
    fabric->ranks[rank].believed_awake = false;
    if (stream_posted_count(fabric->stream, rank) > had)
        fabric_ring(fabric, rank);
}

static bool is_owing(const struct fabric *fabric, uint32_t rank)
{
    return fabric->ranks[rank].state == FABRIC_RANK_ALIVE &&
           fabric->ranks[rank].told > stream_received_count(fabric->stream, rank);
}

static void hear_bell(struct fabric *fabric, uint32_t rank, const void *bytes)
{
    struct fabric_rank *peer = &fabric->ranks[rank];
    struct fabric_bell bell;

    if (!fabric->ops->needs_bells)
        return;
    memcpy(&bell, bytes, sizeof(bell));
    peer->told = bell.posted;
    if (is_owing(fabric, rank)) {
        fabric->owing_ns = fabric_now_ns();
        if (!peer->owing)
            fabric->owing[fabric->owing_count++] = rank;
        peer->owing = true;
    }
    if (bell.keep && !peer->rang) {
        peer->rang = true;
        fabric->rang[fabric->rang_count++] = rank;
    }
}

/* A question without bytes, and its answer. One that finds no room is asked for again. */
static void hear_had(struct fabric *fabric, uint32_t rank, const void *bytes, size_t count)
{
    uint64_t frames = stream_received_count(fabric->stream, rank);

    if (!count) {
        (void)!doorbell_tell(fabric->doorbell, rank, DOORBELL_HAD, &frames, sizeof(frames));
        return;
    }
    memcpy(&frames, bytes, sizeof(frames));
    if (fabric->ops->had)
        fabric->ops->had(fabric, rank, frames);
}

static void hear_reading(struct fabric *fabric, uint32_t rank, bool reading)
{
    fabric->reading_count += reading - fabric->ranks[rank].reading;
    fabric->ranks[rank].reading = reading;
    fabric->reading_ns = fabric_now_ns();
}

static void on_record(void *context, uint32_t rank, enum doorbell_word word, const void *bytes,
                      size_t count)
{
    struct fabric *fabric = context;
    struct moray_error error;

    if (fabric->ranks[rank].state != FABRIC_RANK_ALIVE)
        return;
    fabric->heard += word != DOORBELL_BELL;
    if (word == DOORBELL_BELL && count == sizeof(struct fabric_bell)) {
        fabric->suspect_ns = 0;
        hear_bell(fabric, rank, bytes);
    } else if (word == DOORBELL_ASLEEP && count == sizeof(uint64_t)) {
        hear_asleep(fabric, rank, bytes);
    } else if ((word == DOORBELL_READING || word == DOORBELL_READ) && count == 0) {
        hear_reading(fabric, rank, word == DOORBELL_READING);
    } else if (word == DOORBELL_ADDRESS && count > 0) {
        fabric->ops->address(fabric, rank, bytes, count);
    } else if (word == DOORBELL_WANTED && count == 0 && fabric->ops->wanted) {
        fabric->ops->wanted(fabric, rank);
    } else if (word == DOORBELL_HAD && (count == 0 || count == sizeof(uint64_t))) {
        hear_had(fabric, rank, bytes, count);
    } else if (word == DOORBELL_FRAME) {
        fabric_receive(fabric, bytes, count);
    } else if (word == DOORBELL_LEAVING && count == 0) {
        fabric->ranks[rank].leaving = true;
        fabric_ending(fabric, rank, "it left");
    } else if (word != DOORBELL_BEAT) {
        error_set(&error, MORAY_PROTOCOL, "a record of rank %u was dropped: word %d, %zu bytes",
                  rank, (int)word, count);
        fabric_refuse(fabric, &error);
    }
}

static void on_end(void *context, uint32_t rank, const char *reason)
{
    fabric_ending(context, rank, reason);
}

static void on_refused(void *context, const struct moray_error *error)
{
    fabric_refuse(context, error);
}

/* ---- Messages and reads ---- */

enum moray_code fabric_send(struct fabric *fabric, uint32_t rank, const void *bytes, size_t count)
{
    enum moray_code code;

    if (rank >= fabric->options.rank_count || rank == fabric->options.rank || count == 0 ||
        count > FABRIC_MESSAGE_BYTES_MAX)
        return MORAY_INVALID;
    if (fabric->ranks[rank].state != FABRIC_RANK_ALIVE)
        return MORAY_LOST;
    code = stream_push(fabric->stream, rank, bytes, count);
    if (code != MORAY_OK)
        return code;
    fabric->counts.messages_sent++;
    fabric->counts.bytes_sent += count;
    if (!doorbell_up(fabric->doorbell, rank))
        doorbell_dial(fabric->doorbell, rank);
    fabric->ops->post(fabric, rank);
    return MORAY_OK;
}

enum moray_code fabric_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                              struct fabric_window *window, struct moray_error *error)
{
    *window = (struct fabric_window){0};
    if (bytes == 0 || offset > fabric->options.arena_bytes ||
        bytes > fabric->options.arena_bytes - offset)
        return error_set(error, MORAY_INVALID,
                         "bytes %" PRIu64 " to %" PRIu64 " lie outside the arena of %zu bytes",
                         offset, offset + bytes, fabric->options.arena_bytes);
    return fabric->ops->expose(fabric, offset, bytes, window, error);
}

void fabric_conceal(struct fabric *fabric, const struct fabric_window *window)
{
    fabric->ops->conceal(fabric, window);
}

enum moray_code fabric_read(struct fabric *fabric, uint32_t rank,
                            const struct fabric_window *window, uint64_t offset, void *local,
                            uint64_t bytes, uint64_t cookie)
{
    enum moray_code code;

    if (rank >= fabric->options.rank_count || rank == fabric->options.rank || bytes == 0 ||
        offset > window->bytes || bytes > window->bytes - offset || !local ||
        (fabric->ops->reaches && !fabric->ops->reaches(fabric, rank, window)))
        return MORAY_INVALID;
    if (fabric->ranks[rank].state != FABRIC_RANK_ALIVE)
        return MORAY_LOST;
    code = reads_add(fabric->reads, rank, window, offset, local, bytes, cookie);
    if (code != MORAY_OK)
        return code;
    fabric->counts.reads++;
    fabric->counts.read_bytes += bytes;
    if (!doorbell_up(fabric->doorbell, rank))
        doorbell_dial(fabric->doorbell, rank);
    fabric->ops->post(fabric, UINT32_MAX);
    return MORAY_OK;
}

/* ---- Polling and losses ---- */

/* Takes the rank out of everything, then tells. What it sent before its end is delivered first. */
static void rank_lose(struct fabric *fabric, uint32_t rank)
{
    const struct fabric_handler *handler = fabric->handler;
    struct fabric_rank *peer = &fabric->ranks[rank];

    for (int round = 0; round < 64 && fabric->ops->poll(fabric) > 0; round++)
        ;
    peer->state = FABRIC_RANK_LOST;
    fabric->counts.lost += !peer->leaving;
    fabric->ops->fence(fabric, rank);
    stream_drop(fabric->stream, rank);
    if (!peer->leaving) /* else it waits for our own LEAVING, in leave() */
        doorbell_drop(fabric->doorbell, rank);
    reads_lose(fabric->reads, rank, fabric_now_ns());
    reads_tell(fabric->reads, handler, fabric_now_ns());
    handler->lost(handler->context, rank, peer->leaving, peer->reason);
}

/* Whether a descriptor ended the sleep. */
static bool is_rung(const struct fabric *fabric)
{
    struct epoll_event event;

    return epoll_wait(fabric->epoll_fd, &event, 1, 0) > 0;
}

static void nap_end(struct fabric *fabric)
{
    uint64_t ticks;

    if (read(fabric->timer_fd, &ticks, sizeof(ticks)) > 0)
        fabric->naps = false;
}

/* Hears the doorbell; what it tells of may be there by now. Returns how much came, or changed. */
static size_t door_poll(struct fabric *fabric, uint64_t now)
{
    struct doorbell_handler doorbell = {fabric, on_up, on_record, on_end, on_refused};

    fabric->doorbell_ns = now;
    fabric->door_waits = false;
    fabric->heard = 0;
    if (!doorbell_poll(fabric->doorbell, &doorbell))
        return 0;
    return fabric->heard + fabric->ops->poll(fabric);
}

static void rescue_count(struct fabric *fabric)
{
    fabric->counts.rescues++;
    fabric->suspect_ns = 0;
}

/* Something was there and nothing had rung. Its bell may be on its way still: it is slower than MPI
 * in shared memory, and ranks whose timers run alike meet just then. */
static void rescue_suspect(struct fabric *fabric, uint64_t now)
{
    if (!fabric->ops->needs_bells)
        rescue_count(fabric);
    else if (!fabric->suspect_ns)
        fabric->suspect_ns = now;
}

size_t fabric_poll(struct fabric *fabric, const struct fabric_handler *handler)
{
    uint64_t now = fabric_now_ns();
    bool slept = fabric->asleep_ns, late = slept && now - fabric->asleep_ns >= rescue_ns;
    bool rung = !late || is_rung(fabric);
    bool door = slept || fabric->door_waits || now - fabric->doorbell_ns >= doorbell_every_ns;
    size_t work;

    fabric->handler = handler;
    fabric->awake_ns = time_awake_ns(&fabric->awake, now);
    fabric->asleep_ns = 0;
    if (slept && fabric->naps)
        nap_end(fabric);
    size_t carried = fabric->ops->poll(fabric);
    if (slept && !carried && fabric->ops->needs_bells)
        carried = fabric->ops->poll(fabric); /* MPI looks first, and then makes progress */
    if (!rung && carried)
        rescue_suspect(fabric, now);
    if (carried && door && !fabric->door_waits)
        fabric->door_waits = true; /* its bell says no more than that it came */
    else if (door)
        carried += door_poll(fabric, now);
    if (fabric->suspect_ns && now - fabric->suspect_ns > bell_late_ns)
        rescue_count(fabric);
    work = carried + reads_tell(fabric->reads, handler, now);
    for (uint32_t i = 0; i < fabric->ending_count; i++, work++)
        rank_lose(fabric, fabric->ending[i]);
    fabric->ending_count = 0;
    fabric->handler = NULL;
    return work;
}

void fabric_fence(struct fabric *fabric, uint32_t rank, const char *reason)
{
    if (rank < fabric->options.rank_count && rank != fabric->options.rank)
        fabric_ending(fabric, rank, reason);
}

/* ---- Sleep ---- */

void fabric_nap(struct fabric *fabric, uint64_t ns)
{
    struct itimerspec once = {
        .it_value = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)}};

    timerfd_settime(fabric->timer_fd, 0, &once, NULL);
    fabric->naps = true;
}

/* Tells those that believe us awake. False: one cannot be told now. */
static bool asleep_tell(struct fabric *fabric)
{
    while (fabric->rang_count) {
        uint32_t rank = fabric->rang[fabric->rang_count - 1];
        uint64_t had = stream_received_count(fabric->stream, rank);
        if (fabric->ranks[rank].state == FABRIC_RANK_ALIVE &&
            doorbell_tell(fabric->doorbell, rank, DOORBELL_ASLEEP, &had, sizeof(had)) == MORAY_BUSY)
            return false;
        fabric->ranks[rank].rang = false;
        fabric->rang_count--;
    }
    return true;
}

/* Whether frames that we were told of have not come yet. */
static bool frames_are_due(struct fabric *fabric)
{
    for (uint32_t i = fabric->owing_count; i-- > 0;) {
        uint32_t rank = fabric->owing[i];
        if (is_owing(fabric, rank))
            continue;
        fabric->ranks[rank].owing = false;
        fabric->owing[i] = fabric->owing[--fabric->owing_count];
    }
    return fabric->owing_count > 0;
}

bool fabric_may_sleep(struct fabric *fabric)
{
    if (fabric->ending_count || fabric->door_waits)
        return false;
    if (frames_are_due(fabric)) {
        if (fabric_now_ns() - fabric->owing_ns < owing_patience_ns)
            return false;
        fabric_nap(fabric, 1000000); /* the sender may have stopped */
    }
    if (fabric->ops->needs_bells && fabric->reading_count) {
        /* A reader that says nothing for long has stopped; look after it now and then. */
        if (fabric_now_ns() - fabric->reading_ns < reading_trust_ns)
            return false;
        fabric_nap(fabric, 1000000);
    }
    if (!fabric->ops->may_sleep(fabric) || !asleep_tell(fabric))
        return false;
    fabric->asleep_ns = fabric_now_ns();
    return true;
}

bool fabric_is_asleep(const struct fabric *fabric)
{
    return fabric->asleep_ns != 0;
}

int fabric_fd(const struct fabric *fabric)
{
    return fabric->epoll_fd;
}

void fabric_wake(struct fabric *fabric, uint32_t rank)
{
    if (rank >= fabric->options.rank_count || rank == fabric->options.rank)
        return;
    fabric->ranks[rank].believed_awake = false;
    fabric_ring(fabric, rank);
}

bool fabric_ready(const struct fabric *fabric)
{
    return fabric->ops->ready(fabric);
}

void fabric_counts(const struct fabric *fabric, struct fabric_counts *counts)
{
    *counts = fabric->counts;
    stream_told(fabric->stream, &counts->messages_received, &counts->bytes_received);
}

uint64_t fabric_bells(const struct fabric *fabric)
{
    return fabric->counts.bells;
}

const char *fabric_text(const struct fabric *fabric)
{
    return fabric->text;
}
