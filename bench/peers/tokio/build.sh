#!/bin/sh
# Builds one program from the sources of the crates in Debian's librust-*-dev packages, without the network. The manifest
# is made here, so that nothing is written beside the sources.
# usage: build.sh OUT PROGRAM SOURCE
set -eu
out=$1 program=$2 source=$PWD/$3
cat > "$out/Cargo.toml" << END
[package]
name = "peer"
version = "0.0.0"
edition = "2021"

[[bin]]
name = "$program"
path = "$source"

[dependencies]
tokio = { version = "1", features = ["io-util", "macros", "net", "rt-multi-thread", "sync", "time"] }

[profile.release]
lto = true
END
rm -f "$out/Cargo.lock" # another version of cargo may have made it
exec cargo build --quiet --release --offline --manifest-path "$out/Cargo.toml" --target-dir "$out" \
  --config 'source.crates-io.replace-with="debian"' --config 'source.debian.directory="/usr/share/cargo/registry"'
