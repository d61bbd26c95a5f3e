//! `tenantry reload`: the running daemon reads its configuration again, and says what came of it.

use std::path::{Path, PathBuf};

use clap::Args;

use super::socket::RunningDaemon;
use super::{Ended, Exit};
use crate::config;
use crate::web::reload::ReloadRequest;

/// The arguments of `tenantry reload`.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon reads the file that it was started with. If anything in it is wrong, nothing changes, \
                        what is wrong is printed, and the exit code is 78.\n\n\
                        Examples:\n  tenantry reload\n  systemctl reload tenantry"
)]
pub struct ReloadArgs {
    /// Let it remove more than 10 tenants and more than 10 % of them; otherwise that is refused, because a file that
    /// is missing looks the same
    #[arg(long)]
    pub allow_removal: bool,
    /// Where the daemon listens, if the configuration cannot tell
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// Asks for a reload and prints its outcome.
pub async fn reload(config: &Path, args: ReloadArgs) -> anyhow::Result<Exit> {
    let daemon = match (&args.socket, config::load(config)) {
        (Some(socket), _) => RunningDaemon::at(socket).await?,
        (None, Ok(settings)) => RunningDaemon::find(&settings).await?,
        // Without a configuration that can be read nobody knows where the daemon listens; it would refuse it too.
        (None, Err(problems)) => return Err(problems.into()),
    };
    let Some(daemon) = daemon else {
        return Err(Ended {
            exit: Exit::Unavailable,
            message: "no daemon is running; the next start reads the configuration anyway".to_owned(),
        }
        .into());
    };
    let reloaded = match daemon.reload(&ReloadRequest { allow_removal: args.allow_removal }).await? {
        Ok(reloaded) => reloaded,
        Err(problem) => {
            let message = format!("the configuration stays as it was:\n{problem}");
            return Err(Ended { exit: Exit::Config, message }.into());
        }
    };
    let plural = if reloaded.tenants == 1 { "" } else { "s" };
    println!(
        "`{}` is in effect: {} tenant{plural} ({} added, {} removed, {} changed)",
        reloaded.config.display(),
        reloaded.tenants,
        reloaded.added,
        reloaded.removed,
        reloaded.changed
    );
    for warning in &reloaded.warnings {
        println!("warning: {warning}");
    }
    for key in &reloaded.needs_restart {
        println!("the new value of `{key}` takes effect with a restart");
    }
    Ok(Exit::Done)
}
