/**
 * Inside a worker or actor: from the fork to the end (zygote.h, lower part).
 */
#include "node/zygote_inside.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node/topology.h"
#include "store/arena/window.h"

static struct {
    bool is_process; /* a worker or actor, not the rank or the zygote */
    struct process_order order;
    pid_t zygote_pid;
    int socket; /* to the zygote */
    int tether; /* ends with the rank */
} self;

static pthread_mutex_t receive_lock = PTHREAD_MUTEX_INITIALIZER; /* guards reading self.socket */

/* Signals that are for the rank: launchers send them to every process of a job. They are caught, not
 * ignored: what a task executes would ignore them as well, and a kill of it have no effect. */
static const int passed_by[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};

static void pass_by(int number)
{
    (void)number;
}

static void set_signals(void)
{
    struct sigaction action = {.sa_handler = pass_by, .sa_flags = SA_RESTART};
    sigset_t none;

    for (size_t i = 0; i < sizeof(passed_by) / sizeof(*passed_by); i++)
        sigaction(passed_by[i], &action, NULL);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_streams(const struct process_birth *birth)
{
    dup2(birth->out_fd, STDOUT_FILENO);
    dup2(birth->err_fd, STDERR_FILENO);
    /* what was printed before a kill is in the pipe, not in a buffer that dies */
    setvbuf(stdout, NULL, _IONBF, 0);
    setvbuf(stderr, NULL, _IONBF, 0);
}

/* One message of the zygote, waited for up to limit_ms (-1: without end, for a spare, which ends
 * with its zygote). */
static enum moray_code receive(struct wire_request *out, int limit_ms, struct moray_error *error)
{
    struct pollfd ready = {.fd = self.socket, .events = POLLIN};
    int fds[WIRE_FDS_MAX];
    int got = poll(&ready, 1, limit_ms);

    if (got == 0 || (got < 0 && errno == EINTR))
        return MORAY_TIMEOUT;
    got = wire_receive(self.socket, out, sizeof(*out), fds, MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN
                   ? MORAY_TIMEOUT
                   : error_set(error, MORAY_LOST, "the zygote of this rank is gone");
    if (out->kind == WIRE_PEER)
        return window_map_peer(out->local_rank, fds[0], false, error);
    return MORAY_OK;
}

static void wait_for_order(void)
{
    struct wire_request request = {.kind = WIRE_PEER};
    struct moray_error error;

    prctl(PR_SET_NAME, "moray-spare");
    while (request.kind != WIRE_ORDER)
        if (receive(&request, -1, &error) == MORAY_LOST)
            _exit(0); /* nobody will ever want this spare */
    self.order = request.order;
}

void process_main(const struct process_birth *birth)
{
    const struct zygote_options *options = &birth->zygote->options;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != birth->zygote_pid) /* it died before the line above */
        _exit(1);
    self.is_process = true;
    self.zygote_pid = birth->zygote_pid;
    self.socket = birth->socket;
    self.tether = birth->zygote->tether;
    set_streams(birth);
    descriptors_close_but(options, (int[]){self.socket, self.tether}, 2);
    set_signals();

    if (birth->order)
        self.order = *birth->order;
    else
        wait_for_order();
    prctl(PR_SET_NAME, self.order.kind == PROCESS_ACTOR ? "moray-actor" : "moray-worker");
    if (options->cores)
        topology_bind(options->cores, self.order.core);
    options->enter(options->context, &self.order);
    process_end(0);
}

static _Thread_local sigset_t before_fork;

void process_forking(void)
{
    sigset_t held;

    if (!self.is_process)
        return;
    sigemptyset(&held);
    for (size_t i = 0; i < sizeof(passed_by) / sizeof(*passed_by); i++)
        sigaddset(&held, passed_by[i]);
    pthread_sigmask(SIG_BLOCK, &held, &before_fork);
}

void process_forked(bool is_child)
{
    struct sigaction action;

    if (!self.is_process)
        return;
    for (size_t i = 0; is_child && i < sizeof(passed_by) / sizeof(*passed_by); i++)
        if (sigaction(passed_by[i], NULL, &action) == 0 && action.sa_handler == pass_by)
            signal(passed_by[i], SIG_DFL);
    pthread_sigmask(SIG_SETMASK, &before_fork, NULL);
}

const struct process_order *process_self(void)
{
    return self.is_process ? &self.order : NULL;
}

bool process_is_orphan(void)
{
    struct pollfd rank = {.fd = self.tether};

    if (!self.is_process)
        return false;
    return getppid() != self.zygote_pid || (poll(&rank, 1, 0) == 1 && (rank.revents & POLLHUP));
}

enum moray_code process_attach(uint32_t local_rank, unsigned limit_ms, struct moray_error *error)
{
    uint64_t end_ms = wire_now_ms() + limit_ms;
    enum moray_code code = MORAY_OK;

    pthread_mutex_lock(&receive_lock);
    while (!window_bytes(local_rank) && (!code || code == MORAY_TIMEOUT)) {
        struct wire_request request;
        uint64_t now_ms = wire_now_ms();
        if (!self.is_process || (code == MORAY_TIMEOUT && now_ms >= end_ms)) {
            code = error_set(error, MORAY_TIMEOUT,
                             "the arena of local rank %u did not arrive within "
                             "%u ms",
                             local_rank, limit_ms);
            break;
        }
        code = receive(&request, now_ms < end_ms ? (int)(end_ms - now_ms) : 0, error);
    }
    pthread_mutex_unlock(&receive_lock);
    return window_bytes(local_rank) ? MORAY_OK : code;
}

void process_end(int status)
{
    fflush(NULL);
    _exit(status);
}
