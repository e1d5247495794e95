/**
 * Standard input, output and error are there, or what is opened next would get their numbers, and what
 * the program then prints would go into it: into the arena's memory, say.
 */
#ifndef MORAY_BASE_STREAMS_H
#define MORAY_BASE_STREAMS_H

#include <fcntl.h>
#include <unistd.h>

/* In place of a closed one stands what reads as empty and refuses what is written, as that did. Called
 * before anything else is opened. */
static inline void streams_open(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDONLY);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

#endif
