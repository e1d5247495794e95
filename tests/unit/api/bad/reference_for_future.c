/* c: argument 1 of forward: a reference is handed on unresolved with moray_pass
 * c++: a reference is handed on unresolved with moray_pass */
#include "common.h"
moray_ref wrong(moray_ref r)
{
    return moray_call(forward, r);
}
