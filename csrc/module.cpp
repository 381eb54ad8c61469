// imae_ext._C: build information and the formula table. Importing it registers torch.ops.imae_ext.*.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "cpu/instruction_sets.h"

#ifndef IMAE_INTERFACE
#error "define IMAE_INTERFACE, the number in imae_ext/_extension.py, as setup.py does"
#endif
#ifndef IMAE_CUDA_ARCHS
#define IMAE_CUDA_ARCHS ""
#endif

namespace py = pybind11;

static py::list formulas() {
  py::list table;
  for (int id = 0; id < imae::kFormulaCount; ++id) {
    const imae::FormulaInfo& info = imae::kFormulas[id];
    py::list parameters;
    for (int i = 0; i < info.parameter_count; ++i) {
      const imae::Parameter& p = info.parameters[i];
      using namespace py::literals;
      parameters.append(py::dict("name"_a = p.name, "low"_a = p.low, "high"_a = p.high,
                                 "low_is_open"_a = p.range == imae::kAboveLow, "zero_too"_a = p.range == imae::kZeroToo,
                                 "integer"_a = p.range == imae::kInteger));
    }
    table.append(py::make_tuple(info.name, id, info.needs_all_logits, parameters));
  }
  return table;
}

// Whether a scalar at this address, a double or else a float, is 1. By Python's own calling convention, which takes a
// quarter of pybind11's time: it is asked in every backward pass.
static PyObject* is_one(PyObject*, PyObject* const* given, Py_ssize_t count) {
  if (count != 2) {
    PyErr_SetString(PyExc_TypeError, "is_one takes an address and whether a double is there");
    return nullptr;
  }
  const void* at = PyLong_AsVoidPtr(given[0]);
  if (PyErr_Occurred()) return nullptr;
  const bool one =
      at && (given[1] == Py_True ? *static_cast<const double*>(at) == 1 : *static_cast<const float*>(at) == 1);
  return PyBool_FromLong(one);
}
static PyMethodDef plain_functions[] = {{"is_one", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&is_one)),
                                         METH_FASTCALL, "whether a scalar, at an address, is 1"},
                                        {}};

// What it hands out is constant, so that free-threaded Python may call it without its lock.
PYBIND11_MODULE(_C, m, py::mod_gil_not_used()) {
  m.doc() = "Build information and the formula table of imae_ext.";
  m.def("formulas", &formulas, "(name, number, needs all logits, parameters) of each formula");
  m.def("cpu_instruction_set", [] { return imae::cpu_kernels().name; }, "the CPU kernels in use");
  m.def(
      "check_formula",
      [](const std::vector<double>& terms) { imae::prepare(terms.data(), static_cast<int64_t>(terms.size())); },
      "ValueError if the kernels cannot evaluate this combination");
  if (PyModule_AddFunctions(m.ptr(), plain_functions) != 0) throw py::error_already_set();
  m.attr("cuda_architectures") = IMAE_CUDA_ARCHS;
  m.attr("interface") = IMAE_INTERFACE;
  m.attr("max_terms") = imae::kMaxTerms;
}
