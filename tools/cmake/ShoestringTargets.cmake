# How every target is compiled: one place for warnings, sanitizers, CUDA and libraries.

find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

add_library(shoestring_options INTERFACE)
target_include_directories(shoestring_options INTERFACE ${CMAKE_SOURCE_DIR})
target_link_libraries(shoestring_options INTERFACE fmt::fmt Threads::Threads)
target_compile_options(shoestring_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Werror
    # a*b+c is fused only where the code says fma: the same bits from every compiler and variant
    -ffp-contract=off -fno-math-errno -fstack-protector-strong>
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-O3>)
target_compile_definitions(shoestring_options INTERFACE $<$<CONFIG:Debug>:_GLIBCXX_ASSERTIONS>)

if(SHOESTRING_SANITIZE)
  target_compile_options(shoestring_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SHOESTRING_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(shoestring_options INTERFACE -fsanitize=${SHOESTRING_SANITIZE})
endif()

# CUDA: found or not, the same source tree builds.
if(SHOESTRING_CUDA STREQUAL "AUTO")
  include(CheckLanguage)
  check_language(CUDA)
  set(SHOESTRING_WITH_CUDA ${CMAKE_CUDA_COMPILER})
else()
  set(SHOESTRING_WITH_CUDA ${SHOESTRING_CUDA})
endif()
if(SHOESTRING_WITH_CUDA)
  set(CMAKE_CUDA_ARCHITECTURES 90a CACHE STRING "CUDA architectures")
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know nvcc 13's flag
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  string(APPEND CMAKE_CUDA_FLAGS " --expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra,-fPIC")
  find_package(CUDAToolkit REQUIRED)
  target_compile_definitions(shoestring_options INTERFACE SHOESTRING_CUDA=1)
  message(STATUS "CUDA ${CUDAToolkit_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
else()
  target_compile_definitions(shoestring_options INTERFACE SHOESTRING_CUDA=0)
  message(STATUS "building without CUDA")
endif()

# shoestring_library(NAME SOURCES... ) : a static library of one folder.
function(shoestring_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC shoestring_options)
endfunction()
