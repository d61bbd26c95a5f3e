//! `tenantry collect-once`: all that Microsoft holds of all tenants, into the store, and the end.
//!
//! It is the daemon's own collection ([`single`](super::single)) with another end: each content type is listed once from the
//! oldest to the newest, all of it is retrieved, and what cannot be had now is told with its reason.

mod display;
mod outcome;

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;

use self::display::Display;
use self::outcome::Outcome;
use super::out::{self, notice, print_outcome};
use super::single::{Ending, Single, without_a_daemon};
use super::socket::{Place, SocketArgs};
use super::{Ended, Exit};
use crate::clock::{Clock as _, SystemClock};
use crate::config::duration;
use crate::tenant::Assignment;

/// What the store's lock says of it.
const PURPOSE: &str = "tenantry collect-once";
/// The shortest and the longest patience. Failing retrievals are tried at intervals that grow to ten minutes: waiting for
/// longer than half of that would be waiting for ever.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));

/// The arguments of `tenantry collect-once`.
#[derive(Debug, Args)]
#[command(
    after_help = "Microsoft holds content for seven days. Of each content type all of it is listed, and what is not stored yet \
                        is retrieved; missing subscriptions are started. What a run could not get, or was stopped at, the next \
                        one goes on with; nothing is stored twice. The first content of a subscription that was just started may \
                        take Microsoft up to 12 hours: that is not waited for.\n\n\
                        Exit codes: 0 all that Microsoft holds is stored, 1 something needs a person, or was given up, \
                        75 the rest cannot be had now: run it again\n\n\
                        Examples:\n  tenantry collect-once\n  tenantry collect-once --tenant contoso --json | jq '.tenants[].left'"
)]
pub struct CollectOnceArgs {
    /// Only this tenant, by its id or its name; may be repeated [default: all]
    #[arg(long, value_name = "ID|NAME")]
    pub tenant: Vec<String>,
    /// How long to wait for a tenant of which nothing more comes, from 1s to 5m
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = patience)]
    pub patience: Duration,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub(super) fn patience(text: &str) -> Result<Duration, String> {
    let patience = duration::parse(text).map_err(|error| error.to_string())?;
    if (PATIENCE.0..=PATIENCE.1).contains(&patience) {
        Ok(patience)
    } else {
        Err("write a time from 1s to 5m".to_owned())
    }
}

/// Collects, and says what came of it.
pub async fn collect_once(config: &Path, args: CollectOnceArgs) -> anyhow::Result<Exit> {
    let place = Place::of(config, SocketArgs { socket: None })?;
    without_a_daemon(&place, "`tenantry status` shows how far it is, and `tenantry backfill` lets it list again")
        .await?;
    let began = SystemClock.now();
    let mut display = Display::new();
    let mut single = Single::start(config, PURPOSE, Assignment::Once, &args.tenant, display.log()).await?;
    if single.roster.members().len() == 0 {
        single.end(Ending::Over).await?;
        let message =
            "there are no tenants: name one in a file as `[[tenants]]` with an `id`, or run `tenantry tenant add`";
        return Err(Ended { exit: Exit::Config, message: message.to_owned() }.into());
    }
    let (ending, look) = single.wait(args.patience, |look| display.show(look)).await;
    display.clear();
    let members: Vec<_> = single.roster.members().cloned().collect();
    let letters = std::mem::take(&mut single.letters);
    let status = single.end(ending).await?;
    let outcome = Outcome::of(&members, &letters, &look, &status, ending, (began, now()));
    if let Some(told) = ending.told() {
        notice(told);
    }
    print_outcome(&if args.json {
        format!("{}\n", serde_json::to_string_pretty(&outcome)?)
    } else {
        outcome.render(out::screen().map_or(usize::MAX, |(columns, _)| columns))
    })?;
    Ok(outcome.exit(ending))
}

fn now() -> Timestamp {
    SystemClock.now()
}
