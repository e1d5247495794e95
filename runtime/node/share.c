#include "node/share.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "node/wire.h"

enum {
    NONCE_BYTES = 32,
    MAC_BYTES = crypto_auth_BYTES,
    STRANGERS_MAX = 16, /* connections that have not said yet who they are, beyond one a peer */
    EVENTS_MAX = 32,
    RETRY_FIRST_MS = 1,
    RETRY_LAST_MS = 20,
};
#define LISTENER UINT32_MAX

_Static_assert(crypto_auth_KEYBYTES == LAUNCH_SECRET_BYTES, "the secret is the MAC's key");
_Static_assert(1 + SHARE_EXTRA_MAX <= WIRE_FDS_MAX, "an offer fits one message");

static const char magic[8] = "moray-s1";

/* ---- What is said ---- */

struct hello {
    char magic[8];
    uint32_t from, to; /* local ranks */
    unsigned char nonce[NONCE_BYTES];
};

struct challenge {
    unsigned char nonce[NONCE_BYTES], mac[MAC_BYTES];
};

struct offer {
    uint32_t has_arena, writable, extra_count, reserved;
    unsigned char note[SHARE_NOTE_BYTES];
};

struct proof {
    unsigned char mac[MAC_BYTES];
    struct offer offer;
};

/* What a MAC is taken of: who proves to whom, in this conversation, for this job and node. */
struct claim {
    uint32_t prover, listener;            /* local ranks */
    unsigned char nonces[2][NONCE_BYTES]; /* of the one who connected, of the one who accepted */
    char job[sizeof(((struct launch *)0)->job)];
    char node_key[sizeof(((struct launch *)0)->node_key)];
};

/* ---- State ---- */

/* A conversation, by what it waits for. */
enum stage { STAGE_FREE, STAGE_HELLO, STAGE_PROOF /* accepted */, STAGE_CHALLENGE, STAGE_OFFER };

struct talk {
    enum stage stage;
    int fd;        /* owned */
    uint32_t peer; /* local rank; not known in STAGE_HELLO */
    unsigned char nonces[2][NONCE_BYTES];
};

struct place {     /* of one peer */
    bool is_here;  /* it proved itself, and `peer` is filled in */
    bool is_taken; /* share_next() gave it away */
    struct share_peer peer;
    uint64_t retry_ns; /* when to connect again; only for lower ranks */
    uint32_t retry_ms;
};

struct share {
    struct share_options options;
    struct launch launch;
    unsigned char secret[LAUNCH_SECRET_BYTES];
    int epoll, listener; /* listener: -1 once the exchange is over */
    int read_only_fd;    /* of the arena; -1: none */
    uint64_t deadline_ns;
    uint32_t here_count;
    uint32_t talk_count; /* room */
    struct talk *talks;
    struct place *places; /* by local rank */
    char last_reason[160];
};

static void note_reason(struct share *share, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void note_reason(struct share *share, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(share->last_reason, sizeof(share->last_reason), format, arguments);
    va_end(arguments);
}

/* ---- Names and proofs ---- */

static socklen_t address_of(const struct share *share, uint32_t local_rank, struct sockaddr_un *out)
{
    char text[256];
    unsigned char hash[crypto_generichash_BYTES_MIN];
    uint64_t key;

    /* the hash makes the name one that nobody without the secret can take beforehand */
    snprintf(text, sizeof(text), "%s/%s/%" PRIu32, share->launch.job, share->launch.node_key,
             local_rank);
    crypto_generichash(hash, sizeof(hash), (const unsigned char *)text, strlen(text), share->secret,
                       sizeof(share->secret));
    memcpy(&key, hash, sizeof(key));
    memset(out, 0, sizeof(*out));
    out->sun_family = AF_UNIX;
    int length = snprintf(out->sun_path + 1, sizeof(out->sun_path) - 1,
                          "moray/%.24s/%.32s/%" PRIu32 "/%016" PRIx64, share->launch.job,
                          share->launch.node_key, local_rank, key);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
}

static void make_mac(const struct share *share, const struct talk *talk, uint32_t prover,
                     uint32_t listener, unsigned char mac[MAC_BYTES])
{
    struct claim claim;

    memset(&claim, 0, sizeof(claim)); /* no byte between fields may differ */
    claim.prover = prover;
    claim.listener = listener;
    memcpy(claim.nonces, talk->nonces, sizeof(claim.nonces));
    memcpy(claim.job, share->launch.job, sizeof(claim.job));
    memcpy(claim.node_key, share->launch.node_key, sizeof(claim.node_key));
    crypto_auth(mac, (const unsigned char *)&claim, sizeof(claim), share->secret);
}

static bool is_proved(const struct share *share, const struct talk *talk,
                      const unsigned char mac[MAC_BYTES])
{
    unsigned char right[MAC_BYTES];

    make_mac(share, talk, talk->peer, share->launch.local_rank, right);
    return !sodium_memcmp(right, mac, MAC_BYTES);
}

static bool is_same_user(int fd, pid_t *pid)
{
    struct ucred who;
    socklen_t bytes = sizeof(who);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &bytes) || who.uid != geteuid())
        return false;
    *pid = who.pid;
    return true;
}

