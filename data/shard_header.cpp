#include "data/shard_header.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "data/byte_cursor.h"
#include "data/shard_format.h"
#include "kernels/base/check.h"

// Numbers of the format are little-endian. Its specification: HDF5 File Format 3.0, sections II.A (superblock),
// IV.A.1.b (object header of version 2) and IV.A.2 (messages).

namespace shoestring::shard_header {

namespace format = shard_format;

void refuse(const std::string& path, const std::string& rule) {
  fail(ExitCode::bad_data,
       "{}: not a sound token shard: {}; restore the file from a copy or rebuild it with `shoestring data build`", path,
       rule);
}

namespace {

constexpr std::uint64_t kUndefined = ~std::uint64_t{0};  // the address of nothing
constexpr std::uint64_t kMostChunkBytes = 64 * 1024;     // of one piece of an object header: ours have less than 2 KiB
constexpr std::size_t kMostChunks = 16;
constexpr std::size_t kMostMessages = 256;
constexpr std::size_t kLongestName = 64;

enum Kind : int {
  nothing = 0x00,
  dataspace = 0x01,
  link_info = 0x02,
  datatype = 0x03,
  fill_value = 0x05,
  link = 0x06,
  external_files = 0x07,
  layout = 0x08,
  group_info = 0x0A,
  filters = 0x0B,
  attribute = 0x0C,
  continuation = 0x10,
  attribute_info = 0x15,
  reference_count = 0x16
};

struct Message {
  int kind = 0;
  std::vector<unsigned char> bytes;
};

/// One object's messages.
using Header = std::vector<Message>;

const Message* find(const Header& header, Kind kind) {
  const auto found = std::find_if(header.begin(), header.end(), [&](const Message& m) { return m.kind == kind; });
  return found == header.end() ? nullptr : &*found;
}

class Walk {
 public:
  Walk(const ShardFile& file, const StoragePatience& patience)
      : path_(file.path()), file_bytes_(file.bytes()), file_(file), patience_(patience) {}

  void run() { root(superblock()); }

 private:
  template <class... Values>
  void require(bool holds, fmt::format_string<Values...> rule, Values&&... values) const {
    if (!holds) refuse(path_, fmt::format(rule, std::forward<Values>(values)...));
  }

  std::vector<unsigned char> read(std::uint64_t address, std::uint64_t bytes, const std::string& what);
  std::uint64_t superblock();
  Header header_at(std::uint64_t address, const std::string& what);
  void messages(ByteCursor chunk, bool ordered, const std::string& what, Header& header,
                std::vector<std::pair<std::uint64_t, std::uint64_t>>& more) const;
  void root(std::uint64_t address);
  std::pair<std::string, std::uint64_t> link_of(const Message& message) const;
  void dataset(const std::string& name, std::uint64_t address);
  void once(const Header& header, std::initializer_list<Kind> kinds, const std::string& what) const;
  void no_storage(const Message& message, const std::string& what) const;
  void group_bytes(const Message& message) const;
  void attribute_bytes(const Message& message) const;
  std::uint64_t type_bytes(ByteCursor type, bool text, const std::string& what) const;

