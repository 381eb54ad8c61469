// A sum of many parts, as of a long row.
#pragma once
#include "isa.h"
#include "simd.h"

namespace imae::IMAE_ISA {

// What the additions round off is added up, too.
template <class V>
class LongSum {
  using Real = typename V::Real;

 public:
  // Not by default initialisers, on which GCC 12 breaks without optimisation; not IMAE_INLINE, since a constructor that
  // the compiler makes, and calls this one from, is of no instruction set.
  LongSum() : sum_{}, off_{} {}
  IMAE_INLINE void add(Real part) {
    const Real all = sum_ + part, added = all - sum_, lost = (sum_ - (all - added)) + (part - added);
    off_ += V::select(lost == lost, lost, Real{});  // NaN if the sum is infinite
    sum_ = all;
  }
  IMAE_INLINE Real all() const { return sum_ + off_; }

 private:
  Real sum_, off_;
};

}  // namespace imae::IMAE_ISA
