/**
 * The code that a task needs on its way there and back lies together, on few pages.
 *
 * After some milliseconds in which nothing ran here, none of it is in a cache, and each line that is
 * missed costs a third of a microsecond, one after the other: more than all instructions of the trip.
 */
#ifndef MORAY_BASE_TRIP_H
#define MORAY_BASE_TRIP_H

/* Before the definition of a function; and of one that would come along if it were inlined. */
#define ON_TRIP __attribute__((section("moray_trip")))
#define OFF_TRIP __attribute__((noinline))

enum { TRIP_LINE_BYTES = 64, TRIP_PAGE_BYTES = 4096 };

/* The linker's: begin and end of the section, of this library or program. */
extern const char trip_begin[] __asm__("__start_moray_trip") __attribute__((visibility("hidden")));
extern const char trip_end[] __asm__("__stop_moray_trip") __attribute__((visibility("hidden")));

/** Asks for the lines from `from` to before `to`, and does not wait for them. */
static inline void trip_fetch(const volatile void *from, const volatile void *to)
{
    for (const volatile char *at = from; at < (const volatile char *)to; at += TRIP_LINE_BYTES)
        __builtin_prefetch((const char *)at, 0, 2);
}

/** Asks for one line of each page of the code. All lines would hold up those that the kernel needs. */
static inline void trip_fetch_pages(void)
{
    for (const char *at = trip_begin; at < trip_end; at += TRIP_PAGE_BYTES)
        __builtin_prefetch(at, 0, 2);
}

#endif
