/* c: parameter text of print is a pointer: pass a view or a struct
 * c++: parameter text of print is a pointer: pass a view or a struct */
#include "common.h"
MORAY_TASK(int, print, (const char *, text))
{
    return text[0];
}
