/**
 * The MPI carrier: frames by two-sided messages, reads by MPI_Rget from one window over the arena.
 *
 * All MPI from one thread (FUNNELED), on a communicator of its own. Open MPI has no wait that sleeps,
 * so the doorbell stands in for a descriptor (inside.h tells how bells are exact); what is under way
 * in this rank itself (a long send, a read) keeps it polling, and where nothing moves for a while
 * (a stopped peer) it naps a millisecond at a time. The target of a read polls from READING to READ.
 * The window is made once, by all together, and locked for all time: osc pt2pt, which fabric_environment()
 * chooses, needs no word of the target but its progress. A reader cannot be held to the range it was
 * granted: the key here is no secret, and the bound is that MPI takes ranks of this job only.
 * With MPI as the fabric the loss of a rank ends the job: MPI itself tells of no death and does not
 * complete what it had begun with the dead, so after a loss nothing is waited for and nothing freed.
 */
#include <mpi.h>

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fabric/inside.h"

enum { RECEIVE_COUNT = 16, SENDS_MAX = 256, TAG = 1, GREETED_MAX = 256 };
static const uint64_t patience_ns = 5000000; /* of polling while nothing moves, before naps */
static const uint64_t nap_ns = 1000000;
static const uint64_t reading_again_ns = 300000000; /* READING is said again while it lasts */
static const uint64_t close_limit_ns = 2000000000;

static_assert(sizeof(MPI_Request) <= sizeof(uint64_t[2]), "room for a request in a piece");

struct mpi {
    struct fabric base; /* first */
    MPI_Comm comm;
    MPI_Win window;
    MPI_Request receives[RECEIVE_COUNT];
    uint8_t (*frames)[STREAM_FRAME_MAX + 24]; /* of the receives; owned */
    /* What is under way: requests[i] belongs to slots[i], gets[i] to pieces[i]; no gaps. */
    MPI_Request sends[SENDS_MAX], *gets;
    struct stream_slot *slots[SENDS_MAX];
    struct reads_piece **pieces;
    int send_count, get_count;
    uint32_t *reading;   /* by rank: pieces in flight from it */
    uint64_t *arenas;    /* by rank: bytes of its arena */
    uint64_t reading_ns; /* when READING was last said */
    uint64_t moved_ns;   /* when something last ended */
};

static struct mpi *mpi_of(struct fabric *fabric)
{
    return (struct mpi *)fabric;
}

static enum moray_code failed(struct moray_error *error, const char *what, int result)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int bytes;

    MPI_Error_string(result, text, &bytes);
    return error_set(error, MORAY_SYSTEM, "MPI: %s failed: %s (is OMPI_MCA_osc=pt2pt set?)", what,
                     text);
}

/* ---- Opening and closing ---- */

static void receive_post(struct mpi *mpi, int index)
{
    MPI_Irecv(mpi->frames[index], STREAM_FRAME_MAX, MPI_BYTE, MPI_ANY_SOURCE, TAG, mpi->comm,
              &mpi->receives[index]);
}

static enum moray_code window_open(struct mpi *mpi, struct moray_error *error)
{
    const struct fabric_options *options = &mpi->base.options;
    int result;

    if ((result = MPI_Comm_dup(MPI_COMM_WORLD, &mpi->comm)))
        return failed(error, "MPI_Comm_dup", result);
    MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
    if ((result = MPI_Win_create(options->arena, (MPI_Aint)options->arena_bytes, 1, MPI_INFO_NULL,
                                 mpi->comm, &mpi->window)))
        return failed(error, "MPI_Win_create", result);
    MPI_Win_set_errhandler(mpi->window, MPI_ERRORS_RETURN);
    if ((result = MPI_Win_lock_all(MPI_MODE_NOCHECK, mpi->window)))
        return failed(error, "MPI_Win_lock_all", result);
    return MORAY_OK;
}

/* Reads a byte of every rank's arena: the first access to a target waits inside MPI until the target
 * has answered, whatever the lock was told, and later, with a target that hangs, for ever. All ranks
 * are here now. In a large job the first access is left to the first read. */
static enum moray_code targets_greet(struct mpi *mpi, struct moray_error *error)
{
    const struct fabric_options *options = &mpi->base.options;
    uint32_t count = options->rank_count;
    uint64_t mine = options->arena_bytes, *all = mpi->arenas = calloc(count, sizeof(*all));
    enum moray_code code = MORAY_OK;
    uint8_t byte;
    int result = MPI_SUCCESS;

