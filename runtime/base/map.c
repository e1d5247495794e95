#include "base/map.h"

#include <assert.h>
#include <stdlib.h>

#include "base/index.h"

static size_t home(const struct map *map, uint64_t key)
{
    return (size_t)index_mix(key) & (map->capacity - 1);
}

/* The cell that has the key, or the free one where it would go. The capacity is not 0. */
static size_t find(const struct map *map, uint64_t key)
{
    size_t at = home(map, key);

    while (map->cells[at].key != key && map->cells[at].key != MAP_NO_KEY)
        at = (at + 1) & (map->capacity - 1);
    return at;
}

bool map_reserve(struct map *map, size_t extra)
{
    struct map old = *map, next = *map;

    if (!next.capacity)
        next.capacity = 16;
    while (4 * (old.used + extra) > 3 * next.capacity)
        next.capacity *= 2;
    if (next.capacity == old.capacity)
        return true;
    if (!(next.cells = malloc(next.capacity * sizeof(*next.cells))))
        return false;
    for (size_t i = 0; i < next.capacity; i++)
        next.cells[i].key = MAP_NO_KEY;
    for (size_t i = 0; i < old.capacity; i++)
        if (old.cells[i].key != MAP_NO_KEY)
            next.cells[find(&next, old.cells[i].key)] = old.cells[i];
    free(old.cells);
    *map = next;
    return true;
}

bool map_set(struct map *map, uint64_t key, uint64_t value)
{
    assert(key != MAP_NO_KEY);
    uint64_t *there = map_get(map, key);

    if (there) {
        *there = value;
        return true;
    }
    if (!map_reserve(map, 1))
        return false;
    map->cells[find(map, key)] = (struct map_cell){.key = key, .value = value};
    map->used++;
    return true;
}

uint64_t *map_get(const struct map *map, uint64_t key)
{
    if (!map->used)
        return NULL;
    struct map_cell *cell = &map->cells[find(map, key)];
    return cell->key == key && key != MAP_NO_KEY ? &cell->value : NULL;
}

bool map_remove(struct map *map, uint64_t key, uint64_t *value)
{
    size_t mask = map->capacity - 1, hole;

    if (!map_get(map, key))
        return false;
    hole = find(map, key);
    if (value)
        *value = map->cells[hole].value;
    /* Each later cell of the run moves up, unless its own place lies after the hole. */
    for (size_t at = (hole + 1) & mask; map->cells[at].key != MAP_NO_KEY; at = (at + 1) & mask)
        if (((at - home(map, map->cells[at].key)) & mask) >= ((at - hole) & mask)) {
            map->cells[hole] = map->cells[at];
            hole = at;
        }
    map->cells[hole].key = MAP_NO_KEY;
    map->used--;
    return true;
}

const struct map_cell *map_next(const struct map *map, size_t *cursor)
{
    while (*cursor < map->capacity) {
        const struct map_cell *cell = &map->cells[(*cursor)++];
        if (cell->key != MAP_NO_KEY)
            return cell;
    }
    return NULL;
}

void map_clear(struct map *map)
{
    free(map->cells);
    *map = (struct map){0};
}
