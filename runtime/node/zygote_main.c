/**
 * Inside the zygote: one loop over its control socket and SIGCHLD (zygote.h, upper part).
 *
 * Invariant: children[0 .. child_count-1] are the processes that are forked and not yet reaped; of
 * them, those with `order` told are known to the agent, the others are spares.
 */
#include "node/zygote_inside.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/leftovers.h"
#include "store/arena/window.h"

enum { SPARE_DEATHS_MAX = 8, SWEEP_MS = 3000, LAUNCHER_END_MS = 1500 };

struct child {
    pid_t pid;
    bool is_spare;
    uint16_t slot; /* with incarnation: of the order, unless it is a spare */
    uint32_t incarnation;
    int socket;         /* our end; owned */
    int out_fd, err_fd; /* read ends of its pipes, owned until handed to the agent; else -1 */
};

static struct {
    const struct zygote_birth *birth;
    pid_t pid;
    int signals; /* signalfd of SIGCHLD and SIGTERM */
    struct child children[ZYGOTE_PROCESSES_MAX];
    uint32_t child_count, spare_count;
    uint32_t spare_deaths; /* of spares that nobody asked to end: something kills them all */
    bool may_fork_spares;  /* false after a fork failed, until a process ends */
    struct leftovers leftovers;
} zygote;

/* ---- The end ---- */

/* The last process of the rank removes what a killed mpirun has left. A rank that died by itself may
 * have died of mpirun's end, so that is waited for; mpirun, if it lives, waits in its turn for the end
 * of our stdout and stderr. */
static void remove_leftovers(void)
{
    bool is_rank_gone = getppid() != zygote.birth->rank_pid;

    if (is_rank_gone) {
        close(STDOUT_FILENO);
        close(STDERR_FILENO);
    }
    leftovers_remove(&zygote.leftovers, is_rank_gone ? LAUNCHER_END_MS : 0);
}

/* All that is below the zygote goes with it: processes, their children, those that did setsid. */
static _Noreturn void end(void)
{
    for (uint32_t i = 0; i < zygote.child_count; i++)
        kill(zygote.children[i].pid, SIGKILL);
    children_sweep(NULL, NULL, SWEEP_MS);
    remove_leftovers();
    _exit(0);
}

/* Tells the agent. Blocks while the agent's socket is full: it must not miss an end. If the agent is
 * gone, so is the job. */
static void tell(const struct zygote_event *event, const int *fds, uint32_t fd_count)
{
    if (!wire_send(zygote.birth->control, event, sizeof(*event), fds, fd_count, 0))
        return;
    if (fd_count && (errno == ETOOMANYREFS || errno == EBADF || errno == EMFILE)) {
        /* the process runs, but what it prints is lost: better than to lose the process */
        tell(event, NULL, 0);
        return;
    }
    end();
}

static void tell_failed(const struct process_order *order, int error_number)
{
    tell(&(struct zygote_event){.kind = ZYGOTE_FAILED,
                                .slot = order->slot,
                                .incarnation = order->incarnation,
                                .error_number = error_number},
         NULL, 0);
}

/* ---- Forking ---- */

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

/* The three channels of a process: its socket (ours, its), and two pipes (read, write). */
static int open_channels(int channels[6])
{
    memset(channels, -1, 6 * sizeof(int));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, &channels[0]) ||
        pipe2(&channels[2], O_CLOEXEC) || pipe2(&channels[4], O_CLOEXEC)) {
        int saved = errno;
        close_all(channels, 6);
        errno = saved;
        return -1;
    }
    return 0;
}

/* Forks a process with `order`, or a spare (NULL). Returns it, or NULL with errno. */
static struct child *fork_child(const struct process_order *order)
{
    int channels[6];

