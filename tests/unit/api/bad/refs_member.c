/* c: x of point is neither a reference nor a handle
 * c++: x of point is neither a reference nor a handle */
#include "common.h"
MORAY_REFS(point, x);
