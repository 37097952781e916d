// Folders to begin with: our own, other formats, and hostile ones.
#include "core/training/import.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>

#include "core/training/checkpoint.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "tests/core/model/small_models.h"
#include "tests/support/temporary_folder.h"

namespace shoestring::testing {
namespace {

namespace fs = std::filesystem;

/// A tensor as a folder has it, whatever its format.
struct Stored {
  std::string format;
  std::vector<std::int64_t> shape;
  std::string bytes;
};
using Stores = std::map<std::string, Stored>;

template <class Element>
void append(std::string& bytes, Element value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

std::string file_of(const Stores& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, stored] : tensors) {
    header.add(
        name,
        Json::object({{"dtype", stored.format},
                      {"shape", Json::array_of(stored.shape)},
                      {"data_offsets", Json::array_of(std::array{data.size(), data.size() + stored.bytes.size()})}}));
    data += stored.bytes;
  }
  const std::string text = header.dump();
  std::string bytes;
  append(bytes, static_cast<std::uint64_t>(text.size()));
  return bytes + text + data;
}

/// A small model's weights as a folder of F32.
class Folder {
 public:
  explicit Folder(Architecture architecture) : config_(small_config(architecture)) {
    SmallRun run(config_, policy(PrecisionPolicy::fp32));
    for (const Parameter* parameter : run.model.parameters()) {
      for (const ParameterSlice& slice : parameter->slices) {
        const ConstTensorView rows = parameter->value.slice(0, slice.begin, slice.rows);
        Stored stored{
            "F32", {}, std::string(static_cast<const char*>(rows.data), static_cast<std::size_t>(rows.bytes()))};
        for (int dim = 0; dim < slice.shape.rank(); ++dim) stored.shape.push_back(slice.shape[dim]);
        tensors.emplace(slice.name, std::move(stored));
      }
    }
    config = write_hugging_face_config(config_, {});
  }

  const fs::path& write() {
    write_text(folder_ / "config.json", config);
    write_text(folder_ / "model.safetensors", file_of(tensors));
    return folder_.path();
  }
  const TemporaryFolder& place() const { return folder_; }

  Stores tensors;
  std::string config;

 private:
  ModelConfig config_;
  TemporaryFolder folder_;
};

/// The masters of the model that begins with the folder, flat.
std::vector<float> begun_with(const fs::path& place) {
  const ImportFolder folder(place);
  SmallRun run(folder.config(), policy(PrecisionPolicy::fp32));
  for (Parameter* parameter : run.model.parameters())
    std::memset(parameter->value.data, 0xFF, static_cast<std::size_t>(parameter->value.bytes()));
  import_weights(plan_import(folder, run.model));
  std::vector<float> values;
  for (const Parameter* parameter : run.model.parameters()) {
    values.insert(values.end(), parameter->value.as<float>(), parameter->value.as<float>() + parameter->elements());
  }
  return values;
}

std::string refusal(const std::function<void()>& act, ExitCode code = ExitCode::bad_data) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return {};
}

TEST(Import, EveryFamilyBeginsWithTheNumbersOfItsFolder) {
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen2, Architecture::qwen3_moe,
                                          Architecture::deepseek_v2, Architecture::deepseek_v3}) {
    Folder folder(architecture);
    SmallRun run(small_config(architecture), policy(PrecisionPolicy::fp32));
    std::vector<float> expected;
    for (const Parameter* parameter : run.model.parameters()) {
      expected.insert(expected.end(), parameter->value.as<float>(),
                      parameter->value.as<float>() + parameter->elements());
    }
    EXPECT_EQ(begun_with(folder.write()), expected) << name(architecture);
  }
}

TEST(Import, HalfPrecisionOfBothKindsIsExact) {
  Folder folder(Architecture::llama);
  Stored& norm = folder.tensors.at("model.norm.weight");
  const auto count = static_cast<std::size_t>(norm.shape[0]);
  const std::pair<std::uint16_t, float> halves[] = {{0x3C00, 1.0F},          {0xC500, -5.0F},    {0x0001, 0x1p-24F},
                                                    {0x83FF, -0x1.FF8p-15F}, {0x7BFF, 65504.0F}, {0x8000, -0.0F}};
  norm = {"F16", norm.shape, {}};
  for (std::size_t i = 0; i < count; ++i) append(norm.bytes, halves[i % std::size(halves)].first);
  Stored& gain = folder.tensors.at("model.layers.0.input_layernorm.weight");
  gain = {"BF16", gain.shape, {}};
  for (std::size_t i = 0; i < count; ++i) append(gain.bytes, BFloat16(0.125F * static_cast<float>(i)).bits);

  const ImportFolder opened(folder.write());
  const auto values = [&](const std::string& name) {
    std::vector<float> read;
    read_rows(find_rows(opened, name, {static_cast<std::int64_t>(count)}),
              [&](std::int64_t, std::int64_t rows, const float* row) { read.insert(read.end(), row, row + rows); });
    return read;
  };
  const std::vector<float> half = values("model.norm.weight");
  const std::vector<float> brain = values("model.layers.0.input_layernorm.weight");
  for (std::size_t i = 0; i < count; ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(half[i]),
              std::bit_cast<std::uint32_t>(halves[i % std::size(halves)].second));
    EXPECT_EQ(brain[i], 0.125F * static_cast<float>(i));
  }
}

