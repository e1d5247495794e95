/**
 * The smallest Moray that can be: what lies beneath the macros of moray.h, in one process, at once.
 * A call runs before it returns; objects are never freed. It checks what it is given by exact size and
 * type, as the runtime does, and remembers the last call for the tests to look at.
 */
#ifndef MORAY_TESTS_UNIT_API_FAKE_H
#define MORAY_TESTS_UNIT_API_FAKE_H

#include "moray.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fake_last { /* the last call that was submitted */
    const struct moray_function *function;
    const struct moray_site *site;
    struct moray_task_options options;
    struct moray_actor_options actor_options;
    int has_options;
    struct moray_argument arguments[MORAY_PARAMETERS_MAX];
    unsigned count;
};
extern struct fake_last fake_last;

extern unsigned fake_functions, fake_classes, fake_insides; /* registered before main */
extern const struct moray_insides *fake_last_insides;

/** The text of the last moray_fail, "" since the last fake_forget(). */
const char *fake_story(void);
void fake_forget(void);

#define EXPECT(condition) fake_expect((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
void fake_expect(int held, const char *condition, const char *file, int line);
int fake_failures(void);

#ifdef __cplusplus
}
#endif

#endif
