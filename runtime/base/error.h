/**
 * Errors: a code, and the story of what happened. Who sees a failure first writes the story, once;
 * callers pass the code up.
 */
#ifndef MORAY_BASE_ERROR_H
#define MORAY_BASE_ERROR_H

#include "moray.h"

struct moray_error {
    enum moray_code code;
    const char *file; /* where in Moray the story was written; static */
    int line;
    char text[512]; /* what happened, where, what to do */
};

#define MORAY_MUST_CHECK __attribute__((warn_unused_result))

/** Writes the story into `error`, which may be NULL, and returns `code`, so that set-and-return is
 *  one line. Threads: any. */
#define error_set(error, code, ...) error_set_at(error, code, __FILE__, __LINE__, __VA_ARGS__)
enum moray_code error_set_at(struct moray_error *error, enum moray_code code, const char *file,
                             int line, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/** The name of a code ("MORAY_FULL") and its one-line meaning; static strings. Threads: any. */
const char *error_name(enum moray_code code);
const char *error_meaning(enum moray_code code);

#endif
