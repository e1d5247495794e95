/**
 * What crosses ranks: messages, one-sided reads between arenas, and the news of a lost rank.
 *
 *     agent ──fabric_send──▶ stream (frames, order, MAC) ──▶ ofi: fi_send    mpi: MPI_Isend
 *       │ ──fabric_read──▶ pieces, several in flight      ──▶ ofi: fi_read    mpi: MPI_Rget
 *       │                                                      doorbell: TCP between agents
 *       ◀──fabric_poll── message · read_done · lost · refused · failed
 *
 * One interface, two tables of functions (struct fabric_ops, fabric/inside.h): ofi.c (libfabric;
 * tcp;ofi_rxm unless told otherwise) and mpi.c (two-sided messages, data by a window over the arena).
 * The simulator is one more table.
 * Beside either stands the doorbell: TCP connections that prove the job's secret both ways, that wake
 * a rank asleep, carry libfabric's addresses, and end when a process ends, so that a killed rank is
 * noticed within milliseconds. Rank 0 has one to every rank from the start; others come with the
 * first message between two ranks.
 *
 * Invariants:
 *     messages of one rank to another arrive whole, once, in the order of the sends, or not at all;
 *     a read tells its end exactly once, and until then its buffer belongs to the fabric;
 *     a rank is lost once, and after that nothing of it arrives: its reads have ended, with
 *     MORAY_LOST, before `lost` is called, but for those whose bytes may still come (see read_done).
 * Bounds: a message has 1 byte to 1 MiB; a peer has at most in_flight_bytes_max not yet sent, above
 * that fabric_send says MORAY_BUSY and the caller polls and tries again.
 *
 * How the agent's loop uses it:
 *     while (fabric_poll(f, &handler) > 0) {}              // work while there is some
 *     … poll some 20-50 µs more, where decisions.md 18 allows it …
 *     if (fabric_may_sleep(f)) epoll_wait(… fabric_fd(f) …, at most 1000 ms);
 * After an epoll_wait comes a fabric_poll(), at once if fabric_fd() ended it; if something else did, what
 * it brought may be done first, and the caller may sleep again.
 * A target takes part in the reads of others: over TCP nothing is passive. With ofi its descriptor
 * wakes it; with MPI the reader says "begin" and "end" over the doorbell, and between the two
 * fabric_may_sleep() of the target is false. So a source need not know what it granted.
 *
 * Threads: one thread, the one that called MPI_Init_thread(FUNNELED), calls everything here;
 * fabric_environment() before any thread exists. Handlers run inside fabric_poll() and may call all
 * but fabric_poll() and fabric_close().
 * Cost: a message is one copy, one MAC, no allocation in steady state; a poll that finds nothing
 * 0.3 µs (ofi), 0.1-0.5 µs (mpi), no system call of ours but every 20 µs.
 */
#ifndef MORAY_FABRIC_FABRIC_H
#define MORAY_FABRIC_FABRIC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum {
    FABRIC_MESSAGE_BYTES_MAX =
        (2 << 20) + 3 * 65536, /* the longest message: two values of 1 MiB, and whose */
    FABRIC_SECRET_BYTES = 32,
};

struct fabric;

enum fabric_kind { FABRIC_OFI, FABRIC_MPI };

/** What the ranks need of each other before they have a fabric; the agent makes it of MPI
 *  collectives on MPI_COMM_WORLD. Called a fixed number of times in fabric_open(), on every rank
 *  alike, also on a rank whose own opening has failed, so that none waits for it in vain. */
struct fabric_bootstrap {
    void *context; /* borrowed during fabric_open() */
    /* `all` gets `bytes` of every rank, in the order of ranks. */
    enum moray_code (*allgather)(void *context, const void *mine, size_t bytes, void *all);
    /* `data` of `root` is copied to all. */
    enum moray_code (*broadcast)(void *context, uint32_t root, void *data, size_t bytes);
};