    if (!all)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", count);
    result = MPI_Allgather(&mine, sizeof(mine), MPI_BYTE, all, sizeof(mine), MPI_BYTE, mpi->comm);
    for (uint32_t rank = 0; !result && rank < count && count <= GREETED_MAX; rank++) {
        MPI_Request get;
        if (!all[rank] || rank == options->rank)
            continue;
        result = MPI_Rget(&byte, 1, MPI_BYTE, (int)rank, 0, 1, MPI_BYTE, mpi->window, &get);
        if (!result)
            result = MPI_Wait(&get, MPI_STATUS_IGNORE);
    }
    if (!result)
        result = MPI_Barrier(mpi->comm); /* until all are served */
    if (result)
        code = failed(error, "the first read of the arenas", result);
    return code;
}

static void memory_free(struct mpi *mpi)
{
    free(mpi->frames);
    free(mpi->gets);
    free(mpi->pieces);
    free(mpi->reading);
    free(mpi->arenas);
}

static enum moray_code mpi_open(struct fabric *fabric, struct moray_error *error)
{
    struct mpi *mpi = mpi_of(fabric);
    uint32_t pieces_max = fabric->options.read_pieces_max;
    enum moray_code code;

    mpi->frames = calloc(RECEIVE_COUNT, sizeof(*mpi->frames));
    mpi->gets = calloc(pieces_max, sizeof(MPI_Request));
    mpi->pieces = calloc(pieces_max, sizeof(*mpi->pieces));
    mpi->reading = calloc(fabric->options.rank_count, sizeof(*mpi->reading));
    if (!mpi->frames || !mpi->gets || !mpi->pieces || !mpi->reading)
        code = error_set(error, MORAY_NO_MEMORY, "no memory for the MPI fabric");
    else
        code = window_open(mpi, error);
    if (code == MORAY_OK)
        code = targets_greet(mpi, error);
    if (code != MORAY_OK) {
        memory_free(mpi);
        return code;
    }
    for (int i = 0; i < RECEIVE_COUNT; i++)
        receive_post(mpi, i);
    fabric->counts.ready_ns = 1;
    return MORAY_OK;
}

/* Waits for all ranks, for a limit. */
static bool meet_all(struct mpi *mpi)
{
    uint64_t end_ns = fabric_now_ns() + close_limit_ns;
    MPI_Request barrier;
    int done = 0;

    if (MPI_Ibarrier(mpi->comm, &barrier))
        return false;
    while (!done && fabric_now_ns() < end_ns) {
        if (MPI_Test(&barrier, &done, MPI_STATUS_IGNORE))
            return false;
        if (!done)
            usleep(20);
    }
    return done;
}

static bool mpi_close(struct fabric *fabric, bool clean)
{
    struct mpi *mpi = mpi_of(fabric);

    if (!clean || mpi->get_count || !meet_all(mpi)) {
        /* MPI may still write into what it was given: that memory stays until the process ends. */
        fabric->stream = NULL;
        return false;
    }
    for (int i = 0; i < RECEIVE_COUNT; i++) {
        MPI_Cancel(&mpi->receives[i]);
        MPI_Request_free(&mpi->receives[i]);
    }
    for (int i = 0; i < mpi->send_count; i++)
        MPI_Wait(&mpi->sends[i], MPI_STATUS_IGNORE);
    MPI_Win_unlock_all(mpi->window);
    MPI_Win_free(&mpi->window);
    MPI_Comm_free(&mpi->comm);
    memory_free(mpi);
    return true;
}

/* ---- Posting ---- */

static bool frame_post(struct mpi *mpi, uint32_t rank)
{
    struct stream_slot *slot = stream_first(mpi->base.stream, rank);
    int done = 0;

    if (!slot || mpi->send_count == SENDS_MAX)
        return false;
    if (MPI_Isend(slot->frame, (int)slot->bytes, MPI_BYTE, (int)rank, TAG, mpi->comm,
                  &mpi->sends[mpi->send_count])) {
        fabric_ending(&mpi->base, rank, "MPI_Isend to it failed");
        return false;
    }
    stream_posted(mpi->base.stream, rank);
    mpi->base.counts.frames_sent++;
    MPI_Test(&mpi->sends[mpi->send_count], &done, MPI_STATUS_IGNORE);
    if (done) { /* a short one on one host is, and nothing is left to poll for */
        stream_sent(mpi->base.stream, slot);
        return true;
    }
    if (!mpi->send_count)
        mpi->moved_ns = fabric_now_ns();
    mpi->slots[mpi->send_count++] = slot;
    return true;
}

