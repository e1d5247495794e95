/* What the programs beside it call, rightly or wrongly. */
#include <stdint.h>

#include "moray.h"

typedef struct {
    double x, y;
} point;
typedef struct {
    double x, y;
} other;

MORAY_DECLARE_TASK(int64_t, add, (int64_t, a), (int64_t, b));
MORAY_DECLARE_TASK(double, norm2, (point, p));
MORAY_DECLARE_TASK(double, total, (moray_view, xs));
MORAY_DECLARE_TASK(int, forward, (moray_future, f));
MORAY_ACTOR(counter, (int64_t, value));
MORAY_DECLARE_CONSTRUCTOR(counter, (int64_t, start));
MORAY_DECLARE_METHOD(int64_t, counter, increment, (int64_t, by));
MORAY_DECLARE_ACTOR(model);
