/**
 * Proof of the job's secret: keys for each direction of each pair of ranks, and tags over bytes.
 *
 *     secret (32 bytes, one a job) ──derive(label, from, to, salt)──▶ key (16 bytes) ──▶ tag (16 bytes)
 *
 * Derivation and handshake use libsodium's keyed BLAKE2b, frames its SipHash-2-4 with 128 bits: a
 * MAC for short-lived keys that costs about 1 ns for each 2 bytes. A direction has a key of its own,
 * so a frame sent back to its sender proves nothing. What refuses replays is the sequence number
 * under the tag: stream.c and doorbell.c each count.
 * Bytes are proven, not hidden: who can listen on the network reads them (README).
 * Threads: any; nothing here keeps state.
 */
#ifndef MORAY_FABRIC_AUTH_H
#define MORAY_FABRIC_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { AUTH_SECRET_BYTES = 32, AUTH_TAG_BYTES = 16, AUTH_PROOF_BYTES = 32, AUTH_NONCE_BYTES = 16 };

struct auth_key {
    uint8_t bytes[16];
};

/** Readies libsodium; call it once before the others.
 *  Errors: MORAY_SYSTEM (no source of random bytes). */
MORAY_MUST_CHECK enum moray_code auth_start(struct moray_error *error);

/** Fills `bytes` with random ones from the kernel. */
void auth_random(void *bytes, size_t count);

/** The key of one direction: what `from` sends to `to` under `label`; `salt` may be empty. */
void auth_derive(const uint8_t *secret, const char *label, uint32_t from, uint32_t to,
                 const void *salt, size_t salt_bytes, struct auth_key *out);

/** The proof that its maker knows the secret, over everything both sides of a handshake said. */
void auth_prove(const uint8_t *secret, const char *label, const void *said, size_t said_bytes,
                uint8_t proof[AUTH_PROOF_BYTES]);

/** Whether two proofs are equal, in a time that does not depend on where they differ. */
bool auth_proof_equal(const uint8_t a[AUTH_PROOF_BYTES], const uint8_t b[AUTH_PROOF_BYTES]);

/** Writes the tag of `count` bytes. */
void auth_tag(const struct auth_key *key, const void *bytes, size_t count,
              uint8_t tag[AUTH_TAG_BYTES]);

/** Whether `tag` is the tag of the bytes; in constant time, as above. */
bool auth_check(const struct auth_key *key, const void *bytes, size_t count,
                const uint8_t tag[AUTH_TAG_BYTES]);

#endif
