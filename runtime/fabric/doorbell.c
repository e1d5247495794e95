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
#include <unistd.h>

#include "base/time.h"
#include "fabric/auth.h"
#include "fabric/talk.h"

enum { EVENT_COUNT = 32 };
static const uint64_t tick_ns = 50 * 1000 * 1000; /* how often deadlines are looked at */

enum link_state { LINK_CONNECTING, LINK_STRANGER, LINK_ANSWER, LINK_UP, LINK_DEAD };

struct link {
    struct link *next, **self; /* in doorbell.links, or in doorbell.dead; every link is in one */
    int fd;
    int failure; /* connect() said so at once */
    enum link_state state;
    bool want_out; /* epoll is asked for EPOLLOUT */
    uint64_t deadline_ns;
    struct talk talk;
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
    size_t stranger_count;
    int epoll_fd, listen_fd, timer_fd;
    struct time_awake awake;
    bool ticking;       /* some link has a deadline, some dial waits for its next try */
    bool listen_paused; /* a newcomer could not be taken: it is tried again at the next tick */
    const struct doorbell_handler *handler; /* while doorbell_poll() runs */
};

/* On a clock that stands while this process is stopped: what is dialled could not answer meanwhile. */
static uint64_t now_ns(struct doorbell *doorbell)
{
    return time_awake_ns(&doorbell->awake, time_ns());
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
    doorbell->awake.seen_ns = time_ns();
    doorbell->peers = calloc(options->rank_count, sizeof(*doorbell->peers));
    doorbell->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    doorbell->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!doorbell->peers)
        code = error_set(error, MORAY_NO_MEMORY, "no memory for the doorbell of %u ranks",
                         options->rank_count);
    else if (doorbell->epoll_fd < 0 || doorbell->timer_fd < 0)
        code = error_set(error, MORAY_SYSTEM, "no descriptor for the doorbell: %s (ulimit -n?)",
                         strerror(errno));
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
    return link->state == LINK_STRANGER;
}

/* Takes a link out of everything; its memory goes once no event can name it. */
static void link_close(struct doorbell *doorbell, struct link *link)
{
    if (is_stranger(link)) {
        doorbell->stranger_count--;
    } else {
        struct peer *peer = &doorbell->peers[link->talk.rank];
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

static struct link *link_create(struct doorbell *doorbell, int fd, enum link_state state,
                                uint32_t rank)
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
    if (state == LINK_CONNECTING)
        talk_dial(&link->talk, doorbell->options.rank, rank);
    else
        talk_listen(&link->talk, doorbell->options.rank);
    link->next = doorbell->links;
    link->self = &doorbell->links;
    if (link->next)
        link->next->self = &link->next;
    doorbell->links = link;
    doorbell->stranger_count += is_stranger(link);
    link->want_out = link->talk.dialled;
    watch(doorbell, EPOLL_CTL_ADD, fd, EPOLLIN | (link->talk.dialled ? EPOLLOUT : 0), link);
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
    struct peer *peer = &doorbell->peers[link->talk.rank];
    uint32_t rank = link->talk.rank;
    char reason[192], text[INET_ADDRSTRLEN];

    link_close(doorbell, link);
    if (peer->up[1] || peer->dropped)
        return;
    if (failure != ECONNREFUSED && now_ns(doorbell) < peer->dial_end_ns) {
        peer->again_ns = now_ns(doorbell) + tick_ns;
        tick_start(doorbell);
        return;
    }
    snprintf(reason, sizeof(reason), "its agent cannot be reached at %s%s: %s",
             inet_ntop(AF_INET, &doorbell->addresses[rank].ip, text, sizeof(text)),
             failure == ECONNREFUSED ? "" : " (MORAY_INTERFACE chooses the network)",
             failure ? strerror(failure) : "it did not prove the job's secret in time");
    rank_end(doorbell, rank, reason);
}

/* The link is of no more use. */
static void link_end(struct doorbell *doorbell, struct link *link, int failure)
{
    uint32_t rank = link->talk.rank;
    bool up = link->state == LINK_UP;
    char reason[128];

    if (link->talk.dialled && !up) {
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
    if (link->talk.dialled)
        dial_failed(doorbell, link, 0);
    else
        link_close(doorbell, link);
}

/* Hands the kernel what is queued. Returns false if the link failed with it (errno). */
static bool link_flush(struct doorbell *doorbell, struct link *link)
{
    while (link->talk.out_count) {
        ssize_t sent =
            send(link->fd, link->talk.out, link->talk.out_count, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno != EAGAIN)
            return false;
        if (sent < 0)
            break;
        link->talk.out_count -= (size_t)sent;
        memmove(link->talk.out, link->talk.out + sent, link->talk.out_count);
    }
    if (link->want_out != (link->talk.out_count > 0)) {
        link->want_out = link->talk.out_count > 0;
        watch(doorbell, EPOLL_CTL_MOD, link->fd, EPOLLIN | (link->want_out ? EPOLLOUT : 0), link);
    }
    return true;
}

/* Returns false if the means to try are not there now (errno): then it is tried again in a moment. */
static bool dial_start(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];
    const struct doorbell_address *address = &doorbell->addresses[rank];
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = address->ip, .sin_port = address->port};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct link *link = fd < 0 ? NULL : link_create(doorbell, fd, LINK_CONNECTING, rank);

    peer->again_ns = 0;
    if (!link) { /* out of descriptors or memory: perhaps not for long */
        peer->again_ns = now_ns(doorbell) + tick_ns;
        tick_start(doorbell);
        return false;
    }
    link->deadline_ns = peer->dial_end_ns;
    peer->dial = link;
    /* A failure shows as an event of the socket, where a handler can be told of it. */
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
        link->failure = errno;
    return true;
}

