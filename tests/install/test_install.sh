#!/bin/bash
# An installed copy is whole: it is found by pkg-config, programs in C and C++ build against it and run
# with the shared and with the static library, and nothing but moray_* can be seen in it. Moray itself
# builds with the other compiler too, and without one for C++.
#
#   test_install.sh BUILD SOURCE
set -u
build=$(realpath "$1") source=$(realpath "$2")
# shellcheck source=tests/tap.sh
. "$source/tests/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cd "$work" || exit 1

# The first file of that name below the copy.
installed() { find "$work/copy" -name "$1" | sort | head -n 1; }

tap_run 60 "meson install with DESTDIR" \
    env DESTDIR="$work/copy" meson install -C "$build" --no-rebuild --quiet
for file in moray.h moray.pc libmoray.so libmoray.a moray LICENSE; do
    if [ -n "$(installed "$file")" ]; then tap_ok "$file is installed"; else
        tap_fail "$file is installed" "$(find "$work/copy" -type f)"
    fi
done
outside=$(find "$work/copy" -type f -exec grep -lF "$build" {} + 2>/dev/null | grep -v '\.a$')
if [ -z "$outside" ]; then tap_ok "nothing installed points into the build"; else
    tap_fail "nothing installed points into the build" "$outside"
fi

# The copy does not lie where it would at the end: its pkg-config file is told so.
pc=$(installed moray.pc)
prefix=$(sed -n 's/^prefix=//p' "$pc")
mkdir pc
sed "s|^prefix=.*|prefix=$work/copy$prefix|" "$pc" > pc/moray.pc
export PKG_CONFIG_PATH=$work/pc
libraries=$(dirname "$(installed libmoray.so)")
read -ra flags <<< "$(pkg-config --cflags moray)"
read -ra shared <<< "$(pkg-config --libs moray)"
# The archive of Moray, but the shared libraries of others: few sites have those as archives.
read -ra requires <<< "$(pkg-config --print-requires-private moray | tr '\n' ' ')"
read -ra needed <<< "$(pkg-config --libs "${requires[@]}") $(sed -n 's/^Libs.private: //p' "$pc")"

# What the README says for a copy that is not installed.
cp "$source/tests/install/consumer.c" not_installed.c
read -ra in_build <<< "$(PKG_CONFIG_PATH=$build/meson-uninstalled pkg-config --cflags --libs moray)"
tap_run 60 "a C program builds with what is in the build folder" \
    gcc not_installed.c -o not_installed "${in_build[@]}"
tap_output 30 "and runs" "10 6" env LD_LIBRARY_PATH="$build" ./not_installed

want_version=$("$build/moray" version | cut -d' ' -f2)
tap_output 10 "pkg-config says the version" "$want_version" pkg-config --modversion moray
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { tap_skip "$compiler builds programs" "no $compiler"; continue; }
    case $compiler in gcc) plus=g++ ;; clang) plus=clang++ ;; esac
    echo '#include <moray.h>' > alone.c
    for standard in c11 gnu17; do
        tap_run 30 "moray.h compiles alone, $compiler -std=$standard" $compiler -std=$standard \
            -Wall -Wextra -Wpedantic -Werror "${flags[@]}" -fsyntax-only alone.c
    done
    cp alone.c alone.cc
    for standard in c++17 gnu++20; do
        tap_run 30 "moray.h compiles alone, $plus -std=$standard" "$plus" -std=$standard \
            -Wall -Wextra -Werror "${flags[@]}" -fsyntax-only alone.cc
    done
    cp "$source/tests/install/consumer.c" consumer.c
    cp consumer.c consumer.cc
    tap_run 60 "a C program builds, $compiler, shared" $compiler -Wall -Wextra -Werror consumer.c \
        -o "c-$compiler" "${flags[@]}" "${shared[@]}" -Wl,-rpath,"$libraries"
    tap_output 30 "and runs" "10 6" "./c-$compiler"
    tap_run 60 "a C++ program builds, $plus, shared" "$plus" -std=c++17 -Wall -Wextra -Werror consumer.cc \
        -o "cc-$compiler" "${flags[@]}" "${shared[@]}" -Wl,-rpath,"$libraries"
    tap_output 30 "and runs" "10 6" "./cc-$compiler"
done
tap_output 30 "the C program runs on two ranks, by the installed command" "10 6" \
    "$(installed moray)" run --quiet -n 2 ./c-gcc

tap_run 60 "a C program builds with the static library" gcc consumer.c -o c-static "${flags[@]}" \
    "$libraries/libmoray.a" "${needed[@]}"
tap_output 30 "and runs" "10 6" ./c-static
if [ -e c-static ] && ! ldd c-static | grep -q libmoray; then
    tap_ok "and needs no libmoray.so"
else
    tap_fail "and needs no libmoray.so" "$(ldd c-static 2>&1)"
fi

seen=$(nm -D --defined-only --format=posix "$libraries/libmoray.so" | awk '{ print $1 }')
foreign=$(grep -v '^moray_' <<< "$seen")
if [ -n "$seen" ] && [ -z "$foreign" ]; then
    tap_ok "the shared library shows moray_* only"
else
    tap_fail "the shared library shows moray_* only" "$foreign"
fi

# The other compiler, every warning an error; and no C++ at all, which only a peer of the benchmarks and
# tests need.
other=clang
command -v clang >/dev/null || other=gcc
tap_run 60 "Meson takes a machine with $other and without a C++ compiler" \
    env CC=$other CXX=/no/compiler meson setup "$work/other" "$source" -Dtests=disabled -Dwerror=true
tap_run 400 "and all is built without a warning" ninja -C "$work/other"
tap_output 30 "and runs" "$(sed -n 's/^section5 //p' "$source/apps/quickstart/test_quickstart.sh")" \
    "$work/other/moray" run --quiet -n 2 "$work/other/apps/quickstart/section5"
if [ -x "$work/other/apps/bench/bench" ] && [ ! -e "$work/other/apps/bench/peers/onetbb" ]; then
    tap_ok "and the benchmarks are there but for that peer"
else
    tap_fail "and the benchmarks are there but for that peer" "$(ls -R "$work/other/apps/bench")"
fi
tap_done
