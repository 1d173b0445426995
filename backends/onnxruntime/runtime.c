/* The engine of kernels.so: constants in, tables prepared once (prepare.c), then steps over items. Needs only libc. */
#define _POSIX_C_SOURCE 199309L /* clock_gettime, beside C11 */
#include "runtime.h"

#include <cpuid.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Pieces of PIECE_WORK take about 4 us. There are a multiple of the threads of them, for equal parts: ResNet-56 with 90 %
 * zeros takes 350 us with 2 pieces in most phases, and 400 with 3 (two threads of an EPYC). A phase too short for that is
 * cut into as many as are worth a claim, of LEAST_WORK. While a thread is alone it claims ALONE_WORK at once: an atomic
 * operation waits until all stores before it are done, and two for every piece cost that network 10 us of 444 (one
 * thread). A thread yields the CPU after about 20 us of waiting: whoever it waits for may have been put off it. */
enum { LEAST_WORK = 100000, PIECE_WORK = 200000, ALONE_WORK = 500000, PIECES_MOST = 16, SPINS_MOST = 1000 };

/* What one item needs while it runs. Lives in a free list between calls, so that concurrent calls never share one. */
struct workspace {
    struct workspace *next;
    float *arena;
    atomic_uint *claims; /* by the number of a phase's first step, see `claim` */
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
    atomic_int threads;     /* the most that were seen in one call */
    atomic_uint shared_calls; /* of items whose phases are short, see `choose` */
    atomic_llong pace[2];     /* of such items on one thread and on all: femtoseconds per unit of work */
};

void *sparsecc_fail(struct message *message, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, sizeof message->text, format, arguments);
    va_end(arguments);
    return NULL;
}

/* ---- which instruction set ---------------------------------------------------------------------------------- */

