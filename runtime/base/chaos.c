#include "base/chaos.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const struct unit {
    const char *name;
    uint64_t ns;
} units[] = {{"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};

enum { MEAN_S_MAX = 1000000 };

/* Takes `word` from the beginning of the text, if it begins so. */
static bool take(const char **text, const char *word)
{
    size_t length = strlen(word);
    bool is = strncmp(*text, word, length) == 0;

    *text += is ? length : 0;
    return is;
}

static bool take_number(const char **text, uint64_t most, uint64_t *out)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    *out = strtoull(*text, &end, 10);
    *text = end;
    return errno == 0 && *out <= most;
}

static bool take_time(const char **text, uint64_t *ns)
{
    const uint64_t most_ns = MEAN_S_MAX * UINT64_C(1000000000);

    if (!take_number(text, most_ns, ns) || *ns == 0)
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(*units); i++)
        if (take(text, units[i].name)) {
            bool fits = *ns <= most_ns / units[i].ns;
            *ns *= fits ? units[i].ns : 1;
            return fits;
        }
    return false;
}

bool chaos_read(const char *text, struct chaos *out)
{
    uint64_t mean_ns = 0, seed = 1;

    if (*text && (!take(&text, "worker=") || !take_time(&text, &mean_ns)))
        return false;
    if (take(&text, ",seed=") && !take_number(&text, UINT32_MAX, &seed))
        return false;
    if (*text)
        return false;
    *out = (struct chaos){.mean_ns = mean_ns, .seed = mean_ns ? (uint32_t)seed : 0};
    return true;
}
