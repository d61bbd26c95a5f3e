//! The simulated cloud as a process of its own, so that its work is not counted with a collector's.
//!
//! Prints one line of JSON, `{"url":…,"authority_url":…,"foreign_url":…}`, when it listens, and serves until its standard input ends (with
//! `--until-stdin-closes`) or it is killed.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tenantry_simulator::{Cloud, Scenario};

/// A simulated Microsoft cloud
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Read the scenario from this JSON file
    #[arg(long, required_unless_present = "demo")]
    scenario: Option<PathBuf>,
    /// Use the demo's scenario; apps of --scenario are added to it
    #[arg(long)]
    demo: bool,
    /// Listen at this address
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// End when standard input does, so that the simulator does not outlive whoever started it
    #[arg(long)]
    until_stdin_closes: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tenantry-simulator: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut scenario = match &arguments.scenario {
        Some(path) => {
            serde_json::from_str(&std::fs::read_to_string(path).map_err(|e| format!("`{}`: {e}", path.display()))?)
                .map_err(|e| format!("`{}`: {e}", path.display()))?
        }
        None => Scenario::default(),
    };
    if arguments.demo {
        scenario = Scenario { apps: scenario.apps, ..Scenario::demo() };
    }
    let cloud = Cloud::start_at(scenario, arguments.listen)
        .map_err(|e| format!("cannot listen at {}: {e}", arguments.listen))?;
    let urls = serde_json::json!({
        "url": cloud.url(),
        "authority_url": cloud.authority_url(),
        "foreign_url": cloud.foreign_url(),
    });
    println!("{urls}");
    if arguments.until_stdin_closes {
        let mut sink = [0; 256];
        while std::io::stdin().read(&mut sink)? > 0 {}
        return Ok(());
    }
    loop {
        std::thread::park();
    }
}
