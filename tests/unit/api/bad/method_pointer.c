/* c: parameter p of counter_set is a pointer
 * c++: parameter p of counter_set is a pointer */
#include "common.h"
MORAY_METHOD(void, counter, set, (int *, p))
{
    self->value = *p;
}
