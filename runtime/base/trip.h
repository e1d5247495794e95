/**
 * The code that a task needs on its way there and back lies together, on few pages.
 *
 * After some milliseconds in which nothing ran here, each line of it that is missed costs some 20 ns, and
 * each page, of code or data, 50 to 150: more than all instructions of the trip.
 */
#ifndef MORAY_BASE_TRIP_H
#define MORAY_BASE_TRIP_H

/* Before the definition of a function on the submitter's way, on the worker's, on that of who waits; and
 * of one that would come along if it were inlined. */
#define ON_TRIP_THERE __attribute__((section("moray_trip_there")))
#define ON_TRIP __attribute__((section("moray_trip_run")))
#define ON_TRIP_BACK __attribute__((section("moray_trip_back")))
#define OFF_TRIP __attribute__((noinline))
/* Before a variable that is needed on the way. */
#define TRIP_DATA __attribute__((section("moray_trip_data")))

#endif
