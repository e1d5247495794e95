#include "client/stop.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "moray.h"

static void (*own_run)(void *self, const void *const *arguments, void *const *results);
static const char *name;
static bool has_stopped; /* this process */

static bool is_traced(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[256];
    int tracer = 0;

    if (!status)
        return true; /* cannot be known: do not stop for ever */
    while (fgets(line, sizeof(line), status) && sscanf(line, "TracerPid: %d", &tracer) != 1)
        continue;
    fclose(status);
    return tracer != 0;
}

static void stop_and_run(void *self, const void *const *arguments, void *const *results)
{
    static const struct timespec look_again = {.tv_nsec = 50 * 1000 * 1000};

    if (!has_stopped) {
        has_stopped = true;
        fprintf(stderr, "moray: process %d waits before %s: gdb -p %d, then continue\n",
                (int)getpid(), name, (int)getpid());
        while (!is_traced())
            nanosleep(&look_again, NULL);
        raise(SIGTRAP); /* gdb shows this place: the next call is the function's */
    }
    own_run(self, arguments, results);
}

enum moray_code stop_settle(struct moray_function **functions, uint32_t count,
                            struct moray_error *error)
{
    name = getenv("MORAY_JOB_GDB");
    if (!name || !*name)
        return MORAY_OK;
    for (uint32_t i = 0; i < count; i++)
        if (!strcmp(functions[i]->name, name)) {
            own_run = functions[i]->run;
            functions[i]->run = stop_and_run;
            return MORAY_OK;
        }
    return error_set(error, MORAY_NOT_FOUND,
                     "--gdb %s: the program has no task or method of that name", name);
}
