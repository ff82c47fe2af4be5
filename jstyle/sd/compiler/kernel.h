// What Jittor's generated kernels include, with what they define before it
#define JIT 1
#define JIT_cpu 1
#include <algorithm>
#include <cmath>
#include <limits>
#include "var.h"
#include "op.h"
#include "executor.h"
#include "fused_op.h"
#include "ops/array_op.h"
#include "ops/binary_op.h"
#include "ops/broadcast_to_op.h"
#include "ops/op_register.h"
#include "ops/reduce_op.h"
#include "ops/unary_op.h"
