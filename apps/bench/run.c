#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 48, ANSWER_LIMIT_MS = 180000, END_LIMIT_MS = 15000, GROUPS_MAX = 8 };

/* Process groups that are alive, for run_kill_all(). */
static _Atomic pid_t groups[GROUPS_MAX];

static void group_note(pid_t old, pid_t new)
{
    for (int i = 0; i < GROUPS_MAX; i++)
        if (atomic_compare_exchange_strong(&groups[i], &old, new))
            return;
}

void run_kill_all(void)
{
    for (int i = 0; i < GROUPS_MAX; i++) {
        pid_t group = atomic_load(&groups[i]);
        if (group > 0)
            kill(-group, SIGTERM);
    }
}

/* ---- Starting ---- */

struct line {
    const char *words[WORDS_MAX];
    int count;
    char text[8 * BENCH_TEXT];
    size_t used;
};

static void line_add(struct line *line, const char *word)
{
    size_t bytes = strlen(word) + 1;

    if (line->count + 1 >= WORDS_MAX || line->used + bytes > sizeof line->text)
        return;
    line->words[line->count++] = memcpy(line->text + line->used, word, bytes);
    line->used += bytes;
}

static void line_add_words(struct line *line, const char *words)
{
    char copy[BENCH_TEXT], *rest = NULL;

    snprintf(copy, sizeof copy, "%s", words ? words : "");
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
        line_add(line, word);
}

/* The launcher's words are those of `moray run` (runtime/tools/command.c), also for peers. */
static void line_make(const struct side *side, bool quick, const char *json, struct line *out)
{
    char here[PATH_MAX], path[PATH_MAX + 64], ranks[16];

    out->count = 0;
    out->used = 0;
    ssize_t length = readlink("/proc/self/exe", here, sizeof here - 1);
    here[length < 0 ? 0 : length] = 0;
    if (side->ranks) {
        snprintf(ranks, sizeof ranks, "%d", side->ranks);
        line_add_words(out, "mpirun --oversubscribe --mca pml ob1 -n");
        line_add(out, ranks);
        if (side->program && !strncmp(side->program, "peers/", 6))
            line_add_words(out, "--bind-to none"); /* Moray widens its own mask */
    }
    if (!side->program) {
        line_add(out, here);
        line_add_words(out, "--child");
    } else {
        *(strrchr(here, '/') + 1) = 0;
        snprintf(path, sizeof path, "%s%s", here, side->program);
        if (access(path, X_OK)) /* installed: all in one folder */
            snprintf(path, sizeof path, "%s%s", here, strrchr(path, '/') + 1);
        line_add(out, path);
    }
    line_add_words(out, quick && side->quick ? side->quick : side->words);
    if (json) {
        line_add(out, "--json");
        line_add(out, json);
    } else if (quick) {
        line_add(out, "quick");
    }
}

static void set_environment(const struct side *side)
{
    char copy[BENCH_TEXT], *rest = NULL;

    snprintf(copy, sizeof copy, "%s", side->settings ? side->settings : "");
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value++ = 0;
        setenv(word, value, 1);
    }
    if (geteuid() == 0) {
        setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
        setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
    }
}

static _Noreturn void become(const struct side *side, const struct line *line, const int to[2],
                             const int from[2])
{
    char *words[WORDS_MAX + 1];

    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_DFL);
    dup2(to[0], STDIN_FILENO);
    dup2(from[1], STDOUT_FILENO);
    set_environment(side);
    for (int i = 0; i < line->count; i++)
        words[i] = (char *)(uintptr_t)line->words[i];
    words[line->count] = NULL;
    execvp(words[0], words);
    fprintf(stderr, "bench: cannot start %s: %s\n", words[0], strerror(errno));
    _exit(127);
}

static int run_start(struct run *run, const char *json)
{
    struct line line;
    int to[2], from[2];

    line_make(run->side, run->quick, json, &line);
    if (getenv("BENCH_TRACE")) {
        for (int i = 0; i < line.count; i++)
            fprintf(stderr, "%s ", line.words[i]);
        fprintf(stderr, "[%s]\n", run->side->settings ? run->side->settings : "");
    }
    if (pipe2(to, O_CLOEXEC))
        return -1;
    if (pipe2(from, O_CLOEXEC)) {
        close(to[0]);
        close(to[1]);
        return -1;
    }
    run->text_bytes = 0;
    run->start_ns = bench_now_ns();
    run->pid = fork();
    if (run->pid == 0)
        become(run->side, &line, to, from);
    close(to[0]);
    close(from[1]);
    run->to = to[1];
    run->from = from[0];
    if (run->pid < 0) {
        run->pid = 0;
        close(run->to);
        close(run->from);
        return -1;
    }
    setpgid(run->pid, run->pid);
    group_note(0, run->pid);
    return 0;
}

