/* c: argument 1 of total: wrong kind of value
 * c++: wrong kind of value for this argument */
#include "common.h"
moray_ref wrong(double *x)
{
    return moray_call(total, x);
}
