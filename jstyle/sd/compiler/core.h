// What most sources of Jittor's core include
#include <Python.h>
#include <algorithm>
#include <cmath>
#include <sstream>
#include <thread>
#include "common.h"
#include "var.h"
#include "op.h"
#include "executor.h"
#include "fused_op.h"
#include "graph.h"
#include "op_compiler.h"
#include "var_holder.h"
#include "ops/op_register.h"
#include "pyjt/py_obj_holder.h"
#include "pyjt/py_converter.h"
