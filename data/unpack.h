// Compressed streams, recognised by their first bytes: one interface over the libraries that know them.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace shoestring {

struct UnpackStep {
  std::size_t read = 0;     ///< bytes taken from the front of what was given
  std::size_t written = 0;  ///< bytes put there
  bool ended = false;       ///< the stream came to its end, and its checksum, if it has one, is right
};

/// What is wrong with the bytes, in words; who calls knows the file and the place.
struct PackedDamage {
  std::string why;
  bool sound = false;  ///< nothing is, but that they take more than is given here
};

class Unpacker {
 public:
  virtual ~Unpacker() = default;
  /// Takes what it can of `from` and fills what it can of `to` (not empty). `last`: the file has nothing behind `from`.
  /// After an `ended` step comes `begin`, where more follows. Throws PackedDamage.
  virtual UnpackStep step(std::span<const char> from, std::span<char> to, bool last) = 0;
  /// Another stream follows the one that ended, as in concatenated files.
  virtual void begin() = 0;
};

struct Packing {
  std::string_view name;     ///< "gzip"
  std::string_view endings;  ///< of file names, as a rule: ".gz"; several with a blank between
  std::string_view by_hand;  ///< the command that unpacks one, whatever memory that takes
  bool (*begins)(std::string_view front);
  std::unique_ptr<Unpacker> (*make)();
};

/// gzip, zstd, xz, bzip2.
std::span<const Packing> packings();
/// What a file is packed with, by its first bytes; nullptr: nothing that is known here.
const Packing* packing_of(std::string_view front);
/// A file's name without the ending that says how it is packed: "a.jsonl" of "a.jsonl.zst".
std::string_view without_packing(std::string_view file_name);

/// What one unpacker may hold: a stream that asks for a larger window is refused.
inline constexpr std::size_t kUnpackMemoryBytes = std::size_t{256} << 20;

}  // namespace shoestring
