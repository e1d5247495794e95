#include "fabric/doorbell.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "fabric/auth.h"

enum { MAGIC = 0x79726f6d, VERSION = 1, OUT_BYTES = 4096, IN_BYTES = 4096, EVENT_COUNT = 32 };
static const uint64_t tick_ns = 50 * 1000 * 1000; /* how often deadlines are looked at */

struct hello {
    uint32_t magic, version, from, to;
    uint8_t nonce[AUTH_NONCE_BYTES];
};

struct answer {
    uint8_t nonce[AUTH_NONCE_BYTES];
    uint8_t proof[AUTH_PROOF_BYTES];
};

struct record {
    uint8_t tag[AUTH_TAG_BYTES]; /* over everything behind it */
    uint64_t sequence;           /* of this direction of this connection, from 0 */
    uint16_t bytes;              /* behind the head */
    uint8_t word, zero[5];
    uint8_t data[];
};

static_assert(sizeof(struct hello) == 32 && sizeof(struct answer) == 48, "no padding");
static_assert(sizeof(struct record) == 32, "no padding");
static_assert(sizeof(struct record) + DOORBELL_RECORD_MAX <= IN_BYTES, "a record fits the buffer");

/* What both sides said; a proof covers it with the name of the side that makes it. */
struct said {
    struct hello hello;
    uint8_t nonce[AUTH_NONCE_BYTES];
};

enum link_state { LINK_CONNECTING, LINK_ANSWER, LINK_HELLO, LINK_PROOF, LINK_UP, LINK_DEAD };

struct link {
    struct link *next, **self; /* in doorbell.links, or in doorbell.dead; every link is in one */
    int fd;
    int failure; /* connect() said so at once */
    enum link_state state;
    bool dialled;
    uint32_t rank; /* of the peer; a stranger's is what it claims, once it has said HELLO */
    uint64_t deadline_ns;
    struct said said;
    struct auth_key out_key, in_key;
    uint64_t out_sequence, in_sequence;
    size_t in_count, out_count;
    bool want_out; /* epoll is asked for EPOLLOUT */
    uint8_t in[IN_BYTES], out[OUT_BYTES];
};

struct peer {
    struct link *up[2]; /* proven; [0] dialled by us, [1] by the peer; borrowed from links */
    struct link *dial;  /* under way */
    uint64_t dial_end_ns, again_ns; /* when a dial is given up; when it is tried again, or 0 */
    bool dropped;
};

struct doorbell {
    struct doorbell_options options;
    uint8_t secret[AUTH_SECRET_BYTES];
    struct doorbell_address address, *addresses;
    struct peer *peers;
    struct link *links; /* owned */
    struct link *dead;  /* owned; freed after the events that may still name them */
    size_t stranger_count, dial_count;
    int epoll_fd, listen_fd, timer_fd;
    bool ticking;       /* some link has a deadline, some dial waits for its next try */
    bool listen_paused; /* no descriptor was free for a newcomer: taken up at the next tick */
    const struct doorbell_handler *handler; /* while doorbell_poll() runs */
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void watch(struct doorbell *doorbell, int operation, int fd, uint32_t events, void *what)
{
    struct epoll_event event = {.events = events, .data.ptr = what};

    epoll_ctl(doorbell->epoll_fd, operation, fd, &event);
}

static void tick_start(struct doorbell *doorbell)
{
    struct itimerspec every = {.it_interval.tv_nsec = (long)tick_ns,
                               .it_value.tv_nsec = (long)tick_ns};

    if (!doorbell->ticking)
        timerfd_settime(doorbell->timer_fd, 0, &every, NULL);
    doorbell->ticking = true;
}

static void tick_stop(struct doorbell *doorbell)
{
    struct itimerspec never = {0};

    timerfd_settime(doorbell->timer_fd, 0, &never, NULL);
    doorbell->ticking = false;
}

static enum moray_code listen_at(struct doorbell *doorbell, struct moray_error *error)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = doorbell->options.ip};
    socklen_t bytes = sizeof(at);
    char text[INET_ADDRSTRLEN];

    doorbell->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (doorbell->listen_fd < 0 ||
        bind(doorbell->listen_fd, (struct sockaddr *)&at, sizeof(at)) < 0 ||
        listen(doorbell->listen_fd, 4096) < 0 ||
        getsockname(doorbell->listen_fd, (struct sockaddr *)&at, &bytes) < 0)
        return error_set(error, MORAY_SYSTEM, "cannot listen on %s: %s",
                         inet_ntop(AF_INET, &doorbell->options.ip, text, sizeof(text)),
                         strerror(errno));
    doorbell->address = (struct doorbell_address){.ip = at.sin_addr.s_addr, .port = at.sin_port};
    return MORAY_OK;
}

