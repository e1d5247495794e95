/**
 * The zygote: a small single-threaded process, forked by moray_init from main() before threads and
 * MPI, that forks, watches, kills and reaps workers and actors.
 *
 *     rank (main thread, agent, MPI…)
 *       │ control: seqpacket pair; spawn, kill, pass a descriptor, stop  ->
 *       │                          <-  started (with the read ends of stdout, stderr), exited, failed
 *     zygote ── worker, actor …      each with a seqpacket pair to the zygote (orders for spares,
 *       └────── spares (no slot yet) descriptors of peers) and two pipes for what it prints
 *
 * Who dies with whom:
 *     rank dies       the zygote's control socket ends (and SIGTERM by PDEATHSIG): it kills and reaps
 *                     all that is below it, user children of workers included, and ends
 *     zygote dies     its processes die by PDEATHSIG SIGKILL; the rank sees ZYGOTE_LOST and calls
 *                     zygote_stop(), which kills what was handed up to it (the rank is a subreaper)
 *     a process dies  ZYGOTE_EXITED, after waitpid(): the whole process is gone, all threads, so the
 *                     agent may repair its slot. Its pid is not given again before the zygote reaped
 *                     it, and only the zygote sends it signals: no pid is ever confused
 * The zygote has a process group of its own: signals of the launcher to the rank's group miss it.
 * Zygote, workers and actors pass by SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 (what a task forks
 * or executes does not), have stdin from /dev/null, SIGCHLD by default, no PMI*, PMIX*, OMPI_*, SLURM_STEP* in their environment, and no
 * descriptors but those of this file, of the windows, and `keep_fds`.
 * Bounds: ZYGOTE_PROCESSES_MAX processes; each costs the zygote one descriptor, the agent two.
 * Cost: spawn from a spare one message each way; a fork 0.1-0.3 ms, whatever the arena's size.
 * Threads: zygote_start from main; then all calls with `struct zygote` from one thread (the agent).
 */
#ifndef MORAY_NODE_ZYGOTE_H
#define MORAY_NODE_ZYGOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "base/error.h"

enum { ZYGOTE_PROCESSES_MAX = 4096, PROCESS_PAYLOAD_BYTES = 64 };

enum process_kind { PROCESS_WORKER, PROCESS_ACTOR, PROCESS_SPARE /* a worker without a core */ };

struct process_order { /* what a process is told when it starts; plain bytes */
    uint16_t slot;     /* in the arena */
    uint16_t kind;     /* enum process_kind */
    uint32_t incarnation;
    int32_t core; /* index into zygote_options.cores to be bound to; -1: the zygote's own mask */
    uint32_t reserved;
    _Alignas(8) unsigned char payload[PROCESS_PAYLOAD_BYTES]; /* the lead's: actor class, seed… */
};

struct topology_choice;

struct zygote_options {
    void (*enter)(void *context,
                  const struct process_order *order); /* the life of a process; when it
                                    returns, the process ends by process_end(0) */
    void *context;                                    /* for `enter`; inherited by the fork */
    const struct topology_choice *cores; /* what `order.core` counts in; NULL: nobody is bound */
    uint32_t spare_count;       /* processes to keep forked ahead without a slot; 0 = none */
    uint32_t process_count_max; /* 0 = min(RLIMIT_NPROC, pids.max) less a reserve, at most
                                       ZYGOTE_PROCESSES_MAX; beyond it spawn fails: ZYGOTE_FAILED */
    const int *keep_fds;        /* descriptors that stay open in all processes */
    uint32_t keep_fd_count;
    uint32_t rank; /* for messages */
};

enum zygote_event_kind {
    ZYGOTE_STARTED, /* pid, out_fd, err_fd: the caller owns the two (output_add takes them) */
    ZYGOTE_EXITED,  /* pid, status as of waitpid(), usage */
    ZYGOTE_FAILED,  /* the spawn could not be done: `error_number`; no ZYGOTE_EXITED follows */
    ZYGOTE_LOST,    /* the zygote itself is gone; the last event, told again at every call */
};

struct zygote_event {
    enum zygote_event_kind kind;
    uint16_t slot;
    uint32_t incarnation;
    pid_t pid;
    int status;
    int error_number;
    int out_fd, err_fd; /* -1 but in ZYGOTE_STARTED */
    struct rusage usage;
};

