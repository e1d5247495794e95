/**
 * May this process be forked? The threads it has, and whose they are (launch.h, launch_check_fork).
 *
 * A thread has no name of its library: whose it is shows where it waits. The kernel tells where a
 * sleeping thread left user code (/proc/self/task/TID/syscall: program counter and stack pointer);
 * the first return address above that lies in neither libc nor the loader belongs to the library
 * that sleeps there.
 */
#include "node/launch.h"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Libraries whose threads survive a fork of the process, because they have fork handlers and were
 * tried (tests/unit/test_launch.c): OpenBLAS makes its threads anew; ThreadSanitizer stops and starts
 * its own. */
static const char *const fork_safe[] = {"libopenblas", "libtsan"};

/* What the caller of a sleep is not: the C library and the loader. */
static const char *const waits_for_others[] = {"libc.so", "libc-",      "libpthread", "ld-linux",
                                               "ld.so",   "linux-vdso", "libasan",    "libubsan"};

enum { STACK_WORDS_MAX = 4096, LOOKS_MAX = 20 };

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static bool is_one_of(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!strncmp(name, list[i], strlen(list[i])))
            return true;
    return false;
}
#define IS_ONE_OF(name, list) is_one_of(name, list, sizeof(list) / sizeof(*(list)))

static bool read_text(const char *path, char *text, size_t text_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, text_bytes - 1);

    if (fd >= 0)
        close(fd);
    if (got < 0)
        return false;
    text[got] = 0;
    text[strcspn(text, "\n")] = 0;
    return true;
}

/* One mapping of this process by address: its end, whether code may lie there. */
static bool mapping_of(uintptr_t address, uintptr_t *end, bool *is_code, char *path,
                       size_t path_bytes)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");

    while (maps && !found && fgets(line, sizeof(line), maps)) {
        uintptr_t from, to;
        char rights[8] = "", file[400] = "";
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %*s %399[^\n]", &from, &to, rights,
                   file) < 3 ||
            address < from || address >= to)
            continue;
        found = true;
        *end = to;
        *is_code = rights[2] == 'x';
        snprintf(path, path_bytes, "%s", file);
    }
    if (maps)
        fclose(maps);
    return found;
}

/* The library that code at `address` belongs to, or NULL: none, or one that only waits. */
static const char *library_at(uintptr_t address)
{
    Dl_info info;

    if (address < 4096 || !dladdr((const void *)address, &info) || !info.dli_fname)
        return NULL;
    const char *name = base_name(info.dli_fname);
    return IS_ONE_OF(name, waits_for_others) ? NULL : name;
}

static const char *library_in(uintptr_t pc, uintptr_t sp, char *name, size_t name_bytes)
{
    char path[400];
    uintptr_t end;
    bool is_code;
    const char *library = library_at(pc);

    if (!library && mapping_of(sp, &end, &is_code, path, sizeof(path))) {
        const uintptr_t *word = (const uintptr_t *)(sp & ~(sizeof(uintptr_t) - 1));
        for (int i = 0; !library && i < STACK_WORDS_MAX && (uintptr_t)(word + i + 1) <= end; i++) {
            uintptr_t code_end;
            /* data of a library is found by dladdr too; a return address lies in code */
            if (library_at(word[i]) &&
                mapping_of(word[i], &code_end, &is_code, path, sizeof(path)) && is_code)
                library = library_at(word[i]);
        }
    }
    if (!library)
        return NULL;
    snprintf(name, name_bytes, "%s", library);
    return name;
}

