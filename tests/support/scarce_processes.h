// A process of a user who may have few processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

namespace shoestring::testing {

/// What `body` returns, 1 to 99, in a child whose user may have `most` processes and threads; 100 where it throws, 128
/// + signal where a signal ends it, a hang after a minute among these.
inline int with_few_processes(rlim_t most, const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    const rlimit few{most, most};
    if (::setrlimit(RLIMIT_NPROC, &few) != 0) ::_exit(101);
    if (::getuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(102);  // root has no such limit
    try {
      ::_exit(body());
    } catch (...) {
      ::_exit(100);
    }
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace shoestring::testing
