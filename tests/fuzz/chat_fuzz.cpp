// A line of JSON as a conversation, written in every chat format, for training and as a prompt: what is foreign is
// text, and never becomes a control token.
#include "data/chat_format.h"
#include "kernels/base/check.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {
namespace {

void render(ChatFormat format, const Conversation& conversation, const ChatOptions& options) {
  for (const ChatPiece& piece : render_chat(format, conversation, options)) {
    if (piece.kind != ChatPiece::Kind::token) continue;
    const bool ours = piece.text.starts_with('<') && piece.text.ends_with('>') && piece.text.size() < 64;
    if (!ours) contradiction("foreign text as a control token: " + piece.text);
  }
}

}  // namespace

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const Json line = parse_json(text_of(bytes), "chats.jsonl:1");
    const Conversation conversation = read_conversation(line, "chats.jsonl:1");
    for (int format = 0; format <= static_cast<int>(ChatFormat::deepseek_v3_1); ++format) {
      for (const bool prompt : {false, true}) {
        try {
          render(static_cast<ChatFormat>(format), conversation, {.prompt = prompt, .training = !prompt});
        } catch (const Error& refused) {  // a format that has no place for it; the others may
          if (refused.code() == ExitCode::bug) throw;
        }
      }
    }
  });
}

}  // namespace shoestring::fuzz
