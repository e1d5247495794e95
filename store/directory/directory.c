#include "store/directory/inside.h"

#include <assert.h>
#include <string.h>

static bool reserve_copy(struct object *object)
{
    struct copy *copies = directory_grown(object->copies, object->copy_count,
                                          &object->copy_capacity, sizeof(*copies));

    if (copies)
        object->copies = copies;
    return copies != NULL;
}

static struct copy *copy_at(const struct object *object, uint32_t rank)
{
    for (uint32_t i = 0; i < object->copy_count; i++)
        if (object->copies[i].rank == rank)
            return &object->copies[i];
    return NULL;
}

/* Adds a copy, for which there is room, if it is not known yet. */
static void add_copy(struct object *object, uint32_t rank)
{
    if (!copy_at(object, rank))
        object->copies[object->copy_count++] = (struct copy){.rank = rank};
    object->lost_due = false;
}

/* The read does not use its source any more. */
static void leave_source(struct object *object, struct read *read)
{
    struct copy *copy = read->counted ? copy_at(object, read->source) : NULL;

    assert(!read->counted || (copy && copy->read_count > 0));
    if (copy)
        copy->read_count--;
    read->counted = false;
    read->source = NOBODY;
}

static void end_read(struct object *object, uint32_t at)
{
    leave_source(object, &object->reads[at]);
    object->read_count--;
    memmove(object->reads + at, object->reads + at + 1,
            (object->read_count - at) * sizeof(*object->reads));
    if (object->due_at > at)
        object->due_at--;
}

static void wait_again(struct object *object, struct read *read)
{
    leave_source(object, read);
    read->state = WAITING;
}

/* The copy with the fewest readers, if it has a turn for one more. */
static struct copy *best_copy(const struct directory *directory, const struct object *object)
{
    struct copy *best = NULL;

    for (uint32_t i = 0; i < object->copy_count; i++)
        if (!best || object->copies[i].read_count < best->read_count)
            best = &object->copies[i];
    return best && best->read_count < directory->options.reads_per_copy_max ? best : NULL;
}

/* Decides on one read that waits; false: it goes on waiting. */
static bool decide(const struct directory *directory, struct object *object, struct read *read)
{
    struct copy *copy;

    if (copy_at(object, read->reader)) {
        read->state = HAS_DUE;
        return true;
    }
    if (object->failed != MORAY_OK) {
        read->state = REFUSE_DUE;
        return true;
    }
    copy = best_copy(directory, object);
    if (!copy)
        return false;
    copy->read_count++;
    read->counted = true;
    read->source = copy->rank;
    read->state = GRANT_DUE;
    return true;
}

/* The last step of each event: decides on the reads that wait, in their order, and frees the object
 * if nobody has to do with it any more. */
static void settle(struct directory *directory, struct object *object)
{
    for (uint32_t i = 0; i < object->read_count; i++) {
        if (object->reads[i].state != WAITING)
            continue;
        if (!decide(directory, object, &object->reads[i]))
            break;
        if (object->due_at > i)
            object->due_at = i;
    }
    if (object->holders.held == 0 && object->read_count == 0 && !object->freeing) {
        object->freeing = true;
        object->lost_due = false;
        index_remove(&directory->by_id, index_mix(object->id),
                     directory_position(directory, object));
    }
    directory_touch(directory, object);
}

/* A copy is gone. Those that were told to read from it hear so from the source, or have read it all
 * by now: their word comes. Those that were not told yet wait again. */
static void remove_copy(struct object *object, struct copy *copy)
{
    for (uint32_t i = 0; i < object->read_count; i++) {
        struct read *read = &object->reads[i];
        if (!read->counted || read->source != copy->rank)
            continue;
        if (read->state == GRANT_DUE) {
            wait_again(object, read);
        } else {
            read->counted = false;
            copy->read_count--;
        }
    }
    assert(copy->read_count == 0);
    *copy = object->copies[--object->copy_count];
    if (object->copy_count == 0 && object->failed == MORAY_OK)
        object->lost_due = true;
}

/* Tells a rank to drop a copy that is not the object's. The room was reserved. */
static void drop_stray(struct directory *directory, uint64_t id, uint32_t rank, uint32_t attempt)
{
    struct drop drop = {id, rank, attempt};

    fifo_push(&directory->drops, &drop, sizeof(drop));
}

