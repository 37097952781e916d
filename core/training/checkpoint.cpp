#include "core/training/checkpoint.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "core/training/checkpoint_writer.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/presence.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "step_";
constexpr std::string_view kPartial = ".partial_";
constexpr const char* kLatest = "latest";
constexpr char kPartMark = '#';
constexpr std::int64_t kSmallFileLimit = std::int64_t{64} << 20;

bool safe_name(const std::string& name) {
  if (name.empty() || name.size() > 128 || name == "." || name == "..") return false;
  return std::all_of(name.begin(), name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
}

Json read_json(const fs::path& path) {
  try {
    return parse_json(read_file(path, kSmallFileLimit), path.string(), ExitCode::corrupt_checkpoint);
  } catch (const Error& error) {
    if (error.code() != ExitCode::corrupt_checkpoint) throw;
    fail(ExitCode::corrupt_checkpoint, "{}; restore a copy, or remove the step to go back to an earlier one",
         error.what());
  }
}

/// The value of a key where that is an object.
const Json* object_at(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  return value != nullptr && value->is_object() ? value : nullptr;
}

void discard(const fs::path& folder, const CheckpointNotice& notice) {
  std::error_code error;
  fs::remove_all(folder, error);
  if (error) notice(fmt::format("{}: cannot be removed: {}; remove it by hand", folder.string(), error.message()));
}

// What interrupted saves left behind. A save does not depend on it.
void sweep(const fs::path& root, const CheckpointNotice& notice) {
  try {
    for (const fs::path& entry : list_directory(root)) {
      if (entry.filename().string().starts_with(kPartial)) discard(entry, notice);
    }
    remove_abandoned(root / kLatest);
  } catch (const Error& error) {
    notice(error.what());
  }
}

// "a link to ELSEWHERE that leads nowhere".
std::string dead_link(const fs::path& link) {
  std::error_code error;
  return fmt::format("a link to {} that leads nowhere", fs::read_symlink(link, error).string());
}

}  // namespace

std::int64_t step_of(const fs::path& checkpoint) {
  const std::string name = checkpoint.filename().string();
  if (!name.starts_with(kPrefix) || name.size() > 22) return -1;  // 17 digits fit
  const std::string digits = name.substr(kPrefix.size());
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) return -1;
  return std::stoll(digits);
}

std::string checkpoint_damage(const fs::path& checkpoint, Look look, const Between& between) {
  try {
    const Json manifest = read_json(checkpoint / "manifest.json");
    const Json* schema = manifest.find("schema");
    const Json* files = object_at(manifest, "files");
    if (schema == nullptr || !schema->is_text() || schema->text() != "shoestring.manifest/1" || files == nullptr ||
        files->find(kStateFile) == nullptr) {
      return "manifest.json: is not a manifest of schema shoestring.manifest/1";
    }
    for (const auto& [name, entry] : files->members()) {
      const Json* said_bytes = entry.find("bytes");
      const Json* hash = entry.find("xxh3_128");
      if (!safe_manifest_name(name) || said_bytes == nullptr || !said_bytes->is_count() || hash == nullptr ||
          !hash->is_text()) {
        return fmt::format("manifest.json: the entry of '{}' is malformed", name.substr(0, 128));
      }
      const fs::path path = checkpoint / name;
      const FileHandle file = open_for_reading(path);
      const std::int64_t bytes = file_bytes(file, path);
      if (bytes != said_bytes->count()) {
        return fmt::format("{}: {} bytes, the manifest says {}", name, bytes, said_bytes->count());
      }
      if (look == Look::content && hash_file(path, between) != hash->text()) {
        return fmt::format("{}: its content does not match the hash in the manifest", name);
      }
    }
  } catch (const Error& error) {
    if (error.code() == ExitCode::io || error.code() == ExitCode::preempted) throw;
    return error.what();
  }
  return {};
}

