"""What `tfqrl deploy` runs on the device: POSIX shell and what Debian always has, for `Device.run`.

$base is the device's folder of tfqrl. What a script prints is its result; what it says on stderr is why it failed.
"""

from __future__ import annotations

from tfqrl.service import EDGETPU_GROUPS, GROUPS, RUN_OPTIONS

# Begins every script that changes something: two at once would remove what the other has just made.
LOCK = """
mkdir -p "$base"
exec 9> "$base/lock"
if ! flock -n 9; then
    echo 'Another deployment is at work there. Wait until it is done, and deploy again.' >&2
    exit 1
fi
"""

# Whether the venv $1 was made to its end and still works: an upgrade of the system takes a venv's Python away.
WHOLE = """
whole() {
    [ -f "$1/tfqrl-extras" ] && "$1/bin/python" -Ic '
from importlib.util import find_spec
raise SystemExit(not (find_spec("edge") and find_spec("numpy")))' 2>/dev/null
}
"""

# $1: name of the policy.
PROBE = (
    WHOLE
    + """
echo "system $(uname -s)"
echo "user $(id -un)"
echo "home $HOME"
python() { python3 -c "$1" 2>/dev/null || true; }
echo "python $(python 'import sys; print("%d.%d" % sys.version_info[:2])')"
echo "bits $(python 'import struct; print(8 * struct.calcsize("P"))')"
echo "venv $(python 'import ensurepip, venv; print("yes")')"
echo "lgpio $(python 'import lgpio; print("yes")')"
echo "installed $(if whole "$base/venv"; then basename "$(readlink "$base/venv")"; fi)"
echo "extras $(cat "$base/venv/tfqrl-extras" 2>/dev/null || true)"
unit=tfqrl-$1.service
echo "unit $(if systemctl cat "$unit" >/dev/null 2>&1; then echo yes; fi)"
echo "options $(systemctl cat "$unit" 2>/dev/null | sed -n 's/^RUN_OPTIONS//p')"
for group in GROUPS; do
    if getent group "$group" >/dev/null; then echo "group $group"; fi
done
""".replace("GROUPS", " ".join((*GROUPS, *EDGETPU_GROUPS))).replace("RUN_OPTIONS", RUN_OPTIONS)
)

# $1: name of the venv. $2: extras, with commas. $3: file name of the wheel at standard input; none for the one that
# is installed. $4: its SHA-256. $5: an option of `python3 -m venv`, or none.
# A venv is made beside the current one, which services run from; `tfqrl-extras` is written last and says it is whole.
INSTALL = (
    LOCK
    + WHOLE
    + """
new=$base/venvs/$1
trap 'if [ ! -f "$new/tfqrl-extras" ]; then rm -rf "$new"; fi' EXIT
if whole "$new"; then
    cat > /dev/null
else
    rm -rf "$new"
    mkdir -p "$new/wheel"
    if [ -z "$3" ]; then
        cp "$base"/venv/wheel/*.whl "$new/wheel"
    else
        cat > "$new/wheel/$3"
        if [ "$(sha256sum < "$new/wheel/$3" | cut -d ' ' -f 1)" != "$4" ]; then
            echo 'The wheel did not arrive whole. Deploy again.' >&2
            exit 1
        fi
    fi
    python3 -m venv ${5:+"$5"} "$new" >&2
    for wheel in "$new"/wheel/*.whl; do
        "$new/bin/python" -m pip install --quiet --disable-pip-version-check --no-input "$wheel${2:+[$2]}" >&2
    done
    echo "$2" > "$new/.extras"
    sync "$new/.extras"
    mv "$new/.extras" "$new/tfqrl-extras"
fi
for policy in "$base"/policies/*; do
    if [ -d "$policy" ]; then touch "$policy/restart"; fi
done
before=$(basename "$(readlink "$base/venv" || true)")
ln -sfn "venvs/$1" "$base/.venv.$$"
mv -T "$base/.venv.$$" "$base/venv"
cd "$base/venvs"
for old in *; do
    case $old in "$1" | "$before") continue ;; esac
    # Some service may not have been restarted since. The name comes by standard input, or grep would find itself.
    # shellcheck disable=SC2062
    if ! echo "$base/venvs/$old/" | grep -qsF -f - /proc/[0-9]*/cmdline; then rm -rf "./$old"; fi
done
"""
)