    if (zygote.child_count >= zygote.birth->process_count_max) {
        errno = EAGAIN;
        return NULL;
    }
    if (open_channels(channels))
        return NULL;
    pid_t pid = fork();
    if (!pid)
        process_main(&(struct process_birth){.zygote = zygote.birth,
                                             .zygote_pid = zygote.pid,
                                             .socket = channels[1],
                                             .out_fd = channels[3],
                                             .err_fd = channels[5],
                                             .order = order});
    int saved = errno;
    close_all((int[]){channels[1], channels[3], channels[5]}, 3);
    if (pid < 0) {
        close_all((int[]){channels[0], channels[2], channels[4]}, 3);
        errno = saved;
        return NULL;
    }
    struct child *child = &zygote.children[zygote.child_count++];
    *child = (struct child){.pid = pid,
                            .is_spare = !order,
                            .socket = channels[0],
                            .out_fd = channels[2],
                            .err_fd = channels[4]};
    zygote.spare_count += !order;
    return child;
}

/* A spare that takes the order; NULL: there is none. */
static struct child *order_spare(const struct process_order *order)
{
    struct wire_request request = {.kind = WIRE_ORDER, .order = *order};

    for (uint32_t i = 0; zygote.spare_count && i < zygote.child_count; i++) {
        struct child *child = &zygote.children[i];
        /* one that just died refuses, and is reaped later */
        if (!child->is_spare ||
            wire_send(child->socket, &request, sizeof(request), NULL, 0, MSG_DONTWAIT))
            continue;
        child->is_spare = false;
        zygote.spare_count--;
        return child;
    }
    return NULL;
}

static struct child *find(uint16_t slot)
{
    for (uint32_t i = 0; i < zygote.child_count; i++)
        if (!zygote.children[i].is_spare && zygote.children[i].slot == slot)
            return &zygote.children[i];
    return NULL;
}

static void spawn(const struct process_order *order)
{
    if (find(order->slot)) {
        tell_failed(order, EEXIST);
        return;
    }
    struct child *child = order_spare(order);
    if (!child)
        child = fork_child(order);
    if (!child) {
        tell_failed(order, errno);
        return;
    }
    child->slot = order->slot;
    child->incarnation = order->incarnation;
    tell(&(struct zygote_event){.kind = ZYGOTE_STARTED,
                                .slot = child->slot,
                                .incarnation = child->incarnation,
                                .pid = child->pid},
         (int[]){child->out_fd, child->err_fd}, 2);
    close(child->out_fd);
    close(child->err_fd);
    child->out_fd = child->err_fd = -1;
}

static bool wants_spare(void)
{
    return zygote.may_fork_spares && zygote.spare_count < zygote.birth->options.spare_count &&
           zygote.child_count < zygote.birth->process_count_max;
}

/* ---- Reaping ---- */

static void forget(uint32_t index)
{
    struct child *child = &zygote.children[index];

    close_all((int[]){child->socket, child->out_fd, child->err_fd}, 3);
    *child = zygote.children[--zygote.child_count];
}

static void reaped(pid_t pid, int status, const struct rusage *usage)
{
    uint32_t i = 0;

    while (i < zygote.child_count && zygote.children[i].pid != pid)
        i++;
    if (i == zygote.child_count)
        return; /* a user's child that came up to us when its worker ended */
    struct child child = zygote.children[i];
    forget(i);
    zygote.may_fork_spares = true;
    if (child.is_spare) {
        zygote.spare_count--;
        zygote.may_fork_spares = ++zygote.spare_deaths < SPARE_DEATHS_MAX;
        return;
    }
    tell(&(struct zygote_event){.kind = ZYGOTE_EXITED,
                                .slot = child.slot,
                                .incarnation = child.incarnation,
                                .pid = pid,
                                .status = status,
                                .usage = *usage},
         NULL, 0);
}

static void reap(void)
{
    struct rusage usage;
    int status;
    pid_t pid;

    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0)
        reaped(pid, status, &usage);
}

/* ---- Requests ---- */

