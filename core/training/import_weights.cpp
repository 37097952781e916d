#include "core/training/import_weights.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "core/model/families/family.h"
#include "kernels/base/check.h"
#include "kernels/base/copy.h"

namespace shoestring {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

std::vector<TensorAlias> copies_of(const Transformer& model) {
  std::vector<TensorAlias> copies = model.aliases();
  if (model.config().tie_embeddings) copies.push_back({kHead, kEmbedding});
  return copies;
}

void check_copy(const ImportFolder& folder, const TensorAlias& copy, const RowSource& original) {
  const RowSource source = find_rows(folder, copy.name, {original.rows, original.columns});
  if (same_rows(source, original)) return;
  fail(ExitCode::bad_data, "{}: tensor {} is not the same as {}, of which the model has one only",
       source.values.file->path().string(), copy.name, copy.of);
}

void copy_rows(const ImportPlan::Piece& piece, std::int64_t first, std::int64_t rows, const float* values,
               std::optional<Stream>& stream) {
  const std::int64_t columns = piece.parameter->columns;
  const TensorView to = piece.parameter->value.slice(0, piece.begin + first, rows);
  if (to.device.kind != DeviceKind::cpu) {  // where weights are f32
    if (!stream) stream.emplace(to.device);
    copy(to, view_of(static_cast<const void*>(values), DType::f32, to.shape), *stream);
  } else if (to.dtype == DType::f64) {
    std::copy(values, values + rows * columns, to.as<double>());
  } else {
    std::copy(values, values + rows * columns, to.as<float>());
  }
}

}  // namespace

ImportPlan plan_import(const ImportFolder& folder, const Transformer& model) {
  ImportPlan plan;
  const std::string further = fmt::format("model.layers.{}.", model.config().layers);
  if (model.config().mtp_layers > folder.config().mtp_layers) {
    fail(ExitCode::bad_data, "{}: holds no weights of multi-token prediction ({}...): set model.mtp_layers = 0",
         folder.path().string(), further);
  }
  // Another layer behind the last is one that config.json does not count, and would be cut off.
  const bool predicts_further =
      family_of(model.config().architecture).further_tokens && folder.find(further + "enorm.weight").file != nullptr;
  std::set<std::string> claimed;
  std::map<std::string, RowSource> by_name;
  const auto claim = [&](const RowSource& source) {
    claimed.insert(source.name);
    if (!source.scales_name.empty()) claimed.insert(source.scales_name);
  };
  const std::unique_ptr<Transformer> whole = model.whole();  // the folder has that, whichever part is this rank's
  for (const Parameter* parameter : whole->parameters()) {
    if (parameter->role == ParameterRole::factor) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      const auto place = by_name.emplace(slice.name, find_rows(folder, slice.name, slice.shape)).first;
      claim(place->second);
    }
  }
  for (Parameter* parameter : model.parameters()) {
    if (parameter->role == ParameterRole::factor) continue;
    for (const ParameterSlice& slice : parameter->slices) {
      plan.pieces.push_back({by_name.at(slice.name), parameter, slice.begin});
    }
  }
  for (const TensorAlias& copy : copies_of(*whole)) {
    if (folder.find(copy.name).file == nullptr) continue;
    check_copy(folder, copy, by_name.at(copy.of));
    claimed.insert(copy.name);
  }
  for (const auto& [name, place] : folder.tensors()) {
    if (claimed.contains(name)) continue;
    const bool unwanted = predicts_further && model.config().mtp_layers == 0 && name.starts_with(further);
    if (!unwanted && !name.ends_with("rotary_emb.inv_freq")) {
      fail(
          ExitCode::bad_data,
          "{}: holds {}, which a {} of this config.json has no place for, and without which the model would not be the "
          "same; take config.json and all weights from one model",
          place.file->path().string(), name, shoestring::name(model.config().architecture));
    }
    plan.passed_over.push_back(name);
  }
  std::sort(plan.pieces.begin(), plan.pieces.end(), [](const ImportPlan::Piece& a, const ImportPlan::Piece& b) {
    const auto key = [](const RowSource& source) { return std::tuple(source.values.file->path(), source.begin()); };
    return key(a.source) < key(b.source);
  });
  return plan;
}

void import_weights(const ImportPlan& plan, const ImportProgress& progress) {
  std::optional<Stream> stream;  // of the device that the weights lie on
  std::int64_t done = 0, all = 0;
  for (const ImportPlan::Piece& piece : plan.pieces) all += piece.source.bytes();
  for (const ImportPlan::Piece& piece : plan.pieces) {
    read_rows(piece.source, [&](std::int64_t first, std::int64_t rows, const float* values) {
      copy_rows(piece, first, rows, values, stream);
    });
    done += piece.source.bytes();
    if (progress) progress(done, all);
  }
  if (stream) stream->synchronize();
}

std::string formats_of(const ImportPlan& plan) {
  std::map<std::string, int> formats;
  for (const ImportPlan::Piece& piece : plan.pieces) ++formats[piece.source.values.entry->format];
  std::string text;
  for (const auto& [format, count] : formats) text += fmt::format("{}{} {}", text.empty() ? "" : ", ", format, count);
  return text;
}

}  // namespace shoestring
