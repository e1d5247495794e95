/* c: parameter r of take is a moray_ref, which would be resolved: .* use moray_future
 * c++: parameter r of take is a moray_ref, which would be resolved: .* use moray_future */
#include "common.h"
MORAY_TASK(int, take, (moray_ref, r))
{
    return (int)r.index;
}
