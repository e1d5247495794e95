/* c: no member named .*colour|does not refer to any field|field designator 'colour'
 * c++: no member named .*colour */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call_with((.colour = 3), add, 1, 2);
}
