/* c: counter_increment_takes_3_arguments
 * c++: counter_increment_takes_3_arguments */
#include "common.h"
moray_ref wrong(counter_actor c)
{
    return moray_call(counter_increment, c, 1, 2);
}
