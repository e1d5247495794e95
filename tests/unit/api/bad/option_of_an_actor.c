/* c: no member named .*restarts|field designator 'restarts'
 * c++: no member named .*restarts */
#include "common.h"
moray_ref wrong(void)
{
    return moray_call_with((.restarts = 3), add, 1, 2);
}