/* Whose thread it is. One that runs shows no place: look again, `looks` times in all. */
static const char *library_of_thread(const char *tid, int looks, char *name, size_t name_bytes)
{
    char path[64], text[256];

    while (looks-- > 0) {
        snprintf(path, sizeof(path), "/proc/self/task/%.16s/syscall", tid);
        if (!read_text(path, text, sizeof(text)))
            return NULL;
        char *last = strrchr(text, ' ');
        if (last && strcmp(text, "running")) {
            uintptr_t pc = strtoull(last + 1, NULL, 16);
            *last = 0;
            char *before = strrchr(text, ' ');
            uintptr_t sp = before ? strtoull(before + 1, NULL, 16) : 0;
            return library_in(pc, sp, name, name_bytes);
        }
        if (looks)
            nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
    return NULL;
}

/* Threads that OpenBLAS says it has beside the caller. They poll for some 30 ms after their birth:
 * we do not wait for that, but believe as many unseen threads to be OpenBLAS's as it says it has. */
static int openblas_threads(void)
{
    int (*count)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "openblas_get_num_threads");

    return count ? count() - 1 : 0;
}

static enum moray_code check_thread(const char *tid, int *unseen, struct moray_error *error)
{
    char path[64], comm[32] = "?", library[256];

    if (library_of_thread(tid, *unseen > 0 ? 1 : LOOKS_MAX, library, sizeof(library))) {
        *unseen -= !strncmp(library, "libopenblas", strlen("libopenblas"));
        if (IS_ONE_OF(library, fork_safe))
            return MORAY_OK;
    } else {
        if ((*unseen)-- > 0)
            return MORAY_OK;
        snprintf(library, sizeof(library), "an unknown library");
    }
    snprintf(path, sizeof(path), "/proc/self/task/%.16s/comm", tid);
    read_text(path, comm, sizeof(comm));
    return error_set(error, MORAY_WRONG_STATE,
                     "thread %s \"%s\" of %s already runs, and a process "
                     "with such threads cannot be forked safely; call moray_init first",
                     tid, comm, library);
}

static enum moray_code check_threads(struct moray_error *error)
{
    enum moray_code code = MORAY_OK;
    char own[32];
    int unseen = openblas_threads();
    DIR *tasks = opendir("/proc/self/task");

    snprintf(own, sizeof(own), "%ld", (long)syscall(SYS_gettid));
    for (struct dirent *entry; !code && tasks && (entry = readdir(tasks));)
        if (entry->d_name[0] != '.' && strcmp(entry->d_name, own))
            code = check_thread(entry->d_name, &unseen, error);
    if (tasks)
        closedir(tasks);
    return code;
}

/* A forked child must not share an open GPU. */
static enum moray_code check_devices(struct moray_error *error)
{
    static const char *const gpus[] = {"/dev/nvidia", "/dev/kfd", "/dev/dri/render"};
    enum moray_code code = MORAY_OK;
    DIR *files = opendir("/proc/self/fd");

    for (struct dirent *entry; !code && files && (entry = readdir(files));) {
        char target[256];
        ssize_t got = readlinkat(dirfd(files), entry->d_name, target, sizeof(target) - 1);
        if (got <= 0)
            continue;
        target[got] = 0;
        if (IS_ONE_OF(target, gpus))
            code = error_set(error, MORAY_WRONG_STATE,
                             "%s is already open, and workers forked now "
                             "could not use it; call moray_init first",
                             target);
    }
    if (files)
        closedir(files);
    return code;
}

static enum moray_code check_mpi(struct moray_error *error)
{
    int (*initialized)(int *) = (int (*)(int *))dlsym(RTLD_DEFAULT, "MPI_Initialized");
    int flag = 0;

    if (initialized && !initialized(&flag) && flag)
        return error_set(error, MORAY_WRONG_STATE,
                         "MPI is already started; call moray_init first, "
                         "in place of MPI_Init (Moray starts MPI itself, after its fork)");
    return MORAY_OK;
}

enum moray_code launch_check_fork(struct moray_error *error)
{
    enum moray_code code;

    if ((code = check_mpi(error)))
        return code;
    if (launch_thread_count() > 1 && (code = check_threads(error)))
        return code;
    return check_devices(error);
}

uint32_t launch_thread_count(void)
{
    uint32_t count = 0;
    DIR *tasks = opendir("/proc/self/task");

    for (struct dirent *entry; tasks && (entry = readdir(tasks));)
        count += entry->d_name[0] != '.';
    if (tasks)
        closedir(tasks);
    return count ? count : 1;
}
