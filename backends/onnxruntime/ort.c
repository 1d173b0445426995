/* kernels.so as a custom-op library of onnxruntime: one operator of domain "sparsecc" per region.
 *
 * onnxruntime's wheels ship no headers. Its C ABI is append-only, so what is used is declared here, by position.
 * Source of all positions and of OrtCustomOp's members: onnxruntime_c_api.h of onnxruntime 1.16 and later. */
#include "runtime.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtShape OrtShape; /* OrtTensorTypeAndShapeInfo */
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtCustomOp OrtCustomOp;

enum { API_VERSION = 17, CUSTOM_OP_VERSION = 16 }; /* the first with ParallelFor; with kernels that return a status */
enum { ORT_FAIL = 1, ORT_INVALID_ARGUMENT = 2 };

typedef void (*unused)(void);
typedef struct OrtApi {
    OrtStatus *(*CreateStatus)(int code, const char *message); /* 0 */
    unused unused_1[25];
    OrtStatus *(*CreateCustomOpDomain)(const char *name, OrtCustomOpDomain **domain); /* 26 */
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    unused unused_29[22];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data); /* 51 */
    unused unused_52[9];
    OrtStatus *(*GetDimensionsCount)(const OrtShape *shape, size_t *rank); /* 61 */
    OrtStatus *(*GetDimensions)(const OrtShape *shape, int64_t *sizes, size_t rank);
    unused unused_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtShape **shape); /* 65 */
    unused unused_66[24];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index, const OrtValue **value); /* 90 */
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index, const int64_t *sizes, size_t rank,
                                          OrtValue **value);
    unused unused_92[7];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtShape *shape); /* 99 */
    unused unused_100[149];
    OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index, int *is_constant,
                                                    const OrtValue **value); /* 249 */
    unused unused_250[24];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context, void (*work)(void *, size_t), size_t total,
                                            size_t batches, void *job); /* 274 */
} OrtApi;

#define AT(member, slot) _Static_assert(offsetof(OrtApi, member) == (slot) * sizeof(unused), #member)
AT(CreateCustomOpDomain, 26);
AT(GetTensorMutableData, 51);
AT(GetDimensionsCount, 61);
AT(GetTensorTypeAndShape, 65);
AT(KernelContext_GetInput, 90);
AT(ReleaseTensorTypeAndShapeInfo, 99);
AT(KernelInfoGetConstantInput_tensor, 249);
AT(KernelContext_ParallelFor, 274);

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} OrtApiBase;

struct OrtCustomOp {
    uint32_t version;
    void *(*CreateKernel)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *);
    const char *(*GetName)(const OrtCustomOp *);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *);
    int (*GetInputType)(const OrtCustomOp *, size_t);
    size_t (*GetInputTypeCount)(const OrtCustomOp *);
    int (*GetOutputType)(const OrtCustomOp *, size_t);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *);
    void (*KernelCompute)(void *, OrtKernelContext *);
    void (*KernelDestroy)(void *);
    int (*GetInputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetOutputCharacteristic)(const OrtCustomOp *, size_t);
    int (*GetInputMemoryType)(const OrtCustomOp *, size_t);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *, const OrtApi *, const OrtKernelInfo *, void **);
    OrtStatus *(*KernelComputeV2)(void *, OrtKernelContext *);
};

/* An operator onnxruntime sees, and what we need when it calls back. */
struct op {
    OrtCustomOp base;
    const struct region *region;
    enum isa isa;
};

struct kernel {
    const OrtApi *api;
    const struct region *region;
    struct engine *engine;
};

static OrtStatus *status_of(const OrtApi *api, const struct region *region, const struct message *message) {
    char text[sizeof message->text + 64];
    snprintf(text, sizeof text, "sparsecc::%s: %s", region->name, message->text);
    return api->CreateStatus(ORT_INVALID_ARGUMENT, text);
}

#define TRY(call)                    \
    do {                             \
        OrtStatus *status_ = (call); \
        if (status_ != NULL)         \
            return status_;          \
    } while (0)

