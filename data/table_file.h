// A Parquet file, or an Arrow file or stream, as a stream of rows with text: Apache Arrow's library is loaded when the
// first such file is met, by a module beside the program (arrow_module.h), which exists where Arrow was found when the
// program was built. Nothing else of the program needs it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/line_fields.h"

namespace shoestring {

class TableFile {
 public:
  /// Whether a file that begins so is one.
  static bool begins(std::string_view front);
  /// Why such files cannot be read here; empty: they can.
  static const std::string& unavailable();

  /// Throws Error(bad_data) with the library's reason for a file that is not sound or has none of the fields.
  TableFile(std::filesystem::path path, const LineFields& fields);
  ~TableFile();
  TableFile(const TableFile&) = delete;
  TableFile& operator=(const TableFile&) = delete;

  /// The next row's answer, as of a line of JSON with the same fields; false at the end. Throws Error(bad_data).
  bool next(LineText& row);

 private:
  [[noreturn]] void refuse(std::string_view why) const;

  std::filesystem::path path_;
  LineFields fields_;
  void* table_ = nullptr;
  std::int64_t rows_ = 0;
};

}  // namespace shoestring
