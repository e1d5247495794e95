#include "store/arena/arena.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Multiples of 64 from 64 up, so that blocks are aligned to cache lines. */
static const uint32_t class_bytes[ARENA_CLASS_COUNT] = {
    32,   64,   128,  192,  256,  384,  512,  768,   1024,
    1536, 2048, 3072, 4096, 5440, 6528, 8192, 10880, 16384,
};

enum {
    CHUNK = 4096,
    COLLECT_SLABS = 16,    /* own slabs of a class to look at before another is claimed */
    COLLECT_PASSED = 1024, /* … and of all classes, on the way to them */
};

/* Not 0 in the copy with which tests/lane/kill shows that it finds mistakes. */
#ifndef ARENA_BREAK
#define ARENA_BREAK 0
#endif

static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "a lock inside an atomic would outlive its holder");
static_assert(ARENA_SLAB_WORDS == 32, "2048 blocks of 32 bytes in a page");

static uint64_t word_of(enum arena_page kind, uint16_t slot, uint32_t rest)
{
    return (uint64_t)rest << 32 | (uint64_t)slot << 8 | kind;
}

static enum arena_page kind_of(uint64_t word)
{
    return word & 0xff;
}

static uint16_t slot_of(uint64_t word)
{
    return word >> 8 & 0xffff;
}

static uint32_t rest_of(uint64_t word)
{
    return word >> 32;
}

static _Atomic uint64_t *page_words(const struct arena *arena)
{
    return (_Atomic uint64_t *)(arena->region + arena->layout->pages);
}

/* The lowest page that may be free: a hint that any process may set. */
static _Atomic uint32_t *first_free(const struct arena *arena)
{
    return (_Atomic uint32_t *)(arena->region + arena->layout->pages +
                                (uint64_t)arena->layout->page_count * 8);
}

/* The record a block belongs to, plus one; a run's is that of its first block. */
static _Atomic uint32_t *back_of(const struct arena *arena, uint32_t page, uint32_t block)
{
    return (_Atomic uint32_t *)(arena->region + arena->layout->backs) +
           (uint64_t)page * (ARENA_PAGE_BYTES / ARENA_PLACE_BYTES) + block;
}

static struct arena_slab *slab_of(const struct arena *arena, uint32_t page)
{
    return (struct arena_slab *)(arena->region + arena->layout->slabs) + page;
}

static uint32_t place_of(const struct arena *arena, uint32_t page, uint32_t class, uint32_t block)
{
    return (uint32_t)((arena->layout->data + (uint64_t)page * ARENA_PAGE_BYTES) /
                          ARENA_PLACE_BYTES +
                      (uint64_t)block * (class_bytes[class] / ARENA_PLACE_BYTES));
}

static uint32_t page_of(const struct arena *arena, uint32_t place)
{
    return (uint32_t)(((uint64_t)place * ARENA_PLACE_BYTES - arena->layout->data) /
                      ARENA_PAGE_BYTES);
}

static uint32_t block_of(const struct arena *arena, uint32_t place, uint32_t class)
{
    uint64_t offset =
        ((uint64_t)place * ARENA_PLACE_BYTES - arena->layout->data) % ARENA_PAGE_BYTES;
    return (uint32_t)(offset / class_bytes[class]);
}

static uint32_t blocks_in(uint32_t class)
{
    return ARENA_PAGE_BYTES / class_bytes[class];
}

static uint32_t class_for(uint64_t bytes)
{
    uint32_t class = 0;
    while (class_bytes[class] < bytes)
        class ++;
    return class;
}

/* Whether the record that the block was allocated for still refers to it. */
static bool in_use(const struct arena *arena, uint32_t page, uint32_t block, uint32_t place)
{
    uint32_t back = atomic_load_explicit(back_of(arena, page, block), memory_order_acquire);
    return back && arena->refers(arena->region, back - 1, place);
}

