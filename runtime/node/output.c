#include "node/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    READ_BYTES = 64 << 10, /* of one read: what a pipe holds */
    READS_MAX = 16,        /* a call of output_poll: the agent has other work */
    FINISH_READS_MAX = 64, /* a pipe that a grandchild still fills is not read for ever */
    MARK_BYTES = OUTPUT_LABEL_BYTES + 48,
};

/* Where lines go: the rank's stdout or stderr. */
struct sink {
    int fd;          /* owned if it is our own opening of the file, else borrowed */
    bool is_own;     /* does not block */
    bool is_socket;  /* does not block by MSG_DONTWAIT */
    bool is_file;    /* never blocks for ever; cannot be watched */
    bool is_broken;  /* nobody reads: lines are dropped */
    bool is_watched; /* in the epoll for room */
    char *pending;   /* what could not be written yet, in order; owned */
    size_t pending_bytes, pending_room;
};

/* One pipe of a process. */
struct source {
    int fd; /* owned; -1: ended */
    bool is_paused;
    char *partial; /* the line that has not ended; owned, NULL: none */
    size_t partial_bytes, partial_room;
    uint64_t partial_since_ns;
};

struct printer {
    bool is_used;
    uint32_t incarnation;
    pid_t pid;
    struct source sources[2]; /* its stdout, its stderr */
    char label[OUTPUT_LABEL_BYTES];
};

struct output {
    struct output_options options;
    int epoll;
    struct sink sinks[2];
    struct printer *printers; /* by slot; owned */
    uint32_t printer_count;
    uint32_t partial_count; /* sources with an unfinished line */
    uint32_t paused_count;  /* sources that wait for room in their sink */
    char scratch[READ_BYTES];
};

/* ---- Sinks ---- */

/* A descriptor of our own that does not block, where the file can be opened once more: O_NONBLOCK on
 * the given one would change it for all who share it, printf in the driver included. A plain file
 * keeps the given one, whose position is shared. */
static void sink_open(struct sink *sink, int fd)
{
    struct stat file;
    char path[40];

    *sink = (struct sink){.fd = fd};
    if (fstat(fd, &file)) {
        sink->is_broken = true;
        return;
    }
    sink->is_file = S_ISREG(file.st_mode);
    sink->is_socket = S_ISSOCK(file.st_mode);
    if (!S_ISFIFO(file.st_mode) && !S_ISCHR(file.st_mode))
        return;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (own >= 0) {
        sink->fd = own;
        sink->is_own = true;
    }
}

static void sink_close(struct sink *sink)
{
    if (sink->is_own)
        close(sink->fd);
    free(sink->pending);
}

/* Writes without waiting. Returns the bytes taken, 0 when there is no room; -1: nobody reads. */
static ssize_t sink_try(struct sink *sink, const char *text, size_t bytes)
{
    struct pollfd room = {.fd = sink->fd, .events = POLLOUT};
    ssize_t took;

    if (!sink->is_own && !sink->is_socket && !sink->is_file) {
        /* could not be opened again: ask before, and write what surely fits a pipe with room */
        if (poll(&room, 1, 0) != 1 || !(room.revents & (POLLOUT | POLLERR)))
            return 0;
        bytes = bytes < 4096 ? bytes : 4096;
    }
    do
        took = sink->is_socket ? send(sink->fd, text, bytes, MSG_DONTWAIT | MSG_NOSIGNAL)
                               : write(sink->fd, text, bytes);
    while (took < 0 && errno == EINTR);
    if (took >= 0)
        return took;
    return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
}

static void sink_drop(struct sink *sink)
{
    sink->is_broken = true;
    sink->pending_bytes = 0;
}

static void sink_flush(struct sink *sink)
{
    size_t done = 0;

    while (done < sink->pending_bytes && !sink->is_broken) {
        ssize_t took = sink_try(sink, sink->pending + done, sink->pending_bytes - done);
        if (took < 0)
            sink_drop(sink);
        if (took <= 0)
            break;
        done += (size_t)took;
    }
    if (sink->is_broken || !done)
        return;
    sink->pending_bytes -= done;
    memmove(sink->pending, sink->pending + done, sink->pending_bytes);
}

static void sink_keep(struct sink *sink, const char *text, size_t bytes)
{
    if (sink->pending_bytes + bytes > sink->pending_room) {
        size_t room = (sink->pending_bytes + bytes) * 2;
        char *more = realloc(sink->pending, room);
        if (!more)
            return; /* no memory for a line: it is lost, the job goes on */
        sink->pending = more;
        sink->pending_room = room;
    }
    memcpy(sink->pending + sink->pending_bytes, text, bytes);
    sink->pending_bytes += bytes;
}

