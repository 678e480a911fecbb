#!/usr/bin/env bash
# Whether the service that promptyoself installs delivers, and is back after the machine was started
# again: tried in a Debian of its own, whose systemd really boots in a container. It needs root, and
# mmdebstrap and systemd-nspawn (Debian: `apt install mmdebstrap systemd-container`). The Letta is
# `promptyoself sandbox`, inside too.
#
#   docker/boot.sh         about a minute; the first time two, for the download
#   docker/boot.sh clean   remove what was downloaded (400 MB)
#
# BOOT_DIR is where it keeps things; PYTHON is a Python with pip, 3.11 or newer.
set -euo pipefail
REPO=$(realpath "$(dirname "$0")/..")
DIR=${BOOT_DIR:-/var/cache/promptyoself-boot} # only root may write to /var/cache
ROOT=$DIR/root
OPT=/opt/promptyoself/bin/promptyoself
PACKAGES=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,python3,python3-venv,tzdata
NSPAWN=
INIT=

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
give_up() {
    printf 'docker/boot.sh: %s\n' "$*" >&2
    exit 1
}

require() {
    [ "$(id -u)" = 0 ] || give_up "it needs root, for a container"
    for name in mmdebstrap systemd-nspawn nsenter pgrep; do
        command -v "$name" >/dev/null || give_up "it needs $name"
    done
    install -d -m 0700 "$DIR"
}

# A Debian with systemd and a user, and promptyoself in two places: for the user, and for the system.
prepare() {
    if [ ! -d "$ROOT" ]; then
        local mirror
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
            sed -n 's/^Debian //p' | grep -v security | head -n 1)
        mmdebstrap --quiet --mode=root --variant=minbase --include="$PACKAGES" trixie \
            "$ROOT.part" "$mirror"
        mv "$ROOT.part" "$ROOT"
        chroot "$ROOT" useradd --create-home --shell /bin/bash ann
        chroot "$ROOT" useradd --system --home-dir /var/lib/promptyoself promptyoself
    fi
    local python=${PYTHON:-python3} wheels=$ROOT/wheels
    rm -rf "$wheels" "$ROOT"/opt/promptyoself "$ROOT"/home/ann/venv "$ROOT"/home/ann/.[cl]* \
        "$ROOT"/var/lib/promptyoself "$ROOT"/var/lib/systemd/linger
    mkdir "$wheels"
    "$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$REPO"
    "$python" -m pip download --quiet --python-version 3.13 --only-binary=:all: --dest "$wheels" \
        "$wheels"/promptyoself-*.whl
    local install="pip install --quiet --no-index --find-links /wheels promptyoself"
    chroot "$ROOT" sh -c "python3 -m venv /opt/promptyoself && /opt/promptyoself/bin/$install"
    chroot "$ROOT" su ann -c "python3 -m venv ~/venv && ~/venv/bin/$install"
}

boot() {
    systemd-nspawn --quiet --directory "$ROOT" --boot --register=no --keep-unit \
        --private-network </dev/null >"$DIR/boot.log" 2>&1 &
    NSPAWN=$!
    for _ in $(seq 100); do
        INIT=$(pgrep --parent "$NSPAWN" systemd || true)
        if [ -n "$INIT" ] && inside true 2>/dev/null &&
            inside systemctl is-system-running 2>/dev/null | grep -qE 'running|degraded'; then
            inside sh -c "nohup $OPT sandbox >/run/sandbox.json 2>&1 &"
            return
        fi
        sleep 0.2
    done
    give_up "it didn't boot; $DIR/boot.log says why"
}

inside() { nsenter --target "$INIT" --all "$@"; }
as_ann() { inside su - ann -c "PATH=~/venv/bin:\$PATH; $1"; }

shut_down() {
    inside systemctl poweroff
    wait "$NSPAWN" || true
    NSPAWN=
}

# Wait until a command of a user prints something.
until_it_prints() { # text command...
    local text=$1
    shift
    for _ in $(seq 60); do
        if "$@" | grep -qF -- "$text"; then return; fi
        sleep 0.5
    done
    "$@" >&2 || true
    give_up "that never said $text"
}

trap '[ -z "$NSPAWN" ] || kill "$NSPAWN" 2>/dev/null || true' EXIT

if [ "${1:-}" = clean ]; then
    rm -rf "$DIR"
    exit
fi
require
say "A Debian with systemd, and promptyoself in it"
prepare
boot
until_it_prints '"url"' inside cat /run/sandbox.json

say "A user's own service: a first prompt"
inside loginctl enable-linger ann
as_ann "promptyoself init --yes --agent-id echo-1 &&
    promptyoself register --prompt 'Stretch.' --time 'in 3s' && promptyoself service install"
until_it_prints '"count":1' as_ann "promptyoself history --type delivery.delivered"
as_ann "promptyoself register --prompt 'After the start.' --time 'in 15s'"

say "A service of the system"
inside "$OPT" service install --system
until_it_prints '"state":"active"' inside "$OPT" service status --system

say "Off, and on again"
shut_down
boot
until_it_prints '"starts_at_boot":true' as_ann "promptyoself service"
until_it_prints '"loop":true' as_ann "promptyoself service"
until_it_prints '"loop":true' inside "$OPT" service status --system
until_it_prints '"count":2' as_ann "promptyoself history --type delivery.delivered"
as_ann "promptyoself audit" | grep -qF '"unaccounted":0'

say "A damaged log: the loop stays up, and says so"
inside systemctl stop promptyoself
# shellcheck disable=SC2016
inside sh -c 'cd /var/lib/promptyoself/schedules && rm -rf index* &&
    printf garbage | dd of="$(ls *.gz)" bs=1 seek=100 conv=notrunc status=none'
inside systemctl start promptyoself
until_it_prints 'The log is damaged' inside journalctl --unit promptyoself --no-pager
inside "$OPT" service status --system | grep -qF '"restarts":0'

say "Taken away again"
inside "$OPT" service uninstall --system
as_ann "promptyoself service uninstall"
until_it_prints '"installed":false' as_ann "promptyoself service"
shut_down
say "All is well"
