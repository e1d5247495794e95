#include "sched/policy/capacity.h"

#include <inttypes.h>
#include <stdlib.h>

enum moray_code capacity_check(const struct capacity *capacity, struct resources need,
                               struct moray_error *error)
{
    struct resources best = {0};

    for (size_t i = 0; i < capacity->count; i++) {
        if (resources_fit(need, capacity->offers[i]))
            return MORAY_OK;
        if (capacity->offers[i].core_parts > best.core_parts)
            best = capacity->offers[i];
    }
    return error_set(error, MORAY_INVALID,
                     "it asks for %" PRIu64 ".%04" PRIu64 " cores and %" PRIu64
                     " bytes of memory; no node of this job has both: the largest has %" PRIu64
                     ".%04" PRIu64 " cores and %" PRIu64 " bytes",
                     need.core_parts / RESOURCES_CORE, need.core_parts % RESOURCES_CORE,
                     need.memory_bytes, best.core_parts / RESOURCES_CORE,
                     best.core_parts % RESOURCES_CORE, best.memory_bytes);
}

/* Takes an offer in, unless one that is there contains it; those that it contains go. */
static size_t take_in(struct resources *offers, size_t count, struct resources offer)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++)
        if (resources_fit(offer, offers[i]))
            return count;
    for (size_t i = 0; i < count; i++)
        if (!resources_fit(offers[i], offer))
            offers[kept++] = offers[i];
    offers[kept++] = offer;
    return kept;
}

enum moray_code capacity_set(struct capacity *capacity, const struct resources *nodes,
                             size_t node_count, struct moray_error *error)
{
    struct resources *offers = malloc((node_count + 1) * sizeof(*offers));
    size_t count = 0;

    if (!offers)
        return error_set(error, MORAY_NO_MEMORY, "no memory for %zu nodes' resources", node_count);
    for (size_t i = 0; i < node_count; i++)
        count = take_in(offers, count, nodes[i]);
    free(capacity->offers);
    *capacity = (struct capacity){.offers = offers, .count = count};
    return MORAY_OK;
}

void capacity_clear(struct capacity *capacity)
{
    free(capacity->offers);
    *capacity = (struct capacity){0};
}