/* ---- shapes ------------------------------------------------------------------------------------------------- */

enum { RANK_MOST = 8, SHAPE_TEXT = 160 };

static const char *show_shape(char *text, const int64_t *sizes, int32_t rank) {
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int32_t axis = 0; axis < rank && used < SHAPE_TEXT - 24; axis++)
        used += (size_t)(sizes[axis] < 0 ? snprintf(text + used, SHAPE_TEXT - used, "%s?", axis ? ", " : "")
                                         : snprintf(text + used, SHAPE_TEXT - used, "%s%lld", axis ? ", " : "",
                                                    (long long)sizes[axis]));
    snprintf(text + used, SHAPE_TEXT - used, "]");
    return text;
}

/* Read the shape of a tensor and compare it with what the region was compiled for. */
static OrtStatus *check_shape(const OrtApi *api, const struct region *region, const struct input *input,
                              const OrtValue *value, int64_t *sizes) {
    OrtShape *shape;
    size_t rank;
    TRY(api->GetTensorTypeAndShape(value, &shape));
    OrtStatus *status = api->GetDimensionsCount(shape, &rank);
    bool fits = status == NULL && rank == (size_t)input->rank;
    if (status == NULL)
        status = api->GetDimensions(shape, sizes, rank < RANK_MOST ? rank : RANK_MOST);
    api->ReleaseTensorTypeAndShapeInfo(shape);
    if (status != NULL)
        return status;
    for (int32_t axis = 0; fits && axis < input->rank; axis++)
        fits = input->shape[axis] < 0 || input->shape[axis] == sizes[axis];
    if (fits)
        return NULL;
    char found[SHAPE_TEXT], expected[SHAPE_TEXT];
    struct message message;
    snprintf(message.text, sizeof message.text, "input '%s' has shape %s, compiled for %s", input->name,
             show_shape(found, sizes, rank < RANK_MOST ? (int32_t)rank : RANK_MOST),
             show_shape(expected, input->shape, input->rank));
    return status_of(api, region, &message);
}

static OrtStatus *data_of(const OrtApi *api, const OrtValue *value, const void **data) {
    return api->GetTensorMutableData((OrtValue *)(uintptr_t)value, (void **)(uintptr_t)data);
}

/* ---- one kernel = one node of a session --------------------------------------------------------------------- */

static OrtStatus *bind_constants(const OrtApi *api, const struct region *region, const OrtKernelInfo *info,
                                 const void **constants) {
    for (int32_t i = 0; i < region->input_count; i++) {
        const struct input *input = &region->inputs[i];
        const OrtValue *value = NULL;
        int is_constant = 0;
        int64_t sizes[RANK_MOST];
        if (!input->constant)
            continue;
        TRY(api->KernelInfoGetConstantInput_tensor(info, (size_t)i, &is_constant, &value));
        if (!is_constant || value == NULL) {
            struct message message;
            snprintf(message.text, sizeof message.text, "input '%s' must be an initializer", input->name);
            return status_of(api, region, &message);
        }
        TRY(check_shape(api, region, input, value, sizes));
        TRY(data_of(api, value, &constants[i]));
    }
    return NULL;
}

static OrtStatus *create_kernel(const OrtCustomOp *base, const OrtApi *api, const OrtKernelInfo *info, void **made) {
    const struct op *op = (const struct op *)base;
    const void **constants = calloc((size_t)op->region->input_count + 1, sizeof *constants);
    struct kernel *kernel = malloc(sizeof *kernel);
    OrtStatus *status;
    if (constants == NULL || kernel == NULL)
        status = api->CreateStatus(ORT_FAIL, "sparsecc: out of memory");
    else
        status = bind_constants(api, op->region, info, constants);
    if (status == NULL) {
        struct message message;
        *kernel = (struct kernel){api, op->region, NULL};
        kernel->engine = sparsecc_engine_open(op->region, op->isa, constants, &message);
        if (kernel->engine == NULL)
            status = status_of(api, op->region, &message);
    }
    free(constants);
    if (status != NULL) {
        free(kernel);
        return status;
    }
    *made = kernel;
    return NULL;
}

