//! `tenantry tenant add`: a tenant without a consent page.

use std::path::Path;

use clap::Args;
use reqwest::Method;

use super::super::Exit;
use super::super::out::{notice, print_outcome};
use super::super::socket::{Place, SocketArgs, Source};
use super::{in_store, no_store, refused};
use crate::clock::{Clock as _, SystemClock};
use crate::content::{ContentType, TenantId, subscribable};
use crate::tenant::roster::NewTenant;
use crate::web::tenants::ChangedTenant;

/// The arguments of `tenantry tenant add`.
#[derive(Debug, Args)]
#[command(after_help = "An administrator of the tenant must have consented to the app already: this asks nobody.\n\n\
                        Examples:\n  tenantry tenant add 12345678-90ab-cdef-1234-567890abcdef --name contoso\n  \
                        tenantry tenant add 12345678-90ab-cdef-1234-567890abcdef --cloud gcc_high --app government")]
pub struct AddArgs {
    /// Its directory (tenant) id
    #[arg(value_name = "GUID")]
    pub id: TenantId,
    /// What it is to be called [default: its id]
    #[arg(long)]
    pub name: Option<String>,
    /// The cloud it lives in [default: worldwide]
    #[arg(long)]
    pub cloud: Option<String>,
    /// The app to collect it with, as `[apps.NAME]` names it [default: its cloud's, else `[app]`]
    #[arg(long, value_name = "NAME")]
    pub app: Option<String>,
    /// What is to be collected, such as Audit.Exchange; may be repeated [default: the four Audit types]
    #[arg(long, value_name = "TYPE", value_parser = subscribable)]
    pub content_type: Vec<ContentType>,
    /// Where the daemon listens.
    #[command(flatten)]
    pub socket: SocketArgs,
}

pub(super) async fn add(config: &Path, args: AddArgs) -> anyhow::Result<Exit> {
    let AddArgs { id, name, cloud, app, content_type, socket } = args;
    let new = NewTenant { id, name, cloud, app, content_types: content_type.into_iter().collect() };
    let place = Place::of(config, socket)?;
    let (name, then) = match place.source().await? {
        Source::Daemon(daemon) => {
            let added: ChangedTenant = daemon.tenants(Method::POST, "", Some(&new)).await?;
            for note in &added.notes {
                notice(note);
            }
            (added.tenant.name, "`tenantry status` shows how far it is")
        }
        Source::Store => {
            let added = in_store(&place.client, "tenantry tenant add", async |store, roster| {
                let enrolment = roster.add(&place.client.outline, new, SystemClock.now());
                let enrolment = enrolment.map_err(|refusal| refused(&refusal))?;
                let name = enrolment.name.clone();
                store.enrol(enrolment).await?;
                Ok(name)
            });
            (added.await?.ok_or_else(|| no_store(&place.client))?, "the daemon collects it when it starts")
        }
    };
    print_outcome(&format!("`{name}` ({id}) is added; {then}\n"))?;
    Ok(Exit::Done)
}
