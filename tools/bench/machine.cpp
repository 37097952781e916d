#include "tools/bench/machine.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/base/cpu.h"
#include "kernels/base/limits.h"
#include "parallel/placement.h"
#include "tools/bench/calibration.h"
#include "tools/bench/timed_products.h"

namespace shoestring {
namespace {

constexpr std::int64_t kSides[] = {128, 256, 512, 1024, 2048};
constexpr double kSecondsEach = 0.2;  // for each figure
constexpr int kMostRounds = 200;

/// Collective.
double largest(Communicator& world, double value) {
  if (world.size() > 1) world.all_reduce(view_of(&value, DType::f64, {1}), Reduction::max);
  return value;
}
double smallest(Communicator& world, double value) { return -largest(world, -value); }

/// The median of `figure`, asked for again and again, of the rank where it is least. Collective: all begin together.
double usual(Communicator& world, const std::function<double()>& figure) {
  if (world.size() > 1) world.barrier();
  std::vector<double> figures;
  const double begin = now_seconds();
  while (figures.size() < 3 || (now_seconds() - begin < kSecondsEach && figures.size() < kMostRounds)) {
    figures.push_back(figure());
  }
  const auto middle = figures.begin() + static_cast<std::ptrdiff_t>(figures.size() / 2);
  std::nth_element(figures.begin(), middle, figures.end());
  return smallest(world, *middle);
}

/// Per second, of a call of `body` that does `work`.
double rate_of(double work, const std::function<void()>& body) {
  const double begin = now_seconds();
  body();
  return work / (now_seconds() - begin);
}

/// Bytes a second of a[i] = b[i] + s c[i] over arrays that no cache holds; the write counted once.
double triad(Communicator& world, Workers& workers) {
  constexpr std::int64_t kItems = 16 << 20;
  const auto array = [&](float value) {
    std::unique_ptr<float[]> items(new float[kItems]);
    workers.split(kItems, 1, [&](std::int64_t begin, std::int64_t end) {  // pages near who will use them
      std::fill(items.get() + begin, items.get() + end, value);
    });
    return items;
  };
  const auto a = array(0);
  const auto b = array(1);
  const auto c = array(2);
  return usual(world, [&] {
    return rate_of(3.0 * sizeof(float) * kItems, [&] {
      workers.split(kItems, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] + 0.5F * c[i];
      });
    });
  });
}

/// Seconds per FLOP of a product of side s, as intercept + slope * 3 / s.
struct Curve {
  double intercept = 0;
  double slope = 0;
};

/// Least squares of relative errors; the slope is not negative.
Curve fit(const std::vector<double>& x, const std::vector<double>& seconds) {
  double w = 0, wx = 0, wxx = 0, wy = 0, wxy = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double weight = 1 / (seconds[i] * seconds[i]);
    w += weight;
    wx += weight * x[i];
    wxx += weight * x[i] * x[i];
    wy += weight * seconds[i];
    wxy += weight * x[i] * seconds[i];
  }
  const double spread = w * wxx - wx * wx;
  const double slope = spread > 0 ? std::max(0.0, (w * wxy - wx * wy) / spread) : 0;
  return {(wy - slope * wx) / w, slope};
}

std::unique_ptr<TimedProduct> product_of(RateFormat format, ProductSize size, Workers& workers) {
  if (format == RateFormat::fp8) return std::make_unique<Fp8Product>(size, ScaleKind::f32, workers);
  return std::make_unique<PlainProduct>(size, format == RateFormat::bf16 ? DType::bf16 : DType::f32, workers);
}

