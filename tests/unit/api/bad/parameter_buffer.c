/* c: parameter b of fill is a moray_buffer, which is for results
 * c++: parameter b of fill is a moray_buffer, which is for results */
#include "common.h"
MORAY_TASK(int, fill, (moray_buffer, b))
{
    return (int)b.size;
}
