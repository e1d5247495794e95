#include "tools/job.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "node/leftovers.h"

enum {
    LAUNCHER_GRACE_MS = 4000, /* mpirun needs 2 s for ranks that ignore SIGTERM */
    ORPHAN_GRACE_MS = 3000,   /* ranks notice the end of mpirun after about 1 s */
    LOOK_AGAIN_MS = 20,
};

static const int forwarded[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2};
enum { FORWARDED_COUNT = sizeof forwarded / sizeof *forwarded };

struct job {
    pid_t self, launcher, watcher;
    int watch_fd;      /* a byte: all is well; its end alone: moray run is dead */
    bool on_terminal;  /* the launcher is in our process group */
    int last_signal;   /* that was sent on; 0 = none */
    sigset_t old_mask; /* the signals as the launcher shall have them */
    struct leftovers leftovers;
    bool is_srun;
};

/* Becomes the command. Returns, with what a shell would end with, only if that failed. */
static int become(const struct command *command)
{
    for (unsigned i = 0; i < command->variable_count; i++)
        putenv((char *)(uintptr_t)command->variables[i]);
    execvp(command->words[0], (char *const *)(uintptr_t)command->words);

    int cause = errno;
    fprintf(stderr, "moray run: cannot start %s: %s\n", command->words[0], strerror(cause));
    if (cause == ENOENT && command->launcher != COMMAND_NONE)
        fprintf(stderr, "moray run: %s comes with %s\n", command->words[0],
                command->launcher == COMMAND_SRUN
                    ? "Slurm (Debian: slurm-client; Spack: slurm)"
                    : "Open MPI (Debian: openmpi-bin; Spack: openmpi)");
    return cause == ENOENT ? 127 : 126;
}

_Noreturn static void be_launcher(const struct job *job, const struct command *command)
{
    if (!job->on_terminal)
        setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, &job->old_mask, NULL);
    if (getppid() != job->self) /* moray run died before it could be watched */
        _exit(126);
    _exit(become(command));
}

/* Waits for the end of moray run. Has nothing open of it but the pipe, and no part in its signals. */
_Noreturn static void be_watcher(const struct job *job, int read_fd)
{
    int null_fd = open("/dev/null", O_RDWR);
    int launcher_fd = (int)syscall(SYS_pidfd_open, job->launcher, 0);
    struct pollfd launcher = {.fd = launcher_fd, .events = POLLIN};
    char byte = 0;

    setsid();
    prctl(PR_SET_NAME, "moray-watcher");
    for (int fd = 0; fd <= 2; fd++)
        dup2(null_fd, fd);
    close(job->watch_fd);
    while (read(read_fd, &byte, 1) < 0 && errno == EINTR)
        ;
    if (byte == 'k')
        _exit(0);
    if (launcher_fd >= 0 && poll(&launcher, 1, LAUNCHER_GRACE_MS) == 0)
        syscall(SYS_pidfd_send_signal, launcher_fd, SIGKILL, NULL, 0);
    leftovers_remove(&job->leftovers, 500);
    _exit(0);
}

static int start(struct job *job, const struct command *command)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC)) {
        fprintf(stderr, "moray run: no pipe: %s\n", strerror(errno));
        return 126;
    }
    job->watch_fd = ends[1];
    job->launcher = fork();
    if (job->launcher == 0)
        be_launcher(job, command);
    if (job->launcher < 0) {
        fprintf(stderr, "moray run: cannot start a process: %s\n", strerror(errno));
        return 126;
    }
    if (command->launcher == COMMAND_MPIRUN)
        leftovers_of_mpirun(job->launcher, &job->leftovers);
    job->watcher = fork();
    if (job->watcher == 0)
        be_watcher(job, ends[0]);
    close(ends[0]);
    return 0;
}

static void send_on(struct job *job, const siginfo_t *info)
{
    int signal = info->si_signo;

    job->last_signal = signal == SIGUSR1 || signal == SIGUSR2 ? job->last_signal : signal;
    if (job->on_terminal && info->si_code == SI_KERNEL)
        return; /* from the terminal: the launcher has it already */
    /* srun answers one SIGINT by the state of its tasks, and goes on: what is meant is the end. */
    kill(job->launcher, job->is_srun && signal == SIGINT ? SIGTERM : signal);
}

/* Waits for the launcher and returns its status as of waitpid(). Others may be reaped on the way. */
static int wait_for_launcher(struct job *job, const sigset_t *signals)
{
    siginfo_t info;
    int status;

    for (;;) {
        pid_t pid;
        while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
            if (pid == job->launcher)
                return status;
            if (pid == job->watcher)
                job->watcher = 0;
        }
        if (sigwaitinfo(signals, &info) > 0 && info.si_signo != SIGCHLD)
            send_on(job, &info);
    }
}

static uint64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How many children there are beside the watcher, dead ones not yet reaped included; `signal` (0 =
 * none) is sent to each. What a child leaves becomes a child in its turn. */
static unsigned count_orphans(const struct job *job, int signal)
{
    char path[64];
    unsigned count = 0;
    int pid;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)job->self, (int)job->self);
    FILE *children = fopen(path, "re");
    if (!children)
        return 0;
    while (fscanf(children, "%d", &pid) == 1)
        if (pid != job->watcher) {
            count++;
            if (signal)
                kill(pid, signal);
        }
    fclose(children);
    return count;
}

/* Reaps what the launcher left, until nothing is left of it; kills what takes too long. */
static void end_orphans(struct job *job)
{
    static const struct timespec look_again = {.tv_nsec = LOOK_AGAIN_MS * 1000000};
    uint64_t kill_ms = now_ms() + ORPHAN_GRACE_MS, give_up_ms = kill_ms + 1000;

    for (;;) {
        pid_t pid;
        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
            if (pid == job->watcher)
                job->watcher = 0;
        uint64_t at_ms = now_ms();
        if (count_orphans(job, at_ms >= kill_ms ? SIGKILL : 0) == 0 || at_ms >= give_up_ms)
            return;
        nanosleep(&look_again, NULL);
    }
}

static void dismiss_watcher(const struct job *job)
{
    if (job->watcher <= 0)
        return;
    if (write(job->watch_fd, "k", 1) != 1)
        kill(job->watcher, SIGKILL);
    waitpid(job->watcher, NULL, 0);
}

static int exit_status(const struct job *job, int status)
{
    int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);

    return code && job->last_signal ? 128 + job->last_signal : code;
}

int job_run(const struct command *command)
{
    struct job job = {.self = getpid(), .is_srun = command->launcher == COMMAND_SRUN};
    sigset_t signals;

    if (command->launcher == COMMAND_NONE)
        return become(command);
    job.on_terminal = isatty(STDIN_FILENO) && tcgetpgrp(STDIN_FILENO) == getpgrp();
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    for (int i = 0; i < FORWARDED_COUNT; i++)
        sigaddset(&signals, forwarded[i]);
    sigprocmask(SIG_BLOCK, &signals, &job.old_mask);
    prctl(PR_SET_CHILD_SUBREAPER, 1);

    int code = start(&job, command);
    if (code)
        return code;
    int status = wait_for_launcher(&job, &signals);
    if (status)
        end_orphans(&job);
    leftovers_remove(&job.leftovers, 0);
    dismiss_watcher(&job);
    return exit_status(&job, status);
}
