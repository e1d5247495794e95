#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name, *meaning;
} codes[] = {
#define X(name, text) {#name, text},
    MORAY_CODES(X)
#undef X
};

enum moray_code error_set_at(struct moray_error *error, enum moray_code code, const char *file,
                             int line, const char *format, ...)
{
    if (error) {
        va_list arguments;
        *error = (struct moray_error){.code = code, .line = line, .file = file};
        va_start(arguments, format);
        vsnprintf(error->text, sizeof(error->text), format, arguments);
        va_end(arguments);
    }
    return code;
}

const char *error_name(enum moray_code code)
{
    return (unsigned)code < sizeof(codes) / sizeof(*codes) ? codes[code].name : "MORAY_UNKNOWN";
}

const char *error_meaning(enum moray_code code)
{
    return (unsigned)code < sizeof(codes) / sizeof(*codes) ? codes[code].meaning : "unknown code";
}
