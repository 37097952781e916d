// The library itself makes every descriptor of a grouped product and takes every attribute: no device is needed for
// that, only the library. It is looked for as programs do it, LD_LIBRARY_PATH included.
#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/gemm_cublaslt_library.h"
#include "kernels/grouped_gemm_cublaslt.h"
#include "kernels/grouped_gemm_plan.h"
#include "tests/kernels/grouped_on_device.h"

namespace shoestring {
namespace {

namespace cublaslt = gemm_detail::cublaslt;

class GroupedLibrary : public testing::GroupedOnDevice {
 protected:
  void SetUp() override {
    const cublaslt::Library& library = cublaslt::library();
    if (!library.fault.empty()) GTEST_SKIP() << library.fault;
    if (library.grouped_layout_create == nullptr) {
      GTEST_SKIP() << cublaslt::refuses_library(library.version(), 90, false);
    }
    scratch_ = Arena(1 << 20, Device{});
  }
};

TEST_F(GroupedLibrary, TakesAllThatDescribesAProduct) {
  for (const DType c : {DType::bf16, DType::f32}) {
    EXPECT_NO_THROW(cublaslt::try_descriptors(forward(DType::bf16, c)));
    EXPECT_NO_THROW(cublaslt::try_descriptors(input_gradient(c)));
    EXPECT_NO_THROW(cublaslt::try_descriptors(weight_gradient(DType::bf16, c)));
  }
  for (const Granularity scales : {kPerTensor, kBlock128}) EXPECT_NO_THROW(cublaslt::try_descriptors(codes(scales)));
  for (const Granularity scales : {kPerTensor, kColumnTile128})
    EXPECT_NO_THROW(cublaslt::try_descriptors(weight_codes(scales)));
  EXPECT_EQ(scratch_.used_bytes(), 0);
}

// That it takes them says something: of others it says that it does not.
TEST_F(GroupedLibrary, RefusesWhatItDoesNotKnow) {
  cublaslt::Descriptors d(true, false);
  EXPECT_THROW(d.set(cublaslt::kScaleModeA, std::int64_t{0}), Error);  // of another size
  EXPECT_THROW(d.set(static_cast<cublasLtMatmulDescAttributes_t>(63), std::int32_t{0}), Error);
  cublaslt::Preference preference(0);
  EXPECT_THROW(preference.set(cublaslt::kAverageRows, std::int32_t{1}), Error);
}

}  // namespace
}  // namespace shoestring
