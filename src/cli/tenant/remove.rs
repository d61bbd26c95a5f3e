//! `tenantry tenant remove`: a tenant that was enrolled is collected no longer; what was collected stays.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::super::count::{count, size, span};
use super::super::out::{notice, print_outcome};
use super::super::socket::{Place, SocketArgs, Source};
use super::super::{Ended, Exit};
use super::{find, in_store, no_store, refused};
use crate::content::TenantId;
use crate::report::TenantOrigin;
use crate::store::{Keep, Stats};
use crate::tenant::roster::Refusal;
use crate::web::tenants::{RemovedTenant, ShownTenant};

/// The arguments of `tenantry tenant remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "What was collected stays in the store until retention drops it, and is exported by the tenant's id. If \
                        the tenant is enrolled again within seven days, it resumes where it was.\n\n\
                        A tenant that a file names is removed there; this says where that is.\n\n\
                        Examples:\n  tenantry tenant remove contoso\n  \
                        tenantry tenant remove contoso --stop-subscriptions --yes"
)]
pub struct RemoveArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Stop its subscriptions at Microsoft first: what becomes available from then on can never be retrieved, by nobody
    /// who uses the same app. If one of them cannot be stopped, nothing is removed
    #[arg(long)]
    pub stop_subscriptions: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn remove(config: &Path, args: RemoveArgs) -> anyhow::Result<Exit> {
    let RemoveArgs { tenant, stop_subscriptions: stop, yes, socket } = args;
    let place = Place::of(config, socket)?;
    let source = place.source().await?;
    if stop && matches!(source, Source::Store) {
        let message = "no daemon is running, and only a running one can ask Microsoft to stop subscriptions: start it, or \
                       leave out `--stop-subscriptions`";
        return Err(Ended { exit: Exit::Unavailable, message: message.to_owned() }.into());
    }
    let (id, name) = find(&place, &source, &tenant).await?;
    let stats = match &source {
        Source::Daemon(daemon) => {
            // Nobody is asked about what is refused.
            let shown: ShownTenant = daemon.tenants(Method::GET, &format!("/{id}"), None::<&()>).await?;
            if let [origin @ TenantOrigin::File { .. }] = &shown.status.origins[..] {
                return Err(refused(&Refusal::InFile { name, origin: origin.clone() }));
            }
            daemon.work_out("store/stats").await?
        }
        Source::Store => {
            let checked = in_store(&place.client, "tenantry tenant remove", async |store, roster| {
                roster.remove(id, stop).map_err(|refusal| refused(&refusal))?;
                Ok(store.stats().await?)
            });
            checked.await?.ok_or_else(|| no_store(&place.client))?
        }
    };
    let kept = kept(&stats, id, place.client.store.keep);
    if !yes {
        confirm(&name, id, &kept, stop)?;
    }
    let removed = match &source {
        Source::Daemon(daemon) => {
            let how = if stop { "?stop_subscriptions=true" } else { "" };
            daemon.tenants(Method::DELETE, &format!("/{id}{how}"), None::<&()>).await?
        }
        Source::Store => {
            let removed = in_store(&place.client, "tenantry tenant remove", async |store, roster| {
                let member = roster.remove(id, stop).map_err(|refusal| refused(&refusal))?;
                store.forget_enrolment(id).await?;
                if member.file().is_none() {
                    store.hold(id, None).await?;
                }
                let still = member.file().cloned();
                Ok(RemovedTenant { id, name: member.name.clone(), still, stopped: Vec::new() })
            });
            removed.await?.ok_or_else(|| no_store(&place.client))?
        }
    };
    print_outcome(&render(&removed, &kept))?;
    Ok(Exit::Done)
}

/// What is stored of the tenant, and for how long it stays.
fn kept(stats: &Stats, id: TenantId, keep: Keep) -> String {
    let Some(of) = stats.tenants.get(&id).filter(|of| of.blobs > 0) else {
        return "nothing is stored of it".to_owned();
    };
    let until = match (keep.time, keep.bytes) {
        (Some(time), _) => {
            let time = span(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
            format!("until retention drops them ({time} after they were stored)")
        }
        (None, Some(bytes)) => format!("until retention drops them (what is oldest, above {})", size(bytes)),
        (None, None) => "for ever (`keep_for` and `keep_at_most` under `[store]` set no limit)".to_owned(),
    };
    format!(
        "its {} in {} ({} as received) stay {until}",
        count(of.records, "record"),
        count(of.blobs, "blob"),
        size(of.bytes)
    )
}

/// Asks the person at the terminal; whoever is none says `--yes`.
fn confirm(name: &str, id: TenantId, kept: &str, stop: bool) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        let message = format!("`{name}` ({id}) is removed only when somebody says so: add `--yes`; {kept}");
        return Err(Ended { exit: Exit::Usage, message }.into());
    }
    notice(&format!("`{name}` ({id}) would be collected no longer; {kept}"));
    if stop {
        notice("its subscriptions would be stopped: what becomes available then can never be retrieved");
    }
    let mut errors = io::stderr().lock();
    write!(errors, "Remove it? [y/N] ")?;
    errors.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(Ended { exit: Exit::Failed, message: "nothing was removed".to_owned() }.into())
}

fn render(removed: &RemovedTenant, kept: &str) -> String {
    let RemovedTenant { id, name, still, stopped } = removed;
    let mut lines: Vec<_> =
        stopped.iter().map(|one| format!("the subscription to {} is stopped\n", one.content_type)).collect();
    lines.push(match still {
        Some(origin) => format!("the enrolment of `{name}` ({id}) is removed; it is collected as {origin} says\n"),
        None => format!("`{name}` ({id}) is removed; {kept}\n"),
    });
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::TenantStats;

    #[test]
    fn what_is_kept_is_counted_and_so_is_the_time() {
        let id = TenantId::from_bytes([1; 16]);
        let mut stats = Stats::default();
        assert_eq!(kept(&stats, id, Keep::default()), "nothing is stored of it");
        let of = TenantStats { blobs: 1, records: 12, bytes: 2 << 20, ..TenantStats::default() };
        stats.tenants.insert(id, of);
        let days = Keep { time: Some(Duration::from_hours(400 * 24)), bytes: Some(1) };
        for (keep, told) in [
            (days, "until retention drops them (400d 0h after they were stored)"),
            (Keep { time: None, ..days }, "until retention drops them (what is oldest, above 1 byte)"),
            (Keep::default(), "for ever (`keep_for` and `keep_at_most` under `[store]` set no limit)"),
        ] {
            assert_eq!(kept(&stats, id, keep), format!("its 12 records in 1 blob (2.0 MiB as received) stay {told}"));
        }
    }
}
