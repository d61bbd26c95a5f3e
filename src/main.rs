//! The `tenantry` program; everything is in the library.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

// Under a backlog the system's allocator takes a tenth more CPU and memory (`tests/bench`).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    tenantry::cli::main(std::env::args_os()).into()
}
