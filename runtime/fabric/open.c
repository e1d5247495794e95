/**
 * How a fabric comes and goes: the ranks vote in steps, so that a failure anywhere is a failure
 * everywhere and no rank waits for another in vain; a clean end is agreed over rank 0.
 */
#include "fabric/fabric.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "fabric/inside.h"

static const uint64_t leave_limit_ns = 4000000000;

void fabric_environment(const char *provider)
{
    static const char *const pairs[][2] = {
        /* Without it Init looks for a pml for 200 ms. */
        {"OMPI_MCA_pml", "ob1"},
        /* The one that works over tcp and between hosts at FUNNELED. */
        {"OMPI_MCA_osc", "pt2pt"},
        /* Its stack traces would take the signals from the driver, whose status they are. */
        {"OMPI_MCA_opal_signal", ""},
        /* Libraries that libfabric brings along would catch SIGSEGV for themselves. */
        {"IPATH_NO_BACKTRACE", "1"},
        {"HFI_NO_BACKTRACE", "1"},
        /* 69 MiB an endpoint and 17 MiB a connection by default; so 3.4 and 0.3 MiB. */
        {"FI_OFI_RXM_BUFFER_SIZE", "2048"},
        /* Frames go whole: fetching them by rendezvous costs three times as much. */
        {"FI_OFI_RXM_EAGER_LIMIT", "66048"},
        {"FI_OFI_RXM_RX_SIZE", "256"},
        {"FI_OFI_RXM_TX_SIZE", "256"},
        {"FI_OFI_RXM_MSG_RX_SIZE", "32"},
        {"FI_OFI_RXM_MSG_TX_SIZE", "32"},
    };

    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++)
        setenv(pairs[i][0], pairs[i][1], 0);
    if (!provider || strncmp(provider, "tcp", 3) == 0)
        setenv("FI_PROVIDER", "tcp", 0); /* discovery then asks this one alone */
}

/* What each rank says at the end of a step; the last ends alike on all. */
struct vote {
    uint32_t code;
    uint32_t zero;
    union {
        struct address_list list;
        struct doorbell_address address;
    };
};

static enum moray_code options_check(const struct fabric_options *options,
                                     struct moray_error *error)
{
    if (options->rank_count < 2 || options->rank >= options->rank_count)
        return error_set(error, MORAY_INVALID, "rank %u of %u: a fabric is for 2 ranks and more",
                         options->rank, options->rank_count);
    if (options->kind != FABRIC_OFI && options->kind != FABRIC_MPI)
        return error_set(error, MORAY_INVALID, "no such fabric: %d; there are ofi and mpi",
                         (int)options->kind);
    if (options->arena_bytes && !options->arena)
        return error_set(error, MORAY_INVALID, "an arena of %zu bytes lies nowhere",
                         options->arena_bytes);
    return options->kind == FABRIC_OFI ? fabric_provider_check(options, error) : MORAY_OK;
}

/* Gathers the votes of all; a rank that failed fails all, each with a story of its own. */
static enum moray_code vote_gather(const struct fabric_options *options, struct vote *mine,
                                   enum moray_code code, struct vote *all,
                                   struct moray_error *error)
{
    enum moray_code gathered;

    mine->code = code;
    gathered = options->bootstrap.allgather(options->bootstrap.context, mine, sizeof(*mine), all);
    if (code != MORAY_OK)
        return code;
    if (gathered != MORAY_OK)
        return error_set(error, gathered, "the launcher's MPI could not exchange addresses");
    for (uint32_t rank = 0; rank < options->rank_count; rank++)
        if (all[rank].code != MORAY_OK)
            return error_set(error, MORAY_FAILED,
                             "rank %u could not open the fabric (%s); it says why itself", rank,
                             error_name(all[rank].code));
    return MORAY_OK;
}

static enum moray_code secret_share(struct fabric *fabric, const struct fabric_options *options,
                                    struct moray_error *error)
{
    if (options->secret) {
        memcpy(fabric->secret, options->secret, sizeof(fabric->secret));
        return MORAY_OK;
    }
    if (options->rank == 0)
        auth_random(fabric->secret, sizeof(fabric->secret));
    if (options->bootstrap.broadcast(options->bootstrap.context, 0, fabric->secret,
                                     sizeof(fabric->secret)) != MORAY_OK)
        return error_set(error, MORAY_SYSTEM, "the launcher's MPI could not hand the secret over");
    return MORAY_OK;
}

