// Conversations as the text that models of a family were trained on, with what of it is to be learned.
//
// Each format prints what the chat template of its models prints (a program in Jinja, which is not run here), as
// pieces: text, which never becomes a control token whatever it looks like, and tokens, which only a renderer writes.
// Learned are the replies with their end marks: not the header in front of a reply, nor the front of it that a prompt
// brings (DeepSeek's <think>), nor the line end behind an end mark, which nobody generates.
//
// Qwen3 and DeepSeek leave the reasoning of earlier replies out of later prompts. Such a reply is not learned: it would
// teach to answer without reasoning. DeepSeek's templates leave it out of the last reply too; for training it is kept
// there, in the place where the model writes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/chat_message.h"

namespace shoestring {

enum class ChatFormat : std::uint8_t {
  plain,          ///< contents end to end; a reply ends with the end-of-document id: for models without a format
  chatml,         ///< <|im_start|>role ... <|im_end|>, nothing added
  smollm2,        ///< ChatML; a system message of its own where none is given
  qwen2_5,        ///< ChatML with tools; a system message of its own where none is given
  sky_t1,         ///< Qwen2.5; reasoning and answer between marks that are plain text
  qwen3,          ///< ChatML with tools and <think>
  llama3,         ///< Llama 3.1 to 3.3: always a system message, with dates; tools in the first user message
  deepseek_v3,    ///< V3, and R1 without the front of its reply
  deepseek_r1,    ///< R1 and its distillations: a reply begins with <think>
  deepseek_v3_1,  ///< a reply begins with <think>, or with <think></think>
};

/// As recipes and `data build --chat` spell it: "qwen2.5".
std::string_view name(ChatFormat format);
/// Throws Error(usage) with all names for an unknown one.
ChatFormat chat_format_named(std::string_view name);
/// The format that a model's chat template prints, where the template is one that is known (chat_template.h).
std::optional<ChatFormat> recognise_chat_format(std::string_view chat_template);
/// Of a Hugging Face folder: chat_template.jinja, or chat_template in tokenizer_config.json. Nothing where it has no
/// template or an unknown one. Throws Error(bad_data) for a tokenizer_config.json that is not JSON.
std::optional<ChatFormat> chat_format_of(const std::filesystem::path& folder);
/// What to say where `format` is used with a folder whose template prints another, or is not known; empty where it
/// prints that format, and where there is no template.
std::string chat_template_caveat(const std::filesystem::path& folder, ChatFormat format);

struct ChatPiece {
  enum class Kind : std::uint8_t {
    text,
    token,            ///< a control token; a tokenizer without it does not speak the format
    mark,             ///< a token where the tokenizer has it, text where it does not
    end_of_document,  ///< the tokenizer's own; `text` is empty
  };
  Kind kind = Kind::text;
  std::string text;
  bool learned = false;
  bool begins_reply = false;  ///< what follows a prompt: its tokens are never joined with the text before
};

struct ChatOptions {
  bool prompt = false;               ///< a reply's front at the end: what a model goes on from
  std::optional<bool> thinking{};    ///< of that reply, in formats that let one choose; nothing: the template's default
  bool training = false;             ///< see above
  std::string date = "26 Jul 2024";  ///< Llama 3: "Today Date", in the template's own default
};

/// Throws Error(bad_data) where the format has no place for what the conversation holds: tools, reasoning.
std::vector<ChatPiece> render_chat(ChatFormat format, const Conversation& conversation,
                                   const ChatOptions& options = {});

/// The pieces end to end: what the template prints.
std::string chat_text(const std::vector<ChatPiece>& pieces);

/// The tokens that end a reply, as they are written; besides them the end-of-document id does.
std::vector<std::string_view> chat_ends(ChatFormat format);

}  // namespace shoestring