enum moray_code directory_sealed(struct directory *directory, uint64_t id, uint32_t rank,
                                 uint32_t attempt, uint64_t bytes, struct moray_error *error)
{
    struct object *object = directory_find(directory, id);
    enum moray_code code = directory_check_rank(directory, rank, error);

    if (code != MORAY_OK)
        return code;
    if (!fifo_reserve(&directory->drops, 1, sizeof(struct drop)) ||
        (object && !reserve_copy(object)))
        return error_set(error, MORAY_NO_MEMORY, "no memory for a copy at rank %u", rank);
    if (!object || object->attempt != attempt) {
        drop_stray(directory, id, rank, attempt);
        return error_set(error, MORAY_STALE,
                         "attempt %u of object %llx sealed at rank %u is not wanted (any more)",
                         attempt, (unsigned long long)id, rank);
    }
    if (object->copy_count > 0 && object->bytes != bytes) {
        drop_stray(directory, id, rank, attempt);
        return error_set(error, MORAY_INVALID,
                         "the copy at rank %u has %llu bytes, the object %llu", rank,
                         (unsigned long long)bytes, (unsigned long long)object->bytes);
    }
    object->bytes = bytes;
    object->failed = MORAY_OK;
    add_copy(object, rank);
    settle(directory, object);
    return MORAY_OK;
}

bool directory_attempt(struct directory *directory, uint64_t id, uint32_t attempt)
{
    struct object *object = directory_find(directory, id);

    if (!object || object->copy_count > 0)
        return false;
    object->attempt = attempt;
    object->failed = MORAY_OK;
    object->lost_due = false;
    settle(directory, object);
    return true;
}

bool directory_fail(struct directory *directory, uint64_t id, enum moray_code code)
{
    struct object *object = directory_find(directory, id);

    assert(code != MORAY_OK);
    if (!object || object->copy_count > 0)
        return false;
    object->failed = code;
    object->lost_due = false;
    settle(directory, object);
    return true;
}

static uint32_t find_read(const struct object *object, uint32_t reader, uint64_t transfer)
{
    for (uint32_t i = 0; i < object->read_count; i++)
        if (object->reads[i].transfer == transfer && object->reads[i].reader == reader)
            return i;
    return NOBODY;
}

enum moray_code directory_want(struct directory *directory, uint64_t id, uint32_t reader,
                               uint64_t transfer, struct moray_error *error)
{
    struct object *object = directory_find(directory, id);
    enum moray_code code = directory_check_rank(directory, reader, error);
    struct read *reads;

    if (code != MORAY_OK)
        return code;
    if (!object)
        return error_set(error, MORAY_STALE, "object %llx of rank %u is free, or never was",
                         (unsigned long long)id, directory->options.rank);
    if (find_read(object, reader, transfer) != NOBODY)
        return error_set(error, MORAY_EXISTS, "transfer %llu of rank %u is open already",
                         (unsigned long long)transfer, reader);
    reads =
        directory_grown(object->reads, object->read_count, &object->read_capacity, sizeof(*reads));
    if (!reads)
        return error_set(error, MORAY_NO_MEMORY, "no memory for one more read of an object");
    object->reads = reads;
    object->reads[object->read_count++] =
        (struct read){.transfer = transfer, .reader = reader, .source = NOBODY};
    settle(directory, object);
    return MORAY_OK;
}

enum moray_code directory_fetched(struct directory *directory, uint64_t id, uint32_t reader,
                                  uint64_t transfer, uint32_t source, enum directory_end end,
                                  struct moray_error *error)
{
    struct object *object = directory_find(directory, id);
    uint32_t at = object ? find_read(object, reader, transfer) : NOBODY;

    if (end == DIRECTORY_KEPT && (!fifo_reserve(&directory->drops, 1, sizeof(struct drop)) ||
                                  (object && !reserve_copy(object))))
        return error_set(error, MORAY_NO_MEMORY, "no memory for a copy at rank %u", reader);
    if (at == NOBODY) {
        if (end == DIRECTORY_KEPT && !(object && copy_at(object, reader)))
            drop_stray(directory, id, reader, 0);
        return error_set(error, MORAY_STALE, "transfer %llu of rank %u is not open",
                         (unsigned long long)transfer, reader);
    }
    if (end == DIRECTORY_NO_SOURCE) {
        struct read *read = &object->reads[at];
        if (read->state != GRANTED || read->source != source)
            return MORAY_OK; /* it goes on from another already */
        if (read->counted)   /* else that copy is gone, and one that is there now is another */
            remove_copy(object, copy_at(object, source));
        wait_again(object, read);
    } else {
        end_read(object, at);
        if (end == DIRECTORY_KEPT)
            add_copy(object, reader);
    }
    settle(directory, object);
    return MORAY_OK;
}

