#include "tools/bench/calibration.h"

#include <immintrin.h>
#include <sys/resource.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>

#include "kernels/amx_tiles.h"
#include "kernels/base/cpu.h"

namespace shoestring {
namespace {

/// Numbers for a tile of operands.
constexpr std::array<std::uint16_t, 512> some_numbers() {
  std::array<std::uint16_t, 512> numbers{};
  std::uint32_t x = 1;
  for (std::uint16_t& number : numbers) {
    x = x * 1664525 + 1013904223;
    number = static_cast<std::uint16_t>(0x3F80 | (x >> 16 & 0x807F));  // +-1 to +-2 in BF16
  }
  return numbers;
}
alignas(64) constexpr std::array<std::uint16_t, 512> kNumbers = some_numbers();

/// `rounds` of four independent tile products.
void tile_products(std::int64_t rounds) {
  asm volatile(
      "1:\n"
      "tdpbf16ps %%tmm6, %%tmm4, %%tmm0\n tdpbf16ps %%tmm7, %%tmm4, %%tmm1\n"
      "tdpbf16ps %%tmm6, %%tmm5, %%tmm2\n tdpbf16ps %%tmm7, %%tmm5, %%tmm3\n"
      "dec %0\n jnz 1b\n"
      "tilerelease\n"
      : "+r"(rounds)
      :
      : "cc");
}

/// Configures tiles; all of them zero.
void clear_tiles() { asm volatile("ldtilecfg %0" ::"m"(amx::g_tile_config)); }

void products_of_loaded_tiles(std::int64_t rounds) {
  clear_tiles();
  asm volatile(
      "tileloadd (%0,%1,1), %%tmm4\n tileloadd (%0,%1,1), %%tmm5\n"
      "tileloadd (%0,%1,1), %%tmm6\n tileloadd (%0,%1,1), %%tmm7\n" ::"r"(kNumbers.data()),
      "r"(std::int64_t{64})
      : "memory");
  tile_products(rounds);
}

void products_of_cleared_tiles(std::int64_t rounds) {
  clear_tiles();
  tile_products(rounds);
}

/// `rounds` of twelve independent FMA of 8 numbers.
void fma_products_of_8(std::int64_t rounds) {
  asm volatile(
      "vmovups (%1), %%ymm12\n"
      "vxorps %%ymm0, %%ymm0, %%ymm0\n vxorps %%ymm1, %%ymm1, %%ymm1\n vxorps %%ymm2, %%ymm2, %%ymm2\n"
      "vxorps %%ymm3, %%ymm3, %%ymm3\n vxorps %%ymm4, %%ymm4, %%ymm4\n vxorps %%ymm5, %%ymm5, %%ymm5\n"
      "vxorps %%ymm6, %%ymm6, %%ymm6\n vxorps %%ymm7, %%ymm7, %%ymm7\n vxorps %%ymm8, %%ymm8, %%ymm8\n"
      "vxorps %%ymm9, %%ymm9, %%ymm9\n vxorps %%ymm10, %%ymm10, %%ymm10\n vxorps %%ymm11, %%ymm11, %%ymm11\n"
      "1:\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm0\n vfmadd231ps %%ymm12, %%ymm12, %%ymm1\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm2\n vfmadd231ps %%ymm12, %%ymm12, %%ymm3\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm4\n vfmadd231ps %%ymm12, %%ymm12, %%ymm5\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm6\n vfmadd231ps %%ymm12, %%ymm12, %%ymm7\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm8\n vfmadd231ps %%ymm12, %%ymm12, %%ymm9\n"
      "vfmadd231ps %%ymm12, %%ymm12, %%ymm10\n vfmadd231ps %%ymm12, %%ymm12, %%ymm11\n"
      "dec %0\n jnz 1b\n"
      "vzeroupper\n"
      : "+r"(rounds)
      : "r"(kNumbers.data())
      : "cc", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12");
}

/// `rounds` of sixteen independent FMA of 16 numbers.
void fma_products_of_16(std::int64_t rounds) {
  asm volatile(
      "1:\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm0\n vfmadd231ps %%zmm16, %%zmm16, %%zmm1\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm2\n vfmadd231ps %%zmm16, %%zmm16, %%zmm3\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm4\n vfmadd231ps %%zmm16, %%zmm16, %%zmm5\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm6\n vfmadd231ps %%zmm16, %%zmm16, %%zmm7\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm8\n vfmadd231ps %%zmm16, %%zmm16, %%zmm9\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm10\n vfmadd231ps %%zmm16, %%zmm16, %%zmm11\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm12\n vfmadd231ps %%zmm16, %%zmm16, %%zmm13\n"
      "vfmadd231ps %%zmm16, %%zmm16, %%zmm14\n vfmadd231ps %%zmm16, %%zmm16, %%zmm15\n"
      "dec %0\n jnz 1b\n"
      "vzeroupper\n"
      : "+r"(rounds)
      :
      : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
        "xmm13", "xmm14", "xmm15");
}

/// Rounds a second of each worker.
std::vector<double> rates_of(Workers& workers, void (*products)(std::int64_t), std::int64_t rounds) {
  std::vector<double> rates(static_cast<std::size_t>(workers.count()));
  workers.run([&](int worker) {
    const double begin = now_seconds();
    products(rounds);
    rates[static_cast<std::size_t>(worker)] = static_cast<double>(rounds) / (now_seconds() - begin);
  });
  return rates;
}

double sum(const std::vector<double>& rates) { return std::accumulate(rates.begin(), rates.end(), 0.0); }

/// Whether the threads kept their processors since `begin`: one switch in 20 ms does no harm to a long repetition.
bool undisturbed(long switches_before, double begin) {
  return preemptions() - switches_before <= static_cast<long>((now_seconds() - begin) / 20e-3);
}

/// Mean seconds of a call, over as many calls as fill a millisecond; one call where that is enough.
double seconds_of(const std::function<void()>& body, int calls) {
  const double begin = now_seconds();
  for (int i = 0; i < calls; ++i) body();
  return (now_seconds() - begin) / calls;
}

int calls_for_a_millisecond(const std::function<void()>& body) {
  body();
  const double once = std::min(seconds_of(body, 1), seconds_of(body, 1));
  return std::clamp(static_cast<int>(2e-3 / once), 1, 1000);
}

}  // namespace

double now_seconds() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double amx_peak(Workers& workers) {
  if (!cpu_features().amx_bf16) return 0;
  constexpr double kFlops = 4.0 * 16 * 16 * 32 * 2;
  return kFlops * sum(rates_of(workers, products_of_loaded_tiles, 32000));
}

double fma_peak(Workers& workers) {
  if (cpu_features().avx512) return 16.0 * 16 * 2 * sum(rates_of(workers, fma_products_of_16, 500000));
  if (cpu_features().avx2) return 12.0 * 8 * 2 * sum(rates_of(workers, fma_products_of_8, 800000));
  return 0;
}

Pace pace(Workers& workers) {
  constexpr double kFull = 0.9;
  constexpr std::int64_t kRounds = 8000;
  if (!cpu_features().amx_bf16) return Pace::full;
  const std::vector<double> loaded = rates_of(workers, products_of_loaded_tiles, kRounds);
  const std::vector<double> cleared = rates_of(workers, products_of_cleared_tiles, kRounds);
  for (std::size_t worker = 0; worker < loaded.size(); ++worker) {
    if (loaded[worker] < kFull * cleared[worker]) return Pace::slow;
  }
  return Pace::full;
}

long preemptions() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return use.ru_nivcsw;
}

bool wants_more(const Ratios& ratios, double start, const BenchEffort& effort) {
  const double longest = effort.most_seconds * (ratios.kept() < Ratios::kFew ? 4 : 1);
  const double gone = now_seconds() - start;
  if (effort.progress) effort.progress(gone, longest);
  return ratios.kept() < effort.repetitions && gone < longest;
}

BenchRow bench_over_peak(std::string name, std::string over, double goal, double flops, Workers& workers,
                         double (*peak)(Workers&), const std::function<void()>& body, const BenchEffort& effort) {
  Ratios ratios;
  const int calls = calls_for_a_millisecond(body);
  const double start = now_seconds();
  while (wants_more(ratios, start, effort)) {
    const long before_switches = preemptions();
    const double begin = now_seconds();
    const PaceWatch watch(workers);
    const double before = peak(workers);
    const double seconds = seconds_of(body, calls);
    const double after = peak(workers);
    const Pace pace = watch.pace();
    const bool calm = undisturbed(before_switches, begin) && std::abs(before - after) < 0.1 * std::max(before, after);
    if (calm && before > 0) {
      ratios.add(flops / seconds / (0.5 * (before + after)), flops / seconds * 1e-12, pace);
    } else {
      ratios.drop();
    }
  }
  return ratios.row(std::move(name), std::move(over), goal, "TFLOP/s");
}

BenchRow bench_over_rival(std::string name, std::string over, double goal, double work, std::string unit,
                          Workers& workers, const std::function<void()>& body, const std::function<void()>& rival,
                          const BenchEffort& effort) {
  Ratios ratios;
  const int calls = calls_for_a_millisecond(body);
  const int rival_calls = calls_for_a_millisecond(rival);
  const double start = now_seconds();
  while (wants_more(ratios, start, effort)) {
    const long before_switches = preemptions();
    const double begin = now_seconds();
    const PaceWatch watch(workers);
    const double mine = seconds_of(body, calls);
    const double other = seconds_of(rival, rival_calls);
    const Pace pace = watch.pace();
    if (undisturbed(before_switches, begin)) {
      ratios.add(other / mine, work / mine, pace);
    } else {
      ratios.drop();
    }
  }
  return ratios.row(std::move(name), std::move(over), goal, std::move(unit));
}

}  // namespace shoestring
