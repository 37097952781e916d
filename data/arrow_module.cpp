// Memory is bounded whatever the file claims: Arrow allocates from a capped pool, a few rows at a time, and its Thrift
// reader is held to what a footer of real files needs. Every batch is validated before a cell of it is looked at.
#include "data/arrow_module.h"

#include <arrow/api.h>
#include <arrow/io/api.h>
#include <arrow/ipc/api.h>
#include <arrow/util/future.h>
#include <fmt/format.h>
#include <parquet/arrow/reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr std::int64_t kPoolBytes = std::int64_t{1} << 30;
constexpr std::int64_t kBatchRows = 128;
constexpr std::int64_t kReadBytes = std::int64_t{1} << 20;
constexpr std::int32_t kThriftItems = 1 << 20;
constexpr std::int32_t kThriftBytes = 64 << 20;
constexpr int kDeepest = 32;  // structs in structs

void require(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.message());
}

template <class Value>
Value require(arrow::Result<Value> result) {
  require(result.status());
  return std::move(result).ValueUnsafe();
}

/// A column and the structs around it, outermost first: the path "data.text" is [data, text].
using ColumnPath = std::vector<const arrow::Array*>;

bool holds_bytes(arrow::Type::type type) {
  return type == arrow::Type::STRING || type == arrow::Type::LARGE_STRING || type == arrow::Type::BINARY ||
         type == arrow::Type::LARGE_BINARY || type == arrow::Type::STRING_VIEW || type == arrow::Type::BINARY_VIEW;
}

std::string_view binary_value(const arrow::Array& column, std::int64_t row) {
  switch (column.type_id()) {
    case arrow::Type::STRING:
    case arrow::Type::BINARY: return static_cast<const arrow::BinaryArray&>(column).GetView(row);
    case arrow::Type::LARGE_STRING:
    case arrow::Type::LARGE_BINARY: return static_cast<const arrow::LargeBinaryArray&>(column).GetView(row);
    default: return static_cast<const arrow::BinaryViewArray&>(column).GetView(row);
  }
}

// Arrow reads Arrow files ahead in threads of its own, which may still hold buffers of a pool that is gone with its
// table (version 26, where a file is damaged). Here each read is done when it is asked for, where it is asked for.
class PlainFile final : public arrow::io::RandomAccessFile {
 public:
  PlainFile(const char* path, arrow::MemoryPool* pool) : file_(require(arrow::io::ReadableFile::Open(path, pool))) {}

  arrow::Status Close() override { return file_->Close(); }
  bool closed() const override { return file_->closed(); }
  arrow::Result<std::int64_t> Tell() const override { return file_->Tell(); }
  arrow::Status Seek(std::int64_t position) override { return file_->Seek(position); }
  arrow::Result<std::int64_t> GetSize() override { return file_->GetSize(); }
  arrow::Result<std::int64_t> Read(std::int64_t bytes, void* out) override { return file_->Read(bytes, out); }
  arrow::Result<std::shared_ptr<arrow::Buffer>> Read(std::int64_t bytes) override { return file_->Read(bytes); }

  using RandomAccessFile::ReadAsync;
  using RandomAccessFile::ReadAt;
  arrow::Result<std::int64_t> ReadAt(std::int64_t position, std::int64_t bytes, void* out) override {
    return file_->ReadAt(position, bytes, out);
  }
  arrow::Result<std::shared_ptr<arrow::Buffer>> ReadAt(std::int64_t position, std::int64_t bytes) override {
    return file_->ReadAt(position, bytes);
  }
  arrow::Future<std::shared_ptr<arrow::Buffer>> ReadAsync(const arrow::io::IOContext& /*context*/,
                                                          std::int64_t position, std::int64_t bytes) override {
    return arrow::Future<std::shared_ptr<arrow::Buffer>>::MakeFinished(ReadAt(position, bytes));
  }
  // Overrides one that Arrow 26 has and earlier ones have not. NOLINTNEXTLINE(modernize-use-override)
  virtual arrow::Future<std::shared_ptr<arrow::Buffer>> ReadAsync(const arrow::io::IOContext& context,
                                                                  std::int64_t position, std::int64_t bytes,
                                                                  bool allow_short_read) {
    auto read = ReadAsync(context, position, bytes);
    if (allow_short_read || !read.status().ok() || (*read.result())->size() == bytes) return read;
    return arrow::Status::IOError(fmt::format("is cut off: {} bytes at byte {} are not there", bytes, position));
  }