/* ---- Ending ---- */

/* Waits for the end of the process, at most so long. Returns whether it ended. */
static bool wait_for(pid_t pid, int limit_ms, int *status)
{
    uint64_t until = bench_now_ns() + (uint64_t)limit_ms * 1000000u;

    while (waitpid(pid, status, WNOHANG) == 0) {
        if (bench_now_ns() > until)
            return false;
        usleep(500);
    }
    return true;
}

static void drain(int fd)
{
    char text[4096];

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (read(fd, text, sizeof text) > 0)
        ;
}

int run_end(struct run *run)
{
    int status = 0;
    bool killed = false;

    if (!run->pid)
        return 0;
    close(run->to);
    for (int waited = 0; !wait_for(run->pid, 100, &status); waited += 100) {
        drain(run->from); /* so that nobody hangs in a write */
        if (waited < END_LIMIT_MS)
            continue;
        killed = true;
        kill(-run->pid, waited < 2 * END_LIMIT_MS ? SIGTERM : SIGKILL);
    }
    group_note(run->pid, 0);
    run->pid = 0;
    close(run->from);
    if (killed)
        fprintf(stderr, "bench: a program did not end within %d s\n", END_LIMIT_MS / 1000);
    else if (status)
        fprintf(stderr, "bench: a program ended with %s %d\n",
                WIFSIGNALED(status) ? "signal" : "status",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return killed || status ? -1 : 0;
}

/* ---- Questions and answers ---- */

/* Takes the next line off what was read. */
static bool take_line(struct run *run, char *out, size_t room)
{
    char *end = memchr(run->text, '\n', run->text_bytes);

    if (!end)
        return false;
    size_t bytes = (size_t)(end - run->text);
    snprintf(out, room, "%.*s", (int)bytes, run->text);
    run->text_bytes -= bytes + 1;
    memmove(run->text, end + 1, run->text_bytes);
    return true;
}

/* The next line that the program prints. */
static int read_line(struct run *run, char *out, size_t room)
{
    struct pollfd wait = {.fd = run->from, .events = POLLIN};
    uint64_t until = bench_now_ns() + (uint64_t)ANSWER_LIMIT_MS * 1000000u;

    while (!take_line(run, out, room)) {
        if (run->text_bytes == sizeof run->text)
            run->text_bytes = 0; /* a line as long is no answer */
        int ready = poll(&wait, 1, 1000);
        if (ready < 0 && errno != EINTR)
            return -1;
        if (ready <= 0 && bench_now_ns() > until) {
            fprintf(stderr, "bench: no answer for %d s\n", ANSWER_LIMIT_MS / 1000);
            return -1;
        }
        if (ready <= 0)
            continue;
        ssize_t bytes =
            read(run->from, run->text + run->text_bytes, sizeof run->text - run->text_bytes);
        if (bytes <= 0) {
            fprintf(stderr, "bench: a program ended without an answer\n");
            return -1;
        }
        run->text_bytes += (size_t)bytes;
    }
    return 0;
}

/* "us=1.5 min=1 tasks=7": the value of `key`, and the others as "min=1;tasks=7". False if the key is
 * not there: the line is no answer. */
static bool parse(char *line, const char *key, struct sample *out)
{
    bool found = false;
    char *rest = NULL;
    size_t used = 0;

    out->extra[0] = 0;
    for (char *word = strtok_r(line, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '='), *end;
        if (!value)
            continue;
        if (!strncmp(word, key, strlen(key)) && word + strlen(key) == value) {
            out->value = strtod(value + 1, &end);
            found = end != value + 1;
        } else if (used + strlen(word) + 2 < sizeof out->extra) {
            used += (size_t)sprintf(out->extra + used, "%s%s", used ? ";" : "", word);
        }
    }
    return found;
}

static int ask(struct run *run, struct sample *out)
{
    const char *key = run->side->key ? run->side->key : "value";
    char line[2 * BENCH_TEXT];

    if (write(run->to, "run\n", 4) != 4 && errno != EPIPE)
        return -1;
    do
        if (read_line(run, line, sizeof line))
            return -1;
    while (!parse(line, key, out));
    return 0;
}

/* ---- The ways to measure ---- */

/* Processor time of the job's processes while nothing is to be done, as a share of a core a rank. */
static void measure_idle(struct run *run, struct sample *out)
{
    unsigned seconds = run->quick ? 1 : 10;

    sleep(1); /* after the last task */
    struct usage before = usage_of(run->pid, false);
    uint64_t start_ns = bench_now_ns();
    sleep(seconds);
    struct usage after = usage_of(run->pid, false);
    out->value = (double)(after.processor_ns - before.processor_ns) /
                 (double)(bench_now_ns() - start_ns) / run->side->ranks;
    snprintf(out->extra, sizeof out->extra, "processes=%u;sleeps_a_second=%.1f", after.processes,
             (double)(after.sleeps - before.sleeps) / seconds);
}

static int measure_wakes(struct run *run, struct sample *out)
{
    struct usage before = usage_of(run->pid, run->side->ranks == 0);

    if (ask(run, out))
        return -1;
    struct usage after = usage_of(run->pid, run->side->ranks == 0);
    const char *tasks = strstr(out->extra, "tasks=");
    double count = tasks ? strtod(tasks + 6, NULL) : 0;
    size_t used = strlen(out->extra);
    if (count > 0)
        snprintf(out->extra + used, sizeof out->extra - used, ";wakeups=%.4f",
                 (double)(after.sleeps - before.sleeps) / count);
    return 0;
}

/* The news of a training, from its file. */
static int read_training(struct run *run, const char *path, struct sample *out, double seconds)
{
    json_error_t error;
    json_t *news = json_load_file(path, 0, &error);
    const char *digest = json_string_value(json_object_get(news, "digest"));
    double speed = json_number_value(json_object_get(news, "images_per_second"));
    int code = 0;

    if (!digest) {
        fprintf(stderr, "bench: the training wrote no digest\n");
        code = -1;
    } else if (*run->digest && strcmp(run->digest, digest)) {
        fprintf(stderr, "bench: two digests of one training: %s and %s\n", run->digest, digest);
        code = -1;
    } else {
        snprintf(run->digest, sizeof run->digest, "%s", digest);
        out->value = run->side->measure == SPEED ? speed : seconds;
        snprintf(out->extra, sizeof out->extra, "digest=%.16s", digest);
    }
    json_decref(news);
    return code;
}

/* A whole run of train, from exec to exit. */
static int measure_training(struct run *run, struct sample *out)
{
    const char *base = getenv("TMPDIR");
    char path[PATH_MAX];
    int status = 0, code = -1;

    snprintf(path, sizeof path, "%s/moray-bench-XXXXXX", base && *base ? base : "/tmp");
    int fd = mkstemp(path);
    if (fd < 0 || run_start(run, path)) {
        fprintf(stderr, "bench: cannot start a training: %s\n", strerror(errno));
    } else {
        bool is_over;
        while (!(is_over = wait_for(run->pid, 1, &status)) &&
               bench_now_ns() - run->start_ns < (uint64_t)ANSWER_LIMIT_MS * 1000000u)
            drain(run->from); /* it tells its epochs */
        double seconds = (double)(bench_now_ns() - run->start_ns) / 1e9;
        if (is_over) {
            group_note(run->pid, 0);
            run->pid = 0;
            close(run->to);
            close(run->from);
        } else {
            kill(-run->pid, SIGTERM);
            run_end(run);
        }
        code = is_over && !status ? read_training(run, path, out, seconds) : -1;
        if (!is_over || status)
            fprintf(stderr, "bench: a training failed\n");
    }
    if (fd >= 0) {
        close(fd);
        unlink(path);
    }
    return code;
}

int run_measure(struct run *run, struct sample *out)
{
    enum measure measure = run->side->measure;
    int code;

    memset(out, 0, sizeof *out);
    if (measure == TRAIN || measure == SPEED)
        return measure_training(run, out);
    if (!run->pid && run_start(run, NULL)) {
        fprintf(stderr, "bench: cannot start a program: %s\n", strerror(errno));
        return -1;
    }
    code = measure == WAKES ? measure_wakes(run, out) : ask(run, out);
    if (!code && measure == IDLE)
        measure_idle(run, out);
    if (!code && measure == START)
        out->value -= (double)run->start_ns / 1e9;
    if (code || run->side->life == ONCE)
        code |= run_end(run);
    return code;
}