enum moray_code doorbell_open(const struct doorbell_options *options, struct doorbell **out,
                              struct moray_error *error)
{
    struct doorbell *doorbell = calloc(1, sizeof(*doorbell));
    enum moray_code code = MORAY_OK;

    *out = NULL;
    if (!doorbell)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the doorbell");
    doorbell->options = *options;
    memcpy(doorbell->secret, options->secret, AUTH_SECRET_BYTES);
    doorbell->options.secret = NULL;
    doorbell->listen_fd = -1;
    doorbell->peers = calloc(options->rank_count, sizeof(*doorbell->peers));
    doorbell->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    doorbell->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!doorbell->peers)
        code = error_set(error, MORAY_NO_MEMORY, "no memory for the doorbell of %u ranks",
                         options->rank_count);
    else if (doorbell->epoll_fd < 0 || doorbell->timer_fd < 0)
        code =
            error_set(error, MORAY_SYSTEM, "no descriptor for the doorbell: %s", strerror(errno));
    else
        code = listen_at(doorbell, error);
    if (code != MORAY_OK) {
        doorbell_close(doorbell);
        return code;
    }
    watch(doorbell, EPOLL_CTL_ADD, doorbell->listen_fd, EPOLLIN, &doorbell->listen_fd);
    watch(doorbell, EPOLL_CTL_ADD, doorbell->timer_fd, EPOLLIN, &doorbell->timer_fd);
    *out = doorbell;
    return MORAY_OK;
}

static bool is_stranger(const struct link *link)
{
    return link->state == LINK_HELLO || link->state == LINK_PROOF;
}

/* Takes a link out of everything; its memory goes once no event can name it. */
static void link_close(struct doorbell *doorbell, struct link *link)
{
    if (is_stranger(link)) {
        doorbell->stranger_count--;
    } else {
        struct peer *peer = &doorbell->peers[link->rank];
        for (int i = 0; i < 2; i++)
            if (peer->up[i] == link)
                peer->up[i] = NULL;
        if (peer->dial == link)
            peer->dial = NULL;
    }
    *link->self = link->next;
    if (link->next)
        link->next->self = link->self;
    close(link->fd);
    link->state = LINK_DEAD;
    link->next = doorbell->dead;
    doorbell->dead = link;
}

static void dead_free(struct doorbell *doorbell)
{
    while (doorbell->dead) {
        struct link *link = doorbell->dead;
        doorbell->dead = link->next;
        free(link);
    }
}

void doorbell_close(struct doorbell *doorbell)
{
    if (!doorbell)
        return;
    while (doorbell->links)
        link_close(doorbell, doorbell->links);
    dead_free(doorbell);
    for (int i = 0; i < 3; i++) {
        int fd = (int[]){doorbell->listen_fd, doorbell->timer_fd, doorbell->epoll_fd}[i];
        if (fd >= 0)
            close(fd);
    }
    free(doorbell->peers);
    free(doorbell->addresses);
    explicit_bzero(doorbell->secret, sizeof(doorbell->secret));
    free(doorbell);
}

struct doorbell_address doorbell_address(const struct doorbell *doorbell)
{
    return doorbell->address;
}

void doorbell_meet(struct doorbell *doorbell, const struct doorbell_address *addresses)
{
    size_t bytes = doorbell->options.rank_count * sizeof(*addresses);

    assert(!doorbell->addresses);
    doorbell->addresses = malloc(bytes);
    if (doorbell->addresses)
        memcpy(doorbell->addresses, addresses, bytes);
}

static struct link *link_create(struct doorbell *doorbell, int fd, enum link_state state)
{
    struct link *link = calloc(1, sizeof(*link));
    int on = 1;

