#include "fabric/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* FNV-1a: enough to tell the hosts of a job apart. */
static uint64_t host_hash(void)
{
    char name[256] = "";
    uint64_t hash = 14695981039346656037u;

    gethostname(name, sizeof(name) - 1);
    for (const char *c = name; *c; c++)
        hash = (hash ^ (uint8_t)*c) * 1099511628211u;
    return hash;
}

static uint32_t ip_of(const struct sockaddr *address)
{
    return ((const struct sockaddr_in *)address)->sin_addr.s_addr;
}

static bool is_virtual(const char *name)
{
    static const char *const prefixes[] = {"docker", "virbr",  "veth", "br-",
                                           "lxc",    "podman", "cni"};

    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static bool is_usable(const struct ifaddrs *item)
{
    return item->ifa_addr && item->ifa_netmask && item->ifa_addr->sa_family == AF_INET &&
           (item->ifa_flags & IFF_UP);
}

/* Whether the item is what `interface` names: a name, an address, or a network ("10.1.0.0/16"). */
static bool is_named(const struct ifaddrs *item, const char *interface)
{
    char text[INET_ADDRSTRLEN] = "";
    struct in_addr network;
    unsigned bits = 32;
    char rest;

    if (strcmp(interface, item->ifa_name) == 0)
        return true;
    if (sscanf(interface, "%15[0-9.]/%u%c", text, &bits, &rest) < 1 || bits > 32 ||
        strspn(interface, "0123456789./") != strlen(interface) ||
        inet_pton(AF_INET, text, &network) != 1)
        return false;
    uint32_t mask = bits ? htonl(~UINT32_C(0) << (32 - bits)) : 0;
    return ((ip_of(item->ifa_addr) ^ network.s_addr) & mask) == 0;
}

/* Whether the item is what was asked for in this pass: 0 the real networks, 1 the virtual ones, 2 what
 * is left where there are none, loopback. */
static bool is_wanted(const struct ifaddrs *item, const char *interface, bool one_host, int pass)
{
    bool loopback = item->ifa_flags & IFF_LOOPBACK;

    if (interface)
        return pass == 0 && is_named(item, interface);
    if (one_host)
        return pass == 0 && loopback;
    return loopback == (pass == 2) && is_virtual(item->ifa_name) == (pass == 1);
}

static void names_of(const struct ifaddrs *items, char *text, size_t bytes)
{
    size_t used = 0;

    text[0] = 0;
    for (; items; items = items->ifa_next) {
        char ip[INET_ADDRSTRLEN];
        if (!is_usable(items) || used >= bytes)
            continue;
        uint32_t address = ip_of(items->ifa_addr);
        used += (size_t)snprintf(text + used, bytes - used, "%s%s (%s)", used ? ", " : "",
                                 items->ifa_name, inet_ntop(AF_INET, &address, ip, sizeof(ip)));
    }
}

enum moray_code address_list(const char *interface, bool one_host, struct address_list *out,
                             struct moray_error *error)
{
    struct ifaddrs *items;
    enum moray_code code = MORAY_OK;
    char names[256];

    *out = (struct address_list){.host = host_hash()};
    if (getifaddrs(&items) < 0)
        return error_set(error, MORAY_SYSTEM, "cannot list the network interfaces: %s%s",
                         strerror(errno), errno == EMFILE ? " (ulimit -n?)" : "");
    for (int pass = 0; pass < 3 && (pass < 2 || !out->count); pass++) {
        for (struct ifaddrs *item = items; item; item = item->ifa_next) {
            if (out->count == ADDRESS_NETWORKS_MAX || !is_usable(item) ||
                !is_wanted(item, interface, one_host, pass))
                continue;
            out->networks[out->count].ip = ip_of(item->ifa_addr);
            out->networks[out->count++].mask = ip_of(item->ifa_netmask);
        }
    }
    names_of(items, names, sizeof(names));
    if (!out->count && interface)
        code =
            error_set(error, MORAY_INVALID,
                      "MORAY_INTERFACE: no network interface %s with an IPv4 address is up here; "
                      "there are: %s",
                      interface, names);
    else if (!out->count)
        code = error_set(error, MORAY_SYSTEM,
                         "no network interface with an IPv4 address is up; there are: %s", names);
    freeifaddrs(items);
    return code;
}

/* The index of the rank's address in the network of (ip, mask), or -1. */
static int in_network(const struct address_list *list, uint32_t ip, uint32_t mask)
{
    for (uint32_t i = 0; i < list->count; i++)
        if (list->networks[i].mask == mask && ((list->networks[i].ip ^ ip) & mask) == 0)
            return (int)i;
    return -1;
}

/* Whether all ranks have an address in the network, and no two hosts the same one. Two loops over
 * the ranks would be n^2; a host has the address of rank 0's host only if it is that host, and a
 * clash elsewhere (a bridge of the same address on all) is a clash with rank 0's as well. */
static bool is_shared(const struct address_list *lists, uint32_t rank_count, uint32_t ip,
                      uint32_t mask)
{
    for (uint32_t rank = 0; rank < rank_count; rank++) {
        int index = in_network(&lists[rank], ip, mask);
        if (index < 0)
            return false;
        if (lists[rank].networks[index].ip == ip && lists[rank].host != lists[0].host)
            return false;
    }
    return true;
}

uint32_t address_choose(const struct address_list *lists, uint32_t rank_count, uint32_t rank)
{
    for (uint32_t i = 0; i < lists[0].count; i++) {
        uint32_t ip = lists[0].networks[i].ip, mask = lists[0].networks[i].mask;
        if (is_shared(lists, rank_count, ip, mask))
            return lists[rank].networks[in_network(&lists[rank], ip, mask)].ip;
    }
    return lists[rank].count ? lists[rank].networks[0].ip : 0;
}
