#include "node/remote_inside.h"

#include <mpi.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/time.h"
#include "node/head.h"
#include "node/share.h"
#include "node/words.h"
#include "sched/policy/local.h"
#include "store/arena/window.h"

/*
 * The message lane's start and end, its fabric, and what comes in. One rank alone has none of it.
 *
 *     share       ranks of a host map each other's arenas (MORAY_SHARE)
 *     MPI         started here, by the agent's thread, which is then MPI's main thread
 *     settings    rank 0's, to all
 *     fabric      opens at once; messages wait inside it until discovery has ended
 *     HELLO       each rank to rank 0; when all are there, NODES to all
 */

enum {
    POLL_AFTER_NS = 50000,
    SILENT_NS =
        50000, /* after a sleep that something else ended the fabric is left asleep so long */
    DENSE_NS = 500000 /* between the messages of traffic that is worth polling for */
};

static bool is_alone(void)
{
    return agent.rank_count == 1;
}

uint64_t window_memory_limit_of_node(void)
{
    return window_memory_limit(NULL) / agent.launch.local_count;
}

/* ---- Set-up functions ---- */

static void take_setup(struct bytes_reader *in)
{
    const struct item_setup *item = bytes_take(in, sizeof(*item));
    const void *bytes = item ? bytes_take(in, item->count) : NULL;
    uint32_t index, number = atomic_load(&agent.node->setup_count);

    if (!bytes || number == SETUPS_MAX)
        return;
    index = agent_make_pending(RECORD_OBJECT);
    if (index != RECORD_NONE)
        agent_answer(index, bytes, item->count);
    if (index == RECORD_NONE ||
        life_state(record_life(lane_record(&agent.lane, index))) != RECORD_DONE) {
        /* Tasks would run here without it, and nobody would know. */
        agent_fail("rank %u has no room for the %u bytes of a moray_setup; raise MORAY_STORE_BYTES "
                   "there, or call it before its store is full",
                   agent.rank, item->count);
        return;
    }
    agent.node->setups[number].function = program_address(item->function);
    agent.node->setups[number].record = index;
    atomic_store(&agent.node->setup_count, number + 1);
}

void remote_tell_setup(uint64_t function, uint32_t record)
{
    struct record *value = lane_record(&agent.lane, record);
    const void *bytes = record_flags(value) & RECORD_RESULT_BLOCK
                            ? arena_at(&agent.lane.arena, value->result.block.place)
                            : record_value(value, record_result_bytes(value));
    uint32_t count = (uint32_t)record_result_bytes(value);

    for (uint32_t rank = 0; rank < agent.rank_count; rank++) {
        if (rank == agent.rank)
            continue;
        struct item_setup *item = out_item(rank, ITEM_SETUP, (uint32_t)sizeof(*item) + count);
        *item = (struct item_setup){.function = program_offset(function), .count = count};
        memcpy(item + 1, bytes, count);
    }
}

/* ---- Words of the GCS ---- */

static void send_ask(uint32_t rank, enum item_kind kind, uint64_t token, uint32_t word,
                     const void *bytes, uint32_t count)
{
    struct item_ask *item = out_item(rank, kind, (uint32_t)sizeof(*item) + count);

    *item = (struct item_ask){.token = token, .kind = word, .count = count};
    if (count)
        memcpy(item + 1, bytes, count);
}

void remote_head_ask(uint64_t token, uint32_t kind, const void *bytes, uint32_t count)
{
    send_ask(0, ITEM_ASK, token, kind, bytes, count);
}

void remote_head_reply(uint32_t rank, uint64_t token, enum moray_code code, const void *bytes,
                       uint32_t count)
{
    send_ask(rank, ITEM_REPLY, token, code, bytes, count);
}

void remote_word(uint32_t rank, uint32_t kind, const void *bytes, uint32_t count)
{
    send_ask(rank, ITEM_WORD, 0, kind, bytes, count);
}

static void starts_say(const struct word_act *act)
{
    *(struct item_starts *)out_item(act->with[0], ITEM_STARTS, sizeof(struct item_starts)) =
        (struct item_starts){pair(act->with[1], act->with[2])};
}

void remote_tell_starts(uint32_t rank, uint64_t actor)
{
    words_then((struct word_act){starts_say, {rank, (uint32_t)(actor >> 32), (uint32_t)actor}});
}