# A policy's folder has a file `restart` while its service runs what was current before, so that a deployment that was
# broken off is finished by the next.
FUNCTIONS = """
begin() {
    new=$(mktemp -d .new.XXXXXX)
    trap 'rm -rf "$new"' EXIT
    trap 'exit 1' HUP INT PIPE TERM
}
digest() {
    cat "$1"/* | sha256sum | cut -d ' ' -f 1
}
point() {
    ln -sfn "$2" ".link.$$"
    mv -T ".link.$$" "$1"
}
# Makes the files in $new current; says what `verify` does, the version, and whether it is another than before.
# A version is a policy with the keys by which it has to be signed, those of the current one if it brings none.
switch() {
    if [ ! -f "$new/trusted.pub" ] && [ -f current/trusted.pub ]; then cp current/trusted.pub "$new"; fi
    set -- "$new/policy.tflite"
    if [ -f "$new/trusted.pub" ]; then set -- "$@" --trust "$new/trusted.pub" --require-signature; fi
    if ! "$base/venv/bin/tfqrl-edge" verify "$@"; then
        echo 'The policy is refused there; what was current still is.' >&2
        exit 1
    fi
    version=$(digest "$new" | cut -c 1-12)
    before=$(readlink current || true)
    echo "$version"
    if [ "$before" = "$version" ] && [ "$(digest "$new")" = "$(digest current)" ]; then
        echo unchanged
    else
        touch restart
        mkdir -p "$version"
        mv "$new"/* "$version"
        touch "$version"
        sync "$version"/* "$version"
        if [ "$before" != "$version" ]; then
            if [ -n "$before" ]; then point previous "$before"; fi
            point current "$version"
        fi
        echo switched
    fi
    if [ -f current/trusted.pub ]; then echo signed; else echo unsigned; fi
}
"""

# $1: name. $2: SHA-256 of the files in the tar archive at standard input.
COPY = (
    LOCK
    + FUNCTIONS
    + r"""
mkdir -p "$base/policies/$1"
cd "$base/policies/$1"
begin
if ! tar -x -f - -C "$new" || [ "$(digest "$new")" != "$2" ]; then
    echo 'The policy did not arrive whole. Deploy again.' >&2
    exit 1
fi
switch

kept=0
current=$(readlink current)
previous=$(readlink previous || true)
# Names that this script gave, in the order of their times, which no glob knows.
# shellcheck disable=SC2010
for old in $(ls -t | grep -E '^[0-9a-f]{12}$'); do
    if [ "$old" = "$current" ] || [ "$old" = "$previous" ]; then continue; fi
    kept=$((kept + 1))
    if [ "$kept" -gt 3 ]; then rm -rf "./$old"; fi
done
"""
)

# $1: name.
ROLLBACK = (
    LOCK
    + FUNCTIONS
    + """
cd "$base/policies/$1" 2>/dev/null || { echo "No policy $1 was deployed there." >&2; exit 1; }
previous=$(readlink previous || true)
if [ -z "$previous" ] || [ "$previous" = "$(readlink current || true)" ]; then
    echo "There is no version of $1 before the current one." >&2
    exit 1
fi
begin
cp previous/policy.tflite "$new"
switch
"""
)

# $1: name.
BENCH = """
# Into the version itself, so that it stays the same when another becomes current meanwhile.
cd -P "$base/policies/$1/current"
report=$(mktemp)
trap 'rm -f "$report"' EXIT
set -- policy.tflite
if [ -f trusted.pub ]; then set -- "$@" --trust trusted.pub; fi
"$base/venv/bin/tfqrl-edge" bench "$@" --json "$report" >&2
cat "$report"
"""

# Begins scripts whose $1 is a policy's name and which need root.
ROOT = """
unit=tfqrl-$1.service
policy=$base/policies/$1
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
    # A service that has failed too often may not be started until that is forgotten.
    root systemctl reset-failed "$unit" 2>/dev/null || true
    if ! root systemctl restart "$unit" >&2; then
        root journalctl --unit "$unit" --lines 5 --no-pager --output cat >&2 || true
        echo "The service $unit does not start." >&2
        if [ -e "$policy/previous" ]; then
            echo 'The version before is still there: --rollback returns to it.' >&2
        fi
        exit 1
    fi
    rm -f "$policy/restart"
    systemctl is-active "$unit" || true
}
"""

# $1: name. $2: yes if it shall run from now on, no if the one that is there shall only be up to date. The unit's text
# comes at standard input.
SERVICE = (
    LOCK
    + ROOT
    + r"""
text=$(mktemp)
trap 'rm -f "$text"' EXIT
cat > "$text"
if root cmp -s "$text" "/etc/systemd/system/$unit" && [ ! -e "$policy/restart" ] \
    && { [ "$2" = no ] || { systemctl is-enabled --quiet "$unit" && systemctl is-active --quiet "$unit"; }; }; then
    echo 'already there'
    exit 0
fi
root install -m 644 "$text" "/etc/systemd/system/$unit"
root systemctl daemon-reload >&2
if [ "$2" = yes ]; then root systemctl enable "$unit" >&2; fi
start
"""
)

# $1: name.
RESTART = f"""
if [ ! -e "$base/policies/$1/restart" ] || ! systemctl cat "tfqrl-$1.service" >/dev/null 2>&1; then exit 0; fi
{LOCK}{ROOT}
if [ -f "$policy/current/trusted.pub" ] && ! systemctl cat "$unit" | grep -q -e '"--require-signature"'; then
    echo "The service $unit does not ask for a signature yet. Deploy the policy with --service." >&2
    exit 1
fi
start
"""
