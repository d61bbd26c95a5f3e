//! `tenantry tenant remove`: a tenant that was enrolled is collected no longer; what was collected stays, or is erased.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::super::count::{count, size, span};
use super::super::out::{notice, print_outcome};
use super::super::socket::{Place, SocketArgs, Source};
use super::super::{Ended, Exit};
use super::{find, in_store, in_whole_store, no_store, refused};
use crate::content::TenantId;
use crate::report::TenantOrigin;
use crate::store::{Keep, Store, TenantStats};
use crate::tenant::Roster;
use crate::tenant::keeper::Removed;
use crate::tenant::roster::{Member, Refusal, Removal};
use crate::web::tenants::ListedTenant;

/// What others are told that hold the store meanwhile.
const PURPOSE: &str = "tenantry tenant remove";

/// The arguments of `tenantry tenant remove`.
#[derive(Debug, Args)]
#[command(
    after_help = "What was collected stays in the store until retention drops it, and is exported by the tenant's id. If \
                        the tenant is enrolled again within seven days, it resumes where it was.\n\n\
                        With --purge nothing of the tenant is shown from this moment on, and its bytes are erased in the \
                        background; `tenantry tenant purges` shows how far that is, and in the end the receipt. A tenant \
                        that was removed earlier is purged by its id.\n\n\
                        A tenant that a file names is removed there; this says where that is.\n\n\
                        Examples:\n  tenantry tenant remove contoso\n  \
                        tenantry tenant remove contoso --stop-subscriptions --yes\n  \
                        tenantry tenant remove contoso --purge"
)]
pub struct RemoveArgs {
    /// The tenant, by its name or its id
    #[arg(value_name = "NAME|ID")]
    pub tenant: String,
    /// Stop its subscriptions at Microsoft first: what becomes available from then on can never be retrieved, by nobody
    /// who uses the same app. If one of them cannot be stopped, nothing is removed
    #[arg(long)]
    pub stop_subscriptions: bool,
    /// Erase all that is stored of it: nothing brings it back, save backups that were made before
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn remove(config: &Path, args: RemoveArgs) -> anyhow::Result<Exit> {
    let RemoveArgs { tenant, stop_subscriptions, purge, yes, socket } = args;
    let how = Removal { stop_subscriptions, purge };
    let place = Place::of(config, socket)?;
    let source = place.source().await?;
    if stop_subscriptions && matches!(source, Source::Store) {
        let message = "no daemon is running, and only a running one can ask Microsoft to stop subscriptions: start it, or \
                       leave out `--stop-subscriptions`";
        return Err(Ended { exit: Exit::Unavailable, message: message.to_owned() }.into());
    }
    let (id, name) = find(&place, &source, &tenant).await?;
    let stats = match &source {
        Source::Daemon(daemon) => {
            // Nobody is asked about what is refused.
            let tenants: Vec<ListedTenant> = daemon.tenants(Method::GET, "", None::<&()>).await?;
            let known = tenants.into_iter().find(|known| known.id == id);
            let origins = known.map_or_else(Vec::new, |known| known.origins);
            let refusal = match origins.first() {
                Some(origin @ TenantOrigin::File { .. }) if purge => {
                    Some(Refusal::NotPurgedInFile { id, name: name.clone(), origin: origin.clone() })
                }
                Some(origin @ TenantOrigin::File { .. }) if origins.len() == 1 => {
                    Some(Refusal::InFile { name: name.clone(), origin: origin.clone() })
                }
                None if !purge => Some(Refusal::Unknown { id }),
                _ => None,
            };
            if let Some(refusal) = refusal {
                return Err(refused(&refusal));
            }
            daemon.work_out("store/stats").await?
        }
        Source::Store => {
            let checked = in_store(&place.client, PURPOSE, async |store, roster| {
                roster.remove(id, how).map_err(|refusal| refused(&refusal))?;
                Ok(store.stats().await?)
            });
            checked.await?.ok_or_else(|| no_store(&place.client))?
        }
    };
    let stored = Stored { of: stats.tenants.get(&id).filter(|of| of.blobs > 0), keep: place.client.store.keep };
    if !yes {
        confirm(&name, id, &stored, how)?;
    }
    let removed = match &source {
        Source::Daemon(daemon) => {
            let how = format!("/{id}?stop_subscriptions={stop_subscriptions}&purge={purge}");
            daemon.tenants(Method::DELETE, &how, None::<&()>).await?
        }
        Source::Store => {
            let client = &place.client;
            let work = async |store: &Store, roster: Roster| take_out(store, &roster, (id, name), how).await;
            let removed = if purge {
                in_whole_store(client, PURPOSE, work).await?
            } else {
                in_store(client, PURPOSE, work).await?
            };
            removed.ok_or_else(|| no_store(client))?
        }
    };
    print_outcome(&render(&removed, &stored, &source))?;
    Ok(Exit::Done)
}

/// Removes a tenant while no daemon runs, as that would.
async fn take_out(
    store: &Store,
    roster: &Roster,
    (id, name): (TenantId, String),
    how: Removal,
) -> anyhow::Result<Removed> {
    let member = roster.remove(id, how).map_err(|refusal| refused(&refusal))?;
    if member.is_none() && !store.knows(id).await? {
        return Err(refused(&Refusal::NothingToPurge { id }));
    }
    let still = member.and_then(Member::file).cloned();
    let purge = if how.purge {
        Some(store.purge(id).await?)
    } else {
        store.forget_enrolment(id).await?;
        if still.is_none() {
            store.hold(id, None).await?;
        }
        None
    };
    Ok(Removed { id, name, still, stopped: Vec::new(), purge })
}

/// What is stored of the tenant now, and for how long such is kept.
struct Stored<'a> {
    of: Option<&'a TenantStats>,
    keep: Keep,
}

