#include "tests/emulator/symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>

namespace emulator {
namespace {

struct Table {
  std::vector<Symbol> kernels;
  std::vector<Symbol> variables;
};

std::uintptr_t load_address() {
  std::uintptr_t address = 0;
  dl_iterate_phdr(
      [](dl_phdr_info* program, std::size_t, void* out) {
        *static_cast<std::uintptr_t*>(out) = program->dlpi_addr;
        return 1;  // the first is the program itself
      },
      &address);
  return address;
}

std::string demangled(const char* mangled) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(mangled, nullptr, nullptr, &status), std::free);
  return status == 0 ? std::string(name.get()) : std::string(mangled);
}

/// Whether `name` is a function called `*_kernel`, or an instance of one, and not a clone of it or a thing inside.
bool names_kernel(const std::string& name) {
  if (name.find("{lambda") != std::string::npos || name.find("[clone") != std::string::npos) return false;
  for (std::size_t at = name.find("_kernel"); at != std::string::npos; at = name.find("_kernel", at + 1)) {
    if (const char next = name[at + 7]; next == '<' || next == '(') return true;
  }
  return false;
}

Table read() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), {}};
  const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(image.data());
  const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(image.data() + header->e_shoff);
  const std::uintptr_t base = load_address();
  Table table;
  for (int s = 0; s < header->e_shnum; ++s) {
    if (sections[s].sh_type != SHT_SYMTAB) continue;
    const char* strings = image.data() + sections[sections[s].sh_link].sh_offset;
    const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(image.data() + sections[s].sh_offset);
    for (std::size_t i = 0; i < sections[s].sh_size / sizeof(*symbols); ++i) {
      const ElfW(Sym)& symbol = symbols[i];
      const int type = ELF64_ST_TYPE(symbol.st_info);
      if (symbol.st_shndx == SHN_UNDEF || symbol.st_shndx >= SHN_LORESERVE) continue;
      const std::string mangled = strings + symbol.st_name;
      if (mangled.find("4cuda") == std::string::npos || mangled.rfind("_Z", 0) != 0) continue;
      const std::string name = demangled(mangled.c_str());
      const Symbol found{name, reinterpret_cast<void*>(base + symbol.st_value), symbol.st_size};
      const bool writable = (sections[symbol.st_shndx].sh_flags & SHF_WRITE) != 0;
      if (type == STT_FUNC && names_kernel(name)) table.kernels.push_back(found);
      if (type == STT_OBJECT && writable && mangled.rfind("_ZZ", 0) == 0) table.variables.push_back(found);
    }
  }
  if (table.kernels.empty()) throw std::runtime_error("this program has no symbol table, or no kernels");
  return table;
}

const Table& table() {
  static const Table instance = read();
  return instance;
}

}  // namespace

const std::vector<Symbol>& kernels() { return table().kernels; }
const std::vector<Symbol>& shared_variables() { return table().variables; }

}  // namespace emulator
