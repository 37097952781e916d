// The emulated device as the host sees it: memory that it may not touch, streams that are in order and late, events,
// copies; and misuse that is refused before anything is enqueued.
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "kernels/adamw.h"
#include "kernels/attention.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"
#include "kernels/base/event.h"
#include "kernels/base/workers.h"
#include "kernels/cross_entropy.h"
#include "kernels/fill.h"
#include "kernels/gemm.h"
#include "kernels/grouped_gemm.h"
#include "kernels/latent_key.h"
#include "kernels/permute.h"
#include "kernels/quantize.h"
#include "kernels/reduce.h"
#include "kernels/rms_norm.h"
#include "kernels/router.h"
#include "kernels/swiglu.h"
#include "tests/emulator/grid.h"
#include "tests/support/fill.h"

namespace shoestring {
namespace {

constexpr Device kCuda{DeviceKind::cuda, 0};

class EmulatedDevice : public ::testing::Test {
 protected:
  /// A view of pinned memory; what a late copy reads and writes.
  static TensorView pinned(const Storage& storage) {
    return view_of(storage.data(), DType::f32, {storage.bytes() / 4});
  }
  Stream stream_{kCuda};
};

using EmulatedDeviceDeathTest = EmulatedDevice;

TEST_F(EmulatedDeviceDeathTest, NamesWhatHostCodeTouches) {
  Tensor there(DType::f32, {10}, kCuda);
  EXPECT_DEATH(there.as<float>()[3] = 1, "host code touched device memory, byte 12 of 40");
  const auto read = [&] { return std::to_string(there.as<float>()[0]); };
  EXPECT_DEATH(read(), "host code touched device memory, byte 0 of 40");
}

TEST_F(EmulatedDevice, IsLate) {
  const Storage here = Storage::pinned(16), back = Storage::pinned(16);
  Tensor there(DType::f32, {4}, kCuda);
  pinned(here).as<float>()[0] = 1;
  copy(there, pinned(here), stream_);
  copy(pinned(back), there, stream_);
  EXPECT_EQ(pinned(back).as<float>()[0], 0);  // nobody has waited
  pinned(here).as<float>()[0] = 2;            // too early: the copy has not read it
  stream_.synchronize();
  EXPECT_EQ(pinned(back).as<float>()[0], 2);
}

TEST_F(EmulatedDevice, ReadsPageableMemoryAtOnceAndWritesItBeforeItReturns) {
  Tensor here(DType::f32, {4}), back(DType::f32, {4}), there(DType::f32, {4}, kCuda);
  here.as<float>()[3] = 1;
  copy(there, here, stream_);
  here.as<float>()[3] = 2;
  copy(back, there, stream_);
  EXPECT_EQ(back.as<float>()[3], 1);
}

TEST_F(EmulatedDevice, KeepsTheOrderOfAStreamAndWhatEventsAskOfOthers) {
  Stream other(kCuda);
  const Storage back = Storage::pinned(16);
  Tensor there(DType::f32, {4}, kCuda);
  Event filled(kCuda);
  fill(there, 1, stream_);
  fill(there, 2, stream_);
  filled.record(stream_);
  EXPECT_FALSE(filled.reached());
  filled.block(other);
  copy(pinned(back), there, other);
  other.synchronize();
  EXPECT_EQ(pinned(back).as<float>()[0], 2);
  EXPECT_TRUE(filled.reached());
}

// What a missing event would do: the other stream does not wait.
TEST_F(EmulatedDevice, ShowsAMissingWaitBetweenStreams) {
  Stream other(kCuda);
  const Storage back = Storage::pinned(16);
  Tensor there(DType::f32, {4}, kCuda);
  fill(there, 1, stream_);
  copy(pinned(back), there, other);
  other.synchronize();
  EXPECT_EQ(pinned(back).as<float>()[0], 0);
}

TEST_F(EmulatedDevice, CountsItsMemory) {
  const std::int64_t before = memory_use(DeviceKind::cuda).now_bytes;
  const Tensor there(DType::f32, {1000}, kCuda);
  EXPECT_EQ(memory_use(DeviceKind::cuda).now_bytes - before, 4000);
}

TEST_F(EmulatedDevice, MultipliesAsTheCpuDoesGroupsToo) {
  Workers workers(1);
  Stream cpu(workers);
  const Tensor a = testing::normal(DType::bf16, {40, 64}, 1), b = testing::normal(DType::bf16, {3 * 48, 64}, 2);
  const std::int64_t offsets[] = {0, 16, 16, 40};
  Tensor results[2];
  for (const bool device : {false, true}) {
    Stream& stream = device ? stream_ : cpu;
    Tensor a_there(DType::bf16, a.shape(), stream.device()), b_there(DType::bf16, b.shape(), stream.device());
    Tensor c(DType::f32, {40, 48}, stream.device());
    copy(a_there, a, stream);
    copy(b_there, b, stream);
    Arena scratch(grouped_gemm_scratch_bytes(40, 48, 64, 3, 1, false), stream.device());
    grouped_gemm({.c = c,
                  .a = unscaled(a_there),
                  .b = unscaled(b_there),
                  .offsets = offsets,
                  .scratch = scratch,
                  .stream = stream});
    results[device] = Tensor(DType::f32, c.shape());
    copy(results[device], c, stream);
    stream.synchronize();
  }
  EXPECT_EQ(std::memcmp(results[0].as<char>(), results[1].as<char>(), static_cast<std::size_t>(results[0].bytes())), 0);
}

// ---- misuse

/// What is said where `call` throws; "nothing" where it does not.
template <class Call>
std::string said(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

class Misuse : public EmulatedDevice {
 protected:
  Misuse() { emulator::clear_history(); }
  ~Misuse() override {
    stream_.synchronize();
    EXPECT_TRUE(emulator::kernels_seen().empty()) << "a kernel ran";
  }
  Tensor here_{DType::f32, {8, 8}}, there_{DType::f32, {8, 8}, kCuda};
  Tensor here_row_{DType::f32, {8}}, there_row_{DType::f32, {8}, kCuda};
  Tensor here_ids_{DType::i32, {8}}, there_ids_{DType::i32, {8}, kCuda};
  const std::string host_{"is on cpu, the stream on cuda:0"};
};

TEST_F(Misuse, AHostTensorInADeviceOp) {
  Arena scratch(1 << 16, kCuda);
  const auto heads = [](Tensor& t) { return t.view().reshaped({4, 2, 8}); };
  const auto expect = [&](const std::string& text) { EXPECT_NE(text.find(host_), std::string::npos) << text; };
  expect(said([&] { fill(here_, 1, stream_); }));
  expect(said([&] { scale(there_, 2, here_, stream_); }));
  expect(
      said([&] { rms_norm_forward({.y = there_, .x = there_, .gamma = here_row_, .eps = 1e-6f, .stream = stream_}); }));
  Tensor wide(DType::f32, {8, 16}, kCuda);
  expect(said([&] { swiglu_forward({.y = here_, .gate_up = unscaled(wide), .stream = stream_}); }));
  expect(said([&] {
    latent_key({heads(there_), heads(here_).slice(2, 0, 5), there_.view().slice(0, 0, 4).slice(1, 0, 3), stream_});
  }));
  expect(said([&] {
    adamw_step({.parameter = there_row_,
                .first_moment = there_row_,
                .second_moment = there_row_,
                .gradient = here_row_,
                .gradient_scale = 1,
                .learning_rate = 1,
                .beta1 = 0.9,
                .beta2 = 0.9,
                .eps = 1,
                .weight_decay = 0,
                .step = 1,
                .stream = stream_});
  }));
  expect(said([&] { cross_entropy({there_row_, {}, {}, {}, {}, there_, here_ids_, 1.0, stream_}); }));
  expect(said([&] {
    router_forward({.indices = there_ids_.view().reshaped({8, 1}),
                    .weights = there_row_.view().reshaped({8, 1}),
                    .scores = there_,
                    .logits = here_,
                    .stream = stream_});
  }));
  QuantizeCounts counts;
  Tensor codes(DType::e4m3, {8, 8}, kCuda), scales(DType::f32, {8, 1}, kCuda);
  const std::string text = said([&] {
    quantize({.x = there_, .row_tiles = {codes, scales, kRowTile128}, .counts = &counts, .stream = stream_});
  });
  EXPECT_NE(text.find("cannot reach the counts"), std::string::npos) << text;
}

TEST_F(Misuse, AnotherDevice) {
  TensorView elsewhere = there_;
  elsewhere.device.index = 1;
  const std::string text = said([&] { fill(elsewhere, 1, stream_); });
  EXPECT_NE(text.find("is on cuda:1, the stream on cuda:0"), std::string::npos) << text;
}

TEST_F(Misuse, AFormatAnExtentOrAnAlignmentThatNoRowHas) {
  Tensor double_there(DType::f64, {8, 8}, kCuda);
  std::string text = said([&] { scale(double_there, 2, double_there, stream_); });
  EXPECT_NE(text.find("cuda: f64 is not f32 or bf16"), std::string::npos) << text;
  Tensor heads(DType::f32, {2, 1, 300}, kCuda), lse(DType::f32, {1, 2}, kCuda), starts(DType::i32, {2}, kCuda);
  Arena scratch(1 << 16, kCuda);
  text = said([&] { attention_forward({heads, lse, heads, heads, heads, starts, 1.0, scratch, stream_}); });
  EXPECT_NE(text.find("heads of more than 256 dims"), std::string::npos) << text;
  Tensor codes(DType::e4m3, {40, 48}, kCuda), one(DType::f32, {1, 1}, kCuda), c(DType::f32, {40, 40}, kCuda);
  const ConstScaledView eight{codes.view().slice(1, 4, 32), one, kPerTensor};  // begins at a multiple of 4 bytes only
  text = said([&] { gemm({.c = c, .a = eight, .b = eight, .scratch = scratch, .stream = stream_}); });
  EXPECT_NE(text.find("cublaslt: "), std::string::npos) << text;
  EXPECT_NE(text.find("16 bytes"), std::string::npos) << text;
}

TEST_F(Misuse, ACopyOnAStreamOfNeither) {
  Workers workers(1);
  Stream cpu(workers);
  EXPECT_NE(said([&] { copy(there_, here_, cpu); }), "nothing");
  EXPECT_NE(said([&] { copy(here_, here_, stream_); }), "nothing");
}

}  // namespace
}  // namespace shoestring
