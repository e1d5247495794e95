/* c: argument 1 of counter_increment: a method needs the handle of the actor
 * c++: a method needs the handle of the actor */
#include "common.h"
moray_ref wrong(moray_ref r)
{
    return moray_call(counter_increment, r, 1);
}