CheckpointStore::CheckpointStore(fs::path root, std::int64_t model_file_limit_bytes)
    : root_(std::move(root)), model_file_limit_bytes_(model_file_limit_bytes) {}

fs::path CheckpointStore::save(std::int64_t step, const CheckpointContent& content, int keep,
                               const CheckpointNotice& notice) {
  return save(step, content, keep, notice, *self_communicator());
}

// The first rank looks before and commits after; in between all write.
fs::path CheckpointStore::save(std::int64_t step, const CheckpointContent& content, int keep,
                               const CheckpointNotice& notice, Communicator& team) {
  const std::string name = fmt::format("{}{:08}", kPrefix, step);
  const fs::path partial = root_ / fmt::format("{}{}", kPartial, name);
  const fs::path committed = root_ / name;
  const bool leads = team.rank() == 0;
  const auto look = [&]() -> std::string {
    if (!leads) return {};
    make_directories(root_);
    sweep(root_, notice);
    const bool there = type_of(committed) != fs::file_type::not_found;
    return there && checkpoint_damage(committed).empty() ? "safe already" : "";
  };
  if (!on_every_rank(team, look).front().empty()) return committed;
  try {
    write_checkpoint(partial, content, model_file_limit_bytes_, team);
    on_every_rank(team, [&] {
      if (leads) commit(partial, committed, notice);
      return std::string();
    });
  } catch (...) {
    if (leads) discard(partial, [](const std::string&) {});  // the error under way is what matters
    throw;
  }
  if (!leads) return committed;
  replace_file(root_ / kLatest, name + "\n");
  make_room(step, keep, notice);
  return committed;
}

void CheckpointStore::commit(const fs::path& partial, const fs::path& committed, const CheckpointNotice& notice) const {
  const bool there = type_of(committed) != fs::file_type::not_found;
  if (there) discard(committed, notice);  // damaged: it was passed over at the start
  rename_durably(partial, committed);
}

// Folders of later steps were passed over as damaged: nobody will read them, and none may take the place of a sound
// one. What was committed stays committed, whatever hinders this.
void CheckpointStore::make_room(std::int64_t step, int keep, const CheckpointNotice& notice) const {
  try {
    int place = 0;
    for (const fs::path& checkpoint : all()) {
      const std::int64_t its_step = step_of(checkpoint);
      const bool later = its_step > step;
      if (!later) ++place;
      const bool spared = std::find(spared_.begin(), spared_.end(), its_step) != spared_.end();
      if (later || (place > std::max(1, keep) && !spared)) discard(checkpoint, notice);
    }
  } catch (const Error& error) {
    notice(fmt::format("older checkpoints stay where they are: {}", error.what()));
  }
}

fs::path CheckpointStore::folder_of(std::int64_t step) const { return root_ / fmt::format("step_{:08}", step); }

std::vector<fs::path> CheckpointStore::named() const {
  std::vector<fs::path> found;
  const fs::file_type type = type_of(root_);
  if (type == fs::file_type::not_found && !fs::is_symlink(root_)) return found;
  if (type != fs::file_type::directory) {
    fail(ExitCode::missing_input, "{}: is {}; checkpoints are kept in a folder of this name, or behind a link to one",
         root_.string(), type == fs::file_type::not_found ? dead_link(root_) : "no folder");
  }
  for (const fs::path& entry : list_directory(root_)) {
    if (step_of(entry) >= 0) found.push_back(entry);
  }
  std::sort(found.begin(), found.end(), [](const fs::path& a, const fs::path& b) { return step_of(a) > step_of(b); });
  return found;
}

std::vector<fs::path> CheckpointStore::all() const {
  std::vector<fs::path> found = named();
  std::erase_if(found, [](const fs::path& path) { return type_of(path) != fs::file_type::directory; });
  return found;
}

