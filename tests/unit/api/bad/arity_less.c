/* c: add_takes_1_arguments
 * c++: add_takes_1_arguments */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call(add, 1);
}
