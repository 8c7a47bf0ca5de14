# Builds the unmodified Horovod sdist against a current torch, whose headers need C++17 or later.
#
# Horovod asks CMake for C++14 in several places. Named in the environment as CMAKE_TOOLCHAIN_FILE, this file changes
# what "C++14" means instead of changing Horovod. CMake reads it twice: first as the toolchain file, before it knows
# the compiler's flags, and again at the end of project(), through CMAKE_PROJECT_INCLUDE, when it does.
set(CMAKE_PROJECT_INCLUDE "${CMAKE_CURRENT_LIST_FILE}")
if(DEFINED CMAKE_CXX20_STANDARD_COMPILE_OPTION)
    foreach(kind STANDARD EXTENSION)
        set(CMAKE_CXX14_${kind}_COMPILE_OPTION "${CMAKE_CXX20_${kind}_COMPILE_OPTION}")
    endforeach()
    set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -DNDEBUG")  # without -g the wheel is a tenth of the size
endif()
