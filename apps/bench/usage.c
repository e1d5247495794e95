/**
 * What the processes of a job use, read from /proc: those that descend from a process.
 *
 * The scheduler's own account (schedstat) is exact; that of stat counts ticks of 10 ms, and serves
 * where the kernel keeps no other. Sleeps are voluntary switches: each has a wake-up.
 */
#include "bench.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct process_line {
    pid_t pid, parent;
    bool is_inside;
};

static bool read_text(const char *path, char *out, size_t room)
{
    FILE *file = fopen(path, "re");

    if (!file)
        return false;
    size_t bytes = fread(out, 1, room - 1, file);
    out[bytes] = 0;
    fclose(file);
    return bytes > 0;
}

/* All processes with their parents. Owner of `*out`: the caller. */
static size_t list_all(struct process_line **out)
{
    DIR *folder = opendir("/proc");
    size_t count = 0, room = 0;
    char path[300], text[1024];

    *out = NULL;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
        if (!read_text(path, text, sizeof text) || !strrchr(text, ')'))
            continue;
        if (count == room) {
            room = room ? 2 * room : 256;
            struct process_line *more = realloc(*out, room * sizeof **out);
            if (!more)
                break;
            *out = more;
        }
        (*out)[count++] = (struct process_line){
            .pid = atoi(entry->d_name),
            .parent = (pid_t)strtol(strrchr(text, ')') + 4, NULL, 10),
        };
    }
    if (folder)
        closedir(folder);
    return count;
}

static void add_thread(const char *base, struct usage *usage)
{
    char path[512], text[4096];
    unsigned long long on_core = 0, user = 0, system = 0;

    snprintf(path, sizeof path, "%s/schedstat", base);
    if (read_text(path, text, sizeof text) && sscanf(text, "%llu", &on_core) == 1 && on_core) {
        usage->processor_ns += on_core;
    } else {
        snprintf(path, sizeof path, "%s/stat", base);
        if (read_text(path, text, sizeof text) && strrchr(text, ')') &&
            sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                   &user, &system) == 2)
            usage->processor_ns +=
                (user + system) * (1000000000u / (unsigned long long)sysconf(_SC_CLK_TCK));
    }
    snprintf(path, sizeof path, "%s/status", base);
    const char *line =
        read_text(path, text, sizeof text) ? strstr(text, "\nvoluntary_ctxt_switches:") : NULL;
    if (line)
        usage->sleeps += strtoull(strchr(line, ':') + 1, NULL, 10);
}

static void add_process(pid_t pid, struct usage *usage)
{
    char base[64], path[400];

    snprintf(base, sizeof base, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(base);
    if (!folder)
        return;
    usage->processes++;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", base, entry->d_name);
        add_thread(path, usage);
    }
    closedir(folder);
}

struct usage usage_of(pid_t root, bool with_root)
{
    struct usage usage = {0};
    struct process_line *all;
    size_t count = list_all(&all);

    for (bool more = true; more;) { /* as many passes as the tree is deep */
        more = false;
        for (size_t i = 0; i < count; i++) {
            if (all[i].is_inside)
                continue;
            bool inside = all[i].pid == root;
            for (size_t j = 0; j < count && !inside; j++)
                inside = all[j].is_inside && all[j].pid == all[i].parent;
            if (inside)
                all[i].is_inside = more = true;
        }
    }
    for (size_t i = 0; i < count; i++)
        if (all[i].is_inside && (with_root || all[i].pid != root))
            add_process(all[i].pid, &usage);
    free(all);
    return usage;
}
