// A recipe: parsed, checked, and where nothing is wrong written as canonical text, which reads back as itself.
#include "core/recipe/explain.h"
#include "core/recipe/parse.h"
#include "tests/fuzz/target.h"

namespace shoestring::fuzz {

void fuzz_one(Bytes bytes) {
  bounded(bytes, [&] {
    const RecipeReading reading = read_recipe_text(std::string(text_of(bytes)), "foreign.recipe");
    for (const Mistake& mistake : reading.mistakes) {
      if (mistake.text.empty()) contradiction("a mistake without a text");
      mistake.line();
    }
    if (!reading.mistakes.empty()) return;
    const std::string text = canonical_text(reading.recipe);
    const RecipeReading again = read_recipe_text(text, "canonical");
    if (!again.mistakes.empty()) contradiction("canonical text is refused: " + again.mistakes.front().line());
    if (canonical_text(again.recipe) != text) contradiction("canonical text reads back as another");
  });
}

}  // namespace shoestring::fuzz
