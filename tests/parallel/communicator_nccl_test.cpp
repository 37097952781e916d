#include "parallel/communicator_nccl.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "kernels/base/copy.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

TEST(NcclCommunicator, RefusesClearlyWhereItCannotRun) {
  const std::string reason = nccl_refusal();
  if (reason.empty()) GTEST_SKIP() << "NCCL can be used here";
  const auto self = self_communicator();
  Workers workers(1);
  Stream stream(workers);
  try {
    nccl_communicator(*self, stream);
    ADD_FAILURE() << "made without a device";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::missing_input);
    EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
  }
}

TEST(NcclCommunicator, OneRankOnOneDevice) {
  if (!nccl_refusal().empty()) GTEST_SKIP() << nccl_refusal();
  Stream stream(Device{DeviceKind::cuda, 0});
  const auto self = self_communicator();
  const auto nccl = nccl_communicator(*self, stream);
  EXPECT_EQ(nccl->size(), 1);
  std::vector<float> values = {1, 2, 3, 4};
  Tensor sent(DType::f32, {4}, stream.device());
  Tensor received(DType::f32, {4}, stream.device());
  copy(sent, view_of(static_cast<const void*>(values.data()), DType::f32, {4}), stream);
  nccl->group_begin();
  nccl->send(sent, 0);
  nccl->recv(received, 0);
  nccl->group_end();
  std::vector<float> back(4);
  copy(view_of(back.data(), DType::f32, {4}), received, stream);
  stream.synchronize();
  EXPECT_EQ(back, values);
}

}  // namespace
}  // namespace shoestring
