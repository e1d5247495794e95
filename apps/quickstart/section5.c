/** The program of the design brief, section 5, word for word. Prints 10 2 3. */
/* clang-format off */
#include <inttypes.h>
#include <stdio.h>
#include <moray.h>

typedef struct { double x, y; } point;

MORAY_TASK(int64_t, add, (int64_t, a), (int64_t, b)) { return a + b; }
MORAY_TASK(double, norm2, (point, p)) { return p.x * p.x + p.y * p.y; }
MORAY_TASK(double, total, (moray_view, xs), (double, scale))         /* a view: an object read in place */
{
    const double *x = xs.data, *end = x + xs.size / sizeof *x;
    double sum = 0;
    while (x < end) sum += *x++;
    return sum * scale;
}
MORAY_TASK_RESULTS(divide, ((int64_t, quot), (int64_t, rem)), (int64_t, a), (int64_t, b))
{ return (divide_results){ a / b, a % b }; }                         /* two independent objects */

MORAY_ACTOR(counter, (int64_t, value));                              /* its state */
MORAY_METHOD(int64_t, counter, increment, (int64_t, by)) { return self->value += by; }

int main(int argc, char **argv)
{
    moray_init(&argc, &argv);                    /* the driver goes on; other ranks serve here until the end */
    moray_ref three = moray_call(add, 1, 2);
    moray_ref ten = moray_call(add, three, 7);                       /* a future as an argument: a data edge */
    double data[3] = { 1, 2, 3 };
    moray_ref sum = moray_call_with((.cores = 1, .name = "sum"), total, moray_put(data, sizeof data), 0.5);
    divide_refs d = moray_call(divide, 17, three);                   /* d.quot and d.rem are references */
    counter_actor c = moray_new(counter);                            /* a handle of its own type */
    moray_ref v = moray_call(counter_increment, c, d.rem);           /* a method is called like a task */
    printf("%" PRId64 " %" PRId64 " %g\n", moray_take_as(int64_t, ten), moray_take_as(int64_t, v), moray_take_as(double, sum));
    return moray_finalize();
}
