/* The engine of kernels.so: constants in, tables prepared once (prepare.c), then steps over items. Needs only libc. */
#define _POSIX_C_SOURCE 199309L /* clock_gettime, beside C11 */
#include "runtime.h"

#include <cpuid.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* One parallel phase must be worth waking threads, and each of its pieces worth fetching. Measured on 16 tokens through
 * the linear layers of a MiniLM block, 90 % zeros, two threads of a Sapphire Rapids: 0.163 ms unsplit, 0.136 from 400,000
 * on, 0.122 from 200,000 on, 0.180 from 25,000 on (with pieces of half of it). */
enum { PARALLEL_WORK = 200000, PIECE_WORK = 100000, PIECES_MOST = 16 };

/* What one item needs while it runs. Lives in a free list between calls, so that concurrent calls never share one. */
struct workspace {
    struct workspace *next;
    float *arena;
    const char *bases[];
};

struct freelist {
    atomic_flag busy;
    struct workspace *first;
};

struct engine {
    const struct region *region;
    kernel_fn *const *kernels;
    const void **constants; /* by input number */
    const void **tables;    /* by prepare number: made here, or a constant used in place */
    void **owned;           /* the tables made here */
    struct freelist *free;  /* by variant number */
};

void *sparsecc_fail(struct message *message, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
    return NULL;
}

/* ---- which instruction set ---------------------------------------------------------------------------------- */

/* What the CPU has and the operating system saves: the bits that LLVM's "haswell" and "skylake-avx512" may use.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID and XGETBV. */
static bool supported(enum isa isa) {
    enum { FMA = 1 << 12, MOVBE = 1 << 22, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };       /* 1, ecx */
    enum { BMI1 = 1 << 3, AVX2 = 1 << 5, BMI2 = 1 << 8 };                                            /* 7, ebx */
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* 7, ebx: F, DQ, CD, BW, VL */
    enum { LZCNT = 1 << 5 };                                                                 /* 0x80000001, ecx */
    enum { YMM = 0x06, ZMM = 0xe6 };                                                                    /* XCR0 */
    const unsigned haswell_1 = FMA | MOVBE | OSXSAVE | AVX | F16C, haswell_7 = BMI1 | AVX2 | BMI2;
    unsigned eax, ebx, ecx, edx, leaf_1, leaf_7, leaf_extended, xcr0, xcr0_high;
    if (!__get_cpuid(1, &eax, &ebx, &leaf_1, &edx) || !__get_cpuid_count(7, 0, &eax, &leaf_7, &ecx, &edx) ||
        !__get_cpuid(0x80000001, &eax, &ebx, &leaf_extended, &edx) || (leaf_1 & haswell_1) != haswell_1)
        return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
    bool haswell = (leaf_7 & haswell_7) == haswell_7 && (leaf_extended & LZCNT) && (xcr0 & YMM) == YMM;
    return haswell && (isa == ISA_AVX2 || ((leaf_7 & avx512) == avx512 && (xcr0 & ZMM) == ZMM));
}

enum isa sparsecc_choose_isa(enum isa wanted, struct message *message) {
    static const char *const names[ISA_COUNT] = {"", "avx2", "avx512"};
    const char *name = wanted == ISA_AUTO ? getenv("SPARSECC_ISA") : NULL;
    if (name != NULL && *name != '\0') {
        for (wanted = ISA_AVX2; wanted < ISA_COUNT && strcmp(name, names[wanted]) != 0; wanted++)
            ;
        if (wanted == ISA_COUNT) {
            sparsecc_fail(message, "SPARSECC_ISA is '%s'; it can be avx2 or avx512", name);
            return ISA_AUTO;
        }
    }
    enum isa last = wanted == ISA_AUTO ? ISA_AVX2 : wanted;
    for (enum isa isa = wanted == ISA_AUTO ? ISA_AVX512 : wanted; isa >= last; isa--)
        if (sparsecc_kernels[isa] != NULL && supported(isa))
            return isa;
    if (wanted != ISA_AUTO)
        sparsecc_fail(message, "%s kernels were asked for, but %s", names[wanted],
             sparsecc_kernels[wanted] == NULL ? "this kernels.so has none" : "this CPU cannot run them");
    else
        sparsecc_fail(message,
             "this kernels.so needs a CPU with %s; run model.onnx without it: the portable form gives the same results",
             sparsecc_kernels[ISA_AVX2] == NULL ? "AVX-512 (F, BW, CD, DQ, VL)" : "AVX2, FMA and BMI2");
    return ISA_AUTO;
}

