/* c: result value of name is a pointer: return a struct or a moray_buffer
 * c++: result value of name is a pointer: return a struct or a moray_buffer */
#include "common.h"
MORAY_TASK(const char *, name)
{
    return "x";
}
