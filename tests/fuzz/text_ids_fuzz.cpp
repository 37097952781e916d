// What the files of a model's folder say of the ids in and around texts: a line that names the file, then the file.
#include "core/generation/text_ids.h"

#include <map>

#include "data/chat_format.h"
#include "data/tokenizer_beside.h"
#include "data/tokenizer_file.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {
namespace {

/// As load_tokenizer_of_model takes them.
void read_beside(const std::string& settings, const std::string& encoder) {
  static const std::string file = byte_tokenizer()->companion_files()[0].second;
  std::vector<AddedToken> beside = tokens_beside(settings, encoder, "folder");
  std::erase_if(beside, [](const AddedToken& token) { return token.id >= 512; });
  if (beside.empty()) return;  // most inputs: the file below takes longer than all else
  const TokenizerFile read = read_tokenizer_file(file, "tokenizer.json", beside);
  for (const AddedToken& token : read.added) {
    if (token.id >= read.texts.size()) contradiction("a token beyond the tokenizer's");
  }
}

}  // namespace

void fuzz_one(Bytes bytes) {
  static const std::unique_ptr<Tokenizer> tokenizer = byte_tokenizer();
  bounded(bytes, [&] {
    const std::string_view all = text_of(bytes);
    const std::size_t end = std::min(all.find('\n'), all.size());
    std::map<std::string, std::string> files = {{"config.json", "{}"}};
    files[std::string(all.substr(0, end))] = all.substr(std::min(end + 1, all.size()));
    recognise_chat_format(files["chat_template.jinja"]);
    read_beside(files["tokenizer_config.json"], files["added_tokens.json"]);
    const TextIds ids = text_ids(*tokenizer, "folder", [&](const std::string& name) { return files[name]; });
    for (const std::vector<std::int32_t>& list : {ids.stop, ids.leading, std::vector{ids.prefix}}) {
      for (const std::int32_t id : list) {
        if (id < 0 || id >= static_cast<std::int32_t>(tokenizer->vocabulary_size()))
          contradiction("an id out of range");
      }
    }
  });
}

}  // namespace shoestring::fuzz
