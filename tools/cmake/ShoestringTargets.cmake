# How every target is compiled: one place for warnings, sanitizers, CUDA and libraries.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

add_library(shoestring_options INTERFACE)
target_include_directories(shoestring_options INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(shoestring_options INTERFACE fmt::fmt Threads::Threads)
# The OpenSSF's guide to hardening C and C++, as far as it costs the kernels nothing. Left out of it:
#   -D_FORTIFY_SOURCE=3     adds sizes that only the run knows: those of containers, which _GLIBCXX_ASSERTIONS looks at
#   -fcf-protection         one object without the mark turns it off, and Debian 12's C and C++ libraries have none
#   -fstrict-flex-arrays=3  GCC 13 and newer; no array here is a flexible one
#   -z nodlopen             the C library opens no executable that is position-independent
#   -fno-strict-overflow, -fno-strict-aliasing, -fno-delete-null-pointer-checks, -ftrivial-auto-var-init
#                           change the inner loops; -Wall and the sanitizers look for what they would hide
target_compile_options(shoestring_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion
    # a*b+c is fused only where the code says fma: the same bits from every compiler and variant
    -ffp-contract=off -fno-math-errno
    -fstack-protector-strong -fstack-clash-protection>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SHOESTRING_STRICT}>>:-Werror>
  # GCC 12 sees overlaps and overflows where std::string joins literals (GCC bug 105651)
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-restrict -Wno-stringop-overflow>
  # of -Wconversion clang makes more than GCC does in C++; fall-through is part of GCC's -Wextra
  $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-sign-conversion -Wformat=2 -Wimplicit-fallthrough>)
target_compile_definitions(shoestring_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)
if(NOT SHOESTRING_SANITIZE)  # which look at the same, and do not go with it
  target_compile_options(shoestring_options INTERFACE
    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2>)
endif()
target_link_options(shoestring_options INTERFACE LINKER:-z,relro LINKER:-z,now LINKER:-z,noexecstack LINKER:--as-needed
  $<$<STREQUAL:$<TARGET_PROPERTY:TYPE>,EXECUTABLE>:-pie>)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64")
  # Highway's NEON target has AES among it, as every AArch64 server has; inlining stops where a function lacks it.
  target_compile_options(shoestring_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=armv8-a+crypto>)
endif()

