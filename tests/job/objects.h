/**
 * What programs of laws about objects share: bytes that are known again, tasks that make and read them,
 * values with a reference inside, an actor that keeps one, and what is free. How much of the driver's
 * arena is free is read from the story of a put that cannot fit.
 * Who calls: objects.c, object_lifetime.c and references.c. Threads: as of law.h.
 */
#ifndef MORAY_TESTS_JOB_OBJECTS_H
#define MORAY_TESTS_JOB_OBJECTS_H

#include "law.h"

enum { MIB = 1 << 20 };

static inline uint64_t hash(const void *data, size_t size)
{
    const unsigned char *byte = data;
    uint64_t sum = 0xcbf29ce484222325;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ byte[i]) * 0x100000001b3;
    return sum;
}

static inline void fill(void *data, size_t size, uint32_t seed)
{
    unsigned char *byte = data;

    for (size_t i = 0; i < size; i++)
        byte[i] = (unsigned char)((seed = seed * 1664525 + 1013904223) >> 24);
}

MORAY_TASK(uint64_t, hash_of, (moray_view, v))
{
    return hash(v.data, v.size);
}

MORAY_TASK(int32_t, after_failing, (int32_t, ms))
{
    law_sleep_ms(ms);
    moray_fail(MORAY_FAILED, "it was asked to fail");
    return 0;
}

MORAY_ACTOR(shelf, (moray_ref, kept));
MORAY_METHOD(int32_t, shelf, store, (moray_future, what))
{
    self->kept = what.ref;
    return (int32_t)moray_keep(what.ref);
}
MORAY_METHOD(uint64_t, shelf, hash_kept)
{
    moray_view view;
    uint64_t sum = 0;

    if (moray_get_view(self->kept, &view, 0) == MORAY_OK) {
        sum = hash(view.data, view.size);
        moray_view_release(&view);
    }
    return sum;
}
MORAY_METHOD(int32_t, shelf, forget)
{
    return (int32_t)moray_release(self->kept);
}

typedef struct {
    moray_ref inside;
    int64_t number;
} parcel;
MORAY_REFS(parcel, inside);

MORAY_TASK(parcel, wrap, (uint64_t, size), (uint32_t, seed))
{
    moray_buffer buffer = moray_create(size);

    fill(buffer.data, size, seed);
    return (parcel){moray_seal(buffer), (int64_t)seed};
}

MORAY_TASK(uint64_t, unwrap, (parcel, p))
{
    moray_view view;
    uint64_t sum;

    if (moray_get_view(p.inside, &view, 0) != MORAY_OK) {
        moray_fail(moray_last(NULL), "%s", last_story());
        return 0;
    }
    sum = hash(view.data, view.size);
    moray_view_release(&view);
    return sum;
}

/* ---- Measuring ---- */

/* Bytes that the driver's arena has free. */
static inline uint64_t free_bytes(void)
{
    char byte = 0;
    moray_ref none = moray_put(&byte, (size_t)1 << 46);
    const char *rank = strstr(last_story(), "store of rank ");

    DEMAND(none.owner == 0);
    DEMAND(rank != NULL);
    return strtoull(strchr(rank, ':') + 1, NULL, 10);
}

static inline bool becomes_free(uint64_t at_least)
{
    uint64_t until = law_ms() + 3000;

    while (law_ms() < until) {
        if (free_bytes() >= at_least)
            return true;
        law_sleep_ms(10);
    }
    return free_bytes() >= at_least;
}

/* Nobody holds it: it goes as soon as those that were telling its end are done. */
static inline bool becomes_stale(moray_ref ref)
{
    enum moray_code code;

    for (uint64_t until = law_ms() + 3000;; law_sleep_ms(1)) {
        code = moray_get_bytes(ref, NULL, 0, MORAY_NOW);
        if (code == MORAY_STALE || law_ms() > until)
            break;
    }
    DEMAND_CODE(moray_hold(ref), MORAY_STALE);
    return code == MORAY_STALE;
}

static inline moray_ref put_filled(size_t size, uint32_t seed, uint64_t *sum)
{
    char *data = malloc(size ? size : 1);

    fill(data, size, seed);
    *sum = hash(data, size);
    moray_ref ref = moray_put(data, size);
    free(data);
    return ref;
}

static const size_t sizes[] = {0,     1,       7,    8,       9,       63,      64,
                               65,    1000,    4095, 4096,    4097,    65535,   65536,
                               65537, MIB - 1, MIB,  MIB + 1, 3 * MIB, 24 * MIB};

#endif
