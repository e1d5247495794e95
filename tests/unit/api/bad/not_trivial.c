/* c++: parameter text of print is not trivially copyable */
#include "common.h"
#include <string>
MORAY_TASK(int, print, (std::string, text))
{
    return (int)text.size();
}
