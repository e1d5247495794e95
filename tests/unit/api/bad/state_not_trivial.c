/* c++: the state of list is not trivially copyable */
#include "common.h"
#include <vector>
MORAY_ACTOR(list, (std::vector<int>, items));
