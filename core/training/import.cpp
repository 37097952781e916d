#include "core/training/import.h"

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFileBytesLimit = std::int64_t{64} << 20;

}  // namespace

Import::Import(const fs::path& folder, const Transformer& model)
    : folder_(folder), plan_(plan_import(folder_, model)) {}

Import::Read Import::run(const TellProgress& tell) const {
  const auto telling = [&](const char* doing) {
    return [&tell, doing](std::int64_t done, std::int64_t all) {
      if (tell) tell({.doing = doing, .done_bytes = done, .all_bytes = all});
    };
  };
  import_weights(plan_, telling("reading weights"));
  std::string licence;
  for (const auto& [name, content] : folder_.companions()) {
    if (name.starts_with("LICEN")) licence += fmt::format("; {} {}", name, content_hash(content));
  }
  std::string passed;
  if (!plan_.passed_over.empty()) {
    passed = fmt::format("; passed over {} and such, {} tensors", plan_.passed_over.front(), plan_.passed_over.size());
  }
  const std::string hash = folder_.hash(telling("taking the hash of the weights"));
  return {fmt::format("{}, hash {}; {} weights: {}{}{}", fs::absolute(folder_.path()).lexically_normal().string(), hash,
                      plan_.pieces.size(), formats_of(plan_), licence.empty() ? "; no licence file" : licence, passed),
          hash};
}

ModelFiles Import::files() const {
  ModelFiles files = folder_.companions();
  files.emplace_back("config.json", read_file(folder_.path() / "config.json", kFileBytesLimit));
  return files;
}

void Import::check_tokenizer(const Tokenizer& tokenizer) const {
  const fs::path file = find_tokenizer(folder_.path());
  if (file.empty() || load_tokenizer(file)->hash() == tokenizer.hash()) return;
  fail(ExitCode::bad_data,
       "{}: the model's tokenizer is not that of the data ({} here, {} there): its ids would mean other words; build "
       "the shards with it (data build --tokenizer {})",
       file.string(), load_tokenizer(file)->hash(), tokenizer.hash(), file.string());
}

void keep_source(const fs::path& place, const ModelFiles& files) {
  make_directories(place);
  for (const auto& [name, content] : files) {
    remove_abandoned(place / name);  // kept_source would take it for one of them
    replace_file(place / name, content);
  }
}

ModelFiles kept_source(const fs::path& place) {
  ModelFiles files;
  if (type_of(place) != fs::file_type::directory) return files;
  for (const fs::path& entry : list_directory(place)) {
    files.emplace_back(entry.filename().string(), read_file(entry, kFileBytesLimit));
  }
  return files;
}

}  // namespace shoestring
