#include "data/batch_reader.h"

#include <xxhash.h>

#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/base/check.h"
#include "kernels/base/thread.h"

namespace shoestring {

struct BatchReader::State {
  State(CorpusOptions corpus, std::int64_t bytes) : reader(std::move(corpus)), batch_bytes(bytes) {}

  CorpusReader reader;  ///< the thread's, until `ended`
  std::int64_t batch_bytes;

  std::mutex mutex;
  std::condition_variable changed;
  bool full = false;  ///< `batch` holds the next one, or `ended` says that there is none
  bool stop = false;
  std::vector<Document> batch;
  std::int64_t read_bytes = 0;
  bool ended = false;
  std::exception_ptr fault;

  std::int64_t given_bytes = 0;  ///< the consumer's: read_bytes of the last batch it took
  std::thread thread;

  void fill(std::vector<Document>& into) {
    into.clear();
    std::int64_t bytes = 0;
    Document document;
    while (bytes < batch_bytes && reader.next(document)) {
      bytes += static_cast<std::int64_t>(document.text.size());
      into.push_back(std::move(document));
    }
  }

  void serve() {
    std::vector<Document> next;
    while (true) {
      std::exception_ptr thrown;
      try {
        fill(next);
      } catch (...) {
        thrown = std::current_exception();
      }
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return stop || !full; });
      if (stop) return;
      batch.swap(next);
      read_bytes = reader.read_bytes();
      fault = thrown;
      ended = thrown != nullptr || batch.empty();
      full = true;
      changed.notify_all();
      if (ended) return;
    }
  }
};

BatchReader::BatchReader(const CorpusBuildOptions& options, std::int64_t lines_before) {
  CorpusOptions corpus = options.corpus;
  corpus.part.lines_before = lines_before;
  state_ = std::make_unique<State>(std::move(corpus), options.batch_bytes);
  try {
    state_->thread = make_thread([state = state_.get()] { state->serve(); });
  } catch (const std::system_error& error) {
    fail(ExitCode::io, "cannot make the thread that reads the corpus: {}; {}", error.code().message(), thread_limits());
  }
}

BatchReader::~BatchReader() {
  {
    const std::scoped_lock lock(state_->mutex);
    state_->stop = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

bool BatchReader::next(std::vector<Document>& batch) {
  State& state = *state_;
  std::unique_lock lock(state.mutex);
  state.changed.wait(lock, [&] { return state.full; });
  if (state.fault) std::rethrow_exception(state.fault);
  state.given_bytes = state.read_bytes;
  if (state.ended) return false;
  batch.swap(state.batch);
  state.full = false;
  lock.unlock();
  state.changed.notify_all();
  return true;
}

std::int64_t BatchReader::read_bytes() const { return state_->given_bytes; }
const CorpusCounts& BatchReader::counts() const { return state_->reader.counts(); }
const LinesAcross& BatchReader::lines_across() const { return state_->reader.lines_across(); }

void PassDigest::add(const std::array<std::uint64_t, 2>& content) {
  const std::array<std::uint64_t, 3> both = {value_, content[0], content[1]};
  value_ = XXH3_64bits(both.data(), sizeof both);
}

}  // namespace shoestring