// Blocks of 4 with a ragged edge, so that a small matrix has six of them.
TEST(Import, BlocksOfCodesTimesTheirScales) {
  Folder folder(Architecture::qwen3);
  const std::string name = "model.layers.1.self_attn.k_proj.weight";
  Stored& weight = folder.tensors.at(name);
  const std::int64_t rows = weight.shape[0];     // 20
  const std::int64_t columns = weight.shape[1];  // 24
  constexpr std::int64_t kBlock = 16;
  weight = {"F8_E4M3", weight.shape, {}};
  for (std::int64_t i = 0; i < rows * columns; ++i) weight.bytes += static_cast<char>(i % 2 == 0 ? 0x38 + i % 8 : 0xB8);
  Stored scales{"F32", {2, 2}, {}};
  for (const float scale : {0.1F, 0.7F, 3.0F, 1e-3F}) append(scales.bytes, scale);
  folder.config = write_hugging_face_config(small_config(Architecture::qwen3), {.fp8_block = kBlock});
  EXPECT_NE(refusal([&] { begun_with(folder.write()); }).find(name + "_scale_inv"), std::string::npos);
  folder.tensors.emplace(name + "_scale_inv", scales);

  const ImportFolder opened(folder.write());
  const RowSource source = find_rows(opened, name, {rows, columns});
  int seen = 0;
  read_rows(source, [&](std::int64_t first, std::int64_t count, const float* values) {
    for (std::int64_t r = first; r < first + count; ++r) {
      for (std::int64_t c = 0; c < columns; ++c, ++seen) {
        E4M3 code;
        code.bits = static_cast<std::uint8_t>(weight.bytes[static_cast<std::size_t>(r * columns + c)]);
        const float scale = reinterpret_cast<const float*>(scales.bytes.data())[r / kBlock * 2 + c / kBlock];
        ASSERT_EQ(values[(r - first) * columns + c], static_cast<float>(code) * scale) << r << " " << c;
      }
    }
  });
  EXPECT_EQ(seen, rows * columns);
  EXPECT_FALSE(begun_with(folder.write()).empty());

  folder.tensors.at(name + "_scale_inv").shape = {4, 1};
  EXPECT_NE(refusal([&] { begun_with(folder.write()); }).find("F32 [2, 2]"), std::string::npos);
}

TEST(Import, ExpertsInOneTensor) {
  Folder folder(Architecture::qwen3_moe);
  const std::vector<float> expected = begun_with(folder.write());
  const ModelConfig config = small_config(Architecture::qwen3_moe);
  for (std::int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.mlp.experts.", layer);
    Stored gate_up{"F32", {config.experts, 2 * config.expert_feed_forward, config.hidden}, {}};
    Stored down{"F32", {config.experts, config.hidden, config.expert_feed_forward}, {}};
    for (std::int64_t expert = 0; expert < config.experts; ++expert) {
      const auto take = [&](const char* which) {
        return folder.tensors.extract(fmt::format("{}{}.{}.weight", prefix, expert, which)).mapped().bytes;
      };
      gate_up.bytes += take("gate_proj");
      gate_up.bytes += take("up_proj");
      down.bytes += take("down_proj");
    }
    folder.tensors.emplace(prefix + "gate_up_proj", gate_up);
    folder.tensors.emplace(prefix + "down_proj", down);
  }
  EXPECT_EQ(begun_with(folder.write()), expected);
}

// A stage of a pipeline with a share of its experts: the rest of the folder is for other ranks.
TEST(Import, ARankWithAPartOfTheModelTakesItsOwn) {
  Folder folder(Architecture::deepseek_v3);
  const ImportFolder opened(folder.write());
  const Transformer part({.model = opened.config(),
                          .precision = policy(PrecisionPolicy::fp32),
                          .run = {1, 1, 1},
                          .stages = 2,
                          .own_stages = {1},
                          .experts = {.ranks = 2, .rank = 1}});
  std::size_t own = 0;
  for (const Parameter* parameter : part.parameters()) own += parameter->slices.size();
  EXPECT_EQ(plan_import(opened, part).pieces.size(), own);
  EXPECT_LT(own, folder.tensors.size());
}

