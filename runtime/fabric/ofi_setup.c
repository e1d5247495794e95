#include "fabric/ofi.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static const uint64_t mr_mode_known =
    FI_MR_LOCAL | FI_MR_VIRT_ADDR | FI_MR_ALLOCATED | FI_MR_PROV_KEY | FI_MR_ENDPOINT;

/* Whether `name` is one of the parts of "a;b". */
static bool has_part(const char *provider, const char *name)
{
    size_t bytes = strlen(name);

    for (const char *part = provider; part; part = strchr(part, ';')) {
        part += *part == ';';
        if (strncasecmp(part, name, bytes) == 0 && (part[bytes] == 0 || part[bytes] == ';'))
            return true;
    }
    return false;
}

static const char *wanted_provider(const struct fabric_options *options)
{
    return options->provider ? options->provider : "tcp;ofi_rxm";
}

/* `provider`: what was asked for, or what libfabric found for it. */
static enum moray_code refuse(const char *provider, struct moray_error *error)
{
    static const char *const refused[][2] = {
        {"shm", "never tells of a death and cannot sleep"},
        {"net", "cannot sleep and waits for ever for the dead"},
        {"udp", "cannot sleep and does not tell of a death"},
        {"sockets", "is slow beyond use"},
    };

    for (size_t i = 0; i < sizeof(refused) / sizeof(*refused); i++)
        if (has_part(provider, refused[i][0]))
            return error_set(error, MORAY_INVALID,
                             "the libfabric provider %s is refused: %s %s; leave MORAY_PROVIDER "
                             "empty, or set MORAY_PROVIDER='%s!' to have it all the same",
                             provider, refused[i][0], refused[i][1], provider);
    return MORAY_OK;
}

enum moray_code fabric_provider_check(const struct fabric_options *options,
                                      struct moray_error *error)
{
    return options->provider_forced ? MORAY_OK : refuse(wanted_provider(options), error);
}

static enum moray_code failed(struct moray_error *error, const char *what, int result)
{
    return error_set(error, MORAY_SYSTEM, "libfabric: %s failed: %s", what,
                     ofi_library.strerror(-result));
}

static enum moray_code not_found(const char *provider, const char *ip, int result,
                                 struct moray_error *error)
{
    const char *only =
        getenv("FI_PROVIDER"); /* what libfabric itself goes by, perhaps the site's */
    char hint[128] = "leave MORAY_PROVIDER empty for the usual one";

    if (only && *only && !has_part(provider, only))
        snprintf(hint, sizeof(hint), "FI_PROVIDER=%.64s lets it look at no other: unset it", only);
    return error_set(error, MORAY_SYSTEM,
                     "libfabric has no provider %s on %s with messages and one-sided reads: %s "
                     "(fi_info -l lists those there are; %s)",
                     provider, ip, ofi_library.strerror(-result), hint);
}

static enum moray_code discover(struct ofi *ofi, struct moray_error *error)
{
    struct fi_info *hints = ofi_library.dupinfo(NULL);
    const char *provider = wanted_provider(&ofi->base.options);
    char ip[INET_ADDRSTRLEN];
    int result;

    if (!hints)
        return error_set(error, MORAY_NO_MEMORY, "no memory for libfabric's hints");
    hints->caps = FI_MSG | FI_RMA;
    hints->mode = FI_CONTEXT | FI_CONTEXT2;
    hints->ep_attr->type = FI_EP_RDM;
    hints->domain_attr->mr_mode = (int)mr_mode_known;
    hints->domain_attr->threading = FI_THREAD_DOMAIN; /* one thread at a time */
    hints->domain_attr->resource_mgmt = FI_RM_ENABLED;
    hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
    hints->fabric_attr->prov_name = strdup(provider);
    inet_ntop(AF_INET, &ofi->base.ip, ip, sizeof(ip));
    result = ofi_library.getinfo(FI_VERSION(1, 17), ip, NULL, FI_SOURCE, hints, &ofi->info);
    if (result == -FI_ENODATA) /* its addresses may be no IP addresses */
        result = ofi_library.getinfo(FI_VERSION(1, 17), NULL, NULL, 0, hints, &ofi->info);
    ofi_library.freeinfo(hints);
    if (result)
        return not_found(provider, ip, result, error);
    return ofi->base.options.provider_forced ? MORAY_OK
                                             : refuse(ofi->info->fabric_attr->prov_name, error);
}