static void take_ask(uint32_t rank, enum item_kind kind, struct bytes_reader *in)
{
    const struct item_ask *item = bytes_take(in, sizeof(*item));
    const void *bytes = item ? bytes_take(in, item->count) : NULL;

    if (!bytes)
        return;
    if (kind == ITEM_ASK && agent.is_head)
        head_request(rank, item->token, item->kind, bytes, item->count);
    else if (kind == ITEM_REPLY && rank == 0)
        head_answered(item->token, (enum moray_code)item->kind, bytes, item->count);
    else if (kind == ITEM_WORD && rank == 0)
        actors_word(item->kind, bytes, item->count);
}

/* ---- Items in ---- */

static void take_item(uint32_t rank, const struct item *item, struct bytes_reader *in)
{
    switch ((enum item_kind)item->kind) {
    case ITEM_HELLO:
        peers_take_hello(rank, in);
        break;
    case ITEM_NODES:
        peers_take_nodes(in);
        break;
    case ITEM_TASK:
    case ITEM_CALL:
        tasks_take_task(rank, (enum item_kind)item->kind, in);
        break;
    case ITEM_RESULT:
        tasks_take_result(rank, in);
        break;
    case ITEM_BORROW:
        objects_take_borrow(rank, in);
        break;
    case ITEM_OBJECT:
        objects_take_object(rank, in);
        break;
    case ITEM_RELEASE:
        objects_take_release(rank, in);
        break;
    case ITEM_FREE:
        objects_take_free(rank, in);
        break;
    case ITEM_PULL:
        objects_take_pull(rank, in);
        break;
    case ITEM_GRANT:
        objects_take_grant(rank, in);
        break;
    case ITEM_PULLED:
        objects_take_pulled(rank, in);
        break;
    case ITEM_ASK:
    case ITEM_REPLY:
    case ITEM_WORD:
        take_ask(rank, (enum item_kind)item->kind, in);
        break;
    case ITEM_LOAD:
        moves_take_load(rank, in);
        break;
    case ITEM_MOVE:
        moves_take_move(rank, in);
        break;
    case ITEM_MOVED:
        moves_take_moved(rank, in);
        break;
    case ITEM_SETUP:
        take_setup(in);
        break;
    case ITEM_FUNCTIONS:
        peers_take_functions(rank, in);
        break;
    case ITEM_CANCEL:
        tasks_take_cancel(rank, in);
        break;
    case ITEM_HEARD: {
        const struct item_heard *heard = bytes_take(in, sizeof(*heard));
        if (heard)
            word_heard(heard->word);
        break;
    }
    case ITEM_STARTS: {
        const struct item_starts *starts = bytes_take(in, sizeof(*starts));
        if (starts)
            actors_inputs_held(starts->actor);
        break;
    }
    case ITEM_END: {
        const struct item_end *end = bytes_take(in, sizeof(*end));
        if (end && rank == 0) {
            agent.end_status = end->status;
            atomic_store(&agent.end_asked, 1);
        }
        break;
    }
    }
}

/* Something came from another rank. */
static void came(void)
{
    struct remote *remote = agent.remote;

    if (remote->came_ns != agent.now_ns)
        remote->dense = agent.now_ns - remote->came_ns < DENSE_NS;
    remote->came_ns = agent.now_ns;
    if (remote->dense)
        remote->poll_until_ns = agent.now_ns + POLL_AFTER_NS;
}

static void on_message(void *context, uint32_t rank, const void *bytes, size_t count)
{
    const struct message_world world = {.rank = agent.rank,
                                        .rank_count = agent.rank_count,
                                        .record_count = agent.lane.control->layout.record_count,
                                        .function_count = function_count,
                                        .class_count = class_count,
                                        .functions = functions,
                                        .classes = classes,
                                        .program_bytes = program_bytes()};
    struct bytes_reader row = bytes_read(bytes, count);
    const struct item *item;

    (void)context;
    came();
    while ((item = message_next(&row))) {
        const char *wrong = message_wrong(item, rank, &world);
        if (wrong) {
            agent_fail("a message of rank %u is malformed: %s", rank, wrong);
            return;
        }
        struct bytes_reader in = bytes_read(item + 1, item->bytes);
        take_item(rank, item, &in);
    }
    if (row.bad)
        agent_fail("a message of rank %u is malformed: an item is longer than the message", rank);
}

static void on_read_done(void *context, uint64_t cookie, enum moray_code code, bool posted)
{
    (void)context;
    (void)posted;
    came();
    objects_read_done(cookie, code);
}

static void on_lost(void *context, uint32_t rank, bool left, const char *reason)
{
    (void)context;
    if (left || agent.remote->ended || atomic_load(&agent.end_asked)) {
        if (left && rank == 0 && !atomic_load(&agent.end_asked)) {
            agent.end_status = 0;
            atomic_store(&agent.end_asked, 1);
        }
        return;
    }
    agent.fell_after = true;
    agent_fail("rank %u is lost: %s", rank, reason);
}