struct fabric_options { /* zeros are the defaults */
    enum fabric_kind kind;
    uint32_t rank, rank_count; /* rank_count at least 2: one rank opens no fabric */
    bool one_host;             /* the launcher put all ranks on one host: loopback will do */
    const char *interface; /* name ("eth0"), IPv4 address or network ("10.1.0.0/16") to listen on
                                   and publish; NULL: the first network that all ranks share,
                                   loopback if one_host */
    const char *provider;  /* libfabric's; NULL: "tcp;ofi_rxm" */
    bool provider_forced;  /* take shm, net, udp as well, which lose deaths or cannot sleep */
    void *arena;           /* this rank's arena, writable: what reads address and read into */
    size_t arena_bytes;    /* 0: this rank exposes nothing */
    const uint8_t *secret; /* FABRIC_SECRET_BYTES, the same everywhere; NULL: rank 0 makes one
                                  and `bootstrap` broadcasts it */
    size_t in_flight_bytes_max; /* unsent bytes a peer; 0: 8 MiB */
    size_t read_piece_bytes;    /* a read's piece; 0: 1 MiB (ofi), 4 MiB (mpi) */
    uint32_t read_pieces_max;   /* pieces in flight; 0: 8 (ofi), 4 (mpi) */
    uint32_t connect_limit_ms;  /* a rank not reached within it is lost; 0: 10 s */
    struct fabric_bootstrap bootstrap;
};

/** What fabric_poll() tells. All must be set. */
struct fabric_handler {
    void *context;
    /* A whole, proven message; `bytes` is borrowed until the call returns, aligned to 8. */
    void (*message)(void *context, uint32_t rank, const void *bytes, size_t count);
    /* A read ended: MORAY_OK, or MORAY_LOST with the rank. The buffer is the caller's again; only
       if `posted`, a provider that a cut-off rank left hanging may still write into it: keep it out
       of use until fabric_close(). */
    void (*read_done)(void *context, uint64_t cookie, enum moray_code code, bool posted);
    /* The rank is gone: its doorbell ended, it could not be reached, or fabric_fence() said so.
       Once a rank; `reason` is borrowed. A rank that closed clean is `left` and no failure. */
    void (*lost)(void *context, uint32_t rank, bool left, const char *reason);
    /* Something not authentic came and was dropped (MORAY_PROTOCOL). Told once a cause, counted
       always; for the log. */
    void (*refused)(void *context, const struct moray_error *error);
    /* The fabric as a whole cannot work (no such provider…): end the job with this story. Once. */
    void (*failed)(void *context, const struct moray_error *error);
};

/** Leave to read a range of a rank's arena: goes into a grant message as these 24 bytes. The key is
 *  random where the provider lets us choose it: tell it only to the rank that shall read. */
struct fabric_window {
    uint64_t address; /* the provider's: opaque */
    uint64_t key;
    uint64_t bytes; /* length of the range */
};

struct fabric_counts { /* since fabric_open() */
    uint64_t messages_sent, bytes_sent, frames_sent;
    uint64_t messages_received, bytes_received;
    uint64_t reads, read_bytes;
    uint64_t refused;  /* dropped: wrong MAC, replayed, malformed, or a stranger at the door */
    uint64_t bells;    /* rung by us */
    uint64_t rescues;  /* found after a sleep that no bell ended: a lost bell; tests demand 0 */
    uint64_t lost;     /* ranks */
    uint64_t begun_ns; /* how long after the opening discovery began; 0: it has not */
    uint64_t ready_ns; /* how long it took; 0 until it has ended */
};

/** Sets, where the user has not, the variables that Open MPI and libfabric read once: OMPI_MCA_pml
 *  and osc, FI_PROVIDER, FI_OFI_RXM_*. `provider` as in the options.
 *  Threads: before MPI_Init and before any second thread (setenv). */
void fabric_environment(const char *provider);

/** Opens the fabric and returns at once: libfabric's discovery goes on in a thread of its own, from
 *  when something needs it, at either end, or after 0.1 s. Until it ends messages of up to 2000 bytes
 *  go over the doorbell; longer ones and reads wait.
 *  Collective through `bootstrap`: 3 calls with ofi, and the making of a communicator and a window
 *  more with MPI.
 *  Owner: the caller, until fabric_close(). `options` is copied, the arena borrowed until close.
 *  Errors: MORAY_INVALID (an option; a refused provider), MORAY_SYSTEM (interface, sockets),
 *  MORAY_NO_MEMORY, MORAY_FAILED (another rank failed: named). Then `*out` is NULL. */