if(SHOESTRING_SANITIZE)
  # GCC loses sight of what is initialised among the sanitizers' checks, as its manual says
  target_compile_options(shoestring_options INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized>)
  target_compile_options(shoestring_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SHOESTRING_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(shoestring_options INTERFACE -fsanitize=${SHOESTRING_SANITIZE})
endif()

if(SHOESTRING_FUZZ AND NOT SHOESTRING_FUZZ_ALONE)  # all the house counts the branches taken; main is libFuzzer's in its targets
  target_compile_options(shoestring_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# shoestring_pragmas_of_gcc(FILE...): clang knows no `#pragma GCC target`. With it a whole file is compiled for what its
# pragma names, inline functions of other headers too: good for checks on the machine that builds, not for a program that
# travels.
function(shoestring_pragmas_of_gcc)
  if(NOT CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    return()
  endif()
  foreach(source ${ARGN})
    file(STRINGS ${source} pragmas REGEX "^ *#pragma GCC")
    if(pragmas)
      set(options -Wno-unknown-pragmas -Wno-unknown-warning-option)
      if("${pragmas}" MATCHES "GCC target\\(\"([^\"]*)")
        string(REPLACE "," ";-m" targets "-m${CMAKE_MATCH_1}")
        list(APPEND options ${targets})
      endif()
      set_property(SOURCE ${source} APPEND PROPERTY COMPILE_OPTIONS ${options})
    endif()
  endforeach()
endfunction()

# shoestring_optional_part(NAME FOUND COST): what was looked for, whether it is there, and what its absence costs.
function(shoestring_optional_part name found cost)
  if(found)
    set_property(GLOBAL APPEND_STRING PROPERTY SHOESTRING_OPTIONAL_PARTS "\n     ${name}: found")
  else()
    set_property(GLOBAL APPEND_STRING PROPERTY SHOESTRING_OPTIONAL_PARTS "\n     ${name}: not found; ${cost}")
  endif()
endfunction()
function(shoestring_print_optional_parts)
  get_property(parts GLOBAL PROPERTY SHOESTRING_OPTIONAL_PARTS)
  message(STATUS "optional parts:${parts}")
endfunction()

# CUDA: built where it can be used, which takes a compiler and a driver, or where it is asked for.
set(SHOESTRING_WITH_CUDA ${SHOESTRING_CUDA})
if(SHOESTRING_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(SHOESTRING_WITH_CUDA ${CMAKE_CUDA_COMPILER})
  find_library(SHOESTRING_CUDA_DRIVER NAMES libcuda.so.1 PATH_SUFFIXES x86_64-linux-gnu aarch64-linux-gnu)
  if(SHOESTRING_WITH_CUDA AND NOT SHOESTRING_CUDA_DRIVER)
    set(SHOESTRING_WITH_CUDA OFF)
    set(cuda_cost "nvcc is there, a driver is not: no GPU rows are built (SHOESTRING_CUDA=ON builds them all the same)")
  else()
    set(cuda_cost "no GPU rows: models train on CPUs only")
  endif()
else()
  set(cuda_cost "no GPU rows (SHOESTRING_CUDA=OFF)")
endif()
shoestring_optional_part("CUDA" "${SHOESTRING_WITH_CUDA}" "${cuda_cost}")
if(SHOESTRING_WITH_CUDA)
  # One program for several kinds: "80;89;90a;100" (A100, L40S and RTX 4090, H100 and H200, B200).
  set(SHOESTRING_CUDA_ARCHITECTURES 90a CACHE STRING "CUDA architectures that the GPU rows are compiled for")
  set(CMAKE_CUDA_ARCHITECTURES ${SHOESTRING_CUDA_ARCHITECTURES})
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc 13's flag
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fPIC")
  find_package(CUDAToolkit REQUIRED)
  target_compile_definitions(shoestring_options INTERFACE SHOESTRING_CUDA=1)
  message(STATUS "CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
  # Its headers; the library is loaded when it is first needed.
  find_path(SHOESTRING_CUDNN_INCLUDE cudnn_graph.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
  set(SHOESTRING_WITH_CUDNN ${SHOESTRING_CUDNN_INCLUDE})
  shoestring_optional_part("cuDNN's headers" "${SHOESTRING_WITH_CUDNN}"
    "attention on GPUs runs by an own kernel, without tensor cores")
else()
  target_compile_definitions(shoestring_options INTERFACE SHOESTRING_CUDA=0)
endif()

# A faster linker, where there is one.
find_program(SHOESTRING_LLD ld.lld)
if(SHOESTRING_LLD)
  target_link_options(shoestring_options INTERFACE -fuse-ld=lld)
endif()
shoestring_optional_part("lld" "${SHOESTRING_LLD}" "linking takes some seconds longer")
shoestring_optional_part("compiler cache" "${CMAKE_CXX_COMPILER_LAUNCHER}"
  "standard headers are precompiled, and a clean build costs as much as the first (tools/build.sh uses ccache)")

# Standard headers are two thirds of what the compiler reads. Precompiled they are read once; a compiler cache does
# better, and the two do not mix.
set(SHOESTRING_PRECOMPILE AUTO CACHE STRING "Precompile standard headers: ON, OFF, or AUTO (without a compiler cache)")
set_property(CACHE SHOESTRING_PRECOMPILE PROPERTY STRINGS AUTO ON OFF)
set(precompile ${SHOESTRING_PRECOMPILE})
if(precompile STREQUAL "AUTO")
  set(precompile ON)
  if(CMAKE_CXX_COMPILER_LAUNCHER)
    set(precompile OFF)
  endif()
endif()
set(SHOESTRING_PRECOMPILES ${precompile})

# How a target of each kind is optimised in a Release build, and which headers most of its files read. Every file still
# includes what it uses: a build with a compiler cache sees to that.
set(standard_headers <algorithm> <array> <cmath> <cstdint> <filesystem> <functional> <map> <memory> <mutex> <optional>
  <set> <span> <string> <string_view> <utility> <vector> <fmt/core.h>)
set(SHOESTRING_kernels_OPTIONS -O3)
set(SHOESTRING_kernels_HEADERS ${standard_headers})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND SHOESTRING_kernels_HEADERS <immintrin.h>)
endif()
set(SHOESTRING_program_OPTIONS -O2 -D_GLIBCXX_ASSERTIONS)  # all but kernels: they spend the time
set(SHOESTRING_program_HEADERS ${standard_headers})
set(SHOESTRING_tests_OPTIONS -O1 -Wno-array-bounds -Wno-stringop-overread)  # GCC bug 105651 once more
set(SHOESTRING_tests_HEADERS ${standard_headers} <gtest/gtest.h>)
set(SHOESTRING_tests_LIBRARIES GTest::gtest)

# shoestring_compile_as(TARGET KIND): KIND is one of those above. Targets of a kind share its precompiled headers.
function(shoestring_compile_as target kind)
  target_compile_options(${target} PRIVATE
    "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:${SHOESTRING_${kind}_OPTIONS}>")
  if(NOT SHOESTRING_PRECOMPILES)
    return()
  endif()
  set(headers shoestring_${kind}_headers)
  if(NOT TARGET ${headers})
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/${headers}.cpp CONTENT "")
    add_library(${headers} OBJECT ${CMAKE_BINARY_DIR}/${headers}.cpp)
    target_link_libraries(${headers} PRIVATE shoestring_options ${SHOESTRING_${kind}_LIBRARIES})
    target_compile_options(${headers} PRIVATE "$<$<CONFIG:Release>:${SHOESTRING_${kind}_OPTIONS}>")
    target_precompile_headers(${headers} PRIVATE ${SHOESTRING_${kind}_HEADERS})
  endif()
  # Executables would be compiled with -fPIE, and precompiled headers serve one of the two only.
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM ${headers})
endfunction()

# shoestring_library(NAME SOURCES... ) : a static library of one folder.
function(shoestring_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC shoestring_options)
  if(name STREQUAL "shoestring_kernels")
    shoestring_compile_as(${name} kernels)
  else()
    shoestring_compile_as(${name} program)
  endif()
endfunction()
