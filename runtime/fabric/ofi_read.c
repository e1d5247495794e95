/**
 * Reads over libfabric: windows exposed by the source, pieces posted by the reader.
 */
#include "fabric/ofi.h"

#include <inttypes.h>
#include <string.h>

static bool rank_readable(void *context, uint32_t rank)
{
    struct ofi *ofi = context;

    if (!ofi_is_alive(ofi, rank))
        return false;
    if (ofi->addresses[rank] == FI_ADDR_NOTAVAIL)
        ofi_want(ofi, rank);
    return ofi->addresses[rank] != FI_ADDR_NOTAVAIL;
}

/* The registration of what a piece reads into: the arena's regions, or one of its own. */
static int piece_describe(struct ofi *ofi, struct reads_piece *piece, void **descriptor)
{
    const uint8_t *arena = ofi->base.options.arena;
    uint64_t offset = (uint64_t)(piece->local - arena);
    struct ofi_region *region;
    struct fid_mr *mr = NULL;
    int result = 0;

    *descriptor = NULL;
    piece->request[0] = piece->request[1] = 0;
    if (!ofi_wants_descriptors(ofi))
        return 0;
    if (arena && piece->local >= arena && offset + piece->bytes <= ofi->base.options.arena_bytes) {
        region = ofi_region_hold(ofi, offset, piece->bytes, &result);
        if (!region)
            return result;
        piece->request[1] = region->key;
        *descriptor = fi_mr_desc(region->mr);
        return 0;
    }
    result = ofi_register(ofi, piece->local, piece->bytes, FI_READ, &mr);
    if (result)
        return result;
    piece->request[0] = (uint64_t)(uintptr_t)mr;
    *descriptor = fi_mr_desc(mr);
    return 0;
}

void ofi_piece_forget(struct ofi *ofi, struct reads_piece *piece)
{
    struct fid_mr *mr = (struct fid_mr *)(uintptr_t)piece->request[0];

    if (mr)
        fi_close(&mr->fid);
    else if (ofi_wants_descriptors(ofi) && piece->request[1])
        ofi_region_drop(ofi, piece->request[1]);
}

void ofi_pieces_post(struct ofi *ofi)
{
    struct reads_piece *piece;
    void *descriptor;
    ssize_t result;

    while ((piece = reads_next(ofi->base.reads, rank_readable, ofi))) {
        piece->kind = OFI_PIECE;
        result = piece_describe(ofi, piece, &descriptor);
        if (!result) {
            result = fi_read(ofi->ep, piece->local, piece->bytes, descriptor,
                             ofi->addresses[piece->rank], piece->address + piece->offset,
                             piece->key, piece->context);
            if (result)
                ofi_piece_forget(ofi, piece);
        }
        if (!result)
            continue;
        uint32_t rank = piece->rank;
        reads_back(ofi->base.reads, piece);
        if (result != -FI_EAGAIN)
            ofi_rank_fail(ofi, rank, "read from", (int)-result);
        return;
    }
}

enum moray_code ofi_expose(struct fabric *fabric, uint64_t offset, uint64_t bytes,
                           struct fabric_window *window, struct moray_error *error)
{
    struct ofi *ofi = (struct ofi *)fabric;
    struct ofi_region *region;
    int failure = 0;

    /* tcp lets us choose keys and counts from the start of a region: its windows can be promised. */
    if (!ofi_is_working(ofi) && fabric->options.provider &&
        strncmp(fabric->options.provider, "tcp", 3) != 0)
        return error_set(error, MORAY_BUSY, "libfabric's discovery is under way");
    region = ofi_region_hold(ofi, offset, bytes, &failure);
    if (!region)
        return error_set(error, MORAY_FULL,
                         "%" PRIu64 " bytes of the arena cannot be registered: %s (ulimit -l?)",
                         bytes, ofi_library.strerror(-failure));
    *window = (struct fabric_window){
        .address = offset - region->offset, .key = region->key, .bytes = bytes};
    if (ofi_is_working(ofi) && (ofi->info->domain_attr->mr_mode & FI_MR_VIRT_ADDR))
        window->address = (uint64_t)(uintptr_t)fabric->options.arena + offset;
    return MORAY_OK;
}

void ofi_conceal(struct fabric *fabric, const struct fabric_window *window)
{
    ofi_region_drop((struct ofi *)fabric, window->key);
}