MORAY_MUST_CHECK enum moray_code fabric_open(const struct fabric_options *options,
                                             struct fabric **out, struct moray_error *error);

/** Ends it. `clean`: all ranks close now and none is lost; what was sent is flushed and the others
 *  are told "left", within 4 s; messages that still come are dropped. Not clean: nothing is waited
 *  for. NULL is allowed.
 *  Returns whether MPI_Finalize may follow: all ranks were there to the end. If not, nobody calls
 *  it, for it would hang. */
bool fabric_close(struct fabric *fabric, bool clean);

/** Queues one message, copied. Order is kept for each pair of ranks.
 *  Errors: MORAY_BUSY (in_flight_bytes_max reached: poll, then try again), MORAY_LOST (the rank is
 *  lost or left), MORAY_INVALID (size, own rank, no such rank), MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code fabric_send(struct fabric *fabric, uint32_t rank,
                                             const void *bytes, size_t count);

/** Makes progress and tells what came. Returns how much was done; 0: nothing was there. */
size_t fabric_poll(struct fabric *fabric, const struct fabric_handler *handler);

/** Lets others read [offset, offset + bytes) of this rank's arena, and writes what they need for it.
 *  The extents around it are registered on first use and stay so.
 *  Owner: each expose is undone by one fabric_conceal() with the same window, after the reader's
 *  word or its death; only then may the registration be given up.
 *  Errors: MORAY_INVALID (not in the arena), MORAY_BUSY (discovery of a provider other than tcp
 *  is under way: poll and try again), MORAY_FULL (cannot be registered: send the bytes as
 *  messages). */
MORAY_MUST_CHECK enum moray_code fabric_expose(struct fabric *fabric, uint64_t offset,
                                               uint64_t bytes, struct fabric_window *window,
                                               struct moray_error *error);
void fabric_conceal(struct fabric *fabric, const struct fabric_window *window);

/** Reads `bytes` from `offset` on in the window that `rank` granted into `local`, which lies in this
 *  rank's arena or in any other memory. Any size; read_done(cookie) tells the end.
 *  Errors: MORAY_INVALID (beyond the window, or that beyond the arena; own rank; no bytes), MORAY_LOST, MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code fabric_read(struct fabric *fabric, uint32_t rank,
                                             const struct fabric_window *window, uint64_t offset,
                                             void *local, uint64_t bytes, uint64_t cookie);

/** Whether the caller may sleep on fabric_fd() now; false: poll again. True also tells the others
 *  that bells are needed, so sleep or poll at once, and do not ask for curiosity. */
bool fabric_may_sleep(struct fabric *fabric);

/** Whether it has not been polled since fabric_may_sleep() last said yes: while fabric_fd() tells of
 *  nothing, nothing has come. */
bool fabric_is_asleep(const struct fabric *fabric);

/** The one descriptor to sleep on (EPOLLIN), the same from open to close: an epoll of the provider's
 *  descriptor, the doorbell's sockets and a timer. */
int fabric_fd(const struct fabric *fabric);

/** Wakes the agent of `rank` from its sleep, whatever it sleeps for; connects first if need be. */
void fabric_wake(struct fabric *fabric, uint32_t rank);

/** Gives a rank up, by the caller's own judgement (silence, a pidfd): as if its doorbell had ended.
 *  The next fabric_poll() tells `lost` with `reason` (copied, 191 bytes). */
void fabric_fence(struct fabric *fabric, uint32_t rank, const char *reason);

/** Whether discovery has ended, so that long messages and reads move. */
bool fabric_ready(const struct fabric *fabric);

/** Sleeping ranks that were rung so far. */
uint64_t fabric_bells(const struct fabric *fabric);

/** Copies the counts. */
void fabric_counts(const struct fabric *fabric, struct fabric_counts *counts);

/** "ofi, tcp;ofi_rxm on 10.0.0.1" or the like, for the line that is printed at start; borrowed. */
const char *fabric_text(const struct fabric *fabric);

#endif
