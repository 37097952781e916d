// Typed access to the keys of a Hugging Face config.json, for the families that read it.
//
// The file is foreign: a value of another kind, out of range, or of a meaning that this program does not have is an
// Error(bad_data) that names the key and quotes the value. Null and absent are the same, but for `says_null`.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "kernels/base/json.h"

namespace shoestring {

class ConfigKeys {
 public:
  /// Borrows `object`; `where` stands before each complaint.
  explicit ConfigKeys(const Json& object, std::string where = "config.json");

  /// nullptr where the key is absent or null.
  const Json* find(const char* key) const;
  /// Whether the key is there with null, which transformers takes for false where absent means its default.
  bool says_null(const char* key) const;

  // Each is an Error where the key is absent and `otherwise` is not given.
  std::int64_t integer(const char* key, std::optional<std::int64_t> otherwise = {}) const;
  double number(const char* key, std::optional<double> otherwise = {}) const;
  bool boolean(const char* key, std::optional<bool> otherwise = {}) const;
  std::string string(const char* key, std::optional<std::string> otherwise = {}) const;

  /// The value of the one of two keys that is there; where both are, they must agree.
  std::int64_t integer_under(const char* key, const char* other) const;

  /// Throws that the key's value is not supported; `why` says more.
  void refuse_unless(bool supported, const char* key, const std::string& why = {}) const;

 private:
  template <class T>
  T absent(const char* key, std::optional<T> otherwise) const;

  const Json& object_;
  std::string where_;
};

}  // namespace shoestring
