// A model folder in another number format, for other readers: what `shoestring export` writes.
//
// From any folder that can be imported, a run's checkpoint among them, one tensor at a time: no model is built. A
// format that can hold the source's numbers gives them back bit for bit.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "core/training/import_folder.h"
#include "core/training/room.h"
#include "kernels/base/device.h"

namespace shoestring {

enum class ExportFormat : std::uint8_t {
  bf16,       ///< rounded to nearest, ties to even
  fp32,       ///< as the masters are
  fp8_block,  ///< DeepSeek-V3's: E4M3 in blocks of 128 x 128, NAME_scale_inv in F32, the rest in BF16
};

struct ExportOptions {
  ExportFormat format = ExportFormat::bf16;
  std::int64_t file_limit_bytes = std::int64_t{5} << 30;
  /// Told after each tensor; what it throws ends the export.
  std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)> progress = nullptr;
  std::optional<DiskRoom> room = {};  ///< where the folder is made; nothing: what its file system has
};

/// Writes `place`, which must not exist, in one step, by way of a folder of this process's own beside it: config.json,
/// weights (several files with an index beyond the limit), and the source's companions unchanged. Returns the bytes of
/// all weights. Throws as plan_import for a source that is not sound, and as check_disk before anything of the model is
/// written, and leaves nothing then; what an export to the same place left that was killed, it removes.
std::int64_t export_folder(const ImportFolder& source, const std::filesystem::path& place, const ExportOptions& options,
                           Stream& stream);

/// Whether block formats quantise the weight of this name: matrices of attention and feed-forwards, not embeddings,
/// output head, router or what joins the inputs of multi-token prediction.
bool quantised_in_blocks(std::string_view name);

}  // namespace shoestring