static void frames_post(struct mpi *mpi, uint32_t rank)
{
    bool any = false;

    if (mpi->base.ranks[rank].state != FABRIC_RANK_ALIVE)
        return;
    while (frame_post(mpi, rank))
        any = true;
    if (any)
        fabric_ring(&mpi->base, rank);
}

/* Only a rank that can be told READING is read from. */
static bool rank_readable(void *context, uint32_t rank)
{
    struct mpi *mpi = context;

    return mpi->base.ranks[rank].state == FABRIC_RANK_ALIVE &&
           (mpi->reading[rank] || doorbell_up(mpi->base.doorbell, rank));
}

static bool reading_tell(struct mpi *mpi, uint32_t rank, enum doorbell_word word)
{
    if (word == DOORBELL_READING)
        mpi->reading_ns = fabric_now_ns();
    return doorbell_tell(mpi->base.doorbell, rank, word, NULL, 0) == MORAY_OK;
}

static void pieces_post(struct mpi *mpi)
{
    struct reads_piece *piece;

    while ((piece = reads_next(mpi->base.reads, rank_readable, mpi))) {
        uint32_t rank = piece->rank;
        MPI_Aint at = (MPI_Aint)(piece->address + piece->offset);
        if (!mpi->reading[rank] && !reading_tell(mpi, rank, DOORBELL_READING)) {
            reads_back(mpi->base.reads, piece);
            return;
        }
        if (MPI_Rget(piece->local, (int)piece->bytes, MPI_BYTE, (int)rank, at, (int)piece->bytes,
                     MPI_BYTE, mpi->window, &mpi->gets[mpi->get_count])) {
            reads_back(mpi->base.reads, piece);
            fabric_ending(&mpi->base, rank, "MPI_Rget from it failed");
            return;
        }
        if (!mpi->get_count)
            mpi->moved_ns = fabric_now_ns();
        mpi->pieces[mpi->get_count++] = piece;
        mpi->reading[rank]++;
    }
}

static void mpi_post(struct fabric *fabric, uint32_t rank)
{
    struct mpi *mpi = mpi_of(fabric);
    const uint32_t *waiting;

    if (rank != UINT32_MAX) {
        frames_post(mpi, rank);
        return;
    }
    for (size_t i = stream_waiting(fabric->stream, &waiting); i-- > 0;)
        frames_post(mpi, waiting[i]);
    pieces_post(mpi);
}

/* ---- Polling ---- */

static size_t receives_take(struct mpi *mpi)
{
    int indices[RECEIVE_COUNT], count = 0;
    MPI_Status states[RECEIVE_COUNT];

    MPI_Testsome(RECEIVE_COUNT, mpi->receives, &count, indices, states);
    for (int i = 0; i < count; i++) {
        int bytes = 0;
        MPI_Get_count(&states[i], MPI_BYTE, &bytes);
        fabric_receive(&mpi->base, mpi->frames[indices[i]], bytes < 0 ? 0 : (size_t)bytes);
        receive_post(mpi, indices[i]);
    }
    return count < 0 ? 0 : (size_t)count;
}

static size_t sends_take(struct mpi *mpi)
{
    int indices[SENDS_MAX], count = 0, kept = 0;

    MPI_Testsome(mpi->send_count, mpi->sends, &count, indices, MPI_STATUSES_IGNORE);
    if (count <= 0)
        return 0;
    for (int i = 0; i < count; i++) {
        stream_sent(mpi->base.stream, mpi->slots[indices[i]]);
        mpi->slots[indices[i]] = NULL;
    }
    for (int i = 0; i < mpi->send_count; i++) {
        if (!mpi->slots[i])
            continue;
        mpi->sends[kept] = mpi->sends[i];
        mpi->slots[kept++] = mpi->slots[i];
    }
    mpi->send_count = kept;
    return (size_t)count;
}

