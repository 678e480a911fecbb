#!/usr/bin/env bash
# A Docker engine for tests, on a machine that has none and reaches no image registry: only Debian's
# packages and the Python index. It needs root and apt, and installs nothing: the engine lies in a
# folder of its own and runs in namespaces of its own, so that the machine's network, mounts and
# processes stay as they are.
#
#   docker/engine.sh with CMD...   start it, run a command of this machine, and end it whatever comes
#   docker/engine.sh up            start it
#   docker/engine.sh run CMD...    run a command beside it, in the repository: docker, compose, bash
#   docker/engine.sh down          end it; what was downloaded (720 MB) is kept for the next time
#   docker/engine.sh clean         remove that too
#
# A registry would give two images. In their places it has stand-ins: python:3.13-slim is Debian's own
# Python 3.13 with the wheels that the build asks for; letta/letta:0.16.8 is `promptyoself sandbox`.
# ENGINE_DIR is where it keeps things. DOCKER_BUILDKIT=0 before `run` chooses the old builder.
set -euo pipefail
REPO=$(realpath "$(dirname "$0")/..")
DIR=${ENGINE_DIR:-/var/cache/promptyoself-engine} # only root may write to /var/cache
SUITE=trixie                                     # has Python 3.13, Docker 26 and Compose 2.26
GROUP=promptyoself-engine                        # the containers' place among the control groups
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt
PACKAGES=docker.io,docker-cli,docker-buildx,docker-compose,iptables,iproute2,tini,ca-certificates

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }
give_up() {
    printf 'docker/engine.sh: %s\n' "$*" >&2
    exit 1
}

require() {
    [ "$(id -u)" = 0 ] || give_up "it needs root, for namespaces and mounts"
    for name in apt-get dpkg perl unshare nsenter pgrep setsid flock; do
        command -v "$name" >/dev/null || give_up "it needs $name"
    done
    install -d -m 0700 "$DIR"
}

# Debian's address, as this machine's own apt knows it.
mirror() {
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
        sed -n 's/^Debian //p' | grep -v security | head -n 1
}

# A root file system with these packages.
debian() { # folder package,package,...
    rm -rf "$1.part"
    PATH="$DIR/tools/usr/bin:$PATH" mmdebstrap --quiet --mode=root --variant=minbase --include="$2" \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$SUITE" "$1.part" "$(mirror)" 2>&1 | { grep -v -e '^debconf' -e '^W: ' || true; }
    [ -e "$1.part/etc/debian_version" ] || give_up "no Debian could be made in $1"
    mv "$1.part" "$1"
}

download() {
    [ -d "$DIR/engine" ] && [ -d "$DIR/python" ] && return
    if [ ! -d "$DIR/tools" ]; then # Perl programs, which needn't be installed to be run
        rm -rf "$DIR/tools.part"
        mkdir "$DIR/tools.part"
        (
            cd "$DIR/tools.part"
            apt-get download -qq mmdebstrap 2>/dev/null ||
                { apt-get update -qq && apt-get download -qq mmdebstrap 2>/dev/null; }
            dpkg -x mmdebstrap_*.deb .
        )
        mv "$DIR/tools.part" "$DIR/tools"
    fi
    [ -n "$(mirror)" ] || apt-get update -qq
    local made=()
    if [ ! -d "$DIR/engine" ]; then
        debian "$DIR/engine" "$PACKAGES" &
        made+=($!)
    fi
    if [ ! -d "$DIR/python" ]; then
        rm -f "$DIR/wheels.for"
        debian "$DIR/python" python3,python3-pip,python3-venv,ca-certificates,netbase,tzdata &
        made+=($!)
    fi
    for each in "${made[@]}"; do wait "$each"; done
    for name in python python3 python3.13; do # where the real image has them
        ln -sf /usr/bin/python3.13 "$DIR/python/usr/local/bin/$name"
    done
}

# What the build will ask pip for, fetched by that very Python, so that the build needs no network.
wheels() {
    local root=$DIR/python wanted
    wanted=$(sha256sum "$REPO/pyproject.toml" "$REPO/docker/engine.sh")
    [ "$(cat "$DIR/wheels.for" 2>/dev/null)" != "$wanted" ] || return 0
    rm -rf "$root/opt/wheels" "$root/src" "$root/etc/pip.conf" "$DIR/wheels.for"
    cp /etc/resolv.conf "$root/etc/resolv.conf"
    cp "${PIP_CERT:-$CERTIFICATES}" "$root$CERTIFICATES"
    mkdir "$root/src"
    (cd "$REPO" && cp -r pyproject.toml README.md LICENSE promptyoself "$root/src")
    chroot "$root" env -i PATH="$PATH" HOME=/root PIP_CERT="$CERTIFICATES" \
        ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} ${https_proxy:+https_proxy="$https_proxy"} \
        PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore \
        python -m pip download --quiet --no-cache-dir --dest /opt/wheels \
        'hatchling>=1.27' '/src[letta-code,mcp,metrics,notify]'
    rm -rf "$root/src"
    printf '[global]\nno-index = true\nfind-links = /opt/wheels\n' >"$root/etc/pip.conf"
    echo "$wanted" >"$DIR/wheels.for"
}

