#include "core/generation/chat_session.h"

#include <algorithm>
#include <utility>

#include "core/generation/text_stream.h"
#include "data/chat_tokens.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

/// The message that the conversation's first reply answers, or would: what a system message stands before.
std::size_t first_turn(const Conversation& conversation) {
  return !conversation.messages.empty() && conversation.messages[0].role == ChatRole::system ? 1 : 0;
}

}  // namespace

ChatSession::ChatSession(OpenModel& model, ChatSettings settings)
    : model_(model),
      settings_(std::move(settings)),
      generator_(model.forward(), model.tokenizer().vocabulary_size()),
      stop_ids_(chat_end_ids(settings_.format, model.tokenizer())) {
  check_sampling(settings_.sampling);
  check_thinking();
  for (const std::int32_t id : model.ids().stop) {
    if (std::find(stop_ids_.begin(), stop_ids_.end(), id) == stop_ids_.end()) stop_ids_.push_back(id);
  }
  check_system();
  forget();
}

/// Where the format writes the same with and without, nobody is asked to think.
void ChatSession::check_thinking() const {
  if (!settings_.thinking) return;
  const Conversation asked{.messages = {{.role = ChatRole::user, .content = "?"}}};
  const auto written = [&](bool thinking) {
    return chat_text(render_chat(settings_.format, asked, {.prompt = true, .thinking = thinking}));
  };
  if (written(true) != written(false)) return;
  fail(ExitCode::usage, "--thinking: the chat format {} leaves no choice; leave the option out",
       name(settings_.format));
}

/// With the shortest message there must be room beside it, or no message would ever be answered.
void ChatSession::check_system() {
  if (settings_.system.empty()) return;
  forget();
  conversation_.messages.push_back({.role = ChatRole::user, .content = "?"});
  if (const std::int64_t tokens = std::ssize(prompt()); tokens > prompt_room()) {
    fail(ExitCode::usage,
         "--system: with a message of one character it takes {} tokens, but beside a reply there is room for {}: "
         "shorten it, or raise --context",
         tokens, prompt_room());
  }
}

std::int64_t ChatSession::prompt_room() const {
  const std::int64_t capacity = model_.forward().capacity();
  return capacity - std::min(settings_.most_tokens, capacity / 4);
}

void ChatSession::forget() {
  conversation_ = {};
  if (!settings_.system.empty()) {
    conversation_.messages.push_back({.role = ChatRole::system, .content = settings_.system});
  }
}

std::vector<std::int32_t> ChatSession::prompt() const {
  const ChatOptions options{.prompt = true, .thinking = settings_.thinking};
  const ChatTokens tokens = encode_chat(render_chat(settings_.format, conversation_, options), model_.tokenizer());
  return {tokens.ids.begin(), tokens.ids.end()};
}

/// Whole turns are left out from the front, until a quarter of the room, or the whole reply, fits behind the rest.
std::vector<std::int32_t> ChatSession::prompt_with_room(std::size_t& forgotten) {
  while (true) {
    std::vector<std::int32_t> ids = prompt();
    if (std::ssize(ids) <= prompt_room()) return ids;
    auto& messages = conversation_.messages;
    const auto begin = messages.begin() + static_cast<std::ptrdiff_t>(first_turn(conversation_));
    const auto next = std::find_if(begin + 1, messages.end(),
                                   [](const ChatMessage& message) { return message.role == ChatRole::user; });
    if (next == messages.end()) {
      fail(ExitCode::usage,
           "the message takes {} tokens, but beside a reply there is room for {}: shorten it, or raise --context",
           ids.size(), prompt_room());
    }
    forgotten += static_cast<std::size_t>(next - begin);
    messages.erase(begin, next);
  }
}

ChatSession::Reply ChatSession::answer(std::string_view message,
                                       const std::function<bool(std::string_view piece)>& show) {
  Reply reply;
  conversation_.messages.push_back({.role = ChatRole::user, .content = std::string(message)});
  GenerationRequest request{.most_tokens = settings_.most_tokens,
                            .sampling = settings_.sampling,
                            .seed = settings_.seed + replies_++,
                            .stop_ids = stop_ids_};
  try {
    request.prompt = prompt_with_room(reply.forgotten);
  } catch (...) {
    conversation_.messages.pop_back();
    throw;
  }
  TextStream stream(model_.tokenizer());
  const auto shown = [&](const std::string& piece) {
    reply.text += piece;
    return piece.empty() || show(piece);
  };
  const Generated generated = generator_.run_one(request, [&](std::int32_t id) { return shown(stream.add(id)); });
  shown(stream.finish());
  reply.end = generated.end;
  reply.tokens = static_cast<std::int64_t>(generated.ids.size());
  conversation_.messages.push_back({.role = ChatRole::assistant, .content = reply.text});
  return reply;
}

}  // namespace shoestring
