//! `tenantry reload`: the running daemon reads its configuration again, and says what came of it.

use std::path::Path;

use clap::Args;

use super::count::count;
use super::out::print_outcome;
use super::socket::{Place, SocketArgs, Source};
use super::{Ended, Exit};
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
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Asks for a reload and prints its outcome.
pub async fn reload(config: &Path, args: ReloadArgs) -> anyhow::Result<Exit> {
    let Source::Daemon(daemon) = Place::of(config, args.socket)?.source().await? else {
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
    let mut lines = vec![format!(
        "`{}` is in effect: {} ({} added, {} removed, {} changed)\n",
        reloaded.config.display(),
        count(reloaded.tenants as u64, "tenant"),
        reloaded.added,
        reloaded.removed,
        reloaded.changed
    )];
    lines.extend(reloaded.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    let restart = reloaded.needs_restart.iter();
    lines.extend(restart.map(|key| format!("the new value of `{key}` takes effect with a restart\n")));
    print_outcome(&lines.concat())?;
    Ok(Exit::Done)
}
