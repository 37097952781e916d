// The face of shoestring_arrow.so, a module loaded at run time that reads Parquet and Arrow files with Apache Arrow's
// C++ library; see table_file.h. Plain C: Arrow's own interface changes with its version and with the compiler, so the
// module is built against one library, and the program knows neither.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

/// One field of a row, valid until the next call.
struct ShoestringTableCell {
  const char* text;  ///< null: the row has no such value
  std::int64_t bytes;
  std::int32_t is_text;  ///< 0: a number or flag, as JSON writes it
};

/// Opens a Parquet file, an Arrow file or an Arrow stream. `fields`: `count` dotted paths. On failure nullptr, and
/// `why` holds the reason, at most `why_bytes` with its NUL.
void* shoestring_table_open(const char* path, const char* const* fields, int count, char* why, std::size_t why_bytes);
/// Fills `cells` [count] with the next row's: 1; 0 at the end; -1 and `why` on failure.
int shoestring_table_next(void* table, ShoestringTableCell* cells, char* why, std::size_t why_bytes);
void shoestring_table_close(void* table);
}
