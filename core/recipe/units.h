// Values with units, as they stand in recipe and hardware files: "14.8T", "4Ki", "2.5h", "30min", "64MiB", "5%".
//
// One rule for every key: K M B T (and G, P) are powers of 1000, Ki Mi Gi Ti powers of 1024. So 4K is 4000 and 4Ki is
// 4096; keys that count positions refuse a bare K, because "4K context" means 4096 to most readers and 4000 to a
// parser. A number without a unit is taken in the key's own unit (the one in its name). No silent rounding: a count
// must come out whole. Nothing here knows which keys exist; see keys.h.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace shoestring {

enum class Unit : std::uint8_t {
  none,       ///< a bare number
  count,      ///< K M B T, Ki Mi Gi Ti
  positions,  ///< as count, but K M B T are refused
  hours,      ///< s, min, h, d
  minutes,    ///< s, min, h, d
  seconds,    ///< ns, us, ms, s, min, h, d
  bytes,      ///< B KB MB GB TB, KiB MiB GiB TiB
  fraction,   ///< "5%" is 0.05
  rate,       ///< per second: as count, also "989T"; G and P too
  watts,      ///< "700", "700W", "1.2kW"
  usd,        ///< "2", "$2"
};

/// A parsed number, or the reason why it is none ("'12x' is not a number of hours: s, min, h or d").
struct Quantity {
  double value = 0;
  std::string mistake;  ///< empty: value holds
};

Quantity parse_quantity(std::string_view text, Unit unit);

/// As parse_quantity, but the result must be whole and fit 53 bits.
struct WholeQuantity {
  std::int64_t value = 0;
  std::string mistake;
};
WholeQuantity parse_whole(std::string_view text, Unit unit);

/// Shortest text that parses back to the same value: 14800000000000 -> "14.8T", 0.25 hours -> "0.25".
std::string print_quantity(double value, Unit unit);

/// What the unit's suffixes are, for messages and documentation; empty for none.
std::string_view unit_suffixes(Unit unit);

/// A short text for people, not for parsing: 2.788M, 0.0497, 14.8T.
std::string rounded(double value, int digits = 4);

}  // namespace shoestring
