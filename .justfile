# One recipe per CI job, so that a laptop and CI run the same line. `just --list` shows them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# All that .ci/run checks, in its order; it reads this line.
ci: fmt clippy docs unused deny build-without-demo packages test

# The formatting is rustfmt's.
fmt:
    cargo fmt --all --check

# No warning of the compiler or of clippy, in any target.
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# The documentation builds, and its links lead somewhere.
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

# Every dependency is used.
unused:
    cargo machete

# Licences, sources and bans; advisories where their database can be reached.
deny:
    cargo deny --workspace --all-features check licenses bans sources
    cargo deny --workspace --all-features check advisories || { [ "$(cargo deny fetch db >/dev/null 2>&1; echo $?)" != 0 ] && echo "SKIPPED: the advisory database cannot be reached from here"; }

# What packages contain: the daemon without the simulator.
build-without-demo:
    cargo check --locked --no-default-features

# The README's test command.
test:
    cargo test --workspace

# deb, rpm, tarball, image and the list of what they contain, in `target/packages`.
packages:
    packaging/build

# Minimal Debian trees for the tests that boot a systemd, in `target/trees`; needs root and mmdebstrap.
trees:
    #!/usr/bin/env bash
    set -euo pipefail
    mkdir -p target/trees
    mirror=$({ cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null || true; } |
        sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' | sed -n 1p)
    for suite in bookworm trixie; do
        [ -d "target/trees/$suite" ] && continue
        rm -rf "target/trees/.$suite"
        mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv,dbus,libbpf1,ca-certificates \
            --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Languages "none"' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' "$suite" "target/trees/.$suite" "$mirror"
        mv "target/trees/.$suite" "target/trees/$suite"
    done

# The same commit built in another folder gives the same bytes.
reproduce: packages
    #!/usr/bin/env bash
    set -euo pipefail
    elsewhere=$(mktemp -d)
    trap 'rm -rf "$elsewhere"' EXIT
    git clone --quiet . "$elsewhere/tenantry"
    "$elsewhere/tenantry/packaging/build" >/dev/null
    sums() { (cd "$1/target/packages" && find . -type f | LC_ALL=C sort | xargs sha256sum); }
    diff <(sums .) <(sums "$elsewhere/tenantry") && sums .

# What takes longer than CI allows: 100 kill rounds, power cuts, clock steps, isolation, soaks, the benchmarks.
long:
    .ci/long
