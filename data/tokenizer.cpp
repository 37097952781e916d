#include "data/tokenizer.h"

#include <array>
#include <nlohmann/json.hpp>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {

std::unique_ptr<Tokenizer> sentencepiece_tokenizer(std::string model,
                                                   const std::string& where);  // tokenizer_sentencepiece.cpp

namespace {

constexpr std::string_view kByteFile = "byte_tokenizer.json";
constexpr std::string_view kByteContent = "{\"schema\": \"shoestring.byte_tokenizer/1\"}\n";
constexpr std::array<std::string_view, 2> kFileNames = {"tokenizer.model", kByteFile};
constexpr std::int64_t kFileLimit = std::int64_t{256} << 20;

using Json = nlohmann::ordered_json;

// Ids 0..255 are the bytes; then the special ids, in this order.
constexpr std::array<const char*, 4> kSpecialTexts = {"</s>", "<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"};

// The character that stands for a byte where a vocabulary must be text, as GPT-2's does it: printable Latin-1 for
// itself, the other bytes in turn for the characters from U+0100 on. All take one or two bytes of UTF-8.
std::array<std::string, 256> byte_characters() {
  std::array<std::string, 256> characters;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
    const int code = printable ? byte : next++;
    std::string& character = characters[static_cast<std::size_t>(byte)];
    if (code >= 0x80) character.push_back(static_cast<char>(0xc0 | code >> 6));
    character.push_back(static_cast<char>(code < 0x80 ? code : 0x80 | (code & 0x3f)));
  }
  return characters;
}

// The same tokenizer in the form of the library `tokenizers`: byte-level BPE without merges.
std::string tokenizers_file() {
  Json vocabulary = Json::object();
  const std::array<std::string, 256> characters = byte_characters();
  for (std::size_t byte = 0; byte < characters.size(); ++byte) vocabulary[characters[byte]] = byte;
  Json added = Json::array();
  for (std::size_t i = 0; i < kSpecialTexts.size(); ++i) {
    added.push_back({{"id", characters.size() + i},
                     {"content", kSpecialTexts[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const Json file = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", byte_level},
      {"post_processor", nullptr},
      {"decoder", byte_level},
      {"model", {{"type", "BPE"}, {"unk_token", nullptr}, {"vocab", vocabulary}, {"merges", Json::array()}}}};
  return file.dump(1) + "\n";
}

class ByteTokenizer : public Tokenizer {
 public:
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    for (const char byte : text) ids.push_back(static_cast<std::uint8_t>(byte));
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= kSize) fail(ExitCode::bad_data, "token id {} is outside the vocabulary of {}", id, kSize);
      if (id < 256) text.push_back(static_cast<char>(id));
    }
    return text;
  }
  std::uint32_t vocabulary_size() const override { return kSize; }
  SpecialIds special() const override { return {256, 257, 258, 259}; }
  const std::string& file_name() const override { return name_; }
  const std::string& file_content() const override { return content_; }
  std::vector<std::pair<std::string, std::string>> companion_files() const override {
    const Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                         {"eos_token", kSpecialTexts[0]},
                         {"clean_up_tokenization_spaces", false}};
    return {{"tokenizer.json", tokenizers_file()}, {"tokenizer_config.json", config.dump(1) + "\n"}};
  }

 private:
  static constexpr std::int32_t kSize = 256 + static_cast<std::int32_t>(kSpecialTexts.size());
  std::string name_{kByteFile};
  std::string content_{kByteContent};
};

}  // namespace

std::string Tokenizer::hash() const { return content_hash(file_content()); }

std::unique_ptr<Tokenizer> byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::unique_ptr<Tokenizer> tokenizer_from(std::string content, const std::string& where) {
  if (content == kByteContent) return byte_tokenizer();
  return sentencepiece_tokenizer(std::move(content), where);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& file) {
  return tokenizer_from(read_file(file, kFileLimit), file.string());
}

std::filesystem::path find_tokenizer(const std::filesystem::path& folder) {
  for (const std::string_view name : kFileNames) {
    const std::filesystem::path file = folder / name;
    if (std::filesystem::is_regular_file(file)) return file;
  }
  return {};
}

}  // namespace shoestring
