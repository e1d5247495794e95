#!/bin/bash
# What ./quickstart does where something is missing: as root on Debian it installs just that; elsewhere it
# names the package and the Spack spec, and stops. Nothing is installed here: apt-get is a stand-in.
#
#   test_set_up.sh SOURCE
set -u
source=$(realpath "$1")
# shellcheck source=tests/tap.sh
. "$source/tests/tap.sh"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' INT TERM HUP
chmod 755 "$work"
mkdir "$work/bin" "$work/tree"
cp "$source/quickstart" "$work/tree"
# All commands but these: meson and ninja, which a build needs, and those that write.
for command in /usr/bin/* /bin/*; do
    case ${command##*/} in
    meson | ninja | apt-get) ;;
    *) ln -sf "$command" "$work/bin/${command##*/}" ;;
    esac
done

# What a step of the script says, and its exit status, in a world where only $work/bin is in PATH.
run_it() { # PREFIX… -- WORD
    local prefix=()
    while [ "$1" != -- ]; do prefix+=("$1"); shift; done
    shift
    code=0
    output=$(tap_limit 20 "${prefix[@]}" env PATH="$work/bin" "$work/tree/quickstart" "$@" 2>&1) || code=$?
}
judge() { # NAME WANT-STATUS TEXT…
    local name=$1 status=$2 text wrong=""
    shift 2
    [ "$code" = "$status" ] || wrong="exit status $code;"
    for text; do [[ $output == *$text* ]] || wrong="$wrong no '$text';"; done
    if [ -z "$wrong" ]; then tap_ok "$name"; else tap_fail "$name" "$wrong $output"; fi
}
nothing_built() {
    if [ ! -e "$work/tree/build" ]; then tap_ok "$1"; else tap_fail "$1" "$(ls "$work/tree/build")"; fi
}

run_it -- packages
judge "packages are listed, here or missing" 0 "missing  meson" "missing  ninja-build" "here     gcc"
run_it -- build
judge "without apt-get the missing are named, as Debian package and Spack spec" 1 \
    "ninja-build                ninja" "meson                      meson" "nothing was installed"
nothing_built "and nothing is built"

cat > "$work/bin/apt-get" <<END
#!/bin/sh
echo "\$*" >> "$work/asked"
case "\$*" in *" install "*) ln -s /usr/bin/true "$work/bin/ninja" ;; esac
END
chmod 755 "$work/bin/apt-get"
if [ "$(id -u)" != 0 ]; then
    run_it -- build
elif command -v setpriv >/dev/null; then
    run_it setpriv --reuid=65534 --regid=65534 --clear-groups -- build
fi
judge "who is not root is told the same" 1 "ninja-build                ninja" "nothing was installed"
if [ ! -e "$work/asked" ]; then tap_ok "and apt-get is not asked"; else
    tap_fail "and apt-get is not asked" "$(cat "$work/asked")"
fi

if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
    run_it -- build
    judge "root on Debian is told what is installed, and what is still missing then" 1 \
        "installing what is missing: meson ninja-build" "meson                      meson" \
        "still missing after the installation"
    tap_output 5 "and apt-get is asked for just that" "-q update
-q install -y --no-install-recommends meson ninja-build" cat "$work/asked"
    nothing_built "and nothing is built"
    ln -s /usr/bin/true "$work/bin/meson"
    rm "$work/asked"
    run_it -- build
    judge "what is there is not installed again" 0 "all is here" "meson setup" "ninja -C" "built: "
    if [ ! -e "$work/asked" ]; then tap_ok "and apt-get is not asked"; else
        tap_fail "and apt-get is not asked" "$(cat "$work/asked")"
    fi
    mkdir -p "$work/tree/build"
    cat > "$work/tree/build/moray" <<'END'
#!/bin/sh
echo "progress: ${MORAY_PROGRESS:-as it is}"
END
    chmod 755 "$work/tree/build/moray"
    run_it --
    judge "in a pipe the training is told of no terminal" 0 "progress: as it is"
else
    tap_skip "root on Debian installs" "not root on Debian"
fi
run_it -- walk
judge "a word that it does not know" 1 "none of build, test, packages"
tap_done
