/* What another file declares and this one may call: tasks and an actor of elsewhere.c. */
#ifndef MORAY_TESTS_UNIT_API_CALLS_H
#define MORAY_TESTS_UNIT_API_CALLS_H

#include "fake.h"

typedef struct {
    double x, y, z;
    int32_t n;
} point; /* more than 16 bytes */

MORAY_DECLARE_TASK(double, away, (point, p), (double, factor));
MORAY_DECLARE_TASK_RESULTS(parts, ((double, whole), (point, rest)), (double, value));
MORAY_DECLARE_TASK(void, nothing_away);
MORAY_DECLARE_ACTOR(box);
MORAY_DECLARE_CONSTRUCTOR(box, (int64_t, start), (double, scale));
MORAY_DECLARE_METHOD(int64_t, box, add, (int64_t, by));

#endif
