// What our chat formats make of conversations, for chat_compare.py:
//   chat_dump render FORMAT FILE             a line of JSON each: {"pieces": [[text, learned] ...]} or {"error": text}
//   chat_dump encode FORMAT TOKENIZER FILE   the same as {"ids": [...], "learned": [...]}
//   chat_dump recognise FILE...              the format that each template prints, or "-"
//
// A line of FILE is a conversation with the options "prompt", "thinking", "training" beside it.
#include <fmt/core.h>

#include <cstdio>

#include "data/chat_tokens.h"
#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::int64_t kBytesLimit = std::int64_t{1} << 28;

std::vector<ChatPiece> render(ChatFormat format, const Json& line) {
  ChatOptions options;
  if (const Json* prompt = line.find("prompt")) options.prompt = prompt->flag();
  if (const Json* training = line.find("training")) options.training = training->flag();
  if (const Json* thinking = line.find("thinking")) options.thinking = thinking->flag();
  return render_chat(format, read_conversation(line, "conversation"), options);
}

Json pieces_of(const std::vector<ChatPiece>& pieces) {
  Json list = Json::array();
  for (const ChatPiece& piece : pieces) {
    Json one = Json::array();
    one.push(piece.text);
    one.push(piece.learned);
    list.push(std::move(one));
  }
  return Json::object({{"pieces", std::move(list)}});
}

Json tokens_of(const ChatTokens& tokens) {
  return Json::object({{"ids", Json::array_of(tokens.ids)}, {"learned", Json::array_of(tokens.learned)}});
}

template <class Answer>
void for_each_line(const std::string& file, const Answer& answer) {
  const std::string text = read_file(file, kBytesLimit);
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    Json out;
    try {
      out = answer(parse_json(std::string_view(text).substr(at, end - at), file));
    } catch (const Error& error) {
      out = Json::object({{"error", error.what()}});
    }
    fmt::print("{}\n", out.dump());
    at = end + 1;
  }
}

void dump(int count, char** words) {
  const std::string_view what = words[1];
  if (what == "recognise") {
    for (int i = 2; i < count; ++i) {
      const auto format = recognise_chat_format(read_file(words[i], kBytesLimit));
      fmt::print("{}\n", format ? name(*format) : "-");
    }
    return;
  }
  const ChatFormat format = chat_format_named(words[2]);
  if (what == "render") {
    for_each_line(words[3], [&](const Json& line) { return pieces_of(render(format, line)); });
  } else {
    const auto tokenizer = load_tokenizer(words[3]);
    for_each_line(words[4], [&](const Json& line) { return tokens_of(encode_chat(render(format, line), *tokenizer)); });
  }
}

}  // namespace
}  // namespace shoestring

int main(int count, char** words) {
  if (count < 3) return 64;
  try {
    shoestring::dump(count, words);
    return 0;
  } catch (const std::exception& exception) {
    const shoestring::Error error = shoestring::as_error(exception);
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