std::vector<UnseenCheckpoint> CheckpointStore::unseen() const {
  std::vector<UnseenCheckpoint> found;
  for (const fs::path& path : named()) {
    const fs::file_type type = type_of(path);
    if (type == fs::file_type::directory) continue;
    const bool dead = type == fs::file_type::not_found;
    found.push_back({path, dead, dead ? dead_link(path) : "no folder"});
  }
  return found;
}

std::string damage_of(const fs::path& checkpoint, Look look, const Between& between) {
  try {
    return checkpoint_damage(checkpoint, look, between);
  } catch (const Error& error) {
    if (error.code() == ExitCode::preempted) throw;
    fail(ExitCode::io,
         "{}\nwhether {} is sound cannot be told, and an older checkpoint is not taken in its place: see to it that it "
         "can be read (rights, limits of the process, the disk)",
         error.what(), checkpoint.string());
  }
}

std::optional<fs::path> CheckpointStore::newest(const CheckpointNotice& notice, const Between& between) const {
  const std::vector<fs::path> have = all();
  for (const UnseenCheckpoint& hidden : unseen()) {
    if (!have.empty() && step_of(hidden.path) < step_of(have.front())) continue;
    if (hidden.dead_link) {
      fail(ExitCode::missing_input,
           "{}: is {}; put back what it led to (is a disk not mounted?), or move it away to do without it",
           hidden.path.string(), hidden.why);
    }
    notice(fmt::format("{}: is {}, passed over", hidden.path.string(), hidden.why));
  }
  for (const fs::path& checkpoint : have) {
    const std::string damage = damage_of(checkpoint, Look::content, between);
    if (damage.empty()) return checkpoint;
    notice(fmt::format("{}: damaged, passed over: {}", checkpoint.string(), damage));
  }
  if (!have.empty()) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: every checkpoint there is damaged ({}); restore one from a copy, or have `shoestring train` begin anew "
         "with --begin-anew, which moves the run directory aside",
         root_.string(), have.size());
  }
  return std::nullopt;
}

fs::path model_folder_of(const fs::path& place, const CheckpointNotice& notice) {
  if (is_present(place / "config.json")) return place;
  if (!is_present(place)) {
    fail(ExitCode::missing_input, "{}: there is no such run or model folder", place.string());
  }
  const auto newest = CheckpointStore(place / "checkpoints").newest(notice);
  if (!newest) {
    fail(ExitCode::missing_input, "{}: is neither a model folder nor a run with a checkpoint", place.string());
  }
  return *newest;
}

CheckpointReader::CheckpointReader(fs::path checkpoint) : checkpoint_(std::move(checkpoint)) {
  const fs::path index_path = checkpoint_ / "model.safetensors.index.json";
  if (type_of(index_path) == fs::file_type::not_found) {
    model_.emplace_back(checkpoint_ / "model.safetensors");
  } else {
    const Json index = read_json(index_path);
    const Json* weights = object_at(index, "weight_map");
    if (weights == nullptr) {
      fail(ExitCode::corrupt_checkpoint,
           "{}: has no weight_map; restore a copy, or remove the step to go back to an earlier one",
           index_path.string());
    }
    std::set<std::string> names;
    for (const auto& [weight, file] : weights->members()) {
      if (!file.is_text() || !safe_name(file.text())) {
        fail(ExitCode::corrupt_checkpoint, "{}: names a file outside of the checkpoint for {}; restore a copy",
             index_path.string(), weight);
      }
      names.insert(file.text());
    }
    for (const std::string& name : names) model_.emplace_back(checkpoint_ / name);
  }
  const fs::path whole = checkpoint_ / fmt::format("{}.safetensors", kOptimizerStem);
  if (type_of(whole) != fs::file_type::not_found) {
    optimizer_.emplace_back(whole);
  } else if (type_of(checkpoint_ / "manifest.json") != fs::file_type::not_found) {
    const Json manifest = read_json(checkpoint_ / "manifest.json");
    const std::string stem = fmt::format("{}-", kOptimizerStem);
    const Json* files = object_at(manifest, "files");
    if (files == nullptr) return;
    for (const auto& [name, entry] : files->members()) {
      if (name.starts_with(stem) && safe_manifest_name(name)) optimizer_.emplace_back(checkpoint_ / name);
    }
  }
  index_parts();
}

