/* c: result of make is a moray_ref: return moray_pass
 * c++: result of make is a moray_ref: return moray_pass */
#include "common.h"
MORAY_TASK(moray_ref, make)
{
    return moray_call(add, 1, 2);
}
