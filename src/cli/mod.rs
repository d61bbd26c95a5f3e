//! The command line: one file per command, [`run`] among them, which is the only place where the parts are put
//! together; those of them that collect also by `single`, for a run that ends by itself.
//!
//! A command is a function that takes the configuration file's path and its own arguments and answers an [`Exit`].
//! What it returns as an error is printed once, here, on standard error, with all its causes; standard output
//! carries results only, and [`out`] is the only way to it.

pub mod backfill;
pub mod cert;
pub mod check;
pub mod collect_once;
mod count;
#[cfg(feature = "demo")]
pub mod demo;
pub mod doctor;
pub mod exit;
pub mod export;
mod expiry;
pub mod fetch;
mod ground;
pub mod health;
mod heartbeat;
pub mod ledger;
pub mod manual;
pub mod moment;
pub mod notifications;
mod opening;
pub mod out;
mod output;
mod owner;
mod pieces;
mod progress;
pub mod reload;
mod reloading;
pub mod run;
mod selection;
mod sheet;
mod socket;
mod single;
pub mod status;
pub mod store;
pub mod subscription;
mod table;
pub mod tail;
pub mod tenant;
pub mod verify;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rustix::fs::Mode;

use crate::config::ConfigErrors;
use crate::store::StoreError;

pub use exit::{Ended, Exit};
use out::OutputError;

/// Collects the audit records of every Microsoft 365 tenant it is given, loses nothing, and hands them on.
#[derive(Debug, Parser)]
#[command(
    name = "tenantry",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 findings, 64 usage, 69 unavailable, 75 try again later, \
                  77 permission, 78 configuration"
)]
pub struct Cli {
    /// The configuration file; `conf.d/*.toml` beside it adds to it
    #[arg(long, global = true, value_name = "FILE", env = "TENANTRY_CONFIG", default_value = crate::config::DEFAULT_FILE)]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Collect: the daemon, in the foreground, as a service manager runs it
    Run(run::RunArgs),
    /// Collect all that Microsoft holds, once and without a daemon, and end: for cron, containers and investigations
    CollectOnce(collect_once::CollectOnceArgs),
    /// List a span of a tenant again, and retrieve what is not stored yet
    Backfill(backfill::BackfillArgs),
    /// Fetch one content blob by its address, as Microsoft hands it out, and compare it with what is stored
    Fetch(fetch::FetchArgs),
    /// Collect from a simulated Microsoft cloud and show what happens; needs no configuration
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Check the configuration and print what is in effect, secrets redacted
    Check(check::CheckArgs),
    /// Make the app's certificate, show those in use, print the app registration's manifest
    Cert(cert::CertArgs),
    /// Let the running daemon read its configuration again
    Reload(reload::ReloadArgs),
    /// Show how each tenant is doing
    Status(status::StatusArgs),
    /// Show what Microsoft says of its services: their state, issues, the Message Center
    Health(health::HealthArgs),
    /// Say who is collected: list, show, add, remove, pause and resume tenants
    Tenant(tenant::TenantArgs),
    /// Look after a tenant's subscriptions at Microsoft: list, start and stop them
    Subscription(subscription::SubscriptionArgs),
    /// Show Microsoft's own history of its attempts to notify, to find out why a webhook is silent
    Notifications(notifications::NotificationsArgs),
    /// Find out why no data arrives, and what to do about it
    Doctor(doctor::DoctorArgs),
    /// Write collected records to a file or standard output
    Export(export::ExportArgs),
    /// Follow new records as they are stored
    Tail(tail::TailArgs),
    /// Check that all that Microsoft still holds was collected, and that what was stored is still there, as it was
    Verify(verify::VerifyArgs),
    /// Show what was available hour by hour, and what became of it
    Ledger(ledger::LedgerArgs),
    /// Look after the store: what is in it, a backup of it, a store out of a backup
    Store(store::StoreArgs),
    /// Print the completions of a shell
    Completions(manual::CompletionsArgs),
    /// Write the manual pages into a folder, for packages
    #[command(hide = true)]
    Man(manual::ManArgs),
}

/// The whole program: reads the command line, runs the command, says what went wrong.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing is left to tell if even this cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    match start(cli) {
        Ok(exit) => exit,
        Err(error) if OutputError::is_quiet_end(&error) => Exit::Done,
        Err(error) => {
            tell(&error);
            Exit::of(&error)
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { config, command } = cli;
    // Whatever is made here belongs to whoever runs this, and to nobody else.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Run(args) => run::run(&config, args).await,
            Command::Backfill(args) => backfill::backfill(&config, args).await,
            Command::Fetch(args) => fetch::fetch(&config, args).await,
            Command::CollectOnce(args) => collect_once::collect_once(&config, args).await,
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::demo(args).await,
            Command::Check(args) => check::check(&config, &args),
            Command::Cert(args) => cert::cert(&config, &args).await,
            Command::Reload(args) => reload::reload(&config, args).await,
            Command::Status(args) => status::status(&config, args).await,
            Command::Subscription(args) => subscription::subscription(&config, args).await,
            Command::Notifications(args) => notifications::notifications(&config, args).await,
            Command::Health(args) => health::health(&config, args).await,
            Command::Doctor(args) => doctor::doctor(&config, args).await,
            Command::Export(args) => export::export(&config, args).await,
            Command::Tail(args) => tail::tail(&config, args).await,
            Command::Verify(args) => verify::verify(&config, args).await,
            Command::Ledger(args) => ledger::ledger(&config, args).await,
            Command::Tenant(args) => tenant::tenant(&config, args).await,
            Command::Store(args) => store::store(&config, args).await,
            Command::Completions(args) => manual::completions(&args),
            Command::Man(args) => manual::man(&args),
        }
    });
    // What matters was waited for. A read, a wait for the store's lock or for a reader of the output that goes on all the same
    // belongs to somebody who was told to stop, and may take as long as it likes.
    runtime.shutdown_background();
    done
}

/// `error` and its causes, and what to do if the store knows.
fn told(error: &anyhow::Error) -> String {
    let remedy = error.chain().find_map(|cause| cause.downcast_ref::<StoreError>()).map_or("", StoreError::remedy);
    let between = if remedy.is_empty() { "" } else { "; " };
    format!("{error:#}{between}{remedy}")
}

/// Prints what happened and what to do. The problems of a configuration stand on lines of their own that begin with their
/// place, as compilers print them, so that editors find it.
fn tell(error: &anyhow::Error) {
    let text = match error.chain().find_map(|cause| cause.downcast_ref::<ConfigErrors>()) {
        Some(errors) => {
            let count = errors.problems().len();
            let noun = if count == 1 { "problem" } else { "problems" };
            format!("{errors}\ntenantry: the configuration has {count} {noun}")
        }
        None => format!("tenantry: {}", told(error)),
    };
    // Nothing is left to tell if even this cannot be printed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
