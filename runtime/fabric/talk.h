/**
 * What is said on one connection of the doorbell, and whether it is proven: no socket, no clock.
 *
 *     dialler   ANSWER ──answer is right──▶ UP        (sends HELLO, then PROOF)
 *     listener  HELLO ──▶ PROOF ──proof is right──▶ UP   (sends ANSWER)
 *
 * Bytes come into `in`, go out of `out`; who owns the connection moves them. After UP `in` holds
 * records, each with a tag and the next number of its direction; a record that is not proven ends
 * the connection.
 * Threads: one caller at a time a talk.
 */
#ifndef MORAY_FABRIC_TALK_H
#define MORAY_FABRIC_TALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fabric/auth.h"
#include "fabric/doorbell.h"

enum { TALK_IN_BYTES = 8192, TALK_OUT_BYTES = 8192 };

enum talk_state { TALK_ANSWER, TALK_HELLO, TALK_PROOF, TALK_UP };

struct talk_hello {
    uint32_t magic, version, from, to;
    uint8_t nonce[AUTH_NONCE_BYTES];
};

struct talk {
    enum talk_state state;
    bool dialled;
    uint32_t me, rank; /* the peer; the listener knows it from PROOF on */
    struct { /* what both said; a proof covers it with the name of the side that makes it */
        struct talk_hello hello;
        uint8_t nonce[AUTH_NONCE_BYTES]; /* the listener's */
    } said;
    struct auth_key out_key, in_key;
    uint64_t out_sequence, in_sequence;
    size_t in_count, out_count;
    uint8_t in[TALK_IN_BYTES], out[TALK_OUT_BYTES];
};

/** Begins as the one who dialled `rank`: HELLO stands in `out`. */
void talk_dial(struct talk *talk, uint32_t me, uint32_t rank);

/** Begins as the one who was dialled. */
void talk_listen(struct talk *talk, uint32_t me);

/** Takes the next step of the handshake, if its bytes are there. Returns NULL, or why the other side
 *  is refused. `*moved` tells whether there was a step: look again. */
const char *talk_step(struct talk *talk, const uint8_t *secret, uint32_t rank_count, bool *moved);

/** The first record in `in`, proven, copied to `data` (room for DOORBELL_RECORD_MAX).
 *  Returns 1, 0: not whole yet, -1: not proven. */
int talk_take(struct talk *talk, enum doorbell_word *word, void *data, size_t *count);

/** Puts a record into `out`. False: no room now. */
bool talk_put(struct talk *talk, enum doorbell_word word, const void *bytes, size_t count);

#endif