/* One write of one whole line; what does not fit now waits. */
static void sink_line(struct sink *sink, const char *text, size_t bytes)
{
    ssize_t took = 0;

    if (sink->is_broken)
        return;
    if (!sink->pending_bytes)
        took = sink_try(sink, text, bytes);
    if (took < 0)
        sink_drop(sink);
    else if ((size_t)took < bytes)
        sink_keep(sink, text + took, bytes - (size_t)took);
}

/* ---- Lines ---- */

static void write_line(struct output *output, const struct printer *printer, int stream,
                       const char *text, size_t bytes, bool add_newline)
{
    struct sink *sink = &output->sinks[stream];
    char mark[MARK_BYTES], small[1024], *line = small;
    int mark_bytes = 0;

    if (output->options.mark)
        mark_bytes = snprintf(mark, sizeof(mark), "(%s pid=%d, rank %u) ", printer->label,
                              (int)printer->pid, output->options.rank);
    if (!mark_bytes && !add_newline) {
        sink_line(sink, text, bytes);
        return;
    }
    size_t whole = (size_t)mark_bytes + bytes + add_newline;
    if (whole > sizeof(small) && !(line = malloc(whole)))
        return;
    memcpy(line, mark, (size_t)mark_bytes);
    memcpy(line + mark_bytes, text, bytes);
    if (add_newline)
        line[whole - 1] = '\n';
    sink_line(sink, line, whole);
    if (line != small)
        free(line);
}

static void end_partial(struct output *output, struct printer *printer, int stream)
{
    struct source *source = &printer->sources[stream];

    if (source->partial_bytes) {
        write_line(output, printer, stream, source->partial, source->partial_bytes, true);
        output->partial_count--;
    }
    free(source->partial);
    source->partial = NULL;
    source->partial_bytes = source->partial_room = 0;
}

/* Adds to the unfinished line; a line at the limit is written as it is. */
static void keep_partial(struct output *output, struct printer *printer, int stream,
                         const char *text, size_t bytes, uint64_t now_ns)
{
    struct source *source = &printer->sources[stream];
    size_t limit = output->options.line_bytes_max;

    while (bytes) {
        size_t part = limit - source->partial_bytes < bytes ? limit - source->partial_bytes : bytes;
        if (source->partial_bytes + part > source->partial_room) {
            size_t room = source->partial_bytes + part;
            room = room * 2 < limit ? room * 2 : limit;
            char *more = realloc(source->partial, room);
            if (!more) {
                end_partial(output, printer, stream); /* in pieces rather than lost */
                return;
            }
            source->partial = more;
            source->partial_room = room;
        }
        if (!source->partial_bytes) {
            source->partial_since_ns = now_ns;
            output->partial_count++;
        }
        memcpy(source->partial + source->partial_bytes, text, part);
        source->partial_bytes += part;
        text += part;
        bytes -= part;
        if (source->partial_bytes == limit)
            end_partial(output, printer, stream);
    }
}

/* Cuts what came into lines. Without marks, several lines may go out in one write: all whole. */
static void take_text(struct output *output, struct printer *printer, int stream, const char *text,
                      size_t bytes, uint64_t now_ns)
{
    struct source *source = &printer->sources[stream];
    const char *end = text + bytes, *newline;

    while (text < end && (newline = memchr(text, '\n', (size_t)(end - text)))) {
        size_t length = (size_t)(newline - text) + 1;
        if (source->partial_bytes || length - 1 > output->options.line_bytes_max) {
            keep_partial(output, printer, stream, text, length - 1, now_ns);
            end_partial(output, printer, stream);
        } else {
            write_line(output, printer, stream, text, length, false);
        }
        text += length;
    }
    if (text < end)
        keep_partial(output, printer, stream, text, (size_t)(end - text), now_ns);
}

/* ---- Sources ---- */

static uint64_t source_key(uint32_t slot, int stream)
{
    return (uint64_t)slot * 2 + (uint64_t)stream;
}

static void source_close(struct output *output, struct printer *printer, int stream)
{
    struct source *source = &printer->sources[stream];

    end_partial(output, printer, stream);
    if (source->fd >= 0)
        close(source->fd); /* leaves the epoll with it: nobody else has this end */
    source->fd = -1;
    output->paused_count -= source->is_paused;
    source->is_paused = false;
}

/* One read. Returns whether there may be more. */
static bool source_read(struct output *output, struct printer *printer, int stream, uint64_t now_ns)
{
    struct source *source = &printer->sources[stream];
    ssize_t got;

    if (source->fd < 0)
        return false;
    do
        got = read(source->fd, output->scratch, sizeof(output->scratch));
    while (got < 0 && errno == EINTR);
    if (got > 0) {
        take_text(output, printer, stream, output->scratch, (size_t)got, now_ns);
        return true;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        source_close(output, printer, stream);
    return false;
}

static bool is_full(const struct output *output, int stream)
{
    return output->sinks[stream].pending_bytes >= output->options.pending_bytes_max;
}

static void source_pause(struct output *output, uint32_t slot, int stream, bool pause)
{
    struct source *source = &output->printers[slot].sources[stream];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = source_key(slot, stream)};

    if (source->fd < 0 || source->is_paused == pause)
        return;
    epoll_ctl(output->epoll, pause ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, source->fd, &event);
    source->is_paused = pause;
    output->paused_count += pause ? 1 : -1;
}