static void pass_peer(const struct wire_request *request, int fd)
{
    for (uint32_t i = 0; i < zygote.child_count; i++) /* one that died is reaped later */
        wire_send(zygote.children[i].socket, request, sizeof(*request), &fd, 1, MSG_DONTWAIT);
    /* for those forked from now on; the agent mapped the same one, so it is a good one */
    if (window_map_peer(request->local_rank, fd, false, NULL))
        return;
}

static void serve(const struct wire_request *request, int fd)
{
    struct child *child;

    switch (request->kind) {
    case WIRE_SPAWN:
        spawn(&request->order);
        break;
    case WIRE_KILL:
        child = find(request->order.slot);
        if (child && child->incarnation == request->order.incarnation)
            kill(child->pid, request->signal);
        break;
    case WIRE_PEER:
        if (fd >= 0)
            pass_peer(request, fd);
        break;
    case WIRE_STOP:
        end();
    }
}

static void serve_control(void)
{
    struct wire_request request;
    int fds[WIRE_FDS_MAX];
    int got = wire_receive(zygote.birth->control, &request, sizeof(request), fds, MSG_DONTWAIT);

    if (got > 0)
        serve(&request, fds[0]);
    else if (got == 0)
        end(); /* the rank is gone */
}

static void serve_signals(void)
{
    struct signalfd_siginfo info;

    while (read(zygote.signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
        continue;
    /* SIGTERM comes when the rank dies, and from Slurm, which sends it to every process of a step:
     * only the former is for us. */
    if (getppid() != zygote.birth->rank_pid)
        end();
    reap();
}

/* ---- Birth ---- */

static void drop_variables(void)
{
    static const char *const prefixes[] = {"PMI", "OMPI_", "SLURM_STEP"};
    char name[256];

    for (char **entry = environ; entry && *entry;) {
        size_t length = strcspn(*entry, "="), i = 0;
        while (i < sizeof(prefixes) / sizeof(*prefixes) &&
               strncmp(*entry, prefixes[i], strlen(prefixes[i])))
            i++;
        if (i == sizeof(prefixes) / sizeof(*prefixes) || length >= sizeof(name)) {
            entry++;
            continue;
        }
        memcpy(name, *entry, length);
        name[length] = 0;
        unsetenv(name); /* moves the rest up: look at the same place again */
    }
}

static void set_signals(void)
{
    static const int ignored[] = {SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t taken;

    for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
        signal(ignored[i], SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    sigemptyset(&taken);
    sigaddset(&taken, SIGCHLD);
    sigaddset(&taken, SIGTERM);
    sigprocmask(SIG_SETMASK, &taken, NULL);
    zygote.signals = signalfd(-1, &taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (zygote.signals < 0)
        _exit(1);
}

static void read_nothing(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (fd >= 0)
        dup2(fd, STDIN_FILENO);
}

/* What user code leaves of itself carries this (zygote.c, is_ours): the rank finds it by it. */
static void mark(void)
{
    char text[32];

    snprintf(text, sizeof(text), "%d", (int)zygote.pid);
    setenv("MORAY_JOB_ZYGOTE", text, 1);
}

void zygote_main(const struct zygote_birth *birth)
{
    zygote.birth = birth;
    zygote.pid = getpid();
    zygote.may_fork_spares = true;
    setpgid(0, 0);
    set_signals();
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != birth->rank_pid)
        _exit(1);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "moray-zygote");
    leftovers_of_rank(NULL, &zygote.leftovers);
    read_nothing();
    drop_variables();
    mark();
    descriptors_close_but(&birth->options, (int[]){birth->control, birth->tether, zygote.signals},
                          3);

    for (;;) {
        struct pollfd ready[] = {{.fd = birth->control, .events = POLLIN},
                                 {.fd = zygote.signals, .events = POLLIN}};
        int count = poll(ready, 2, wants_spare() ? 0 : -1);
        if (count == 0 && !fork_child(NULL)) /* idle: fork ahead */
            zygote.may_fork_spares = false;
        if (count <= 0)
            continue;
        if (ready[0].revents)
            serve_control();
        if (ready[1].revents)
            serve_signals();
    }
}
