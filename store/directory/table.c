#include "store/directory/inside.h"

#include <stdlib.h>
#include <string.h>

struct object *directory_find(const struct directory *directory, uint64_t id)
{
    size_t cursor = 0;
    uint32_t at;

    while ((at = index_next(&directory->by_id, index_mix(id), &cursor)) != INDEX_NONE)
        if (directory->objects[at].id == id)
            return &directory->objects[at];
    return NULL;
}

enum moray_code directory_check_rank(const struct directory *directory, uint32_t rank,
                                     struct moray_error *error)
{
    if (rank < directory->options.rank_count && !directory->lost[rank])
        return MORAY_OK;
    return error_set(error, MORAY_STALE, "rank %u is lost, or is none of the %u of this job", rank,
                     directory->options.rank_count);
}

void directory_touch(struct directory *directory, struct object *object)
{
    uint32_t at = directory_position(directory, object);

    if (object->dirty)
        return;
    object->dirty = true;
    object->dirty_next = INDEX_NONE;
    if (directory->dirty_first == INDEX_NONE)
        directory->dirty_first = at;
    else
        directory->objects[directory->dirty_last].dirty_next = at;
    directory->dirty_last = at;
}

void *directory_grown(void *elements, uint32_t count, uint32_t *capacity, size_t element_bytes)
{
    uint32_t room = *capacity ? 2 * *capacity : 2;

    if (count < *capacity)
        return elements;
    elements = realloc(elements, room * element_bytes);
    if (elements)
        *capacity = room;
    return elements;
}

enum moray_code directory_add(struct directory *directory, uint64_t id, uint32_t attempt,
                              uint64_t epoch, struct moray_error *error)
{
    struct holders holders = {0};
    struct object *object;

    if (directory_find(directory, id))
        return error_set(error, MORAY_EXISTS, "object %llx of rank %u is in the directory already",
                         (unsigned long long)id, directory->options.rank);
    if (directory->count >= directory->options.object_max)
        return error_set(error, MORAY_BUSY,
                         "rank %u owns %u objects that others may read (object_max)",
                         directory->options.rank, directory->count);
    if (!holders_reserve(&holders) || !index_reserve(&directory->by_id, 1))
        goto no_memory;
    if (directory->unused == INDEX_NONE) {
        uint32_t capacity = directory->capacity;
        struct object *objects =
            directory_grown(directory->objects, capacity, &directory->capacity, sizeof(*objects));
        if (!objects)
            goto no_memory;
        directory->objects = objects;
        for (uint32_t at = directory->capacity; at-- > capacity;) {
            directory->objects[at] = (struct object){.unused_next = directory->unused};
            directory->unused = at;
        }
    }
    holders_hear(&holders, directory->options.rank, epoch, true);
    object = &directory->objects[directory->unused];
    directory->unused = object->unused_next;
    *object = (struct object){.id = id, .used = true, .attempt = attempt, .holders = holders};
    index_add(&directory->by_id, index_mix(id), directory_position(directory, object));
    directory->count++;
    return MORAY_OK;

no_memory:
    holders_clear_all(&holders);
    return error_set(error, MORAY_NO_MEMORY, "no memory for one more object of rank %u",
                     directory->options.rank);
}

void directory_forget(struct directory *directory, struct object *object)
{
    holders_clear_all(&object->holders);
    free(object->copies);
    free(object->reads);
    *object = (struct object){.unused_next = directory->unused};
    directory->unused = directory_position(directory, object);
    directory->count--;
}

static void show(const struct object *object, struct directory_line *out)
{
    *out = (struct directory_line){.object = object->id,
                                   .bytes = object->copy_count ? object->bytes : 0,
                                   .attempt = object->attempt,
                                   .copy_count = object->copy_count,
                                   .holder_count = object->holders.held};
    for (uint32_t i = 0; i < object->read_count; i++) {
        if (object->reads[i].state == WAITING)
            out->waiting_count++;
        else
            out->read_count++;
    }
}

bool directory_get(const struct directory *directory, uint64_t id, struct directory_line *out)
{
    const struct object *object = directory_find(directory, id);

    if (object)
        show(object, out);
    return object != NULL;
}

bool directory_list(const struct directory *directory, uint32_t *cursor, struct directory_line *out)
{
    while (*cursor < directory->capacity) {
        const struct object *object = &directory->objects[(*cursor)++];
        if (object->used && !object->freeing) {
            show(object, out);
            return true;
        }
    }
    return false;
}

size_t directory_copies(const struct directory *directory, uint64_t id, uint32_t *ranks,
                        size_t room)
{
    const struct object *object = directory_find(directory, id);

    for (size_t i = 0; object && i < object->copy_count && i < room; i++)
        ranks[i] = object->copies[i].rank;
    return object ? object->copy_count : 0;
}

size_t directory_count(const struct directory *directory)
{
    return directory->count;
}

enum moray_code directory_create(const struct directory_options *options, struct directory **out,
                                 struct moray_error *error)
{
    struct directory *directory;

    *out = NULL;
    if (options->rank_count == 0)
        return error_set(error, MORAY_INVALID, "rank_count is 0; a job has at least one rank");
    directory = calloc(1, sizeof(*directory));
    if (directory)
        directory->lost = calloc(options->rank_count, sizeof(*directory->lost));
    if (!directory || !directory->lost) {
        free(directory);
        return error_set(error, MORAY_NO_MEMORY, "no memory for rank %u's object directory",
                         options->rank);
    }
    directory->options = *options;
    if (!options->object_max)
        directory->options.object_max = 4 * 1000 * 1000;
    if (!options->reads_per_copy_max)
        directory->options.reads_per_copy_max = 2;
    directory->unused = directory->dirty_first = directory->dirty_last = INDEX_NONE;
    *out = directory;
    return MORAY_OK;
}

void directory_destroy(struct directory *directory)
{
    if (!directory)
        return;
    for (uint32_t at = 0; at < directory->capacity; at++) {
        holders_clear_all(&directory->objects[at].holders);
        free(directory->objects[at].copies);
        free(directory->objects[at].reads);
    }
    index_clear(&directory->by_id);
    fifo_clear(&directory->drops);
    free(directory->objects);
    free(directory->lost);
    free(directory);
}
