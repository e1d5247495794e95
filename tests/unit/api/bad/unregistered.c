/* c: subtract_takes_2_arguments
 * c++: subtract_takes_2_arguments */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call(subtract, 1, 2);
}
