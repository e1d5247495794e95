/**
 * Which of its addresses a rank listens on and publishes.
 *
 *     each rank lists its networks ──allgather──▶ the first network of rank 0's list that all share
 *
 * One job on several networks (management, storage, the fast one; docker0 with the same address on
 * every host) is the rule, and a wrong choice shows as a hang; so all ranks choose from all lists, and
 * choose alike. An address that stands on two hosts at once (docker0) is no network they share.
 * Threads: any; no state.
 */
#ifndef MORAY_FABRIC_ADDRESS_H
#define MORAY_FABRIC_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum { ADDRESS_NETWORKS_MAX = 8 };

/** What one rank has; exchanged as it is. */
struct address_list {
    uint64_t host; /* a hash of the host's name: tells hosts apart, no more */
    uint32_t count;
    uint32_t zero;
    struct {
        uint32_t ip, mask; /* network order */
    } networks[ADDRESS_NETWORKS_MAX];
};

/** Lists this host's IPv4 networks that are up: `interface` alone (name, address or network) if not NULL, else
 *  loopback alone if `one_host`, else all but loopback, those of bridges and containers last;
 *  loopback where there is nothing else.
 *  Errors: MORAY_INVALID (no such interface: the story names those there are), MORAY_SYSTEM. */
MORAY_MUST_CHECK enum moray_code address_list(const char *interface, bool one_host,
                                              struct address_list *out, struct moray_error *error);

/** This rank's address out of the lists of all: in the first network that all share, else its first.
 *  Pure: the same lists give the same network on each rank. Returns 0 if its list is empty. */
uint32_t address_choose(const struct address_list *lists, uint32_t rank_count, uint32_t rank);

#endif
