#include "kernels/base/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/tensor.h"
#include "kernels/gemm.h"

namespace shoestring {
namespace {

bool all_zero(const Storage& storage) {
  const auto* bytes = static_cast<const std::uint8_t*>(storage.data());
  for (std::int64_t i = 0; i < storage.bytes(); ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

TEST(Storage, IsAlignedZeroAndCounted) {
  const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
  for (const std::int64_t bytes : {std::int64_t{1}, std::int64_t{63}, std::int64_t{1000}, std::int64_t{3} << 20}) {
    const Storage storage(bytes, {});
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(storage.data()) % 64, 0u);
    EXPECT_TRUE(all_zero(storage));
    EXPECT_EQ(memory_use(DeviceKind::cpu).now_bytes, before + bytes);
    EXPECT_GE(memory_use(DeviceKind::cpu).peak_bytes, before + bytes);
  }
  EXPECT_EQ(memory_use(DeviceKind::cpu).now_bytes, before);
}

TEST(Storage, MovesItsBytes) {
  const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
  Storage a(128, {});
  void* data = a.data();
  Storage c(64, {});
  {
    Storage b = std::move(a);
    EXPECT_EQ(b.data(), data);
    c = std::move(b);
  }
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.bytes(), 128);
  c = Storage();
  EXPECT_EQ(memory_use(DeviceKind::cpu).now_bytes, before);
}

TEST(Storage, PinnedIsHostMemory) {
  const Storage storage = Storage::pinned(4096);
  EXPECT_EQ(storage.device(), Device{});
  EXPECT_TRUE(all_zero(storage));
  EXPECT_EQ(Storage::pinned(0).data(), nullptr);
}

TEST(Storage, NoMemoryIsAnInputOutputError) {
  try {
    const Storage storage(std::int64_t{1} << 60, {});
    FAIL() << "an exbibyte was granted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::io);
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos);
  }
  EXPECT_THROW(Storage(-1, {}), Error);
}

TEST(Arena, HandsOutAlignedViewsAndTakesThemBack) {
  Arena arena(1024, {});
  const TensorView a = arena.take(DType::f32, {3});
  const TensorView b = arena.take(DType::e4m3, {65});
  EXPECT_EQ(static_cast<char*>(b.data) - static_cast<char*>(a.data), 64);
  EXPECT_EQ(arena.used_bytes(), 64 + 128);
  {
    const Arena::Scope scope(arena);
    arena.take(DType::f64, {8, 8});
    EXPECT_EQ(arena.used_bytes(), 192 + 512);
  }
  EXPECT_EQ(arena.used_bytes(), 192);
  EXPECT_EQ(arena.peak_bytes(), 704);
  EXPECT_THROW(arena.take(DType::u8, {1024}), Error);
  EXPECT_EQ(arena.used_bytes(), 192);
  arena.reset();
  EXPECT_EQ(arena.take(DType::u8, {1024}).data, a.data);
  EXPECT_EQ(arena.take(DType::f32, {0}).elements(), 0);
}

TEST(Arena, GrowsWhereItStandsAndIsOnePieceAfterwards) {
  Arena arena = Arena::growing({});
  EXPECT_FALSE(arena.take(DType::u8, {0}).empty());
  const TensorView a = arena.take(DType::u8, {1024});
  std::memset(a.data, 7, 1024);
  {
    const Arena::Scope scope(arena);
    const TensorView b = arena.take(DType::u8, {4096});
    std::memset(b.data, 9, 4096);
    EXPECT_GE(arena.used_bytes(), 1024 + 4096);
  }
  EXPECT_EQ(arena.take(DType::u8, {64}).as<std::uint8_t>()[0], 9) << "what was given back is taken again";
  for (int i = 0; i < 1024; ++i) ASSERT_EQ(a.as<std::uint8_t>()[i], 7);
  const std::int64_t peak = arena.peak_bytes();
  arena.reset();
  EXPECT_GE(arena.capacity_bytes(), peak);
  const char* first = arena.take(DType::u8, {1024}).as<char>();
  EXPECT_EQ(arena.take(DType::u8, {4096}).as<char>() - first, 1024);
}

// As much as is wished, and none of it is there.
TEST(DryRun, CountsWhatIsAskedForByKind) {
  const std::int64_t before = memory_use(DeviceKind::cpu).now_bytes;
  constexpr std::int64_t kMuch = std::int64_t{1} << 50;
  DryMemory dry;
  {
    const Tensor there(DType::f32, {kMuch / 4}, {.kind = DeviceKind::cuda, .index = 3, .dry = &dry});
    EXPECT_FALSE(there.empty());
    EXPECT_FALSE(there.view().device.readable());
    const Storage here = Storage::pinned(100, &dry);
    EXPECT_EQ(dry.of(DeviceKind::cuda).now_bytes, kMuch);
    EXPECT_EQ(dry.of(DeviceKind::cpu).now_bytes, 100);
  }
  Arena arena(0, {.dry = &dry});
  {
    const Arena::Scope scope(arena);
    const TensorView a = arena.take(DType::u8, {kMuch});
    EXPECT_EQ(arena.take(DType::u8, {1}).as<char>() - a.as<char>(), kMuch);
    arena.claim(1000);
  }
  EXPECT_EQ(arena.used_bytes(), 0);
  EXPECT_EQ(arena.peak_bytes(), kMuch + 64 + 1024);
  EXPECT_EQ(dry.of(DeviceKind::cuda).now_bytes, 0);
  EXPECT_EQ(dry.of(DeviceKind::cuda).peak_bytes, kMuch);
  EXPECT_EQ(memory_use(DeviceKind::cpu).now_bytes, before);
}

TEST(DryRun, AnOpClaimsItsScratchAndTouchesNothing) {
  for (const DeviceKind kind : {DeviceKind::cpu, DeviceKind::cuda}) {
    DryMemory dry;
    Stream stream({.kind = kind, .dry = &dry}, 3);
    EXPECT_EQ(stream.worker_count(), kind == DeviceKind::cpu ? 3 : 1);
    EXPECT_THROW(stream.workers(), Error);
    Arena scratch(0, stream.device());
    const Tensor a(DType::bf16, {70, 90}, stream.device());
    const Tensor b(DType::bf16, {50, 90}, stream.device());
    Tensor c(DType::f32, {70, 50}, stream.device());
    gemm({.c = c, .a = unscaled(a), .b = unscaled(b), .scratch = scratch, .stream = stream});
    EXPECT_EQ(scratch.used_bytes(), 0);
    const std::int64_t workspace = (std::int64_t{32} << 20) + 256;  // cuBLASLt's
    EXPECT_EQ(scratch.peak_bytes(), kind == DeviceKind::cpu ? gemm_scratch_bytes(70, 50, 90, 3, false) : workspace);
  }
}

}  // namespace
}  // namespace shoestring
