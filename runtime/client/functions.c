#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/array.h"
#include "client/process.h"
#include "client/stop.h"

/*
 * The program's functions and classes, registered by constructors before main. Sorted by name they
 * have the same numbers on all ranks; a digest over names, types, sizes and kinds tells whether the
 * ranks' programs agree (decisions.md, 15).
 */

enum { FUNCTIONS_FEW = 32 };

TRIP_DATA const struct moray_function **functions;
TRIP_DATA uint32_t function_count;
TRIP_DATA static const struct moray_function *few[FUNCTIONS_FEW]; /* a small program's */
const struct moray_class **classes;
uint32_t class_count;

static struct moray_function **found;
static struct moray_class **found_classes;
static uint32_t found_count, found_capacity, found_class_count, found_class_capacity;
TRIP_DATA static const char *image_first, *image_last; /* of the main program */

void moray_register(struct moray_function *function)
{
    found = array_grown(found, found_count, &found_capacity, sizeof(*found));
    found[found_count++] = function;
}

void moray_register_class(struct moray_class *class)
{
    found_classes = array_grown(found_classes, found_class_count, &found_class_capacity,
                                sizeof(*found_classes));
    found_classes[found_class_count++] = class;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct moray_function *const *)a)->name,
                  (*(struct moray_function *const *)b)->name);
}

static int by_class_name(const void *a, const void *b)
{
    return strcmp((*(struct moray_class *const *)a)->name, (*(struct moray_class *const *)b)->name);
}

static int image_find(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    (void)context;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        const char *first = (const char *)info->dlpi_addr + part->p_vaddr;
        if (part->p_type != PT_LOAD)
            continue;
        if (!image_first || first < image_first)
            image_first = first;
        if (first + part->p_memsz > image_last)
            image_last = first + part->p_memsz;
    }
    return 1; /* the first is the program itself */
}

enum moray_code functions_settle(struct moray_error *error)
{
    dl_iterate_phdr(image_find, NULL);
    if (found_count)
        qsort(found, found_count, sizeof(*found), by_name);
    if (found_class_count)
        qsort(found_classes, found_class_count, sizeof(*found_classes), by_class_name);
    for (uint32_t i = 0; i + 1 < found_count; i++)
        if (!strcmp(found[i]->name, found[i + 1]->name))
            return error_set(error, MORAY_INVALID,
                             "two functions have the name %s: at %s:%d and at %s:%d; rename one",
                             found[i]->name, found[i]->file, found[i]->line, found[i + 1]->file,
                             found[i + 1]->line);
    for (uint32_t i = 0; i + 1 < found_class_count; i++)
        if (!strcmp(found_classes[i]->name, found_classes[i + 1]->name))
            return error_set(error, MORAY_INVALID,
                             "two actors have the name %s: at %s:%d and at %s:%d; rename one",
                             found_classes[i]->name, found_classes[i]->file, found_classes[i]->line,
                             found_classes[i + 1]->file, found_classes[i + 1]->line);
    for (uint32_t i = 0; i < found_count; i++)
        if (found[i]->parameter_count > MORAY_PARAMETERS_MAX ||
            found[i]->result_count > MORAY_PARAMETERS_MAX)
            return error_set(error, MORAY_INVALID,
                             "%s (%s:%d) has %u parameters and %u results; at most %d of each: "
                             "pass or return a struct",
                             found[i]->name, found[i]->file, found[i]->line,
                             (unsigned)found[i]->parameter_count, (unsigned)found[i]->result_count,
                             MORAY_PARAMETERS_MAX);
    for (uint32_t i = 0; i < found_count; i++)
        found[i]->id = i;
    for (uint32_t i = 0; i < found_class_count; i++)
        found_classes[i]->id = i;
    functions = (const struct moray_function **)found;
    function_count = found_count;
    if (found_count && found_count <= FUNCTIONS_FEW)
        functions = memcpy(few, found, found_count * sizeof(*found));
    classes = (const struct moray_class **)found_classes;
    class_count = found_class_count;
    return stop_settle(found, found_count, error);
}

static uint64_t mix(uint64_t hash, const void *bytes, size_t count)
{
    const unsigned char *byte = bytes;
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ byte[i]) * 0x100000001b3;
    return hash;
}

static uint64_t mix_parameters(uint64_t hash, const struct moray_parameter *parameters,
                               unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        hash = mix(hash, parameters[i].type, strlen(parameters[i].type) + 1);
        hash = mix(hash, &parameters[i].size, sizeof(parameters[i].size));
        hash = mix(hash, &parameters[i].kind, sizeof(parameters[i].kind));
    }
    return hash;
}

uint64_t program_digest(void)
{
    uint64_t hash = 0xcbf29ce484222325;

    for (uint32_t i = 0; i < function_count; i++) {
        hash = mix(hash, functions[i]->name, strlen(functions[i]->name) + 1);
        hash = mix(hash, &functions[i]->kind, 1);
        hash = mix_parameters(hash, functions[i]->parameters, functions[i]->parameter_count);
        hash = mix_parameters(hash, functions[i]->results, functions[i]->result_count);
    }
    for (uint32_t i = 0; i < class_count; i++) {
        hash = mix(hash, classes[i]->name, strlen(classes[i]->name) + 1);
        hash = mix(hash, &classes[i]->state_size, sizeof(classes[i]->state_size));
    }
    return hash;
}

/* A site lies in the program's constants, at the same distance from its first byte in every rank. */
ON_TRIP uint32_t site_pack(const struct moray_site *site)
{
    const char *at = (const char *)site;
    return at >= image_first && at < image_last && (uint64_t)(at - image_first) < UINT32_MAX
               ? (uint32_t)(at - image_first) + 1
               : 0;
}

/* Addresses of the program itself differ between ranks by where it was loaded. */
uint64_t program_offset(uint64_t address)
{
    return address - (uint64_t)(uintptr_t)image_first;
}

uint64_t program_address(uint64_t offset)
{
    return (uint64_t)(uintptr_t)image_first + offset;
}

uint64_t program_bytes(void)
{
    return (uint64_t)(image_last - image_first);
}

const struct moray_site *site_unpack(uint32_t packed)
{
    if (!packed || packed - 1 + sizeof(struct moray_site) > (uint64_t)(image_last - image_first))
        return NULL;
    return (const struct moray_site *)(image_first + (packed - 1));
}