bool directory_copy_gone(struct directory *directory, uint64_t id, uint32_t rank)
{
    struct object *object = directory_find(directory, id);
    struct copy *copy = object ? copy_at(object, rank) : NULL;

    if (!copy)
        return false;
    remove_copy(object, copy);
    settle(directory, object);
    return true;
}

enum moray_code directory_hold(struct directory *directory, uint64_t id, uint32_t rank,
                               uint64_t epoch, bool set, struct moray_error *error)
{
    struct object *object = directory_find(directory, id);
    enum moray_code code = directory_check_rank(directory, rank, error);

    if (code != MORAY_OK)
        return code;
    if (!object)
        return error_set(error, MORAY_STALE, "object %llx of rank %u is free, or never was",
                         (unsigned long long)id, directory->options.rank);
    if (!holders_reserve(&object->holders))
        return error_set(error, MORAY_NO_MEMORY, "no memory for a reference of rank %u", rank);
    if (holders_hear(&object->holders, rank, epoch, set))
        settle(directory, object);
    return MORAY_OK;
}

static void lose_rank(struct directory *directory, struct object *object, uint32_t rank)
{
    bool changed = holders_lose(&object->holders, rank);
    struct copy *copy = copy_at(object, rank);

    for (uint32_t i = object->read_count; i-- > 0;) {
        struct read *read = &object->reads[i];
        if (read->reader != rank && read->source != rank)
            continue;
        if (read->reader == rank)
            end_read(object, i);
        else
            wait_again(object, read);
        changed = true;
    }
    if (copy) {
        remove_copy(object, copy);
        changed = true;
    }
    if (changed)
        settle(directory, object);
}

void directory_rank_lost(struct directory *directory, uint32_t rank)
{
    if (rank >= directory->options.rank_count || directory->lost[rank])
        return;
    directory->lost[rank] = true;
    for (uint32_t at = 0; at < directory->capacity; at++) {
        struct object *object = &directory->objects[at];
        if (object->used && !object->freeing)
            lose_rank(directory, object, rank);
        else if (object->used && copy_at(object, rank)) /* nobody is left to be told to drop it */
            *copy_at(object, rank) = object->copies[--object->copy_count];
    }
}

/* Takes the next answer to a read that is due; false: none. */
static bool take_read(struct object *object, struct directory_action *out)
{
    for (; object->due_at < object->read_count; object->due_at++) {
        struct read *read = &object->reads[object->due_at];

        if (read->state == WAITING || read->state == GRANTED)
            continue;
        *out = (struct directory_action){.kind = DIRECTORY_GRANT,
                                         .object = object->id,
                                         .transfer = read->transfer,
                                         .bytes = object->bytes,
                                         .attempt = object->attempt,
                                         .source = read->source,
                                         .reader = read->reader};
        if (read->state == GRANT_DUE) {
            read->state = GRANTED;
            return true;
        }
        if (read->state == HAS_DUE) {
            out->source = read->reader;
        } else {
            out->kind = DIRECTORY_REFUSE;
            out->code = object->failed;
        }
        end_read(object, object->due_at);
        return true;
    }
    return false;
}

/* Takes the next action of an object; false: none. */
static bool take_due(struct directory *directory, struct object *object,
                     struct directory_action *out)
{
    if (take_read(object, out)) {
        if (object->read_count == 0)
            settle(directory, object); /* that may have been the last to do with it */
        return true;
    }
    *out = (struct directory_action){
        .object = object->id, .attempt = object->attempt, .bytes = object->bytes};
    if (object->lost_due) {
        object->lost_due = false;
        out->kind = DIRECTORY_LOST;
        return true;
    }
    while (object->freeing && object->copy_count > 0) {
        out->kind = DIRECTORY_DROP_COPY;
        out->source = object->copies[--object->copy_count].rank;
        if (out->source != directory->options.rank)
            return true;
    }
    return false;
}

bool directory_next(struct directory *directory, struct directory_action *out)
{
    struct drop drop;

    if (fifo_pop(&directory->drops, &drop, sizeof(drop))) {
        *out = (struct directory_action){.kind = DIRECTORY_DROP_COPY,
                                         .object = drop.object,
                                         .attempt = drop.attempt,
                                         .source = drop.rank};
        return true;
    }
    while (directory->dirty_first != INDEX_NONE) {
        struct object *object = &directory->objects[directory->dirty_first];
        if (take_due(directory, object, out))
            return true;
        directory->dirty_first = object->dirty_next;
        object->dirty = false;
        if (object->freeing) {
            *out = (struct directory_action){.kind = DIRECTORY_FREE,
                                             .object = object->id,
                                             .attempt = object->attempt,
                                             .source = directory->options.rank};
            directory_forget(directory, object);
            return true;
        }
    }
    return false;
}
