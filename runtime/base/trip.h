/**
 * The code that a task needs on its way there and back lies together, on few pages.
 *
 * After some milliseconds in which nothing ran here, each line of it that is missed costs some 20 ns, and
 * each page, of code or data, 50 to 150: more than all instructions of the trip.
 */
#ifndef MORAY_BASE_TRIP_H
#define MORAY_BASE_TRIP_H

#include <stdbool.h>

/* Before the definition of a function on the way, and of one that is not but would come along if it were
 * inlined. */
#define ON_TRIP __attribute__((hot))
#define OFF_TRIP __attribute__((noinline, cold))
/* if (RARELY(condition)): what not every task needs lies elsewhere, not between the lines of those that
 * do. The compiler moves what leads to a call of a cold function, and nothing else, out of the way. */
#define RARELY(condition) (__builtin_expect(!!(condition), 0) && (off_trip(), true))
#define USUALLY(condition) (!RARELY(!(condition)))
/* Before a variable that is needed on the way. */
#define TRIP_DATA __attribute__((section("moray_trip_data")))

__attribute__((cold, noinline, unused)) static void off_trip(void)
{
    __asm__ volatile("");
}

#endif
