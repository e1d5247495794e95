#include "node/zygote.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/array.h"
#include "base/limits.h"
#include "node/zygote_inside.h"

enum { PROCESS_RESERVE = 64, SOCKET_BYTES = 1 << 20, SWEEP_MS = 1000 };

struct zygote {
    pid_t pid;
    int control; /* our end */
    int tether;  /* the only write end of the pipe that ends with us */
    ino_t tether_inode;
    int tether_read; /* its number in the processes */
    bool lost;
    struct wire_request *late; /* what found no room in its socket, in order; owned */
    uint32_t late_count, late_capacity;
};

/* ---- Start ---- */

static uint32_t process_budget(const struct zygote_options *options)
{
    struct rlimit limit;
    uint64_t budget = limits_processes_at("");

    if (!getrlimit(RLIMIT_NPROC, &limit) && limit.rlim_cur < budget)
        budget = limit.rlim_cur;
    budget = budget > 2 * PROCESS_RESERVE ? budget - PROCESS_RESERVE : budget / 2 + 1;
    if (options->process_count_max && options->process_count_max < budget)
        budget = options->process_count_max;
    return budget < ZYGOTE_PROCESSES_MAX ? (uint32_t)budget : ZYGOTE_PROCESSES_MAX;
}

/* A process costs the zygote a descriptor and the agent two. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int open_channels(int control[2], int tether[2])
{
    control[0] = control[1] = tether[0] = tether[1] = -1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) || pipe2(tether, O_CLOEXEC))
        return -1;
    for (int i = 0; i < 2; i++)
        setsockopt(control[i], SOL_SOCKET, SO_SNDBUF, &(int){SOCKET_BYTES}, sizeof(int));
    return 0;
}

static void close_channels(const int control[2], const int tether[2])
{
    for (int i = 0; i < 2; i++) {
        if (control[i] >= 0)
            close(control[i]);
        if (tether[i] >= 0)
            close(tether[i]);
    }
}

static void fork_zygote(struct zygote *handle, const struct zygote_options *options,
                        const int control[2], const int tether[2])
{
    static struct zygote_birth birth; /* inherited by the fork */

    birth = (struct zygote_birth){.options = *options,
                                  .process_count_max = process_budget(options),
                                  .rank_pid = getpid(),
                                  .control = control[1],
                                  .tether = tether[0]};
    fflush(NULL); /* else the child would write what we have not written yet a second time */
    handle->pid = fork();
    if (!handle->pid) {
        close(control[0]);
        close(tether[1]);
        zygote_main(&birth);
    }
}

enum moray_code zygote_start(const struct zygote_options *options, struct zygote **out,
                             struct moray_error *error)
{
    int control[2], tether[2];
    struct stat pipe_file;

    *out = NULL;
    if (!options->enter)
        return error_set(error, MORAY_INVALID, "the zygote needs a function to run in processes");
    struct zygote *handle = calloc(1, sizeof(*handle));
    if (!handle)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the zygote's handle");
    raise_file_limit();
    if (open_channels(control, tether) || fstat(tether[0], &pipe_file)) {
        error_set(error, MORAY_SYSTEM, "cannot open the zygote's channels: %s", strerror(errno));
        goto failed;
    }
    handle->control = control[0];
    handle->tether = tether[1];
    handle->tether_read = tether[0];
    handle->tether_inode = pipe_file.st_ino;
    /* what a dying zygote leaves comes up to us, and zygote_stop() ends it */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    fork_zygote(handle, options, control, tether);
    if (handle->pid < 0) {
        error_set(error, MORAY_SYSTEM, "cannot fork the zygote: %s", strerror(errno));
        goto failed;
    }
    close(control[1]);
    close(tether[0]);
    *out = handle;
    return MORAY_OK;

failed:
    close_channels(control, tether);
    free(handle);
    return MORAY_SYSTEM;
}

pid_t zygote_pid(const struct zygote *zygote)
{
    return zygote->pid;
}

