#include "tools/cores.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>

/* Whether `cpu` is the first one of its core among those of the mask, by the list of the core's
 * threads ("0-1" or "0,64"). */
static bool is_first_of_core(int cpu, const cpu_set_t *mask)
{
    char path[96];
    int first, last;

    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *list = fopen(path, "re");
    if (!list)
        return true;
    bool is_first = true;
    while (is_first && fscanf(list, "%d", &first) == 1) {
        last = first;
        int separator = fgetc(list);
        if (separator == '-' && fscanf(list, "%d", &last) == 1)
            separator = fgetc(list);
        for (int other = first; is_first && other <= last && other < cpu; other++)
            is_first = other < 0 || other >= CPU_SETSIZE || !CPU_ISSET(other, mask);
        if (separator != ',')
            break;
    }
    fclose(list);
    return is_first;
}

unsigned cores_here(void)
{
    cpu_set_t mask;
    unsigned count = 0;

    if (sched_getaffinity(0, sizeof mask, &mask))
        return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        count += CPU_ISSET(cpu, &mask) && is_first_of_core(cpu, &mask);
    return count ? count : 1;
}
