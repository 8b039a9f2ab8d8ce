#!/bin/sh
# Builds one program from the sources of the crates in Debian's librust-*-dev packages, without the network. The manifest
# is made here, so that nothing is written beside the sources; it has all programs, so that they share what is built.
# usage: build.sh OUT PROGRAM
set -eu
out=$1 program=$2
cat > "$out/Cargo.toml.new" << END
[package]
name = "peer"
version = "0.0.0"
edition = "2021"
autobins = false
$(for source in "$PWD"/*.rs; do
  name=$(basename "$source" .rs)
  [ "$name" = bench ] || printf '\n[[bin]]\nname = "%s"\npath = "%s"\n' "$name" "$source"
done)

[dependencies]
crossbeam-channel = "0.5"
rayon = "1"

[profile.release]
lto = true
END
mv "$out/Cargo.toml.new" "$out/Cargo.toml"
rm -f "$out/Cargo.lock" # another version of cargo may have made it
exec cargo build --quiet --release --offline --manifest-path "$out/Cargo.toml" --target-dir "$out" --bin "$program" \
  --config 'source.crates-io.replace-with="debian"' --config 'source.debian.directory="/usr/share/cargo/registry"'
