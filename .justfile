# One recipe per CI job, so that a laptop and CI run the same line. `just --list` shows them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# All that .ci/run checks, in its order.
ci: fmt clippy docs unused deny build-without-demo test

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

# What takes longer than CI allows: 100 kill rounds, power cuts, clock steps, isolation, the benchmarks.
long:
    .ci/long
