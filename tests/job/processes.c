/**
 * What processes a job has, as the system sees them. processes.sh runs it:
 *
 *     cores      a line for each worker, sorted: its rank, and the cores that it may run on
 *     driver     the cores that the driver may run on
 *     shape      what a worker, its zygote and the driver are made of, a line each
 *     chaos      what is left of processes that are killed at random: zygote, actor, all results
 *     rank       the rank that goes on after moray_init
 */
#include <moray.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TASKS = 48, NAPS = 200, RANKS_MAX = 8 };

typedef struct {
    int32_t rank, pid;
    char cores[56]; /* "0-1" */
} place;

typedef struct {
    char text[200];
} line;

typedef struct {
    int32_t worker, zygote, rank;
} pids;

/* The value of a field of /proc/PID/status, "" if there is none. */
static void status_of(int pid, const char *field, char *out, size_t bytes)
{
    char path[64], text[256];

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    FILE *file = fopen(path, "r");
    out[0] = '\0';
    while (file && fgets(text, sizeof(text), file))
        if (!strncmp(text, field, strlen(field)) && text[strlen(field)] == ':')
            snprintf(out, bytes, "%s", strtok(text + strlen(field) + 1, " \t\n"));
    if (file)
        fclose(file);
}

/* Arenas that a process has mapped for reading only, and for writing; and whether MPI's plugins are in
 * it, which are loaded when MPI starts. */
static void maps_of(int pid, int *read_only, int *writable, int *plugins)
{
    char path[64], text[512], inode[2][32] = {"", ""};

    *read_only = *writable = *plugins = 0;
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *file = fopen(path, "r");
    while (file && fgets(text, sizeof(text), file)) {
        *plugins |= strstr(text, "/mca_") != NULL;
        char mode[8], number[32];
        if (!strstr(text, "/memfd:moray") ||
            sscanf(text, "%*s %7s %*s %*s %31s", mode, number) != 2)
            continue;
        int writes = mode[1] == 'w'; /* an arena may lie there in several pieces */
        *(writes ? writable : read_only) += strcmp(inode[writes], number) != 0;
        snprintf(inode[writes], sizeof(inode[0]), "%s", number);
    }
    if (file)
        fclose(file);
}

MORAY_TASK(place, where)
{
    place here = {.rank = moray_rank(), .pid = getpid()};

    usleep(20000);
    status_of(here.pid, "Cpus_allowed_list", here.cores, sizeof(here.cores));
    return here;
}

static line shape(const char *who, int pid)
{
    line out;
    char threads[16];
    int read_only, writable, plugins;

    status_of(pid, "Threads", threads, sizeof(threads));
    maps_of(pid, &read_only, &writable, &plugins);
    snprintf(out.text, sizeof(out.text), "%s: %s thread, %s MPI, %d arenas to write, %s", who,
             strcmp(threads, "1") ? "more than one" : "one", plugins ? "with" : "no", writable,
             read_only >= writable ? "each mapped to read as well" : "not all to read as well");
    return out;
}

MORAY_TASK(line, shape_of_worker)
{
    return shape("worker", getpid());
}

MORAY_TASK(line, shape_of_zygote)
{
    char name[32];
    line out = shape("zygote", getppid());

    status_of(getppid(), "Name", name, sizeof(name));
    if (strcmp(name, "moray-zygote") != 0)
        snprintf(out.text, sizeof(out.text), "a worker's parent is %s", name);
    return out;
}

/* What the launcher told the rank is not for a task. */
MORAY_TASK(int32_t, launcher_variables)
{
    static const char *const prefixes[] = {"PMI", "OMPI_", "SLURM_STEP"};
    int32_t count = 0;

    for (char **at = environ; *at; at++)
        for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
            count += !strncmp(*at, prefixes[i], strlen(prefixes[i]));
    return count;
}

MORAY_TASK(pids, nap)
{
    usleep(20000);
    return (pids){.worker = getpid(), .zygote = getppid(), .rank = moray_rank()};
}

MORAY_ACTOR(keeper, (int32_t, count));
MORAY_METHOD(int32_t, keeper, count)
{
    return ++self->count;
}

/* Tasks and an actor's calls while workers are killed. */
static void print_chaos(void)
{
    moray_ref refs[NAPS];
    int32_t seen[NAPS], zygote[RANKS_MAX] = {0}, zygotes = 0, count = 0;
    size_t workers = 0;
    keeper_actor actor = moray_new(keeper);

    for (int i = 0; i < NAPS; i++)
        refs[i] = moray_call_with((.attempts = MORAY_ENDLESS), nap);
    for (int i = 0; i < NAPS; i++) {
        pids one = moray_take_as(pids, refs[i]);
        size_t at = 0;
        while (at < workers && seen[at] != one.worker)
            at++;
        if (at == workers)
            seen[workers++] = one.worker;
        zygotes += zygote[one.rank] && zygote[one.rank] != one.zygote;
        zygote[one.rank] = one.zygote;
        count = moray_take_as(int32_t, moray_call(keeper_count, actor));
    }
    moray_actor_release(actor);
    printf("%s, %d other zygotes, the actor counts %d of %d\n",
           workers > (size_t)moray_workers() ? "workers were killed" : "no worker was killed",
           (int)zygotes, (int)count, NAPS);
}

static int by_rank(const void *a, const void *b)
{
    const place *x = a, *y = b;

    return x->rank != y->rank ? x->rank - y->rank : strcmp(x->cores, y->cores);
}

static void print_cores(void)
{
    moray_ref refs[TASKS];
    place seen[TASKS];
    size_t count = 0;

    for (int i = 0; i < TASKS; i++)
        refs[i] = moray_call(where);
    for (int i = 0; i < TASKS; i++) {
        place next = moray_take_as(place, refs[i]);
        size_t at = 0;
        while (at < count && (seen[at].rank != next.rank || seen[at].pid != next.pid))
            at++;
        if (at == count)
            seen[count++] = next;
    }
    qsort(seen, count, sizeof(seen[0]), by_rank);
    for (size_t i = 0; i < count; i++)
        printf("%d: %s\n", (int)seen[i].rank, seen[i].cores);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "cores";
    char cores[64];

    moray_init(&argc, &argv);
    if (!strcmp(what, "cores")) {
        print_cores();
    } else if (!strcmp(what, "driver")) {
        status_of(getpid(), "Cpus_allowed_list", cores, sizeof(cores));
        printf("%d: %s\n", moray_rank(), cores);
    } else if (!strcmp(what, "chaos")) {
        print_chaos();
    } else if (!strcmp(what, "rank")) {
        printf("%d of %d\n", moray_rank(), moray_ranks());
    } else {
        puts(moray_take_as(line, moray_call(shape_of_worker)).text);
        puts(moray_take_as(line, moray_call(shape_of_zygote)).text);
        puts(shape("driver", getpid()).text);
        printf("%d variables of the launcher\n",
               (int)moray_take_as(int32_t, moray_call(launcher_variables)));
    }
    return moray_finalize();
}
