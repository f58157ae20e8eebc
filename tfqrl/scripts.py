"""What `tfqrl deploy` runs on the device: POSIX shell and what Debian always has, for `Device.run`.

$base is the device's folder of tfqrl. What a script prints is its result; what it says on stderr is why it failed.
"""

from __future__ import annotations

from tfqrl.service import GROUPS

# Whether the venv $1 was made to its end and still works: an upgrade of the system takes a venv's Python away.
WHOLE = """
whole() {
    [ -f "$1/tfqrl-extras" ] && "$1/bin/python" -Ic '
from importlib.util import find_spec
raise SystemExit(not (find_spec("edge") and find_spec("numpy")))' 2>/dev/null
}
"""

PROBE = (
    WHOLE
    + """
echo "system $(uname -s)"
echo "user $(id -un)"
echo "home $HOME"
echo "python $(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true)"
echo "venv $(python3 -c 'import ensurepip, venv; print("yes")' 2>/dev/null || true)"
echo "installed $(if whole "$base/venv"; then basename "$(readlink "$base/venv")"; fi)"
echo "extras $(cat "$base/venv/tfqrl-extras" 2>/dev/null || true)"
for group in GROUPS; do
    if getent group "$group" >/dev/null; then echo "group $group"; fi
done
""".replace("GROUPS", " ".join(GROUPS))
)

# $1: VERSION-HASH. $2: extras, with commas. $3: the name of the wheel at standard input. $4: its SHA-256.
# A venv is made beside the current one, which services run from; `tfqrl-extras` is written last and says it is whole.
INSTALL = (
    WHOLE
    + """
new=$base/venvs/$1
trap 'if [ ! -f "$new/tfqrl-extras" ]; then rm -rf "$new"; fi' EXIT
if whole "$new"; then
    cat > /dev/null
else
    rm -rf "$new"
    mkdir -p "$new/wheel"
    cat > "$new/wheel/$3"
    if [ "$(sha256sum < "$new/wheel/$3" | cut -d ' ' -f 1)" != "$4" ]; then
        echo 'The wheel did not arrive whole. Deploy again.' >&2
        exit 1
    fi
    python3 -m venv "$new" >&2
fi
for wheel in "$new"/wheel/*.whl; do
    "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$wheel${2:+[$2]}" >&2
done
echo "$2" > "$new/.extras"
sync "$new/.extras"
mv "$new/.extras" "$new/tfqrl-extras"
for policy in "$base"/policies/*; do
    if [ -d "$policy" ]; then touch "$policy/restart"; fi
done
before=$(basename "$(readlink "$base/venv" || true)")
ln -sfn "venvs/$1" "$base/.venv.$$"
mv -T "$base/.venv.$$" "$base/venv"
cd "$base/venvs"
for old in *; do
    case $old in "$1" | "$before") ;; *) rm -rf "./$old" ;; esac
done
"""
)

# A policy's folder has a file `restart` while its service runs what was current before, so that a deployment that was
# broken off is finished by the next.
FUNCTIONS = """
verify() {
    if [ -f "$2" ]; then set -- "$1" --trust "$2" --require-signature; else set -- "$1"; fi
    if ! "$base/venv/bin/tfqrl-edge" verify "$@"; then
        echo 'The policy is refused there; what was current still is.' >&2
        exit 1
    fi
}
signed() {
    if [ -f trusted.pub ]; then echo signed; else echo unsigned; fi
}
point() {
    ln -sfn "$2" ".link.$$"
    mv -T ".link.$$" "$1"
}
"""