static void destroy_kernel(void *made) {
    struct kernel *kernel = made;
    sparsecc_engine_close(kernel->engine);
    free(kernel);
}

struct ort_pool {
    struct pool base;
    const OrtApi *api;
    const OrtKernelContext *context;
};

/* ParallelFor fails only before it has started anything: then the work is done here. */
static void run_in_pool(const struct pool *base, void (*work)(void *, size_t), size_t count, void *job) {
    const struct ort_pool *pool = (const struct ort_pool *)base;
    if (pool->api->KernelContext_ParallelFor(pool->context, work, count, 0, job) != NULL)
        for (size_t i = 0; i < count; i++)
            work(job, i);
}

/* Read and check the activations. `shapes` gets the sizes of every input, `rows` the number they agree on. */
static OrtStatus *bind_inputs(const struct kernel *kernel, OrtKernelContext *context, const void **inputs,
                              int64_t (*shapes)[RANK_MOST], int64_t *rows) {
    const struct region *region = kernel->region;
    *rows = -1;
    for (int32_t i = 0; i < region->input_count; i++) {
        const struct input *input = &region->inputs[i];
        const OrtValue *value;
        int64_t own = 1;
        if (input->constant)
            continue;
        TRY(kernel->api->KernelContext_GetInput(context, (size_t)i, &value));
        TRY(check_shape(kernel->api, region, input, value, shapes[i]));
        TRY(data_of(kernel->api, value, &inputs[i]));
        for (int32_t axis = 0; axis < input->row_axes; axis++)
            own *= shapes[i][axis];
        if (*rows >= 0 && own != *rows) {
            struct message message;
            snprintf(message.text, sizeof message.text, "input '%s' has %lld rows, the inputs before it have %lld",
                     input->name, (long long)own, (long long)*rows);
            return status_of(kernel->api, region, &message);
        }
        *rows = own;
    }
    return NULL;
}

/* Allocate the outputs. Their sizes follow from the inputs; they must hold exactly `rows` rows. */
static OrtStatus *bind_outputs(const struct kernel *kernel, OrtKernelContext *context, void **outputs,
                               int64_t (*shapes)[RANK_MOST], int64_t rows) {
    const struct region *region = kernel->region;
    for (int32_t i = 0; i < region->output_count; i++) {
        const struct output *output = &region->outputs[i];
        int64_t sizes[RANK_MOST], elems = 1;
        OrtValue *value;
        for (int32_t axis = 0; axis < output->rank; axis++) {
            const struct dim *dim = &output->shape[axis];
            sizes[axis] = dim->input < 0 ? dim->size : shapes[dim->input][dim->size];
            elems *= sizes[axis];
        }
        if (elems != rows * output->row_elems) {
            char found[SHAPE_TEXT];
            struct message message;
            snprintf(message.text, sizeof message.text, "output '%s' of shape %s does not hold the %lld rows of the inputs",
                     output->name, show_shape(found, sizes, output->rank), (long long)rows);
            return status_of(kernel->api, region, &message);
        }
        TRY(kernel->api->KernelContext_GetOutput(context, (size_t)i, sizes, (size_t)output->rank, &value));
        TRY(kernel->api->GetTensorMutableData(value, &outputs[i]));
    }
    return NULL;
}

static OrtStatus *compute_bound(const struct kernel *kernel, OrtKernelContext *context, const void **inputs,
                                void **outputs, int64_t (*shapes)[RANK_MOST]) {
    int64_t rows;
    TRY(bind_inputs(kernel, context, inputs, shapes, &rows));
    TRY(bind_outputs(kernel, context, outputs, shapes, rows));
    struct ort_pool pool = {{run_in_pool}, kernel->api, context};
    if (rows > 0 && !sparsecc_engine_run(kernel->engine, inputs, outputs, rows, &pool.base))
        return kernel->api->CreateStatus(ORT_FAIL, "sparsecc: out of memory");
    return NULL;
}

