#!/bin/sh
# Builds both images of a package with buildah; no container runs for that.
#
#   deploy/container/build.sh [PACKAGE]        what `make wheelhouse` makes (default: build/wheelhouse)
#
# The base comes from a registry; where none can be reached, debootstrap makes one of Debian's packages (as root, some minutes).
set -eu
package=${1:-build/wheelhouse}
base=docker.io/library/python:3.11-slim-bookworm
command -v buildah > /dev/null || { echo "buildah is not installed: apt install buildah podman" >&2; exit 1; }
case $(readlink -f "$package") in
    *-cp311-*) ;;
    *) echo "$package is no package for CPython 3.11, which the images have: make wheelhouse with that" >&2; exit 1 ;;
esac
cd "$package"
sh check.sh python3.11

if ! buildah inspect --type image "$base" > /dev/null 2>&1 && ! timeout 120 buildah pull --quiet "$base"; then
    root=$(mktemp -d)
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$root"
    ln -s python3 "$root/usr/bin/python"
    tar -C "$root" -c . | podman import --quiet - "$base"
    rm -rf "$root"
fi
for name in server client; do
    buildah bud --isolation chroot --pull-never --layers --format docker $([ $name = server ] || echo --build-arg VARIANT=cpu) \
        --file "deploy/container/Dockerfile.$name" --tag "csasn-$name:0.1.0" .
done