/// Fills achievable rate and half extent of `format`.
void measure_products(Communicator& world, Workers& workers, RateFormat format, Hardware& machine) {
  constexpr double kLongest = 1;  // seconds of one product, foretold from the one before
  std::vector<double> x;
  std::vector<double> seconds;
  for (const std::int64_t side : kSides) {
    const ProductSize size{side, side, side};
    if (!seconds.empty() && seconds.back() * size.flops() > kLongest) break;
    const auto product = product_of(format, size, workers);
    product->run();
    x.push_back(3 / static_cast<double>(side));
    seconds.push_back(1 / usual(world, [&] { return rate_of(size.flops(), [&] { product->run(); }); }));
  }
  const Curve curve = fit(x, seconds);
  const double endless = curve.intercept > 0 ? 1 / curve.intercept : 1 / seconds.back();
  const double peak = machine.peak_flops[format];
  machine.achievable_flops[format] = peak > 0 ? std::min(endless, peak) : endless;
  machine.half_extent[format] = curve.slope * endless;
}

/// One direction of a link, between the first rank and `peer`; of all ranks, only those two talk. Collective.
struct Link {
  double latency_seconds = 0;
  double bytes_per_second = 0;
};
Link measure_link(Communicator& world, int peer) {
  const auto one_way = [&](std::int64_t bytes, int rounds) {
    std::vector<std::uint8_t> there(static_cast<std::size_t>(bytes));
    std::vector<std::uint8_t> back(there.size());
    double seconds = 0;
    world.barrier();
    if (world.rank() == 0 || world.rank() == peer) {
      const int other = world.rank() == 0 ? peer : 0;
      const auto turn = [&] {
        if (other != 0) world.send(view_of(there.data(), DType::u8, {bytes}), other);
        world.recv(view_of(back.data(), DType::u8, {bytes}), other);
        if (other == 0) world.send(view_of(there.data(), DType::u8, {bytes}), other);
      };
      turn();
      const double begin = now_seconds();
      for (int round = 0; round < rounds; ++round) turn();
      seconds = (now_seconds() - begin) / rounds / 2;
    }
    return largest(world, seconds);
  };
  constexpr std::int64_t kLarge = 16 << 20;
  const double latency = one_way(8, 1000);
  return {latency, static_cast<double>(kLarge) / std::max(one_way(kLarge, 10) - latency, 1e-9)};
}

void measure_links(Communicator& world, Hardware& machine) {
  const std::string name = machine_name();
  std::int64_t mine = static_cast<std::int64_t>(XXH3_64bits(name.data(), name.size()));
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather(view_of(all.data(), DType::i64, {world.size()}), view_of(&mine, DType::i64, {1}));
  machine.devices_per_node = static_cast<double>(std::count(all.begin(), all.end(), all[0]));
  const auto near = std::find(all.begin() + 1, all.end(), all[0]);
  const auto far = std::find_if(all.begin(), all.end(), [&](std::int64_t of) { return of != all[0]; });
  if (near != all.end()) {
    const Link link = measure_link(world, static_cast<int>(near - all.begin()));
    machine.peer_latency_seconds = link.latency_seconds;
    machine.peer_bytes_per_second = link.bytes_per_second;
  }
  if (far != all.end()) {
    const Link link = measure_link(world, static_cast<int>(far - all.begin()));
    machine.network_latency_seconds = link.latency_seconds;
    machine.network_bytes_per_second = link.bytes_per_second;
  }
}

}  // namespace

Hardware measure_machine(Communicator& world, Workers& workers) {
  Hardware machine;
  machine.memory_bytes = static_cast<double>(memory_left(ranks_sharing(world, machine_name())).bytes);
  machine.memory_bytes_per_second = triad(world, workers);
  const double fma = usual(world, [&] { return fma_peak(workers); });
  const double tiles = usual(world, [&] { return amx_peak(workers); });
  machine.peak_flops[RateFormat::fp32] = fma;
  // Products of BF16 and FP8 run on the tile unit where there is one, and are widened for the FMA units elsewhere.
  for (const RateFormat format : {RateFormat::bf16, RateFormat::fp8}) {
    machine.peak_flops[format] = tiles > 0 ? tiles : fma;
  }
  for (const RateFormat format : {RateFormat::fp32, RateFormat::bf16, RateFormat::fp8}) {
    measure_products(world, workers, format, machine);
  }
  if (world.size() > 1) measure_links(world, machine);
  return machine;
}

}  // namespace shoestring
