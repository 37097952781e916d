// Shards as h5py sees them; label `oracle`. The script is tests/oracle/shard_h5py.py.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "data/shard_writer.h"
#include "tests/data/shard_fixture.h"

namespace shoestring {
namespace {

using namespace shoestring::testing;

TEST(ShardOracle, H5pyReadsTheSameDocuments) {
  const std::string python = SHOESTRING_ORACLE_PYTHON;
  if (python.empty()) GTEST_SKIP() << "no Python: set SHOESTRING_ORACLE_PYTHON";
  const ShardFolder folder;
  for (const std::uint32_t vocabulary : {1000u, 65536u, 129280u}) {
    const Documents documents = make_documents(200, 200, vocabulary, vocabulary);
    write_shard(folder / "a.h5", documents, vocabulary);
    std::ofstream expected(folder / "a.txt");
    for (const auto& document : documents) {
      for (const std::uint32_t id : document) expected << id << ' ';
      expected << '\n';
    }
    expected.close();
    const std::string command = fmt::format("'{}' '{}' '{}' '{}'", python, SHOESTRING_ORACLE_SCRIPTS "/shard_h5py.py",
                                            folder / "a.h5", folder / "a.txt");
    const int status = std::system(command.c_str());
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "the Python at " << python << " has no h5py";
    EXPECT_EQ(status, 0) << command;
  }
}

}  // namespace
}  // namespace shoestring
