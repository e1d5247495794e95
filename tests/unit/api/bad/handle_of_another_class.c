/* c: argument 1 of counter_increment: wrong kind of value
 * c++: wrong kind of value for this argument */
#include "common.h"
moray_ref wrong(model_actor m)
{
    return moray_call(counter_increment, m, 1);
}
