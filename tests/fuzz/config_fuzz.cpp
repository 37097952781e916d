// config.json of a model: what is taken is written and read back as the same model.
#include "core/model/config.h"
#include "core/model/hugging_face_config.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const std::string_view text = text_of(bytes);
    const ModelConfig config = read_hugging_face_config(text);
    const ModelFileFacts facts = read_hugging_face_facts(text);
    const std::string written = write_hugging_face_config(config, facts);
    const std::string again = write_hugging_face_config(read_hugging_face_config(written), facts);
    if (written != again) contradiction("a model written and read again is another:\n" + written + "\n" + again);
  });
}

}  // namespace shoestring::fuzz