    if (!link) {
        close(fd);
        return NULL;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    link->fd = fd;
    link->state = state;
    link->dialled = state == LINK_CONNECTING;
    link->next = doorbell->links;
    link->self = &doorbell->links;
    if (link->next)
        link->next->self = &link->next;
    doorbell->links = link;
    doorbell->stranger_count += is_stranger(link);
    link->want_out = link->dialled;
    watch(doorbell, EPOLL_CTL_ADD, fd, EPOLLIN | (link->dialled ? EPOLLOUT : 0), link);
    tick_start(doorbell);
    return link;
}

/* Tells the end of a rank, unless a connection the other way stands or is wanted no more. */
static void rank_end(struct doorbell *doorbell, uint32_t rank, const char *reason)
{
    struct peer *peer = &doorbell->peers[rank];

    peer->dial_end_ns = peer->again_ns = 0;
    if (!peer->up[0] && !peer->up[1] && !peer->dropped)
        doorbell->handler->end(doorbell->handler->context, rank, reason);
}

/* A dial came to nothing: a rank that refuses is gone, any other end is tried again in a moment,
 * until the limit (a listener that is short of time drops a stranger whose proof is late). */
static void dial_failed(struct doorbell *doorbell, struct link *link, int failure)
{
    struct peer *peer = &doorbell->peers[link->rank];
    uint32_t rank = link->rank;
    char reason[128];

    link_close(doorbell, link);
    if (peer->up[1] || peer->dropped)
        return;
    if (failure != ECONNREFUSED && now_ns() < peer->dial_end_ns) {
        peer->again_ns = now_ns() + tick_ns;
        tick_start(doorbell);
        return;
    }
    snprintf(reason, sizeof(reason), "its agent cannot be reached: %s",
             failure ? strerror(failure) : "it did not prove the job's secret in time");
    rank_end(doorbell, rank, reason);
}

/* The link is of no more use. */
static void link_end(struct doorbell *doorbell, struct link *link, int failure)
{
    uint32_t rank = link->rank;
    bool up = link->state == LINK_UP;
    char reason[128];

    if (link->dialled && !up) {
        dial_failed(doorbell, link, failure);
        return;
    }
    link_close(doorbell, link);
    if (!up)
        return;
    snprintf(reason, sizeof(reason), "its connection ended%s%s", failure ? ": " : "",
             failure ? strerror(failure) : "");
    rank_end(doorbell, rank, reason);
}

static void stranger_refuse(struct doorbell *doorbell, struct link *link, const char *why)
{
    struct sockaddr_in from = {0};
    socklen_t bytes = sizeof(from);
    char text[INET_ADDRSTRLEN] = "?";
    struct moray_error error;

    if (getpeername(link->fd, (struct sockaddr *)&from, &bytes) == 0)
        inet_ntop(AF_INET, &from.sin_addr, text, sizeof(text));
    error_set(&error, MORAY_PROTOCOL, "a connection from %s was dropped: %s", text, why);
    doorbell->handler->refused(doorbell->handler->context, &error);
    if (link->dialled)
        dial_failed(doorbell, link, 0);
    else
        link_close(doorbell, link);
}

/* Hands the kernel what is queued. Returns false if the link failed with it (errno). */
static bool link_flush(struct doorbell *doorbell, struct link *link)
{
    while (link->out_count) {
        ssize_t sent = send(link->fd, link->out, link->out_count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0)
            break;
        link->out_count -= (size_t)sent;
        memmove(link->out, link->out + sent, link->out_count);
    }
    if (link->want_out != (link->out_count > 0)) {
        link->want_out = link->out_count > 0;
        watch(doorbell, EPOLL_CTL_MOD, link->fd, EPOLLIN | (link->want_out ? EPOLLOUT : 0), link);
    }
    return true;
}

static void link_put(struct link *link, const void *bytes, size_t count)
{
    assert(link->out_count + count <= OUT_BYTES);
    memcpy(link->out + link->out_count, bytes, count);
    link->out_count += count;
}

static void dial_start(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];
    const struct doorbell_address *address = &doorbell->addresses[rank];
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = address->ip, .sin_port = address->port};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct link *link = fd < 0 ? NULL : link_create(doorbell, fd, LINK_CONNECTING);

    peer->again_ns = 0;
    if (!link) { /* out of descriptors or memory: perhaps not for long */
        peer->again_ns = now_ns() + tick_ns;
        tick_start(doorbell);
        return;
    }
    link->rank = rank;
    link->deadline_ns = peer->dial_end_ns;
    peer->dial = link;
    /* A failure shows as an event of the socket, where a handler can be told of it. */
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
        link->failure = errno;
}

