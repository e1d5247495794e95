#include "fabric/reads.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct read {
    struct read *next; /* in the list of its state; owned by it */
    struct fabric_window window;
    uint64_t offset; /* of the next byte to post, in the window */
    uint8_t *local;  /* where it goes; borrowed until told */
    uint64_t left;   /* bytes not yet posted */
    uint32_t pieces; /* with the carrier */
    uint32_t rank;
    uint64_t cookie;
    uint64_t lost_ns; /* when its rank was lost; 0: it was not */
    bool failed;
    bool told; /* while pieces are out: freed with the last of them */
};

struct list {
    struct read *first, **tail;
};

struct reads {
    uint32_t pieces_max, in_flight;
    size_t piece_bytes, count;
    /* waiting: bytes left to post; flying: all posted, or failed, and pieces out; ended: to tell;
       stuck: told with pieces out. A read is in exactly one of them. */
    struct list waiting, flying, ended, stuck;
    struct reads_piece *free; /* borrowed from `made` */
    struct reads_piece *made; /* owned */
};

static void append(struct list *list, struct read *read)
{
    read->next = NULL;
    *list->tail = read;
    list->tail = &read->next;
}

/* Takes out the read that `*place` points to. */
static struct read *take(struct list *list, struct read **place)
{
    struct read *read = *place;

    *place = read->next;
    if (!*place)
        list->tail = place;
    return read;
}

static void take_read(struct list *list, struct read *read)
{
    struct read **place = &list->first;

    while (*place != read)
        place = &(*place)->next;
    take(list, place);
}

enum moray_code reads_create(uint32_t pieces_max, size_t piece_bytes, struct reads **out,
                             struct moray_error *error)
{
    struct reads *reads = calloc(1, sizeof(*reads));

    *out = reads;
    if (!reads)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the reads of the fabric");
    reads->pieces_max = pieces_max;
    reads->piece_bytes = piece_bytes;
    reads->waiting.tail = &reads->waiting.first;
    reads->flying.tail = &reads->flying.first;
    reads->ended.tail = &reads->ended.first;
    reads->stuck.tail = &reads->stuck.first;
    return MORAY_OK;
}

static void list_free(struct list *list)
{
    while (list->first)
        free(take(list, &list->first));
}

void reads_destroy(struct reads *reads)
{
    if (!reads)
        return;
    list_free(&reads->waiting);
    list_free(&reads->flying);
    list_free(&reads->ended);
    list_free(&reads->stuck);
    while (reads->made) {
        struct reads_piece *piece = reads->made;
        reads->made = piece->made;
        free(piece);
    }
    free(reads);
}

enum moray_code reads_add(struct reads *reads, uint32_t rank, const struct fabric_window *window,
                          uint64_t offset, void *local, uint64_t bytes, uint64_t cookie)
{
    struct read *read = calloc(1, sizeof(*read));

    if (!read)
        return MORAY_NO_MEMORY;
    read->window = *window;
    read->offset = offset;
    read->local = local;
    read->left = bytes;
    read->rank = rank;
    read->cookie = cookie;
    append(&reads->waiting, read);
    reads->count++;
    return MORAY_OK;
}

static struct reads_piece *piece_take(struct reads *reads)
{
    struct reads_piece *piece = reads->free;

    if (piece) {
        reads->free = piece->next;
        return piece;
    }
    piece = calloc(1, sizeof(*piece));
    if (piece) {
        piece->made = reads->made;
        reads->made = piece;
    }
    return piece;
}

struct reads_piece *reads_next(struct reads *reads, bool (*ready)(void *context, uint32_t rank),
                               void *context)
{
    struct read **place = &reads->waiting.first, *read;
    struct reads_piece *piece;

    if (reads->in_flight >= reads->pieces_max)
        return NULL;
    while (*place && !ready(context, (*place)->rank))
        place = &(*place)->next;
    if (!*place || !(piece = piece_take(reads)))
        return NULL;
    read = take(&reads->waiting, place);
    piece->read = read;
    piece->rank = read->rank;
    piece->address = read->window.address;
    piece->key = read->window.key;
    piece->offset = read->offset;
    piece->local = read->local;
    piece->bytes = read->left < reads->piece_bytes ? read->left : reads->piece_bytes;
    read->offset += piece->bytes;
    read->local += piece->bytes;
    read->left -= piece->bytes;
    read->pieces++;
    reads->in_flight++;
    append(read->left ? &reads->waiting : &reads->flying, read);
    return piece;
}

