#include "data/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "data/tokenizer_added.h"
#include "data/tokenizer_beside.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"
#include "kernels/base/presence.h"

namespace shoestring {

std::unique_ptr<Tokenizer> sentencepiece_tokenizer(std::string model,
                                                   const std::string& where);  // tokenizer_sentencepiece.cpp
std::unique_ptr<Tokenizer> byte_level_tokenizer(std::string content, const std::string& where,
                                                std::span<const AddedToken> beside);  // tokenizer_byte_level.cpp

namespace {

constexpr std::string_view kByteFile = "byte_tokenizer.json";
constexpr std::string_view kByteContent = "{\"schema\": \"shoestring.byte_tokenizer/1\"}\n";
// A checkpoint holds a tokenizer.json beside the first two as well.
constexpr std::array<std::string_view, 3> kFileNames = {"tokenizer.model", kByteFile, "tokenizer.json"};
constexpr std::int64_t kFileLimit = std::int64_t{256} << 20;

// Ids 0..255 are the bytes; then the special ids, in this order.
constexpr std::array<const char*, 4> kSpecialTexts = {"</s>", "<|fim_begin|>", "<|fim_hole|>", "<|fim_end|>"};

std::vector<AddedToken> special_tokens() {
  std::vector<AddedToken> tokens;
  for (const char* text : kSpecialTexts) {
    tokens.push_back({.id = 256 + static_cast<std::uint32_t>(tokens.size()), .content = text, .special = true});
  }
  return tokens;
}

class ByteTokenizer : public Tokenizer {
 public:
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    for (const char byte : text) ids.push_back(static_cast<std::uint8_t>(byte));
  }
  void encode_prompt(std::string_view text, std::vector<std::uint32_t>& ids) const override {
    encode_with_added(*this, text, specials_, ids);
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
  std::int32_t control_id(std::string_view content) const override {
    const auto found = std::find(kSpecialTexts.begin(), kSpecialTexts.end(), content);
    return found == kSpecialTexts.end() ? -1 : 256 + static_cast<std::int32_t>(found - kSpecialTexts.begin());
  }
  std::string control_text(std::int32_t id) const override {
    return id >= 256 && id < kSize ? kSpecialTexts[static_cast<std::size_t>(id) - 256] : "";
  }
  const std::string& file_name() const override { return name_; }
  const std::string& file_content() const override { return content_; }
  TokenizerFiles companion_files() const override { return byte_tokenizer_files(kSpecialTexts); }

 private:
  static constexpr std::int32_t kSize = 256 + static_cast<std::int32_t>(kSpecialTexts.size());
  std::string name_{kByteFile};
  std::string content_{kByteContent};
  std::vector<AddedToken> specials_ = special_tokens();
};

}  // namespace

std::string Tokenizer::hash() const { return content_hash(file_content()); }

std::unique_ptr<Tokenizer> byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

std::unique_ptr<Tokenizer> tokenizer_from(std::string content, const std::string& where) {
  if (content == kByteContent) return byte_tokenizer();
  // A model of SentencePiece begins with the length of its first piece, behind byte 0x0A.
  const std::size_t first = content.find_first_not_of(" \t\r\n");
  if (first != std::string::npos && content[first] == '{') return byte_level_tokenizer(std::move(content), where, {});
  return sentencepiece_tokenizer(std::move(content), where);
}

std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& place) {
  const bool folder = type_of(place) == std::filesystem::file_type::directory;
  const std::filesystem::path file = folder ? find_tokenizer(place) : place;
  if (file.empty()) {
    fail(ExitCode::missing_input, "{}: holds no tokenizer file; copy one there: {}", place.string(),
         fmt::join(kFileNames, ", "));
  }
  return tokenizer_from(read_file(file, kFileLimit), file.string());
}

std::unique_ptr<Tokenizer> load_tokenizer_of_model(const std::filesystem::path& file, std::int64_t vocabulary) {
  if (file.filename() != kFileNames[2]) return load_tokenizer(file);
  const std::filesystem::path folder = file.parent_path();
  const auto content = [&](const char* name) {
    return is_present(folder / name) ? read_file(folder / name, kFileLimit) : std::string();
  };
  std::vector<AddedToken> beside =
      tokens_beside(content("tokenizer_config.json"), content("added_tokens.json"), folder.string());
  std::erase_if(beside, [&](const AddedToken& token) { return token.id >= vocabulary; });
  return byte_level_tokenizer(read_file(file, kFileLimit), file.string(), beside);
}

std::filesystem::path find_tokenizer(const std::filesystem::path& folder) {
  for (const std::string_view name : kFileNames) {
    const std::filesystem::path file = folder / name;
    if (is_present(file) && type_of(file) == std::filesystem::file_type::regular) return file;
  }
  return {};
}

}  // namespace shoestring