static OrtStatus *compute(void *made, OrtKernelContext *context) {
    const struct kernel *kernel = made;
    size_t inputs_n = (size_t)kernel->region->input_count, outputs_n = (size_t)kernel->region->output_count;
    const void **inputs = calloc(inputs_n + 1, sizeof *inputs);
    void **outputs = calloc(outputs_n + 1, sizeof *outputs);
    int64_t(*shapes)[RANK_MOST] = calloc(inputs_n + 1, sizeof *shapes);
    OrtStatus *status;
    if (inputs == NULL || outputs == NULL || shapes == NULL)
        status = kernel->api->CreateStatus(ORT_FAIL, "sparsecc: out of memory");
    else
        status = compute_bound(kernel, context, inputs, outputs, shapes);
    free(inputs);
    free(outputs);
    free(shapes);
    return status;
}

/* ---- registration ------------------------------------------------------------------------------------------- */

static const struct region *region_of(const OrtCustomOp *op) { return ((const struct op *)op)->region; }
static const char *name(const OrtCustomOp *op) { return region_of(op)->name; }
static const char *provider(const OrtCustomOp *op) { return (void)op, NULL; } /* the CPU */
static int input_type(const OrtCustomOp *op, size_t i) { return region_of(op)->inputs[i].type; }
static size_t input_count(const OrtCustomOp *op) { return (size_t)region_of(op)->input_count; }
static int output_type(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, TYPE_FLOAT; }
static size_t output_count(const OrtCustomOp *op) { return (size_t)region_of(op)->output_count; }
static int zero_at(const OrtCustomOp *op, size_t i) { return (void)op, (void)i, 0; } /* required; CPU memory */
static int zero(const OrtCustomOp *op) { return (void)op, 0; }                       /* nothing is variadic */

static const OrtCustomOp callbacks = {
    .version = CUSTOM_OP_VERSION,
    .GetName = name,
    .GetExecutionProviderType = provider,
    .GetInputType = input_type,
    .GetInputTypeCount = input_count,
    .GetOutputType = output_type,
    .GetOutputTypeCount = output_count,
    .KernelDestroy = destroy_kernel,
    .GetInputCharacteristic = zero_at,
    .GetOutputCharacteristic = zero_at,
    .GetInputMemoryType = zero_at,
    .GetVariadicInputMinArity = zero,
    .GetVariadicInputHomogeneity = zero,
    .GetVariadicOutputMinArity = zero,
    .GetVariadicOutputHomogeneity = zero,
    .CreateKernelV2 = create_kernel,
    .KernelComputeV2 = compute,
};

/* onnxruntime keeps pointers to the operators as long as any session lives, so they are never freed: a few hundred
 * bytes per call, and several runtimes in one process do not meet. */
__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base);

OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    const OrtApi *api = base->GetApi(API_VERSION);
    if (api == NULL)
        return base->GetApi(1)->CreateStatus(ORT_FAIL, "sparsecc: this kernels.so needs onnxruntime 1.17 or later");
    struct message message;
    enum isa isa = sparsecc_choose_isa(ISA_AUTO, &message);
    if (isa == ISA_AUTO)
        return api->CreateStatus(ORT_FAIL, message.text);
    OrtCustomOpDomain *domain;
    struct op *ops = calloc((size_t)sparsecc_regions_count + 1, sizeof *ops);
    if (ops == NULL)
        return api->CreateStatus(ORT_FAIL, "sparsecc: out of memory");
    TRY(api->CreateCustomOpDomain("sparsecc", &domain));
    for (int32_t i = 0; i < sparsecc_regions_count; i++) {
        ops[i] = (struct op){callbacks, &sparsecc_regions[i], isa};
        TRY(api->CustomOpDomain_Add(domain, &ops[i].base));
    }
    return api->AddCustomOpDomain(options, domain);
}
