#include "child.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void child_tell(struct child *child, const char *format, ...)
{
    size_t used = strlen(child->extra);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(child->extra + used, sizeof child->extra - used, format, arguments);
    va_end(arguments);
}

void child_fail(const char *what)
{
    const char *story;

    moray_last(&story);
    fprintf(stderr, "bench: %s is not so: %s\n", what, story);
    exit(1);
}

static const struct child_measure *find(const char *name)
{
    static const struct child_measure *const all[] = {measures_of_tasks, measures_of_objects,
                                                      measures_of_jobs};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        for (const struct child_measure *measure = all[i]; measure->name; measure++)
            if (!strcmp(measure->name, name))
                return measure;
    return NULL;
}

int child_main(int argc, char **argv)
{
    struct child child = {.quick = argc > 3 && !strcmp(argv[3], "quick")};
    const struct child_measure *measure = argc > 2 ? find(argv[2]) : NULL;
    char line[64];

    if (!measure) {
        fprintf(stderr, "bench: nothing is called %s here\n", argc > 2 ? argv[2] : "");
        return 2;
    }
    child.name = measure->name;
    moray_init(&argc, &argv); /* other ranks stay here */
    while (fgets(line, sizeof line, stdin) && !strncmp(line, "run", 3)) {
        child.extra[0] = 0;
        double value = measure->run(&child);
        printf("value=%.9f%s\n", value, child.extra);
        fflush(stdout);
    }
    return moray_finalize();
}