/* ---- constants ---------------------------------------------------------------------------------------------- */

int64_t sparsecc_row_elems(const struct input *input) {
    int64_t elems = 1;
    for (int32_t axis = input->constant ? 0 : input->row_axes; axis < input->rank; axis++)
        elems *= input->shape[axis];
    return elems;
}

struct engine *sparsecc_engine_open(const struct region *region, enum isa isa, const void *const *inputs,
                                    struct message *message) {
    struct engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL)
        return sparsecc_fail(message, "out of memory");
    engine->region = region;
    engine->kernels = sparsecc_kernels[isa];
    engine->constants = calloc((size_t)region->input_count + 1, sizeof *engine->constants);
    engine->tables = calloc((size_t)region->prepare_count + 1, sizeof *engine->tables);
    engine->owned = calloc((size_t)region->prepare_count + 1, sizeof *engine->owned);
    engine->free = calloc((size_t)region->variant_count + 1, sizeof *engine->free);
    if (!engine->constants || !engine->tables || !engine->owned || !engine->free) {
        sparsecc_engine_close(engine);
        return sparsecc_fail(message, "out of memory");
    }
    for (int32_t i = 0; i < region->input_count; i++)
        engine->constants[i] = region->inputs[i].constant ? inputs[i] : NULL;
    for (int32_t i = 0; i < region->variant_count; i++)
        atomic_flag_clear(&engine->free[i].busy);
    for (int32_t i = 0; i < region->prepare_count; i++)
        if (!sparsecc_prepare(&region->prepares[i], region->inputs, engine->constants, &engine->tables[i],
                              &engine->owned[i], message)) {
            sparsecc_engine_close(engine);
            return NULL;
        }
    return engine;
}

void sparsecc_engine_close(struct engine *engine) {
    for (int32_t i = 0; engine->free != NULL && i < engine->region->variant_count; i++)
        for (struct workspace *next, *each = engine->free[i].first; each != NULL; each = next) {
            next = each->next;
            free(each->arena);
            free(each);
        }
    for (int32_t i = 0; engine->owned != NULL && i < engine->region->prepare_count; i++)
        free(engine->owned[i]);
    free(engine->constants);
    free(engine->tables);
    free(engine->owned);
    free(engine->free);
    free(engine);
}

/* ---- workspaces --------------------------------------------------------------------------------------------- */

static void lock(struct freelist *list) {
    while (atomic_flag_test_and_set_explicit(&list->busy, memory_order_acquire))
        __builtin_ia32_pause();
}

static void unlock(struct freelist *list) { atomic_flag_clear_explicit(&list->busy, memory_order_release); }

/* Zeroed once: padding lanes then never hold a signalling or denormal leftover of another program. */
static struct workspace *new_workspace(const struct engine *engine, const struct variant *variant) {
    const struct region *region = engine->region;
    int32_t base_count = BASE_INPUTS + region->input_count + region->output_count + region->prepare_count;
    struct workspace *space = malloc(sizeof *space + (size_t)base_count * sizeof *space->bases);
    if (space == NULL)
        return NULL;
    size_t bytes = ((size_t)variant->arena_elems * sizeof(float) + 63) / 64 * 64;
    space->arena = aligned_alloc(64, bytes);
    if (space->arena == NULL) {
        free(space);
        return NULL;
    }
    memset(space->arena, 0, bytes);
    space->bases[BASE_NONE] = NULL;
    space->bases[BASE_ARENA] = (const char *)space->arena;
    space->bases[BASE_ZEROS] = (const char *)sparsecc_zeros;
    const char **tables = space->bases + BASE_INPUTS + region->input_count + region->output_count;
    for (int32_t i = 0; i < region->input_count; i++)
        space->bases[BASE_INPUTS + i] = engine->constants[i];
    for (int32_t i = 0; i < region->prepare_count; i++)
        tables[i] = engine->tables[i];
    return space;
}

