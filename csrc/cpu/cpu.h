/* The CPU backend: always linked in, the reference for all others. */
#ifndef PXR_CPU_CPU_H
#define PXR_CPU_CPU_H

#include "ops/backend.h"

/** The backend's function table. */
const pxr_backend *pxr_cpu_backend(void);

/* Instruction sets of the kernels, chosen at run time: the best that the processor has, or what
 * PIXELREFER_CPU_ISA names (ignored where it names none that this processor has). All give the same bits. */
typedef enum pxr_isa {
    PXR_ISA_SCALAR = 0,
    PXR_ISA_AVX2,
    PXR_ISA_AVX512,
    PXR_ISA_AVX512_VNNI, /* sums of products of bytes */
    PXR_ISA_AVX512_BF16, /* the same, and of bfloat16 pairs */
    PXR_ISA_AMX,         /* the same, and tiles of both */
    PXR_ISA_COUNT
} pxr_isa;

/** "scalar", "avx2", "avx512", "avx512_vnni", "avx512_bf16". */
const char *pxr_isa_name(pxr_isa isa);

/** True when this processor has it. */
bool pxr_isa_available(pxr_isa isa);

/** The instruction set in use. */
pxr_isa pxr_cpu_isa(void);

/** Chooses one (testing). Errors: a name that is unknown or that this processor lacks. */
pxr_status pxr_cpu_isa_set(const char *name, pxr_error *error);

/* One function for each op, in the file of its family. */
#define PXR_OP(name) pxr_status pxr_cpu_##name(pxr_device *device, const pxr_##name##_args *args, pxr_error *error);
#define PXR_PRIMITIVE(name) PXR_OP(name)
#include "ops/ops.def"
#undef PXR_OP
#undef PXR_PRIMITIVE

#endif