impl Stored<'_> {
    /// `its 12 records in 1 blob (2.0 MiB as received)`
    fn all(&self) -> Option<String> {
        let TenantStats { blobs, records, bytes, .. } = self.of?;
        Some(format!("its {} in {} ({} as received)", count(*records, "record"), count(*blobs, "blob"), size(*bytes)))
    }

    /// For how long it stays when the tenant is removed.
    fn kept(&self) -> String {
        let Some(all) = self.all() else { return "nothing is stored of it".to_owned() };
        match (self.keep.time, self.keep.bytes) {
            (Some(time), _) => {
                let time = span(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
                format!("{all} stay until retention drops them ({time} after they were stored)")
            }
            (None, Some(bytes)) => {
                format!("{all} stay until retention drops them (what is oldest, above {})", size(bytes))
            }
            (None, None) => {
                format!("{all} stay for ever (`keep_for` and `keep_at_most` under `[store]` set no limit)")
            }
        }
    }

    /// What a purge means.
    fn erased(&self) -> String {
        match self.all() {
            Some(all) => format!("{all} would be erased, and nothing but a backup brings them back"),
            None => "no records are stored of it; what else is known of it would be erased".to_owned(),
        }
    }
}

/// Asks the person at the terminal; whoever is none says `--yes`. What cannot be undone is not done for a mere `y`.
fn confirm(name: &str, id: TenantId, stored: &Stored<'_>, how: Removal) -> anyhow::Result<()> {
    let consequence = if how.purge { stored.erased() } else { stored.kept() };
    if !io::stdin().is_terminal() {
        let message = format!("`{name}` ({id}) is removed only when somebody says so: add `--yes`; {consequence}");
        return Err(Ended { exit: Exit::Usage, message }.into());
    }
    notice(&format!("`{name}` ({id}) would be collected no longer; {consequence}"));
    if how.stop_subscriptions {
        notice("its subscriptions would be stopped: what becomes available then can never be retrieved");
    }
    let mut errors = io::stderr().lock();
    if how.purge {
        write!(errors, "Write `{name}` to erase it: ")?;
    } else {
        write!(errors, "Remove it? [y/N] ")?;
    }
    errors.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let answer = answer.trim();
    let agreed = if how.purge { answer == name } else { matches!(answer.to_lowercase().as_str(), "y" | "yes") };
    if agreed {
        return Ok(());
    }
    Err(Ended { exit: Exit::Failed, message: "nothing was removed".to_owned() }.into())
}

fn render(removed: &Removed, stored: &Stored<'_>, source: &Source) -> String {
    let Removed { id, name, still, stopped, purge } = removed;
    let mut lines: Vec<_> =
        stopped.iter().map(|one| format!("the subscription to {} is stopped\n", one.content_type)).collect();
    lines.push(match (still, purge) {
        (_, Some(purge)) => {
            let when = match source {
                Source::Daemon(_) => "is being erased",
                Source::Store => "is erased when the daemon runs, or at once by `tenantry tenant purges --wait`",
            };
            let left = count(purge.left, "partition");
            format!(
                "`{name}` ({id}) is removed: from now on nothing of it is shown, and it {when} ({left} to look at); \
                 `tenantry tenant purges` shows how far purge {} is, and its receipt\n",
                purge.id
            )
        }
        (Some(origin), None) => {
            format!("the enrolment of `{name}` ({id}) is removed; it is collected as {origin} says\n")
        }
        (None, None) => format!("`{name}` ({id}) is removed; {}\n", stored.kept()),
    });
    lines.concat()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_kept_is_counted_and_so_is_the_time() {
        assert_eq!(Stored { of: None, keep: Keep::default() }.kept(), "nothing is stored of it");
        let of = TenantStats { blobs: 1, records: 12, bytes: 2 << 20, ..TenantStats::default() };
        let days = Keep { time: Some(Duration::from_hours(400 * 24)), bytes: Some(1) };
        for (keep, told) in [
            (days, "until retention drops them (400d 0h after they were stored)"),
            (Keep { time: None, ..days }, "until retention drops them (what is oldest, above 1 byte)"),
            (Keep::default(), "for ever (`keep_for` and `keep_at_most` under `[store]` set no limit)"),
        ] {
            let kept = Stored { of: Some(&of), keep }.kept();
            assert_eq!(kept, format!("its 12 records in 1 blob (2.0 MiB as received) stay {told}"));
        }
    }
}
