#include "core/model/micro_batch.h"

#include <gtest/gtest.h>

#include "kernels/base/check.h"
#include "kernels/base/workers.h"

namespace shoestring {
namespace {

std::vector<std::int32_t> ids(ConstTensorView view) {
  return {view.as<std::int32_t>(), view.as<std::int32_t>() + view.elements()};
}

class MicroBatchTest : public ::testing::Test {
 protected:
  const std::vector<std::int32_t> inputs_{10, 11, 12, 20, 21, 30, 31, 32};
  const std::vector<std::int32_t> targets_{11, 12, -1, 21, 22, 31, 32, -1};
  const std::vector<std::int32_t> starts_{0, 0, 0, 3, 3, 5, 5, 5};
  Workers workers_{1};
  Stream stream_{workers_};
};

// Places in documents; targets of the further token only where the next token is of the same document.
TEST_F(MicroBatchTest, PlacesAndFurtherTargetsRespectDocuments) {
  MicroBatch batch({16, 2, 1}, {}, {});
  batch.fill({inputs_, targets_, starts_, 4}, 3, stream_);
  EXPECT_EQ(batch.number(), 3);
  EXPECT_EQ(batch.tokens(), 8);
  EXPECT_EQ(ids(batch.inputs()), inputs_);
  EXPECT_EQ(ids(batch.targets(Depth::next)), targets_);
  EXPECT_EQ(ids(batch.targets(Depth::further)), (std::vector<std::int32_t>{12, -1, -1, 22, -1, 32, -1, -1}));
  EXPECT_EQ(ids(batch.next_ids()), (std::vector<std::int32_t>{11, 12, 12, 21, 21, 31, 32, 32}));
  EXPECT_EQ(ids(batch.layout().positions), (std::vector<std::int32_t>{0, 1, 2, 0, 1, 0, 1, 2}));
  EXPECT_EQ(ids(batch.layout().segment_start), starts_);
  EXPECT_EQ(ids(batch.layout().sequence_starts), (std::vector<std::int32_t>{0, 4, 8}));
  const std::span<const std::int32_t> documents = batch.layout().document_starts;
  EXPECT_EQ(std::vector<std::int32_t>(documents.begin(), documents.end()), (std::vector<std::int32_t>{0, 3, 5, 8}));
}

TEST_F(MicroBatchTest, BringsTheColumnsThatAreAskedFor) {
  MicroBatch batch({8, 1, 1}, {{"advantage"}, {"teacher", 2}}, {});
  std::vector<float> advantages(8);
  std::vector<float> teacher(16);
  for (std::size_t i = 0; i < teacher.size(); ++i) teacher[i] = 0.5F * static_cast<float>(i);
  const std::vector<ColumnView> columns{{"teacher", teacher}, {"unread", advantages}, {"advantage", advantages}};
  batch.fill({inputs_, targets_, starts_, 8, columns}, 0, stream_);
  EXPECT_EQ(batch.column("teacher").shape, (Shape{8, 2}));
  EXPECT_EQ(batch.column("teacher").as<float>()[15], 7.5F);
  EXPECT_THROW(batch.column("unread"), Error);
  const std::vector<ColumnView> too_short{{"teacher", advantages}, {"advantage", advantages}};
  EXPECT_THROW(batch.fill({inputs_, targets_, starts_, 8, too_short}, 0, stream_), Error);
  EXPECT_THROW(batch.fill({inputs_, targets_, starts_, 8}, 0, stream_), Error);
}

TEST_F(MicroBatchTest, RefusesWhatWasNotPlanned) {
  MicroBatch batch({8, 1, 1}, {}, {});
  EXPECT_THROW(batch.fill({inputs_, targets_, starts_, 4}, 0, stream_), Error);  // two sequences
  EXPECT_THROW(batch.fill({inputs_, targets_, starts_, 3}, 0, stream_), Error);  // no whole number of them
  const std::span<const std::int32_t> fewer = std::span(targets_).first(7);
  EXPECT_THROW(batch.fill({inputs_, fewer, starts_, 8}, 0, stream_), Error);
}

}  // namespace
}  // namespace shoestring