void doorbell_dial(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];

    if (!doorbell->addresses || peer->dropped || peer->dial || peer->again_ns || peer->up[0] ||
        peer->up[1])
        return;
    peer->dial_end_ns = now_ns() + doorbell->options.connect_limit_ms * (uint64_t)1000000;
    dial_start(doorbell, rank);
}

static struct link *link_of(const struct doorbell *doorbell, uint32_t rank)
{
    const struct peer *peer = &doorbell->peers[rank];

    return peer->up[0] ? peer->up[0] : peer->up[1];
}

bool doorbell_up(const struct doorbell *doorbell, uint32_t rank)
{
    return link_of(doorbell, rank) != NULL;
}

enum moray_code doorbell_tell(struct doorbell *doorbell, uint32_t rank, enum doorbell_word word,
                              const void *bytes, size_t count)
{
    struct link *link = link_of(doorbell, rank);
    uint8_t buffer[sizeof(struct record) + DOORBELL_RECORD_MAX];
    struct record *record = (struct record *)buffer;

    assert(count <= DOORBELL_RECORD_MAX);
    if (!link)
        return MORAY_UNAVAILABLE;
    if (link->out_count + sizeof(*record) + count > OUT_BYTES)
        return MORAY_BUSY;
    *record = (struct record){
        .sequence = link->out_sequence++, .bytes = (uint16_t)count, .word = (uint8_t)word};
    if (count)
        memcpy(record->data, bytes, count);
    auth_tag(&link->out_key, &record->sequence, sizeof(*record) - AUTH_TAG_BYTES + count,
             record->tag);
    link_put(link, record, sizeof(*record) + count);
    /* A broken connection shows as an event of its socket, and its end is told from there. */
    if (!link_flush(doorbell, link))
        link->out_count = 0;
    return MORAY_OK;
}

static void link_up(struct doorbell *doorbell, struct link *link)
{
    struct peer *peer = &doorbell->peers[link->rank];
    uint32_t me = doorbell->options.rank;

    auth_derive(doorbell->secret, "moray doorbell", me, link->rank, &link->said, sizeof(link->said),
                &link->out_key);
    auth_derive(doorbell->secret, "moray doorbell", link->rank, me, &link->said, sizeof(link->said),
                &link->in_key);
    doorbell->stranger_count -= is_stranger(link);
    link->state = LINK_UP;
    link->deadline_ns = 0;
    if (link->dialled)
        peer->dial = NULL;
    peer->dial_end_ns = peer->again_ns = 0;
    if (peer->up[!link->dialled]) /* it dialled once more: its former connection is of no use */
        link_close(doorbell, peer->up[!link->dialled]);
    peer->up[!link->dialled] = link;
    doorbell->handler->up(doorbell->handler->context, link->rank);
}

/* The listener's side: who is there, and does it know whom it talks to? */
static const char *take_hello(struct doorbell *doorbell, struct link *link)
{
    struct answer answer;

    memcpy(&link->said.hello, link->in, sizeof(link->said.hello));
    if (link->said.hello.magic != MAGIC || link->said.hello.version != VERSION)
        return "it does not speak this protocol";
    if (link->said.hello.to != doorbell->options.rank ||
        link->said.hello.from >= doorbell->options.rank_count ||
        link->said.hello.from == doorbell->options.rank)
        return "it takes this rank for another";
    auth_random(answer.nonce, sizeof(answer.nonce));
    memcpy(link->said.nonce, answer.nonce, sizeof(answer.nonce));
    auth_prove(doorbell->secret, "listener", &link->said, sizeof(link->said), answer.proof);
    link_put(link, &answer, sizeof(answer));
    link->state = LINK_PROOF;
    return NULL;
}

static const char *take_proof(struct doorbell *doorbell, struct link *link)
{
    uint8_t right[AUTH_PROOF_BYTES];

    auth_prove(doorbell->secret, "dialler", &link->said, sizeof(link->said), right);
    if (!auth_proof_equal(right, link->in))
        return "it does not prove the job's secret";
    if (doorbell->peers[link->said.hello.from].dropped)
        return "its rank was given up";
    link->rank = link->said.hello.from;
    link_up(doorbell, link);
    return NULL;
}

