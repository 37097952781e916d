// Work that cannot be stopped, or may end its process, done in a copy of the process: of libraries that take no request
// to leave, and whose own threads throw where memory runs out.
#pragma once

#include <functional>
#include <string>

namespace shoestring {

/// Runs `work` in a forked copy of this process and returns its answer; what it changes in memory stays in the copy.
///
/// The copy has this thread only, so `work` may wait for no other, and of the open files none: what it prints is kept
/// for an error's text. It runs no signal handlers (none but SIGKILL and SIGTSTP reach it) and no exit handlers of this
/// process, and ends with the calling thread, however that ends.
/// `meanwhile` is called at once and then ten times a second. What it throws comes through, the copy being gone.
///
/// What `work` throws comes through as an Error. Throws Error(io) where the copy cannot be made, and where it dies:
/// with its last words and the limits to look at. `doing` begins those texts: "training a tokenizer".
std::string run_in_child(const std::string& doing, const std::function<std::string()>& work,
                         const std::function<void()>& meanwhile);

/// Closes every descriptor of the process from `first` on. Async-signal-safe.
void close_from(int first);

}  // namespace shoestring