static size_t gets_take(struct mpi *mpi)
{
    int indices[64], count = 0, kept = 0;
    int shown = mpi->get_count < 64 ? mpi->get_count : 64;

    MPI_Testsome(shown, mpi->gets, &count, indices, MPI_STATUSES_IGNORE);
    if (count <= 0)
        return 0;
    for (int i = 0; i < count; i++) {
        struct reads_piece *piece = mpi->pieces[indices[i]];
        uint32_t rank = piece->rank;
        mpi->pieces[indices[i]] = NULL;
        reads_done(mpi->base.reads, piece, true);
        if (--mpi->reading[rank] == 0 && !reads_any_of(mpi->base.reads, rank))
            reading_tell(mpi, rank, DOORBELL_READ);
    }
    for (int i = 0; i < mpi->get_count; i++) {
        if (!mpi->pieces[i])
            continue;
        mpi->gets[kept] = mpi->gets[i];
        mpi->pieces[kept++] = mpi->pieces[i];
    }
    mpi->get_count = kept;
    return (size_t)count;
}

/* A long read says READING again, or its target would think that the reader has stopped. */
static void reading_again(struct mpi *mpi)
{
    if (fabric_now_ns() - mpi->reading_ns < reading_again_ns)
        return;
    for (uint32_t rank = 0; rank < mpi->base.options.rank_count; rank++)
        if (mpi->reading[rank] && mpi->base.ranks[rank].state == FABRIC_RANK_ALIVE)
            reading_tell(mpi, rank, DOORBELL_READING);
}

static size_t mpi_poll(struct fabric *fabric)
{
    struct mpi *mpi = mpi_of(fabric);
    size_t work = receives_take(mpi), moved = 0;
    const uint32_t *waiting;

    if (mpi->send_count)
        moved += sends_take(mpi);
    if (mpi->get_count) {
        moved += gets_take(mpi);
        reading_again(mpi);
    }
    if (moved)
        mpi->moved_ns = fabric_now_ns();
    if (stream_waiting(fabric->stream, &waiting) || reads_count(fabric->reads))
        mpi_post(fabric, UINT32_MAX);
    return work + moved;
}

static bool mpi_may_sleep(struct fabric *fabric)
{
    struct mpi *mpi = mpi_of(fabric);
    const uint32_t *waiting;

    if (!mpi->send_count && !mpi->get_count && !stream_waiting(fabric->stream, &waiting))
        return true;
    if (fabric_now_ns() - mpi->moved_ns < patience_ns)
        return false;
    fabric_nap(fabric, nap_ns);
    return true;
}

static bool mpi_ready(const struct fabric *fabric)
{
    (void)fabric;
    return true;
}

static void mpi_up(struct fabric *fabric, uint32_t rank)
{
    (void)rank;
    pieces_post(mpi_of(fabric));
}

static void mpi_address(struct fabric *fabric, uint32_t rank, const void *bytes, size_t count)
{
    (void)fabric, (void)rank, (void)bytes, (void)count; /* MPI knows where its ranks are */
}

static void mpi_fence(struct fabric *fabric, uint32_t rank)
{
    (void)fabric, (void)rank; /* MPI has no way to give a rank up: its requests stay */
}

/* ---- Windows: the arena is one, made at the start ---- */

static enum moray_code mpi_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                                  struct fabric_window *window, struct moray_error *error)
{
    (void)fabric, (void)error;
    *window = (struct fabric_window){.address = offset, .bytes = bytes};
    return MORAY_OK;
}

/* MPI looks at no bounds: a read beyond the arena would end the rank that owns it. */
static bool mpi_reaches(const struct fabric *fabric, uint32_t rank,
                        const struct fabric_window *window)
{
    uint64_t bytes = ((const struct mpi *)fabric)->arenas[rank];

    return window->address <= bytes && window->bytes <= bytes - window->address;
}

static void mpi_conceal(struct fabric *fabric, const struct fabric_window *window)
{
    (void)fabric, (void)window;
}

const struct fabric_ops fabric_mpi = {
    .name = "mpi",
    .bytes = sizeof(struct mpi),
    .needs_bells = true,
    .open = mpi_open,
    .post = mpi_post,
    .poll = mpi_poll,
    .expose = mpi_expose,
    .conceal = mpi_conceal,
    .reaches = mpi_reaches,
    .may_sleep = mpi_may_sleep,
    .ready = mpi_ready,
    .up = mpi_up,
    .address = mpi_address,
    .fence = mpi_fence,
    .close = mpi_close,
};