static void piece_give(struct reads *reads, struct reads_piece *piece)
{
    piece->next = reads->free;
    reads->free = piece;
}

void reads_back(struct reads *reads, struct reads_piece *piece)
{
    struct read *read = piece->read;

    assert(!read->failed && !read->told);
    take_read(read->left ? &reads->waiting : &reads->flying, read);
    read->offset -= piece->bytes;
    read->local -= piece->bytes;
    read->left += piece->bytes;
    read->pieces--;
    reads->in_flight--;
    read->next = reads->waiting.first;
    if (!read->next)
        reads->waiting.tail = &read->next;
    reads->waiting.first = read;
    piece_give(reads, piece);
}

void reads_done(struct reads *reads, struct reads_piece *piece, bool ok)
{
    struct read *read = piece->read;

    piece_give(reads, piece);
    read->pieces--;
    if (read->told) { /* its pieces were taken out of the count when it was told */
        if (!read->pieces) {
            take_read(&reads->stuck, read);
            free(read);
        }
        return;
    }
    reads->in_flight--;
    if (!ok && !read->failed) {
        read->failed = true;
        if (read->left) {
            take_read(&reads->waiting, read);
            read->left = 0;
            append(&reads->flying, read);
        }
    }
    if (!read->pieces && !read->left) {
        take_read(&reads->flying, read);
        append(&reads->ended, read);
    }
}

void reads_lose(struct reads *reads, uint32_t rank, uint64_t now_ns)
{
    struct read **place = &reads->waiting.first;

    while (*place) {
        if ((*place)->rank != rank) {
            place = &(*place)->next;
            continue;
        }
        struct read *read = take(&reads->waiting, place);
        read->left = 0;
        read->failed = true;
        append(read->pieces ? &reads->flying : &reads->ended, read);
    }
    for (struct read *read = reads->flying.first; read; read = read->next) {
        if (read->rank == rank && !read->lost_ns) {
            read->failed = true;
            read->lost_ns = now_ns;
        }
    }
}

static void tell(struct reads *reads, const struct fabric_handler *handler, struct read *read,
                 bool posted)
{
    reads->count--;
    handler->read_done(handler->context, read->cookie, read->failed ? MORAY_LOST : MORAY_OK,
                       posted);
}

size_t reads_tell(struct reads *reads, const struct fabric_handler *handler, uint64_t now_ns)
{
    struct read **place = &reads->flying.first;
    size_t told = 0;

    while (*place) {
        if (!(*place)->lost_ns || now_ns - (*place)->lost_ns < READS_QUARANTINE_NS) {
            place = &(*place)->next;
            continue;
        }
        struct read *read = take(&reads->flying, place);
        read->told = true;
        reads->in_flight -= read->pieces;
        append(&reads->stuck, read);
        tell(reads, handler, read, true);
        told++;
    }
    while (reads->ended.first) {
        struct read *read = take(&reads->ended, &reads->ended.first);
        tell(reads, handler, read, false);
        free(read);
        told++;
    }
    return told;
}

size_t reads_count(const struct reads *reads)
{
    return reads->count;
}

uint32_t reads_in_flight(const struct reads *reads)
{
    return reads->in_flight;
}

bool reads_any_of(const struct reads *reads, uint32_t rank)
{
    for (const struct read *read = reads->waiting.first; read; read = read->next)
        if (read->rank == rank)
            return true;
    for (const struct read *read = reads->flying.first; read; read = read->next)
        if (read->rank == rank)
            return true;
    return false;
}
