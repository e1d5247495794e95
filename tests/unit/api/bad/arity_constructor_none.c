/* c: the constructor of counter takes another number of arguments
 * c++: the constructor of this class takes another number of arguments */
#include "common.h"
counter_actor wrong(void)
{
    return moray_new(counter);
}
