#include "data/chat_template.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "data/chat_format.h"
#include "kernels/base/file.h"
#include "kernels/base/json.h"
#include "kernels/base/presence.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kTemplateBytesLimit = 4 << 20;
constexpr std::string_view kBlanks = " \t\n\r\f\v";

struct KnownTemplate {
  std::string_view digest;  ///< content_hash of the canonical form
  ChatFormat format;
};

// Each was rendered by jinja2 and compared with ours on random conversations. In sky_t1's place stands qwen2.5, whose
// template it shares.
constexpr std::array<KnownTemplate, 12> kKnown{{
    {"78276e91f4cd1d6f9006b5da4decca20", ChatFormat::chatml},         // OpenHermes-2.5, TRL's setup_chat_format
    {"158c0126c6207aabfa0ff7260318698d", ChatFormat::chatml},         // the same, a default in front: Nous-Hermes-2
    {"e6973ca0d66c1dab6e22d06d0226bd96", ChatFormat::smollm2},        // SmolLM2-135M-Instruct
    {"aa93eb0f127e28cd734b60e02c99043d", ChatFormat::qwen2_5},        // Qwen2.5-7B-Instruct
    {"57cce84ea614e2032d8149f49c2e6a44", ChatFormat::qwen2_5},        // the same with TRL's marks of replies
    {"ad9c18dd1aec42170a9429a8031be1bd", ChatFormat::qwen3},          // Qwen3-0.6B, as it came out
    {"82acaac9239936df975e0498fe549417", ChatFormat::qwen3},          // Qwen3, for contents that are no text
    {"196cca1eba8ac7af11336238889aa28f", ChatFormat::llama3},         // Llama-3.1-8B-, Llama-3.3-70B-Instruct
    {"82567f3eab2e27ebe3f88f78fbd669e1", ChatFormat::llama3},         // Llama-3.2-3B-Instruct
    {"dc6a858f32fb896406f6fcbf29231a92", ChatFormat::deepseek_v3},    // DeepSeek-V3
    {"9b5160e9101bc93499c5d193a5eb2926", ChatFormat::deepseek_r1},    // DeepSeek-R1-Distill-Llama-8B
    {"ec3fa4201941a9a5db093386c025d6e2", ChatFormat::deepseek_v3_1},  // DeepSeek-V3.1
}};

