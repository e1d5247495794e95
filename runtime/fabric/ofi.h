/**
 * What the files of the libfabric carrier share: ofi.c (messages, reads), ofi_setup.c (discovery in a
 * thread of its own), ofi_memory.c (registration). Nobody else includes it.
 *
 *     begin ──▶ thread: fi_getinfo … fi_enable, receives posted ──▶ ready_fd ──▶ agent: joins the
 *     thread, watches the queue's descriptor, tells its address to every rank it is connected with
 *
 * Until `state` is READY (acquire) the endpoint's fields belong to the thread, after it to the agent.
 */
#ifndef MORAY_FABRIC_OFI_H
#define MORAY_FABRIC_OFI_H

#include <pthread.h>
#include <stdatomic.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_errno.h>
#include <rdma/fi_rma.h>

#include "fabric/inside.h"
#include "fabric/ofi_library.h"

enum {
    OFI_NAME_MAX = 256,     /* bytes of a provider's address */
    OFI_RECEIVE_COUNT = 32, /* frames that can come in at once; 2 MiB */
    OFI_REGIONS_MAX = 1024,
};

#define OFI_CONNECTED UINT64_MAX /* in stuck_ns: a frame has gone */

enum ofi_state { OFI_DISCOVERING, OFI_READY, OFI_FAILED };

/* What a context belongs to. The kind lies right behind it, in stream_slot and reads_piece too. */
enum ofi_kind { OFI_SEND = 1, OFI_RECEIVE, OFI_PIECE };

struct ofi_receive {
    uint64_t context[8];
    uint64_t kind;
    struct ofi_receive *next; /* in ofi.unposted */
    _Alignas(64) uint8_t frame[STREAM_FRAME_MAX + 24];
};

/* An address told before this rank's own discovery was done. */
struct ofi_name {
    size_t bytes;
    uint8_t data[];
};

/* A registered part of the arena. */
struct ofi_region {
    struct ofi_region *next;
    uint64_t offset, bytes;
    struct fid_mr *mr; /* NULL: promised under `key`, before discovery was done */
    uint64_t key;
    uint64_t used;  /* when last, by ofi.region_clock */
    uint32_t holds; /* windows exposed and not concealed; pieces that read into it */
};

struct ofi {
    struct fabric base;  /* first */
    _Atomic int state;   /* enum ofi_state; written by the thread, release */
    bool started;        /* the agent took over */
    atomic_bool closing; /* nobody needs what the thread discovers: read by it between its steps */
    pthread_t thread;
    bool thread_runs;
    int ready_fd;
    uint64_t open_ns, begin_ns; /* begin_ns: when discovery began; 0: it has not */
    struct moray_error failure;
    struct fi_info *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_av *av;
    struct fid_cq *cq;
    struct fid_ep *ep;
    uint8_t name[OFI_NAME_MAX];
    size_t name_bytes;
    fi_addr_t *addresses;    /* by rank; FI_ADDR_NOTAVAIL: not known (any more) */
    uint64_t *stuck_ns;      /* by rank: since when no frame goes; 0: none was refused yet */
    struct ofi_name **names; /* by rank; owned; NULL: none waits */
    bool *asked;             /* by rank: it was told WANTED */
    bool *by_door;           /* by rank: frames went by the doorbell, and may not be there yet */
    uint64_t *had_ns;        /* by rank: when it was last asked how many it had */
    struct ofi_receive *receives, *unposted;
    struct fid_mr *receives_mr;
    struct ofi_region *regions;
    uint32_t region_count;
    uint64_t region_clock;
};

static inline bool ofi_is_alive(const struct ofi *ofi, uint32_t rank)
{
    return ofi->base.ranks[rank].state == FABRIC_RANK_ALIVE;
}

/* Whether memory of ours must be registered before it is posted. */
static inline bool ofi_wants_descriptors(const struct ofi *ofi)
{
    return ofi->info->domain_attr->mr_mode & FI_MR_LOCAL;
}

/** Whether the endpoint is the agent's by now. */
bool ofi_is_working(const struct ofi *ofi);

/** Something for `rank` waits for libfabric: begins discovery, here and there. Called as often as
 *  it waits. */
void ofi_want(struct ofi *ofi, uint32_t rank);

/** Gives a rank up for what libfabric said (a positive fi_errno). */
void ofi_rank_fail(struct ofi *ofi, uint32_t rank, const char *what, int result);

/** Posts pieces while there are any and they go. */
void ofi_pieces_post(struct ofi *ofi);

/** Gives back what was registered for a piece. */
void ofi_piece_forget(struct ofi *ofi, struct reads_piece *piece);

/** fabric_expose() and fabric_conceal(). */
enum moray_code ofi_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                           struct fabric_window *window, struct moray_error *error);
void ofi_conceal(struct fabric *fabric, const struct fabric_window *window);

/** Starts the thread. */
enum moray_code ofi_setup_start(struct ofi *ofi, struct moray_error *error);

/** Joins the thread, if it runs. */
void ofi_setup_join(struct ofi *ofi);

/** Closes all that the thread has opened. */
void ofi_setup_close(struct ofi *ofi);

/** Posts a receive, or puts it among `unposted`. */
void ofi_receive_post(struct ofi *ofi, struct ofi_receive *receive);

/** Registers memory of ours; `access` as in fi_mr_reg. Returns 0 or a negative fi_errno. */
int ofi_register(struct ofi *ofi, const void *memory, size_t bytes, uint64_t access,
                 struct fid_mr **mr);

/** The region that holds [offset, offset + bytes), registered if need be, with one hold more.
 *  NULL: cannot be registered; `*failure` has the negative fi_errno. */
struct ofi_region *ofi_region_hold(struct ofi *ofi, uint64_t offset, uint64_t bytes, int *failure);
void ofi_region_drop(struct ofi *ofi, uint64_t key);
void ofi_regions_close(struct ofi *ofi);

/** Registers what was promised before discovery was done. Returns 0 or a negative fi_errno: a
 *  promise of keys and offsets is one that only providers without a will of their own can keep. */
int ofi_regions_keep(struct ofi *ofi);

#endif
