// Making threads: a machine that allows no more is told apart from a fault of ours.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace shoestring {

/// Makes a thread that runs `body`; throws std::system_error when the system refuses one.
using ThreadMaker = std::function<std::thread(std::function<void()> body)>;

/// std::thread itself.
std::thread make_thread(std::function<void()> body);

/// What may have kept the system from making a thread or a process: the limits with their values, where to look and
/// the key that asks for fewer. For an error's text.
std::string thread_limits();

}  // namespace shoestring
