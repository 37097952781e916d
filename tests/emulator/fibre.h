// A fibre: a function on a stack of its own that runs until it yields. x86-64 only; one thread at a time.
//
// swapcontext saves the signal mask, two system calls a switch; this switch saves the registers a call must preserve
// and nothing else. Sanitizers are told of every switch: to ThreadSanitizer a fibre is a thread, so that two fibres
// that touch one address without a barrier between them are a race.
#pragma once

#include <cstddef>

namespace emulator {

class Fibre {
 public:
  Fibre();
  ~Fibre();
  Fibre(const Fibre&) = delete;
  Fibre& operator=(const Fibre&) = delete;

  /// The next resume() begins `body(argument)` on this fibre's stack. What ran there before is forgotten.
  void begin(void (*body)(void*), void* argument);
  /// Runs the fibre until it yields or ends; not from inside a fibre.
  void resume();
  /// Goes back to whoever resumed this fibre. Only from inside it.
  void yield();
  bool ended() const { return ended_; }

 private:
  static void entry();

  void* stack_;
  void* stack_pointer_ = nullptr;
  void (*body_)(void*) = nullptr;
  void* argument_ = nullptr;
  bool ended_ = true;
  void* thread_sanitizer_ = nullptr;
  void* fake_stack_ = nullptr;
};

/// Orders memory for ThreadSanitizer: what came before a release is seen after the acquire of the same point.
void release(void* point);
void acquire(void* point);

}  // namespace emulator
