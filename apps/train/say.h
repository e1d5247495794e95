/**
 * What the user reads: whole lines, each in one write(2), so that a launcher which joins the output
 * of many ranks cannot break them; and one progress line that is rewritten in place.
 * Threads: one caller at a time.
 */
#ifndef TRAIN_SAY_H
#define TRAIN_SAY_H

#include <stdbool.h>

/** Whether a progress line is wanted: MORAY_PROGRESS=on or off decides; else only where a person
 *  looks on, that is on a terminal without a launcher (mpirun gives each rank a terminal). */
bool say_progress_wanted(void);

/** Writes a line to standard output; removes the progress line first. */
void say_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Writes a text of several lines to standard output. */
void say_text(const char *text);

/** Writes "train: …" to standard error and returns -1. Under a launcher only rank 0 speaks, since
 *  before the runtime starts every rank meets the same error. */
int say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Rewrites the progress line if one is wanted. Cheap: at most ten times a second it writes. */
void say_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Seconds since some fixed moment. */
double say_clock(void);

#endif
