/**
 * Random numbers that depend on the seed alone: ChaCha20 streams of libsodium, one for each purpose
 * and index, so no stream depends on who drew from another one before.
 * Threads: any, after sodium_init().
 */
#ifndef TRAIN_RANDOM_H
#define TRAIN_RANDOM_H

#include <stddef.h>
#include <stdint.h>

enum random_purpose { RANDOM_IMAGES, RANDOM_PARTS, RANDOM_WEIGHTS };

/** Fills `bytes` with the stream of (seed, purpose, index). */
void random_fill(uint64_t seed, enum random_purpose purpose, uint64_t index, void *bytes,
                 size_t size);

/** Writes a permutation of 0 … count - 1.
 *  Errors: -1 without memory, told to the user. */
int random_order(uint64_t seed, enum random_purpose purpose, uint64_t index, uint32_t *order,
                 uint32_t count);

#endif
