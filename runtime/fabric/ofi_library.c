#include "fabric/ofi_library.h"

#include <dlfcn.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

struct ofi_library ofi_library;

static const int caught[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGINT, SIGTERM};
enum { CAUGHT_COUNT = sizeof(caught) / sizeof(*caught) };

static const struct {
    const char *name;
    size_t offset;
} symbols[] = {
    {"fi_getinfo", offsetof(struct ofi_library, getinfo)},
    {"fi_freeinfo", offsetof(struct ofi_library, freeinfo)},
    {"fi_dupinfo", offsetof(struct ofi_library, dupinfo)},
    {"fi_fabric", offsetof(struct ofi_library, fabric)},
    {"fi_strerror", offsetof(struct ofi_library, strerror)},
};

enum moray_code ofi_library_load(struct moray_error *error)
{
    struct sigaction before[CAUGHT_COUNT];
    struct ofi_library found;
    void *library;

    for (int i = 0; i < CAUGHT_COUNT; i++)
        sigaction(caught[i], NULL, &before[i]);
    library = dlopen("libfabric.so.1", RTLD_NOW | RTLD_LOCAL);
    for (int i = 0; i < CAUGHT_COUNT; i++) {
        struct sigaction now;
        sigaction(caught[i], NULL, &now);
        if (now.sa_handler != before[i].sa_handler)
            sigaction(caught[i], &before[i], NULL);
    }
    if (!library)
        return error_set(error, MORAY_SYSTEM, "libfabric cannot be loaded: %s", dlerror());
    uint32_t (*version)(void) = (uint32_t(*)(void))dlsym(library, "fi_version");
    if (!version || FI_VERSION_LT(version(), FI_VERSION(FI_MAJOR_VERSION, FI_MINOR_VERSION)))
        return error_set(error, MORAY_SYSTEM,
                         "the libfabric that is loaded is older than the one that Moray was built "
                         "with (%d.%d); look at LD_LIBRARY_PATH",
                         FI_MAJOR_VERSION, FI_MINOR_VERSION);
    for (size_t i = 0; i < sizeof(symbols) / sizeof(*symbols); i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol)
            return error_set(error, MORAY_SYSTEM, "libfabric.so.1 has no %s: %s", symbols[i].name,
                             dlerror());
        memcpy((char *)&found + symbols[i].offset, &symbol, sizeof(symbol));
    }
    ofi_library = found;
    return MORAY_OK;
}
