#include "say.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bool progress_shown;

static void write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written <= 0)
            return; /* nobody reads any more: training goes on */
        text += written;
        length -= (size_t)written;
    }
}

static void vsay(int fd, const char *before, const char *after, const char *format, va_list values)
{
    char text[4096];
    int used = snprintf(text, sizeof text, "%s", before);

    used += vsnprintf(text + used, sizeof text - (size_t)used - 8, format, values);
    if ((size_t)used > sizeof text - 9)
        used = sizeof text - 9; /* cut, but still one line */
    used += snprintf(text + used, sizeof text - (size_t)used, "%s", after);
    write_all(fd, text, (size_t)used);
}

static void progress_clear(void)
{
    if (progress_shown)
        write_all(STDOUT_FILENO, "\r\033[K", 4);
    progress_shown = false;
}

/* The number that a launcher gave this process, or NULL. */
static const char *launcher_rank(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK",
                                        "SLURM_PROCID"};

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (getenv(names[i]))
            return getenv(names[i]);
    return NULL;
}

bool say_progress_wanted(void)
{
    const char *setting = getenv("MORAY_PROGRESS");

    if (setting && strcmp(setting, "on") == 0)
        return true;
    if (setting && strcmp(setting, "off") == 0)
        return false;
    return isatty(STDOUT_FILENO) && !launcher_rank();
}

void say_line(const char *format, ...)
{
    va_list values;

    progress_clear();
    va_start(values, format);
    vsay(STDOUT_FILENO, "", "\n", format, values);
    va_end(values);
}

void say_text(const char *text)
{
    progress_clear();
    write_all(STDOUT_FILENO, text, strlen(text));
}

int say_error(const char *format, ...)
{
    const char *rank = launcher_rank();
    va_list values;

    progress_clear();
    if (rank && strcmp(rank, "0") != 0)
        return -1;
    va_start(values, format);
    vsay(STDERR_FILENO, "train: ", "\n", format, values);
    va_end(values);
    return -1;
}

void say_progress(const char *format, ...)
{
    static double next;
    static int wanted = -1;
    va_list values;

    if (wanted < 0)
        wanted = say_progress_wanted();
    if (!wanted || say_clock() < next)
        return;
    next = say_clock() + 0.1;
    va_start(values, format);
    vsay(STDOUT_FILENO, "\r", "\033[K", format, values);
    va_end(values);
    progress_shown = true;
}

double say_clock(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
