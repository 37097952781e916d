#include "kernels/base/dtype.h"

#include "kernels/base/check.h"

namespace shoestring {
namespace {

struct Format {
  std::string_view name;
  std::int64_t size_bytes;
  double max_finite;
};

Format format(DType dtype) {
  switch (dtype) {
    case DType::f64: return {"f64", 8, 1.7976931348623157e308};
    case DType::f32: return {"f32", 4, 3.4028234663852886e38};
    case DType::bf16: return {"bf16", 2, 3.3895313892515355e38};
    case DType::e4m3: return {"e4m3", 1, 448.0};
    case DType::e5m2: return {"e5m2", 1, 57344.0};
    case DType::e8m0: return {"e8m0", 1, 1.7014118346046923e38};
    case DType::i64: return {"i64", 8, 0};
    case DType::i32: return {"i32", 4, 0};
    case DType::u16: return {"u16", 2, 0};
    case DType::u8: return {"u8", 1, 0};
  }
  fail(ExitCode::bug, "unknown dtype {}", static_cast<int>(dtype));
}

}  // namespace

std::int64_t size_bytes(DType dtype) { return format(dtype).size_bytes; }
std::string_view name(DType dtype) { return format(dtype).name; }
double max_finite(DType dtype) { return format(dtype).max_finite; }

}  // namespace shoestring
