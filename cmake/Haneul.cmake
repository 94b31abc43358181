# SPDX-License-Identifier: Apache-2.0
# The project's targets: what every library, program and test shares, and the rule of who may use whom.
include_guard()

find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)

find_program(HANEUL_CCACHE ccache)
if(HANEUL_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${HANEUL_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${HANEUL_CCACHE})
endif()

# Who may use whom: base <- storage, net <- devices <- vmm; base, storage, net, vmm/launch <- agent.
# store is storage/store: a library of its own, because it needs SQLite and storage is in every VMM.
set(HANEUL_MAY_USE_base "")
set(HANEUL_MAY_USE_storage base)
set(HANEUL_MAY_USE_store base storage)
set(HANEUL_MAY_USE_net base)
set(HANEUL_MAY_USE_devices base storage net)
set(HANEUL_MAY_USE_launch base)
set(HANEUL_MAY_USE_vmm base storage net devices launch)
set(HANEUL_MAY_USE_agent base storage store net launch)

add_library(haneul_flags INTERFACE)
target_compile_options(haneul_flags INTERFACE
  -Wall -Wextra -Wshadow -Werror -fno-strict-aliasing
  $<$<COMPILE_LANGUAGE:CXX>:-Wconversion -Wnon-virtual-dtor -Woverloaded-virtual>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wno-gnu-statement-expression>)
target_include_directories(haneul_flags INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}>)
target_link_libraries(haneul_flags INTERFACE Threads::Threads)
if(HANEUL_SANITIZE)
  # g++ 12 with sanitizers believes parts of the standard library to be used uninitialized.
  target_compile_options(haneul_flags INTERFACE
    -fsanitize=${HANEUL_SANITIZE} -fno-omit-frame-pointer $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
    $<$<STREQUAL:${HANEUL_SANITIZE},address>:-fsanitize=undefined -fno-sanitize-recover=undefined>)
  target_link_options(haneul_flags INTERFACE
    -fsanitize=${HANEUL_SANITIZE} $<$<STREQUAL:${HANEUL_SANITIZE},address>:-fsanitize=undefined>)
else()
  target_compile_options(haneul_flags INTERFACE -fstack-protector-strong -D_FORTIFY_SOURCE=2)
endif()

# haneul_library(NAME SOURCES ... [DEPS folder ...] [LIBS target ...])
# A folder's library, haneul_NAME. DEPS are other folders and must be allowed by the table above.
function(haneul_library name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  foreach(dep ${arg_DEPS})
    if(NOT dep IN_LIST HANEUL_MAY_USE_${name})
      message(FATAL_ERROR "${name} may not use ${dep}: see the dependency table in cmake/Haneul.cmake")
    endif()
  endforeach()
  list(TRANSFORM arg_DEPS PREPEND haneul_)
  add_library(haneul_${name} STATIC ${arg_SOURCES})
  target_link_libraries(haneul_${name} PUBLIC haneul_flags ${arg_DEPS} ${arg_LIBS})
endfunction()

# haneul_program(NAME SOURCES ... [DEPS folder ...] [LIBS target ...]): a program in bin/, installed.
function(haneul_program name)
  cmake_parse_arguments(arg "" "" "SOURCES;DEPS;LIBS" ${ARGN})
  list(TRANSFORM arg_DEPS PREPEND haneul_)
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE haneul_flags ${arg_DEPS} ${arg_LIBS})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT programs)
endfunction()

if(HANEUL_TESTS)
  enable_testing()
  find_package(GTest REQUIRED)
  # All programs of unit tests, and of those that sanitizers look at beside them, for builds that run only these.
  add_custom_target(unit_tests)
  add_custom_target(sanitized_tests)
  add_dependencies(sanitized_tests unit_tests)
endif()

# haneul_test(NAME SOURCES ... [DEPS folder ...] [LIBS target ...] [LABELS ...] [TIMEOUT seconds] [RUNNER command ...])
# A GoogleTest program bin/tests/NAME, one CTest entry "folder/NAME"; RUNNER is put before its command. Labels tell `check` where it can run:
# none = anywhere, unprivileged, without KVM; kvm = any /dev/kvm; root = root or user namespaces;
# image, host = QEMU in software emulation; linux = a KVM that boots Linux (long: not with everything else); sanitized = run under the sanitizers as well, where /dev/kvm is.
function(haneul_test name)
  if(NOT HANEUL_TESTS)
    return()
  endif()
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;DEPS;LIBS;LABELS;RUNNER" ${ARGN})
  list(TRANSFORM arg_DEPS PREPEND haneul_)
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin/tests)
  target_link_libraries(${name} PRIVATE haneul_flags ${arg_DEPS} ${arg_LIBS} GTest::gtest GTest::gtest_main GTest::gmock)
  file(RELATIVE_PATH folder ${CMAKE_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR})
  add_test(NAME ${folder}/${name} COMMAND ${arg_RUNNER} $<TARGET_FILE:${name}>)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
    add_dependencies(unit_tests ${name})
  endif()
  if(sanitized IN_LIST arg_LABELS)
    add_dependencies(sanitized_tests ${name})
  endif()
  set_tests_properties(${folder}/${name} PROPERTIES TIMEOUT ${arg_TIMEOUT} LABELS "${arg_LABELS}"
    ENVIRONMENT "HANEUL_SOURCE=${CMAKE_SOURCE_DIR};HANEUL_BIN=${CMAKE_BINARY_DIR}/bin")
endfunction()
