// The same calls through the C++ half of moray.h.
#include "calls.c"
