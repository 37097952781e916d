// How old a launch is: processes that were launched together need not have begun together, and those that wait for a
// late one are billed meanwhile.
#pragma once

namespace shoestring {

/// By how much the other processes of a launch began before this one.
struct HeadStart {
  double gpu_seconds = 0;  ///< of all of them, added up; below 0 where most began later than this one
  double job_seconds = 0;  ///< of the first of them; 0 where this one is the first
};

}  // namespace shoestring