/* Watches a sink for room while something waits for it; goes on reading once there is room. */
static void watch_sinks(struct output *output)
{
    for (int stream = 0; stream < 2; stream++) {
        struct sink *sink = &output->sinks[stream];
        bool wanted = sink->pending_bytes > 0 && !sink->is_file;
        struct epoll_event event = {.events = EPOLLOUT, .data.u64 = UINT64_MAX};
        if (wanted != sink->is_watched &&
            !epoll_ctl(output->epoll, wanted ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, sink->fd, &event))
            sink->is_watched = wanted;
        bool full = is_full(output, stream);
        for (uint32_t slot = 0; slot < output->printer_count; slot++)
            if (output->printers[slot].is_used &&
                output->printers[slot].sources[stream].is_paused && !full)
                source_pause(output, slot, stream, false);
    }
}

/* ---- The calls ---- */

static void set_defaults(struct output_options *options)
{
    if (!options->out_fd && !options->err_fd) {
        options->out_fd = STDOUT_FILENO;
        options->err_fd = STDERR_FILENO;
    }
    if (!options->line_bytes_max)
        options->line_bytes_max = 64 << 10;
    if (!options->pending_bytes_max)
        options->pending_bytes_max = 1 << 20;
    if (!options->partial_after_ms)
        options->partial_after_ms = 1000;
}

enum moray_code output_create(const struct output_options *options, struct output **out,
                              struct moray_error *error)
{
    *out = NULL;
    struct output *output = calloc(1, sizeof(*output));
    if (!output)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the output of workers");
    output->options = *options;
    set_defaults(&output->options);
    output->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (output->epoll < 0) {
        free(output);
        return error_set(error, MORAY_SYSTEM, "no epoll: %s", strerror(errno));
    }
    sink_open(&output->sinks[0], output->options.out_fd);
    sink_open(&output->sinks[1], output->options.err_fd);
    *out = output;
    return MORAY_OK;
}

int output_fd(const struct output *output)
{
    return output->epoll;
}

static bool make_room(struct output *output, uint32_t slot)
{
    uint32_t count = output->printer_count ? output->printer_count : 16;

    if (slot < output->printer_count)
        return true;
    while (count <= slot)
        count *= 2;
    struct printer *more = realloc(output->printers, count * sizeof(*more));
    if (!more)
        return false;
    memset(more + output->printer_count, 0, (count - output->printer_count) * sizeof(*more));
    output->printers = more;
    output->printer_count = count;
    return true;
}

static bool source_open(struct output *output, uint32_t slot, int stream, int fd)
{
    struct source *source = &output->printers[slot].sources[stream];
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = source_key(slot, stream)};

    *source = (struct source){.fd = fd};
    if (fd < 0) /* the zygote could not hand it over; what is printed there is lost */
        return true;
    return !fcntl(fd, F_SETFL, O_NONBLOCK) && !epoll_ctl(output->epoll, EPOLL_CTL_ADD, fd, &event);
}

