#include "node/leftovers.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SHARED_MEMORY "/dev/shm"

static const char *variable(char *const *environment, const char *name)
{
    size_t length = strlen(name);

    for (; *environment; environment++)
        if (!strncmp(*environment, name, length) && (*environment)[length] == '=')
            return *environment + length + 1;
    return NULL;
}

/* What the kernel says of a live process. False if there is none, or if it is dead and only not yet
 * reaped. */
struct process {
    char name[32];
    pid_t parent;
    uint64_t start;
};

static bool process_read(pid_t pid, struct process *out)
{
    char path[64], text[1024], state;
    int parent;

    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    size_t length = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[length] = 0;
    char *name = strchr(text, '(');
    char *end = strrchr(text, ')'); /* the name may hold anything, a ')' too */
    if (!name || !end || end < name)
        return false;
    *end = 0;
    snprintf(out->name, sizeof out->name, "%s", name + 1);
    if (sscanf(
            end + 1,
            " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
            &state, &parent, &out->start) != 3)
        return false;
    out->parent = parent;
    return state != 'Z' && state != 'X';
}

/* The nearest ancestor that is a launcher of Open MPI, 0 if none: between it and the rank may stand
 * a shell or a debugger. */
static pid_t find_launcher(uint64_t *start)
{
    static const char *const names[] = {"mpirun", "orterun", "mpiexec", "orted"};
    struct process process;

    for (pid_t pid = getppid(); pid > 1 && process_read(pid, &process); pid = process.parent)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            if (!strncmp(process.name, names[i], strlen(names[i]))) {
                *start = process.start;
                return pid;
            }
    return 0;
}

bool leftovers_of_rank(char *const *environment, struct leftovers *out)
{
    char *const *all = environment ? environment : environ;
    const char *session = variable(all, "OMPI_MCA_orte_jobfam_session_dir");
    const char *job = variable(all, "OMPI_MCA_ess_base_jobid");

    *out = (struct leftovers){0};
    if (!session || !job || strlen(session) >= sizeof out->session)
        return false;
    strcpy(out->session, session);
    out->family = (uint32_t)(strtoul(job, NULL, 10) >> 16);
    out->launcher = find_launcher(&out->launcher_start);
    return out->launcher != 0;
}

void leftovers_of_mpirun(pid_t pid, struct leftovers *out)
{
    static const char *const bases[] = {"OMPI_MCA_orte_local_tmpdir_base",
                                        "OMPI_MCA_orte_tmpdir_base", "TMPDIR", "TEMP", "TMP"};
    const char *base = NULL;
    char host[256] = "";
    struct process process;

    for (size_t i = 0; i < sizeof bases / sizeof *bases && !base; i++)
        base = getenv(bases[i]);
    *out = (struct leftovers){0};
    if (!process_read(pid, &process) || gethostname(host, sizeof host - 1))
        return;
    out->launcher = pid;
    out->launcher_start = process.start;
    host[strcspn(host, ".")] = 0; /* Open MPI drops the domain */
    int length = snprintf(out->session, sizeof out->session, "%s/ompi.%s.%u/pid.%d",
                          base ? base : "/tmp", host, (unsigned)getuid(), (int)pid);
    if (length < 0 || (size_t)length >= sizeof out->session)
        out->session[0] = 0;
}

/* The family, from a file name of the directory's PMIx store: smseg-JOB-0. Called for each file. */
static uint32_t family_found;

static int look_for_family(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    static const char prefix[] = "smseg-";
    const char *name = path + walk->base;

    (void)status;
    if (kind == FTW_F && !strncmp(name, prefix, sizeof prefix - 1))
        family_found = (uint32_t)(strtoul(name + sizeof prefix - 1, NULL, 10) >> 16);
    return family_found != 0;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    remove(path);
    return 0;
}

/* Whether the path ends in ompi.*\/pid.* or ompi.*\/jf.*: anything else is not removed, whatever the
 * environment says. */
static bool is_session(const char *path)
{
    const char *last = strrchr(path, '/');
    const char *above = last;

    if (!last || path[0] != '/')
        return false;
    while (above > path && above[-1] != '/')
        above--;
    return !strncmp(above, "ompi.", 5) && (!strncmp(last, "/pid.", 5) || !strncmp(last, "/jf.", 4));
}

/* Whether a name is KIND.….JOB.… of a job of `family`. */
static bool is_segment(const char *name, uint32_t family)
{
    static const char *const kinds[] = {"vader_segment.", "osc_sm.", "osc_rdma."};
    bool known = false;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        known |= !strncmp(name, kinds[i], strlen(kinds[i]));
    if (!known)
        return false;
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        char *end;
        unsigned long job = strtoul(dot + 1, &end, 16);
        if (*end == '.' && end - dot > 5 && job >> 16 == family)
            return true;
    }
    return false;
}

static void remove_segments(uint32_t family)
{
    DIR *directory = opendir(SHARED_MEMORY);
    struct dirent *entry;
    struct stat status;

    if (!directory)
        return;
    while ((entry = readdir(directory)))
        if (is_segment(entry->d_name, family) &&
            !fstatat(dirfd(directory), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) &&
            S_ISREG(status.st_mode) && status.st_uid == getuid())
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

static void remove_session(const char *path)
{
    char above[PATH_MAX];
    struct stat status;

    if (!is_session(path) || lstat(path, &status) || !S_ISDIR(status.st_mode) ||
        status.st_uid != getuid())
        return;
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    snprintf(above, sizeof above, "%s", path);
    *strrchr(above, '/') = 0;
    rmdir(above); /* fails, rightly, while it holds another launcher's directory */
}

static bool launcher_lives(const struct leftovers *leftovers)
{
    struct process process;

    return process_read(leftovers->launcher, &process) &&
           process.start == leftovers->launcher_start;
}

bool leftovers_remove(const struct leftovers *leftovers, unsigned limit_ms)
{
    static const struct timespec look_again = {.tv_nsec = 10 * 1000 * 1000};

    if (!leftovers->launcher)
        return false;
    for (unsigned waited_ms = 0; launcher_lives(leftovers); waited_ms += 10) {
        if (waited_ms >= limit_ms)
            return false;
        nanosleep(&look_again, NULL);
    }
    family_found = leftovers->family;
    if (!family_found && is_session(leftovers->session))
        nftw(leftovers->session, look_for_family, 16, FTW_PHYS);
    if (family_found)
        remove_segments(family_found);
    remove_session(leftovers->session);
    return true;
}
