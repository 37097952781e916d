// Two computations of one thread that take turns: while one waits for messages, the other computes.
//
// The forward and the backward of a cell are plain functions that know nothing of each other. The first runs on the
// caller's stack, the second on one of its own; whoever has posted messages calls pass(), and the other goes on until
// it passes in turn or ends. Whose turn it is follows from these calls alone, never from when messages arrive: ranks
// that run the same two computations post their messages in the same order, as messages without tags need.
#pragma once

#include <exception>
#include <functional>
#include <memory>

namespace shoestring {

class Turns {
 public:
  using Seconds = std::function<double()>;

  Turns();
  ~Turns();
  Turns(const Turns&) = delete;
  Turns& operator=(const Turns&) = delete;

  /// Runs both to their ends, `first` from its beginning to its first pass(). What one throws is thrown once the other
  /// is unwound: its pass() throws. Not from inside either.
  void run(const std::function<void()>& first, const std::function<void()>& second, const Seconds& now);

  /// The other's turn; returns when it is the caller's again. Where no other is left, or nothing runs, at once.
  void pass();

  /// 1 while the second has the turn, else 0.
  int current() const { return current_; }
  bool running() const { return now_ != nullptr; }
  /// While running: for how long the caller has had the turn, by the clock `now`.
  double own_seconds() const { return held_[current_] + (*now_)() - since_; }

 private:
  struct Stack;
  struct Unwound {};  // thrown by pass() in a computation whose other one failed
  static void entry(unsigned high, unsigned low);
  void enter_second();
  void leave_second();
  void hand_over(int to);

  std::unique_ptr<Stack> stack_;  // made by the first run
  const std::function<void()>* second_ = nullptr;
  const Seconds* now_ = nullptr;
  bool second_runs_ = false;  // begun and not ended
  bool first_runs_ = false;
  bool unwinding_ = false;
  std::exception_ptr error_;  // of the second
  int current_ = 0;
  double since_ = 0;
  double held_[2] = {};
};

}  // namespace shoestring
