#include "base/limits.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 1024 };

/* What is limited, and the files that say how much. */
struct resource {
    const char *controller, *file1, *file2; /* file1 in version 1, file2 in version 2 */
};
static const struct resource memory = {"memory", "memory.limit_in_bytes", "memory.max"};
static const struct resource processes = {"pids", "pids.max", "pids.max"};

/* One hierarchy: where it is mounted, which part of it the mount shows, and the file with the limit. */
struct hierarchy {
    char mount[PATH_BYTES], shown[PATH_BYTES];
    const char *file;
};

static FILE *open_below(const char *root, const char *path)
{
    char whole[4 * PATH_BYTES];

    if ((size_t)snprintf(whole, sizeof(whole), "%s%s", root, path) >= sizeof(whole))
        return NULL;
    return fopen(whole, "re");
}

/* The number in a file; UINT64_MAX for "max", and where there is no such file. */
static uint64_t limit_in(const char *root, const char *path)
{
    char text[64] = "";
    FILE *file = open_below(root, path);
    bool got = file && fgets(text, sizeof(text), file);

    if (file)
        fclose(file);
    return got && *text >= '0' && *text <= '9' ? strtoull(text, NULL, 10) : UINT64_MAX;
}

/* The least limit of `group` and of all groups above it. */
static uint64_t least_limit(const char *root, const struct hierarchy *where, const char *group)
{
    char path[3 * PATH_BYTES], inside[PATH_BYTES];
    uint64_t least = UINT64_MAX;
    size_t shown = strlen(where->shown);

    /* a container's mount shows only its own part of the tree */
    if (shown > 1 && !strncmp(group, where->shown, shown))
        group += shown;
    snprintf(inside, sizeof(inside), "%s", group);
    for (;;) {
        snprintf(path, sizeof(path), "%s%s/%s", where->mount, inside, where->file);
        uint64_t limit = limit_in(root, path);
        least = limit < least ? limit : least;
        char *slash = strrchr(inside, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

/* Finds the mount of version 2, or of version 1's controller. */
static bool find_mount(const char *root, const struct resource *what, bool version2,
                       struct hierarchy *out)
{
    char line[4 * PATH_BYTES], kind[64], super[PATH_BYTES];
    bool found = false;
    FILE *mounts = open_below(root, "/proc/self/mountinfo");

    while (mounts && !found && fgets(line, sizeof(line), mounts)) {
        char *dash = strstr(line, " - ");
        if (!dash || sscanf(line, "%*s %*s %*s %1023s %1023s", out->shown, out->mount) != 2 ||
            sscanf(dash + 3, "%63s %*s %1023s", kind, super) != 2)
            continue;
        if (version2)
            found = !strcmp(kind, "cgroup2");
        else
            found = !strcmp(kind, "cgroup") && strstr(super, what->controller);
    }
    if (mounts)
        fclose(mounts);
    out->file = version2 ? what->file2 : what->file1;
    return found;
}

/* This process's groups: "4:memory:/job" (version 1), "0::/job" (version 2). */
static uint64_t cgroup_limit(const char *root, const struct resource *what)
{
    char line[2 * PATH_BYTES];
    uint64_t least = UINT64_MAX;
    FILE *groups = open_below(root, "/proc/self/cgroup");

    while (groups && fgets(line, sizeof(line), groups)) {
        struct hierarchy where;
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        bool version2 = !strcmp(controllers, ":");
        if ((version2 || strstr(controllers, what->controller)) &&
            find_mount(root, what, version2, &where)) {
            uint64_t limit = least_limit(root, &where, group);
            least = limit < least ? limit : least;
        }
    }
    if (groups)
        fclose(groups);
    return least;
}

static uint64_t host_memory(const char *root)
{
    char line[256];
    uint64_t kib = 0;
    FILE *file = open_below(root, "/proc/meminfo");

    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "MemTotal: %" SCNu64 " kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return kib ? kib << 10 : (uint64_t)1 << 30;
}

uint64_t limits_memory_at(const char *root, const char **whose)
{
    uint64_t host = host_memory(root), cgroup = cgroup_limit(root, &memory);

    if (whose)
        *whose = cgroup < host ? "the cgroup's limit" : "the host's memory";
    return cgroup < host ? cgroup : host;
}

uint64_t limits_processes_at(const char *root)
{
    return cgroup_limit(root, &processes);
}
