// cuDNN, loaded at first use, and its descriptors, for attention_cudnn_graph.cpp.
#pragma once

#include <cudnn_graph.h>

#include <cstdint>
#include <string>
#include <utility>

namespace shoestring::attention::cudnn {

/// The functions of the library that are used here, by name.
struct Library {
  decltype(&cudnnGetVersion) version = nullptr;
  decltype(&cudnnGetErrorString) status = nullptr;
  decltype(&cudnnGetLastErrorString) last_error = nullptr;
  decltype(&cudnnCreate) create = nullptr;
  decltype(&cudnnSetStream) set_stream = nullptr;
  decltype(&cudnnBackendCreateDescriptor) make = nullptr;
  decltype(&cudnnBackendDestroyDescriptor) destroy = nullptr;
  decltype(&cudnnBackendSetAttribute) set = nullptr;
  decltype(&cudnnBackendGetAttribute) get = nullptr;
  decltype(&cudnnBackendFinalize) finalize = nullptr;
  decltype(&cudnnBackendExecute) execute = nullptr;
  std::string fault;  ///< why it cannot be used; empty when it can
};

/// Of this process; `fault` is asked first.
const Library& library();

std::string version_text(std::size_t version);
/// With what the library last said.
std::string text_of(cudnnStatus_t status);
/// Throws Error(bug) naming the call.
void dnn_check(cudnnStatus_t status, const char* call);

/// A descriptor of the library; made, filled, finalized.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) { dnn_check(library().make(type, &made_), "a descriptor"); }
  ~Descriptor() {
    if (made_ != nullptr) library().destroy(made_);
  }
  Descriptor(Descriptor&& other) noexcept : made_(std::exchange(other.made_, nullptr)) {}
  Descriptor& operator=(Descriptor&&) = delete;

  cudnnBackendDescriptor_t get() const { return made_; }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, std::int64_t count,
                  const void* values) {
    dnn_check(library().set(made_, name, type, count, values), "an attribute");
    return *this;
  }
  Descriptor& set(cudnnBackendAttributeName_t name, std::int64_t value) {
    return set(name, CUDNN_TYPE_INT64, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, bool value) { return set(name, CUDNN_TYPE_BOOLEAN, 1, &value); }
  Descriptor& set(cudnnBackendAttributeName_t name, cudnnDataType_t value) {
    return set(name, CUDNN_TYPE_DATA_TYPE, 1, &value);
  }
  Descriptor& set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    return set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value.made_);
  }
  Descriptor& finalize(const char* what) {
    dnn_check(library().finalize(made_), what);
    return *this;
  }
  cudnnStatus_t try_finalize() { return library().finalize(made_); }

 private:
  cudnnBackendDescriptor_t made_ = nullptr;
};

}  // namespace shoestring::attention::cudnn
