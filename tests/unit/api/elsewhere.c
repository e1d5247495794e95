#include "calls.h"

MORAY_DEFINE_TASK(double, away, (point, p), (double, factor))
{
    return (p.x + p.y + p.z + p.n) * factor;
}

MORAY_DEFINE_TASK_RESULTS(parts, ((double, whole), (point, rest)), (double, value))
{
    return (parts_results){(double)(int64_t)value, {value, 2, 3, 4}};
}

MORAY_DEFINE_TASK(void, nothing_away)
{
    moray_fail(MORAY_FAILED, "ran away");
}

MORAY_DEFINE_ACTOR(box, (int64_t, sum), (double, scale));
MORAY_DEFINE_CONSTRUCTOR(box, (int64_t, start), (double, scale))
{
    self->sum = start;
    self->scale = scale;
}

MORAY_DEFINE_METHOD(int64_t, box, add, (int64_t, by))
{
    return self->sum += (int64_t)((double)by * self->scale);
}
