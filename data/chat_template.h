// Chat templates of model folders: programs in Jinja, which are not run here. A template is known by its digest.
//
// Whether a template prints what one of our formats prints cannot be told from the texts in it: a line end left out, a
// word before the reply, another name for a role, and the model reads what it was never trained on. So a template
// counts as known only where it is one of those whose printing has been compared (tests/oracle/chat_compare.py), but
// for what Jinja passes over: white space inside of tags and around those with a '-', quotes and escapes of strings.
#pragma once

#include <string>
#include <string_view>

namespace shoestring {

/// The template without what Jinja passes over; two templates with the same form print the same. A template that is no
/// sound Jinja, or that has escapes other than \n, \r, \t, quotes and backslashes, comes back as it is.
std::string canonical_template(std::string_view chat_template);

}  // namespace shoestring