static void on_refused(void *context, const struct moray_error *error)
{
    (void)context;
    log_warning("%s", error->text);
}

static void on_failed(void *context, const struct moray_error *error)
{
    (void)context;
    agent_fail("%s", error->text);
}

static const struct fabric_handler handler = {.message = on_message,
                                              .read_done = on_read_done,
                                              .lost = on_lost,
                                              .refused = on_refused,
                                              .failed = on_failed};

uint32_t remote_flush(void)
{
    uint64_t bells;
    uint32_t done;

    if (is_alone() || !agent.fabric)
        return 0;
    done = moves_poll();
    if (objects_wait())
        done += objects_poll();
    bells = fabric_bells(agent.fabric);
    done += out_flush();
    agent.handed_on |= fabric_bells(agent.fabric) != bells;
    if (done && agent.remote->dense)
        agent.remote->poll_until_ns = agent.now_ns + POLL_AFTER_NS;
    return done;
}

uint32_t remote_poll(void)
{
    if (is_alone() || !agent.fabric || agent.now_ns < agent.remote->silent_until_ns)
        return 0;
    return (uint32_t)fabric_poll(agent.fabric, &handler) + remote_flush();
}

void remote_woken(void)
{
    if (!is_alone() && agent.fabric && fabric_is_asleep(agent.fabric))
        agent.remote->silent_until_ns = agent.now_ns + SILENT_NS;
}

void remote_rung(void)
{
    if (!is_alone())
        agent.remote->silent_until_ns = 0;
}

bool remote_may_sleep(void)
{
    if (!is_alone())
        agent.remote->silent_until_ns = 0;
    return is_alone() || !agent.fabric || fabric_may_sleep(agent.fabric);
}

/* Polls a little longer while there is traffic, where cores are free for it. */
bool remote_keep_polling(void)
{
    return !is_alone() && agent.node->spin_ns && agent.now_ns < agent.remote->poll_until_ns &&
           agent_may_spin();
}

uint64_t remote_deadline(void)
{
    if (is_alone())
        return UINT64_MAX;
    for (uint32_t rank = 0; rank < agent.rank_count; rank++)
        if (remote_peers[rank].out.full || objects_wait())
            return agent.now_ns + TIME_NS_PER_MS;
    return agent.remote->share ? share_next_ns(agent.remote->share) : UINT64_MAX;
}

void remote_tick(void)
{
    if (!is_alone() && agent.remote->share)
        remote_watch(WATCH_SHARE);
}

/* ---- Ranks of the same host ---- */

struct share_note {
    uint32_t rank, is_node, window, workers;
};

static void peer_take(struct share_peer *peer)
{
    struct share_note note;
    struct moray_error error;

    memcpy(&note, peer->note, sizeof(note));
    if (note.rank >= agent.rank_count || peer->arena_fd < 0)
        return;
    remote_peers[note.rank].same_host = true;
    remote_peers[note.rank].window = peer->local_rank;
    if (agent.zygote &&
        zygote_pass_peer(agent.zygote, peer->local_rank, peer->arena_fd, &error) != MORAY_OK)
        log_warning("%s", error.text);
    if (window_map_peer(peer->local_rank, peer->arena_fd, peer->writable, &error) != MORAY_OK) {
        remote_peers[note.rank].same_host = false;
        log_warning("%s", error.text);
        return;
    }
    if (agent.is_head && !agent.is_node && peer->writable && note.is_node &&
        !atomic_load(&agent.ready)) {
        agent.attached.owner = note.rank + 1;
        agent.attached.window = peer->local_rank;
        agent.attached.doorbell = peer->extra_count ? peer->extra[0] : -1;
        atomic_store(&agent.ready, 1);
    }
}

void remote_watch(uint32_t tag)
{
    struct share_peer peer;
    bool over;

    (void)tag;
    if (!agent.remote->share)
        return;
    over = share_step(agent.remote->share, time_ns());
    while (share_next(agent.remote->share, &peer))
        peer_take(&peer);
    if (!over)
        return;
    char missing[200];
    if (share_missing(agent.remote->share, missing, sizeof(missing)))
        log_warning("some ranks of this host do not share their memory: %s", missing);
    share_close(agent.remote->share);
    agent.remote->share = NULL;
    if (!atomic_load(&agent.ready))
        atomic_store(&agent.ready, 1); /* the driver then uses its own arena, by messages */
}

