#!/bin/sh
# Measure policies on a bare device, such as a Raspberry Pi with a fresh Raspberry Pi OS:
#
#   sh benchmark_on_device.sh policy.tflite [more.tflite ...]
#
# Copy this script and the policies there, and beside the script tfqrl's wheel (`pip wheel --no-deps .` in a checkout makes
# it). It makes a virtual environment in ~/tfqrl-venv, installs tfqrl in it, verifies the policies, measures them, and
# leaves one JSON file in the current folder. Called again, it uses the environment again.
set -eu

VENV=$HOME/tfqrl-venv
NEEDED_KB=500000 # the environment, and what pip unpacks on the way

fail() {
    echo "benchmark_on_device.sh: $*" >&2
    exit 1
}

install_tfqrl() {
    if [ "$bits" -eq 32 ]; then
        # Asked for by name: on a 64-bit kernel pip takes the 32-bit system for a 64-bit one, and finds no interpreter.
        "$VENV/bin/pip" install --quiet 'tflite-runtime==2.14.0' 'numpy<2' &&
            "$VENV/bin/pip" install --quiet --no-deps "$package"
    else
        "$VENV/bin/pip" install --quiet "$package"
    fi
}

if [ $# -eq 0 ]; then
    echo "usage: sh benchmark_on_device.sh policy.tflite [more.tflite ...]" >&2
    exit 2
fi
for policy; do
    [ -f "$policy" ] || fail "There is no file $policy. Copy the policy here, or correct its name."
done

# The system.
command -v python3 >/dev/null || fail "There is no python3. Run: sudo apt-get install python3 python3-venv"
# The bits of the program, not of the kernel: a 32-bit Raspberry Pi OS has a 64-bit kernel on a Pi 4.
bits=$(python3 -c 'import struct; print(8 * struct.calcsize("P"))')
newest=13
[ "$bits" -eq 64 ] || newest=11 # there are no interpreters for 32-bit ARM beyond
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! python3 -c "import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, $newest))"; then
    fail "tfqrl needs Python 3.10 to 3.$newest on a $bits-bit system; python3 is $version here."
fi
python3 -c 'import venv, ensurepip' 2>/dev/null ||
    fail "Python's venv module is not installed. Run: sudo apt-get install python3-venv"

# The wheel beside this script, never the package index: tfqrl is not published, and anybody could take its name there.
folder=$(cd "$(dirname "$0")" && pwd)
package=
for wheel in "$folder"/tfqrl-*.whl; do
    [ -e "$wheel" ] ||
        fail "There is no tfqrl-*.whl in $folder. Make it with \`pip wheel --no-deps .\` in a checkout, and copy it there."
    [ -z "$package" ] || fail "There is more than one tfqrl-*.whl in $folder. Keep the one to measure."
    package=$wheel
done
source="$(basename "$package") $(cksum <"$package")"

# The stamp says what a whole environment was made from; one that broke off has none.
stamp=$VENV/installed-from
if [ -x "$VENV/bin/tfqrl-edge" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$source" ]; then
    echo "Using $VENV again."
else
    free_kb=$(df -Pk "$HOME" | awk 'NR == 2 { print $4 }')
    [ "$free_kb" -ge $NEEDED_KB ] ||
        fail "$HOME has $((free_kb / 1000)) MB free; the installation needs $((NEEDED_KB / 1000)) MB."
    echo "Installing tfqrl from $source into $VENV."
    python3 -m venv --clear "$VENV"
    if ! install_tfqrl; then
        fail "The installation failed; pip says why above."
    fi
    echo "$source" >"$stamp"
fi

for policy; do
    "$VENV/bin/tfqrl-edge" verify "$policy"
done

# Bits 0 to 3 say what holds now, bits 16 to 19 what has happened since the start.
if command -v vcgencmd >/dev/null; then
    echo "The Pi's throttle state is $(vcgencmd get_throttled) (0x0: neither too hot nor short of power)."
fi
result=bench-$(uname -n)-$(date +%Y-%m-%d-%H%M%S).json
"$VENV/bin/tfqrl-edge" bench "$@" --json "$result"
echo
echo "The measurements are in $(pwd)/$result."
echo "Compare them with those of another device: tfqrl-edge compare $result OTHER.json"
