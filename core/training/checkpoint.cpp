#include "core/training/checkpoint.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kPartial = ".partial_";
constexpr std::int64_t kSmallFileLimit = std::int64_t{64} << 20;
constexpr const char* kOptimizerFile = "training/optimizer.safetensors";
constexpr const char* kStateFile = "training/state.json";

bool safe_name(const std::string& name) {
  if (name.empty() || name.size() > 128 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
}

// "name" or "training/name".
bool safe_manifest_name(const std::string& name) {
  constexpr std::string_view kFolder = "training/";
  return safe_name(name.starts_with(kFolder) ? name.substr(kFolder.size()) : name);
}

// Writes files into one private folder and remembers what the manifest says of them.
class FolderWriter {
 public:
  explicit FolderWriter(fs::path folder) : folder_(std::move(folder)) {
    make_directories(folder_ / "training");
    manifest_["schema"] = "shoestring.manifest/1";
    manifest_["files"] = nlohmann::ordered_json::object();
  }

  void add(const std::string& name, const std::function<void(FileWriter&)>& write) {
    check(safe_manifest_name(name), "'{}' cannot be a checkpoint file's name", name);
    FileWriter file(folder_ / name);
    write(file);
    file.finish();
    manifest_["files"][name] = {{"bytes", file.bytes()}, {"xxh3_128", file.hash()}};
  }
  void add(const std::string& name, const std::string& content) {
    add(name, [&](FileWriter& file) { file.write(content); });
  }
  void finish() {
    FileWriter file(folder_ / "manifest.json");
    file.write(manifest_.dump(1));
    file.finish();
    sync_directory(folder_ / "training");
    sync_directory(folder_);
  }

 private:
  fs::path folder_;
  nlohmann::ordered_json manifest_;
};

void add_model(FolderWriter& folder, const std::vector<NamedTensor>& weights, std::int64_t limit_bytes) {
  std::vector<std::vector<NamedTensor>> parts(1);
  std::int64_t part_bytes = 0;
  std::int64_t total_bytes = 0;
  for (const NamedTensor& weight : weights) {
    if (part_bytes > 0 && part_bytes + weight.data.bytes() > limit_bytes) {
      parts.emplace_back();
      part_bytes = 0;
    }
    parts.back().push_back(weight);
    part_bytes += weight.data.bytes();
    total_bytes += weight.data.bytes();
  }
  if (parts.size() == 1) {
    folder.add("model.safetensors", [&](FileWriter& file) { write_safetensors(file, parts[0]); });
    return;
  }
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = total_bytes;
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", part + 1, parts.size());
    folder.add(name, [&](FileWriter& file) { write_safetensors(file, parts[part]); });
    for (const NamedTensor& weight : parts[part]) index["weight_map"][weight.name] = name;
  }
  folder.add("model.safetensors.index.json", index.dump(1));
}

std::int64_t step_of(const fs::path& checkpoint) {
  const std::string name = checkpoint.filename().string();
  if (!name.starts_with(kPrefix) || name.size() > 24) return -1;
  const std::string digits = name.substr(kPrefix.size());
  if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoll(digits);
}

nlohmann::json parse_json(const fs::path& path) {
  nlohmann::json value = nlohmann::json::parse(read_file(path, kSmallFileLimit), nullptr, false);
  if (value.is_discarded()) fail(ExitCode::corrupt_checkpoint, "{}: is not valid JSON", path.string());
  return value;
}

void remove_quietly(const fs::path& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

}  // namespace

std::string checkpoint_damage(const fs::path& checkpoint) {
  try {
    const nlohmann::json manifest = parse_json(checkpoint / "manifest.json");
    if (!manifest.is_object() || manifest.value("schema", "") != "shoestring.manifest/1" ||
        !manifest.contains("files") || !manifest["files"].is_object() || !manifest["files"].contains(kStateFile)) {
      return "manifest.json: is not a manifest of schema shoestring.manifest/1";
    }
    for (const auto& [name, entry] : manifest["files"].items()) {
      if (!safe_manifest_name(name) || !entry.is_object() || !entry.contains("bytes") ||
          !entry["bytes"].is_number_unsigned() || !entry.contains("xxh3_128") || !entry["xxh3_128"].is_string()) {
        return fmt::format("manifest.json: the entry of '{}' is malformed", name.substr(0, 128));
      }
      const fs::path path = checkpoint / name;
      const FileHandle file = open_for_reading(path);
      const std::int64_t bytes = file_bytes(file, path);
      if (static_cast<std::uint64_t>(bytes) != entry["bytes"].get<std::uint64_t>()) {
        return fmt::format("{}: {} bytes, the manifest says {}", name, bytes, entry["bytes"].get<std::uint64_t>());
      }
      if (hash_file(path) != entry["xxh3_128"].get<std::string>()) {
        return fmt::format("{}: its content does not match the hash in the manifest", name);
      }
    }
  } catch (const Error& error) {
    return error.what();
  } catch (const nlohmann::json::exception& error) {
    return fmt::format("manifest.json: {}", error.what());
  }
  return {};
}

