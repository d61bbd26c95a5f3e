//! The proof that a tenant has let us in: a token of its own, and a list of its subscriptions; where a cloud has no Activity
//! API, a list of Graph's.
//!
//! A callback is a hint; this is the evidence. Entra hands a consent on to all of its sites within minutes, half an hour at
//! worst, and until then answers as if there were none: so it is asked again for that long. Whatever is wrong is told
//! meanwhile, since the customer may be able to mend it while the page is open.
//!
//! **Invariant:** no two requests for a token within half a minute, as everywhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::activity::{ActivityClient, Limits, Reason};
use crate::clock::{ServiceTime, SharedClock};
use crate::graph::{self, GraphClient, List};
use crate::http::Http;
use crate::report::Trouble;
use crate::token::entra::APP_UNKNOWN;
use crate::token::renewal::FLOOR;
use crate::token::{AppAlarms, TokenRequest, TokenSource};

/// For how long Microsoft may take to hand a consent on.
const REPLICATED_WITHIN: Duration = Duration::from_mins(35);
/// So many times it is asked at the shortest pace that is allowed, and then at half of it: most consents take a minute.
const BRISK: u32 = 4;

/// How far the proof has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is being asked.
    Asking {
        /// What is missing.
        point: Point,
        /// Why, when it was last asked.
        trouble: Option<Trouble>,
        /// Whether that is what it looks like while Microsoft hands the consent on.
        replicating: bool,
    },
    /// It was given, and the tenant is ours.
    Given,
    /// It was not given in time, or something else has come in between.
    Failed(Trouble),
}

/// What the proof consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// A token for the tenant.
    Token,
    /// An answer of its Activity API to it, or of Graph where there is none.
    Api,
}

impl Proof {
    pub(super) const BEGUN: Self = Self::Asking { point: Point::Token, trouble: None, replicating: false };
}

/// Whose proof is asked for, and with what.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) request: TokenRequest,
    pub(super) publisher: uuid::Uuid,
    pub(super) http: Http,
    pub(super) clock: SharedClock,
    pub(super) time: Arc<ServiceTime>,
}

struct Missing {
    point: Point,
    trouble: Trouble,
    replicating: bool,
}

impl Candidate {
    /// Asks until the proof is there, or for too long.
    pub(super) async fn prove(&self, told: &watch::Sender<Proof>) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            let Missing { point, trouble, replicating } = match self.ask().await {
                Ok(()) => return Ok(()),
                Err(missing) => missing,
            };
            if begun.elapsed() >= REPLICATED_WITHIN {
                return Err(trouble);
            }
            told.send_replace(Proof::Asking { point, trouble: Some(trouble), replicating });
            attempts += 1;
            sleep(if attempts < BRISK { FLOOR } else { 2 * FLOOR }).await;
        }
    }

    /// One token, and one list. A source of its own for each: what one learns of an app must not be held against the
    /// tenants that are collected with it.
    async fn ask(&self) -> Result<(), Missing> {
        let TokenRequest { cloud, tenant, .. } = &self.request;
        let time = cloud.time(&self.time);
        let (http, clock) = (self.http.control.clone(), Arc::clone(&self.clock));
        let source = TokenSource::new(self.request.clone(), http, clock, Arc::clone(&time), &AppAlarms::new());
        let token = source.token().await.map_err(|error| Missing {
            point: Point::Token,
            replicating: matches!(error.kind(), APP_UNKNOWN | "consent_missing"),
            trouble: Trouble { shared: false, ..error.trouble() },
        })?;
        let Some(management) = cloud.management.clone() else {
            let client = GraphClient::new(Arc::clone(cloud), self.http.clone(), time);
            let listed = client.list(&token, List::Services, None).await.map_err(|error| Missing {
                point: Point::Api,
                replicating: error.refusal().is_some_and(|refusal| refusal.reason == graph::Reason::RoleMissing),
                trouble: error.trouble(),
            });
            return listed.map(drop);
        };
        // No blob is fetched.
        let limits = Limits { max_compressed: 0, max_decompressed: 0 };
        let client = ActivityClient::new(management, *tenant, self.publisher, self.http.clone(), time, limits);
        let listed = client.list_subscriptions(&token).await.map_err(|error| Missing {
            point: Point::Api,
            replicating: error.refusal().is_some_and(|refusal| refusal.reason == Reason::PermissionMissing),
            trouble: error.trouble(),
        });
        listed.map(drop)
    }
}
