/* SPDX-License-Identifier: MIT
 * SPDX-FileCopyrightText: The iris_c authors
 *
 * The functions of the extension module, in a table for each file of them.
 */
#ifndef IRIS_PY_METHODS_H
#define IRIS_PY_METHODS_H

#include <Python.h>

extern PyMethodDef iris_py_ops_methods[];
extern PyMethodDef iris_py_matmul_methods[]; /* fused products */
extern PyMethodDef iris_py_gather_matmul_methods[];
extern PyMethodDef iris_py_ccl_methods[]; /* collectives */
extern PyMethodDef iris_py_rmsnorm_methods[];
extern PyMethodDef iris_py_message_methods[];
extern PyMethodDef iris_py_kernel_methods[]; /* for torch's dispatcher */

#endif
