/**
 * What Moray itself says: on standard error, a whole line in one write(2), so that lines of many
 * processes never mix.
 *
 *     moray: rank 2 host n17 pid 4711: the text
 *
 * By level: ERROR, the job or a part of it failed; WARNING, something the user should change; INFO, per
 * object (a process started, a rank joined); DEBUG, per operation. Quiet from INFO on unless asked.
 * Sentences, no `name=value`. A signal handler may not log.
 * Threads: any, once log_start() has been called; before it lines have no rank. Cost of a line that is
 * not shown: one load and one comparison; its arguments are not computed.
 */
#ifndef MORAY_BASE_LOG_H
#define MORAY_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* The level up to which lines are shown; written by log_start() alone. */
extern int log_shown;

/** Sets the level and who speaks. `rank` < 0: not known yet. Called at start, and by each child process
 *  after its fork. Threads: one, before others log. */
void log_start(enum log_level shown, int rank);

/** Where lines go; 2, standard error, if it was never called. For tests, and for a process whose
 *  standard error is a pipe to its agent. */
void log_to(int descriptor);

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_DEBUG, __VA_ARGS__)
#define log_line(level, ...) ((int)(level) <= log_shown ? log_write(level, __VA_ARGS__) : (void)0)

/** Writes the line whatever the level; a text beyond 2000 bytes is cut, a newline within it is shown as
 *  a blank. Keeps errno. Never fails: a line that cannot be written is lost. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
