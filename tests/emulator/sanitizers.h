// Which sanitizer watches the device code of this program.
#pragma once

extern "C" {
void __asan_init() __attribute__((weak));
void __tsan_init() __attribute__((weak));
}

namespace emulator {
inline const bool kFencesMemory = &__asan_init != nullptr;
inline const bool kWatchesRaces = &__tsan_init != nullptr;
}  // namespace emulator