static bool push(struct arena_stack *stack, uint32_t item)
{
    if (stack->count == stack->capacity) {
        uint32_t capacity = stack->capacity ? stack->capacity * 2 : 64;
        uint32_t *items = realloc(stack->items, capacity * sizeof(*items));
        if (!items)
            return false;
        stack->items = items;
        stack->capacity = capacity;
    }
    stack->items[stack->count++] = item;
    return true;
}

static uint64_t align_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

enum moray_code arena_plan(const struct arena_sizes *sizes, struct arena_layout *layout,
                           struct moray_error *error)
{
    uint64_t at = align_up(sizes->control_bytes, CHUNK);

    *layout = (struct arena_layout){.slot_count = sizes->slot_count,
                                    .ring_entries = sizes->ring_entries,
                                    .record_count = sizes->record_count,
                                    .cell_count = sizes->cell_count};
    if (sizes->data_bytes < 16 * ARENA_PAGE_BYTES || sizes->data_bytes > (uint64_t)120 << 30 ||
        !sizes->slot_count || sizes->slot_count > ARENA_SLOTS_MAX)
        return error_set(error, MORAY_INVALID,
                         "an arena of %llu bytes and %u processes: it takes 1 MiB to 120 GiB and 1 "
                         "to %d processes; change MORAY_STORE_BYTES or MORAY_PROCESSES_MAX",
                         (unsigned long long)sizes->data_bytes, sizes->slot_count, ARENA_SLOTS_MAX);
    layout->page_count = (uint32_t)(sizes->data_bytes / ARENA_PAGE_BYTES);
#define PART(name, bytes) layout->name = at, at = align_up(at + (uint64_t)(bytes), CHUNK)
    PART(slots, (uint64_t)sizes->slot_count * sizes->slot_bytes);
    PART(rings, (uint64_t)sizes->slot_count * sizes->ring_entries * 8);
    PART(records, (uint64_t)sizes->record_count * sizes->record_bytes);
    PART(record_slabs, (uint64_t)sizes->record_count / 512 * 128);
    PART(cells, (uint64_t)sizes->cell_count * sizes->cell_bytes);
    PART(cell_slabs, (uint64_t)sizes->cell_count / 512 * 128);
    PART(slabs, (uint64_t)layout->page_count * sizeof(struct arena_slab));
    PART(pages, (uint64_t)layout->page_count * 8 + 64);
    PART(backs, (uint64_t)layout->page_count * (ARENA_PAGE_BYTES / ARENA_PLACE_BYTES) * 4);
#undef PART
    layout->data = align_up(at, (uint64_t)2 << 20);
    layout->total_bytes = layout->data + (uint64_t)layout->page_count * ARENA_PAGE_BYTES;
    if (layout->total_bytes > (uint64_t)128 << 30)
        return error_set(error, MORAY_INVALID,
                         "the arena's tables do not fit into 128 GiB; lower "
                         "MORAY_STORE_BYTES, MORAY_PROCESSES_MAX or "
                         "MORAY_QUEUE_MAX");
    return MORAY_OK;
}

void arena_attach(struct arena *arena, void *region, const struct arena_layout *layout,
                  uint16_t slot, arena_refers *refers)
{
    *arena = (struct arena){.region = region, .layout = layout, .slot = slot, .refers = refers};
    /* A slot that had another process before owns slabs already: their bits say what is free. */
    for (uint32_t page = 0; page < layout->page_count; page++) {
        uint64_t word = atomic_load_explicit(&page_words(arena)[page], memory_order_relaxed);
        if (kind_of(word) != ARENA_SLAB || slot_of(word) != slot)
            continue;
        struct arena_stack own = {arena->own_pages, arena->own_count, arena->own_capacity};
        if (!push(&own, page))
            break; /* its blocks stay unused: memory is short, not wrong */
        arena->own_pages = own.items;
        arena->own_count = own.count;
        arena->own_capacity = own.capacity;
    }
}

void arena_detach(struct arena *arena)
{
    for (int class = 0; class < ARENA_CLASS_COUNT; class ++)
        free(arena->free[class].items);
    free(arena->own_pages);
    *arena = (struct arena){0};
}