static bool share_begin(const uint8_t *secret, struct moray_error *error)
{
    struct share_note note = {agent.rank, agent.is_node, agent.window, agent.worker_count};
    bool head_here = agent.launch.rank == agent.launch.local_rank;
    struct share_options options = {.launch = &agent.launch,
                                    .secret = secret,
                                    .arena_fd = window_of(agent.window)->fd,
                                    .writable_to = SHARE_NOBODY,
                                    .extra = {agent.doorbell},
                                    .extra_count = 1};

    if (agent.launch.local_count == 1 || !agent.settings.share)
        return true;
    /* The first node beside a head gives it its arena to write: its driver has slot 1 there. */
    if (head_here && agent.launch.local_rank == 1 && agent.is_node)
        options.writable_to = 0;
    memcpy(options.note, &note, sizeof(note));
    if (share_open(&options, &agent.remote->share, error) != MORAY_OK)
        return false;
    return agent_watch(share_fd(agent.remote->share), WATCH_SHARE);
}

bool remote_driver_waits(void)
{
    return !is_alone() && agent.is_head && !agent.is_node && agent.remote->share != NULL;
}

/* ---- MPI ---- */

static enum moray_code gather(void *context, const void *mine, size_t bytes, void *all)
{
    (void)context;
    return MPI_Allgather(mine, (int)bytes, MPI_BYTE, all, (int)bytes, MPI_BYTE, MPI_COMM_WORLD) ==
                   MPI_SUCCESS
               ? MORAY_OK
               : MORAY_SYSTEM;
}

static enum moray_code broadcast(void *context, uint32_t root, void *data, size_t bytes)
{
    (void)context;
    return MPI_Bcast(data, (int)bytes, MPI_BYTE, (int)root, MPI_COMM_WORLD) == MPI_SUCCESS
               ? MORAY_OK
               : MORAY_SYSTEM;
}

static bool mpi_start(struct moray_error *error)
{
    int provided, rank, count;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS) {
        error_set(error, MORAY_SYSTEM, "MPI_Init_thread failed");
        return false;
    }
    agent.remote->mpi = true;
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    if ((uint32_t)rank != agent.rank || (uint32_t)count != agent.rank_count) {
        error_set(error, MORAY_SYSTEM,
                  "MPI says rank %d of %d, the launcher's environment %u of %u; start the program "
                  "with the mpirun of the MPI that it is linked with",
                  rank, count, agent.rank, agent.rank_count);
        return false;
    }
    return true;
}

/* The arena and the processes of a rank were made before rank 0's settings came to it. */
static void late_settings_tell(const struct settings *began)
{
    static const enum setting_id fixed[] = {SETTING_MORAY_CORES, SETTING_MORAY_STORE_BYTES,
                                            SETTING_MORAY_QUEUE_MAX, SETTING_MORAY_PROCESSES_MAX,
                                            SETTING_MORAY_SPARES_MAX};
    char then[SETTING_TEXT_MAX], now[SETTING_TEXT_MAX];

    for (size_t i = 0; i < sizeof(fixed) / sizeof(*fixed); i++) {
        settings_text(began, fixed[i], then, sizeof(then));
        settings_text(&agent.settings, fixed[i], now, sizeof(now));
        if (strcmp(then, now))
            log_warning("rank 0 has %s=%s, which came too late for this rank: it has %s; let the "
                        "launcher tell all ranks, as by mpirun -x %s",
                        settings_name(fixed[i]), now, then, settings_name(fixed[i]));
    }
}

/* Rank 0's settings, to all. */
static bool settings_share(struct moray_error *error)
{
    static char bytes[32768];
    struct settings began = agent.settings;
    uint64_t count = 0;

    if (agent.is_head)
        count = settings_pack(&agent.settings, bytes, sizeof(bytes));
    if (broadcast(NULL, 0, &count, sizeof(count)) != MORAY_OK || count > sizeof(bytes) ||
        broadcast(NULL, 0, bytes, count) != MORAY_OK) {
        error_set(error, MORAY_SYSTEM, "rank 0's settings did not arrive");
        return false;
    }
    if (agent.is_head)
        return true;
    if (settings_apply(&agent.settings, bytes, count, error) != MORAY_OK ||
        !agent_settings_changed(error))
        return false;
    if (agent.is_node)
        late_settings_tell(&began);
    return true;
}

/* MORAY_PROVIDER without the '!' at its end; whether it was there. */
static bool provider_read(char provider[SETTING_TEXT_MAX])
{
    size_t length = strlen(agent.settings.provider);

    memcpy(provider, agent.settings.provider, length + 1);
    if (!length || provider[length - 1] != '!')
        return false;
    provider[length - 1] = '\0';
    return true;
}

