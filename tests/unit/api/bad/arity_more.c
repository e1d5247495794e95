/* c: add_takes_3_arguments
 * c++: add_takes_3_arguments */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call(add, 1, 2, 3);
}
