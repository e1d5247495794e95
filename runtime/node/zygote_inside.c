#include "node/zygote_inside.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/arena/window.h"

/* ---- Descriptors ---- */

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/* Closes first … last; kernels before 5.9 have no call for it. */
static void close_from_to(unsigned first, unsigned last)
{
    if (!close_range(first, last, 0))
        return;
    DIR *open_ones = opendir("/proc/self/fd");
    for (struct dirent *entry; open_ones && (entry = readdir(open_ones));) {
        unsigned fd = (unsigned)atoi(entry->d_name);
        if (entry->d_name[0] != '.' && fd >= first && fd <= last &&
            fd != (unsigned)dirfd(open_ones))
            close((int)fd);
    }
    if (open_ones)
        closedir(open_ones);
}

void descriptors_close_but(const struct zygote_options *options, const int *fds, uint32_t fd_count)
{
    enum { KEPT_MAX = WINDOW_COUNT_MAX + 128 };
    int kept[KEPT_MAX];
    size_t count = 0;
    unsigned from = 3;

    for (uint32_t i = 0; i < fd_count && count < KEPT_MAX; i++)
        kept[count++] = fds[i];
    for (uint32_t i = 0; i < options->keep_fd_count && count < KEPT_MAX; i++)
        kept[count++] = options->keep_fds[i];
    for (uint32_t i = 0; i < window_map.count && count < KEPT_MAX; i++)
        kept[count++] = window_map.windows[i].fd;
    qsort(kept, count, sizeof(*kept), by_value);
    for (size_t i = 0; i < count; i++) {
        if (kept[i] < (int)from)
            continue;
        if ((unsigned)kept[i] > from)
            close_from_to(from, (unsigned)kept[i] - 1);
        from = (unsigned)kept[i] + 1;
    }
    close_from_to(from, ~0U);
}

/* ---- Children ---- */

/* Kills the children listed in one file of /proc; returns how many there were. */
static size_t kill_listed(const char *path, bool (*is_ours)(void *, pid_t), void *context)
{
    size_t count = 0;
    int pid;
    FILE *list = fopen(path, "re");

    while (list && fscanf(list, "%d", &pid) == 1) {
        if (is_ours && !is_ours(context, pid))
            continue;
        count++;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, WNOHANG);
    }
    if (list)
        fclose(list);
    return count;
}

static size_t kill_children(bool (*is_ours)(void *, pid_t), void *context)
{
    size_t count = 0;
    char path[64];
    DIR *tasks = opendir("/proc/self/task");

    for (struct dirent *entry; tasks && (entry = readdir(tasks));)
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "/proc/self/task/%.16s/children", entry->d_name);
            count += kill_listed(path, is_ours, context);
        }
    if (tasks)
        closedir(tasks);
    return count;
}

bool children_sweep(bool (*is_ours)(void *context, pid_t pid), void *context, unsigned limit_ms)
{
    uint64_t end_ms = wire_now_ms() + limit_ms;
    unsigned pause_us = 100;

    while (kill_children(is_ours, context)) {
        if (wire_now_ms() >= end_ms)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = pause_us * 1000}, NULL);
        pause_us = pause_us < 5000 ? pause_us * 2 : 5000;
    }
    return true;
}