# $1: name. $2: version. $3: SHA-256 of the files in the tar archive at standard input.
COPY = (
    FUNCTIONS
    + r"""
mkdir -p "$base/policies/$1"
cd "$base/policies/$1"
new=$(mktemp -d .new.XXXXXX)
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT PIPE TERM
if ! tar -x -f - -C "$new" || [ "$(cat "$new"/* | sha256sum | cut -d ' ' -f 1)" != "$3" ]; then
    echo 'The policy did not arrive whole. Deploy again.' >&2
    exit 1
fi
trusted=trusted.pub
if [ -f "$new/trusted.pub" ]; then trusted=$new/trusted.pub; fi
verify "$new/policy.tflite" "$trusted"

before=$(readlink current || true)
if [ "$before" = "$2" ] && cmp -s "$new/policy.tflite" current/policy.tflite \
    && { [ "$trusted" = trusted.pub ] || cmp -s "$trusted" trusted.pub; }; then
    echo unchanged
    signed
    exit 0
fi
touch restart
mkdir -p "$2"
mv "$new/policy.tflite" "$2/policy.tflite"
touch "$2"
sync "$2/policy.tflite" "$2"
if [ "$trusted" != trusted.pub ]; then mv "$trusted" trusted.pub; fi
if [ "$before" != "$2" ]; then
    if [ -n "$before" ]; then point previous "$before"; fi
    point current "$2"
fi
echo switched
signed

kept=0
previous=$(readlink previous || true)
# Names that this script gave, in the order of their times, which no glob knows.
# shellcheck disable=SC2010
for old in $(ls -t | grep -E '^[0-9a-f]{12}$'); do
    if [ "$old" = "$2" ] || [ "$old" = "$previous" ]; then continue; fi
    kept=$((kept + 1))
    if [ "$kept" -gt 3 ]; then rm -rf "./$old"; fi
done
"""
)

# $1: name.
ROLLBACK = (
    FUNCTIONS
    + """
cd "$base/policies/$1" 2>/dev/null || { echo "No policy $1 was deployed there." >&2; exit 1; }
current=$(readlink current || true)
previous=$(readlink previous || true)
if [ -z "$previous" ] || [ "$previous" = "$current" ]; then
    echo "There is no version of $1 before the current one." >&2
    exit 1
fi
verify "previous/policy.tflite" trusted.pub
touch restart
point current "$previous"
point previous "$current"
echo "$previous"
"""
)

# $1: name.
BENCH = """
cd "$base/policies/$1"
report=$(mktemp)
trap 'rm -f "$report"' EXIT
set -- current/policy.tflite
if [ -f trusted.pub ]; then set -- "$@" --trust trusted.pub; fi
"$base/venv/bin/tfqrl-edge" bench "$@" --json "$report" >&2
cat "$report"
"""

# Begins scripts whose $1 is a policy's name and which need root.
ROOT = """
unit=tfqrl-$1.service
restart=$base/policies/$1/restart
if ! command -v systemctl >/dev/null; then
    echo 'There is no systemd. Deploy without --service and start the policy by what starts your programs.' >&2
    exit 1
fi
if command -v sudo >/dev/null; then
    if ! sudo -n true 2>/dev/null; then
        echo "A service needs root, and sudo asks $(id -un) for a password." >&2
        echo 'Allow it without one (visudo: NOPASSWD), or deploy as root.' >&2
        exit 1
    fi
    root() { sudo -n "$@"; }
else
    if [ "$(id -u)" != 0 ]; then echo 'A service needs root, and there is no sudo. Deploy as root.' >&2; exit 1; fi
    root() { "$@"; }
fi
start() {
    if ! root systemctl restart "$unit" >&2; then
        root journalctl --unit "$unit" --lines 5 --no-pager --output cat >&2 || true
        echo "The service $unit does not start." >&2
        exit 1
    fi
    rm -f "$restart"
    systemctl is-active "$unit" || true
}
"""

# $1: name. The unit's text comes at standard input.
SERVICE = (
    ROOT
    + r"""
text=$(mktemp)
trap 'rm -f "$text"' EXIT
cat > "$text"
if root cmp -s "$text" "/etc/systemd/system/$unit" && systemctl is-enabled --quiet "$unit" \
    && systemctl is-active --quiet "$unit" && [ ! -e "$restart" ]; then
    echo 'already there'
    exit 0
fi
root install -m 644 "$text" "/etc/systemd/system/$unit"
root systemctl daemon-reload >&2
root systemctl enable "$unit" >&2
start
"""
)

# $1: name.
RESTART = f"""
if [ ! -e "$base/policies/$1/restart" ] || ! systemctl cat "tfqrl-$1.service" >/dev/null 2>&1; then exit 0; fi
{ROOT}
start
"""
