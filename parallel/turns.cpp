#include "parallel/turns.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <cstdint>
#include <new>

#include "kernels/base/check.h"

// Sanitizers follow a thread along its stack and are told of every switch; without them these are absent.
extern "C" {
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fiber) __attribute__((weak));
void __tsan_switch_to_fiber(void* fiber, unsigned flags) __attribute__((weak));
void __sanitizer_start_switch_fiber(void** fake, const void* bottom, std::size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* fake, const void** bottom, std::size_t* size) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
}

namespace shoestring {
namespace {

constexpr std::size_t kStackBytes = std::size_t{8} << 20;  // as a thread has; touched as it is used
constexpr std::size_t kGuardBytes = std::size_t{64} << 10;

}  // namespace

struct Turns::Stack {
  Stack() {
    memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuardBytes, PROT_NONE);
    if (__tsan_create_fiber != nullptr) second_fiber = __tsan_create_fiber(0);
  }
  ~Stack() {
    if (second_fiber != nullptr) __tsan_destroy_fiber(second_fiber);
    munmap(memory, kStackBytes);
  }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;

  void* memory;
  ucontext_t first{}, second{};
  void* first_fiber = nullptr;
  void* second_fiber = nullptr;
  void* second_fake = nullptr;
  const void* first_bottom = nullptr;
  std::size_t first_bytes = 0;
};

Turns::Turns() = default;
Turns::~Turns() = default;

void Turns::run(const std::function<void()>& first, const std::function<void()>& second, const Seconds& now) {
  check(!running(), "turns are taken inside of turns");
  if (!stack_) stack_ = std::make_unique<Stack>();
  // What ran there last never returned from its outermost calls, and left them fenced.
  if (__asan_unpoison_memory_region != nullptr) {
    __asan_unpoison_memory_region(static_cast<char*>(stack_->memory) + kGuardBytes, kStackBytes - kGuardBytes);
  }
  ucontext_t& context = stack_->second;
  check(getcontext(&context) == 0, "no context of a second computation");
  context.uc_stack.ss_sp = static_cast<char*>(stack_->memory) + kGuardBytes;
  context.uc_stack.ss_size = kStackBytes - kGuardBytes;
  context.uc_link = nullptr;
  const auto self = reinterpret_cast<std::uintptr_t>(this);  // makecontext passes ints
  makecontext(&context, reinterpret_cast<void (*)()>(&Turns::entry), 2, static_cast<unsigned>(self >> 32),
              static_cast<unsigned>(self));
  second_ = &second;
  now_ = &now;
  error_ = nullptr;
  unwinding_ = false;
  first_runs_ = second_runs_ = true;
  current_ = 0;
  held_[0] = held_[1] = 0;
  since_ = now();
  std::exception_ptr error;
  try {
    first();
  } catch (...) {
    error = std::current_exception();
  }
  first_runs_ = false;
  unwinding_ = error != nullptr;
  if (second_runs_) enter_second();  // to its end
  now_ = nullptr;
  if (error == nullptr) error = error_;
  error_ = nullptr;
  if (error != nullptr) std::rethrow_exception(error);
}

void Turns::pass() {
  if (current_ == 1) {
    if (first_runs_) leave_second();
    if (unwinding_) throw Unwound{};
    return;
  }
  if (!first_runs_ || !second_runs_) return;
  enter_second();
  if (error_ != nullptr) std::rethrow_exception(error_);
}

void Turns::hand_over(int to) {
  const double now = (*now_)();
  held_[current_] += now - since_;
  since_ = now;
  current_ = to;
}

void Turns::enter_second() {
  hand_over(1);
  Stack& stack = *stack_;
  void* fake = nullptr;
  if (__sanitizer_start_switch_fiber != nullptr) __sanitizer_start_switch_fiber(&fake, stack.memory, kStackBytes);
  if (stack.second_fiber != nullptr) {
    stack.first_fiber = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(stack.second_fiber, 0);
  }
  swapcontext(&stack.first, &stack.second);
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void Turns::leave_second() {
  hand_over(0);
  Stack& stack = *stack_;
  if (__sanitizer_start_switch_fiber != nullptr) {
    void** const keeps = second_runs_ ? &stack.second_fake : nullptr;
    __sanitizer_start_switch_fiber(keeps, stack.first_bottom, stack.first_bytes);
  }
  if (stack.second_fiber != nullptr) __tsan_switch_to_fiber(stack.first_fiber, 0);
  swapcontext(&stack.second, &stack.first);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(stack.second_fake, &stack.first_bottom, &stack.first_bytes);
  }
}

void Turns::entry(unsigned high, unsigned low) {
  Turns& turns = *reinterpret_cast<Turns*>(static_cast<std::uintptr_t>(high) << 32 | low);
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(nullptr, &turns.stack_->first_bottom, &turns.stack_->first_bytes);
  }
  try {
    if (!turns.unwinding_) (*turns.second_)();
  } catch (const Unwound&) {  // the first failed
  } catch (...) {
    turns.error_ = std::current_exception();
  }
  turns.second_runs_ = false;
  turns.leave_second();  // never entered again
}

}  // namespace shoestring