static struct workspace *borrow(const struct engine *engine, const struct variant *variant) {
    struct freelist *list = &engine->free[variant - engine->region->variants];
    lock(list);
    struct workspace *space = list->first;
    if (space != NULL)
        list->first = space->next;
    unlock(list);
    return space != NULL ? space : new_workspace(engine, variant);
}

static void give_back(const struct engine *engine, const struct variant *variant, struct workspace *space) {
    struct freelist *list = &engine->free[variant - engine->region->variants];
    lock(list);
    space->next = list->first;
    list->first = space;
    unlock(list);
}

/* ---- running ------------------------------------------------------------------------------------------------ */

/* A step as sparsecc_profile reports it; costs and seconds are of all items. As `Measured` in native.py. */
struct measured {
    const char *name, *kernel;
    int64_t flops, touched_bytes;
    double seconds;
};

struct call {
    struct engine *engine;
    const struct variant *variant;
    const void *const *inputs;
    void *const *outputs;
    int64_t rows;
    const struct pool *pool;   /* for the steps of an item */
    struct measured *measured; /* NULL unless each step is timed */
    atomic_bool out_of_memory;
};

/* A phase: steps that do not depend on each other. Piece i of n takes units [U*i/n, U*(i+1)/n) of each. */
struct phase {
    const struct engine *engine;
    const struct workspace *space;
    const struct step *begin, *end;
    int32_t lanes;
    size_t pieces;
};

static void *address(const struct workspace *space, struct ref ref) {
    return (void *)(uintptr_t)(space->bases[ref.base] + (ptrdiff_t)ref.offset * (ptrdiff_t)sizeof(float));
}

static void run_piece(void *job, size_t piece) {
    const struct phase *phase = job;
    const struct workspace *space = phase->space;
    for (const struct step *step = phase->begin; step < phase->end; step++) {
        int64_t units = step->units == UNITS_LANES ? phase->lanes : step->units, pieces = (int64_t)phase->pieces;
        int32_t begin = (int32_t)(units * (int64_t)piece / pieces);
        int32_t end = (int32_t)(units * (int64_t)(piece + 1) / pieces);
        if (begin < end)
            phase->engine->kernels[step->kernel](
                address(space, step->x), address(space, step->y), address(space, step->z), address(space, step->rows),
                address(space, step->cols), address(space, step->values), address(space, step->bias), step->p, begin,
                end);
    }
}

static size_t pieces(const struct phase *phase) {
    int64_t work = 0, units = 1;
    for (const struct step *step = phase->begin; step < phase->end; step++) {
        int64_t own = step->units == UNITS_LANES ? phase->lanes : step->units;
        work += step->work;
        units = own > units ? own : units;
    }
    if (work < PARALLEL_WORK)
        return 1;
    int64_t count = work / PIECE_WORK < PIECES_MOST ? work / PIECE_WORK : PIECES_MOST;
    return (size_t)(count < units ? count : units);
}