static void dial_again(struct doorbell *doorbell, uint32_t rank, uint64_t now)
{
    char reason[128];

    if (dial_start(doorbell, rank) || now < doorbell->peers[rank].dial_end_ns)
        return;
    snprintf(reason, sizeof(reason), "this rank cannot connect to its agent: %s%s", strerror(errno),
             errno == EMFILE ? " (ulimit -n)" : "");
    rank_end(doorbell, rank, reason);
}

void doorbell_dial(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];

    if (!doorbell->addresses || peer->dropped || peer->dial || peer->again_ns || peer->up[0] ||
        peer->up[1])
        return;
    peer->dial_end_ns = now_ns(doorbell) + doorbell->options.connect_limit_ms * (uint64_t)1000000;
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

static enum moray_code link_tell(struct doorbell *doorbell, struct link *link,
                                 enum doorbell_word word, const void *bytes, size_t count)
{
    if (!talk_put(&link->talk, word, bytes, count))
        return MORAY_BUSY;
    /* A broken connection shows as an event of its socket, and its end is told from there. */
    if (!link_flush(doorbell, link))
        link->talk.out_count = 0;
    return MORAY_OK;
}

enum moray_code doorbell_tell(struct doorbell *doorbell, uint32_t rank, enum doorbell_word word,
                              const void *bytes, size_t count)
{
    struct link *link = link_of(doorbell, rank);

    return link ? link_tell(doorbell, link, word, bytes, count) : MORAY_UNAVAILABLE;
}

void doorbell_leave(struct doorbell *doorbell, uint32_t rank)
{
    struct peer *peer = &doorbell->peers[rank];

    for (int i = 0; i < 2; i++)
        if (peer->up[i])
            (void)!link_tell(doorbell, peer->up[i], DOORBELL_LEAVING, NULL, 0);
}

static void link_up(struct doorbell *doorbell, struct link *link)
{
    struct peer *peer = &doorbell->peers[link->talk.rank];

    doorbell->stranger_count -= is_stranger(link);
    link->state = LINK_UP;
    link->deadline_ns = 0;
    if (link->talk.dialled)
        peer->dial = NULL;
    peer->dial_end_ns = peer->again_ns = 0;
    if (peer->up[!link->talk
                      .dialled]) /* it dialled once more: its former connection is of no use */
        link_close(doorbell, peer->up[!link->talk.dialled]);
    peer->up[!link->talk.dialled] = link;
    doorbell->handler->up(doorbell->handler->context, link->talk.rank);
}

