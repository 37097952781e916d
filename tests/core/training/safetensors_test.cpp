#include "core/training/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/random.h"
#include "tests/support/temporary_folder.h"

namespace shoestring {
namespace {

using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

struct Sample {
  Tensor weight{DType::f32, {3, 5}};
  Tensor half{DType::bf16, {7}};
  Tensor empty{DType::f32, {0, 4}};
  Sample() {
    for (int i = 0; i < 15; ++i) weight.as<float>()[i] = static_cast<float>(i) * 0.5f;
    for (int i = 0; i < 7; ++i) half.as<BFloat16>()[i] = BFloat16(static_cast<float>(i));
  }
  std::vector<NamedTensor> tensors() const { return {{"b.half", half}, {"a.weight", weight}, {"c.empty", empty}}; }
};

std::filesystem::path write(const TemporaryFolder& folder, const Sample& sample) {
  const std::filesystem::path path = folder / "x.safetensors";
  FileWriter file(path);
  write_safetensors(file, sample.tensors());
  file.finish();
  EXPECT_EQ(file.bytes(), safetensors_bytes(sample.tensors()));
  return path;
}

TEST(Safetensors, RoundTrip) {
  const TemporaryFolder folder;
  const Sample sample;
  const SafetensorsFile file(write(folder, sample));
  Tensor weight(DType::f32, {3, 5});
  file.read("a.weight", weight);
  EXPECT_EQ(std::memcmp(weight.as<void>(), sample.weight.as<void>(), 60), 0);
  Tensor half(DType::bf16, {7});
  file.read("b.half", half);
  EXPECT_EQ(std::memcmp(half.as<void>(), sample.half.as<void>(), 14), 0);
  EXPECT_TRUE(file.holds("c.empty"));
  EXPECT_FALSE(file.holds("__metadata__"));
  EXPECT_THROW(file.read("absent", weight), Error);
  EXPECT_THROW(file.read("b.half", weight), Error);
}

std::string file_of(const std::string& header, const std::string& data) {
  std::uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + data;
}

TEST(Safetensors, RefusesEveryBrokenRule) {
  const TemporaryFolder folder;
  const std::string data(16, 'x');
  const std::vector<std::pair<const char*, std::string>> broken = {
      {"short", "abc"},
      {"length beyond the file", std::string("\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F{}", 10)},
      {"a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4241003\n"},
      {"not an object", file_of("[1]", "")},
      {"not JSON", file_of("{\"a\":", "")},
      {"deep", file_of("{\"a\":[[[[[[[[1]]]]]]]]}", "")},
      {"unknown dtype", file_of(R"({"a":{"dtype":"F13","shape":[4],"data_offsets":[0,16]}})", data)},
      {"size mismatch", file_of(R"({"a":{"dtype":"F32","shape":[5],"data_offsets":[0,16]}})", data)},
      {"negative extent", file_of(R"({"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}})", data)},
      {"overflow", file_of(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,16]}})", data)},
      {"outside", file_of(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[8,24]}})", data)},
      {"backwards", file_of(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[16,0]}})", data)},
      {"a hole", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})", data)},
      {"an overlap",
       file_of(
           R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
           data)},
      {"a tail", file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", data)},
      {"extra key", file_of(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16],"z":1}})", data)},
      {"rank", file_of(R"({"a":{"dtype":"F32","shape":[1,1,1,1,4],"data_offsets":[0,16]}})", data)},
  };
  for (const auto& [what, bytes] : broken) {
    write_text(folder / "x.safetensors", bytes);
    try {
      const SafetensorsFile file(folder / "x.safetensors");
      ADD_FAILURE() << "accepted: " << what;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::corrupt_checkpoint) << what;
    }
  }
}

TEST(Safetensors, SurvivesMutatedHeaders) {
  const TemporaryFolder folder;
  const std::string sound = read_text(write(folder, Sample()));
  const Random random(3, Purpose::test);
  int refused = 0;
  for (std::uint64_t trial = 0; trial < 2000; ++trial) {
    std::string bytes = sound;
    for (std::uint64_t flip = 0; flip < 3; ++flip) {
      const std::uint64_t at = random.below(trial * 8 + flip * 2, bytes.size() - 80);
      bytes[at] = static_cast<char>(bytes[at] ^ (1 << random.below(trial * 8 + flip * 2 + 1, 8)));
    }
    write_text(folder / "x.safetensors", bytes);
    try {
      const SafetensorsFile file(folder / "x.safetensors");
      for (const auto& [name, entry] : file.entries()) {
        if (!entry.dtype) continue;
        Tensor to(*entry.dtype, entry.shape);
        file.read(name, to);
      }
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace shoestring
