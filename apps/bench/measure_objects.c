/**
 * Objects: put, get, and fetches from another rank.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "child.h"

enum { SMALL = 8 };

static const size_t large = (size_t)1 << 30, large_quick = (size_t)16 << 20,
                    fetched = (size_t)256 << 20, fetched_quick = (size_t)16 << 20;

/* An object of bytes of 0x5a, made by whoever runs this. */
MORAY_TASK(moray_buffer, filled, (uint64_t, size))
{
    moray_buffer buffer = moray_result(size);

    if (buffer.data)
        memset(buffer.data, 0x5a, size);
    return buffer;
}

static moray_ref make_filled(size_t size)
{
    moray_ref ref = moray_call(filled, size);
    size_t ready = 0;

    CHILD_MUST(moray_wait(&ref, 1, 1, NULL, &ready, NULL, NULL, 120000, 0) == MORAY_OK);
    CHILD_MUST(ready == 1 && !*moray_error(ref));
    return ref;
}

/* Microseconds of a view and its release. */
static double views(struct child *child, size_t size)
{
    int count = child->quick ? 2000 : 200000;
    static moray_ref ref;
    moray_view view;

    if (!ref.owner)
        ref = make_filled(size);
    uint64_t start_ns = bench_now_ns();
    for (int i = 0; i < count; i++) {
        if (moray_get_view(ref, &view, 1000) != MORAY_OK)
            child_fail("a view of a local object");
        moray_view_release(&view);
    }
    return child_seconds(start_ns) * 1e6 / count;
}

static double get_small(struct child *child)
{
    return views(child, SMALL);
}

static double get_large(struct child *child)
{
    return views(child, child->quick ? large_quick : large);
}

/* Microseconds of a view, the read of a byte of each page, and the release. */
static double read_pages(moray_ref ref)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), sum = 0;
    uint64_t start_ns = bench_now_ns();
    moray_view view;

    CHILD_MUST(moray_get_view(ref, &view, 1000) == MORAY_OK);
    for (size_t at = 0; at < view.size; at += page)
        sum += ((const volatile unsigned char *)view.data)[at];
    size_t pages = (view.size + page - 1) / page;
    moray_view_release(&view);
    double us = child_seconds(start_ns) * 1e6;
    CHILD_MUST(sum == pages * 0x5a);
    return us;
}

/* This process never read those pages. A process a run: the first object of the job. */
static double pages_cold(struct child *child)
{
    moray_ref ref = make_filled(child->quick ? large_quick : large);
    double us = read_pages(ref);

    moray_release(ref);
    return us;
}

/* A new object in memory that this process has read before. */
static double pages_warm(struct child *child)
{
    moray_ref ref = make_filled(child->quick ? large_quick : large);

    read_pages(ref);
    double us = read_pages(ref);
    moray_release(ref);
    return us;
}

static double put_small(struct child *child)
{
    int count = child->quick ? 2000 : 100000;
    uint64_t value = 7, start_ns = bench_now_ns();

    for (int i = 0; i < count; i++)
        moray_release(moray_put(&value, SMALL));
    return child_seconds(start_ns) * 1e6 / count;
}

static double put_large(struct child *child)
{
    size_t size = child->quick ? large_quick : large;
    static char *from;

    if (!from) {
        from = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHILD_MUST(from != MAP_FAILED);
        memset(from, 1, size);
    }
    uint64_t start_ns = bench_now_ns();
    moray_ref ref = moray_put(from, size);
    double seconds = child_seconds(start_ns);
    CHILD_MUST(ref.owner);
    moray_release(ref);
    return (double)size / seconds / 1e9;
}

/* GB/s of a view of an object that another rank has made. */
static double fetch_large(struct child *child)
{
    size_t size = child->quick ? fetched_quick : fetched;
    moray_ref ref = make_filled(size);
    moray_view view;

    uint64_t start_ns = bench_now_ns();
    CHILD_MUST(moray_get_view(ref, &view, 120000) == MORAY_OK);
    double seconds = child_seconds(start_ns);
    const unsigned char *bytes = view.data;
    CHILD_MUST(view.size == size && bytes[0] == 0x5a && bytes[size / 2] == 0x5a &&
               bytes[size - 1] == 0x5a);
    moray_view_release(&view);
    moray_release(ref);
    return (double)size / seconds / 1e9;
}

const struct child_measure measures_of_objects[] = {
    {"get_small", get_small},     {"get_large", get_large},
    {"pages_cold", pages_cold},   {"pages_warm", pages_warm},
    {"put_small", put_small},     {"put_large", put_large},
    {"fetch_large", fetch_large}, {NULL, NULL},
};