/* ---- Runs of pages ---- */

/* Takes one page for a run; the first says that the run is in the making. */
static bool take_page(struct arena *arena, uint32_t page, uint32_t first)
{
    uint64_t empty = 0;
    uint64_t word =
        page == first ? word_of(ARENA_MAKING, arena->slot, 0) : word_of(ARENA_TAIL, 0, first);
    return atomic_compare_exchange_strong_explicit(&page_words(arena)[page], &empty, word,
                                                   memory_order_acq_rel, memory_order_relaxed);
}

static void lower_hint(struct arena *arena, uint32_t page)
{
    if (page < atomic_load_explicit(first_free(arena), memory_order_relaxed))
        atomic_store_explicit(first_free(arena), page, memory_order_relaxed);
}

/* Frees a run whose head is MAKING by this slot (or by one that it repairs), so nobody else's. The
 * tails go first, from the last one down, the head last: a death leaves a shorter run in the making.
 * A page that is free has no back: nobody can take it for the block that began there before. */
static void clear_run(struct arena *arena, uint32_t first, uint32_t count)
{
#if ARENA_BREAK == 1
    atomic_store_explicit(&page_words(arena)[first], 0, memory_order_release);
#endif
    for (uint32_t page = first + count - 1; page > first; page--)
        atomic_store_explicit(&page_words(arena)[page], 0, memory_order_release);
    atomic_store_explicit(back_of(arena, first, 0), 0, memory_order_relaxed);
    atomic_store_explicit(&page_words(arena)[first], 0, memory_order_release);
    lower_hint(arena, first);
}

/* Tries to take `count` pages from `first` on. Returns 0 on success, else the page to go on from. */
static uint32_t take_run(struct arena *arena, uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (take_page(arena, first + i, first))
            continue;
        if (i > 0)
            clear_run(arena, first, i);
        return first + i + 1;
    }
    return 0;
}

static bool is_free(struct arena *arena, uint32_t page)
{
    return atomic_load_explicit(&page_words(arena)[page], memory_order_relaxed) == 0;
}

/* First fit, from the lowest address up: what has been touched before is used before what is new.
 * Returns page + 1, or 0. */
static uint32_t find_run(struct arena *arena, uint32_t count, uint32_t from, uint32_t end)
{
    uint32_t length = 0;

    for (uint32_t page = from; page < end; page++) {
        length = is_free(arena, page) ? length + 1 : 0;
        if (length < count)
            continue;
        uint32_t first = page + 1 - count, next = take_run(arena, first, count);
        if (next == 0)
            return first + 1;
        length = 0;
        page = next - 1;
    }
    return 0;
}

static uint32_t take_pages(struct arena *arena, uint32_t count)
{
    uint32_t hint = atomic_load_explicit(first_free(arena), memory_order_relaxed);
    uint32_t end = arena->layout->page_count;
    uint32_t found;

    if (hint >= end)
        hint = 0;
    found = find_run(arena, count, hint, end);
    if (!found && hint > 0)
        found = find_run(arena, count, 0, end);
    if (found && found - 1 == hint)
        atomic_store_explicit(first_free(arena), hint + count, memory_order_relaxed);
    return found;
}

static uint32_t alloc_run(struct arena *arena, uint64_t bytes, uint32_t record)
{
    uint64_t count = bytes / ARENA_PAGE_BYTES + (bytes % ARENA_PAGE_BYTES != 0); /* of any size */
    uint32_t found = count <= arena->layout->page_count ? take_pages(arena, (uint32_t)count) : 0;

    if (!found)
        return 0;
    atomic_store_explicit(back_of(arena, found - 1, 0), record + 1, memory_order_release);
    atomic_store_explicit(&page_words(arena)[found - 1],
                          word_of(ARENA_HEAD, arena->slot, (uint32_t)count), memory_order_release);
    return place_of(arena, found - 1, 0, 0);
}

/* ---- Small blocks ---- */