# As PID 1 of namespaces of its own. The root is pivoted, not chrooted: in a chroot `docker exec`
# and the health checks would end up outside of their container.
engine() {
    local root=$DIR/engine
    mount --make-rprivate /
    ip link set lo up
    mount --bind "$root" "$root"
    mkdir -p "$root/var/lib/docker" "$root/repo" "$root/.old" "$DIR/data"
    mount -t proc proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs tmpfs "$root/run"
    mount -t tmpfs tmpfs "$root/tmp"
    mount --bind "$DIR/data" "$root/var/lib/docker"
    mount --bind "$REPO" "$root/repo"
    mount -o remount,bind,ro "$root/repo"
    cd "$root"
    pivot_root . .old
    exec chroot . bash -c "umount -l /.old; cd /; exec tini -- dockerd --storage-driver overlay2 \
        --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent /$GROUP"
}

run() {
    local pid
    pid=$(cat "$DIR/pid" 2>/dev/null) || give_up "it isn't running; \`docker/engine.sh up\` starts it"
    nsenter --target "$pid" --mount --net --pid env -i HOME=/root LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        DOCKER_BUILDKIT="${DOCKER_BUILDKIT:-1}" bash -c 'cd /repo; exec "$@"' - "$@"
}

up() {
    require
    exec 9>"$DIR/lock"
    flock --wait 600 9 || give_up "another one has been at work in $DIR for ten minutes"
    down # what an earlier one left
    say "what has to be downloaded"
    download
    wheels
    say "starting the engine"
    setsid unshare --mount --net --pid --fork --kill-child bash "$REPO/docker/engine.sh" engine \
        </dev/null >"$DIR/engine.log" 2>&1 9>&- &
    parent=$!
    for _ in $(seq 120); do
        pgrep --parent "$parent" >"$DIR/pid" && run docker info >/dev/null 2>&1 && break
        sleep 0.5
    done
    run docker info --format 'Docker {{.ServerVersion}}, {{.Driver}}, cgroups v{{.CgroupVersion}}' || {
        tail -n 20 "$DIR/engine.log"
        give_up "the engine doesn't answer; its log is $DIR/engine.log"
    }
    say "what stands for python:3.13-slim, the image as it is, and what stands for Letta"
    tar -C "$DIR/python" --numeric-owner -c . | run docker import --change 'CMD ["python3"]' \
        --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - \
        python:3.13-slim >/dev/null
    run docker build --quiet --tag promptyoself .
    printf '%s\n' 'FROM promptyoself' 'CMD []' \
        'ENTRYPOINT ["promptyoself", "sandbox", "--host", "0.0.0.0", "--port", "8283"]' \
        'HEALTHCHECK --interval=5s CMD ["promptyoself", "test"]' |
        run docker build --quiet --tag letta/letta:0.16.8 -
}

down() {
    local pid
    if pid=$(cat "$DIR/pid" 2>/dev/null) && [ -n "$pid" ]; then
        # After a restart of the machine that number may be another process's.
        if grep -qa -e dockerd -e docker/engine.sh "/proc/$pid/cmdline" 2>/dev/null; then
            kill -TERM "$pid" 2>/dev/null || true
            for _ in $(seq 60); do
                [ -d "/proc/$pid" ] || break
                sleep 0.5
            done
            kill -KILL "$pid" 2>/dev/null || true
            sleep 0.5
        fi
    fi
    rm -f "$DIR/pid"
    find /sys/fs/cgroup -depth -type d -path "*/$GROUP*" -exec rmdir {} + 2>/dev/null || true
    rm -rf "$DIR/data"
}

case ${1:-} in
engine) engine ;;
up) up ;;
run)
    shift
    run "$@"
    ;;
down) down ;;
clean)
    down
    rm -rf "$DIR"
    ;;
with)
    shift
    trap '[ -z "${parent:-}" ] || down' EXIT # but for one that is another's
    up
    "$@" 9>&-
    ;;
*)
    sed -n '2,/^set/p' "$0" | grep '^#'
    exit 2
    ;;
esac
