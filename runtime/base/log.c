#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LINE_BYTES_MAX = 2200, TEXT_BYTES_MAX = 2000 };

int log_shown = LOG_WARNING;
static int log_rank = -1;
static int log_descriptor = STDERR_FILENO;
static char log_host[64];

void log_start(enum log_level shown, int rank)
{
    log_shown = (int)shown;
    log_rank = rank;
    if (gethostname(log_host, sizeof(log_host)) != 0)
        strcpy(log_host, "?");
    log_host[sizeof(log_host) - 1] = '\0';
}

void log_to(int descriptor)
{
    log_descriptor = descriptor;
}

/* Writes "moray: rank R host H pid P: error: " and returns its length. */
static size_t write_prefix(char *line, size_t room, enum log_level level)
{
    static const char *const marks[] = {"error: ", "warning: ", "", ""};
    int length = 0;

    if (log_rank >= 0)
        length = snprintf(line, room, "moray: rank %d host %s pid %d: %s", log_rank, log_host,
                          (int)getpid(), marks[level]);
    else
        length = snprintf(line, room, "moray: pid %d: %s", (int)getpid(), marks[level]);
    return (size_t)length;
}

void log_write(enum log_level level, const char *format, ...)
{
    char line[LINE_BYTES_MAX];
    int before = errno;
    size_t start = write_prefix(line, sizeof(line), level), length;
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + start, TEXT_BYTES_MAX, format, arguments);
    va_end(arguments);
    length = start + strlen(line + start);
    for (char *at = line + start; at < line + length; at++)
        if (*at == '\n')
            *at = ' ';
    line[length++] = '\n';
    /* One write, not a loop: the rest of a line that was cut would mix with the lines of others. */
    ssize_t written = write(log_descriptor, line, length);
    (void)written;
    errno = before;
}