/* Takes back the blocks of one own slab whose bits are set; a bit whose record still refers to the
 * block stays: its freer is between its two steps, or died there. */
static void collect(struct arena *arena, uint32_t page, uint32_t class)
{
    struct arena_slab *slab = slab_of(arena, page);

    for (uint32_t word = 0; word <= (blocks_in(class) - 1) / 64; word++) {
        uint64_t bits = atomic_load_explicit(&slab->freed[word], memory_order_acquire);
        while (bits) {
            uint32_t block = word * 64 + (uint32_t)__builtin_ctzll(bits);
            uint64_t bit = bits & -bits;
            uint32_t place = place_of(arena, page, class, block);
            bits &= bits - 1;
            if (in_use(arena, page, block, place))
                continue;
            /* The back first: whoever frees this block again, repairing a death, is refused then. */
            atomic_store_explicit(back_of(arena, page, block), 0, memory_order_relaxed);
            if (!push(&arena->free[class], place))
                return;
            atomic_fetch_and_explicit(&slab->freed[word], ~bit, memory_order_acq_rel);
        }
    }
}

static bool claim_slab(struct arena *arena, uint32_t class)
{
    struct arena_stack own = {arena->own_pages, arena->own_count, arena->own_capacity};
    uint32_t hint = atomic_load_explicit(first_free(arena), memory_order_relaxed);
    uint32_t end = arena->layout->page_count, page = hint < end ? hint : 0;

    for (uint32_t tried = 0; tried < end; tried++, page = page + 1 < end ? page + 1 : 0) {
        uint64_t empty = 0;
        if (!is_free(arena, page) ||
            !atomic_compare_exchange_strong_explicit(&page_words(arena)[page], &empty,
                                                     word_of(ARENA_SLAB, arena->slot, class),
                                                     memory_order_acq_rel, memory_order_relaxed))
            continue;
        if (tried == 0)
            atomic_store_explicit(first_free(arena), page + 1, memory_order_relaxed);
        if (!push(&own, page))
            return false;
        arena->own_pages = own.items;
        arena->own_count = own.count;
        arena->own_capacity = own.capacity;
        for (uint32_t block = blocks_in(class); block-- > 0;)
            if (!push(&arena->free[class], place_of(arena, page, class, block)))
                return arena->free[class].count > 0;
        return true;
    }
    return false;
}

static uint32_t class_of_own(const struct arena *arena, uint32_t i)
{
    return rest_of(
        atomic_load_explicit(&page_words(arena)[arena->own_pages[i]], memory_order_relaxed));
}

/* Looks at own slabs of the class in turn until one has a free block. A bounded look: who only fills the
 * arena would else look at all that it has for each slab more. */
static bool collect_some(struct arena *arena, uint32_t class, uint32_t slabs, uint32_t passed)
{
    uint32_t *turn = &arena->turn[class];

    if (passed > arena->own_count)
        passed = arena->own_count;
    for (; passed > 0 && slabs > 0 && arena->free[class].count == 0; passed--) {
        *turn = *turn + 1 < arena->own_count ? *turn + 1 : 0;
        if (class_of_own(arena, *turn) != class)
            continue;
        slabs--;
        collect(arena, arena->own_pages[*turn], class);
    }
    return arena->free[class].count > 0;
}

static uint32_t alloc_small(struct arena *arena, uint64_t bytes, uint32_t record)
{
    uint32_t class = class_for(bytes);
    struct arena_stack *stack = &arena->free[class];
    uint32_t place;

    if (stack->count == 0 && !collect_some(arena, class, COLLECT_SLABS, COLLECT_PASSED) &&
        !claim_slab(arena, class) && !collect_some(arena, class, UINT32_MAX, UINT32_MAX))
        return 0;
    place = stack->items[--stack->count];
    atomic_store_explicit(back_of(arena, page_of(arena, place), block_of(arena, place, class)),
                          record + 1, memory_order_release);
    return place;
}

