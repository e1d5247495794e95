#include "fabric/ofi.h"

#include <stdlib.h>

#include "fabric/auth.h"

/* Registered at once around what is first asked for: one key for many objects. */
static const uint64_t extent_bytes = 64 << 20;
static const uint64_t page_bytes = 2 << 20; /* the alignment of larger ones */

static uint64_t random_key(size_t bytes)
{
    uint64_t key;

    auth_random(&key, sizeof(key));
    return bytes < sizeof(key) ? key & ((UINT64_C(1) << bytes * 8) - 1) : key;
}

static int register_as(struct ofi *ofi, const void *memory, size_t bytes, uint64_t access,
                       uint64_t key, struct fid_mr **mr)
{
    int result = fi_mr_reg(ofi->domain, memory, bytes, access, 0, key, 0, mr, NULL);

    if (result || !(ofi->info->domain_attr->mr_mode & FI_MR_ENDPOINT))
        return result;
    if ((result = fi_mr_bind(*mr, &ofi->ep->fid, 0)) || (result = fi_mr_enable(*mr)))
        fi_close(&(*mr)->fid);
    return result;
}

int ofi_register(struct ofi *ofi, const void *memory, size_t bytes, uint64_t access,
                 struct fid_mr **mr)
{
    const struct fi_domain_attr *attributes = ofi->info->domain_attr;
    bool ours = !(attributes->mr_mode & FI_MR_PROV_KEY);
    int result = -FI_ENOKEY;

    for (int attempt = 0; attempt < 8 && result == -FI_ENOKEY; attempt++) /* keys may clash */
        result = register_as(ofi, memory, bytes, access,
                             ours ? random_key(attributes->mr_key_size) : 0, mr);
    return result;
}

int ofi_regions_keep(struct ofi *ofi)
{
    const uint8_t *arena = ofi->base.options.arena;
    int result = 0;

    if (ofi->regions && (ofi->info->domain_attr->mr_mode & (FI_MR_PROV_KEY | FI_MR_VIRT_ADDR)))
        return -FI_ENOSYS;
    for (struct ofi_region *region = ofi->regions; region && !result; region = region->next)
        result = register_as(ofi, arena + region->offset, region->bytes, FI_REMOTE_READ | FI_READ,
                             region->key, &region->mr);
    return result;
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
    if (region->mr)
        fi_close(&region->mr->fid);
    free(region);
    return true;
}

static struct ofi_region *region_make(struct ofi *ofi, uint64_t offset, uint64_t bytes,
                                      int *failure)
{
    struct ofi_region *region = calloc(1, sizeof(*region));
    uint8_t *arena = ofi->base.options.arena;

    while (ofi->region_count >= OFI_REGIONS_MAX)
        if (!evict(ofi)) {
            *failure = -FI_ENOMEM;
            free(region);
            return NULL;
        }
    *failure = region ? 0 : -FI_ENOMEM;
    while (region && ofi_is_working(ofi) &&
           (*failure =
                ofi_register(ofi, arena + offset, bytes, FI_REMOTE_READ | FI_READ, &region->mr)) &&
           evict(ofi))
        ;
    if (!region || *failure) {
        free(region);
        return NULL;
    }
    region->offset = offset;
    region->bytes = bytes;
    region->key = region->mr ? fi_mr_key(region->mr) : random_key(sizeof(region->key));
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
        if (region->mr)
            fi_close(&region->mr->fid);
        free(region);
    }
}
