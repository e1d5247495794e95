/**
 * A hash map from 64-bit keys to 64-bit values: open addressing, linear probing, no tombstones.
 *
 *     cells  [ -  | 12:7 | 44:1 | -  | 9:3 | ... ]     a power of two, at most 3/4 full
 *
 * Any key but MAP_NO_KEY. A removal moves later cells of its run up, so look-ups never slow down with
 * time. The order of a walk depends on the history of insertions only, never on addresses.
 * Pure: calls malloc and free alone.
 * Threads: one caller at a time. Cost: a look-up reads one or two cells of 16 bytes.
 */
#ifndef MORAY_BASE_MAP_H
#define MORAY_BASE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAP_NO_KEY UINT64_MAX

struct map_cell {
    uint64_t key; /* MAP_NO_KEY: the cell is free */
    uint64_t value;
};

struct map {                /* all zeros: empty, and owns nothing */
    struct map_cell *cells; /* owned; NULL while the capacity is 0 */
    size_t capacity;        /* 0 or a power of two */
    size_t used;            /* keys; 4 * used <= 3 * capacity */
};

/** Makes room for `extra` more keys, so that map_set() cannot fail. Errors: false if there is no
 *  memory; nothing changed. */
bool map_reserve(struct map *map, size_t extra);

/** Sets the value of a key, new or not. Errors: false if there is no memory; nothing changed. */
bool map_set(struct map *map, uint64_t key, uint64_t value);

/** The value's place, or NULL. Valid until the next change of the map; may be written through. */
uint64_t *map_get(const struct map *map, uint64_t key);

/** Takes a key out. Returns whether it was there; its value in `*value` (may be NULL). */
bool map_remove(struct map *map, uint64_t key, uint64_t *value);

/** Walks all keys: `*cursor` starts at 0; NULL after the last. Do not change the map meanwhile. */
const struct map_cell *map_next(const struct map *map, size_t *cursor);

/** Frees everything; the map is empty and may be used again. */
void map_clear(struct map *map);

#endif