uint32_t arena_trim(struct arena *arena)
{
    enum { GIVEN = 0xffff };
    uint16_t *there = calloc(arena->layout->page_count, sizeof(*there)); /* free blocks a page */
    uint32_t kept = 0, given;

    if (!there)
        return 0;
    for (uint32_t i = 0; i < arena->own_count; i++)
        collect(arena, arena->own_pages[i], class_of_own(arena, i));
    for (int class = 0; class < ARENA_CLASS_COUNT; class ++)
        for (uint32_t k = 0; k < arena->free[class].count; k++)
            there[page_of(arena, arena->free[class].items[k])]++;
    for (uint32_t i = 0; i < arena->own_count; i++)
        if (there[arena->own_pages[i]] == blocks_in(class_of_own(arena, i)))
            there[arena->own_pages[i]] = GIVEN;
    for (int class = 0; class < ARENA_CLASS_COUNT; class ++) {
        struct arena_stack *stack = &arena->free[class];
        uint32_t count = stack->count;
        stack->count = 0;
        for (uint32_t k = 0; k < count; k++)
            if (there[page_of(arena, stack->items[k])] != GIVEN)
                stack->items[stack->count++] = stack->items[k];
    }
    for (uint32_t i = 0; i < arena->own_count; i++) {
        uint32_t page = arena->own_pages[i];
        if (there[page] != GIVEN) {
            arena->own_pages[kept++] = page;
            continue;
        }
        atomic_store_explicit(&page_words(arena)[page], 0, memory_order_release);
        lower_hint(arena, page);
    }
    given = arena->own_count - kept;
    arena->own_count = kept;
    free(there);
    return given;
}

uint32_t arena_alloc(struct arena *arena, uint64_t bytes, uint32_t record)
{
    uint32_t place;

    assert(bytes > 0);
    if (bytes <= ARENA_SMALL_BYTES_MAX)
        place = alloc_small(arena, bytes, record);
    else
        place = alloc_run(arena, bytes, record);
    if (!place && arena_trim(arena))
        place = bytes <= ARENA_SMALL_BYTES_MAX ? alloc_small(arena, bytes, record)
                                               : alloc_run(arena, bytes, record);
    return place;
}

/* One process wins: from then on the run is in its hands, and repair finds it there. */
static void free_run(struct arena *arena, uint32_t first, uint64_t word)
{
    if (atomic_compare_exchange_strong_explicit(&page_words(arena)[first], &word,
                                                word_of(ARENA_MAKING, arena->slot, 0),
                                                memory_order_acq_rel, memory_order_relaxed))
        clear_run(arena, first, rest_of(word));
}

void arena_free(struct arena *arena, uint32_t place, uint32_t record)
{
    uint32_t page = page_of(arena, place);
    uint64_t word = atomic_load_explicit(&page_words(arena)[page], memory_order_acquire);

    assert(page < arena->layout->page_count);
    if (kind_of(word) == ARENA_HEAD) {
        if (atomic_load_explicit(back_of(arena, page, 0), memory_order_acquire) == record + 1)
            free_run(arena, page, word);
        return;
    }
    if (kind_of(word) != ARENA_SLAB)
        return; /* freed before a death, and freed again by the repair */
    uint32_t block = block_of(arena, place, rest_of(word));
    if (atomic_load_explicit(back_of(arena, page, block), memory_order_relaxed) != record + 1)
        return;
    atomic_fetch_or_explicit(&slab_of(arena, page)->freed[block / 64], (uint64_t)1 << block % 64,
                             memory_order_release);
}

/* ---- Repair and accounts ---- */

/* Blocks to which no record refers are marked free; a slab without any other becomes a free page. */
static void repair_slab(struct arena *arena, uint32_t page, uint32_t class)
{
    struct arena_slab *slab = slab_of(arena, page);
    bool any = false;

    for (uint32_t block = 0; block < blocks_in(class); block++) {
        if (in_use(arena, page, block, place_of(arena, page, class, block)))
            any = true;
        else
            atomic_fetch_or_explicit(&slab->freed[block / 64], (uint64_t)1 << block % 64,
                                     memory_order_release);
    }
    if (any)
        return;
    for (uint32_t block = 0; block < blocks_in(class); block++)
        atomic_store_explicit(back_of(arena, page, block), 0, memory_order_relaxed);
    for (uint32_t word = 0; word < ARENA_SLAB_WORDS; word++)
        atomic_store_explicit(&slab->freed[word], 0, memory_order_relaxed);
    atomic_store_explicit(&page_words(arena)[page], 0, memory_order_release);
}

