#include "node/topology.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <hwloc.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(sizeof(unsigned long) == sizeof(uint64_t), "a set is a kernel's cpu mask");

enum { WORD_BITS = 64, WORDS = TOPOLOGY_CPUS_MAX / WORD_BITS };

/* ---- Sets ---- */

static bool has(const struct topology_set *set, uint32_t cpu)
{
    return set->bits[cpu / WORD_BITS] >> cpu % WORD_BITS & 1;
}

static void add(struct topology_set *set, uint32_t cpu)
{
    set->bits[cpu / WORD_BITS] |= (uint64_t)1 << cpu % WORD_BITS;
}

static void unite(struct topology_set *set, const struct topology_set *other)
{
    for (int i = 0; i < WORDS; i++)
        set->bits[i] |= other->bits[i];
}

static struct topology_set common(const struct topology_set *a, const struct topology_set *b)
{
    struct topology_set both;

    for (int i = 0; i < WORDS; i++)
        both.bits[i] = a->bits[i] & b->bits[i];
    return both;
}

static bool is_within(const struct topology_set *inner, const struct topology_set *outer)
{
    for (int i = 0; i < WORDS; i++)
        if (inner->bits[i] & ~outer->bits[i])
            return false;
    return true;
}

uint32_t topology_set_count(const struct topology_set *set)
{
    uint32_t count = 0;

    for (int i = 0; i < WORDS; i++)
        count += (uint32_t)__builtin_popcountll(set->bits[i]);
    return count;
}

void topology_set_print(const struct topology_set *set, char *text, size_t text_bytes)
{
    size_t used = 0;

    if (text_bytes)
        *text = 0;
    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX && used < text_bytes; cpu++) {
        uint32_t first = cpu;
        if (!has(set, cpu))
            continue;
        while (cpu + 1 < TOPOLOGY_CPUS_MAX && has(set, cpu + 1))
            cpu++;
        int length = snprintf(text + used, text_bytes - used, first == cpu ? "%s%u" : "%s%u-%u",
                              used ? "," : "", first, cpu);
        used += (size_t)length;
    }
}

static bool parse_number(const char **text, uint32_t *out)
{
    char *end;

    if (!isdigit((unsigned char)**text))
        return false;
    errno = 0;
    unsigned long value = strtoul(*text, &end, 10);
    if (errno || value >= TOPOLOGY_CPUS_MAX)
        return false;
    *out = (uint32_t)value;
    *text = end;
    return true;
}

bool topology_set_parse(const char *text, struct topology_set *out)
{
    *out = (struct topology_set){{0}};
    for (;;) {
        uint32_t first, last;
        if (!parse_number(&text, &first))
            return false;
        last = first;
        if (*text == '-' && (text++, !parse_number(&text, &last)))
            return false;
        if (last < first)
            return false;
        for (uint32_t cpu = first; cpu <= last; cpu++)
            add(out, cpu);
        if (*text != ',')
            return !*text || !strcmp(text, "\n");
        text++;
    }
}

/* ---- Cores: sets of hardware threads, in order ---- */

struct cores {
    struct topology_set *sets; /* owned */
    uint32_t count;
};

static void cores_add(struct cores *cores, const struct topology_set *threads)
{
    if (cores->count < TOPOLOGY_CORES_MAX && topology_set_count(threads))
        cores->sets[cores->count++] = *threads;
}

static void cores_of_hwloc(hwloc_topology_t machine, const struct topology_set *pool,
                           struct cores *cores)
{
    hwloc_obj_type_t kind =
        hwloc_get_nbobjs_by_type(machine, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
    hwloc_obj_t core = NULL;

    while ((core = hwloc_get_next_obj_by_type(machine, kind, core))) {
        struct topology_set threads = {{0}};
        int cpu;
        for (cpu = hwloc_bitmap_first(core->cpuset); cpu >= 0 && cpu < TOPOLOGY_CPUS_MAX;
             cpu = hwloc_bitmap_next(core->cpuset, cpu))
            if (has(pool, (uint32_t)cpu))
                add(&threads, (uint32_t)cpu);
        cores_add(cores, &threads);
    }
}

/* The hardware threads of the core of `cpu`, itself at least. */
static struct topology_set siblings(uint32_t cpu)
{
    struct topology_set set = {{0}};
    char path[96], text[256];

    snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list",
             cpu);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    if (got > 0) {
        text[got] = 0;
        if (!topology_set_parse(text, &set))
            set = (struct topology_set){{0}};
    }
    add(&set, cpu);
    return set;
}

static void cores_of_sys(const struct topology_set *pool, struct cores *cores)
{
    struct topology_set seen = {{0}};

    for (uint32_t cpu = 0; cpu < TOPOLOGY_CPUS_MAX; cpu++) {
        if (!has(pool, cpu) || has(&seen, cpu))
            continue;
        struct topology_set all = siblings(cpu), ours = common(&all, pool);
        unite(&seen, &ours);
        cores_add(cores, &ours);
    }
}

static enum moray_code find_cores(const struct topology_input *input,
                                  const struct topology_set *pool, struct cores *out,
                                  struct moray_error *error)
{
    out->count = 0;
    out->sets = calloc(TOPOLOGY_CORES_MAX, sizeof(*out->sets));
    if (!out->sets)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the list of cores");
    if (input->machine)
        cores_of_hwloc(input->machine, pool, out);
    if (!out->count) /* also where hwloc's picture and the mask have nothing in common */
        cores_of_sys(pool, out);
    if (out->count)
        return MORAY_OK;
    free(out->sets);
    return error_set(error, MORAY_SYSTEM, "the system offers this process no core at all");
}

/* ---- The choice ---- */

/* Takes cores first … first+count-1 as places, or, unbound, all of them to float on. */
static enum moray_code take(struct topology_choice *out, const struct cores *cores, uint32_t first,
                            uint32_t count, bool bound, struct moray_error *error)
{
    out->core_count = count;
    if (!bound) {
        for (uint32_t i = 0; i < cores->count; i++)
            unite(&out->all, &cores->sets[i]);
        return MORAY_OK;
    }
    out->places = calloc(count, sizeof(*out->places));
    if (!out->places)
        return error_set(error, MORAY_NO_MEMORY, "no memory for the list of cores");
    out->place_count = count;
    for (uint32_t i = 0; i < count; i++) {
        out->places[i] = cores->sets[first + i];
        unite(&out->all, &out->places[i]);
    }
    return MORAY_OK;
}

static void explain(struct topology_choice *out, const char *why, ...)
    __attribute__((format(printf, 2, 3)));
static void explain(struct topology_choice *out, const char *why, ...)
{
    char list[64];
    va_list arguments;

    topology_set_print(&out->all, list, sizeof(list));
    int used =
        snprintf(out->reason, sizeof(out->reason), "%u core%s (%s%s): ", out->core_count,
                 out->core_count == 1 ? "" : "s", out->place_count ? "" : "unbound, of ", list);
    va_start(arguments, why);
    vsnprintf(out->reason + used, sizeof(out->reason) - (size_t)used, why, arguments);
    va_end(arguments);
}

/* An even share of `cores` for rank index of count; one unbound core each where there are too few. */
static enum moray_code share_evenly(const struct topology_input *input, const struct cores *cores,
                                    const char *what, struct topology_choice *out,
                                    struct moray_error *error)
{
    enum moray_code code;
    uint32_t index = input->node_index, count = input->node_count;

    if (count > cores->count) {
        if ((code = take(out, cores, 0, 1, false, error)))
            return code;
        out->may_spin = false;
        explain(out, "%s has %u core%s for %u node ranks, so nobody spins", what, cores->count,
                cores->count == 1 ? "" : "s", count);
        return MORAY_OK;
    }
    uint32_t first = (uint32_t)((uint64_t)index * cores->count / count);
    uint32_t end = (uint32_t)((uint64_t)(index + 1) * cores->count / count);
    if ((code = take(out, cores, first, end - first, true, error)))
        return code;
    explain(out, "%s, shared evenly by %u node rank%s of this host", what, count,
            count == 1 ? "" : "s");
    return MORAY_OK;
}

/* `asked` cores for each node rank. */
static enum moray_code take_count(const struct topology_input *input, const struct cores *cores,
                                  uint32_t asked, const char *who, struct topology_choice *out,
                                  struct moray_error *error)
{
    enum moray_code code;
    bool fits = (uint64_t)asked * input->node_count <= cores->count;

