#include "core/training/checkpoint_writer.h"

#include <algorithm>
#include <set>

#include "core/training/rank_texts.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

bool safe_name(const std::string& name) {
  if (name.empty() || name.size() > 128 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
}

/// Writes files, reads each back, and remembers what the manifest says of them.
class FolderWriter {
 public:
  explicit FolderWriter(fs::path folder) : folder_(std::move(folder)) { make_directories(folder_ / "training"); }

  void add(const std::string& name, const std::function<void(FileWriter&)>& write) {
    check(safe_manifest_name(name), "'{}' cannot be a checkpoint file's name", name);
    FileWriter file(folder_ / name);
    write(file);
    file.finish();
    if (hash_file(folder_ / name) != file.hash()) {
      fail(ExitCode::io,
           "{}: read back after writing, its content is another; look at the disk and the memory of this machine",
           (folder_ / name).string());
    }
    note(name, file.bytes(), file.hash());
  }
  void add(const std::string& name, const std::string& content) {
    add(name, [&](FileWriter& file) { file.write(content); });
  }
  /// A file that stands there already.
  void note(const std::string& name, std::int64_t bytes, const std::string& hash) {
    files_.set(name, Json::object({{"bytes", bytes}, {"xxh3_128", hash}}));
  }
  void sync() const {
    sync_directory(folder_ / "training");
    sync_directory(folder_);
  }
  Json take_files() { return std::move(files_); }

 private:
  fs::path folder_;
  Json files_ = Json::object();
};

std::vector<std::vector<NamedTensor>> cut(const std::vector<NamedTensor>& weights, std::int64_t limit_bytes) {
  std::vector<std::vector<NamedTensor>> parts;
  std::int64_t part_bytes = 0;
  for (const NamedTensor& weight : weights) {
    if (parts.empty() || (part_bytes > 0 && part_bytes + weight.data.bytes() > limit_bytes)) {
      parts.emplace_back();
      part_bytes = 0;
    }
    parts.back().push_back(weight);
    part_bytes += weight.data.bytes();
  }
  return parts;
}

std::string numbered(const std::string& stem, std::size_t number, std::size_t count) {
  return count == 1 ? stem + ".safetensors" : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, number + 1, count);
}

/// What the ranks before this one, and all, have of something.
struct Share {
  std::size_t before = 0;
  std::size_t all = 0;
};

Share share_of(Communicator& team, std::size_t own) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(team.size()));
  const auto mine = static_cast<std::int64_t>(own);
  team.all_gather(view_of(counts.data(), DType::i64, {team.size()}), view_of(&mine, DType::i64, {1}));
  Share share;
  for (int rank = 0; rank < team.size(); ++rank) {
    const auto count = static_cast<std::size_t>(counts[static_cast<std::size_t>(rank)]);
    if (rank < team.rank()) share.before += count;
    share.all += count;
  }
  return share;
}

/// This rank's tensors; returns {"files": ..., "weights": {name: file}, "bytes": of weights}.
std::string write_own(const fs::path& path, const CheckpointContent& content,
                      const std::vector<std::vector<NamedTensor>>& parts, const Share& models,
                      const Share& optimizers) {
  FolderWriter folder(path);
  Json weights = Json::object();
  std::int64_t bytes = 0;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const std::string name = numbered("model", models.before + part, models.all);
    folder.add(name, [&](FileWriter& file) { write_safetensors(file, parts[part]); });
    for (const NamedTensor& weight : parts[part]) {
      weights.add(weight.name, name);
      bytes += weight.data.bytes();
    }
  }
  folder.add(numbered(kOptimizerStem, optimizers.before, optimizers.all),
             [&](FileWriter& file) { write_safetensors(file, content.optimizer); });
  folder.sync();
  return Json::object({{"weights", std::move(weights)}, {"bytes", bytes}, {"files", folder.take_files()}}).dump();
}

/// By the first rank, when the tensors are there: everything else, the manifest last.
void write_rest(const fs::path& path, const CheckpointContent& content, const std::vector<std::string>& told,
                std::size_t model_files) {
  FolderWriter folder(path);
  Json weights = Json::object();
  std::set<std::string> placed;
  std::int64_t bytes = 0;
  for (const std::string& text : told) {
    const Json part = parse_json(text, "what a rank wrote", ExitCode::bug);
    for (const auto& [name, file] : part.at("files").members()) {
      folder.note(name, file.at("bytes").count(), file.at("xxh3_128").text());
    }
    for (const auto& [weight, file] : part.at("weights").members()) {
      if (placed.insert(weight).second) weights.add(weight, file.text());
    }
    bytes += part.at("bytes").count();
  }
  if (model_files != 1) {
    const Json index =
        Json::object({{"metadata", Json::object({{"total_size", bytes}})}, {"weight_map", std::move(weights)}});
    folder.add("model.safetensors.index.json", index.dump(1));
  }
  for (const auto& [file, text] : content.files) folder.add(file, text);
  folder.add(kStateFile, content.state_json);
  const Json manifest = Json::object({{"schema", "shoestring.manifest/1"}, {"files", folder.take_files()}});
  FileWriter file(path / "manifest.json");
  file.write(manifest.dump(1));
  file.finish();
  folder.sync();
  if (const std::string damage = checkpoint_damage(path, Look::sizes); !damage.empty()) {
    fail(ExitCode::io, "{}: read back after writing, it is damaged: {}; look at the disk", path.string(), damage);
  }
}

}  // namespace

bool safe_manifest_name(const std::string& name) {
  constexpr std::string_view kFolder = "training/";
  return safe_name(name.starts_with(kFolder) ? name.substr(kFolder.size()) : name);
}

std::vector<std::string> on_every_rank(Communicator& team, const std::function<std::string()>& work) {
  std::string text;
  std::int64_t code = 0;
  try {
    text = work();
  } catch (const std::exception& exception) {
    const Error error = as_error(exception);
    text = error.what();
    code = static_cast<std::int64_t>(error.code());
  }
  std::vector<std::int64_t> codes(static_cast<std::size_t>(team.size()));
  team.all_gather(view_of(codes.data(), DType::i64, {team.size()}), view_of(&code, DType::i64, {1}));
  std::vector<std::string> texts;
  for (int rank = 0; rank < team.size(); ++rank) {
    texts.push_back(broadcast_text(team, rank == team.rank() ? text : "", rank));
    const std::int64_t theirs = codes[static_cast<std::size_t>(rank)];
    if (theirs != 0) throw Error(static_cast<ExitCode>(theirs), texts.back());
  }
  return texts;
}

void write_checkpoint(const fs::path& folder, const CheckpointContent& content, std::int64_t limit_bytes,
                      Communicator& team) {
  const std::vector<std::vector<NamedTensor>> parts = cut(content.weights, limit_bytes);
  const Share models = share_of(team, parts.size());
  const Share optimizers = share_of(team, 1);
  const std::vector<std::string> told =
      on_every_rank(team, [&] { return write_own(folder, content, parts, models, optimizers); });
  on_every_rank(team, [&] {
    if (team.rank() == 0) write_rest(folder, content, told, models.all);
    return std::string();
  });
}

}  // namespace shoestring
