/**
 * Where arenas lie in every process of a host: one window a local rank, reserved before the fork.
 *
 *     rw_base                                     ro_base
 *     | window 0 | window 1 | … | window n-1 |    | window 0 | window 1 | … | window n-1 |
 *       each 1 << shift bytes, PROT_NONE until a memfd is mapped over its first `bytes` bytes
 *
 * A rank's own memfd is mapped twice: writable in the rw half, read-only in the ro half. A peer's is
 * mapped in the ro half, and in the rw half too only where its descriptor was handed over writable
 * (the head's driver). So reads of a peer's objects go through window_ro(), and a wild write to them
 * stops the writer. A reference is {window, offset}; the window is the owner's local rank, the same
 * number in all processes of the host. Addresses are the same in all processes of one rank (fork),
 * and, since every rank tries the same bases in the same order, nearly always in all ranks; nothing
 * depends on the latter.
 *
 * How peers reach the workers (they arrive after the fork):
 *     share -> agent: window_map_peer() in the rank -> zygote_pass_peer() -> the zygote maps the
 *     peer itself, so that every process forked later has it, and passes the descriptor on to every
 *     process that already runs; that one maps it in process_attach() (zygote.h), which it calls
 *     when it meets a window whose `bytes` is 0. No worker need be held back for the hand-over.
 *
 * Invariants: windows[i].bytes <= 1 << shift; bytes == 0 <=> nothing is mapped there; all memfds are
 * sealed against shrinking, so that no peer can take pages away from under a reader.
 * Threads: window_open and window_map_peer one caller at a time; reading from any thread; a window
 * is readable once its `bytes` (release) is not 0. A forked child inherits everything.
 * Cost: address <-> reference is 2-3 instructions on three words that never change.
 */
#ifndef MORAY_STORE_ARENA_WINDOW_H
#define MORAY_STORE_ARENA_WINDOW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { WINDOW_COUNT_MAX = 256 };

struct window {
    char *rw;             /* where its bytes lie writable; unmapped unless `writable` */
    const char *ro;       /* where they lie read-only */
    _Atomic size_t bytes; /* 0: nothing there */
    int fd;               /* the memfd; -1: nothing there. Owner: this table */
    bool writable;        /* own window, or a peer's handed over writable */
};

/** What the inline functions read; set by window_open(), then constant. */
struct window_map {
    uintptr_t rw_base, ro_base;
    uint32_t shift; /* a window has 1 << shift bytes of addresses */
    uint32_t count; /* windows: local ranks of the host; 0 before window_open() */
    uint32_t own;   /* this rank's */
    struct window windows[WINDOW_COUNT_MAX];
};
extern struct window_map window_map;

struct window_options {
    uint32_t local_rank, local_count;
    size_t bytes; /* of an arena, the same on all ranks of the host; 0 = window_default_bytes */
    size_t control_bytes; /* what lies before the data extents: kept in core dumps, no huge pages */
    bool no_arena;        /* reserve only: a head alone has no arena of its own */
    bool hugetlb;         /* ask for hugetlb pages. Off by default: buffers could then no longer end
                             at a 4 KiB guard page. Falls back silently where there are not enough */
};

enum window_pages { WINDOW_SMALL, WINDOW_TRANSPARENT, WINDOW_HUGETLB };

/** Reserves the windows and makes this rank's arena, all zero, nothing of it touched.
 *  Owner: the module; window_close() ends it.
 *  Errors: MORAY_INVALID for an arena larger than the memory limit (the story has size, limit, whose
 *  limit it is, and the settings to lower), for bad counts; MORAY_WRONG_STATE the second
 *  time; MORAY_SYSTEM where no base is free,
 *  or a limit of the process forbids so large a file. Nothing stays mapped then.
 *  Threads: main thread, before the fork. */
MORAY_MUST_CHECK enum moray_code window_open(const struct window_options *options,
                                             struct moray_error *error);

/** Maps a peer's memfd over its reservation; twice for the same rank is an error. In the process of
 *  a rank, in the zygote or in a worker alike.
 *  Owner: takes `fd` (also on failure: closes it).
 *  Errors: MORAY_INVALID (not a sealed memfd, larger than a window, own or unknown window),
 *  MORAY_EXISTS, MORAY_SYSTEM.
 *  Threads: one caller at a time. */
MORAY_MUST_CHECK enum moray_code window_map_peer(uint32_t local_rank, int fd, bool writable,
                                                 struct moray_error *error);

/** A new read-only descriptor of this rank's arena, to hand to peers; -1 and errno on failure.
 *  Owner: the caller. */
int window_read_only_fd(void);

/** Unmaps and closes everything; for tests and the very end. */
void window_close(void);

/** Bytes of memory this process may use: the least limit of its cgroups (v1 or v2, all levels), or
 *  the host's memory. `*whose` is "the cgroup's limit" or "the host's memory"; may be NULL. */
uint64_t window_memory_limit(const char **whose);

/** 30 % of the limit, divided by the local ranks, whole 2 MiB, at least 16 MiB. */
size_t window_default_bytes(uint32_t local_count);

/** Which pages the own arena has, as the kernel's settings promise. */
enum window_pages window_pages(void);

/** The window of a local rank; its `bytes` is 0 where nothing is mapped yet. `local_rank` < count. */
static inline const struct window *window_of(uint32_t local_rank)
{
    return &window_map.windows[local_rank];
}

/** The bytes mapped of a window, with acquire: not 0 means that it may be read. Any number allowed. */
static inline size_t window_bytes(uint32_t window)
{
    return window < window_map.count
               ? atomic_load_explicit(&window_map.windows[window].bytes, memory_order_acquire)
               : 0;
}

/** Address of {window, offset}; unchecked: both must be valid. */
static inline void *window_rw(uint32_t window, uint64_t offset)
{
    return (void *)(window_map.rw_base + ((uintptr_t)window << window_map.shift) + offset);
}
static inline const void *window_ro(uint32_t window, uint64_t offset)
{
    return (const void *)(window_map.ro_base + ((uintptr_t)window << window_map.shift) + offset);
}

/** The reference of an address in either half; false where it lies in no window. */
static inline bool window_find(const void *address, uint32_t *window, uint64_t *offset)
{
    uintptr_t span = (uintptr_t)window_map.count << window_map.shift;
    uintptr_t at = (uintptr_t)address - window_map.rw_base;

    if (at >= span) {
        at = (uintptr_t)address - window_map.ro_base;
        if (at >= span)
            return false;
    }
    *window = (uint32_t)(at >> window_map.shift);
    *offset = at & (((uintptr_t)1 << window_map.shift) - 1);
    return true;
}

/** Whether an address lies in the read-only half, mapped or not. */
static inline bool window_is_ro(const void *address)
{
    return (uintptr_t)address - window_map.ro_base < (uintptr_t)window_map.count
                                                         << window_map.shift;
}

/** The read-only twin of a writable address of the same window, and back; unchecked. */
static inline const void *window_ro_of(const void *rw)
{
    return (const void *)((uintptr_t)rw - window_map.rw_base + window_map.ro_base);
}
static inline void *window_rw_of(const void *ro)
{
    return (void *)((uintptr_t)ro - window_map.ro_base + window_map.rw_base);
}

#endif