 private:
  std::shared_ptr<arrow::io::ReadableFile> file_;
};

class Table {
 public:
  Table(const char* path, std::vector<std::string> fields) : fields_(std::move(fields)), shown_(fields_.size()) {
    const auto file = std::make_shared<PlainFile>(path, &pool_);
    const auto front = require(file->Read(6));
    require(file->Seek(0));  // a stream is read from where the file stands
    const std::string_view magic(reinterpret_cast<const char*>(front->data()), static_cast<std::size_t>(front->size()));
    if (magic.substr(0, 4) == "PAR1") {
      open_parquet(file);
    } else if (magic == "ARROW1") {
      file_ = require(arrow::ipc::RecordBatchFileReader::Open(file, ipc_options()));
      require_field(*file_->schema());
    } else {
      stream_ = require(arrow::ipc::RecordBatchStreamReader::Open(file, ipc_options()));
      require_field(*stream_->schema());
    }
  }

  bool next(ShoestringTableCell* cells) {
    while (!batch_ || row_ == batch_->num_rows()) {
      columns_.clear();
      kept_.clear();
      batch_ = next_batch();
      if (!batch_) return false;
      require(batch_->ValidateFull());
      row_ = 0;
      for (const std::string& field : fields_) columns_.push_back(column_of(field));
    }
    for (std::size_t at = 0; at < fields_.size(); ++at) cells[at] = cell(columns_[at], shown_[at]);
    ++row_;
    return true;
  }

 private:
  arrow::ipc::IpcReadOptions ipc_options() {
    auto options = arrow::ipc::IpcReadOptions::Defaults();
    options.memory_pool = &pool_;
    options.max_recursion_depth = kDeepest;
    options.use_threads = false;
    return options;
  }

  void open_parquet(const std::shared_ptr<arrow::io::RandomAccessFile>& file) {
    parquet::ReaderProperties properties(&pool_);
    properties.enable_buffered_stream();
    properties.set_buffer_size(kReadBytes);
    properties.set_thrift_container_size_limit(kThriftItems);
    properties.set_thrift_string_size_limit(kThriftBytes);
    parquet::ArrowReaderProperties to_arrow(false);
    to_arrow.set_batch_size(kBatchRows);
    to_arrow.set_pre_buffer(false);
    parquet::arrow::FileReaderBuilder builder;
    require(builder.Open(file, properties));
    builder.memory_pool(&pool_)->properties(to_arrow);
    parquet_ = require(builder.Build());
    const parquet::SchemaDescriptor& schema = *parquet_->parquet_reader()->metadata()->schema();
    std::vector<int> wanted;
    for (int column = 0; column < schema.num_columns(); ++column) {
      const std::string path = schema.Column(column)->path()->ToDotString();
      if (std::find(fields_.begin(), fields_.end(), path) != fields_.end()) wanted.push_back(column);
    }
    if (wanted.empty()) {
      std::shared_ptr<arrow::Schema> whole;
      require(parquet_->GetSchema(&whole));
      require_field(*whole);
    }
    std::vector<int> groups(static_cast<std::size_t>(parquet_->num_row_groups()));
    std::iota(groups.begin(), groups.end(), 0);
    stream_ = require(parquet_->GetRecordBatchReader(groups, wanted));
  }

  // Of a file that has none of the fields every row would be bad, and the reason lost.
  void require_field(const arrow::Schema& schema) const {
    for (const std::string& field : fields_) {
      if (schema.GetFieldByName(field) || schema.GetFieldByName(field.substr(0, field.find('.')))) return;
    }
    throw std::runtime_error(fmt::format("has no column {}; its columns are {}", fmt::join(fields_, ", "),
                                         fmt::join(schema.field_names(), ", ")));
  }