static void run_steps(const struct engine *engine, const struct workspace *space, const struct variant *variant,
                      int32_t lanes, const struct pool *pool) {
    const struct step *last = variant->steps + variant->step_count;
    struct phase phase = {engine, space, variant->steps, variant->steps, lanes, 1};
    while (phase.begin < last) {
        phase.end = phase.begin + 1;
        while (phase.end < last && phase.end->joins)
            phase.end++;
        phase.pieces = pool == NULL ? 1 : pieces(&phase);
        if (phase.pieces == 1)
            run_piece(&phase, 0);
        else
            pool->run(pool, run_piece, phase.pieces, &phase);
        phase.begin = phase.end;
    }
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void measure_steps(const struct engine *engine, const struct workspace *space, const struct variant *variant,
                          int32_t lanes, struct measured *measured) {
    for (int32_t i = 0; i < variant->step_count; i++) {
        const struct step *step = &variant->steps[i];
        struct phase phase = {engine, space, step, step + 1, lanes, 1};
        double start = now_s();
        run_piece(&phase, 0);
        measured[i].seconds += now_s() - start;
        measured[i].name = step->name;
        measured[i].kernel = sparsecc_kernel_names[step->kernel];
        measured[i].flops += step->flops;
        measured[i].touched_bytes += step->touched_bytes;
    }
}

static void run_item(void *job, size_t item) {
    struct call *call = job;
    const struct region *region = call->engine->region;
    struct workspace *space = borrow(call->engine, call->variant);
    if (space == NULL) {
        atomic_store(&call->out_of_memory, true);
        return;
    }
    int64_t first = (int64_t)item * call->variant->lanes, left = call->rows - first;
    const char **bases = space->bases + BASE_INPUTS;
    for (int32_t i = 0; i < region->input_count; i++)
        if (!region->inputs[i].constant)
            bases[i] = (const char *)((const float *)call->inputs[i] + first * sparsecc_row_elems(&region->inputs[i]));
    for (int32_t i = 0; i < region->output_count; i++)
        bases[region->input_count + i] =
            (const char *)((float *)call->outputs[i] + first * region->outputs[i].row_elems);
    int32_t lanes = left < call->variant->lanes ? (int32_t)left : call->variant->lanes;
    if (call->measured == NULL)
        run_steps(call->engine, space, call->variant, lanes, call->pool);
    else
        measure_steps(call->engine, space, call->variant, lanes, call->measured);
    give_back(call->engine, call->variant, space);
}

static const struct variant *variant_for(const struct engine *engine, int64_t rows) {
    const struct variant *variant = engine->region->variants;
    while (rows > variant->rows_most)
        variant++;
    return variant;
}

/* Several items are independent: each runs on one thread and in its caches. A single one is split step by step. */
bool sparsecc_engine_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                         const struct pool *pool) {
    const struct variant *variant = variant_for(engine, rows);
    int64_t items = (rows + variant->lanes - 1) / variant->lanes;
    struct call call = {engine, variant, inputs, outputs, rows, items == 1 ? pool : NULL, NULL, false};
    if (pool != NULL && items > 1)
        pool->run(pool, run_item, (size_t)items, &call);
    else
        for (int64_t item = 0; item < items; item++)
            run_item(&call, (size_t)item);
    return !atomic_load(&call.out_of_memory);
}

/* ---- without onnxruntime: tests and tuning call these ------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

EXPORT int32_t sparsecc_region_count(void);
EXPORT struct engine *sparsecc_open(int32_t region, const void *const *inputs, int32_t isa, struct message *message);
EXPORT int32_t sparsecc_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows);
EXPORT int32_t sparsecc_step_count(struct engine *engine, int64_t rows);
EXPORT int32_t sparsecc_profile(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                                struct measured *measured);
EXPORT void sparsecc_close(struct engine *engine);

int32_t sparsecc_region_count(void) { return sparsecc_regions_count; }

/* `isa`: 0 the best, 1 AVX2, 2 AVX-512. */
struct engine *sparsecc_open(int32_t region, const void *const *inputs, int32_t isa, struct message *message) {
    if (region < 0 || region >= sparsecc_regions_count || isa < 0 || isa >= ISA_COUNT)
        return sparsecc_fail(message, "no such region or instruction set");
    enum isa chosen = sparsecc_choose_isa((enum isa)isa, message);
    return chosen == ISA_AUTO ? NULL : sparsecc_engine_open(&sparsecc_regions[region], chosen, inputs, message);
}

/* 0, or 1 where memory ran out. One thread. */
int32_t sparsecc_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows) {
    return sparsecc_engine_run(engine, inputs, outputs, rows, NULL) ? 0 : 1;
}

int32_t sparsecc_step_count(struct engine *engine, int64_t rows) { return variant_for(engine, rows)->step_count; }

/* sparsecc_run with every step timed, which costs two readings of the clock; `measured` has room for every step. */
int32_t sparsecc_profile(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                         struct measured *measured) {
    const struct variant *variant = variant_for(engine, rows);
    struct call call = {engine, variant, inputs, outputs, rows, NULL, measured, false};
    memset(measured, 0, (size_t)variant->step_count * sizeof *measured);
    for (int64_t item = 0; item * variant->lanes < rows; item++)
        run_item(&call, (size_t)item);
    return atomic_load(&call.out_of_memory) ? 1 : 0;
}

void sparsecc_close(struct engine *engine) { sparsecc_engine_close(engine); }
