//! A tenant as whoever looks for a cause needs it: how it is asked for, and what its collection knows.
//!
//! What is asked with a patient's means is asked with the tenant's own token and stops at its own gate, so that looking
//! costs no token that collecting has, and a wait that is read holds for both.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::activity::{ActivityClient, Limits};
use crate::clock::{ServiceTime, SharedClock};
use crate::cloud::Cloud;
use crate::config::{App, Settings, Tenant};
use crate::content::{ContentType, TenantId};
use crate::http::Http;
use crate::report::TenantReport;
use crate::token::{AppAlarms, TokenRequest, TokenSource};

use super::gate::Gate;

/// One tenant.
#[derive(Debug, Clone)]
pub struct Patient {
    /// Its directory id.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// Where it lives.
    pub cloud: Arc<Cloud>,
    /// As whom it is asked.
    pub app: Arc<App>,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// What it is asked with; `None` if it is not enabled.
    pub means: Option<Means>,
    /// What its collection says; `None` if nobody collects.
    pub report: Option<TenantReport>,
}

/// What a tenant is asked with.
#[derive(Debug, Clone)]
pub struct Means {
    /// Its token.
    pub token: TokenSource,
    /// Its part of the API.
    pub client: ActivityClient,
    /// Closed while the service wants to be left alone.
    pub gate: Gate,
}

impl Patient {
    /// A tenant that nobody collects at the moment, with means of its own. `None` if its app is not there.
    #[must_use]
    pub fn apart(
        settings: &Settings,
        tenant: &Tenant,
        http: &Http,
        (clock, time): (&SharedClock, &ServiceTime),
        apps: &Arc<AppAlarms>,
    ) -> Option<Self> {
        let app = Arc::clone(settings.apps.get(&tenant.app)?);
        let time = tenant.cloud.time(time);
        let means = tenant.enabled.then(|| {
            let bytes = settings.collect.max_blob_bytes;
            let limits = Limits { max_compressed: bytes, max_decompressed: bytes };
            let publisher = app.publisher_id.unwrap_or_else(|| tenant.id.uuid());
            let cloud = Arc::clone(&tenant.cloud);
            let client = ActivityClient::new(cloud, tenant.id, publisher, http.clone(), Arc::clone(&time), limits);
            let request = TokenRequest {
                cloud: Arc::clone(&tenant.cloud),
                tenant: tenant.id,
                audience: tenant.cloud.management_audience.clone(),
                endpoint: settings.token.endpoint,
                app: app.name.clone(),
                client_id: app.client_id.clone(),
                credential: app.credential.clone(),
                renew_after: settings.token.renew_after,
            };
            let token = TokenSource::new(request, http.control.clone(), Arc::clone(clock), time, apps);
            let gate = Gate::default();
            let closed = gate.clone();
            Means { token, client: client.telling(move |wait| closed.close_for(wait)), gate }
        });
        Some(Self {
            tenant: tenant.id,
            name: tenant.name.clone(),
            cloud: Arc::clone(&tenant.cloud),
            app,
            content_types: tenant.content_types.clone(),
            means,
            report: None,
        })
    }
}
