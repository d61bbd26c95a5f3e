//! Each authority is asked once whether it is there, on behalf of all tenants that a doctor looks at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::clock::SharedClock;
use crate::cloud::Cloud;
use crate::config::Route;
use crate::http::Pool;
use crate::token::{TokenError, knock};

/// Whether an authority answers, and how many seconds this host's clock is ahead of its, if it tells its time.
pub(super) type Knock = Result<Option<i64>, TokenError>;

#[derive(Debug)]
pub(super) struct Knocks {
    pool: Pool,
    clock: SharedClock,
    known: Mutex<BTreeMap<String, Arc<OnceCell<Knock>>>>,
}

impl Knocks {
    pub(super) fn new(pool: Pool, clock: SharedClock) -> Self {
        Self { pool, clock, known: Mutex::default() }
    }

    /// Whether the authority of `cloud` is there.
    pub(super) async fn at(&self, cloud: &Cloud) -> Knock {
        let cell = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(cloud.authority.as_str().to_owned()).or_default())
        };
        let knock = || async {
            let date = knock(&self.pool, cloud).await?;
            // A `Date` knows whole seconds only.
            Ok(date.map(|date| self.clock.now().duration_since(date).as_secs()))
        };
        cell.get_or_init(knock).await.clone()
    }

    /// How the authority of `cloud` is reached.
    pub(super) fn route(&self, cloud: &Cloud) -> (String, bool) {
        let network = self.pool.network();
        let route = network.route(&cloud.authority);
        (route.to_string(), matches!(route, Route::Through(_)))
    }

    /// This host's time.
    pub(super) fn now(&self) -> jiff::Timestamp {
        self.clock.now()
    }
}
