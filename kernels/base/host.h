// The machine that this process is on.
#pragma once

#include <string>

namespace shoestring {

/// Its name, as the ranks of a launch, ledgers and signs of life tell machines apart; cut to 255 bytes.
std::string host_name();

}  // namespace shoestring
