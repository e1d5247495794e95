/**
 * What rank, zygote and processes say to each other; inside runtime/node only.
 *
 * All three are forks of one program, so messages are plain structs over SOCK_SEQPACKET pairs; the
 * kernel keeps their borders.
 */
#ifndef MORAY_NODE_ZYGOTE_INSIDE_H
#define MORAY_NODE_ZYGOTE_INSIDE_H

#include "node/wire.h"
#include "node/zygote.h"

enum wire_kind { WIRE_SPAWN, WIRE_KILL, WIRE_PEER, WIRE_STOP, WIRE_ORDER };

/* Rank to zygote: SPAWN, KILL, PEER (a descriptor), STOP. Zygote to process: ORDER, PEER. */
struct wire_request {
    uint32_t kind; /* enum wire_kind */
    int32_t signal;
    uint32_t local_rank;
    uint32_t reserved;
    struct process_order order; /* SPAWN, ORDER; of KILL only slot and incarnation */
};

/** What a zygote and its processes know from birth; filled in by zygote_start() before the fork. */
struct zygote_birth {
    struct zygote_options options;
    uint32_t process_count_max;
    pid_t rank_pid;
    int control; /* the zygote's end */
    int tether;  /* read end of the pipe whose only writer is the rank */
};

/** The zygote's life. Never returns. */
_Noreturn void zygote_main(const struct zygote_birth *birth);

/** The life of a process just forked by the zygote. `order` is NULL for one that waits for it. */
struct process_birth {
    const struct zygote_birth *zygote;
    pid_t zygote_pid;
    int socket, out_fd, err_fd;
    const struct process_order *order;
};
_Noreturn void process_main(const struct process_birth *birth);

/** Closes every descriptor above 2 but those listed (-1 entries are skipped), the windows' and the
 *  options' keep_fds. */
void descriptors_close_but(const struct zygote_options *options, const int *fds, uint32_t fd_count);

/** Kills and reaps the children of this process for which `is_ours` says so (NULL: all), and what
 *  comes up to it when they die, until none is left or `limit_ms` passed. Returns whether none is. */
bool children_sweep(bool (*is_ours)(void *context, pid_t pid), void *context, unsigned limit_ms);

#endif