TEST(Import, WhatDoesNotFitTheModelIsNamed) {
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto refused = [&](const std::function<void(Folder&)>& damage) {
    Folder folder(Architecture::llama);
    damage(folder);
    const fs::path& place = folder.write();
    const std::string text = refusal([&] { begun_with(place); });
    EXPECT_NE(text.find(place.string()), std::string::npos) << text;
    return text;
  };
  EXPECT_NE(refused([&](Folder& f) { f.tensors.erase(name); }).find(name + " is missing"), std::string::npos);
  EXPECT_NE(
      refused([&](Folder& f) { std::swap(f.tensors.at(name).shape[0], f.tensors.at(name).shape[1]); }).find("[40, 24]"),
      std::string::npos);
  EXPECT_NE(refused([&](Folder& f) {
              f.tensors["model.layers.0.self_attn.q_proj.bias"] = {"F32", {1}, std::string(4, 0)};
            }).find("no place for"),
            std::string::npos);
  EXPECT_NE(refused([&](Folder& f) {
              Stored& stored = f.tensors.at(name);
              stored = {"I8", stored.shape, std::string(stored.bytes.size() / 4, 1)};
            }).find("weights are read in"),
            std::string::npos);
  EXPECT_NE(refused([&](Folder& f) {
              const float infinite = INFINITY;
              std::memcpy(f.tensors.at(name).bytes.data() + 24 * 4 * 3, &infinite, 4);
            }).find("row 3"),
            std::string::npos);
  // A vocabulary that is not the table's; more parameters than the files have bytes for.
  EXPECT_NE(refused([&](Folder& f) {
              f.config.replace(f.config.find("\"vocab_size\": 61"), 16, "\"vocab_size\": 60");
            }).find("model.embed_tokens.weight"),
            std::string::npos);
  EXPECT_NE(refused([&](Folder& f) {
              f.config.replace(f.config.find("\"vocab_size\": 61"), 16, "\"vocab_size\": 9000000");
            }).find("parameters"),
            std::string::npos);
}

TEST(Import, FrequenciesArePassedOver) {
  Folder folder(Architecture::llama);
  folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = {"F16", {3}, std::string(6, 0)};
  const ImportFolder opened(folder.write());
  SmallRun run(opened.config(), policy(PrecisionPolicy::fp32));
  EXPECT_EQ(plan_import(opened, run.model).passed_over.size(), 1U);
}

// transformers drops it and leaves config.json as it was; a recipe may leave it out.
TEST(Import, MultiTokenPredictionThatIsNotThereOrNotWanted) {
  Folder folder(Architecture::deepseek_v3);
  ModelSpec without = small_spec(Architecture::deepseek_v3);
  without.mtp_layers = 0;
  SmallRun plain(resolve_model(without, 0, 0), policy(PrecisionPolicy::fp32));
  SmallRun further(small_config(Architecture::deepseek_v3), policy(PrecisionPolicy::fp32));
  EXPECT_GT(plan_import(ImportFolder(folder.write()), plain.model).passed_over.size(), 20U);
  std::erase_if(folder.tensors, [](const auto& tensor) { return tensor.first.starts_with("model.layers.3."); });
  const ImportFolder opened(folder.write());
  EXPECT_EQ(opened.config().mtp_layers, 0);
  EXPECT_EQ(plan_import(opened, plain.model).passed_over.size(), 0U);
  EXPECT_NE(refusal([&] { plan_import(opened, further.model); }).find("model.mtp_layers = 0"), std::string::npos);
}

// A config.json that counts fewer layers than the files hold would cut the model off; only layers that predict further
// tokens may stand behind the last.
TEST(Import, ALayerBehindTheLastIsNotPassedOver) {
  for (const Architecture architecture : {Architecture::llama, Architecture::qwen3_moe, Architecture::deepseek_v3}) {
    Folder folder(architecture);
    std::erase_if(folder.tensors, [](const auto& tensor) { return tensor.first.starts_with("model.layers.3."); });
    const std::string layers = fmt::format("\"num_hidden_layers\": {}", small_config(architecture).layers);
    folder.config.replace(folder.config.find(layers), layers.size(),
                          fmt::format("\"num_hidden_layers\": {}", small_config(architecture).layers - 1));
    EXPECT_NE(refusal([&] { begun_with(folder.write()); }).find("no place for"), std::string::npos)
        << name(architecture);
  }
}