int zygote_fd(const struct zygote *zygote)
{
    return zygote->control;
}

/* ---- Requests ---- */

static bool is_full(int error_number)
{
    return error_number == EAGAIN || error_number == EWOULDBLOCK || error_number == ENOBUFS ||
           error_number == ETOOMANYREFS;
}

/* Whether all that was kept is sent; or lost, where the zygote is gone. */
static bool late_send(struct zygote *zygote)
{
    uint32_t sent = 0;

    while (sent < zygote->late_count && !zygote->lost) {
        const struct wire_request *late = &zygote->late[sent];
        if (wire_send(zygote->control, late, sizeof(*late), NULL, 0, MSG_DONTWAIT) &&
            is_full(errno))
            break;
        sent++;
    }
    zygote->late_count -= sent;
    if (sent && zygote->late_count)
        memmove(zygote->late, zygote->late + sent, zygote->late_count * sizeof(*zygote->late));
    return zygote->late_count == 0 || zygote->lost;
}

/* What finds no room is kept: a kill that is not sent would leave a process for ever. Not so what comes
 * with a descriptor. */
static enum moray_code request(struct zygote *zygote, const struct wire_request *message,
                               const int *fds, uint32_t fd_count, struct moray_error *error)
{
    bool is_first = zygote->lost || late_send(zygote);

    if (zygote->lost)
        return error_set(error, MORAY_LOST, "the zygote (pid %d) is gone", (int)zygote->pid);
    if (is_first &&
        !wire_send(zygote->control, message, sizeof(*message), fds, fd_count, MSG_DONTWAIT))
        return MORAY_OK;
    if (is_first && (errno == EPIPE || errno == ECONNRESET))
        return error_set(error, MORAY_LOST, "the zygote (pid %d) is gone", (int)zygote->pid);
    if (is_first && !is_full(errno))
        return error_set(error, MORAY_SYSTEM, "cannot reach the zygote (pid %d): %s",
                         (int)zygote->pid, strerror(errno));
    if (fd_count || message->kind == WIRE_STOP)
        return error_set(error, MORAY_BUSY, "the zygote (pid %d) has too much to do",
                         (int)zygote->pid);
    zygote->late =
        array_grown(zygote->late, zygote->late_count, &zygote->late_capacity, sizeof(*message));
    zygote->late[zygote->late_count++] = *message;
    return MORAY_OK;
}

bool zygote_again(struct zygote *zygote)
{
    return !late_send(zygote);
}

enum moray_code zygote_spawn(struct zygote *zygote, const struct process_order *order,
                             struct moray_error *error)
{
    if (order->kind > PROCESS_SPARE)
        return error_set(error, MORAY_INVALID, "no such kind of process: %u", order->kind);
    return request(zygote, &(struct wire_request){.kind = WIRE_SPAWN, .order = *order}, NULL, 0,
                   error);
}

enum moray_code zygote_kill(struct zygote *zygote, uint16_t slot, uint32_t incarnation, int signal,
                            struct moray_error *error)
{
    struct wire_request message = {.kind = WIRE_KILL, .signal = signal};

    message.order.slot = slot;
    message.order.incarnation = incarnation;
    return request(zygote, &message, NULL, 0, error);
}

enum moray_code zygote_pass_peer(struct zygote *zygote, uint32_t local_rank, int fd,
                                 struct moray_error *error)
{
    return request(zygote, &(struct wire_request){.kind = WIRE_PEER, .local_rank = local_rank}, &fd,
                   1, error);
}

/* ---- Events ---- */

bool zygote_next(struct zygote *zygote, struct zygote_event *event)
{
    int fds[WIRE_FDS_MAX];
    int got =
        zygote->lost ? 0 : wire_receive(zygote->control, event, sizeof(*event), fds, MSG_DONTWAIT);

    if (got > 0) {
        event->out_fd = fds[0];
        event->err_fd = fds[1];
        return true;
    }
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return false;
    zygote->lost = true;
    *event =
        (struct zygote_event){.kind = ZYGOTE_LOST, .pid = zygote->pid, .out_fd = -1, .err_fd = -1};
    return true;
}

