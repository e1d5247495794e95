/* Programs that must compile, in C and C++, without a warning. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common.h"

enum colour { RED, GREEN };

MORAY_DEFINE_TASK(int64_t, add, (int64_t, a), (int64_t, b))
{
    return a + b;
}

MORAY_TASK(void, empty)
{
}

MORAY_TASK(bool, many, (char, a), (bool, b), (enum colour, c), (float, d), (unsigned, e),
           (point, f), (moray_view, g), (moray_future, h), (counter_actor, i), (uint8_t, j))
{
    return a && b && c && d > 0 && e && f.x > 0 && g.size && h.ref.index && i.handle.index && j;
}

MORAY_DEFINE_CONSTRUCTOR(counter, (int64_t, start))
{
    self->value = start;
}
MORAY_DEFINE_METHOD(int64_t, counter, increment, (int64_t, by))
{
    return self->value += by;
}

int main(int argc, char **argv)
{
    struct moray_options options;
    point p = {1, 2};
    char c = 'c';
    float f = 1;
    moray_view v = {0, 0, {0, 0, 0, 0}};

    memset(&options, 0, sizeof(options));
    options.workers = 2;
    if (moray_init_with(&argc, &argv, options))
        return 1;
    moray_ref r = moray_call(add, 'a', true);
    counter_actor a = moray_new_with((.name = "x", .restarts = 1), counter, r);
    moray_call(empty);
    moray_call_with((.attempts = MORAY_ENDLESS, .cores = 2), empty);
    moray_call(many, c, 1, GREEN, 1, 2u, p, v, moray_pass(r), a, 200);
    moray_call(many, r, r, r, r, r, r, r, moray_pass(r), r, r);
    moray_call(many, 1, c, RED, f, argc, p, moray_call(add, r, moray_call(add, 1, r)),
               moray_pass(r), a, c);
    moray_call(counter_increment, a, moray_take_as(int64_t, moray_call(add, 1, 2)));
    moray_release(r);
    return moray_finalize();
}
