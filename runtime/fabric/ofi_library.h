/**
 * libfabric, loaded when it is needed: five functions; all others are calls through its objects.
 *
 * Being linked with it costs every process 0.2 s before main(): libraries that it brings along
 * (libinfinipath) measure the clock as they are loaded, and catch SIGSEGV and its like for
 * themselves. So the discovery thread loads it, and what it did to the signals is undone.
 * Threads: ofi_library_load() by the discovery thread; the rest after it.
 */
#ifndef MORAY_FABRIC_OFI_LIBRARY_H
#define MORAY_FABRIC_OFI_LIBRARY_H

#include <rdma/fabric.h>

#include "base/error.h"

struct ofi_library {
    int (*getinfo)(uint32_t version, const char *node, const char *service, uint64_t flags,
                   const struct fi_info *hints, struct fi_info **info);
    void (*freeinfo)(struct fi_info *info);
    struct fi_info *(*dupinfo)(const struct fi_info *info); /* of NULL: a new one */
    int (*fabric)(struct fi_fabric_attr *attributes, struct fid_fabric **fabric, void *context);
    const char *(*strerror)(int failure);
};

/** The functions; NULL until ofi_library_load() has returned MORAY_OK. Never unloaded. */
extern struct ofi_library ofi_library;

/** Loads libfabric, once. Errors: MORAY_SYSTEM: it is not there, or not whole. */
MORAY_MUST_CHECK enum moray_code ofi_library_load(struct moray_error *error);

#endif