/* What the CPU has and the operating system saves: the features that kernels are compiled for (tvm/codegen.py).
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2A, CPUID and XGETBV. */
static bool supported(enum isa isa) {
    enum { FMA = 1 << 12, MOVBE = 1 << 22, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };       /* 1, ecx */
    enum { BMI1 = 1 << 3, AVX2 = 1 << 5, BMI2 = 1 << 8 };                                            /* 7, ebx */
    const unsigned avx512 = 1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31; /* 7, ebx: F, DQ, CD, BW, VL */
    enum { LZCNT = 1 << 5 };                                                                 /* 0x80000001, ecx */
    enum { YMM = 0x06, ZMM = 0xe6 };                                                                    /* XCR0 */
    const unsigned avx2_1 = FMA | MOVBE | OSXSAVE | AVX | F16C, avx2_7 = BMI1 | AVX2 | BMI2;
    unsigned eax, ebx, ecx, edx, leaf_1, leaf_7, leaf_extended, xcr0, xcr0_high;
    if (!__get_cpuid(1, &eax, &ebx, &leaf_1, &edx) || !__get_cpuid_count(7, 0, &eax, &leaf_7, &ecx, &edx) ||
        !__get_cpuid(0x80000001, &eax, &ebx, &leaf_extended, &edx) || (leaf_1 & avx2_1) != avx2_1)
        return false;
    __asm__("xgetbv" : "=a"(xcr0), "=d"(xcr0_high) : "c"(0));
    bool avx2 = (leaf_7 & avx2_7) == avx2_7 && (leaf_extended & LZCNT) && (xcr0 & YMM) == YMM;
    return avx2 && (isa == ISA_AVX2 || ((leaf_7 & avx512) == avx512 && (xcr0 & ZMM) == ZMM));
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
    atomic_init(&engine->threads, 2);
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

static void free_workspace(struct workspace *space) {
    free(space->arena);
    free(space->claims);
    free(space);
}

void sparsecc_engine_close(struct engine *engine) {
    for (int32_t i = 0; engine->free != NULL && i < engine->region->variant_count; i++)
        for (struct workspace *next, *each = engine->free[i].first; each != NULL; each = next) {
            next = each->next;
            free_workspace(each);
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
    space->claims = malloc(((size_t)variant->step_count + 1) * sizeof *space->claims);
    if (space->arena == NULL || space->claims == NULL) {
        free_workspace(space);
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
    struct measured *measured; /* NULL unless each step is timed */
    atomic_int threads;        /* at work now */
    atomic_bool out_of_memory;
};

struct item {
    const struct engine *engine;
    const struct variant *variant;
    struct workspace *space;
    int32_t lanes, threads; /* pieces are cut for so many threads */
};

/* Steps that do not depend on each other. Piece i of n takes units [U*i/n, U*(i+1)/n) of each. */
struct phase {
    const struct step *begin, *end;
    int32_t pieces, pieces_alone; /* in all; at once by a thread that is alone */
    int64_t work;
};

struct pieces {
    int32_t begin, end;
};

static void *address(const struct workspace *space, struct ref ref) {
    return (void *)(uintptr_t)(space->bases[ref.base] + (ptrdiff_t)ref.offset * (ptrdiff_t)sizeof(float));
}

static int32_t units_of(const struct item *item, const struct step *step) {
    return step->units == UNITS_LANES ? item->lanes : step->units;
}

static void run_pieces(const struct item *item, const struct phase *phase, struct pieces pieces) {
    const struct workspace *space = item->space;
    for (const struct step *step = phase->begin; step < phase->end; step++) {
        int64_t units = units_of(item, step);
        int32_t begin = (int32_t)(units * pieces.begin / phase->pieces);
        int32_t end = (int32_t)(units * pieces.end / phase->pieces);
        if (begin < end)
            item->engine->kernels[step->kernel](
                address(space, step->x), address(space, step->y), address(space, step->z), address(space, step->rows),
                address(space, step->cols), address(space, step->values), address(space, step->bias), step->p, begin,
                end);
    }
}

static struct phase first_phase(const struct item *item) {
    return (struct phase){item->variant->steps, item->variant->steps, 0, 0, 0};
}

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Go on to the phase that follows; false where there is none. */
static bool next_phase(const struct item *item, struct phase *phase) {
    const struct step *last = item->variant->steps + item->variant->step_count;
    int64_t work = 0, units = 1;
    phase->begin = phase->end;
    while (phase->end < last && (phase->end == phase->begin || phase->end->joins)) {
        int64_t own = units_of(item, phase->end);
        units = own > units ? own : units;
        work += phase->end++->work;
    }
    int64_t threads = smaller(item->threads, PIECES_MOST);
    int64_t pieces = smaller(work / PIECE_WORK, PIECES_MOST) / threads * threads;
    if (pieces == 0)
        pieces = work < LEAST_WORK ? 1 : smaller(work / LEAST_WORK, threads);
    phase->work = work;
    phase->pieces = (int32_t)smaller(pieces, units);
    phase->pieces_alone = work > ALONE_WORK ? (int32_t)(phase->pieces * (int64_t)ALONE_WORK / work) : phase->pieces;
    phase->pieces_alone += phase->pieces_alone == 0;
    return phase->begin < last;
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void run_steps(const struct item *item, struct measured *measured) {
    for (int32_t i = 0; i < item->variant->step_count; i++) {
        const struct step *step = &item->variant->steps[i];
        double start = measured != NULL ? now_s() : 0;
        run_pieces(item, &(struct phase){step, step + 1, 1, 1, step->work}, (struct pieces){0, 1});
        if (measured != NULL) {
            measured[i].seconds += now_s() - start;
            measured[i].name = step->name;
            measured[i].kernel = sparsecc_kernel_names[step->kernel];
            measured[i].flops += step->flops;
            measured[i].touched_bytes += step->touched_bytes;
        }
    }
}

/* Bind the memory of an item. False, and noted in the call, where there is none. */
static bool begin_item(struct call *call, int64_t number, struct item *item) {
    const struct region *region = call->engine->region;
    int64_t first = number * call->variant->lanes, left = call->rows - first;
    int32_t lanes = left < call->variant->lanes ? (int32_t)left : call->variant->lanes;
    *item = (struct item){call->engine, call->variant, borrow(call->engine, call->variant), lanes,
                          atomic_load_explicit(&call->engine->threads, memory_order_relaxed)};
    if (item->space == NULL) {
        atomic_store(&call->out_of_memory, true);
        return false;
    }
    const char **bases = item->space->bases + BASE_INPUTS;
    for (int32_t i = 0; i < region->input_count; i++)
        if (!region->inputs[i].constant)
            bases[i] = (const char *)((const float *)call->inputs[i] + first * sparsecc_row_elems(&region->inputs[i]));
    for (int32_t i = 0; i < region->output_count; i++)
        bases[region->input_count + i] =
            (const char *)((float *)call->outputs[i] + first * region->outputs[i].row_elems);
    return true;
}

/* The calls of these two enclose what a thread does for a call. */
static void enter(struct call *call) {
    int threads = atomic_fetch_add_explicit(&call->threads, 1, memory_order_relaxed) + 1;
    int most = atomic_load_explicit(&call->engine->threads, memory_order_relaxed);
    while (threads > most && !atomic_compare_exchange_weak(&call->engine->threads, &most, threads))
        ;
}

static void leave(struct call *call) { atomic_fetch_sub_explicit(&call->threads, 1, memory_order_relaxed); }

static void run_item(void *job, size_t number) {
    struct call *call = job;
    struct item item;
    enter(call);
    if (begin_item(call, (int64_t)number, &item)) {
        run_steps(&item, call->measured);
        give_back(call->engine, call->variant, item.space);
    }
    leave(call);
}

/* ---- one item on several threads ---------------------------------------------------------------------------- */

/* All threads walk the phases of the item: each claims pieces of a phase until none is left, and goes on when all are
 * done. Only a thread that runs claims, so one that comes late, or never, keeps nobody waiting. */
struct walk {
    struct call *call;
    struct item item;
    int32_t pieces; /* of all phases */
    atomic_int walkers; /* that have come so far */
    _Alignas(64) atomic_int done; /* pieces */
};

/* Take up to `wanted` pieces that nobody has; false where none are left after them. In the order in which they come, a
 * thread takes pieces from the front, the next one from the back: so they mostly find in their caches what they wrote in
 * the phase before. `claims` counts both, in 16 bits each. */
static bool claim(atomic_uint *claims, int32_t count, int32_t wanted, bool from_back, struct pieces *pieces) {
    unsigned before = atomic_fetch_add_explicit(claims, (unsigned)wanted << (from_back ? 16 : 0), memory_order_relaxed);
    int32_t front = (int32_t)(before & 0xffff), back = (int32_t)(before >> 16), left = count - front - back;
    int32_t taken = left < 0 ? 0 : left < wanted ? left : wanted;
    pieces->begin = from_back ? count - back - taken : front;
    pieces->end = pieces->begin + taken;
    return left > wanted;
}

/* Return the number of pieces done once it is `least` or more. */
static int32_t await(atomic_int *done, int32_t least) {
    int32_t now;
    for (int32_t spins = 0; (now = atomic_load_explicit(done, memory_order_acquire)) < least; spins++)
        if (spins < SPINS_MOST)
            __builtin_ia32_pause();
        else
            sched_yield();
    return now;
}

static void run_walk(void *job, size_t task) {
    struct walk *walk = job;
    const struct item *item = &walk->item;
    int32_t before = 0; /* pieces of the phases before */
    (void)task;
    if (atomic_load_explicit(&walk->done, memory_order_relaxed) == walk->pieces)
        return;
    bool from_back = atomic_fetch_add_explicit(&walk->walkers, 1, memory_order_relaxed) % 2 == 1;
    enter(walk->call);
    for (struct phase phase = first_phase(item); next_phase(item, &phase); before += phase.pieces) {
        atomic_uint *claims = &item->space->claims[phase.begin - item->variant->steps];
        for (bool more = await(&walk->done, before) < before + phase.pieces; more;) {
            bool alone = atomic_load_explicit(&walk->call->threads, memory_order_relaxed) == 1;
            struct pieces pieces;
            more = claim(claims, phase.pieces, alone ? phase.pieces_alone : 1, from_back, &pieces);
            if (pieces.begin < pieces.end) {
                run_pieces(item, &phase, pieces);
                atomic_fetch_add_explicit(&walk->done, pieces.end - pieces.begin, memory_order_release);
            }
        }
    }
    leave(walk->call);
}

/* Where phases are short (of SHORT_PHASE FLOPs and bytes in the mean, 80 us), threads may lose more by waiting for each
 * other than they gain: that depends on how far apart the cores are, and on the hour of a virtual machine. So both ways
 * are timed, TRIALS calls of each, and from then on the slower one RETRIES times in a row every PERIOD calls: twice, for
 * a caller may take turns with others, so that every other call finds cold caches and threads asleep.
 *
 * What a way takes is the low end of its last calls, for what else the machine does lengthens a call and never shortens
 * it: half-way down to a call that took less, a RISE-th of the way up to one that took more, which counts for no more
 * than a SURPRISE-th beyond. ResNet-56 on two threads of a Xeon, always shared, was 0.8 to 0.9 times as fast as on one. */
enum { ALONE, SHARED, SHORT_PHASE = 4000000, TRIALS = 8, RETRIES = 2, PERIOD = 120, FALL = 2, RISE = 16, SURPRISE = 4 };

static int choose(struct engine *engine, uint32_t call) {
    if (call < 2 * TRIALS)
        return call / (TRIALS / 2) % 2 == 0 ? SHARED : ALONE;
    int faster = atomic_load(&engine->pace[ALONE]) < atomic_load(&engine->pace[SHARED]) ? ALONE : SHARED;
    return call % PERIOD < RETRIES ? !faster : faster;
}

static void share_item(struct call *call, int64_t number, const struct pool *pool) {
    struct engine *engine = call->engine;
    struct walk walk = {.call = call};
    if (!begin_item(call, number, &walk.item))
        return;
    for (int32_t i = 0; i < call->variant->step_count; i++)
        atomic_init(&walk.item.space->claims[i], 0);
    int32_t tasks = 0, phases = 0;
    int64_t work = 0;
    for (struct phase phase = first_phase(&walk.item); next_phase(&walk.item, &phase); phases++) {
        tasks = phase.pieces > tasks ? phase.pieces : tasks;
        walk.pieces += phase.pieces;
        work += phase.work;
    }
    bool timed = tasks > 1 && work < (int64_t)SHORT_PHASE * phases;
    int way = tasks == 1 ? ALONE : timed ? choose(engine, atomic_fetch_add(&engine->shared_calls, 1)) : SHARED;
    double start = timed ? now_s() : 0;
    if (way == SHARED)
        pool->run(pool, run_walk, (size_t)tasks, &walk);
    else
        run_steps(&walk.item, NULL);
    if (timed) {
        long long before = atomic_load(&engine->pace[way]), now = (long long)(1e15 * (now_s() - start) / (double)work);
        long long more = smaller(now - before, before / SURPRISE);
        atomic_store(&engine->pace[way], before == 0 ? now : before + more / (more < 0 ? FALL : RISE));
    }
    give_back(engine, call->variant, walk.item.space);
}

/* ---- a call ------------------------------------------------------------------------------------------------- */

static const struct variant *variant_for(const struct engine *engine, int64_t rows) {
    const struct variant *variant = engine->region->variants;
    while (rows > variant->rows_most)
        variant++;
    return variant;
}

/* Items run best on one thread each, in its caches. Those at the end are shared where they would leave half of the
 * threads or more without work. */
bool sparsecc_engine_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                         const struct pool *pool) {
    const struct variant *variant = variant_for(engine, rows);
    struct call call = {engine, variant, inputs, outputs, rows, NULL, 0, false};
    int64_t items = (rows + variant->lanes - 1) / variant->lanes, threads = atomic_load(&engine->threads);
    int64_t shared = pool != NULL && 2 * (items % threads) <= threads ? items % threads : 0;
    if (pool != NULL && items - shared > 1)
        pool->run(pool, run_item, (size_t)(items - shared), &call);
    else
        for (int64_t item = 0; item < items - shared; item++)
            run_item(&call, (size_t)item);
    for (int64_t item = items - shared; item < items; item++)
        share_item(&call, item, pool);
    return !atomic_load(&call.out_of_memory);
}

/* ---- without onnxruntime: tests and tuning call these ------------------------------------------------------- */

#define EXPORT __attribute__((visibility("default")))

EXPORT int32_t sparsecc_region_count(void);
EXPORT struct engine *sparsecc_open(int32_t region, const void *const *inputs, int32_t isa, struct message *message);
EXPORT int32_t sparsecc_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                            const struct pool *pool);
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

/* 0, or 1 where memory ran out. */
int32_t sparsecc_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                     const struct pool *pool) {
    return sparsecc_engine_run(engine, inputs, outputs, rows, pool) ? 0 : 1;
}

int32_t sparsecc_step_count(struct engine *engine, int64_t rows) { return variant_for(engine, rows)->step_count; }

/* sparsecc_run with every step timed, which costs two readings of the clock; `measured` has room for every step. */
int32_t sparsecc_profile(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                         struct measured *measured) {
    const struct variant *variant = variant_for(engine, rows);
    struct call call = {engine, variant, inputs, outputs, rows, measured, 0, false};
    memset(measured, 0, (size_t)variant->step_count * sizeof *measured);
    for (int64_t item = 0; item * variant->lanes < rows; item++)
        run_item(&call, (size_t)item);
    return atomic_load(&call.out_of_memory) ? 1 : 0;
}

void sparsecc_close(struct engine *engine) { sparsecc_engine_close(engine); }
