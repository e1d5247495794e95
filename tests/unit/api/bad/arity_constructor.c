/* c: counter_constructor_takes_2_arguments
 * c++: counter_constructor_takes_2_arguments */
#include "common.h"
counter_actor wrong(void)
{
    return moray_new(counter, 1, 2);
}
