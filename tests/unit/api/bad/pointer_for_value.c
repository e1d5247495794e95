/* c: argument 1 of add: wrong kind of value
 * c++: wrong kind of value for this argument */
#include "common.h"
moray_ref wrong(const char *text)
{
    return moray_call(add, text, 2);
}
