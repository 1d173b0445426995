/* The tables generated for one artifact, and the engine that runs them.
 *
 * A row is one sample (image region) or one token (token region). An item is what one pass over the steps computes:
 * one sample, or a panel of `lanes` tokens. Offsets and pitches count float32 elements. See backends/tvm/plan.py. */
#ifndef SPARSECC_RUNTIME_H
#define SPARSECC_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef void kernel_fn(const float *x, float *y, const float *z, const int32_t *rows, const void *cols,
                       const float *values, const float *bias, const int32_t *p, int32_t begin, int32_t end);

/* A pointer is bases[base] + offset. The bases of inputs, outputs and prepared tables follow BASE_INPUTS in this order. */
enum { BASE_NONE, BASE_ARENA, BASE_ZEROS, BASE_INPUTS };
struct ref {
    int32_t base, offset;
};

enum { UNITS_LANES = -1 }; /* the valid lanes of the item */
struct step {
    int32_t kernel, units;
    bool joins; /* independent of the step before: both belong to one parallel phase */
    int64_t work;
    const int32_t *p;
    struct ref x, y, z, rows, cols, values, bias;
    const char *name; /* for profiles, as are the costs of a whole item */
    int64_t flops, touched_bytes;
};

/* A table for kernels, see Prepare in backends/tvm/plan.py; inputs are by number, < 0 where there is none. */
enum { LAYOUT_STORED, LAYOUT_SLICED, LAYOUT_SELL };
enum { TABLE_COLS, TABLE_ROWS, TABLE_VALUES };
struct prepare {
    int32_t rows, cols, index_bytes;
    int32_t channel_step, kernel_height, kernel_width;
    const int32_t *row_steps, *column_steps;
    int32_t columns, row_starts, values; /* numbers of inputs */
    int32_t stored_index_bytes, blocks, block_rows, block_cols;
    int32_t layout, slice_blocks, chunks, table;
};

/* Types are numbered as in onnx::TensorProto, which onnxruntime's enumeration follows. */
enum { TYPE_FLOAT = 1, TYPE_UINT16 = 4, TYPE_INT32 = 6 };
struct input {
    const char *name;
    int32_t type, rank;
    int32_t row_axes;     /* leading axes whose product is the number of rows; the rest is one row */
    const int64_t *shape; /* -1: dynamic */
    bool constant;
};

struct dim {
    int32_t input; /* -1: the size itself, else the size of axis `size` of this input */
    int64_t size;
};
struct output {
    const char *name;
    int32_t rank;
    const struct dim *shape;
    int64_t row_elems;
};

struct variant {
    int32_t lanes; /* rows per item */
    int64_t rows_most;
    int32_t step_count;
    const struct step *steps;
    int64_t arena_elems;
};

struct region {
    const char *name;
    int32_t input_count, output_count, prepare_count, variant_count;
    const struct input *inputs;
    const struct output *outputs;
    const struct prepare *prepares;
    const struct variant *variants;
};

/* Generated. A missing instruction set is NULL; kernels are numbered alike in both. */
enum isa { ISA_AUTO, ISA_AVX2, ISA_AVX512, ISA_COUNT };
#pragma GCC visibility push(hidden)
extern const int32_t sparsecc_regions_count;
extern const struct region sparsecc_regions[];
extern kernel_fn *const *const sparsecc_kernels[ISA_COUNT];
extern const char *const sparsecc_kernel_names[];
extern const float sparsecc_zeros[];
#pragma GCC visibility pop

/* The engine: one region with its constants bound. Text for people goes to `message`. */
struct message {
    char text[512];
};
struct engine;

/* Who runs work(job, 0 .. count - 1), in any order, at once or not, and returns when all are done. */
struct pool {
    void (*run)(const struct pool *self, void (*work)(void *job, size_t index), size_t count, void *job);
};

/* Write the message; NULL, or false. */
void *sparsecc_fail(struct message *message, const char *format, ...);

/* Check what a table is made from, and make it: `owned` is the caller's to free, NULL where a constant serves as it is.
 * False and a message where the constants are not what the region was compiled for. */
bool sparsecc_prepare(const struct prepare *p, const struct input *inputs, const void *const *constants,
                      const void **table, void **owned, struct message *message);

/* The instruction set to use, ISA_AUTO where there is none (message). `wanted` ISA_AUTO asks SPARSECC_ISA, then the CPU. */
enum isa sparsecc_choose_isa(enum isa wanted, struct message *message);

/* Check and prepare the constants (`inputs` by number, other entries ignored; they stay the caller's and must outlive
 * the engine). NULL and a message where they are not what the region was compiled for. */
struct engine *sparsecc_engine_open(const struct region *region, enum isa isa, const void *const *inputs,
                                    struct message *message);
void sparsecc_engine_close(struct engine *engine);

/* Compute `rows` rows. Re-entrant. `pool` may be NULL. False where memory ran out. */
bool sparsecc_engine_run(struct engine *engine, const void *const *inputs, void *const *outputs, int64_t rows,
                         const struct pool *pool);

/* Elements of one row of an input, or of all of a constant. */
int64_t sparsecc_row_elems(const struct input *input);

#endif
