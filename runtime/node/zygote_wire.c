#include "node/zygote_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <dirent.h>

#include "store/arena/window.h"

int wire_send(int socket, const void *message, size_t message_bytes, const int *fds,
              uint32_t fd_count, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = (void *)message, .iov_len = message_bytes};
    struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t sent;

    if (fd_count) {
        memset(&control, 0, sizeof(control));
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(sizeof(int) * fd_count);
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int) * fd_count);
        memcpy(CMSG_DATA(rights), fds, sizeof(int) * fd_count);
    }
    do
        sent = sendmsg(socket, &header, flags | MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

static void take_fds(struct msghdr *header, int *fds)
{
    uint32_t count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t came = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < came; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (count < WIRE_FDS_MAX)
                fds[count++] = fd;
            else
                close(fd);
        }
    }
}

int wire_receive(int socket, void *message, size_t message_bytes, int *fds, int flags)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int) * WIRE_FDS_MAX)];
    } control;
    struct iovec part = {.iov_base = message, .iov_len = message_bytes};
    struct msghdr header = {.msg_iov = &part,
                            .msg_iovlen = 1,
                            .msg_control = control.bytes,
                            .msg_controllen = sizeof(control.bytes)};
    ssize_t got;

    for (int i = 0; i < WIRE_FDS_MAX; i++)
        fds[i] = -1;
    do
        got = recvmsg(socket, &header, flags | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == ECONNRESET ? 0 : -1;
    take_fds(&header, fds);
    if (!got)
        return 0;
    if ((size_t)got == message_bytes && !(header.msg_flags & MSG_TRUNC))
        return 1;
    for (int i = 0; i < WIRE_FDS_MAX; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    errno = EBADMSG;
    return -1;
}

uint64_t wire_now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- Descriptors ---- */

static int by_value(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
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
            close_range(from, (unsigned)kept[i] - 1, 0);
        from = (unsigned)kept[i] + 1;
    }
    close_range(from, ~0U, 0);
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
