#include "kernels/base/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/tensor.h"

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
  Storage b = std::move(a);
  EXPECT_EQ(b.data(), data);
  Storage c(64, {});
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.bytes(), 128);
  c = Storage();
  EXPECT_EQ(memory_use(DeviceKind::cpu).now_bytes, before + b.bytes());
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

}  // namespace
}  // namespace shoestring