/* Takes the handshake as far as it has come. Returns false if the link is gone. */
static bool link_greet(struct doorbell *doorbell, struct link *link)
{
    bool moved = true;

    while (moved) {
        const char *why =
            talk_step(&link->talk, doorbell->secret, doorbell->options.rank_count, &moved);
        if (!why && link->talk.state == TALK_UP && doorbell->peers[link->talk.rank].dropped)
            why = "its rank was given up";
        if (why) {
            stranger_refuse(doorbell, link, why);
            return false;
        }
    }
    if (!link_flush(doorbell, link)) {
        link_end(doorbell, link, errno);
        return false;
    }
    if (link->talk.state == TALK_UP)
        link_up(doorbell, link);
    return true;
}

/* Tells the records that are whole. One that is not proven ends the connection: somebody sits in
 * between. Returns false if the link is gone. */
static bool link_records(struct doorbell *doorbell, struct link *link)
{
    _Alignas(8) uint8_t data[DOORBELL_RECORD_MAX];
    const struct doorbell_handler *handler = doorbell->handler;
    enum doorbell_word word;
    struct moray_error error;
    size_t count;
    int had;

    while ((had = talk_take(&link->talk, &word, data, &count)) > 0)
        handler->record(handler->context, link->talk.rank, word, data, count);
    if (had == 0)
        return true;
    error_set(&error, MORAY_PROTOCOL,
              "a record on the connection to rank %u was dropped: it is not proven",
              link->talk.rank);
    handler->refused(handler->context, &error);
    link_end(doorbell, link, EPROTO);
    return false;
}

static void link_event(struct doorbell *doorbell, struct link *link, uint32_t events)
{
    struct talk *talk = &link->talk;
    ssize_t had;

    if (link->state == LINK_CONNECTING) {
        int failure = link->failure;
        socklen_t bytes = sizeof(failure);
        if (failure || getsockopt(link->fd, SOL_SOCKET, SO_ERROR, &failure, &bytes) < 0 ||
            failure) {
            link_end(doorbell, link, failure);
            return;
        }
        link->state = LINK_ANSWER;
    }
    if ((events & EPOLLOUT) && !link_flush(doorbell, link)) {
        link_end(doorbell, link, errno);
        return;
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        return;
    for (int round = 0; round < 4; round++) { /* a bound: others wait as well */
        size_t room = TALK_IN_BYTES - talk->in_count;
        had = recv(link->fd, talk->in + talk->in_count, room, MSG_DONTWAIT);
        if (had < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (had <= 0) {
            link_end(doorbell, link, had < 0 ? errno : 0);
            return;
        }
        talk->in_count += (size_t)had;
        if (link->state != LINK_UP && !link_greet(doorbell, link))
            return;
        if (link->state == LINK_UP && !link_records(doorbell, link))
            return;
        if ((size_t)had < room)
            return; /* that was all */
    }
}

static void listen_event(struct doorbell *doorbell)
{
    for (int round = 0; round < EVENT_COUNT; round++) {
        int fd = accept4(doorbell->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        struct link *link;

        if (fd < 0 && errno != EAGAIN) { /* EMFILE, ENOBUFS …: the newcomer waits there still */
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
        link = link_create(doorbell, fd, LINK_STRANGER, 0);
        if (link)
            link->deadline_ns = now_ns(doorbell) + DOORBELL_STRANGER_MS * (uint64_t)1000000;
    }
}

/* Ends what took too long, tries again what waits for that, and stops once there is neither. */
static void deadlines(struct doorbell *doorbell)
{
    uint64_t now = now_ns(doorbell), ticks;
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
            dial_again(doorbell, rank, now);
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