static bool fabric_begin(const uint8_t *secret, struct moray_error *error)
{
    static char provider[SETTING_TEXT_MAX]; /* the fabric borrows it */
    bool forced = provider_read(provider);
    struct fabric_options options = {
        .kind = agent.settings.fabric == SETTING_MPI ? FABRIC_MPI : FABRIC_OFI,
        .rank = agent.rank,
        .rank_count = agent.rank_count,
        .one_host = agent.launch.local_count == agent.rank_count,
        .interface = *agent.settings.interface ? agent.settings.interface : NULL,
        .provider = *provider ? provider : NULL,
        .provider_forced = forced,
        .arena = window_rw(agent.window, 0),
        .arena_bytes = window_bytes(agent.window),
        .secret = secret,
        .bootstrap = {NULL, gather, broadcast},
    };

    if (fabric_open(&options, &agent.fabric, error) != MORAY_OK)
        return false;
    log_info("%s", fabric_text(agent.fabric));
    return agent_watch(fabric_fd(agent.fabric), WATCH_FABRIC);
}

bool remote_start(struct moray_error *error)
{
    uint8_t secret[LAUNCH_SECRET_BYTES];
    bool early;
    struct item_hello hello;

    if (is_alone())
        return moves_start(error);
    agent.remote = calloc(1, sizeof(*agent.remote));
    if (agent.remote)
        agent.remote->peers = calloc(agent.rank_count, sizeof(*agent.remote->peers));
    if (!agent.remote || !agent.remote->peers) {
        error_set(error, MORAY_NO_MEMORY, "no memory for %u ranks", agent.rank_count);
        return false;
    }
    early = launch_secret(NULL, secret);
    if (!mpi_start(error) || !settings_share(error))
        return false;
    if (!agent_settle(error))
        return false;
    if (!early) {
        if (agent.is_head)
            agent_random(secret, sizeof(secret));
        if (broadcast(NULL, 0, secret, sizeof(secret)) != MORAY_OK) {
            error_set(error, MORAY_SYSTEM, "the job's secret did not arrive");
            return false;
        }
    }
    if (!share_begin(secret, error) || !moves_start(error) || !fabric_begin(secret, error))
        return false;
    hello = peers_own_hello();
    if (agent.is_head)
        peers_know(0, &hello);
    else
        memcpy(out_item(0, ITEM_HELLO, sizeof(hello)), &hello, sizeof(hello));
    out_flush();
    return true;
}

void remote_tell_end(int status)
{
    if (is_alone() || !agent.remote || agent.remote->told_end || !agent.fabric)
        return;
    agent.remote->told_end = true;
    if (agent.is_head)
        for (uint32_t rank = 1; rank < agent.rank_count; rank++)
            *(struct item_end *)out_item(rank, ITEM_END, sizeof(struct item_end)) =
                (struct item_end){.status = status};
    out_flush();
}

void remote_stop(bool clean)
{
    bool finalize;

    if (is_alone())
        moves_end();
    if (is_alone() || !agent.remote)
        return;
    agent.remote->ended = true;
    if (agent.fabric)
        for (int i = 0; i < 1000 && clean; i++) {
            bool left = false;
            fabric_poll(agent.fabric, &handler);
            out_flush();
            for (uint32_t rank = 0; rank < agent.rank_count; rank++)
                left |= remote_peers[rank].out.full != NULL || remote_peers[rank].out.used > 0;
            if (!left)
                break;
            usleep(1000);
        }
    share_close(agent.remote->share);
    agent.remote->share = NULL;
    finalize = fabric_close(agent.fabric, clean);
    if (clean && !finalize)
        log_error("the ranks did not agree on the job's end in time; it ends without MPI_Finalize, "
                  "and the launcher counts it as failed");
    agent.fabric = NULL;
    objects_end();
    pulls_end();
    tasks_end();
    words_end();
    moves_end();
    for (uint32_t rank = 0; rank < agent.rank_count; rank++)
        free(remote_peers[rank].out.bytes);
    if (agent.remote->mpi && finalize)
        MPI_Finalize();
    else if (agent.remote->mpi)
        agent.skip_exit_handlers = true;
    free(agent.remote->peers);
    free(agent.remote);
    agent.remote = NULL;
}

uint64_t remote_arrived(void)
{
    return is_alone() ? 0 : agent.remote->arrived;
}

bool remote_all_known(void)
{
    return is_alone() || agent.remote->all_known;
}

bool remote_is_node(uint32_t rank)
{
    if (is_alone())
        return rank == 0;
    return rank < agent.rank_count &&
           (remote_peers[rank].known ? remote_peers[rank].is_node
                                     : rank == agent.rank && agent.is_node);
}