/* A run in the making, or half freed: a head and some tails behind it. */
static uint32_t making_length(struct arena *arena, uint32_t first)
{
    uint32_t page = first + 1;
    while (page < arena->layout->page_count &&
           atomic_load(&page_words(arena)[page]) == word_of(ARENA_TAIL, 0, first))
        page++;
    return page - first;
}

void arena_repair(struct arena *arena, uint16_t slot)
{
    for (uint32_t page = 0; page < arena->layout->page_count; page++) {
        uint64_t word = atomic_load_explicit(&page_words(arena)[page], memory_order_acquire);
        if (slot_of(word) != slot)
            continue;
        if (kind_of(word) == ARENA_SLAB)
            repair_slab(arena, page, rest_of(word));
        else if (kind_of(word) == ARENA_MAKING)
            clear_run(arena, page, making_length(arena, page));
        else if (kind_of(word) == ARENA_HEAD &&
                 !in_use(arena, page, 0, place_of(arena, page, 0, 0)))
            free_run(arena, page, word);
    }
    lower_hint(arena, 0);
}

uint64_t arena_rounded(uint64_t bytes)
{
    return bytes <= ARENA_SMALL_BYTES_MAX ? class_bytes[class_for(bytes)]
                                          : align_up(bytes, ARENA_PAGE_BYTES);
}

uint64_t arena_block_bytes(const struct arena *arena, uint32_t place)
{
    uint64_t word =
        atomic_load_explicit(&page_words(arena)[page_of(arena, place)], memory_order_relaxed);
    return kind_of(word) == ARENA_SLAB ? class_bytes[rest_of(word)]
                                       : (uint64_t)rest_of(word) * ARENA_PAGE_BYTES;
}

static void add_slab(const struct arena *arena, uint32_t page, uint32_t class,
                     struct arena_usage *usage)
{
    usage->slab_bytes += ARENA_PAGE_BYTES;
    for (uint32_t block = 0; block < blocks_in(class); block++) {
        if (in_use(arena, page, block, place_of(arena, page, class, block))) {
            usage->held_blocks++;
            usage->held_bytes += class_bytes[class];
        }
        if (atomic_load(&slab_of(arena, page)->freed[block / 64]) >> block % 64 & 1)
            usage->small_free_bytes += class_bytes[class];
    }
}

void arena_usage(const struct arena *arena, struct arena_usage *usage)
{
    uint64_t run = 0;

    *usage =
        (struct arena_usage){.data_bytes = (uint64_t)arena->layout->page_count * ARENA_PAGE_BYTES};
    for (uint32_t page = 0; page < arena->layout->page_count; page++) {
        uint64_t word = atomic_load_explicit(&page_words(arena)[page], memory_order_relaxed);
        run = kind_of(word) == ARENA_FREE ? run + ARENA_PAGE_BYTES : 0;
        if (run > usage->largest_free_run_bytes)
            usage->largest_free_run_bytes = run;
        if (kind_of(word) == ARENA_FREE) {
            usage->free_page_bytes += ARENA_PAGE_BYTES;
        } else if (kind_of(word) == ARENA_SLAB) {
            add_slab(arena, page, rest_of(word), usage);
        } else {
            usage->run_bytes += ARENA_PAGE_BYTES;
            if (kind_of(word) == ARENA_HEAD &&
                in_use(arena, page, 0, place_of(arena, page, 0, 0))) {
                usage->held_blocks++;
                usage->held_bytes += (uint64_t)rest_of(word) * ARENA_PAGE_BYTES;
            }
        }
    }
}
