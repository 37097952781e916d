#include "data/input_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "kernels/base/check.h"
#include "kernels/base/file.h"

namespace shoestring {
namespace {

constexpr std::size_t kChunk = std::size_t{256} << 10;
constexpr std::size_t kBehind = 512;                       // asked for where the file should have ended
constexpr std::size_t kLeastRoom = std::size_t{16} << 10;  // for what comes out of a packed file
constexpr std::size_t kUsualRatio = 16;                    // bytes out per byte in, hardly ever passed

}  // namespace

InputFile::InputFile(std::filesystem::path path, const UnpackLimits& limits)
    : path_(std::move(path)), limits_(limits), file_(open_for_reading(path_)) {
  file_bytes_ = file_bytes(file_, path_);
  read(packed_);
  packing_ = packing_of(packed_);
  if (packing_ != nullptr) {
    unpacker_ = packing_->make();
  } else {
    text_.swap(packed_);
  }
}

// The front of what is used goes away only when more is needed, so `ahead` costs nothing while there is enough.
std::string_view InputFile::ahead(std::size_t least) {
  if (text_.size() - begin_ < least) {
    text_.erase(0, begin_);
    begin_ = 0;
    while (text_.size() < least && more()) continue;
  }
  return std::string_view(text_).substr(begin_);
}

void InputFile::seek(std::int64_t position) {
  check(packing_ == nullptr, "{}: a packed file is read from its front", path_.string());
  if (::lseek(file_.get(), static_cast<off_t>(position), SEEK_SET) < 0) {
    fail(ExitCode::io, "{}: cannot be read from byte {} on: {}", path_.string(), position, system_reason(errno));
  }
  text_.clear();
  begin_ = 0;
  position_ = read_bytes_ = position;
  file_ended_ = false;
}

// Appends to text_; false where there is nothing left.
bool InputFile::more() {
  if (packing_ == nullptr) return read(text_);
  const std::size_t before = text_.size();
  while (text_.size() == before && !stream_ended_) unpack();
  return text_.size() > before;
}

// The file's next bytes; false at its end. Room is made for what there should be: of small files, which are many, a
// chunk of room would cost more than the reading. One that grows, or has no size, is read by the chunk all the same.
bool InputFile::read(std::string& to) {
  if (file_ended_) return false;
  const std::size_t before = to.size();
  const std::int64_t left = file_bytes_ - read_bytes_;
  const std::size_t room = left == 0  ? kBehind
                           : left > 0 ? static_cast<std::size_t>(std::min<std::int64_t>(kChunk, left))
                                      : kChunk;
  to.resize(before + room);
  ssize_t got = -1;
  do {
    got = ::read(file_.get(), to.data() + before, room);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    const int why = errno;
    to.resize(before);
    fail(ExitCode::io, "{}: reading it failed at byte {}: {}", path_.string(), read_bytes_, system_reason(why));
  }
  to.resize(before + static_cast<std::size_t>(got));
  read_bytes_ += got;
  file_ended_ = got == 0;
  return got > 0;
}

// One step of the unpacker, with room for what usually comes out of the bytes at hand: a small file, as a chunk of room
// costs more than it. Whether the file has more is known before its last bytes are handed over.
void InputFile::unpack() {
  if (packed_begin_ == packed_.size()) {
    packed_.clear();
    packed_begin_ = 0;
    read(packed_);
  }
  const std::size_t before = text_.size();
  text_.resize(before + std::clamp(kUsualRatio * (packed_.size() - packed_begin_), kLeastRoom, kChunk));
  UnpackStep step;
  try {
    step = unpacker_->step(std::span(packed_).subspan(packed_begin_), std::span(text_).subspan(before), file_ended_);
  } catch (const PackedDamage& damage) {
    if (damage.sound) {
      fail(ExitCode::bad_data,
           "{}: unpacking {} takes more than the {} MiB of memory that are given to it ({}); unpack the file first, "
           "with "
           "{}",
           path_.string(), packing_->name, kUnpackMemoryBytes >> 20, damage.why, packing_->by_hand);
    }
    refuse(damage.why);
  }
  text_.resize(before + step.written);
  packed_begin_ += step.read;
  text_bytes_ += static_cast<std::int64_t>(step.written);
  if (text_bytes_ > limits_.free_bytes &&
      static_cast<double>(text_bytes_) > limits_.ratio * static_cast<double>(read_bytes_)) {
    refuse(fmt::format("it unpacks to more than {} times its size; if that is meant, unpack it first", limits_.ratio));
  }
  const bool used_up = packed_begin_ == packed_.size();
  if (step.ended) {
    if (used_up && !read(packed_)) {
      stream_ended_ = true;
    } else {
      unpacker_->begin();
    }
  } else if (step.written == 0 && used_up && file_ended_) {
    refuse("the file ends in the middle of its data");
  } else if (step.written == 0 && step.read == 0 && !used_up) {
    refuse("corrupt data");  // a decoder that neither takes nor gives would be asked for ever
  }
}

void InputFile::refuse(const std::string& why) const {
  const std::int64_t at = read_bytes_ - static_cast<std::int64_t>(packed_.size() - packed_begin_);
  fail(ExitCode::bad_data, "{}: is not sound {} data near byte {}: {}; fetch the file anew or leave it out",
       path_.string(), packing_->name, at, why);
}

}  // namespace shoestring