bool zygote_wait(struct zygote *zygote, struct zygote_event *event, unsigned limit_ms)
{
    uint64_t end_ms = wire_now_ms() + limit_ms;

    while (!zygote_next(zygote, event)) {
        bool is_late = !late_send(zygote);
        struct pollfd ready = {.fd = zygote->control, .events = POLLIN};
        uint64_t now_ms = wire_now_ms();
        if (now_ms >= end_ms)
            return false;
        poll(&ready, 1, is_late ? 1 : (int)(end_ms - now_ms));
    }
    return true;
}

/* ---- End ---- */

static bool has_mark(pid_t pid, const char *mark)
{
    char path[40], text[16384];
    size_t length = strlen(mark) + 1; /* with its end: "12" is not "123" */

    snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got;
    bool found = false;
    size_t kept = 0;
    while (fd >= 0 && !found && (got = read(fd, text + kept, sizeof(text) - kept)) > 0) {
        size_t have = kept + (size_t)got;
        found = memmem(text, have, mark, length) != NULL;
        kept = have < length ? have : length - 1;
        memmove(text, text + have - kept, kept);
    }
    if (fd >= 0)
        close(fd);
    return found;
}

/* Whether a child of the rank came up from a zygote that died: it is in the zygote's process group,
 * or executed something (the environment shows it), or holds the pipe that only we write to. The
 * driver's own children are none of these. */
static bool is_ours(void *context, pid_t pid)
{
    const struct zygote *zygote = context;
    char text[64];
    struct stat file;

    if (getpgid(pid) == zygote->pid)
        return true;
    snprintf(text, sizeof(text), "MORAY_JOB_ZYGOTE=%d", (int)zygote->pid);
    if (has_mark(pid, text))
        return true;
    snprintf(text, sizeof(text), "/proc/%d/fd/%d", (int)pid, zygote->tether_read);
    return !stat(text, &file) && file.st_ino == zygote->tether_inode && S_ISFIFO(file.st_mode);
}

static void drain(struct zygote *zygote)
{
    struct zygote_event event;

    while (!zygote->lost && zygote_next(zygote, &event)) {
        if (event.out_fd >= 0)
            close(event.out_fd);
        if (event.err_fd >= 0)
            close(event.err_fd);
    }
}

/* Waits for the zygote's end, and reaps it; whoever else reaped it (a wait() of the user's) is fine
 * too. Goes on reading: a zygote that waits for room in our socket needs us to. */
static bool wait_for_end(struct zygote *zygote, unsigned limit_ms)
{
    uint64_t end_ms = wire_now_ms() + limit_ms;

    while (waitpid(zygote->pid, NULL, WNOHANG) == 0) {
        struct pollfd ready = {.fd = zygote->lost ? -1 : zygote->control, .events = POLLIN};
        if (wire_now_ms() >= end_ms)
            return false;
        poll(&ready, 1, 1); /* its socket ends a moment before it can be reaped */
        drain(zygote);
    }
    return true;
}

bool zygote_stop(struct zygote *zygote, unsigned limit_ms)
{
    if (!zygote)
        return true;
    if (request(zygote, &(struct wire_request){.kind = WIRE_STOP}, NULL, 0, NULL) != MORAY_OK)
        shutdown(zygote->control, SHUT_RDWR); /* its socket is full, or it is gone: end it is */
    bool gone = wait_for_end(zygote, limit_ms);
    if (!gone) {
        kill(zygote->pid, SIGKILL); /* not reaped yet, so the pid is its own */
        wait_for_end(zygote, SWEEP_MS);
    }
    gone &= children_sweep(is_ours, zygote, SWEEP_MS);
    close(zygote->control);
    close(zygote->tether);
    free(zygote->late);
    free(zygote);
    return gone;
}
