/* c: argument 2 of add: wrong kind of value
 * c++: wrong kind of value for this argument */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call(add, 1, 2.5);
}