    if ((code = take(out, cores, fits ? input->node_index * asked : 0, asked, fits, error)))
        return code;
    out->may_spin = fits;
    if (fits)
        explain(out, "%s asks for %u a rank", who, asked);
    else
        explain(out,
                "%s asks for %u a rank, more than the %u cores of this host for %u node rank%s, "
                "so nobody spins",
                who, asked, cores->count, input->node_count, input->node_count == 1 ? "" : "s");
    return MORAY_OK;
}

static enum moray_code by_count(const struct topology_input *input, const struct cores *cores,
                                struct topology_choice *out, struct moray_error *error)
{
    char *end;
    errno = 0;
    unsigned long asked = strtoul(input->setting, &end, 10);

    if (errno || *end || !asked || asked > TOPOLOGY_CORES_MAX)
        return error_set(error, MORAY_INVALID,
                         "MORAY_CORES=%s: a rank offers 1 to %d cores; give a "
                         "count (4) or a list of the system's cpus (0-3,8)",
                         input->setting, TOPOLOGY_CORES_MAX);
    return take_count(input, cores, (uint32_t)asked, "MORAY_CORES", out, error);
}

static enum moray_code by_list(const struct topology_input *input, struct topology_choice *out,
                               struct moray_error *error)
{
    struct topology_set pool;
    struct cores cores;
    char allowed[128];
    enum moray_code code;

    topology_set_print(&input->cpuset, allowed, sizeof(allowed));
    if (!topology_set_parse(input->setting, &pool))
        return error_set(error, MORAY_INVALID,
                         "MORAY_CORES=%.64s is neither a count (4) nor a list "
                         "of the system's cpus (0-3,8)",
                         input->setting);
    if (!is_within(&pool, &input->cpuset))
        return error_set(error, MORAY_INVALID,
                         "MORAY_CORES=%.64s names cpus that this job may not "
                         "use; it may use %s",
                         input->setting, allowed);
    if ((code = find_cores(input, &pool, &cores, error)))
        return code;
    code = share_evenly(input, &cores, "MORAY_CORES", out, error);
    free(cores.sets);
    return code;
}

static enum moray_code by_mask(const struct topology_input *input, struct topology_choice *out,
                               struct moray_error *error)
{
    struct cores cores;
    enum moray_code code = find_cores(input, &input->mask, &cores, error);

    if (code)
        return code;
    if (!(code = take(out, &cores, 0, cores.count, true, error)))
        explain(out, "the binding that the launcher was asked for");
    free(cores.sets);
    return code;
}

static bool is_count(const char *setting)
{
    return setting[strspn(setting, "0123456789")] == 0;
}

static enum moray_code choose(const struct topology_input *input, const struct cores *cores,
                              struct topology_choice *out, struct moray_error *error)
{
    if (input->node_index >= input->node_count) {
        out->all = input->binding == LAUNCH_BOUND_BY_USER ? input->mask : input->cpuset;
        out->may_spin = input->node_count <= cores->count;
        snprintf(out->reason, sizeof(out->reason),
                 "no cores: the head alone, beside the node ranks "
                 "of its host");
        return MORAY_OK;
    }
    if (input->setting && *input->setting)
        return is_count(input->setting) ? by_count(input, cores, out, error)
                                        : by_list(input, out, error);
    if (input->binding == LAUNCH_BOUND_BY_USER)
        return by_mask(input, out, error);
    if (input->cores_asked && (uint64_t)input->cores_asked * input->node_count <= cores->count)
        return take_count(input, cores, input->cores_asked, "the launcher (cpus per task)", out,
                          error);
    return share_evenly(input, cores, "the cpuset", out, error);
}

enum moray_code topology_choose(const struct topology_input *input, struct topology_choice *out,
                                struct moray_error *error)
{
    struct cores cores;
    enum moray_code code;

    *out = (struct topology_choice){.may_spin = true};
    if ((code = find_cores(input, &input->cpuset, &cores, error)))
        return code;
    out->host_core_count = cores.count;
    code = choose(input, &cores, out, error);
    free(cores.sets);
    if (code)
        topology_drop(out);
    else
        out->widen = !is_within(&out->all, &input->mask);
    return code;
}

void topology_drop(struct topology_choice *choice)
{
    free(choice->places);
    *choice = (struct topology_choice){0};
}
