#include "data/table_file.h"

#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "data/arrow_module.h"
#include "kernels/base/check.h"

namespace shoestring {
namespace {

using namespace std::string_view_literals;

constexpr const char* kModule = "shoestring_arrow.so";

struct Module {
  decltype(&shoestring_table_open) open = nullptr;
  decltype(&shoestring_table_next) next = nullptr;
  decltype(&shoestring_table_close) close = nullptr;
  std::string fault;

  Module() {
    std::error_code unreadable;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", unreadable);
    void* library = dlopen((program.parent_path() / kModule).c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) library = dlopen(kModule, RTLD_NOW | RTLD_LOCAL);  // as in lib/ of a package
    if (library == nullptr) {
      const char* reason = dlerror();
      fault = reason == nullptr ? "it cannot be loaded" : reason;
      return;
    }
    open = reinterpret_cast<decltype(open)>(dlsym(library, "shoestring_table_open"));
    next = reinterpret_cast<decltype(next)>(dlsym(library, "shoestring_table_next"));
    close = reinterpret_cast<decltype(close)>(dlsym(library, "shoestring_table_close"));
    if (open == nullptr || next == nullptr || close == nullptr) fault = fmt::format("{} is of another build", kModule);
  }
};

const Module& module() {
  static const Module loaded;
  return loaded;
}

std::string_view text_in(const ShoestringTableCell& cell) { return {cell.text, static_cast<std::size_t>(cell.bytes)}; }

}  // namespace

// An Arrow stream begins with the mark of an encapsulated message and the length of its schema, a multiple of 8.
bool TableFile::begins(std::string_view front) {
  if (front.starts_with("PAR1"sv) || front.starts_with("ARROW1"sv)) return true;
  return front.size() > 8 && front.starts_with("\xFF\xFF\xFF\xFF"sv) && front[4] % 8 == 0 && front[7] == '\0' &&
         front.substr(4, 4) != "\0\0\0\0"sv;
}

const std::string& TableFile::unavailable() { return module().fault; }

TableFile::TableFile(std::filesystem::path path, const LineFields& fields) : path_(std::move(path)), fields_(fields) {
  check(unavailable().empty(), "a table is opened where none can be read");
  std::vector<const char*> names;
  for (const std::string& field : fields_.text) names.push_back(field.c_str());
  for (const FieldFilter& filter : fields_.where) names.push_back(filter.path.c_str());
  std::array<char, 512> why{};
  table_ = module().open(path_.c_str(), names.data(), static_cast<int>(names.size()), why.data(), why.size());
  if (table_ == nullptr) refuse(why.data());
}

TableFile::~TableFile() { module().close(table_); }

bool TableFile::next(LineText& row) {
  std::vector<ShoestringTableCell> cells(fields_.text.size() + fields_.where.size());
  std::array<char, 512> why{};
  const int result = module().next(table_, cells.data(), why.data(), why.size());
  if (result < 0) refuse(why.data());
  if (result == 0) return false;
  ++rows_;
  row = {};
  for (std::size_t at = 0; at < fields_.where.size(); ++at) {
    const ShoestringTableCell& cell = cells[fields_.text.size() + at];
    row.wanted = row.wanted && cell.text != nullptr && text_in(cell) == fields_.where[at].value;
  }
  for (std::size_t at = 0; at < fields_.text.size(); ++at) {
    if (cells[at].text == nullptr || cells[at].is_text == 0) {
      row.absent.push_back(at);
      continue;
    }
    if (row.text) *row.text += "\n\n";
    row.text = row.text.value_or("");
    row.text->append(text_in(cells[at]));
  }
  return true;
}

void TableFile::refuse(std::string_view why) const {
  fail(ExitCode::bad_data, "{}: cannot be read as a table behind row {}: {}; fetch the file anew or leave it out",
       path_.string(), rows_, why);
}

}  // namespace shoestring