static const char *take_answer(struct doorbell *doorbell, struct link *link)
{
    const struct answer *answer = (const struct answer *)link->in;
    uint8_t proof[AUTH_PROOF_BYTES];

    memcpy(link->said.nonce, answer->nonce, sizeof(answer->nonce));
    auth_prove(doorbell->secret, "listener", &link->said, sizeof(link->said), proof);
    if (!auth_proof_equal(proof, answer->proof))
        return "it does not prove the job's secret";
    auth_prove(doorbell->secret, "dialler", &link->said, sizeof(link->said), proof);
    link_put(link, proof, sizeof(proof));
    link_up(doorbell, link);
    return NULL;
}

static void say_hello(struct doorbell *doorbell, struct link *link)
{
    link->said.hello = (struct hello){
        .magic = MAGIC, .version = VERSION, .from = doorbell->options.rank, .to = link->rank};
    auth_random(link->said.hello.nonce, sizeof(link->said.hello.nonce));
    link_put(link, &link->said.hello, sizeof(link->said.hello));
    link->state = LINK_ANSWER;
}

/* Tells the first record in the buffer. Returns its length; 0: not whole yet; SIZE_MAX: refused. */
static size_t take_record(struct doorbell *doorbell, struct link *link, const uint8_t *at,
                          size_t count)
{
    struct record record;
    _Alignas(8) uint8_t data[DOORBELL_RECORD_MAX];
    size_t bytes;

    if (count < sizeof(record))
        return 0;
    memcpy(&record, at, sizeof(record));
    if (record.bytes > DOORBELL_RECORD_MAX)
        return SIZE_MAX;
    bytes = sizeof(record) + record.bytes;
    if (count < bytes)
        return 0;
    if (record.sequence != link->in_sequence ||
        !auth_check(&link->in_key, at + AUTH_TAG_BYTES, bytes - AUTH_TAG_BYTES, record.tag))
        return SIZE_MAX;
    link->in_sequence++;
    memcpy(data, at + sizeof(record), record.bytes);
    doorbell->handler->record(doorbell->handler->context, link->rank, record.word, data,
                              record.bytes);
    return bytes;
}

/* A proven connection that brings a record that is not: somebody sits in between. It is ended. */
static bool take_records(struct doorbell *doorbell, struct link *link)
{
    size_t taken = 0, bytes;

    while ((bytes = take_record(doorbell, link, link->in + taken, link->in_count - taken)) != 0) {
        if (bytes == SIZE_MAX) {
            struct moray_error error;
            error_set(&error, MORAY_PROTOCOL,
                      "a record on the connection to rank %u was dropped: it is not proven",
                      link->rank);
            doorbell->handler->refused(doorbell->handler->context, &error);
            link_end(doorbell, link, EPROTO);
            return false;
        }
        taken += bytes;
    }
    link->in_count -= taken;
    memmove(link->in, link->in + taken, link->in_count);
    return true;
}

/* Takes what has come, as far as it is whole. Returns false if the link is gone. */
static bool link_take(struct doorbell *doorbell, struct link *link)
{
    static const size_t wanted[] = {[LINK_HELLO] = sizeof(struct hello),
                                    [LINK_ANSWER] = sizeof(struct answer),
                                    [LINK_PROOF] = AUTH_PROOF_BYTES};

    while (link->state != LINK_UP && link->in_count >= wanted[link->state]) {
        size_t bytes = wanted[link->state];
        const char *why = link->state == LINK_HELLO    ? take_hello(doorbell, link)
                          : link->state == LINK_ANSWER ? take_answer(doorbell, link)
                                                       : take_proof(doorbell, link);
        if (why) {
            stranger_refuse(doorbell, link, why);
            return false;
        }
        link->in_count -= bytes;
        memmove(link->in, link->in + bytes, link->in_count);
        if (!link_flush(doorbell, link)) {
            link_end(doorbell, link, errno);
            return false;
        }
    }
    return link->state != LINK_UP || take_records(doorbell, link);
}

