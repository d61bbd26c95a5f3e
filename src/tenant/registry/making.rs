//! What a tenant's settings come to: its token, its tree, its way to Graph, and the tasks that these are driven by.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Books, Registry, Running, Shared};
use crate::activity::{ActivityClient, Limits};
use crate::cloud::Cloud;
use crate::config::{App, Collect, Dlp, Health, Settings, Tenant, TokenSettings};
use crate::content::{ContentType, TenantId};
use crate::graph::GraphClient;
use crate::report::TenantReport;
use crate::tenant::course::{Assignment, Course};
use crate::tenant::glossary;
use crate::tenant::health::line::Line;
use crate::tenant::health::{self, Station};
use crate::tenant::hook::Hooks;
use crate::tenant::supervisor::supervise;
use crate::tenant::tree::{Parts, Tree};
use crate::tenant::waits::Waits;
use crate::token::{TokenRequest, TokenSource};

/// What is started for a tenant.
pub(super) struct Starting {
    pub(super) tenant: TenantId,
    pub(super) tree: Option<Arc<Tree>>,
    pub(super) station: Option<Arc<Station>>,
    pub(super) line: Option<Line>,
    pub(super) course: Arc<Course>,
    pub(super) stop: CancellationToken,
}

/// What a tenant's tasks have in common: their end, and whether they have come to it.
pub(super) struct Way {
    pub(super) stop: CancellationToken,
    pub(super) course: Arc<Course>,
}

/// All that makes a tree what it is: if this is the same after a reload, the tree goes on.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    pub(super) identity: Identity,
    pub(super) publisher: Uuid,
    pub(super) content_types: BTreeSet<ContentType>,
    pub(super) collect: Collect,
    /// What is notified of new content.
    pub(super) hooks: Option<Hooks>,
    /// Which names of sensitive information types are wanted, if any are.
    pub(super) dlp: Option<Dlp>,
    pub(super) health: Health,
}

impl Order {
    pub(super) fn new(settings: &Settings, tenant: &Tenant, app: &Arc<App>) -> Self {
        Self {
            identity: Identity { cloud: Arc::clone(&tenant.cloud), app: Arc::clone(app), token: settings.token },
            publisher: app.publisher_id.unwrap_or_else(|| tenant.id.uuid()),
            content_types: tenant.content_types.clone(),
            collect: settings.collect,
            hooks: Hooks::of(&settings.public),
            dlp: Some(&settings.dlp)
                .filter(|dlp| tenant.content_types.contains(&ContentType::Dlp) && !dlp.languages.is_empty())
                .cloned(),
            health: settings.health,
        }
    }
}

/// All that makes a token what it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Identity {
    pub(super) cloud: Arc<Cloud>,
    pub(super) app: Arc<App>,
    pub(super) token: TokenSettings,
}

impl Registry {
    /// Who lists nothing lists no health either.
    pub(super) fn collects_health(&self, order: &Order) -> bool {
        order.health.enabled && matches!(self.assignment, Assignment::Always | Assignment::Once)
    }

    /// With all that is to be listed.
    pub(super) fn course(&self, order: &Order) -> Course {
        let health = if self.collects_health(order) { &ContentType::HEALTH[..] } else { &[] };
        Course::new(self.assignment, &order.content_types.iter().chain(health).copied().collect())
    }

    /// The token that was kept, if it is good for this request too, else one of its own.
    pub(super) fn token(&self, request: TokenRequest, kept: Option<TokenSource>) -> TokenSource {
        let Shared { http, clock, time, apps, .. } = &self.shared;
        if let Some(kept) = kept.filter(|kept| kept.follow(&request, apps)) {
            return kept;
        }
        let time = request.cloud.time(time);
        TokenSource::new(request, http.control.clone(), Arc::clone(clock), time, apps)
    }

    pub(super) fn tree(
        &self,
        tenant: TenantId,
        order: &Order,
        token: TokenSource,
        report: TenantReport,
        mended: bool,
    ) -> Option<Arc<Tree>> {
        let Shared { store, time, .. } = &self.shared;
        Some(Tree::new(Parts {
            tenant,
            content_types: order.content_types.clone(),
            collect: order.collect,
            webhook: order.hooks.as_ref().map(|hooks| hooks.of_tenant(tenant)),
            dlp: order.dlp.clone(),
            client: self.client(tenant, order)?,
            token,
            store: store.clone(),
            time: order.identity.cloud.time(time),
            report,
            slots: self.slots.clone(),
            mended,
            course: Arc::new(self.course(order)),
        }))
    }

