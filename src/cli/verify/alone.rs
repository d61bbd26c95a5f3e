//! Verifying while no daemon runs: the store is opened, and Microsoft is asked with tokens of one's own. What is missing is
//! queued all the same, for the daemon that runs next.

use std::collections::BTreeSet;
use std::ops::Deref as _;
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::AT_A_TIME;
use crate::cli::out::notice;
use crate::cli::{Ended, Exit, opening};
use crate::clock::{ServiceTime, SharedClock, SystemClock};
use crate::config::{self, Client};
use crate::content::TenantId;
use crate::http::Http;
use crate::report::Report;
use crate::store::{Store, StoreError, Verification};
use crate::tenant::inventory::Inventory;
use crate::tenant::{Registry, Shared};
use crate::token::AppAlarms;

/// Reads the store.
pub(super) async fn of_store(client: &Client, wanted: &BTreeSet<TenantId>) -> anyhow::Result<Verification> {
    let Some(store) = opening::to_read(client, "tenantry verify").await? else { return Err(nothing(client).into()) };
    let given_way = opening::giving_way(&store);
    let verified = read(&store, wanted, &given_way).await;
    let wanted_by_daemon = store.someone_waits();
    store.close().await?;
    verified.map_err(|error| ended(error, wanted_by_daemon))
}

/// Lists, and reads the store.
pub(super) async fn all(
    config: &Path,
    client: &Client,
    wanted: &BTreeSet<TenantId>,
) -> anyhow::Result<(Vec<Inventory>, Verification)> {
    // Before the store: its owner may not read the credentials.
    let settings = config::load(config)?;
    let http =
        Http::new(&settings.network).map_err(|error| Ended { exit: Exit::Config, message: error.to_string() })?;
    let Some(store) = opening::to_write(client, "tenantry verify").await? else { return Err(nothing(client).into()) };
    notice("no daemon runs, so that nothing is collected; verifying without it");
    let given_way = opening::giving_way(&store);
    let done = async {
        let roster = opening::roster(client, Some(&store)).await?;
        let clock: SharedClock = Arc::new(SystemClock);
        let time = Arc::new(ServiceTime::new(Arc::clone(&clock)));
        let shared = Shared {
            store: store.deref().clone(),
            report: Report::new(Arc::clone(&time)),
            http,
            time,
            clock,
            apps: AppAlarms::new(),
        };
        let registry = Registry::new(shared);
        let members = roster.members().filter(|member| wanted.is_empty() || wanted.contains(&member.id));
        let taken = stream::iter(members).map(|member| registry.take_inventory_apart(&settings, member));
        let inventories = async {
            tokio::select! {
                taken = taken.buffered(AT_A_TIME).try_collect::<Vec<_>>() => taken,
                () = given_way.cancelled() => Err(StoreError::Closed),
            }
        };
        let (inventories, verified) = tokio::join!(inventories, read(&store, wanted, &given_way));
        anyhow::Ok((inventories?, verified?))
    };
    let done = done.await;
    let wanted_by_daemon = store.someone_waits();
    store.close().await?;
    done.map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => ended(error, wanted_by_daemon),
        Err(error) => error,
    })
}

async fn read(
    store: &Store,
    wanted: &BTreeSet<TenantId>,
    given_way: &CancellationToken,
) -> Result<Verification, StoreError> {
    let (store, given_way) = (store.clone(), given_way.clone());
    let wanted: Vec<_> = wanted.iter().copied().collect();
    // A daemon that has waited long enough gets the store.
    let reading = tokio::task::spawn_blocking(move || store.verify_while(&wanted, || !given_way.is_cancelled()));
    match reading.await {
        Ok(verified) => verified,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(StoreError::Closed),
    }
}

fn ended(error: StoreError, wanted_by_daemon: bool) -> anyhow::Error {
    match error {
        StoreError::Closed if wanted_by_daemon => {
            Ended { exit: Exit::TryAgain, message: opening::GIVEN_WAY.to_owned() }.into()
        }
        error => error.into(),
    }
}

fn nothing(client: &Client) -> Ended {
    let message = format!("there is no store at `{}` yet: nothing was collected", client.store.path.display());
    Ended { exit: Exit::Failed, message }
}
