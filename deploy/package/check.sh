#!/bin/sh
# Says whether this package is whole, and whether this machine can install it; exit code 0 where both are so.
#
#   sh check.sh [PYTHON]      PYTHON where it is not found by itself, such as /opt/python/bin/python@PYTHON@
set -u
cd "$(dirname "$0")" || exit 1
faults=0
fault() {
    faults=$((faults + 1))
    printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
}

python=${1:-$(command -v python@PYTHON@ || command -v python3 || echo python3)}
has=$("$python" -c 'import platform as p; print(p.python_implementation(), ".".join(p.python_version_tuple()[:2]))' 2> /dev/null || echo 'no Python')
cpu=$(uname -m)
libc=$(getconf GNU_LIBC_VERSION 2> /dev/null || echo 'no glibc')
echo "made for CPython @PYTHON@, @CPU@, glibc @GLIBC@ or newer; this machine has $has, $cpu, $libc"

other="or ask for a package that was made on a machine like this one"
if [ "$has" != "CPython @PYTHON@" ]; then
    fault "$python is $has, expected CPython @PYTHON@" "install it, such as apt install python@PYTHON@-venv or dnf install python@PYTHON@, $other"
elif ! "$python" -c 'import ensurepip, venv' 2> /dev/null; then
    fault "$python has no venv" "apt install python@PYTHON@-venv"
fi
[ "$cpu" = "@CPU@" ] || fault "the CPU is $cpu, expected @CPU@" "use another machine, $other"
# as one number: 2.34 is 2034
number() { echo "$1" | awk -F '[ .]' '{ print $(NF - 1) * 1000 + $NF }'; }
if [ "${libc#glibc }" = "$libc" ]; then
    fault "this system has no glibc, such as Alpine Linux" "use a Linux with glibc @GLIBC@ or newer, or a container"
elif [ "$(number "$libc")" -lt "$(number @GLIBC@)" ]; then
    fault "the system has $libc, expected @GLIBC@ or newer" "use a newer Linux (ldd --version tells), a container, $other"
fi

[ -f SHA256SUMS ] || fault "SHA256SUMS is missing" "copy the package again"
changed=$(sha256sum -c SHA256SUMS 2> /dev/null | grep -v ': OK$')
[ -z "$changed" ] || fault "not as SHA256SUMS says: $(echo "$changed" | cut -d : -f 1 | tr '\n' ' ')" "copy the package again, and ask who handed it to you"
listed=$(cat SHA256SUMS 2> /dev/null | wc -l)
there=$(find . -type f ! -path ./SHA256SUMS | wc -l)
[ "$there" -le "$listed" ] || fault "$((there - listed)) files are not of this package" "unpack it into an empty folder"

[ "$faults" -eq 0 ] || exit 1
echo "the package is whole, and this machine can install it: go on with INSTALL.md"
