#include "parallel/communicator_nccl.h"

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

#include "kernels/base/copy.h"
#include "kernels/base/workers.h"
#include "tests/parallel/communicator_conformance.h"
#include "tests/parallel/staged_communicator.h"
#include "tests/support/ranks.h"

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

// What carries the conformance cases to device memory below, where threads can check it.
TEST(StagedCommunicator, PassesTheRulesOn) {
  for (const int ranks : {1, 2, 3}) {
    for (const testing::ConformanceCase& conformance : testing::conformance_cases()) {
      SCOPED_TRACE(conformance.name);
      ThreadWorld world(ranks);
      testing::run_ranks(ranks, [&](Communicator& outer) {
        Workers workers(1);
        Stream stream(workers);
        const auto staged = testing::staged(world.communicator(outer.rank()), stream);
        staged->set_timeout(outer.timeout_seconds());
        conformance.run(*staged);
      });
    }
  }
}

/// One rank on one device: all that NCCL grants on one, as it refuses two ranks the same device.
class NcclOneRank : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!nccl_refusal().empty()) GTEST_SKIP() << nccl_refusal();
    stream_.emplace(Device{DeviceKind::cuda, 0});
    self_ = self_communicator();
    nccl_ = nccl_communicator(*self_, *stream_);
  }

  /// `elements` of `dtype` on the device, no two neighbours alike.
  Tensor content(DType dtype, std::int64_t elements) {
    Tensor host(dtype, {elements});
    for (std::int64_t i = 0; i < host.bytes(); ++i) host.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(1 + i % 61);
    Tensor values(dtype, {elements}, stream_->device());
    copy(values, host, *stream_);
    stream_->synchronize();  // before `host` goes
    return values;
  }
  Tensor zeros(DType dtype, std::int64_t elements) { return {dtype, {elements}, stream_->device()}; }
  std::vector<std::uint8_t> bytes(ConstTensorView values) {
    Tensor host(values.dtype, values.shape);
    copy(host, values, *stream_);
    stream_->synchronize();
    return {host.as<std::uint8_t>(), host.as<std::uint8_t>() + host.bytes()};
  }

  std::optional<Stream> stream_;
  std::unique_ptr<Communicator> self_;
  std::unique_ptr<Communicator> nccl_;
};

TEST_F(NcclOneRank, EveryCaseOfTheOtherBackEnds) {
  const auto staged = testing::staged(std::move(nccl_), *stream_);
  for (const testing::ConformanceCase& conformance : testing::conformance_cases()) {
    // NCCL refuses at once a message to oneself without its other half: see below.
    if (std::string_view(conformance.name) == "waiting_too_long_is_an_error") continue;
    SCOPED_TRACE(conformance.name);
    conformance.run(*staged);
  }
}

TEST_F(NcclOneRank, MovesEveryFormat) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::e4m3, DType::e5m2, DType::e8m0, DType::i64,
                            DType::i32, DType::u16, DType::u8}) {
    SCOPED_TRACE(name(dtype));
    const std::int64_t elements = 33;
    Tensor sent = content(dtype, elements);
    const std::vector<std::uint8_t> want = bytes(sent);
    Tensor gathered = zeros(dtype, elements);
    nccl_->all_gather(gathered, sent);
    EXPECT_EQ(bytes(gathered), want);
    nccl_->all_gather(sent, sent);
    EXPECT_EQ(bytes(sent), want) << "in place";

    Tensor exchanged = zeros(dtype, elements + 5);
    const std::int64_t count = elements;
    nccl_->all_to_all_v(exchanged, {&count, 1}, sent, {&count, 1});
    EXPECT_EQ(bytes(exchanged.view().slice(0, 0, elements)), want);
    EXPECT_EQ(bytes(exchanged.view().slice(0, elements, 5)), bytes(zeros(dtype, 5))) << "what was not received";
  }
}

TEST_F(NcclOneRank, ReducesTheFormatsOfSums) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::i64, DType::i32}) {
    SCOPED_TRACE(name(dtype));
    for (const Reduction reduction : {Reduction::sum, Reduction::max}) {
      Tensor sent = content(dtype, 33);
      Tensor received = zeros(dtype, 33);
      nccl_->reduce_scatter(received, sent, reduction);
      EXPECT_EQ(bytes(received), bytes(sent));
    }
  }
  Tensor narrow = content(DType::e4m3, 33);
  Tensor received = zeros(DType::e4m3, 33);
  EXPECT_THROW(nccl_->reduce_scatter(received, narrow), Error);
  EXPECT_NO_THROW(nccl_->all_gather(received, narrow)) << "a refused call harms nothing";
}

TEST_F(NcclOneRank, Splits) {
  const auto child = nccl_->split(0, 0, "all");
  ASSERT_NE(child, nullptr);
  EXPECT_EQ(child->rank(), 0);
  EXPECT_EQ(child->size(), 1);
  EXPECT_EQ(nccl_->split(-1, 0), nullptr);
  EXPECT_EQ(child->split(-5, 0), nullptr);
  const auto grandchild = child->split(7, 3);
  Tensor sent = content(DType::f32, 100);
  for (Communicator* communicator : {nccl_.get(), child.get(), grandchild.get()}) {
    Tensor received = zeros(DType::f32, 100);
    communicator->all_gather(received, sent);
    EXPECT_EQ(bytes(received), bytes(sent)) << communicator->name();
  }
}

TEST_F(NcclOneRank, SaysWhenMessagesAreThrough) {
  Tensor sent = content(DType::f32, 1 << 20);
  Tensor received = zeros(DType::f32, 1 << 20);
  nccl_->group_begin();
  nccl_->send(sent, 0);
  nccl_->recv(received, 0);
  Pending pending = nccl_->group_post();
  while (!pending.finished()) {
  }
  pending.wait();
  EXPECT_EQ(bytes(received), bytes(sent));
}

TEST_F(NcclOneRank, AnErrorEndsTheCommunicatorAndItsSplits) {
  const auto child = nccl_->split(0, 0);
  Tensor values = content(DType::f32, 8);
  Tensor received = zeros(DType::f32, 8);
  EXPECT_THROW(child->recv(received, 0), Error) << "a message to oneself that nobody sends";
  EXPECT_THROW(child->all_gather(received, values), Error);
  EXPECT_THROW(nccl_->all_gather(received, values), Error);
  EXPECT_THROW(nccl_->split(0, 0), Error);
  // Nothing of it is left on this thread: neither an open group nor an error.
  const auto next = nccl_communicator(*self_, *stream_);
  next->all_gather(received, values);
  EXPECT_EQ(bytes(received), bytes(values));
}

TEST_F(NcclOneRank, AnAbortEndsItToo) {
  const auto child = nccl_->split(0, 0);
  nccl_->abort(ExitCode::no_progress, "stuck");
  nccl_->abort(ExitCode::no_progress, "stuck");
  Tensor values = content(DType::f32, 8);
  Tensor received = zeros(DType::f32, 8);
  for (Communicator* communicator : {nccl_.get(), child.get()}) {
    try {
      communicator->all_gather(received, values);
      ADD_FAILURE() << "an operation of a communicator that was aborted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::no_progress);
      EXPECT_NE(std::string(error.what()).find("stuck"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace shoestring
