#include "core/training/import_folder.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "core/model/accounting.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/presence.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kConfigBytesLimit = 1 << 20;
constexpr std::int64_t kIndexBytesLimit = std::int64_t{64} << 20;
constexpr std::int64_t kCompanionBytesLimit = std::int64_t{64} << 20;
constexpr std::size_t kMostFiles = 4096;
constexpr std::size_t kMostTensors = 1'000'000;
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kAdapter = "adapter_config.json";

/// What is copied along; a prefix each.
constexpr std::array<std::string_view, 13> kCompanions = {
    "LICENSE",      "LICENCE",        "NOTICE",        "USE_POLICY", "tokenizer",         "vocab",         "merges.txt",
    "added_tokens", "special_tokens", "chat_template", "spiece",     "generation_config", "byte_tokenizer"};

/// A name of a file in this folder, and of nothing else.
bool plain_name(const std::string& name) {
  if (name.empty() || name.size() > 128 || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
}

/// From tensor to file name, as the index has it.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json index = parse_json(read_file(path, kIndexBytesLimit), path.string(), ExitCode::bad_data,
                                {.bytes = static_cast<std::size_t>(kIndexBytesLimit), .depth = 8});
  const Json* map = index.find("weight_map");
  if (map == nullptr || !map->is_object())
    fail(ExitCode::bad_data, "{}: has no weight_map; copy the file again", path.string());
  if (map->size() > kMostTensors)
    fail(ExitCode::bad_data, "{}: names {} tensors, more than any model that fits here may have", path.string(),
         map->size());
  std::map<std::string, std::string> found;
  for (const Json::Member& member : map->members()) {
    if (!member.value.is_text() || !plain_name(member.value.text())) {
      fail(ExitCode::bad_data, "{}: the file of {} is no file of this folder, as it must be: {}", path.string(),
           member.key.substr(0, 128), member.value.dump().substr(0, 128));
    }
    found.emplace(member.key, member.value.text());
  }
  return found;
}

}  // namespace

ImportFolder::ImportFolder(fs::path folder) : path_(std::move(folder)) {
  if (type_of(path_ / kAdapter) != fs::file_type::not_found) {
    fail(ExitCode::bad_data,
         "{}: holds {}: with it the folder means other weights, of an adapter that is not read here; merge the adapter "
         "into the weights, or move that file away",
         path_.string(), kAdapter);
  }
  const fs::path config = path_ / "config.json";
  const std::string text = read_file(config, kConfigBytesLimit);
  try {
    config_ = read_hugging_face_config(text);
    facts_ = read_hugging_face_facts(text);
  } catch (const Error& error) {
    fail(error.code(), "{}: {}", path_.string(), error.what());
  }
  open_files();
  // What transformers loads and saves again has lost it, whatever config.json says.
  if (find(fmt::format("model.layers.{}.enorm.weight", config_.layers)).file == nullptr) config_.mtp_layers = 0;
  check_sizes();
}

void ImportFolder::open_files() {
  std::map<std::string, std::string> index;
  std::set<std::string> names;
  const bool indexed = is_present(path_ / kIndex);
  if (indexed) {
    index = read_index(path_ / kIndex);
    for (const auto& [tensor, file] : index) names.insert(file);
    if (names != std::set<std::string>{kSingle} && type_of(path_ / kSingle) != fs::file_type::not_found) {
      fail(ExitCode::bad_data,
           "{}: holds a {} and an {} of other files, of which transformers takes the former; move away the one that is "
           "not the model's",
           path_.string(), kSingle, kIndex);
    }
  } else {
    names.insert(kSingle);
  }
  if (names.size() > kMostFiles)
    fail(ExitCode::bad_data, "{}: names {} files, more than a model may have", (path_ / kIndex).string(), names.size());
  for (const std::string& name : names) {
    const fs::path path = path_ / name;
    files_.push_back(std::make_unique<SafetensorsFile>(path, ExitCode::bad_data));
    for (const auto& [tensor, entry] : files_.back()->entries()) {
      const auto said = index.find(tensor);
      if (indexed && (said == index.end() || said->second != name)) {
        fail(ExitCode::bad_data, "{}: holds {}, which {} {}; copy both again", path.string(), tensor,
             (path_ / kIndex).string(), said == index.end() ? "does not name" : "says is in " + said->second);
      }
      tensors_.emplace(tensor, Place{files_.back().get(), &entry});
    }
    if (tensors_.size() > kMostTensors)
      fail(ExitCode::bad_data, "{}: more than {} tensors", path_.string(), kMostTensors);
  }
  for (const auto& [tensor, file] : index) {
    if (!tensors_.contains(tensor)) {
      fail(ExitCode::bad_data, "{}: {} is not in {}, which should hold it; copy both again", (path_ / kIndex).string(),
           tensor, file);
    }
  }
}

// Before memory is taken for what config.json says: each weight has a byte at least.
void ImportFolder::check_sizes() const {
  std::int64_t bytes = 0;
  for (const auto& [name, place] : tensors_) bytes += place.entry->bytes;
  const std::int64_t parameters = count_parameters(config_).total;
  if (parameters > bytes) {
    fail(ExitCode::bad_data,
         "{}: config.json describes {} parameters, but the safetensors files hold {} bytes: they belong to different "
         "models or are cut short; copy them again",
         path_.string(), parameters, bytes);
  }
}

ImportFolder::Place ImportFolder::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? Place{} : found->second;
}

std::vector<std::pair<std::string, std::string>> ImportFolder::companions() const {
  std::vector<std::pair<std::string, std::string>> found;
  for (const fs::path& entry : list_directory(path_)) {
    const std::string name = entry.filename().string();
    const bool wanted = std::any_of(kCompanions.begin(), kCompanions.end(),
                                    [&](std::string_view prefix) { return name.starts_with(prefix); });
    if (!wanted || !plain_name(name) || !is_present(entry) || type_of(entry) != fs::file_type::regular) continue;
    found.emplace_back(name, read_file(entry, kCompanionBytesLimit));
    if (found.back().second.empty() && entry.extension() == ".json") {
      fail(ExitCode::bad_data, "{}: is empty; copy it again, or remove it", entry.string());
    }
  }
  return found;
}

std::string ImportFolder::hash(const std::function<void(std::int64_t, std::int64_t)>& progress) const {
  std::int64_t done = 0, all = 0;
  for (const auto& file : files_) all += static_cast<std::int64_t>(fs::file_size(file->path()));
  std::string names = fmt::format("config.json {}\n", hash_file(path_ / "config.json"));
  const auto tell = [&] {
    if (progress) progress(done, all);
  };
  for (const auto& file : files_) {
    names += fmt::format("{} {}\n", file->path().filename().string(), hash_file(file->path(), tell));
    done += static_cast<std::int64_t>(fs::file_size(file->path()));
    tell();
  }
  for (const auto& [name, content] : companions()) names += fmt::format("{} {}\n", name, content_hash(content));
  return content_hash(names);
}

}  // namespace shoestring