static void link_event(struct doorbell *doorbell, struct link *link, uint32_t events)
{
    ssize_t had;

    if (link->state == LINK_CONNECTING) {
        int failure = link->failure;
        socklen_t bytes = sizeof(failure);
        if (failure || getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &failure, &bytes) < 0 ||
            failure) {
            link_end(doorbell, link, failure);
            return;
        }
        say_hello(doorbell, link);
    }
    if ((events & EPOLLOUT) && !link_flush(doorbell, link)) {
        link_end(doorbell, link, errno);
        return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    for (int round = 0; round < 4; round++) { /* a bound: others wait as well */
        had = recv(link->fd, link->in + link->in_count, IN_BYTES - link->in_count, MSG_DONTWAIT);
        if (had < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (had <= 0) {
            link_end(doorbell, link, had < 0 ? errno : 0);
            return;
        }
        link->in_count += (size_t)had;
        if (!link_take(doorbell, link))
            return;
    }
}

static void listen_event(struct doorbell *doorbell)
{
    for (int round = 0; round < EVENT_COUNT; round++) {
        int fd = accept4(doorbell->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct link *link;

        if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
            watch(doorbell, EPOLL_CTL_MOD, doorbell->listen_fd, 0, &doorbell->listen_fd);
            doorbell->listen_paused = true;
            tick_start(doorbell);
        }
        if (fd < 0)
            return;
        if (doorbell->stranger_count >= DOORBELL_STRANGERS_MAX) {
            close(fd);
            continue;
        }
        link = link_create(doorbell, fd, LINK_HELLO);
        if (link)
            link->deadline_ns = now_ns() + DOORBELL_STRANGER_MS * (uint64_t)1000000;
    }
}

/* Ends what took too long, tries again what waits for that, and stops once there is neither. */
static void deadlines(struct doorbell *doorbell)
{
    uint64_t now = now_ns(), ticks;
    bool waiting = false;

    if (doorbell->listen_paused)
        watch(doorbell, EPOLL_CTL_MOD, doorbell->listen_fd, EPOLLIN, &doorbell->listen_fd);
    doorbell->listen_paused = false;
    if (read(doorbell->timer_fd, &ticks, sizeof(ticks)) < 0)
        return;
    for (struct link *link = doorbell->links, *next; link; link = next) {
        next = link->next;
        if (link->deadline_ns && link->deadline_ns <= now && is_stranger(link))
            stranger_refuse(doorbell, link, "it did not prove the job's secret in time");
        else if (link->deadline_ns && link->deadline_ns <= now)
            link_end(doorbell, link, link->state == LINK_CONNECTING ? ETIMEDOUT : 0);
        else
            waiting |= link->deadline_ns != 0;
    }
    for (uint32_t rank = 0; rank < doorbell->options.rank_count; rank++) {
        struct peer *peer = &doorbell->peers[rank];
        if (peer->again_ns && peer->again_ns <= now)
            dial_start(doorbell, rank);
        waiting |= peer->again_ns || peer->dial;
    }
    if (!waiting)
        tick_stop(doorbell);
}

size_t doorbell_poll(struct doorbell *doorbell, const struct doorbell_handler *handler)
{
    struct epoll_event events[EVENT_COUNT];
    int count = epoll_wait(doorbell->epoll_fd, events, EVENT_COUNT, 0);
    bool late = false;

    doorbell->handler = handler;
    for (int i = 0; i < count; i++) {
        void *what = events[i].data.ptr;
        if (what == &doorbell->listen_fd)
            listen_event(doorbell);
        else if (what == &doorbell->timer_fd)
            late = true; /* last: what has just come is not late */
        else if (((struct link *)what)->state != LINK_DEAD)
            link_event(doorbell, what, events[i].events);
    }
    if (late)
        deadlines(doorbell);
    dead_free(doorbell);
    doorbell->handler = NULL;
    return count < 0 ? 0 : (size_t)count;
}

int doorbell_fd(const struct doorbell *doorbell)
{
    return doorbell->epoll_fd;
}

void doorbell_drop(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];

    peer->dropped = true;
    peer->again_ns = peer->dial_end_ns = 0;
    for (int i = 0; i < 2; i++)
        if (peer->up[i])
            link_close(doorbell, peer->up[i]);
    if (peer->dial)
        link_close(doorbell, peer->dial);
}

size_t doorbell_strangers(const struct doorbell *doorbell)
{
    return doorbell->stranger_count;
}
