#include "core/training/export.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/model/transformer.h"
#include "core/training/import_weights.h"
#include "core/training/room.h"
#include "kernels/base/check.h"
#include "kernels/base/json.h"
#include "kernels/base/own_folder.h"
#include "kernels/quantize.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kBlock = 128;
constexpr const char* kScaleSuffix = "_scale_inv";

/// What an expert or a layer calls it, and whether a statistic: those stay in single precision.
struct Weight {
  std::string name;
  Shape shape;
  RowSource source;
  bool statistic = false;
};

std::vector<Weight> weights_of(const ImportFolder& folder, const Transformer& model) {
  std::vector<Weight> weights;
  for (const Parameter* parameter : model.parameters()) {
    for (const ParameterSlice& slice : parameter->slices) {
      weights.push_back({slice.name, slice.shape, find_rows(folder, slice.name, slice.shape),
                         parameter->role == ParameterRole::statistic});
    }
  }
  for (const TensorAlias& alias : model.aliases()) {
    const auto of = std::find_if(weights.begin(), weights.end(), [&](const Weight& w) { return w.name == alias.of; });
    weights.push_back({alias.name, of->shape, of->source, false});
  }
  return weights;
}

void write_plain(FileWriter& file, const RowSource& source, DType dtype) {
  std::vector<BFloat16> narrow;
  read_rows(source, [&](std::int64_t, std::int64_t rows, const float* values) {
    const auto count = static_cast<std::size_t>(rows * source.columns);
    if (dtype == DType::f32) return file.write(values, count * sizeof(float));
    narrow.resize(count);
    std::transform(values, values + count, narrow.begin(), [](float value) { return BFloat16(value); });
    file.write(narrow.data(), count * sizeof(BFloat16));
  });
}

/// Codes or scales of one weight, a row of blocks at a time; the other half is made and dropped.
void write_blocks(FileWriter& file, const RowSource& source, bool codes, Stream& stream) {
  const Shape most{std::min(kBlock, source.rows), source.columns};
  Tensor values(DType::f32, most);
  Tensor quantised(DType::e4m3, most);
  Tensor scales(DType::f32, tile_scales_shape(most[0], most[1], kBlock128));
  for (std::int64_t row = 0; row < source.rows; row += kBlock) {
    RowSource band = source;
    band.first_row += row;
    band.rows = std::min(kBlock, source.rows - row);
    read_rows(band, [&](std::int64_t first, std::int64_t rows, const float* read) {
      std::copy(read, read + rows * source.columns, values.as<float>() + first * source.columns);
    });
    const TensorView band_codes = quantised.view().slice(0, 0, band.rows);
    quantize({.x = values.view().slice(0, 0, band.rows),
              .row_tiles = {.values = band_codes, .scales = scales.view(), .granularity = kBlock128},
              .stream = stream});
    stream.synchronize();
    const ConstTensorView part = codes ? ConstTensorView(band_codes) : ConstTensorView(scales.view());
    file.write(part.data, static_cast<std::size_t>(part.bytes()));
  }
}

void add_written(std::vector<WrittenTensor>& tensors, const Weight& weight, ExportFormat format, Stream& stream) {
  const RowSource& source = weight.source;
  if (format == ExportFormat::fp8_block && quantised_in_blocks(weight.name)) {
    tensors.push_back({weight.name, DType::e4m3, weight.shape,
                       [&source, &stream](FileWriter& file) { write_blocks(file, source, true, stream); }});
    tensors.push_back({weight.name + kScaleSuffix, DType::f32,
                       tile_scales_shape(source.rows, source.columns, kBlock128),
                       [&source, &stream](FileWriter& file) { write_blocks(file, source, false, stream); }});
    return;
  }
  const DType dtype = format == ExportFormat::fp32 || weight.statistic ? DType::f32 : DType::bf16;
  tensors.push_back(
      {weight.name, dtype, weight.shape, [&source, dtype](FileWriter& file) { write_plain(file, source, dtype); }});
}

// Each tells, when it is written, how much there is.
void tell_progress(std::vector<WrittenTensor>& tensors, const ExportOptions& options, std::int64_t& done) {
  std::int64_t all = 0;
  for (const WrittenTensor& tensor : tensors) all += tensor.bytes();
  for (WrittenTensor& tensor : tensors) {
    tensor.write = [&options, &done, all, bytes = tensor.bytes(), write = std::move(tensor.write)](FileWriter& file) {
      write(file);
      options.progress(done += bytes, all);
    };
  }
}

void write_file(const fs::path& path, const std::function<void(FileWriter&)>& write) {
  FileWriter file(path);
  write(file);
  file.finish();
}

using WeightFiles = std::vector<std::vector<WrittenTensor>>;

std::int64_t bytes_of(const std::vector<WrittenTensor>& tensors) {
  std::int64_t sum = 0;
  for (const WrittenTensor& tensor : tensors) sum += tensor.bytes();
  return sum;
}