/* ---- Talks ---- */

static struct talk *begin(struct share *share, int fd, enum stage stage, uint32_t peer)
{
    for (uint32_t i = 0; i < share->talk_count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (share->talks[i].stage != STAGE_FREE)
            continue;
        if (epoll_ctl(share->epoll, EPOLL_CTL_ADD, fd, &event))
            break;
        share->talks[i] = (struct talk){.stage = stage, .fd = fd, .peer = peer};
        return &share->talks[i];
    }
    close(fd);
    return NULL;
}

static void end_talk(struct talk *talk)
{
    if (talk->stage != STAGE_FREE)
        close(talk->fd);
    talk->stage = STAGE_FREE;
}

static void drop(struct share *share, struct talk *talk, const char *why)
{
    if (talk->stage == STAGE_HELLO)
        note_reason(share, "a connection %s", why);
    else
        note_reason(share, "local rank %" PRIu32 " %s", talk->peer, why);
    end_talk(talk);
}

/* Our offer for `peer`; returns the count of descriptors. */
static uint32_t make_offer(const struct share *share, uint32_t peer, struct offer *out,
                           int fds[WIRE_FDS_MAX])
{
    const struct share_options *options = &share->options;
    uint32_t count = 0;

    *out = (struct offer){.has_arena = share->read_only_fd >= 0,
                          .writable = options->writable_to == peer && share->read_only_fd >= 0,
                          .extra_count = options->extra_count};
    memcpy(out->note, options->note, sizeof(out->note));
    if (out->has_arena)
        fds[count++] = out->writable ? options->arena_fd : share->read_only_fd;
    for (uint32_t i = 0; i < options->extra_count; i++)
        fds[count++] = options->extra[i];
    return count;
}

