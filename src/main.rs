//! The `tenantry` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenantry::cli::main(std::env::args_os()).into()
}