/// In order, none larger than `limit` unless one tensor is.
WeightFiles split_into_files(std::vector<WrittenTensor>&& tensors, std::int64_t limit) {
  WeightFiles parts(1);
  std::int64_t part_bytes = 0;
  for (WrittenTensor& tensor : tensors) {
    if (part_bytes > 0 && part_bytes + tensor.bytes() > limit) {
      parts.emplace_back();
      part_bytes = 0;
    }
    part_bytes += tensor.bytes();
    parts.back().push_back(std::move(tensor));
  }
  return parts;
}

DiskNeed disk_need(const WeightFiles& parts, const std::vector<std::pair<std::string, std::string>>& companions) {
  constexpr std::int64_t kHeader = std::int64_t{64} << 10;  // names and places of a file's tensors; config.json, index
  DiskNeed need{.bytes = kHeader, .files = 3 + std::ssize(parts) + std::ssize(companions), .largest_file = 0};
  for (const auto& [name, content] : companions) need.bytes += kHeader + std::ssize(content);
  for (const std::vector<WrittenTensor>& part : parts) {
    need.bytes += bytes_of(part) + kHeader;
    need.largest_file = std::max(need.largest_file, bytes_of(part) + kHeader);
  }
  return need;
}

/// model.safetensors, or several files and their index.
std::int64_t write_weights(const fs::path& folder, const WeightFiles& parts) {
  std::int64_t bytes = 0;
  std::int64_t parameters = 0;
  for (const std::vector<WrittenTensor>& part : parts) {
    bytes += bytes_of(part);
    for (const WrittenTensor& tensor : part) {
      if (!tensor.name.ends_with(kScaleSuffix)) parameters += tensor.shape.elements();
    }
  }
  if (parts.size() == 1) {
    write_file(folder / "model.safetensors", [&](FileWriter& file) { write_safetensors(file, parts[0]); });
    return bytes;
  }
  Json map = Json::object();
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", part + 1, parts.size());
    write_file(folder / name, [&](FileWriter& file) { write_safetensors(file, parts[part]); });
    for (const WrittenTensor& tensor : parts[part]) map.add(tensor.name, name);
  }
  Json index = Json::object();
  index.add("metadata", Json::object({{"total_parameters", parameters}, {"total_size", bytes}}));
  index.add("weight_map", std::move(map));
  write_file(folder / "model.safetensors.index.json", [&](FileWriter& file) { file.write(index.dump(2) + "\n"); });
  return bytes;
}

/// The folder to make, without what stands for nothing behind its name: DIR/ and DIR/. are DIR.
fs::path folder_of(const fs::path& place) {
  fs::path out = place;
  while (out.has_relative_path() && (!out.has_filename() || out.filename() == ".")) out = out.parent_path();
  const bool named = out.has_filename() && out.filename() != "..";
  if (!named || fs::symlink_status(out).type() != fs::file_type::not_found) {
    fail(ExitCode::usage, "{}: is there already; name a folder that is not", place.string());
  }
  return out;
}

}  // namespace

bool quantised_in_blocks(std::string_view name) {
  return name.ends_with("kv_a_proj_with_mqa.weight") ||
         (name.ends_with("_proj.weight") && !name.ends_with("eh_proj.weight"));
}

std::int64_t export_folder(const ImportFolder& source, const fs::path& place, const ExportOptions& options,
                           Stream& stream) {
  const fs::path out = folder_of(place);
  const Transformer model({.model = source.config(),
                           .precision = {},
                           .run = {.tokens = 1, .sequences = 1, .workers = 1},
                           .stages = 1,
                           .own_stages = {},
                           .count_precision = false});
  plan_import(source, model);  // whether all of it is sound
  const std::vector<Weight> weights = weights_of(source, model);
  std::vector<WrittenTensor> tensors;
  for (const Weight& weight : weights) add_written(tensors, weight, options.format, stream);
  std::int64_t done = 0;
  if (options.progress) tell_progress(tensors, options, done);

  ModelFileFacts facts = source.facts();
  facts.torch_dtype = options.format == ExportFormat::fp32 ? "float32" : "bfloat16";
  facts.fp8_block.reset();
  if (options.format == ExportFormat::fp8_block) facts.fp8_block = kBlock;

  const WeightFiles files = split_into_files(std::move(tensors), options.file_limit_bytes);
  OwnFolder partial(out.string() + ".partial");
  check_disk(out, options.room ? *options.room : disk_room(partial.path()), disk_need(files, source.companions()),
             "the model folder", "name a place on another disk with --out");
  write_file(partial.path() / "config.json",
             [&](FileWriter& file) { file.write(write_hugging_face_config(source.config(), facts)); });
  for (const auto& [name, content] : source.companions()) {
    write_file(partial.path() / name, [&, &text = content](FileWriter& file) { file.write(text); });
  }
  const std::int64_t bytes = write_weights(partial.path(), files);
  partial.become(out);
  return bytes;
}

}  // namespace shoestring
