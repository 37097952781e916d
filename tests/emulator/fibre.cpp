#include "tests/emulator/fibre.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

#if !defined(__x86_64__)
#error "the emulator's fibres switch stacks in x86-64 assembly"
#endif

extern "C" {
void* __tsan_get_current_fiber() __attribute__((weak));
void* __tsan_create_fiber(unsigned flags) __attribute__((weak));
void __tsan_destroy_fiber(void* fibre) __attribute__((weak));
void __tsan_switch_to_fiber(void* fibre, unsigned flags) __attribute__((weak));
void __tsan_acquire(void* point) __attribute__((weak));
void __tsan_release(void* point) __attribute__((weak));
void __sanitizer_start_switch_fiber(void** fake, const void* bottom, std::size_t size) __attribute__((weak));
void __sanitizer_finish_switch_fiber(void* fake, const void** bottom, std::size_t* size) __attribute__((weak));
void __asan_unpoison_memory_region(const volatile void* begin, std::size_t bytes) __attribute__((weak));
/// Leaves the registers that a call preserves on this stack, its pointer in *from, and goes on from `to`.
void emulator_switch_stack(void** from, void* to);
}

asm(R"(
.text
.globl emulator_switch_stack
.type emulator_switch_stack, @function
emulator_switch_stack:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size emulator_switch_stack, . - emulator_switch_stack
)");

namespace emulator {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;  // touched as it is used; sanitizers make frames large
constexpr std::size_t kGuardBytes = 4 << 10;
constexpr unsigned kNoOrder = 1;  // a switch of fibres is not a synchronisation: __tsan_switch_to_fiber_no_sync
constexpr int kSavedRegisters = 6;

// The fibre that runs, and where it was resumed from.
Fibre* g_running = nullptr;
void* g_resumer_stack_pointer = nullptr;
void* g_resumer_thread_sanitizer = nullptr;
const void* g_resumer_bottom = nullptr;
std::size_t g_resumer_bytes = 0;

}  // namespace

Fibre::Fibre() {
  stack_ = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack_ == MAP_FAILED) throw std::bad_alloc();
  mprotect(stack_, kGuardBytes, PROT_NONE);
  if (__tsan_create_fiber != nullptr) thread_sanitizer_ = __tsan_create_fiber(kNoOrder);
}

Fibre::~Fibre() {
  if (thread_sanitizer_ != nullptr) __tsan_destroy_fiber(thread_sanitizer_);
  munmap(stack_, kStackBytes);
}

void Fibre::begin(void (*body)(void*), void* argument) {
  body_ = body;
  argument_ = argument;
  ended_ = false;
  fake_stack_ = nullptr;
  // A launch that ended early left the frames of its calls fenced.
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(stack_, kStackBytes);
  // As a call would leave it: the address of `entry` to return to, at 16 bytes less 8.
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes) - 2;
  *top = reinterpret_cast<void*>(&Fibre::entry);
  top -= kSavedRegisters;
  std::memset(static_cast<void*>(top), 0, kSavedRegisters * sizeof(void*));
  stack_pointer_ = static_cast<void*>(top);
}

void Fibre::resume() {
  g_running = this;
  void* fake = nullptr;
  if (__sanitizer_start_switch_fiber != nullptr) __sanitizer_start_switch_fiber(&fake, stack_, kStackBytes);
  if (thread_sanitizer_ != nullptr) {
    g_resumer_thread_sanitizer = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(thread_sanitizer_, kNoOrder);
  }
  emulator_switch_stack(&g_resumer_stack_pointer, stack_pointer_);
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void Fibre::yield() {
  if (__sanitizer_start_switch_fiber != nullptr) {
    __sanitizer_start_switch_fiber(ended_ ? nullptr : &fake_stack_, g_resumer_bottom, g_resumer_bytes);
  }
  if (thread_sanitizer_ != nullptr) __tsan_switch_to_fiber(g_resumer_thread_sanitizer, kNoOrder);
  emulator_switch_stack(&stack_pointer_, g_resumer_stack_pointer);
  if (__sanitizer_finish_switch_fiber != nullptr) __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
}

void Fibre::entry() {
  if (__sanitizer_finish_switch_fiber != nullptr) {
    __sanitizer_finish_switch_fiber(nullptr, &g_resumer_bottom, &g_resumer_bytes);
  }
  Fibre& fibre = *g_running;
  fibre.body_(fibre.argument_);
  fibre.ended_ = true;
  fibre.yield();
  std::abort();  // nobody resumes what has ended
}

void release(void* point) {
  if (__tsan_release != nullptr) __tsan_release(point);
}
void acquire(void* point) {
  if (__tsan_acquire != nullptr) __tsan_acquire(point);
}

}  // namespace emulator
