# Cross-compiles for AArch64 on Debian (hosts of GH200 and GB200 nodes), and runs what it built under an emulator:
#   dpkg --add-architecture arm64 && apt-get update
#   apt-get install g++-aarch64-linux-gnu qemu-user libfmt-dev:arm64 libgtest-dev:arm64 libhwy-dev:arm64 \
#     libxxhash-dev:arm64
# (left out are tests that start the program anew, and one of a limit that the emulator keeps to itself)
#   cmake --preset aarch64 && cmake --build --preset aarch64 && ctest --preset aarch64
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(SHOESTRING_LLD OFF CACHE STRING "GCC's cross compilers look for linkers of their own name only")
