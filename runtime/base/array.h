/**
 * Arrays that grow: one more item behind `count`, twice the room where it is used up.
 *
 *     items = array_grown(items, count, &capacity, sizeof(*items));
 *     items[count++] = one;
 *
 * Threads: one for each array. Cost: a comparison; the copy of an item, spread over all.
 */
#ifndef MORAY_BASE_ARRAY_H
#define MORAY_BASE_ARRAY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/** The array with room for one more, perhaps elsewhere. Errors: NULL: no memory; it stands as it was. */
static inline void *array_room(void *items, uint32_t count, uint32_t *capacity, size_t item_bytes)
{
    if (count < *capacity)
        return items;
    uint32_t more = *capacity ? *capacity * 2 : 16;
    void *grown = realloc(items, more * item_bytes);
    if (grown)
        *capacity = more;
    return grown;
}

/** The same, for books that cannot be left out: without memory the process ends. */
static inline void *array_grown(void *items, uint32_t count, uint32_t *capacity, size_t item_bytes)
{
    void *grown = array_room(items, count, capacity, item_bytes);

    if (!grown) {
        fputs("moray: no memory for this process's own tables\n", stderr);
        abort();
    }
    return grown;
}

#endif