static void defaults_fill(struct fabric_options *options)
{
    options->secret = NULL;
    options->bootstrap = (struct fabric_bootstrap){0};
    if (!options->in_flight_bytes_max)
        options->in_flight_bytes_max = 8 << 20;
    /* An operation of MPI's costs more than one of libfabric's: so fewer and longer ones. */
    if (!options->read_piece_bytes)
        options->read_piece_bytes = options->kind == FABRIC_MPI ? 4 << 20 : 1 << 20;
    if (!options->read_pieces_max)
        options->read_pieces_max = options->kind == FABRIC_MPI ? 4 : 8;
    if (!options->connect_limit_ms)
        options->connect_limit_ms = 10000;
}

/* All that is this rank's own: memory, descriptors, the door it listens at. */
static enum moray_code parts_make(struct fabric *fabric, struct moray_error *error)
{
    const struct fabric_options *options = &fabric->options;
    struct stream_options stream = {.secret = fabric->secret,
                                    .rank = options->rank,
                                    .rank_count = options->rank_count,
                                    .in_flight_bytes_max = options->in_flight_bytes_max,
                                    .slot_made = fabric->ops->slot_made,
                                    .slot_freed = fabric->ops->slot_freed,
                                    .context = fabric};
    struct doorbell_options doorbell = {.rank = options->rank,
                                        .rank_count = options->rank_count,
                                        .secret = fabric->secret,
                                        .ip = fabric->ip,
                                        .connect_limit_ms = options->connect_limit_ms};
    enum moray_code code;

    fabric->ranks = calloc(options->rank_count, sizeof(*fabric->ranks));
    fabric->ending = calloc(options->rank_count, sizeof(*fabric->ending));
    fabric->rang = calloc(options->rank_count, sizeof(*fabric->rang));
    fabric->owing = calloc(options->rank_count, sizeof(*fabric->owing));
    if (!fabric->ranks || !fabric->ending || !fabric->rang || !fabric->owing)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", options->rank_count);
    fabric->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    fabric->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fabric->epoll_fd < 0 || fabric->timer_fd < 0)
        return error_set(error, MORAY_SYSTEM, "no descriptor for the fabric: %s (ulimit -n?)",
                         strerror(errno));
    if ((code = stream_create(&stream, &fabric->stream, error)) != MORAY_OK ||
        (code = reads_create(options->read_pieces_max, options->read_piece_bytes, &fabric->reads,
                             error)) != MORAY_OK ||
        (code = doorbell_open(&doorbell, &fabric->doorbell, error)) != MORAY_OK ||
        (code = fabric_watch(fabric, fabric->timer_fd, error)) != MORAY_OK)
        return code;
    return fabric_watch(fabric, doorbell_fd(fabric->doorbell), error);
}

static void parts_free(struct fabric *fabric)
{
    doorbell_close(fabric->doorbell);
    reads_destroy(fabric->reads);
    stream_destroy(fabric->stream);
    if (fabric->timer_fd >= 0)
        close(fabric->timer_fd);
    if (fabric->epoll_fd >= 0)
        close(fabric->epoll_fd);
    free(fabric->rang);
    free(fabric->owing);
    free(fabric->ending);
    free(fabric->ranks);
    explicit_bzero(fabric->secret, sizeof(fabric->secret));
    free(fabric);
}

/* The steps that all ranks take together, each to its end even where this rank has failed. */
static enum moray_code open_together(struct fabric *fabric, const struct fabric_options *options,
                                     struct vote *votes, enum moray_code code,
                                     struct moray_error *error)
{
    struct vote mine = {0};
    struct doorbell_address *addresses;
    enum moray_code shared = secret_share(fabric, options, code == MORAY_OK ? error : NULL);

    if (code == MORAY_OK)
        code = shared;
    if (code == MORAY_OK)
        code = address_list(options->interface, options->one_host, &mine.list, error);
    code = vote_gather(options, &mine, code, votes, error);

    mine = (struct vote){0};
    if (code == MORAY_OK) {
        struct address_list *lists = calloc(options->rank_count, sizeof(*lists));
        for (uint32_t rank = 0; lists && rank < options->rank_count; rank++)
            lists[rank] = votes[rank].list;
        fabric->ip = lists ? address_choose(lists, options->rank_count, options->rank) : 0;
        free(lists);
        code = parts_make(fabric, error);
    }
    if (code == MORAY_OK)
        mine.address = doorbell_address(fabric->doorbell);
    code = vote_gather(options, &mine, code, votes, error);
    if (code != MORAY_OK)
        return code;
    addresses = calloc(options->rank_count, sizeof(*addresses));
    if (!addresses)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the addresses of the ranks");
    for (uint32_t rank = 0; rank < options->rank_count; rank++)
        addresses[rank] = votes[rank].address;
    doorbell_meet(fabric->doorbell, addresses);
    free(addresses);
    return MORAY_OK;
}