    /// `None` in a cloud without an Activity API.
    pub(super) fn client(&self, tenant: TenantId, order: &Order) -> Option<ActivityClient> {
        let bytes = order.collect.max_blob_bytes;
        let limits = Limits { max_compressed: bytes, max_decompressed: bytes };
        let cloud = &order.identity.cloud;
        let (management, time) = (cloud.management.clone()?, cloud.time(&self.shared.time));
        Some(ActivityClient::new(management, tenant, order.publisher, self.shared.http.clone(), time, limits))
    }

    /// The way to Graph: the one that is known, or one with the token that was kept for it. Where a cloud has nothing but
    /// Graph, its `token` is the tenant's.
    pub(super) fn line(&self, tenant: TenantId, identity: &Identity, token: &TokenSource, books: &mut Books) -> Line {
        if let Some((known, line)) = books.lines.get(&tenant)
            && known == identity
        {
            return line.clone();
        }
        let cloud = &identity.cloud;
        let token = if cloud.management.is_none() {
            token.clone()
        } else {
            let kept = books.graph_tokens.remove(&tenant);
            let token = self.token(graph_token_request(tenant, identity), kept);
            books.graph_tokens.insert(tenant, token.clone());
            token
        };
        let Shared { store, time, http, .. } = &self.shared;
        let time = cloud.time(time);
        let client = GraphClient::new(Arc::clone(cloud), http.clone(), Arc::clone(&time));
        let line = Line::new(tenant, client, token, Some(Waits::of_health(tenant, store.clone(), time)));
        books.lines.insert(tenant, (identity.clone(), line.clone()));
        line
    }

    pub(super) fn station(
        &self,
        tenant: TenantId,
        order: &Order,
        line: Line,
        report: TenantReport,
        way: Way,
    ) -> Arc<Station> {
        let Shared { store, time, .. } = &self.shared;
        let Way { stop, course } = way;
        let cloud = &order.identity.cloud;
        Station::new(health::Parts {
            tenant,
            settings: order.health,
            line,
            store: store.clone(),
            time: cloud.time(time),
            report,
            places: Arc::clone(&self.health),
            stop,
            course,
            alone: cloud.management.is_none(),
        })
    }

    /// Starts a tree, and beside it the collection of health and of names, once `last` has ended, which it must within `drain`.
    pub(super) fn start(&self, parts: Starting, last: Option<Running>, delay: Duration, drain: Duration) -> Running {
        let Starting { tenant, tree, station, line, course, stop } = parts;
        let started = tree.clone();
        let watched = Watched { tenant, stop: stop.clone(), failed: self.failed.clone() };
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        let task = tokio::spawn(async move {
            let (_watched, _end) = (watched, end);
            if let Some(mut last) = last
                && timeout(drain, &mut last.task).await.is_err()
            {
                last.task.abort();
                _ = last.task.await;
            }
            let health = async {
                if let Some(station) = station {
                    health::supervise(station, delay).await;
                }
            };
            let audit = async {
                if let Some(tree) = started {
                    tokio::join!(supervise(Arc::clone(&tree), delay), glossary::supervise(tree, delay));
                }
            };
            tokio::join!(audit, health);
        });
        Running { tree, line, course, stop, task, ended }
    }
}

pub(super) fn token_request(tenant: TenantId, identity: &Identity) -> TokenRequest {
    let Identity { cloud, app, token } = identity;
    TokenRequest {
        cloud: Arc::clone(cloud),
        tenant,
        audience: cloud.audience().to_owned(),
        endpoint: token.endpoint,
        app: app.name.clone(),
        client_id: app.client_id.clone(),
        credential: app.credential.clone(),
        renew_after: token.renew_after,
    }
}

fn graph_token_request(tenant: TenantId, identity: &Identity) -> TokenRequest {
    TokenRequest { audience: identity.cloud.graph_audience.clone(), ..token_request(tenant, identity) }
}

/// Notices when a supervisor ends unasked.
#[derive(Debug)]
struct Watched {
    tenant: TenantId,
    stop: CancellationToken,
    failed: watch::Sender<Option<TenantId>>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.stop.is_cancelled() {
            self.failed.send_replace(Some(self.tenant));
        }
    }
}
