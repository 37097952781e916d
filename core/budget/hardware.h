// What one device can do and costs: the figures of a *.hardware file. A figure is measured here (`shoestring bench`) or
// taken from a source; the file says which. 0 means "not known"; nothing is assumed in its place.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace shoestring {

/// Number formats whose products are counted and rated apart.
enum class RateFormat : std::uint8_t { fp64, fp32, bf16, fp8 };
inline constexpr int kRateFormats = 4;
std::string_view name(RateFormat format);

/// One value per format.
struct PerFormat {
  std::array<double, kRateFormats> values{};
  double& operator[](RateFormat format) { return values[static_cast<std::size_t>(format)]; }
  double operator[](RateFormat format) const { return values[static_cast<std::size_t>(format)]; }
};

struct Hardware {
  std::string name;  ///< the file's stem: "h800"
  std::string description;
  std::string source;  ///< of the specification
  std::string date;

  PerFormat peak_flops;        ///< per second, dense, per device
  PerFormat achievable_flops;  ///< per second, best measured large product
  /// How the rate falls with the shape: a product of M x N x K runs at achievable / (1 + extent (1/M + 1/N + 1/K)), so
  /// this is the extent that halves the rate when one side has it. 0: the rate does not depend on the shape.
  PerFormat half_extent;
  std::string achievable_source;  ///< "measured by ..." or a source
  std::string extent_source;      ///< of half_extent

  double memory_bytes = 0;
  double memory_bytes_per_second = 0;
  double peer_bytes_per_second = 0;  ///< to a device of the same node, one direction
  double peer_latency_seconds = 0;
  double network_bytes_per_second = 0;  ///< to a device of another node, one direction
  double network_latency_seconds = 0;
  double devices_per_node = 0;  ///< 0: one
  double watts = 0;             ///< of one device under load; needed by budget.kwh

  double usd_low = 0;  ///< band of prices seen per device-hour; for information, never a default price
  double usd_high = 0;
  std::string price_source;
  std::string price_date;
};

/// Reads NAME.hardware; throws Error(bad_recipe) that lists every mistake, Error(missing_input) if it is not there.
Hardware read_hardware(const std::filesystem::path& file);

/// What such a file says: read_hardware gets `hardware` back from it, its numbers rounded to three digits. Figures that
/// are not known are left out.
std::string hardware_text(const Hardware& hardware);

/// The file of `name` ("cpu"): in `recipe_folder`/hardware, then where recipes came with the program
/// (recipe/installed.h). Throws Error(missing_input) that lists the places looked at and the nearest name there.
std::filesystem::path find_hardware(std::string_view name, const std::filesystem::path& recipe_folder);
/// Every name that find_hardware would find, sorted.
std::vector<std::string> hardware_names(const std::filesystem::path& recipe_folder);

}  // namespace shoestring