  std::shared_ptr<arrow::RecordBatch> next_batch() {
    if (stream_) return require(stream_->Next());
    if (batches_ == file_->num_record_batches()) return nullptr;
    return require(file_->ReadRecordBatch(batches_++));
  }

  // Empty where there is none. A name that holds dots itself is found before a path is walked, as in lines of JSON.
  ColumnPath column_of(std::string_view field) const {
    std::shared_ptr<arrow::Array> column = batch_->GetColumnByName(std::string(field));
    if (column) return {kept_.emplace_back(column).get()};
    std::size_t dot = std::min(field.find('.'), field.size());
    column = batch_->GetColumnByName(std::string(field.substr(0, dot)));
    ColumnPath path;
    while (column) {
      path.push_back(kept_.emplace_back(column).get());
      field.remove_prefix(std::min(dot + 1, field.size()));
      if (field.empty()) return path;
      if (column->type_id() != arrow::Type::STRUCT || path.size() > kDeepest) return {};
      dot = std::min(field.find('.'), field.size());
      column = static_cast<const arrow::StructArray&>(*column).GetFieldByName(std::string(field.substr(0, dot)));
    }
    return {};
  }

  ShoestringTableCell cell(const ColumnPath& path, std::string& shown) const {
    if (path.empty()) return {nullptr, 0, 0};
    for (const arrow::Array* around : path) {
      if (around->IsNull(row_)) return {nullptr, 0, 0};
    }
    const arrow::Array* column = path.back();
    std::int64_t row = row_;
    if (column->type_id() == arrow::Type::DICTIONARY) {
      const auto& encoded = static_cast<const arrow::DictionaryArray&>(*column);
      row = encoded.GetValueIndex(row);
      column = encoded.dictionary().get();
      if (column->IsNull(row)) return {nullptr, 0, 0};
    }
    if (holds_bytes(column->type_id())) {
      const std::string_view value = binary_value(*column, row);
      return {value.data() == nullptr ? "" : value.data(), static_cast<std::int64_t>(value.size()), 1};
    }
    const arrow::Type::type type = column->type_id();
    if (!arrow::is_integer(type) && !arrow::is_floating(type) && type != arrow::Type::BOOL) return {nullptr, 0, 0};
    shown = require(column->GetScalar(row))->ToString();
    return {shown.data(), static_cast<std::int64_t>(shown.size()), 0};
  }

  arrow::CappedMemoryPool pool_{arrow::default_memory_pool(), kPoolBytes};  // outlives what lies in it
  std::vector<std::string> fields_;
  mutable std::vector<std::string> shown_;  // numbers and flags of the row, as text
  std::unique_ptr<parquet::arrow::FileReader> parquet_;
  std::shared_ptr<arrow::RecordBatchReader> stream_;
  std::shared_ptr<arrow::ipc::RecordBatchFileReader> file_;
  int batches_ = 0;  // read of file_
  std::shared_ptr<arrow::RecordBatch> batch_;
  mutable std::vector<std::shared_ptr<arrow::Array>> kept_;  // what columns_ points at
  std::vector<ColumnPath> columns_;                          // of batch_, by field
  std::int64_t row_ = 0;
};

void tell(std::string_view reason, char* why, std::size_t why_bytes) {
  const std::size_t bytes = std::min(reason.size(), why_bytes - 1);
  std::memcpy(why, reason.data(), bytes);
  why[bytes] = '\0';
}

}  // namespace

void* shoestring_table_open(const char* path, const char* const* fields, int count, char* why, std::size_t why_bytes) {
  try {
    return std::make_unique<Table>(path, std::vector<std::string>(fields, fields + count)).release();
  } catch (const std::exception& exception) {
    tell(exception.what(), why, why_bytes);
    return nullptr;
  }
}

int shoestring_table_next(void* table, ShoestringTableCell* cells, char* why, std::size_t why_bytes) {
  try {
    return static_cast<Table*>(table)->next(cells) ? 1 : 0;
  } catch (const std::exception& exception) {
    tell(exception.what(), why, why_bytes);
    return -1;
  }
}

void shoestring_table_close(void* table) { delete static_cast<Table*>(table); }