  const std::string& path_;
  std::uint64_t file_bytes_;
  const ShardFile& file_;
  const StoragePatience& patience_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> taken_;  // begin and end of what was read so far
};

/// No two pieces of metadata share bytes: the library keeps each under its address.
std::vector<unsigned char> Walk::read(std::uint64_t address, std::uint64_t bytes, const std::string& what) {
  require(address <= file_bytes_ && bytes <= file_bytes_ - address, "{} lies at byte {}, outside the file", what,
          address);
  for (const auto& [begin, end] : taken_) {
    require(address >= end || address + bytes <= begin, "{} lies where other metadata does", what);
  }
  taken_.emplace_back(address, address + bytes);
  std::vector<unsigned char> content(bytes);
  file_.read(address, bytes, content.data(), patience_);
  return content;
}

/// Returns the root group's address. Version 3 of the superblock comes with bounds V110: all metadata behind it carries
/// checksums. Its end-of-file address catches a cut tail before the library meets it.
std::uint64_t Walk::superblock() {
  constexpr std::uint64_t kBytes = 48;
  require(file_bytes_ >= kBytes, "{} bytes are too few for an HDF5 file", file_bytes_);
  const std::vector<unsigned char> head = read(0, kBytes, "its superblock");
  const std::array<unsigned char, 8> signature{0x89, 'H', 'D', 'F', '\r', '\n', 0x1A, '\n'};
  require(std::equal(signature.begin(), signature.end(), head.begin()), "it does not begin as an HDF5 file does");
  require(head[8] == 3 && head[9] == 8 && head[10] == 8,
          "the HDF5 superblock has version {} with {}-byte addresses; shards have version 3 (bounds V110) with 8",
          head[8], head[9]);
  require(head[11] == 0, "it is marked as open for writing: its writer did not finish");
  ByteCursor addresses{std::span(head).subspan(12)};
  require(addresses.number(8) == 0, "it has a user block");
  require(addresses.number(8) == kUndefined, "its superblock has an extension");
  const std::uint64_t end = addresses.number(8);
  require(end == file_bytes_, "it is {} bytes long but its header says {}: the file was cut or extended", file_bytes_,
          end);
  return addresses.number(8);
}

/// An object header of version 2: "OHDR", version, flags, times and limits of attributes if flagged, the size of the
/// first chunk of messages, the chunk, a checksum; further chunks, each "OCHK", messages, checksum, where a message
/// says so.
Header Walk::header_at(std::uint64_t address, const std::string& what) {
  constexpr std::uint64_t kLongestPrefix = 4 + 1 + 1 + 16 + 4 + 8;
  require(address < file_bytes_, "{} lies at byte {}, outside the file", what, address);
  const std::uint64_t here = std::min(kLongestPrefix, file_bytes_ - address);
  std::vector<unsigned char> start = read(address, here, what);
  taken_.pop_back();  // read again below, in full
  ByteCursor prefix(start);
  const auto mark = prefix.take(4);
  const int version = prefix.byte();
  const int flags = prefix.byte();
  require(!prefix.overran() && std::memcmp(mark.data(), "OHDR", 4) == 0 && version == 2 && flags < 0x40,
          "{} is no object header of version 2", what);
  prefix.take(((flags & 0x20) != 0 ? 16U : 0U) + ((flags & 0x10) != 0 ? 4U : 0U));
  const std::uint64_t chunk = prefix.number(1 << (flags & 3));
  require(!prefix.overran() && chunk <= kMostChunkBytes, "{} has {} bytes", what, chunk);
  const std::uint64_t before = here - prefix.left();
  start = read(address, before + chunk + 4, what);

  Header header;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> more;
  const bool ordered = (flags & 0x04) != 0;
  messages(ByteCursor(std::span(start).subspan(before, chunk)), ordered, what, header, more);
  for (std::size_t next = 0; next < more.size(); ++next) {
    require(more.size() < kMostChunks, "{} is in {} pieces", what, more.size());
    const auto [place, bytes] = more[next];
    require(bytes >= 8 && bytes <= kMostChunkBytes, "{} goes on for {} bytes", what, bytes);
    const std::vector<unsigned char> piece = read(place, bytes, what);
    require(std::memcmp(piece.data(), "OCHK", 4) == 0, "{} does not go on at byte {}", what, place);
    messages(ByteCursor(std::span(piece).subspan(4, bytes - 8)), ordered, what, header, more);
  }
  return header;
}

void Walk::messages(ByteCursor chunk, bool ordered, const std::string& what, Header& header,
                    std::vector<std::pair<std::uint64_t, std::uint64_t>>& more) const {
  const std::size_t prefix = ordered ? 6 : 4;
  while (chunk.left() >= prefix) {  // less is a gap
    const int kind = chunk.byte();
    const std::uint64_t bytes = chunk.number(2);
    const int flags = chunk.byte();
    if (ordered) chunk.take(2);
    const auto content = chunk.take(bytes);
    require(!chunk.overran(), "a message of {} ends outside it", what);
    require((flags & 0x02) == 0, "{} shares a message with another object", what);
    require(header.size() < kMostMessages, "{} has more than {} messages", what, kMostMessages);
    if (kind == Kind::continuation) {
      require(bytes >= 16, "a message of {} is too short", what);
      ByteCursor to(content);
      const std::uint64_t place = to.number(8);
      more.emplace_back(place, to.number(8));
    } else if (kind != Kind::nothing) {
      header.push_back({kind, {content.begin(), content.end()}});
    }
  }
}

void Walk::once(const Header& header, std::initializer_list<Kind> kinds, const std::string& what) const {
  for (const Kind kind : kinds) {
    const auto count = std::count_if(header.begin(), header.end(), [&](const Message& m) { return m.kind == kind; });
    require(count <= 1, "{} has {} messages of kind {:#x}", what, count, static_cast<int>(kind));
  }
}

/// Link info and attribute info: where the library would look for more links or attributes than the header holds.
void Walk::no_storage(const Message& message, const std::string& what) const {
  ByteCursor info(message.bytes);
  const int version = info.byte();
  const int flags = info.byte();
  const bool links = message.kind == Kind::link_info;
  if ((flags & 1) != 0) info.take(links ? 8 : 2);  // the largest creation order
  const std::uint64_t heap = info.number(8);
  const std::uint64_t names = info.number(8);
  const std::uint64_t orders = (flags & 2) != 0 ? info.number(8) : kUndefined;
  require(
      version == 0 && flags < 4 && !info.overran() && heap == kUndefined && names == kUndefined && orders == kUndefined,
      "{} keeps {} outside its object header", what, links ? "links" : "attributes");
}

void Walk::group_bytes(const Message& message) const {
  ByteCursor info(message.bytes);
  const int version = info.byte();
  const int flags = info.byte();
  info.take(((flags & 1) != 0 ? 4U : 0U) + ((flags & 2) != 0 ? 4U : 0U));
  require(version == 0 && flags < 4 && !info.overran(), "the group message of its root group is damaged");
}

std::pair<std::string, std::uint64_t> Walk::link_of(const Message& message) const {
  ByteCursor link(message.bytes);
  const int version = link.byte();
  const int flags = link.byte();
  const int kind = (flags & 0x08) != 0 ? link.byte() : 0;  // 0 hard, 1 soft, 64 external
  if ((flags & 0x04) != 0) link.take(8);
  if ((flags & 0x10) != 0) link.take(1);
  const std::uint64_t length = link.number(1 << (flags & 3));
  require(length <= kLongestName, "an object of it has a name of {} bytes", length);
  const auto text = link.take(length);
  require(version == 1 && flags < 0x20 && !link.overran() && length > 0, "a link of its root group is damaged");
  std::string name(text.begin(), text.end());
  require(kind == 0, "`{}` is a link to something else", name);
  const std::uint64_t address = link.number(8);
  require(!link.overran(), "a link of its root group is damaged");
  return {std::move(name), address};
}

/// The bytes of one value of a type: a number, or a text of fixed length where `text` says that one may stand there.
/// Nothing for all other types.
std::uint64_t Walk::type_bytes(ByteCursor type, bool text, const std::string& what) const {
  const int first = type.byte();  // version and class
  type.take(3);                   // byte order, sign, padding: judged by who reads the values
  const std::uint64_t bytes = type.number(4);
  const int kind = first & 0x0F;
  const int version = first >> 4;
  bool sound = version >= 1 && version <= 3;
  if (kind == 0) {  // bit offset and precision
    sound = sound && type.number(2) == 0 && type.number(2) == 8 * bytes && (bytes == 2 || bytes == 4 || bytes == 8);
  } else {
    sound = sound && text && kind == 3 && bytes >= 1 && bytes <= format::kMaxText;
  }
  require(sound && !type.overran(), "{}", what);
  return bytes;
}

/// Version 3: version, flags, sizes of the name, type and space, the name's encoding, then those three and the value.
void Walk::attribute_bytes(const Message& message) const {
  ByteCursor whole(message.bytes);
  const int version = whole.byte();
  const int flags = whole.byte();
  const std::uint64_t name_bytes = whole.number(2);
  const std::uint64_t type_length = whole.number(2);
  const std::uint64_t space_length = whole.number(2);
  const int encoding = whole.byte();
  require(version == 3 && flags == 0 && encoding <= 1 && name_bytes >= 2 && name_bytes <= kLongestName,
          "an attribute of it is damaged");
  const auto text = whole.take(name_bytes);
  const auto type = whole.take(type_length);
  ByteCursor space(whole.take(space_length));
  require(!whole.overran() && text.back() == 0, "an attribute of it is damaged");
  const std::string name(text.begin(), std::find(text.begin(), text.end(), 0));
  const std::uint64_t bytes =
      type_bytes(ByteCursor(type), true,
                 fmt::format("attribute `{}` is neither one unsigned number nor one fixed text of at most {} bytes",
                             name.substr(0, 32), format::kMaxText));
  const bool scalar = space.byte() == 2 && space.byte() == 0 && space.byte() == 0 && space.byte() == 0;
  require(scalar && !space.overran(), "attribute `{}` is not one value", name);
  whole.take(bytes);
  require(!whole.overran(), "attribute `{}` ends outside its object header", name);
}

void Walk::root(std::uint64_t address) {
  const std::string what = "its root group";
  const Header header = header_at(address, what);
  once(header, {Kind::link_info, Kind::group_info, Kind::attribute_info}, what);
  require(find(header, Kind::link_info) != nullptr, "its root object is no group");
  std::vector<const Message*> links;
  for (const Message& message : header) {
    switch (message.kind) {
      case Kind::link: links.push_back(&message); break;
      case Kind::attribute: attribute_bytes(message); break;
      case Kind::group_info: group_bytes(message); break;
      case Kind::link_info:
      case Kind::attribute_info: no_storage(message, what); break;
      default: require(false, "{} has a message of kind {:#x}", what, message.kind);
    }
  }
  require(links.size() == 3, "it holds {} objects instead of three datasets", links.size());
  std::vector<std::pair<std::string, std::uint64_t>> objects;
  for (const Message* message : links) objects.push_back(link_of(*message));
  for (const char* name : {format::kTokens, format::kDocEnds, format::kBlockChecksums}) {
    const auto named = [&](const auto& object) { return object.first == name; };
    const auto found = std::find_if(objects.begin(), objects.end(), named);
    require(found != objects.end(), "there is no `{}`", name);
    const auto same = [&](const auto& object) { return object.second == found->second; };
    require(std::count_if(objects.begin(), objects.end(), same) == 1, "`{}` is not a dataset of its own", name);
    dataset(name, found->second);
  }
}

void Walk::dataset(const std::string& name, std::uint64_t address) {
  const std::string what = fmt::format("`{}`", name);
  const Header header = header_at(address, what);
  once(header, {Kind::dataspace, Kind::datatype, Kind::fill_value, Kind::layout, Kind::attribute_info}, what);
  const Message* place = find(header, Kind::layout);
  const Message* type = find(header, Kind::datatype);
  const Message* space = find(header, Kind::dataspace);
  require(place != nullptr && type != nullptr && space != nullptr && find(header, Kind::link_info) == nullptr &&
              find(header, Kind::reference_count) == nullptr,
          "{} is not a dataset of its own", what);

  ByteCursor where(place->bytes);
  const int version = where.byte();
  require((version == 3 || version == 4) && where.byte() == 1, "{} is not contiguous", what);
  const std::uint64_t begin = where.number(8);
  const std::uint64_t bytes = where.number(8);
  require(!where.overran() && (begin == kUndefined || (begin <= file_bytes_ && bytes <= file_bytes_ - begin)),
          "{} lies at byte {} of a file of {} bytes, outside it or unaligned", what, begin, file_bytes_);
  require(find(header, Kind::external_files) == nullptr, "{} keeps its bytes in another file", what);
  require(find(header, Kind::filters) == nullptr, "{} is filtered", what);
  require(find(header, Kind::attribute) == nullptr, "{} carries attributes", what);

  type_bytes(ByteCursor(type->bytes), false, fmt::format("{} does not hold little-endian unsigned integers", what));
  ByteCursor row(space->bytes);
  const bool one_row = row.byte() == 2 && row.byte() == 1;
  const int limits = row.byte();
  const bool simple = row.byte() == 1;
  row.take((limits & 1) != 0 ? 16 : 8);
  require(one_row && limits <= 1 && simple && !row.overran(), "{} is not one row of items", what);
  for (const Message& message : header) {
    switch (message.kind) {
      case Kind::dataspace:
      case Kind::datatype:
      case Kind::layout: break;
      case Kind::attribute_info: no_storage(message, what); break;
      case Kind::fill_value: {
        ByteCursor fill(message.bytes);
        const bool version_3 = fill.byte() == 3;
        const int flags = fill.byte();
        if ((flags & 0x20) != 0) fill.take(fill.number(4));
        require(version_3 && !fill.overran(), "the fill value of {} is damaged", what);
        break;
      }
      default: require(false, "{} has a message of kind {:#x}", what, message.kind);
    }
  }
}

}  // namespace

void check(const ShardFile& file, const StoragePatience& patience) { Walk(file, patience).run(); }

}  // namespace shoestring::shard_header