CheckpointStore::CheckpointStore(fs::path root, std::int64_t model_file_limit_bytes)
    : root_(std::move(root)), model_file_limit_bytes_(model_file_limit_bytes) {}

fs::path CheckpointStore::save(std::int64_t step, const CheckpointContent& content, int keep) {
  make_directories(root_);
  std::error_code ignored;
  for (const fs::directory_entry& entry : fs::directory_iterator(root_, ignored)) {
    if (entry.path().filename().string().starts_with(kPartial)) remove_quietly(entry.path());
  }
  const std::string name = fmt::format("{}{:08}", kPrefix, step);
  const fs::path partial = root_ / fmt::format("{}{}", kPartial, name);
  const fs::path committed = root_ / name;
  if (fs::exists(committed) && checkpoint_damage(committed).empty()) return committed;  // this step is safe already
  try {
    FolderWriter folder(partial);
    for (const auto& [file, text] : content.files) folder.add(file, text);
    add_model(folder, content.weights, model_file_limit_bytes_);
    folder.add(kOptimizerFile, [&](FileWriter& file) { write_safetensors(file, content.optimizer); });
    folder.add(kStateFile, content.state_json);
    folder.finish();
    if (const std::string damage = checkpoint_damage(partial); !damage.empty()) {
      fail(ExitCode::io, "{}: read back after writing, it is damaged: {}", partial.string(), damage);
    }
    if (fs::exists(committed)) remove_quietly(committed);  // damaged: it was passed over at the start
    rename_durably(partial, committed);
  } catch (...) {
    remove_quietly(partial);
    throw;
  }
  replace_file(root_ / "latest", name + "\n");
  // Folders of later steps were passed over as damaged: nobody will read them, and none may take the place of a sound
  // one.
  int place = 0;
  for (const fs::path& checkpoint : all()) {
    if (step_of(checkpoint) > step || ++place > std::max(1, keep)) remove_quietly(checkpoint);
  }
  return committed;
}

std::vector<fs::path> CheckpointStore::all() const {
  std::vector<fs::path> found;
  std::error_code missing;
  for (const fs::directory_entry& entry : fs::directory_iterator(root_, missing)) {
    if (entry.is_directory() && !entry.is_symlink() && step_of(entry.path()) >= 0) found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return step_of(a) > step_of(b); });
  return found;
}

std::optional<fs::path> CheckpointStore::newest(const CheckpointNotice& notice) const {
  const std::vector<fs::path> have = all();
  for (const fs::path& checkpoint : have) {
    const std::string damage = checkpoint_damage(checkpoint);
    if (damage.empty()) return checkpoint;
    notice(fmt::format("{}: damaged, passed over: {}", checkpoint.string(), damage));
  }
  if (!have.empty()) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: every checkpoint is damaged ({}); restore one from a copy, or move the run "
         "directory away to begin anew",
         root_.string(), have.size());
  }
  return std::nullopt;
}

CheckpointReader::CheckpointReader(fs::path checkpoint) : checkpoint_(std::move(checkpoint)) {
  const fs::path index_path = checkpoint_ / "model.safetensors.index.json";
  if (!fs::exists(index_path)) {
    model_.emplace_back(checkpoint_ / "model.safetensors");
  } else {
    const nlohmann::json index = parse_json(index_path);
    if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
      fail(ExitCode::corrupt_checkpoint, "{}: has no weight_map", index_path.string());
    }
    std::set<std::string> names;
    for (const auto& [weight, file] : index["weight_map"].items()) {
      if (!file.is_string() || !safe_name(file.get<std::string>())) {
        fail(ExitCode::corrupt_checkpoint, "{}: names an unsafe file for {}", index_path.string(), weight);
      }
      names.insert(file.get<std::string>());
    }
    for (const std::string& name : names) model_.emplace_back(checkpoint_ / name);
  }
  if (fs::exists(checkpoint_ / kOptimizerFile)) optimizer_.emplace(checkpoint_ / kOptimizerFile);
}

bool CheckpointReader::holds_weight(const std::string& name) const {
  return std::any_of(model_.begin(), model_.end(), [&](const SafetensorsFile& file) { return file.holds(name); });
}

void CheckpointReader::read_weight(const std::string& name, TensorView to) const {
  for (const SafetensorsFile& file : model_) {
    if (file.holds(name)) return file.read(name, to);
  }
  fail(ExitCode::corrupt_checkpoint, "{}: tensor {} is missing", checkpoint_.string(), name);
}

void CheckpointReader::read_optimizer(const std::string& name, TensorView to) const {
  if (!optimizer_) fail(ExitCode::corrupt_checkpoint, "{}: has no {}", checkpoint_.string(), kOptimizerFile);
  optimizer_->read(name, to);
}

std::string CheckpointReader::state_json() const { return read_file(checkpoint_ / kStateFile, kSmallFileLimit); }
std::string CheckpointReader::file(const std::string& name) const {
  return read_file(checkpoint_ / name, kSmallFileLimit);
}

}  // namespace shoestring
