//! What others need of a tenant: whoever looks for a cause, receives its notifications, or asks for something by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::making::{Order, token_request};
use super::{Entry, Registry, Running};
use crate::config::Settings;
use crate::content::TenantId;
use crate::report::Rest;
use crate::store::StoreError;
use crate::tenant::backfill::Backfill;
use crate::tenant::content::Investigator;
use crate::tenant::course::Headway;
use crate::tenant::farewell::Farewell;
use crate::tenant::gate::Gate;
use crate::tenant::health::line::Line;
use crate::tenant::inventory::{self, Inventory, Stocktaker};
use crate::tenant::patient::{Means, Patient};
use crate::tenant::roster::Member;
use crate::tenant::subscriber::Subscriber;
use crate::tenant::tree::Tree;
use crate::tenant::waits::Waits;

impl Registry {
    /// The tenants, for whoever looks for a cause. Their names are those of the report.
    #[must_use]
    pub fn patients(&self) -> Vec<Patient> {
        let books = self.books();
        let patient = |(id, entry): (&TenantId, &Entry)| {
            let report = self.shared.report.known(*id)?;
            let means = match entry {
                Entry::Collecting { order, running, token } => Some(Means {
                    cloud: Arc::clone(&order.identity.cloud),
                    app: Arc::clone(&order.identity.app),
                    content_types: order.content_types.clone(),
                    token: token.clone(),
                    client: running.tree.as_ref().map(|tree| tree.client.clone()),
                    gate: running.tree.as_ref().map(|tree| tree.gate.clone()).unwrap_or_default(),
                    line: running.line.clone(),
                }),
                Entry::Resting(..) => None,
            };
            let unable = match entry {
                Entry::Resting(Rest::Unable(trouble, _), _) => Some(trouble.clone()),
                _ => None,
            };
            Some(Patient { tenant: *id, name: report.name(), means, unable, report: Some(report) })
        };
        books.tenants.iter().filter_map(patient).collect()
    }

    /// How far the tenants have come that are collected in a run that ends by itself.
    #[must_use]
    pub fn headway(&self) -> BTreeMap<TenantId, Headway> {
        let books = self.books();
        let of = |(id, entry): (&TenantId, &Entry)| {
            let course = &entry.running()?.course;
            Some((*id, course.headway(self.shared.store.queue_depth(*id).entries)))
        };
        books.tenants.iter().filter_map(of).collect()
    }

    /// A tenant that is collected, for whoever receives its notifications.
    #[must_use]
    pub fn subscriber(&self, id: TenantId) -> Option<Subscriber> {
        match self.books().tenants.get(&id)? {
            Entry::Collecting { order, running, .. } => {
                let tree = Arc::clone(running.tree.as_ref()?);
                Some(Subscriber { tree, client_id: order.identity.app.client_id.clone() })
            }
            Entry::Resting(..) => None,
        }
    }

    /// What takes a tenant's inventory, if it is collected.
    pub(in crate::tenant) fn stocktaker(&self, id: TenantId) -> Option<Stocktaker> {
        Some(Stocktaker { tree: self.running_tree(id)?, apart: false })
    }

    /// The same of one that nobody collects at the moment, although these settings would have it collected.
    fn stocktaker_apart(&self, settings: &Settings, member: &Member) -> Option<Stocktaker> {
        let tenant = member.tenant(settings)?;
        let order = Order::new(settings, &tenant, settings.apps.get(&tenant.app)?);
        let token = self.token(token_request(tenant.id, &order.identity), None);
        let report = self.shared.report.tenant(tenant.id, &member.name);
        Some(Stocktaker { tree: self.tree(tenant.id, &order, token, report, false)?, apart: true })
    }

    /// Takes a tenant's inventory while no daemon runs: by itself, with a token of its own.
    pub async fn take_inventory_apart(&self, settings: &Settings, member: &Member) -> Result<Inventory, StoreError> {
        let now = self.shared.time.now();
        match inventory::not_taken(member, now) {
            Some(not_taken) => Ok(not_taken),
            None => match self.stocktaker_apart(settings, member) {
                Some(stocktaker) => stocktaker.take().await,
                None => Ok(inventory::not_configured(member, now)),
            },
        }
    }

    /// A tenant that is collected, for whoever wants a span of it to be listed again.
    #[must_use]
    pub fn backfill(&self, id: TenantId) -> Option<Backfill> {
        Some(Backfill { tree: self.running_tree(id)? })
    }

    /// A tenant that is collected, for whoever wants a blob of it to be fetched.
    #[must_use]
    pub fn investigator(&self, id: TenantId) -> Option<Investigator> {
        Some(Investigator { tree: self.running_tree(id)? })
    }

    /// What collects a tenant's audit records, if anything does.
    fn running_tree(&self, id: TenantId) -> Option<Arc<Tree>> {
        self.books().tenants.get(&id)?.running()?.tree.clone()
    }

    /// What can speak for a tenant that is to be collected no longer; `None` if it cannot be collected with these settings.
    /// It has the token of the tenant, and gate and waits of its tree, if there are such.
    pub(in crate::tenant) fn farewell(&self, settings: &Settings, member: &Member) -> Option<Farewell> {
        let tenant = member.tenant(settings)?;
        let order = Order::new(settings, &tenant, settings.apps.get(&tenant.app)?);
        let time = order.identity.cloud.time(&self.shared.time);
        let waits = || Arc::new(Waits::new(tenant.id, self.shared.store.clone(), time));
        let client = self.client(tenant.id, &order)?;
        let (token, gate, waits) = match self.books().tenants.get(&tenant.id) {
            Some(Entry::Collecting { token, running: Running { tree: Some(tree), .. }, .. }) => {
                (Some(token.clone()), tree.gate.clone(), Arc::clone(&tree.waits))
            }
            Some(Entry::Collecting { token, .. }) => (Some(token.clone()), Gate::default(), waits()),
            Some(Entry::Resting(_, token)) => (token.clone(), Gate::default(), waits()),
            None => (None, Gate::default(), waits()),
        };
        let token = self.token(token_request(tenant.id, &order.identity), token);
        Some(Farewell::new(client, token, gate, waits))
    }

    /// The way to Graph of a tenant: that of its tasks if they have one, else one with a token that is kept for it. `None` if
    /// it cannot be collected with these settings.
    pub(in crate::tenant) async fn line_of(
        &self,
        settings: &Settings,
        member: &Member,
    ) -> Result<Option<Line>, StoreError> {
        let Some(tenant) = member.tenant(settings) else { return Ok(None) };
        let Some(app) = settings.apps.get(&tenant.app) else { return Ok(None) };
        let order = Order::new(settings, &tenant, app);
        let line = {
            let mut books = self.books();
            let token = match books.tenants.get(&tenant.id) {
                Some(Entry::Collecting { token, .. }) => Some(token.clone()),
                Some(Entry::Resting(_, token)) => token.clone(),
                None => None,
            };
            let token = self.token(token_request(tenant.id, &order.identity), token);
            self.line(tenant.id, &order.identity, &token, &mut books)
        };
        line.restore().await?;
        Ok(Some(line))
    }
}