static void close_fds(const int fds[WIRE_FDS_MAX])
{
    for (int i = 0; i < WIRE_FDS_MAX; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* Puts a proved peer in its place. `fds` are taken. */
static void settle(struct share *share, struct talk *talk, const struct offer *offer,
                   const int fds[WIRE_FDS_MAX])
{
    struct place *place = &share->places[talk->peer];
    uint32_t count = (offer->has_arena != 0) + offer->extra_count, next = 0, came = 0;

    while (came < WIRE_FDS_MAX && fds[came] >= 0)
        came++;
    if (offer->extra_count > SHARE_EXTRA_MAX || count != came || place->is_here) {
        close_fds(fds);
        drop(share, talk, "handed over another number of descriptors than it said");
        return;
    }
    struct share_peer *peer = &place->peer;
    *peer = (struct share_peer){.local_rank = talk->peer,
                                .arena_fd = -1,
                                .writable = offer->writable != 0,
                                .extra_count = offer->extra_count,
                                .link_fd = talk->fd};
    is_same_user(talk->fd, &peer->pid);
    if (offer->has_arena)
        peer->arena_fd = fds[next++];
    for (uint32_t i = 0; i < offer->extra_count; i++)
        peer->extra[i] = fds[next++];
    memcpy(peer->note, offer->note, sizeof(peer->note));
    epoll_ctl(share->epoll, EPOLL_CTL_DEL, talk->fd, NULL);
    talk->stage = STAGE_FREE; /* its socket lives on as the link */
    place->is_here = true;
    share->here_count++;
    *share->last_reason = 0; /* as a rule it was about this one: early tries fail */
}

static void on_hello(struct share *share, struct talk *talk, const struct hello *hello)
{
    struct challenge challenge;

    if (memcmp(hello->magic, magic, sizeof(magic)) || hello->to != share->launch.local_rank ||
        hello->from <= hello->to || hello->from >= share->launch.local_count) {
        drop(share, talk, "does not speak as a rank of this job");
        return;
    }
    talk->peer = hello->from;
    memcpy(talk->nonces[0], hello->nonce, NONCE_BYTES);
    randombytes_buf(talk->nonces[1], NONCE_BYTES);
    memcpy(challenge.nonce, talk->nonces[1], NONCE_BYTES);
    make_mac(share, talk, share->launch.local_rank, talk->peer, challenge.mac);
    talk->stage = STAGE_PROOF;
    if (wire_send(talk->fd, &challenge, sizeof(challenge), NULL, 0, MSG_DONTWAIT))
        drop(share, talk, "went away");
}

static void on_challenge(struct share *share, struct talk *talk, const struct challenge *challenge)
{
    struct proof proof;
    int fds[WIRE_FDS_MAX];

    memcpy(talk->nonces[1], challenge->nonce, NONCE_BYTES);
    if (!is_proved(share, talk, challenge->mac)) {
        drop(share, talk, "does not know the job's secret");
        return;
    }
    uint32_t count = make_offer(share, talk->peer, &proof.offer, fds);
    make_mac(share, talk, share->launch.local_rank, talk->peer, proof.mac);
    talk->stage = STAGE_OFFER;
    if (wire_send(talk->fd, &proof, sizeof(proof), fds, count, MSG_DONTWAIT))
        drop(share, talk, "went away");
}

static void on_proof(struct share *share, struct talk *talk, const struct proof *proof,
                     const int fds[WIRE_FDS_MAX])
{
    struct offer offer;
    int ours[WIRE_FDS_MAX];

    if (!is_proved(share, talk, proof->mac) || share->places[talk->peer].is_here) {
        close_fds(fds);
        drop(share, talk,
             share->places[talk->peer].is_here ? "came a second time"
                                               : "does not know the job's secret");
        return;
    }
    uint32_t count = make_offer(share, talk->peer, &offer, ours);
    if (wire_send(talk->fd, &offer, sizeof(offer), ours, count, MSG_DONTWAIT)) {
        close_fds(fds);
        drop(share, talk, "went away");
        return;
    }
    settle(share, talk, &proof->offer, fds);
}

static size_t expected_bytes(enum stage stage)
{
    switch (stage) {
    case STAGE_HELLO:
        return sizeof(struct hello);
    case STAGE_CHALLENGE:
        return sizeof(struct challenge);
    case STAGE_PROOF:
        return sizeof(struct proof);
    default:
        return sizeof(struct offer);
    }
}

static void hear(struct share *share, struct talk *talk)
{
    union {
        struct hello hello;
        struct challenge challenge;
        struct proof proof;
        struct offer offer;
    } message;
    int fds[WIRE_FDS_MAX];
    enum stage stage = talk->stage;
    int got = wire_receive(talk->fd, &message, expected_bytes(stage), fds, MSG_DONTWAIT);

    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (got <= 0) {
        drop(share, talk, got ? "sent a malformed message" : "closed the connection");
        return;
    }
    if (stage == STAGE_PROOF) {
        on_proof(share, talk, &message.proof, fds);
    } else if (stage == STAGE_OFFER) {
        settle(share, talk, &message.offer, fds);
    } else {
        close_fds(fds); /* nobody unproved hands us anything */
        if (stage == STAGE_HELLO)
            on_hello(share, talk, &message.hello);
        else
            on_challenge(share, talk, &message.challenge);
    }
}

static void accept_all(struct share *share)
{
    int fd;
    pid_t pid;

    while ((fd = accept4(share->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (is_same_user(fd, &pid)) {
            begin(share, fd, STAGE_HELLO, SHARE_NOBODY);
        } else {
            close(fd);
            note_reason(share, "a connection came from another user");
        }
    }
}

/* ---- Connecting to lower ranks ---- */

static bool is_talking_to(const struct share *share, uint32_t peer)
{
    for (uint32_t i = 0; i < share->talk_count; i++)
        if ((share->talks[i].stage == STAGE_CHALLENGE || share->talks[i].stage == STAGE_OFFER) &&
            share->talks[i].peer == peer)
            return true;
    return false;
}

static void say_hello(struct share *share, uint32_t peer, int fd)
{
    struct hello hello = {.from = share->launch.local_rank, .to = peer};
    struct talk *talk = begin(share, fd, STAGE_CHALLENGE, peer);

    if (!talk)
        return;
    memcpy(hello.magic, magic, sizeof(magic));
    randombytes_buf(hello.nonce, NONCE_BYTES);
    memcpy(talk->nonces[0], hello.nonce, NONCE_BYTES);
    if (wire_send(fd, &hello, sizeof(hello), NULL, 0, MSG_DONTWAIT))
        drop(share, talk, "went away");
}

static void connect_to(struct share *share, uint32_t peer)
{
    struct sockaddr_un address;
    socklen_t bytes = address_of(share, peer, &address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    pid_t pid;

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, bytes)) {
        note_reason(share, "local rank %" PRIu32 " does not listen (%s)", peer, strerror(errno));
        if (fd >= 0)
            close(fd);
    } else if (!is_same_user(fd, &pid)) {
        note_reason(share, "another user has taken the name of local rank %" PRIu32, peer);
        close(fd);
    } else {
        say_hello(share, peer, fd);
    }
}

static void connect_due(struct share *share, uint64_t now_ns)
{
    for (uint32_t peer = 0; peer < share->launch.local_rank; peer++) {
        struct place *place = &share->places[peer];
        if (place->is_here || now_ns < place->retry_ns || is_talking_to(share, peer))
            continue;
        connect_to(share, peer);
        place->retry_ns = now_ns + (uint64_t)place->retry_ms * 1000000;
        place->retry_ms = place->retry_ms * 2 < RETRY_LAST_MS ? place->retry_ms * 2 : RETRY_LAST_MS;
    }
}

/* ---- The calls ---- */

static enum moray_code listen_at(struct share *share, struct moray_error *error)
{
    struct sockaddr_un address;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = LISTENER};
    socklen_t bytes = address_of(share, share->launch.local_rank, &address);

    share->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (share->listener >= 0 && !bind(share->listener, (struct sockaddr *)&address, bytes) &&
        !listen(share->listener, (int)share->launch.local_count + STRANGERS_MAX) &&
        !epoll_ctl(share->epoll, EPOLL_CTL_ADD, share->listener, &event))
        return MORAY_OK;
    if (errno == EADDRINUSE)
        return error_set(error, MORAY_EXISTS,
                         "another process shares already as local rank %" PRIu32
                         " of job %s on node %s",
                         share->launch.local_rank, share->launch.job, share->launch.node_key);
    return error_set(error, MORAY_SYSTEM, "cannot listen for the ranks of this host: %s",
                     strerror(errno));
}

static enum moray_code open_read_only(struct share *share, struct moray_error *error)
{
    char path[40];

    if (share->options.arena_fd < 0)
        return MORAY_OK;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", share->options.arena_fd);
    share->read_only_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (share->read_only_fd >= 0)
        return MORAY_OK;
    return error_set(error, MORAY_SYSTEM, "cannot open the arena for reading: %s", strerror(errno));
}

static enum moray_code allocate(struct share *share, struct moray_error *error)
{
    uint32_t count = share->launch.local_count;

    share->talk_count = count + STRANGERS_MAX;
    share->talks = calloc(share->talk_count, sizeof(*share->talks));
    share->places = calloc(count, sizeof(*share->places));
    if (!share->talks || !share->places)
        return error_set(error, MORAY_NO_MEMORY, "no memory to share with %" PRIu32 " ranks",
                         count);
    for (uint32_t i = 0; i < count; i++)
        share->places[i].retry_ms = RETRY_FIRST_MS;
    share->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (share->epoll < 0)
        return error_set(error, MORAY_SYSTEM, "no epoll: %s", strerror(errno));
    return MORAY_OK;
}

enum moray_code share_open(const struct share_options *options, struct share **out,
                           struct moray_error *error)
{
    enum moray_code code;
    const struct launch *launch = options->launch;

    *out = NULL;
    if (!options->secret || options->extra_count > SHARE_EXTRA_MAX || !launch->local_count ||
        launch->local_count > LAUNCH_LOCAL_RANKS_MAX || launch->local_rank >= launch->local_count)
        return error_set(error, MORAY_INVALID, "local rank %" PRIu32 " of %" PRIu32 " cannot share",
                         launch->local_rank, launch->local_count);
    if (sodium_init() < 0)
        return error_set(error, MORAY_SYSTEM, "libsodium does not start: no random numbers");
    struct share *share = calloc(1, sizeof(*share));
    if (!share)
        return error_set(error, MORAY_NO_MEMORY, "no memory to share with other ranks");
    share->options = *options;
    share->launch = *launch;
    memcpy(share->secret, options->secret, sizeof(share->secret));
    share->options.secret = share->secret;
    share->options.launch = &share->launch;
    share->epoll = share->listener = share->read_only_fd = -1;
    share->deadline_ns =
        wire_now_ns() + (options->limit_ms ? options->limit_ms : 2000) * (uint64_t)1000000;
    if ((code = allocate(share, error)) || (code = open_read_only(share, error)) ||
        (code = listen_at(share, error))) {
        share_close(share);
        return code;
    }
    share_step(share, wire_now_ns());
    *out = share;
    return MORAY_OK;
}

int share_fd(const struct share *share)
{
    return share->epoll;
}

/* No more talks, no more listening. Peers that are here stay. */
static void finish(struct share *share)
{
    for (uint32_t i = 0; i < share->talk_count; i++)
        end_talk(&share->talks[i]);
    close(share->listener);
    share->listener = -1;
}

bool share_step(struct share *share, uint64_t now_ns)
{
    struct epoll_event events[EVENTS_MAX];
    int count;

    if (share->listener < 0)
        return true;
    connect_due(share, now_ns);
    while ((count = epoll_wait(share->epoll, events, EVENTS_MAX, 0)) > 0) {
        for (int i = 0; i < count; i++)
            if (events[i].data.u32 == LISTENER)
                accept_all(share);
            else if (share->talks[events[i].data.u32].stage != STAGE_FREE)
                hear(share, &share->talks[events[i].data.u32]);
        if (share->here_count + 1 == share->launch.local_count)
            break;
    }
    if (share->here_count + 1 < share->launch.local_count && now_ns < share->deadline_ns)
        return false;
    finish(share);
    return true;
}

uint64_t share_next_ns(const struct share *share)
{
    uint64_t next_ns = share->deadline_ns;

    if (share->listener < 0)
        return UINT64_MAX;
    for (uint32_t peer = 0; peer < share->launch.local_rank; peer++)
        if (!share->places[peer].is_here && !is_talking_to(share, peer) &&
            share->places[peer].retry_ns < next_ns)
            next_ns = share->places[peer].retry_ns;
    return next_ns;
}

bool share_next(struct share *share, struct share_peer *peer)
{
    for (uint32_t i = 0; i < share->launch.local_count; i++)
        if (share->places[i].is_here && !share->places[i].is_taken) {
            share->places[i].is_taken = true;
            *peer = share->places[i].peer;
            return true;
        }
    return false;
}

uint32_t share_missing(const struct share *share, char *text, size_t text_bytes)
{
    uint32_t missing = 0;
    size_t used = 0;

    if (text && text_bytes)
        *text = 0;
    for (uint32_t i = 0; i < share->launch.local_count; i++) {
        if (i == share->launch.local_rank || share->places[i].is_here)
            continue;
        if (text && used < text_bytes)
            used += (size_t)snprintf(text + used, text_bytes - used,
                                     missing ? ", %" PRIu32 : "local rank %" PRIu32, i);
        missing++;
    }
    if (missing && text && used < text_bytes && *share->last_reason)
        snprintf(text + used, text_bytes - used, " (last: %s)", share->last_reason);
    return missing;
}

enum moray_code share_exchange(struct share *share, struct moray_error *error)
{
    char missing[256];
    uint64_t now_ns;

    while (!share_step(share, now_ns = wire_now_ns())) {
        struct pollfd ready = {.fd = share->epoll, .events = POLLIN};
        uint64_t next_ns = share_next_ns(share);
        struct timespec wait = {0};
        if (next_ns > now_ns) {
            wait.tv_sec = (time_t)((next_ns - now_ns) / 1000000000);
            wait.tv_nsec = (long)((next_ns - now_ns) % 1000000000);
        }
        ppoll(&ready, 1, &wait, NULL);
    }
    if (share_missing(share, missing, sizeof(missing)))
        return error_set(error, MORAY_TIMEOUT, "no shared memory with %s on node %s", missing,
                         share->launch.node);
    return MORAY_OK;
}

void share_close(struct share *share)
{
    if (!share)
        return;
    if (share->listener >= 0 && share->talks)
        finish(share);
    for (uint32_t i = 0; share->places && i < share->launch.local_count; i++) {
        struct share_peer *peer = &share->places[i].peer;
        if (!share->places[i].is_here || share->places[i].is_taken)
            continue;
        if (peer->arena_fd >= 0)
            close(peer->arena_fd);
        for (uint32_t k = 0; k < peer->extra_count; k++)
            close(peer->extra[k]);
        close(peer->link_fd);
    }
    if (share->read_only_fd >= 0)
        close(share->read_only_fd);
    if (share->epoll >= 0)
        close(share->epoll);
    sodium_memzero(share->secret, sizeof(share->secret));
    free(share->talks);
    free(share->places);
    free(share);
}
