/**
 * Reading and writing the bytes of a message within bounds: every read is checked.
 *
 *     struct bytes_reader in = bytes_read(data, size);
 *     uint32_t count = bytes_u32(&in);
 *     const void *name = bytes_take(&in, bytes_u16(&in));
 *     if (!bytes_end(&in))  return error_set(...);        one check, at the end
 *
 * A read beyond the end gives zeros (bytes_take: NULL), and the reader is bad from then on; so the fields
 * may be read one after the other and checked once, before any is believed. A count that was read must
 * be compared with bytes_left() before anything is allocated for it.
 * Numbers are little-endian, at any alignment. The writer counts on when its room is full, so that a
 * first pass without room tells how much is needed.
 * Threads: one for each reader or writer. Cost: a comparison and a load a field.
 */
#ifndef MORAY_BASE_BYTES_H
#define MORAY_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire's order is this machine's");

/** memcpy where the size is known at run time alone, and is 4, 8 or 16 more often than not. */
static inline void bytes_copy_small(void *to, const void *from, size_t size)
{
    if (size == 8)
        memcpy(to, from, 8);
    else if (size == 4)
        memcpy(to, from, 4);
    else if (size == 16)
        memcpy(to, from, 16);
    else
        memcpy(to, from, size);
}

struct bytes_reader {
    const unsigned char *at, *end; /* borrowed */
    bool bad;                      /* something was read that is not there */
};

struct bytes_writer {
    unsigned char *data; /* borrowed; may be NULL if room is 0 */
    size_t room;
    size_t used; /* what has been written, or would have been: > room means that it did not fit */
};

static inline struct bytes_reader bytes_read(const void *data, size_t size)
{
    const unsigned char *at = data;

    return (struct bytes_reader){.at = at, .end = size ? at + size : at};
}

static inline size_t bytes_left(const struct bytes_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/** The next `size` bytes in place, or NULL if there are fewer (then the reader is bad). 0 bytes give a
 *  pointer that must not be followed. */
static inline const void *bytes_take(struct bytes_reader *reader, size_t size)
{
    static const unsigned char nothing[1];
    const unsigned char *here = reader->at;

    if (reader->bad || size > bytes_left(reader)) {
        reader->bad = true;
        reader->at = reader->end;
        return NULL;
    }
    if (!size)
        return nothing;
    reader->at += size;
    return here;
}

/** Copies the next `size` bytes, or zeros. Returns whether they were there. */
static inline bool bytes_copy(struct bytes_reader *reader, void *to, size_t size)
{
    const void *from = bytes_take(reader, size);

    if (size && from)
        memcpy(to, from, size);
    else if (size)
        memset(to, 0, size);
    return from != NULL;
}

/** A text of `size` bytes with its NUL last and no other; NULL (and bad) if it is none. */
static inline const char *bytes_text(struct bytes_reader *reader, size_t size)
{
    const char *text = bytes_take(reader, size);

    if (text && size && memchr(text, '\0', size) == text + size - 1)
        return text;
    reader->bad = true;
    return NULL;
}

/** Whether all was there and nothing is left over. */
static inline bool bytes_end(const struct bytes_reader *reader)
{
    return !reader->bad && reader->at == reader->end;
}

static inline struct bytes_writer bytes_write(void *data, size_t room)
{
    return (struct bytes_writer){.data = data, .room = room};
}

/** Appends `size` bytes if they fit wholly; counts them in any case. */
static inline void bytes_put(struct bytes_writer *writer, const void *from, size_t size)
{
    if (size && writer->used <= writer->room && size <= writer->room - writer->used)
        memcpy(writer->data + writer->used, from, size);
    writer->used = size > SIZE_MAX - writer->used ? SIZE_MAX : writer->used + size;
}

static inline bool bytes_fit(const struct bytes_writer *writer)
{
    return writer->used <= writer->room;
}

#define BYTES_NUMBER(bits)                                                                   \
    static inline uint##bits##_t bytes_u##bits(struct bytes_reader *reader)                  \
    {                                                                                        \
        uint##bits##_t number;                                                               \
        bytes_copy(reader, &number, sizeof(number));                                         \
        return number;                                                                       \
    }                                                                                        \
    static inline void bytes_put_u##bits(struct bytes_writer *writer, uint##bits##_t number) \
    {                                                                                        \
        bytes_put(writer, &number, sizeof(number));                                          \
    }
BYTES_NUMBER(8)
BYTES_NUMBER(16)
BYTES_NUMBER(32)
BYTES_NUMBER(64)
#undef BYTES_NUMBER

#endif
