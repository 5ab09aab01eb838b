#!/bin/bash
# setup.sh DIR [SUITE]: puts a real inference engine (llama.cpp's llama-server) and two tiny models into DIR, without
# touching the system: Debian packages are downloaded with apt and unpacked with dpkg, as any user.
#
# Afterwards: DIR/llama-server (start script), DIR/tiny.gguf, DIR/think.gguf.
# Exit: 0 done · 75 a download failed (the network, not this project) · 1 anything else.
# A second run keeps the engine and makes the models again.
set -euo pipefail

DIR=$(mkdir -p "${1:?usage: setup.sh DIR [SUITE]}" && cd "$1" && pwd)
SUITE=${2:-forky} # the Debian suite that has the package llama.cpp-tools
HERE=$(cd "$(dirname "$0")" && pwd)

fail() { echo "setup: $*" >&2; exit 1; }
download_failed() {
	printf '\n%s\n' \
		"############################################################" \
		"## realengine: DOWNLOAD FAILED: $*" \
		"## No real engine on this machine: its tests cannot run." \
		"############################################################" >&2
	exit 75
}

make_models() {
	(cd "$HERE" && go build -buildvcs=false -o "$DIR/mkmodel" ./mkmodel)
	"$DIR/mkmodel" -o "$DIR/tiny.gguf"
	"$DIR/mkmodel" -o "$DIR/think.gguf" -think
}

# get_engine uses an apt of its own under DIR: its lists, cache and package state; only the keyring is the system's.
get_engine() {
	[ -x "$DIR/llama-server" ] && "$DIR/llama-server" --version >/dev/null 2>&1 && return
	command -v apt-get >/dev/null && command -v dpkg >/dev/null || fail "needs apt-get and dpkg"
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	[ -r $keyring ] || fail "needs $keyring (package debian-archive-keyring)"
	local mirror
	mirror=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d 2>/dev/null | head -n 1 | tr -d ' ' || true)
	mirror=${mirror:-http://deb.debian.org/debian}

	local apt=$DIR/apt
	rm -rf "$apt" "$DIR/root"
	mkdir -p "$apt"/etc/{apt.conf.d,preferences.d,sources.list.d} "$apt"/state/lists/partial "$apt"/cache/archives/partial "$DIR/root"
	: >"$apt/status"
	echo "deb [signed-by=$keyring] $mirror $SUITE main" >"$apt/etc/sources.list"
	# The system's own configuration is read first (it may name a proxy); what follows overrides it.
	local get=(apt-get -qq
		-o Dir::Etc="$apt/etc" -o Dir::Etc::sourcelist="$apt/etc/sources.list" -o Dir::Etc::sourceparts="$apt/etc/sources.list.d"
		-o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache"
		-o APT::Install-Recommends=0 -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=2 -o Debug::NoLocking=1)
	"${get[@]}" update -o APT::Update::Error-Mode=any || download_failed "package lists of $SUITE from $mirror"
	"${get[@]}" -y --download-only install llama.cpp-tools || download_failed "llama.cpp-tools from $mirror $SUITE"

	local deb
	for deb in "$apt"/cache/archives/*.deb; do
		case ${deb##*/} in libc6_* | lib* | zlib* | llama*) dpkg -x "$deb" "$DIR/root" ;; esac
	done
	write_starter
	"$DIR/llama-server" --version >/dev/null 2>&1 || fail "the engine does not start: $("$DIR/llama-server" --version 2>&1 | tail -n 3)"
	rm -rf "$apt"
}

# write_starter runs the engine with its own libc and libraries, and the CPU code that this machine can run.
write_starter() {
	local root=$DIR/root loader lib
	loader=$(find "$root" -name 'ld-linux-*.so.*' | head -n 1)
	lib=$(dirname "$(find "$root" -name 'libc.so.6' | head -n 1)")
	[ -n "$loader" ] && [ -d "$lib" ] || fail "unexpected contents of the packages in $root"
	cat >"$DIR/llama-server" <<-START
		#!/bin/sh
		for cpu in haswell x64 armv8.0_1; do
			code=$lib/ggml/backends0/libggml-cpu-\$cpu.so
			[ \$cpu = haswell ] && ! grep -qw avx2 /proc/cpuinfo && continue
			[ -e "\$code" ] && break
		done
		GGML_BACKEND_PATH=\$code exec $loader --library-path $lib:$lib/llama:$lib/ggml/backends0 $root/usr/bin/llama-server "\$@"
	START
	chmod +x "$DIR/llama-server"
}

make_models
get_engine
