/**
 * Ranks of one host hand each other descriptors: the arena, and eventfds for doorbells.
 *
 *     local rank j connects to every i < j:
 *       j -> i   HELLO      from, to, nonce of j
 *       i -> j   CHALLENGE  nonce of i, MAC(secret, "i proves", both nonces, from, to, node)
 *       j -> i   PROOF      MAC(secret, "j proves", …), offer of j + descriptors
 *       i -> j   OFFER      offer of i + descriptors
 *
 * Two ranks share only if the launcher put them on one node (both names come from it: node_key is in
 * the socket's name and under the MAC) and this exchange worked: neither alone will do (decisions.md,
 * 7). Every end checks SO_PEERCRED (same user) before it reads a byte, and the MAC before it sends a
 * descriptor. The socket is abstract: no file; its name carries job, node, local rank and a hash keyed
 * by the secret, so nobody else can take it beforehand. A connection that misbehaves, or is slow, is
 * dropped; so is one more for a rank that is already done.
 * The arena goes out read-only, but to the local rank named in `writable_to`.
 * The connection stays open as `link_fd`: it ends (EPOLLHUP) when the peer's process does.
 * Threads: one caller at a time. Nothing blocks but share_exchange().
 */
#ifndef MORAY_NODE_SHARE_H
#define MORAY_NODE_SHARE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "node/launch.h"

enum { SHARE_EXTRA_MAX = 4, SHARE_NOTE_BYTES = 128 };
#define SHARE_NOBODY UINT32_MAX

struct share_options {
    const struct launch *launch; /* job, node_key, local_rank, local_count; copied */
    const uint8_t *secret;       /* LAUNCH_SECRET_BYTES; copied, wiped at share_close() */
    int arena_fd;                /* writable descriptor of the arena, -1: none to offer. Borrowed */
    uint32_t writable_to;        /* the local rank that gets it writable; SHARE_NOBODY */
    int extra[SHARE_EXTRA_MAX];  /* more descriptors for everyone (eventfds). Borrowed */
    uint32_t extra_count;
    unsigned char note[SHARE_NOTE_BYTES]; /* plain bytes for everyone: rank, flags, sizes… */
    unsigned limit_ms;                    /* for the whole exchange; 0 = 2000 */
};

struct share_peer { /* one rank that proved itself */
    uint32_t local_rank;
    pid_t pid;     /* from SO_PEERCRED */
    int arena_fd;  /* -1: it has none. Owner of all descriptors: whoever called share_next() */
    bool writable; /* arena_fd is writable */
    int extra[SHARE_EXTRA_MAX];
    uint32_t extra_count;
    unsigned char note[SHARE_NOTE_BYTES];
    int link_fd; /* ends with the peer's process */
};

struct share;

/** Listens, and begins to connect; returns at once.
 *  Owner: `*out` is the caller's until share_close(). The descriptors offered must stay open till then.
 *  Errors: MORAY_SYSTEM, MORAY_INVALID, MORAY_EXISTS (another process has the name). */
MORAY_MUST_CHECK enum moray_code share_open(const struct share_options *options, struct share **out,
                                            struct moray_error *error);

/** An epoll descriptor: readable when share_step() has something to do. */
int share_fd(const struct share *share);

/** Goes on as far as it can without waiting. Returns whether the exchange is over: all peers are
 *  there, or the limit passed. `now_ns`: CLOCK_MONOTONIC. */
bool share_step(struct share *share, uint64_t now_ns);

/** When share_step() must be called though share_fd() is quiet; UINT64_MAX: not at all. */
uint64_t share_next_ns(const struct share *share);

/** Takes the next peer that is there; false: none. */
bool share_next(struct share *share, struct share_peer *peer);

/** How many peers have not shown up; `text` (may be NULL) gets which, and the last reason. */
uint32_t share_missing(const struct share *share, char *text, size_t text_bytes);

/** Steps until the exchange is over. Errors: MORAY_TIMEOUT, naming who is missing (those that are
 *  there can be taken all the same). */
MORAY_MUST_CHECK enum moray_code share_exchange(struct share *share, struct moray_error *error);

/** Stops listening, closes what nobody took, wipes the secret. NULL is allowed. */
void share_close(struct share *share);

#endif
