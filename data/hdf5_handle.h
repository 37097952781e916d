// Internal to shard.cpp and shard_writer.cpp: HDF5's C API with owners, and with its error stack as text.
#pragma once

#include <hdf5.h>

#include <string>
#include <utility>

namespace shoestring {

/// Owns one HDF5 identifier.
class Hdf5Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Hdf5Handle(hid_t id, Close close) : id_(id), close_(close) {}
  ~Hdf5Handle() { reset(); }
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Hdf5Handle& operator=(Hdf5Handle&&) = delete;
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;

  bool valid() const { return id_ >= 0; }
  hid_t id() const { return id_; }
  /// Closes now; false when HDF5 reports a fault (a flush that did not reach the disk).
  bool reset() {
    const hid_t id = std::exchange(id_, -1);
    return id < 0 || close_(id) >= 0;
  }

 private:
  hid_t id_;
  Close close_;
};

/// While alive, HDF5 keeps this thread's errors to itself instead of printing them. Also forbids, for the process, the
/// loading of filter plugins that a file may ask for.
class Hdf5Quiet {
 public:
  Hdf5Quiet() {
    // Every identifier here has an owner; the library's own closing at exit can loop over a file that failed to open.
    static const herr_t no_closing_at_exit = H5dont_atexit();
    static_cast<void>(no_closing_at_exit);
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
    H5PLset_loading_state(0);
  }
  ~Hdf5Quiet() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }
  Hdf5Quiet(const Hdf5Quiet&) = delete;
  Hdf5Quiet& operator=(const Hdf5Quiet&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

/// The innermost entry of this thread's HDF5 error stack: what went wrong, not who passed it on.
inline std::string hdf5_error_text() {
  std::string text = "HDF5 gave no reason";
  const auto first = [](unsigned depth, const H5E_error2_t* error, void* out) -> herr_t {
    if (depth == 0 && error->desc != nullptr) *static_cast<std::string*>(out) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &text);
  return text;
}

}  // namespace shoestring