bool is_word(char byte) {
  const auto code = static_cast<unsigned char>(byte);
  return code >= 0x80 || byte == '_' || (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
         (byte >= 'A' && byte <= 'Z');
}

/// Goes through a template once, and writes its canonical form; `false` where it cannot.
class Canonical {
 public:
  explicit Canonical(std::string_view text) : text_(text) {}

  bool write() {
    bool strips = false;  // the tag before has a '-' at its end
    while (true) {
      const std::size_t next = next_tag();
      std::string_view literal = text_.substr(at_, next - at_);
      at_ = next;
      if (strips) literal.remove_prefix(std::min(literal.find_first_not_of(kBlanks), literal.size()));
      if (at_ == text_.size()) {
        out_ += literal;
        return true;
      }
      if (text_[at_ + 1] == '#') {  // a comment, as it stands
        const std::size_t end = text_.find("#}", at_ + 2);
        if (end == std::string_view::npos) return false;
        out_.append(literal).append(text_.substr(at_, end + 2 - at_));
        strips = text_[end - 1] == '-';
        at_ = end + 2;
        continue;
      }
      if (text_.substr(at_ + 2).starts_with('-')) literal = literal.substr(0, literal.find_last_not_of(kBlanks) + 1);
      out_ += literal;
      const std::optional<bool> stripping = tag();
      if (!stripping) return false;
      strips = *stripping;
    }
  }
  std::string take() { return std::move(out_); }

 private:
  std::size_t next_tag() const {
    for (std::size_t at = text_.find('{', at_); at != std::string_view::npos; at = text_.find('{', at + 1)) {
      if (at + 1 < text_.size() && std::string_view("{%#").find(text_[at + 1]) != std::string_view::npos) return at;
    }
    return text_.size();
  }

  // {{ ... }} or {% ... %}; whether there is a '-' at its end, or nothing where it has none.
  std::optional<bool> tag() {
    const std::string_view close = text_[at_ + 1] == '{' ? "}}" : "%}";
    out_ += text_.substr(at_, 2);
    at_ += 2;
    if (text_.substr(at_).starts_with('-')) ++at_;
    int depth = 0;
    bool blank = false;
    for (bool first = true; at_ < text_.size();) {
      const std::string_view rest = text_.substr(at_);
      const bool stripping = rest.starts_with('-') && rest.substr(1).starts_with(close);
      if (depth == 0 && (stripping || rest.starts_with(close))) {
        out_ += close;
        at_ += close.size() + (stripping ? 1 : 0);
        return stripping;
      }
      const char byte = rest.front();
      if (kBlanks.find(byte) != std::string_view::npos) {
        blank = true;
        ++at_;
        continue;
      }
      if (byte == '\'' || byte == '"') {
        if (!string()) return {};
      } else {
        if (!first && blank && is_word(byte) && is_word(out_.back())) out_ += ' ';
        if (std::string_view("{[(").find(byte) != std::string_view::npos) ++depth;
        if (std::string_view("}])").find(byte) != std::string_view::npos) --depth;
        out_ += byte;
        ++at_;
      }
      first = blank = false;
    }
    return {};
  }

  // Between quotes of one kind, its escapes taken out; `false` where it has no end, or an escape that is not known.
  bool string() {
    const char quote = text_[at_++];
    out_ += '"';
    while (at_ < text_.size() && text_[at_] != quote) {
      char byte = text_[at_++];
      if (byte == '\\') {
        if (at_ == text_.size()) return false;
        constexpr std::string_view kEscapes = "nrt\\'\"", kMeant = "\n\r\t\\'\"";
        const std::size_t which = kEscapes.find(text_[at_++]);
        if (which == std::string_view::npos) return false;
        byte = kMeant[which];
      }
      if (byte == '"' || byte == '\\') out_ += '\\';
      out_ += byte;
    }
    out_ += '"';
    return at_++ < text_.size();
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::string out_;
};

// A string, or a list of named ones of which "default" is meant.
std::string template_of(const Json& config) {
  const Json* found = config.find("chat_template");
  if (found == nullptr) return {};
  if (found->is_text()) return found->text();
  if (!found->is_array()) return {};
  for (const Json& one : found->items()) {
    if (one.text_or("name", "") == "default") return one.text_or("template", "");
  }
  return {};
}

/// Of a folder; empty where it has none. One that is there and cannot be read is not none: turns would be written in
/// another way than the model knows.
std::string template_in(const fs::path& folder) {
  const fs::path file = folder / "chat_template.jinja";
  if (is_present(file)) return read_file(file, kTemplateBytesLimit);
  const fs::path config = folder / "tokenizer_config.json";
  if (!is_present(config)) return {};
  return template_of(parse_json(read_file(config, kTemplateBytesLimit), config.string()));
}

}  // namespace

std::string canonical_template(std::string_view chat_template) {
  std::string lines;
  lines.reserve(chat_template.size());
  for (std::size_t at = 0; at < chat_template.size(); ++at) {
    if (chat_template[at] != '\r') {
      lines += chat_template[at];
    } else if (!chat_template.substr(at + 1).starts_with('\n')) {
      lines += '\n';
    }
  }
  if (lines.ends_with('\n')) lines.pop_back();  // Jinja leaves the last one out
  Canonical form(lines);
  return form.write() ? form.take() : lines;
}

std::optional<ChatFormat> recognise_chat_format(std::string_view chat_template) {
  const std::string digest = content_hash(canonical_template(chat_template));
  for (const KnownTemplate& known : kKnown) {
    if (known.digest == digest) return known.format;
  }
  return std::nullopt;
}

std::optional<ChatFormat> chat_format_of(const fs::path& folder) { return recognise_chat_format(template_in(folder)); }

std::string chat_template_caveat(const fs::path& folder, ChatFormat format) {
  const std::string text = template_in(folder);
  if (text.empty()) return {};
  const std::optional<ChatFormat> prints = recognise_chat_format(text);
  const bool same = prints == format || (prints == ChatFormat::qwen2_5 && format == ChatFormat::sky_t1);
  if (same) return {};
  return fmt::format("{}: turns are written as {}, which is not what the folder's chat template {}", folder.string(),
                     name(format),
                     prints ? fmt::format("prints: that is {}", name(*prints)) : "is known to print here");
}

}  // namespace shoestring
