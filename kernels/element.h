// One element of any floating-point format to double (or float) and back, for plain rows of ops.
#pragma once

#include <type_traits>

#include "kernels/base/dtype.h"

namespace shoestring {

inline double widened(double value) { return value; }
inline double widened(float value) { return static_cast<double>(value); }
inline double widened(BFloat16 value) { return static_cast<double>(static_cast<float>(value)); }

/// Rounded to T; formats below float go through float.
template <class T>
T rounded_to(double value) {
  if constexpr (std::is_same_v<T, double>) {
    return value;
  } else {
    return T(static_cast<float>(value));
  }
}

/// What an op computes in where the result must not depend on the row of the table: double for f64, else float.
template <class T>
using MathType = std::conditional_t<std::is_same_v<T, double>, double, float>;

}  // namespace shoestring
