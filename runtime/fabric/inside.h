/**
 * What fabric.c and the implementations (ofi.c, mpi.c) share; nobody else includes it.
 *
 * fabric.c owns the ranks' states, the doorbell, the sleep and the telling of losses; an
 * implementation moves frames (of fabric->stream) and pieces (of fabric->reads). Its struct begins
 * with a struct fabric.
 *
 * Sleep and bells, for a fabric without a descriptor (mpi), exact and not by time:
 *     a frame to a peer not `believed_awake` rings; a bell says "once" or "keep".
 *     once: the sender rings with the next frame again. Nothing else is said: a question and its
 *         answer cost a bell each.
 *     keep: sent when bells follow each other as fast as a stream. The sender believes the peer awake
 *         until its ASLEEP(had). On ASLEEP with had < frames posted to it, it rings again: those
 *         frames were under way. The sleeper tells ASLEEP(frames had) to each peer that rang "keep"
 *         since its last sleep, then sleeps.
 * So a frame posted while the sender believes too long in a waking peer costs one more bell, and
 * none is lost.
 * A bell also says how many frames were posted by then: who was told of some that it does not have
 * does not sleep, for a long message moves only while both sides look at it.
 */
#ifndef MORAY_FABRIC_INSIDE_H
#define MORAY_FABRIC_INSIDE_H

#include "base/time.h"
#include "fabric/address.h"
#include "fabric/doorbell.h"
#include "fabric/fabric.h"
#include "fabric/reads.h"
#include "fabric/stream.h"

enum fabric_rank_state { FABRIC_RANK_ALIVE, FABRIC_RANK_ENDING, FABRIC_RANK_LOST };

struct fabric_rank {
    enum fabric_rank_state state; /* ENDING: known here, not yet told */
    bool leaving;                 /* said LEAVING: its end is clean */
    bool believed_awake;
    uint32_t quick_bells; /* in a row */
    uint64_t bell_ns;     /* the last one */
    bool bell_wanted;     /* ring it once its connection is up */
    bool rang;            /* since our last ASLEEP to it: it stands in fabric.rang */
    bool reading;         /* said READING and not READ */
    uint64_t told;        /* frames that it had posted to us at its last bell */
    bool owing;           /* some of them are on their way: it stands in fabric.owing */
    char reason[192];
};

struct fabric_bell { /* a BELL's record */
    uint64_t posted; /* frames, so far */
    uint64_t keep;   /* not 0: tell me when you sleep again */
};

struct fabric {
    const struct fabric_ops *ops;
    struct fabric_options options; /* zeros replaced; secret and bootstrap gone */
    uint8_t secret[FABRIC_SECRET_BYTES];
    uint32_t ip; /* this rank's, network order */
    struct stream *stream;
    struct reads *reads;
    struct doorbell *doorbell;
    struct fabric_rank *ranks;
    uint32_t *ending, ending_count; /* ranks in state ENDING, in the order they ended */
    uint32_t *rang, rang_count;     /* ranks with `rang` */
    uint32_t *owing, owing_count;   /* ranks with `owing` */
    uint32_t reading_count;         /* ranks with `reading` */
    struct fabric_counts counts;
    int epoll_fd, timer_fd;
    struct time_awake awake;
    uint64_t awake_ns;                    /* at the last poll, on a clock that stands as we do */
    uint64_t doorbell_ns;                 /* when the doorbell was last looked at */
    uint32_t heard;                       /* in this look at it, bells apart */
    bool door_waits;                      /* it may have rung: what came went first */
    bool naps;                            /* the timer is set */
    uint64_t asleep_ns;                   /* when fabric_may_sleep() last said yes; 0: awake */
    uint64_t reading_ns;                  /* when a peer last said READING */
    uint64_t owing_ns;                    /* when one last rang that owes us frames */
    uint64_t suspect_ns;                  /* when frames came and no bell yet; 0: no such */
    uint32_t refused_told;                /* causes told so far */
    const struct fabric_handler *handler; /* while fabric_poll() runs */
    char text[160];
};

/** One implementation. All are set but wanted, had, slot_made and slot_freed, which may be NULL. */
struct fabric_ops {
    const char *name; /* "ofi", "mpi" */
    size_t bytes;     /* of its struct */
    bool needs_bells; /* no descriptor tells of its messages */
    /* The fabric is whole but for the carrier; collective where MPI is. */
    enum moray_code (*open)(struct fabric *fabric, struct moray_error *error);
    /* Posts what waits, as far as it goes now: frames to `rank` alone, or UINT32_MAX for all, and
       pieces. */
    void (*post)(struct fabric *fabric, uint32_t rank);
    size_t (*poll)(struct fabric *fabric);
    enum moray_code (*expose)(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                              struct fabric_window *window, struct moray_error *error);
    void (*conceal)(struct fabric *fabric, const struct fabric_window *window);
    /* Whether a window that `rank` told can be one; NULL: the provider looks itself. */
    bool (*reaches)(const struct fabric *fabric, uint32_t rank, const struct fabric_window *window);
    bool (*may_sleep)(struct fabric *fabric);
    bool (*ready)(const struct fabric *fabric);
    /* A connection of the doorbell came up; the peer's provider has this address. */
    void (*up)(struct fabric *fabric, uint32_t rank);
    void (*address)(struct fabric *fabric, uint32_t rank, const void *bytes, size_t count);
    /* The peer has something for us that waits for our address; NULL: there is no such. */
    void (*wanted)(struct fabric *fabric, uint32_t rank);
    /* The peer has had so many of our frames. */
    void (*had)(struct fabric *fabric, uint32_t rank, uint64_t frames);
    void (*fence)(struct fabric *fabric, uint32_t rank);
    /* Undoes open. Returns whether it ended as clean as it was asked to. */
    bool (*close)(struct fabric *fabric, bool clean);
    enum moray_code (*slot_made)(void *fabric, struct stream_slot *slot, size_t bytes);
    void (*slot_freed)(void *fabric, struct stream_slot *slot);
};

extern const struct fabric_ops fabric_ofi, fabric_mpi;

uint64_t fabric_now_ns(void);

/** Marks a rank as lost, or as left if it said so: fabric_poll() tells it at its end. Once a rank;
 *  later calls do nothing. */
void fabric_ending(struct fabric *fabric, uint32_t rank, const char *reason);

/** Rings unless the rank is believed awake; connects first if need be. */
void fabric_ring(struct fabric *fabric, uint32_t rank);

/** Counts what was refused, and tells the handler while it is news. */
void fabric_refuse(struct fabric *fabric, const struct moray_error *error);

/** Gives a frame to the stream; a peer whose messages cannot be kept is given up. */
void fabric_receive(struct fabric *fabric, const void *frame, size_t bytes);

/** Wakes fabric_fd() after `ns`, once: for work that no descriptor tells of. */
void fabric_nap(struct fabric *fabric, uint64_t ns);

/** Adds a descriptor (EPOLLIN) to those that fabric_fd() stands for. */
MORAY_MUST_CHECK enum moray_code fabric_watch(struct fabric *fabric, int fd,
                                              struct moray_error *error);

/** Whether the options name a provider that may be used (ofi_setup.c).
 *  Errors: MORAY_INVALID: shm, net, udp and sockets, alone or below another, without
 *  `provider_forced`. */
MORAY_MUST_CHECK enum moray_code fabric_provider_check(const struct fabric_options *options,
                                                       struct moray_error *error);

#endif
