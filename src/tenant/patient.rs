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
use crate::graph::GraphClient;
use crate::http::Http;
use crate::report::{TenantReport, Trouble};
use crate::token::{AppAlarms, TokenRequest, TokenSource};

use super::gate::Gate;
use super::health::line::Line;
use super::roster::Member;

/// One tenant.
#[derive(Debug, Clone)]
pub struct Patient {
    /// Its directory id.
    pub tenant: TenantId,
    /// What it is called.
    pub name: String,
    /// What it is asked with; `None` if it is not collected.
    pub means: Option<Means>,
    /// Why it cannot be collected, whoever wants it.
    pub unable: Option<Trouble>,
    /// What its collection says; `None` if nobody collects.
    pub report: Option<TenantReport>,
}

/// What a tenant is asked with.
#[derive(Debug, Clone)]
pub struct Means {
    /// Where it lives.
    pub cloud: Arc<Cloud>,
    /// As whom it is asked.
    pub app: Arc<App>,
    /// What is collected.
    pub content_types: BTreeSet<ContentType>,
    /// Its token.
    pub token: TokenSource,
    /// Its part of the Activity API; `None` where its cloud has none.
    pub client: Option<ActivityClient>,
    /// Closed while the service wants to be left alone.
    pub gate: Gate,
    /// The way to Graph; `None` if its health is not collected.
    pub line: Option<Line>,
}

impl Patient {
    /// One of the roster that nobody collects at the moment, with means of its own. It is not asked if it would not be
    /// collected.
    #[must_use]
    pub fn apart(
        settings: &Settings,
        member: &Member,
        http: &Http,
        (clock, time): (&SharedClock, &ServiceTime),
        apps: &Arc<AppAlarms>,
    ) -> Self {
        let tenant = member.tenant(settings).filter(|tenant| tenant.enabled && member.held.is_none());
        let means = tenant.and_then(|tenant| Means::apart(settings, &tenant, http, (clock, time), apps));
        Self { tenant: member.id, name: member.name.clone(), means, unable: member.trouble.clone(), report: None }
    }
}

impl Means {
    fn apart(
        settings: &Settings,
        tenant: &Tenant,
        http: &Http,
        (clock, time): (&SharedClock, &ServiceTime),
        apps: &Arc<AppAlarms>,
    ) -> Option<Self> {
        let app = Arc::clone(settings.apps.get(&tenant.app)?);
        let cloud = Arc::clone(&tenant.cloud);
        let time = cloud.time(time);
        let bytes = settings.collect.max_blob_bytes;
        let limits = Limits { max_compressed: bytes, max_decompressed: bytes };
        let publisher = app.publisher_id.unwrap_or_else(|| tenant.id.uuid());
        let client = cloud.management.clone().map(|management| {
            ActivityClient::new(management, tenant.id, publisher, http.clone(), Arc::clone(&time), limits)
        });
        let request = TokenRequest {
            cloud: Arc::clone(&cloud),
            tenant: tenant.id,
            audience: cloud.audience().to_owned(),
            endpoint: settings.token.endpoint,
            app: app.name.clone(),
            client_id: app.client_id.clone(),
            credential: app.credential.clone(),
            renew_after: settings.token.renew_after,
        };
        let source =
            |request| TokenSource::new(request, http.control.clone(), Arc::clone(clock), Arc::clone(&time), apps);
        let token = source(request.clone());
        let gate = Gate::default();
        let closed = gate.clone();
        let client = client.map(|client| client.telling(move |wait| closed.close_for(wait)));
        let line = settings.health.enabled.then(|| {
            let of_graph = TokenRequest { audience: cloud.graph_audience.clone(), ..request };
            let token = if cloud.management.is_some() { source(of_graph) } else { token.clone() };
            let client = GraphClient::new(Arc::clone(&cloud), http.clone(), Arc::clone(&time));
            Line::new(tenant.id, client, token, None)
        });
        Some(Self { app, content_types: tenant.content_types.clone(), token, client, gate, line, cloud })
    }
}