bool CheckpointReader::holds_weight(const std::string& name) const {
  return std::any_of(model_.begin(), model_.end(), [&](const SafetensorsFile& file) { return file.holds(name); });
}

void CheckpointReader::read_weight(const std::string& name, TensorView to) const {
  for (const SafetensorsFile& file : model_) {
    if (file.holds(name)) return file.read(name, to);
  }
  fail(ExitCode::corrupt_checkpoint,
       "{}: tensor {} is missing; restore a copy, or remove the step to go back to an earlier one",
       checkpoint_.string(), name);
}

// A name that is no tensor's part is a tensor of its own; what does not fit together is found when it is read.
void CheckpointReader::index_parts() {
  for (const SafetensorsFile& file : optimizer_) {
    for (const auto& [name, entry] : file.entries()) {
      const std::size_t mark = name.rfind(kPartMark);
      StoredPart stored{&file, &entry, 0, entry.shape.elements()};
      std::string tensor = name;
      if (mark != std::string::npos) {
        const char* const end = name.data() + name.size();
        const auto [stop, error] = std::from_chars(name.data() + mark + 1, end, stored.begin);
        if (error != std::errc{} || stop != end || stored.begin < 0) {
          fail(ExitCode::corrupt_checkpoint,
               "{}: {} names no part of a tensor; restore a copy, or remove the step to go back to an earlier one",
               file.path().string(), name);
        }
        tensor = name.substr(0, mark);
      }
      parts_[tensor].push_back(stored);
    }
  }
  for (auto& [tensor, parts] : parts_) std::ranges::sort(parts, {}, &StoredPart::begin);
}

void CheckpointReader::read_optimizer(const std::string& name, std::int64_t begin, bool part, TensorView to) const {
  if (optimizer_.empty()) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: has no {}.safetensors; restore a copy, or remove the step to go back to an earlier one",
         checkpoint_.string(), kOptimizerStem);
  }
  const auto found = parts_.find(name);
  if (found == parts_.end()) return optimizer_.front().read(name, to);  // says that it is not there
  const std::vector<StoredPart>& parts = found->second;
  if (!part && parts.size() == 1 && parts.front().file->holds(name)) return parts.front().file->read(name, to);
  const std::int64_t end = begin + to.elements();
  const std::int64_t size = size_bytes(to.dtype);
  std::int64_t at = begin;
  for (const StoredPart& stored : parts) {
    if (at == end || stored.begin > at) break;
    const std::int64_t from = at - stored.begin;
    if (from >= stored.elements) continue;
    if (stored.entry->dtype != to.dtype) {
      fail(ExitCode::corrupt_checkpoint, "{}: {} is {}, not {}", stored.file->path().string(), name,
           stored.entry->format, shoestring::name(to.dtype));
    }
    const std::int64_t count = std::min(stored.elements - from, end - at);
    stored.file->read_bytes(stored.entry->begin + from * size, static_cast<char*>(to.data) + (at - begin) * size,
                            count * size);
    at += count;
  }
  if (at != end) {
    fail(ExitCode::corrupt_checkpoint,
         "{}: of {} the elements from {} on are missing; restore a copy, or remove the step to go back to an earlier "
         "one",
         checkpoint_.string(), name, at);
  }
}

std::string part_name(const std::string& tensor, std::int64_t begin) {
  return fmt::format("{}{}{}", tensor, kPartMark, begin);
}

std::string CheckpointReader::state_json() const { return read_file(checkpoint_ / kStateFile, kSmallFileLimit); }
std::string CheckpointReader::file(const std::string& name) const {
  return read_file(checkpoint_ / name, kSmallFileLimit);
}

}  // namespace shoestring
