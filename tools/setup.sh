#!/usr/bin/env bash
# Installs the Debian packages that building and testing Shoestring needs (Debian 12). Says what it does; does nothing
# when they are all there.
set -euo pipefail

packages=(
  g++ cmake ninja-build pkg-config git ca-certificates
  libfmt-dev libxxhash-dev libhwy-dev nlohmann-json3-dev libboost-program-options-dev
  libhdf5-dev libsentencepiece-dev libpcre2-dev libutf8proc-dev libopenmpi-dev openmpi-bin
  zlib1g-dev libzstd-dev liblzma-dev libbz2-dev
  libgtest-dev libvalijson-dev libdnnl-dev
  gzip xz-utils patchelf
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
echo "installing with apt-get: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
