#include "fabric/ofi.h"

#include <stdlib.h>

#include "fabric/auth.h"

/* Registered at once around what is first asked for: one key for many objects. */
static const uint64_t extent_bytes = 64 << 20;
static const uint64_t page_bytes = 2 << 20; /* the alignment of larger ones */

int ofi_register(struct ofi *ofi, const void *memory, size_t bytes, uint64_t access,
                 struct fid_mr **mr)
{
    uint64_t key = 0;
    int result;

    for (int attempt = 0; attempt < 8; attempt++) { /* random keys may clash */
        if (!(ofi->info->domain_attr->mr_mode & FI_MR_PROV_KEY)) {
            size_t key_bytes = ofi->info->domain_attr->mr_key_size;
            auth_random(&key, sizeof(key));
            if (key_bytes < sizeof(key))
                key &= (UINT64_C(1) << key_bytes * 8) - 1;
        }
        result = fi_mr_reg(ofi->domain, memory, bytes, access, 0, key, 0, mr, NULL);
        if (result != -FI_ENOKEY)
            break;
    }
    if (result)
        return result;
    if ((ofi->info->domain_attr->mr_mode & FI_MR_ENDPOINT) &&
        ((result = fi_mr_bind(*mr, &ofi->ep->fid, 0)) || (result = fi_mr_enable(*mr)))) {
        fi_close(&(*mr)->fid);
        return result;
    }
    return 0;
}

/* Gives up the registration that was used least lately and that nobody holds. */
static bool evict(struct ofi *ofi)
{
    struct ofi_region **oldest = NULL, *region;

    for (struct ofi_region **place = &ofi->regions; *place; place = &(*place)->next)
        if (!(*place)->holds && (!oldest || (*place)->used < (*oldest)->used))
            oldest = place;
    if (!oldest)
        return false;
    region = *oldest;
    *oldest = region->next;
    ofi->region_count--;
    fi_close(&region->mr->fid);
    free(region);
    return true;
}

static struct ofi_region *region_make(struct ofi *ofi, uint64_t offset, uint64_t bytes,
                                      int *failure)
{
    struct ofi_region *region = calloc(1, sizeof(*region));
    uint8_t *arena = ofi->base.options.arena;

    *failure = -FI_ENOMEM;
    while (ofi->region_count >= OFI_REGIONS_MAX)
        if (!evict(ofi)) {
            free(region);
            return NULL;
        }
    do {
        if (region)
            *failure =
                ofi_register(ofi, arena + offset, bytes, FI_REMOTE_READ | FI_READ, &region->mr);
    } while (region && *failure && evict(ofi));
    if (!region || *failure) {
        free(region);
        return NULL;
    }
    region->offset = offset;
    region->bytes = bytes;
    region->key = fi_mr_key(region->mr);
    region->next = ofi->regions;
    ofi->regions = region;
    ofi->region_count++;
    return region;
}

struct ofi_region *ofi_region_hold(struct ofi *ofi, uint64_t offset, uint64_t bytes, int *failure)
{
    uint64_t arena_bytes = ofi->base.options.arena_bytes, end = offset + bytes;
    uint64_t unit = offset / extent_bytes == (end - 1) / extent_bytes ? extent_bytes : page_bytes;
    uint64_t first = offset / unit * unit, last = (end + unit - 1) / unit * unit;
    struct ofi_region *region = ofi->regions;

    while (region && (offset < region->offset || end > region->offset + region->bytes))
        region = region->next;
    if (!region)
        region =
            region_make(ofi, first, (last < arena_bytes ? last : arena_bytes) - first, failure);
    if (!region)
        region = region_make(ofi, offset, bytes, failure); /* perhaps that much can be pinned */
    if (!region)
        return NULL;
    region->holds++;
    region->used = ++ofi->region_clock;
    return region;
}

void ofi_region_drop(struct ofi *ofi, uint64_t key)
{
    for (struct ofi_region *region = ofi->regions; region; region = region->next) {
        if (region->key == key && region->holds) {
            region->holds--;
            return;
        }
    }
}

void ofi_regions_close(struct ofi *ofi)
{
    while (ofi->regions) {
        struct ofi_region *region = ofi->regions;
        ofi->regions = region->next;
        fi_close(&region->mr->fid);
        free(region);
    }
}
