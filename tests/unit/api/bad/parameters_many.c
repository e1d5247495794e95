/* c: eleven has more than 10 parameters: pass a struct
 * c++: eleven has more than 10 parameters: pass a struct */
#include "common.h"
MORAY_TASK(int, eleven, (int, a), (int, b), (int, c), (int, d), (int, e), (int, f), (int, g),
           (int, h), (int, i), (int, j), (int, k))
{
    return a + b + c + d + e + f + g + h + i + j + k;
}