enum moray_code fabric_open(const struct fabric_options *options, struct fabric **out,
                            struct moray_error *error)
{
    const struct fabric_ops *ops = options->kind == FABRIC_MPI ? &fabric_mpi : &fabric_ofi;
    enum moray_code code = options_check(options, error);
    struct fabric *fabric = calloc(1, ops->bytes);
    struct vote *votes = calloc(options->rank_count ? options->rank_count : 1, sizeof(*votes));
    char ip[INET_ADDRSTRLEN];

    *out = NULL;
    if (!fabric || !votes || (options->rank_count < 2 && code != MORAY_OK)) {
        /* Without these nothing can be said to the others; they end when the launcher ends us. */
        free(fabric);
        free(votes);
        return code != MORAY_OK ? code : error_set(error, MORAY_NO_MEMORY, "no memory");
    }
    fabric->ops = ops;
    fabric->epoll_fd = fabric->timer_fd = -1;
    fabric->awake.seen_ns = fabric_now_ns();
    fabric->options = *options;
    defaults_fill(&fabric->options);
    if (code == MORAY_OK)
        code = auth_start(error);
    code = open_together(fabric, options, votes, code, error);
    free(votes);
    if (code == MORAY_OK) {
        snprintf(fabric->text, sizeof(fabric->text), "%s on %s", ops->name,
                 inet_ntop(AF_INET, &fabric->ip, ip, sizeof(ip)));
        code = ops->open(fabric, error);
    }
    if (code != MORAY_OK) {
        parts_free(fabric);
        return code;
    }
    if (options->rank != 0)
        doorbell_dial(fabric->doorbell, 0);
    *out = fabric;
    return MORAY_OK;
}

/* ---- The end ---- */

static void ignore_message(void *context, uint32_t rank, const void *bytes, size_t count)
{
    (void)context, (void)rank, (void)bytes, (void)count;
}

static void ignore_read(void *context, uint64_t cookie, enum moray_code code, bool posted)
{
    (void)context, (void)cookie, (void)code, (void)posted;
}

static void ignore_error(void *context, const struct moray_error *error)
{
    (void)context, (void)error;
}

/* The end is agreed over rank 0. A rank whose words are all sent tells it LEAVING; once all have, it
 * tells all. So whoever has heard rank 0 knows that nobody has anything left to say, and closes,
 * whatever connections stand or are being made between the others: their ends are no losses then. */
struct farewell {
    uint32_t rank; /* who leaves */
    bool said;     /* nothing of ours is unsent, and rank 0 knows or is ourselves */
    bool clean;    /* nobody is missed */
};

static void lost_in_leaving(void *context, uint32_t rank, bool left, const char *reason)
{
    struct farewell *farewell = context;
    bool others = rank != 0 && farewell->rank != 0;

    (void)reason;
    farewell->clean &= left || (others && farewell->said);
}

/* Tells rank 0. Returns whether it has answered. */
static bool leave_head(struct fabric *fabric, struct farewell *farewell)
{
    if (!farewell->said && doorbell_up(fabric->doorbell, 0)) {
        doorbell_leave(fabric->doorbell, 0);
        farewell->said = true;
    }
    return fabric->ranks[0].leaving;
}

/* Hears all others. Returns whether all have told, and were answered. */
static bool leave_all(struct fabric *fabric)
{
    for (uint32_t rank = 1; rank < fabric->options.rank_count; rank++)
        if (!fabric->ranks[rank].leaving)
            return false;
    for (uint32_t rank = 1; rank < fabric->options.rank_count; rank++)
        doorbell_leave(fabric->doorbell, rank);
    return true;
}

static bool leave(struct fabric *fabric)
{
    struct farewell farewell = {.rank = fabric->options.rank, .clean = fabric->counts.lost == 0};
    struct fabric_handler handler = {&farewell,       ignore_message, ignore_read,
                                     lost_in_leaving, ignore_error,   ignore_error};
    uint64_t end_ns = fabric_now_ns() + leave_limit_ns;

    while (farewell.clean && fabric_now_ns() < end_ns) {
        fabric_poll(fabric, &handler);
        fabric->ops->post(fabric, UINT32_MAX);
        if ((farewell.said || !stream_unsent(fabric->stream)) &&
            (farewell.rank ? leave_head(fabric, &farewell) : leave_all(fabric)))
            return farewell.clean;
        usleep(50);
    }
    return false;
}

bool fabric_close(struct fabric *fabric, bool clean)
{
    if (!fabric)
        return true;
    clean = clean && leave(fabric);
    clean = fabric->ops->close(fabric, clean) && clean;
    parts_free(fabric);
    return clean;
}
