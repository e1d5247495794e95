/* c: argument 1 of norm2: wrong kind of value
 * c++: wrong kind of value for this argument */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call(norm2, 1);
}
