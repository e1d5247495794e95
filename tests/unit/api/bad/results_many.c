/* c: eleven has more than 10 results: return a struct
 * c++: eleven has more than 10 results: return a struct */
#include "common.h"
MORAY_TASK_RESULTS(eleven,
                   ((int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g), (int, h),
                    (int, i), (int, j), (int, k)),
                   (int, x))
{
    return (eleven_results){x, x, x, x, x, x, x, x, x, x, x};
}