struct zygote;

/** Flushes all streams and forks the zygote; the child never returns from here.
 *  Owner: `*out` is the caller's until zygote_stop(). `options` is copied, what it points to is
 *  inherited by the fork as it is now.
 *  Errors: MORAY_SYSTEM, MORAY_NO_MEMORY, MORAY_INVALID; `*out` is NULL then.
 *  Threads: the main thread, after launch_check_fork() and window_open(); the main thread must live
 *  as long as the rank does (PDEATHSIG follows it). Makes the rank a child subreaper. */
MORAY_MUST_CHECK enum moray_code zygote_start(const struct zygote_options *options,
                                              struct zygote **out, struct moray_error *error);

/** The zygote's pid, which is its process group too. */
pid_t zygote_pid(const struct zygote *zygote);

/** Readable when zygote_next() has something: for the agent's epoll. Owner: the zygote's handle. */
int zygote_fd(const struct zygote *zygote);

/** Asks for a process; ZYGOTE_STARTED or ZYGOTE_FAILED answers, in order. A slot may be asked for
 *  again once ZYGOTE_EXITED told of its last process.
 *  Errors: MORAY_LOST (the zygote is gone), MORAY_INVALID. Never blocks: what finds its socket full is
 *  kept, and zygote_again() sends it. */
MORAY_MUST_CHECK enum moray_code
zygote_spawn(struct zygote *zygote, const struct process_order *order, struct moray_error *error);

/** Sends a signal to the process of {slot, incarnation}; nothing happens if it is gone already.
 *  A kill asked for right behind its spawn reaches the process. Errors: as zygote_spawn(). */
MORAY_MUST_CHECK enum moray_code zygote_kill(struct zygote *zygote, uint16_t slot,
                                             uint32_t incarnation, int signal,
                                             struct moray_error *error);

/** Hands a peer's arena to the zygote and, through it, to every process of this rank, now and later
 *  (window.h says how). `fd` is borrowed. Errors: as zygote_spawn(), and MORAY_BUSY. */
MORAY_MUST_CHECK enum moray_code zygote_pass_peer(struct zygote *zygote, uint32_t local_rank,
                                                  int fd, struct moray_error *error);

/** Sends what was kept; to be called now and then. Returns whether some is left. */
bool zygote_again(struct zygote *zygote);

/** The next event, if there is one; never blocks. */
bool zygote_next(struct zygote *zygote, struct zygote_event *event);

/** As zygote_next(), but waits up to `limit_ms`. For start, end and tests. */
bool zygote_wait(struct zygote *zygote, struct zygote_event *event, unsigned limit_ms);

/** Ends the zygote and everything below it by force, waits for it up to `limit_ms`, then kills it
 *  too; sweeps what is left of a zygote that is already dead; frees the handle. NULL is allowed.
 *  Returns whether all was gone within the limit. To end workers gently, tell them in the arena and
 *  wait for their ZYGOTE_EXITED first. Unread ZYGOTE_STARTED descriptors are closed. */
bool zygote_stop(struct zygote *zygote, unsigned limit_ms);

/* ---- Inside a worker or actor ---- */

/** This process's order; NULL in the rank and in the zygote. Static. Threads: any. */
const struct process_order *process_self(void);

/** Around a fork by the program (pthread_atfork): a child of a process has the signals that this one
 *  passes by at their defaults, also one that comes at once. No effect in the rank and the zygote. */
void process_forking(void);
void process_forked(bool is_child);

/** Whether the zygote is gone, so that this process should end at once: asked at every rescue of a
 *  sleep (1 s). Always false in the rank. Cost: two system calls. Threads: any. */
bool process_is_orphan(void);

/** Takes in the peers' descriptors that were passed to this process, until window `local_rank` is
 *  mapped or `limit_ms` passed. Returns at once if it is mapped.
 *  Errors: MORAY_TIMEOUT, MORAY_LOST (the zygote is gone), those of window_map_peer().
 *  Threads: any, serialised inside. In the rank itself it only looks. */
MORAY_MUST_CHECK enum moray_code process_attach(uint32_t local_rank, unsigned limit_ms,
                                                struct moray_error *error);

/** Flushes the streams and ends this process by _exit(status), without exit handlers. The caller
 *  runs the user's moray_at_worker_exit hooks before. */
_Noreturn void process_end(int status);

#endif
