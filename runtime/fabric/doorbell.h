/**
 * TCP connections between agents: they prove the job's secret, wake, and end when a process ends.
 *
 *     dialler                                  listener
 *        │── HELLO   who, to whom, nonce ────────▶│
 *        │◀─ ANSWER  nonce, proof over both ──────│   2 s from accept, or the connection is dropped
 *        │── PROOF   proof over both ────────────▶│
 *        ╞════ records, each with tag and number ═╡   end of stream: the rank is gone
 *
 * Both sides prove the secret before either believes a byte, each proof names the side that makes
 * it, and every connection has keys of its own (from both nonces), so nothing said on one passes on
 * another. Every rank dials rank 0 at start, others when they first have to do with each other. Two
 * ranks that dial each other at once have two connections, and both serve.
 * Bounds: records of at most DOORBELL_RECORD_MAX bytes; 8 KiB of records not yet taken by the kernel
 * a connection (above that doorbell_tell says MORAY_BUSY); 64 strangers at a time, more are closed at
 * once. Cost: 17 KiB and one descriptor a connection; a record is one send(2).
 * Threads: one caller at a time.
 */
#ifndef MORAY_FABRIC_DOORBELL_H
#define MORAY_FABRIC_DOORBELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DOORBELL_RECORD_MAX = 2048, DOORBELL_STRANGERS_MAX = 64, DOORBELL_STRANGER_MS = 2000 };

/** What a record says. The doorbell only carries it. */
enum doorbell_word {
    DOORBELL_BELL = 1, /* wake up: struct fabric_bell */
    DOORBELL_ASLEEP,   /* u64: frames had from you; ring before or after you send more */
    DOORBELL_READING,  /* I read from you: poll, do not sleep */
    DOORBELL_READ,     /* no more */
    DOORBELL_ADDRESS,  /* the provider's address */
    DOORBELL_FRAME,    /* a frame of a message, while libfabric is not ready for it */
    DOORBELL_LEAVING,  /* my end is clean: the end of the stream is no loss */
    DOORBELL_BEAT,     /* alive (heartbeats: nobody sends them yet) */
    DOORBELL_WANTED,   /* something for you waits for your provider's address */
    DOORBELL_HAD,      /* how many frames had you of me? and the answer, u64 */
};

struct doorbell_address {
    uint32_t ip;   /* IPv4, network order */
    uint16_t port; /* network order */
    uint16_t zero;
};

struct doorbell_options {
    uint32_t rank, rank_count;
    const uint8_t *secret;     /* AUTH_SECRET_BYTES; copied */
    uint32_t ip;               /* to listen on, network order; the port is the kernel's choice */
    uint32_t connect_limit_ms; /* for a dial and its handshake, with new tries */
};

struct doorbell_handler {
    void *context;
    void (*up)(void *context, uint32_t rank); /* proven; perhaps twice, for two connections */
    void (*record)(void *context, uint32_t rank, enum doorbell_word word, const void *bytes,
                   size_t count);
    /* The last proven connection to the rank ended, or dialling it was given up. */
    void (*end)(void *context, uint32_t rank, const char *reason);
    void (*refused)(void *context, const struct moray_error *error); /* a stranger, a bad record */
};

struct doorbell;

/** Listens. Owner: the caller, until doorbell_close(). Errors: MORAY_SYSTEM, MORAY_NO_MEMORY. */
MORAY_MUST_CHECK enum moray_code doorbell_open(const struct doorbell_options *options,
                                               struct doorbell **out, struct moray_error *error);

/** Closes all at once; what is not yet sent is lost. NULL is allowed. */
void doorbell_close(struct doorbell *doorbell);

/** Where this rank listens. */
struct doorbell_address doorbell_address(const struct doorbell *doorbell);

/** Learns where the others listen: rank_count addresses, copied. Before it nobody can be dialled. */
void doorbell_meet(struct doorbell *doorbell, const struct doorbell_address *addresses);

/** Sees to it that there is, or will be, a connection to the rank. The rest comes by the handler. */
void doorbell_dial(struct doorbell *doorbell, uint32_t rank);

/** Whether a proven connection to the rank stands. */
bool doorbell_up(const struct doorbell *doorbell, uint32_t rank);

/** Sends one record. Errors: MORAY_BUSY (no room now), MORAY_UNAVAILABLE (no proven connection). */
enum moray_code doorbell_tell(struct doorbell *doorbell, uint32_t rank, enum doorbell_word word,
                              const void *bytes, size_t count);

/** Tells LEAVING on each connection to the rank: where two dialled each other, the end of one may be
 *  seen before the other has proven itself there, and would be a loss. */
void doorbell_leave(struct doorbell *doorbell, uint32_t rank);

/** Looks at all sockets and deadlines; returns how much there was. */
size_t doorbell_poll(struct doorbell *doorbell, const struct doorbell_handler *handler);

/** To sleep on, EPOLLIN; the same for the doorbell's life. */
int doorbell_fd(const struct doorbell *doorbell);

/** Ends the connections to a rank, and does not take it in again. No `end` is told. */
void doorbell_drop(struct doorbell *doorbell, uint32_t rank);

/** Connections that have not proven themselves yet, for the tests. */
size_t doorbell_strangers(const struct doorbell *doorbell);

#endif