// A head beside a tied embedding may only be the same numbers.
TEST(Import, ACopyThatIsNone) {
  Folder folder(Architecture::qwen2);
  folder.tensors["lm_head.weight"] = folder.tensors.at("model.embed_tokens.weight");
  EXPECT_FALSE(begun_with(folder.write()).empty());
  folder.tensors.at("lm_head.weight").bytes[5] ^= 1;
  EXPECT_NE(refusal([&] { begun_with(folder.write()); }).find("not the same"), std::string::npos);
}

TEST(Import, HostileIndexesAndFiles) {
  Folder folder(Architecture::llama);
  const fs::path& place = folder.write();
  fs::rename(place / "model.safetensors", place / "a.safetensors");
  Json map = Json::object();
  for (const auto& [tensor, stored] : folder.tensors) map.add(tensor, "a.safetensors");
  const std::string good = Json::object({{"metadata", Json::object()}, {"weight_map", std::move(map)}}).dump();
  const auto with_index = [&](const std::string& index) {
    write_text(place / "model.safetensors.index.json", index);
    return refusal([&] { begun_with(place); });
  };
  write_text(place / "model.safetensors.index.json", good);
  EXPECT_FALSE(begun_with(place).empty());
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.rfind(from), from.size(), to);
  };
  for (const char* outside : {"../a.safetensors", "/etc/passwd", "..", "sub/a.safetensors", ""}) {
    EXPECT_NE(with_index(replaced("a.safetensors", outside)).find("no file of this folder"), std::string::npos)
        << outside;
  }
  EXPECT_NE(with_index(replaced("model.norm.weight", "model.form.weight")).find("does not name"), std::string::npos);
  EXPECT_NE(with_index(replaced("{\"lm_head", "{\"x\":\"a.safetensors\",\"lm_head")).find("should hold it"),
            std::string::npos);
  EXPECT_FALSE(with_index("{\"weight_map\":" + std::string(100000, '[')).empty());
  EXPECT_FALSE(with_index("{}").empty());

  // transformers takes the single file, and so nobody can know which is meant.
  write_text(place / "model.safetensors.index.json", good);
  write_text(place / "model.safetensors", read_text(place / "a.safetensors"));
  EXPECT_NE(refusal([&] { begun_with(place); }).find("of other files"), std::string::npos);
  fs::remove(place / "model.safetensors");

  fs::remove(place / "model.safetensors.index.json");
  const std::string sound = read_text(place / "a.safetensors");
  std::string header(8, '\0');
  header[3] = '\x7F';  // two gigabytes of it
  for (const std::string& bytes :
       {header + sound.substr(8), sound.substr(0, sound.size() - 1), sound + "x", std::string()}) {
    write_text(place / "model.safetensors", bytes);
    EXPECT_NE(refusal([&] { begun_with(place); }).find("model.safetensors"), std::string::npos);
  }
  fs::remove(place / "model.safetensors");
  refusal([&] { begun_with(place); }, ExitCode::missing_input);
}

// Other readers take the adapter's base for the model, and apply the adapter.
TEST(Import, AnAdapterBesideTheWeightsIsRefused) {
  Folder folder(Architecture::llama);
  const fs::path& place = folder.write();
  write_text(place / "adapter_config.json", R"({"peft_type": "LORA"})");
  EXPECT_NE(refusal([&] { begun_with(place); }).find("adapter_config.json"), std::string::npos);
}

TEST(Import, WhatBelongsToTheModelIsKeptAndNamed) {
  Folder folder(Architecture::llama);
  const fs::path& place = folder.write();
  write_text(place / "LICENSE", "to kill");
  write_text(place / "chat_template.jinja", "{{ x }}");
  write_text(place / "modeling_evil.py", "import os");
  SmallRun run(small_config(Architecture::llama), policy(PrecisionPolicy::fp32));
  const Import import(place, run.model);
  const std::string what = import.run().text;
  EXPECT_NE(what.find(place.string()), std::string::npos) << what;
  EXPECT_NE(what.find(ImportFolder(place).hash()), std::string::npos) << what;
  EXPECT_NE(what.find("LICENSE"), std::string::npos) << what;
  const TemporaryFolder kept;
  write_text(kept / "source" / "config.json.tmp7", "{");  // an earlier start was killed
  keep_source(kept / "source", import.files());
  ModelFiles files = kept_source(kept / "source");
  ASSERT_EQ(files.size(), 3U);
  EXPECT_EQ(files[0].first, "LICENSE");
  EXPECT_EQ(files[0].second, "to kill");
  const std::string before = ImportFolder(place).hash();
  folder.tensors.at("model.norm.weight").bytes[2] ^= 1;
  folder.write();
  EXPECT_NE(ImportFolder(place).hash(), before);
}

}  // namespace
}  // namespace shoestring::testing