enum moray_code output_add(struct output *output, uint16_t slot, uint32_t incarnation, pid_t pid,
                           int out_fd, int err_fd, const char *label, struct moray_error *error)
{
    int fds[2] = {out_fd, err_fd};

    if (!make_room(output, slot)) {
        for (int i = 0; i < 2; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        return error_set(error, MORAY_NO_MEMORY, "no memory for the output of slot %u", slot);
    }
    struct printer *printer = &output->printers[slot];
    if (printer->is_used) /* the end of the one before was not told: it is now */
        output_finish(output, slot, printer->incarnation, printer->sources[0].partial_since_ns);
    *printer = (struct printer){.is_used = true, .incarnation = incarnation, .pid = pid};
    output_label(output, slot, label);
    bool out_opened = source_open(output, slot, 0, out_fd);
    if (source_open(output, slot, 1, err_fd) && out_opened)
        return MORAY_OK;
    int saved = errno;
    for (int stream = 0; stream < 2; stream++)
        source_close(output, printer, stream);
    printer->is_used = false;
    return error_set(error, MORAY_SYSTEM, "cannot watch the output of slot %u: %s", slot,
                     strerror(saved));
}

void output_label(struct output *output, uint16_t slot, const char *label)
{
    if (slot < output->printer_count && output->printers[slot].is_used)
        snprintf(output->printers[slot].label, OUTPUT_LABEL_BYTES, "%s", label ? label : "");
}

/* A write to a closed stdout must end the stream, not the rank. */
static void hold_sigpipe(sigset_t *before, bool *was_pending)
{
    sigset_t sigpipe, pending;

    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    sigpending(&pending);
    *was_pending = sigismember(&pending, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &sigpipe, before);
}

static void release_sigpipe(const sigset_t *before, bool was_pending)
{
    sigset_t sigpipe;

    sigemptyset(&sigpipe);
    sigaddset(&sigpipe, SIGPIPE);
    if (!was_pending)
        while (sigtimedwait(&sigpipe, NULL, &(struct timespec){0}) < 0 && errno == EINTR)
            continue;
    pthread_sigmask(SIG_SETMASK, before, NULL);
}

static void end_old_partials(struct output *output, uint64_t now_ns)
{
    uint64_t after_ns = (uint64_t)output->options.partial_after_ms * 1000000;

    for (uint32_t slot = 0; slot < output->printer_count && output->partial_count; slot++)
        for (int stream = 0; stream < 2; stream++) {
            struct source *source = &output->printers[slot].sources[stream];
            if (source->partial_bytes && now_ns >= source->partial_since_ns + after_ns)
                end_partial(output, &output->printers[slot], stream);
        }
}

void output_poll(struct output *output, uint64_t now_ns)
{
    struct epoll_event events[READS_MAX];
    sigset_t before;
    bool was_pending;
    int count = epoll_wait(output->epoll, events, READS_MAX, 0);

    hold_sigpipe(&before, &was_pending);
    sink_flush(&output->sinks[0]);
    sink_flush(&output->sinks[1]);
    for (int i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)(events[i].data.u64 / 2);
        int stream = (int)(events[i].data.u64 % 2);
        if (events[i].data.u64 == UINT64_MAX || slot >= output->printer_count)
            continue;
        if (is_full(output, stream))
            source_pause(output, slot, stream, true);
        else
            source_read(output, &output->printers[slot], stream, now_ns);
    }
    end_old_partials(output, now_ns);
    watch_sinks(output);
    release_sigpipe(&before, was_pending);
}

uint64_t output_next_ns(const struct output *output)
{
    uint64_t after_ns = (uint64_t)output->options.partial_after_ms * 1000000, next_ns = UINT64_MAX;

    for (uint32_t slot = 0; slot < output->printer_count && output->partial_count; slot++)
        for (int stream = 0; stream < 2; stream++) {
            const struct source *source = &output->printers[slot].sources[stream];
            if (source->partial_bytes && source->partial_since_ns + after_ns < next_ns)
                next_ns = source->partial_since_ns + after_ns;
        }
    return next_ns;
}

void output_finish(struct output *output, uint16_t slot, uint32_t incarnation, uint64_t now_ns)
{
    sigset_t before;
    bool was_pending;

    if (slot >= output->printer_count || !output->printers[slot].is_used ||
        output->printers[slot].incarnation != incarnation)
        return;
    struct printer *printer = &output->printers[slot];
    hold_sigpipe(&before, &was_pending);
    for (int stream = 0; stream < 2; stream++) {
        for (int i = 0; i < FINISH_READS_MAX; i++)
            if (!source_read(output, printer, stream, now_ns))
                break;
        source_close(output, printer, stream);
    }
    printer->is_used = false;
    watch_sinks(output);
    release_sigpipe(&before, was_pending);
}

/* Waits for room until all is written or the time is over. */
static bool write_all(struct sink *sink, unsigned *limit_ms)
{
    for (sink_flush(sink); sink->pending_bytes && !sink->is_broken; sink_flush(sink)) {
        struct pollfd room = {.fd = sink->fd, .events = POLLOUT};
        unsigned piece_ms = *limit_ms < 10 ? *limit_ms : 10;
        if (!*limit_ms)
            return false;
        poll(&room, 1, (int)piece_ms);
        *limit_ms -= piece_ms;
    }
    return !sink->is_broken;
}

bool output_destroy(struct output *output, unsigned limit_ms)
{
    struct timespec now;
    sigset_t before;
    bool was_pending;

    if (!output)
        return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (uint32_t slot = 0; slot < output->printer_count; slot++)
        if (output->printers[slot].is_used)
            output_finish(output, (uint16_t)slot, output->printers[slot].incarnation,
                          (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    hold_sigpipe(&before, &was_pending);
    bool out = write_all(&output->sinks[0], &limit_ms);
    bool err = write_all(&output->sinks[1], &limit_ms);
    release_sigpipe(&before, was_pending);
    sink_close(&output->sinks[0]);
    sink_close(&output->sinks[1]);
    close(output->epoll);
    free(output->printers);
    free(output);
    return out && err;
}
