/**
 * The hash of a type's text, as moray.h's MORAY_HASH computes it at compile time.
 * FNV-1a over the first 64 bytes; the lowest bit is always set, so that 0 means "no type".
 * Threads: any.
 */
#ifndef MORAY_BASE_HASH_H
#define MORAY_BASE_HASH_H

#include <stdint.h>

enum { HASH_TYPE_BYTES_MAX = 64 };

static inline uint32_t hash_type(const char *text)
{
    uint32_t hash = 2166136261u;

    for (int i = 0; i < HASH_TYPE_BYTES_MAX && text[i]; i++)
        hash = (hash ^ (unsigned char)text[i]) * 16777619u;
    return hash | 1u;
}

#endif