static enum moray_code endpoint_open(struct ofi *ofi, struct moray_error *error)
{
    struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_FD, .size = 1024};
    struct fi_av_attr av = {.type = FI_AV_UNSPEC, .count = ofi->base.options.rank_count};
    int result;

    if ((result = ofi_library.fabric(ofi->info->fabric_attr, &ofi->fabric, NULL)))
        return failed(error, "fi_fabric", result);
    if ((result = fi_domain(ofi->fabric, ofi->info, &ofi->domain, NULL)))
        return failed(error, "fi_domain", result);
    if ((result = fi_cq_open(ofi->domain, &cq, &ofi->cq, NULL)))
        return failed(error, "a queue that can be waited for (fi_cq_open)", result);
    if ((result = fi_av_open(ofi->domain, &av, &ofi->av, NULL)))
        return failed(error, "fi_av_open", result);
    if ((result = fi_endpoint(ofi->domain, ofi->info, &ofi->ep, NULL)) ||
        (result = fi_ep_bind(ofi->ep, &ofi->av->fid, 0)) ||
        (result = fi_ep_bind(ofi->ep, &ofi->cq->fid, FI_TRANSMIT | FI_RECV)) ||
        (result = fi_enable(ofi->ep)))
        return failed(error, "the endpoint", result);
    ofi->name_bytes = sizeof(ofi->name);
    if ((result = fi_getname(&ofi->ep->fid, ofi->name, &ofi->name_bytes)))
        return failed(error, "fi_getname", result);
    return MORAY_OK;
}

static enum moray_code receives_post(struct ofi *ofi, struct moray_error *error)
{
    size_t bytes = OFI_RECEIVE_COUNT * sizeof(*ofi->receives);
    int result;

    ofi->receives = aligned_alloc(64, bytes);
    if (!ofi->receives)
        return error_set(error, MORAY_NO_MEMORY, "no memory to receive into (%zu bytes)", bytes);
    if ((ofi->info->domain_attr->mr_mode & FI_MR_LOCAL) &&
        (result = ofi_register(ofi, ofi->receives, bytes, FI_RECV, &ofi->receives_mr)))
        return failed(error, "registration of the memory to receive into", result);
    for (int i = 0; i < OFI_RECEIVE_COUNT; i++) {
        ofi->receives[i].kind = OFI_RECEIVE;
        ofi_receive_post(ofi, &ofi->receives[i]);
    }
    return MORAY_OK;
}

static void *setup(void *context)
{
    struct ofi *ofi = context;
    uint64_t one = 1;
    enum moray_code code = ofi_library_load(&ofi->failure);

    if (code == MORAY_OK && atomic_load(&ofi->closing))
        return NULL;
    if (code == MORAY_OK)
        code = discover(ofi, &ofi->failure);
    if (code == MORAY_OK)
        code = endpoint_open(ofi, &ofi->failure);
    if (code == MORAY_OK)
        code = receives_post(ofi, &ofi->failure);
    atomic_store_explicit(&ofi->state, code == MORAY_OK ? OFI_READY : OFI_FAILED,
                          memory_order_release);
    if (write(ofi->ready_fd, &one, sizeof(one)) < 0)
        return NULL; /* the counter of an eventfd takes a 1 always */
    return NULL;
}

enum moray_code ofi_setup_start(struct ofi *ofi, struct moray_error *error)
{
    sigset_t all, before;
    int result;

    sigfillset(&all); /* signals are for the threads that expect them */
    pthread_sigmask(SIG_BLOCK, &all, &before);
    result = pthread_create(&ofi->thread, NULL, setup, ofi);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (result)
        return error_set(error, MORAY_SYSTEM, "no thread for libfabric's discovery: %s",
                         strerror(result));
    ofi->thread_runs = true;
    return MORAY_OK;
}

void ofi_setup_join(struct ofi *ofi)
{
    if (ofi->thread_runs)
        pthread_join(ofi->thread, NULL);
    ofi->thread_runs = false;
}

void ofi_setup_close(struct ofi *ofi)
{
    if (ofi->ep)
        fi_close(&ofi->ep->fid);
    if (ofi->receives_mr)
        fi_close(&ofi->receives_mr->fid);
    if (ofi->av)
        fi_close(&ofi->av->fid);
    if (ofi->cq)
        fi_close(&ofi->cq->fid);
    if (ofi->domain)
        fi_close(&ofi->domain->fid);
    if (ofi->fabric)
        fi_close(&ofi->fabric->fid);
    if (ofi->info)
        ofi_library.freeinfo(ofi->info);
    if (ofi->ready_fd >= 0)
        close(ofi->ready_fd);
    free(ofi->receives);
}
