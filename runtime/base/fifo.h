/**
 * A queue of equal elements, first in, first out: the actions that a pure machine has not yet handed
 * to its driver. Room is made before an event changes anything (fifo_reserve), so that the pushes in
 * the middle of the event cannot fail.
 * Threads: one caller at a time. Cost: a push or pop copies one element.
 */
#ifndef MORAY_BASE_FIFO_H
#define MORAY_BASE_FIFO_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct fifo {        /* all zeros: empty, and owns nothing */
    char *elements;  /* owned; NULL while the capacity is 0 */
    size_t capacity; /* elements; 0 or a power of two */
    size_t head;     /* position of the oldest */
    size_t count;    /* elements inside, <= capacity */
};

/** Frees the memory; what was inside is forgotten. */
static inline void fifo_clear(struct fifo *fifo)
{
    free(fifo->elements);
    *fifo = (struct fifo){0};
}

/** Makes room for `extra` more. Errors: false if there is no memory; nothing changed. */
static inline bool fifo_reserve(struct fifo *fifo, size_t extra, size_t element_bytes)
{
    size_t capacity = fifo->capacity ? fifo->capacity : 8;
    size_t first; /* elements up to the end of the old memory; the rest wrapped round */
    char *elements;

    while (capacity < fifo->count + extra)
        capacity *= 2;
    if (capacity == fifo->capacity)
        return true;
    elements = malloc(capacity * element_bytes);
    if (!elements)
        return false;
    first = fifo->capacity - fifo->head < fifo->count ? fifo->capacity - fifo->head : fifo->count;
    if (fifo->count) {
        memcpy(elements, fifo->elements + fifo->head * element_bytes, first * element_bytes);
        memcpy(elements + first * element_bytes, fifo->elements,
               (fifo->count - first) * element_bytes);
    }
    free(fifo->elements);
    *fifo = (struct fifo){.elements = elements, .capacity = capacity, .count = fifo->count};
    return true;
}

/** Appends a copy of `element`; the caller reserved room. */
static inline void fifo_push(struct fifo *fifo, const void *element, size_t element_bytes)
{
    assert(fifo->count < fifo->capacity);
    memcpy(fifo->elements + ((fifo->head + fifo->count) & (fifo->capacity - 1)) * element_bytes,
           element, element_bytes);
    fifo->count++;
}

/** Moves the oldest element to `*out`; false if there is none. */
static inline bool fifo_pop(struct fifo *fifo, void *out, size_t element_bytes)
{
    if (!fifo->count)
        return false;
    memcpy(out, fifo->elements + fifo->head * element_bytes, element_bytes);
    fifo->head = (fifo->head + 1) & (fifo->capacity - 1);
    fifo->count--;
    return true;
}

#endif
