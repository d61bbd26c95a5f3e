//! Why does no data arrive? The chain from this host's clock to a blob of a tenant, looked at link by link.
//!
//! A tenant's chain ends at its first broken [`Link`], with the [`Trouble`](crate::report::Trouble) that the journal and
//! `status` have for it: the words are those of the token's and the API's own tables, and nothing here has a second text
//! for what they know. What many tenants meet for one reason (this host's clock, a proxy, an app's secret) is one
//! [`Finding`], which names them all.
//!
//! - `chain`: the links and the walk along them. Pure.
//! - `placement`: at which link an error belongs. Pure.
//! - `knocks`: each authority is asked once, for everybody.
//! - `examination`: what is asked, of one tenant.
//! - `diagnosis`: what came of it, and what belongs together.
//!
//! **Invariants:** collecting is not disturbed: tokens are the tenant's own and its gate is obeyed; no subscription is ever
//! started; of a blob only the beginning is read; few tenants are looked at at a time.

mod chain;
mod diagnosis;
mod examination;
mod knocks;
mod placement;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};

pub use self::chain::{Link, Seen, State};
pub use self::diagnosis::{Diagnosis, Examined, Finding, Name};

use self::examination::Examination;
use self::knocks::Knocks;
use crate::clock::SharedClock;
use crate::http::Http;
use crate::tenant::Patient;

/// So many tenants are looked at at a time.
const AT_A_TIME: usize = 8;

/// Looks at tenants.
#[derive(Debug, Clone)]
pub struct Doctor {
    http: Http,
    clock: SharedClock,
}

impl Doctor {
    /// One that goes the ways of `http`, and compares this host's `clock` with Microsoft's.
    #[must_use]
    pub const fn new(http: Http, clock: SharedClock) -> Self {
        Self { http, clock }
    }

    /// Looks at all of them.
    pub async fn examine(&self, patients: Vec<Patient>) -> Diagnosis {
        let knocks = Arc::new(Knocks::new(self.http.control.clone(), Arc::clone(&self.clock)));
        let examined = stream::iter(patients).map(|patient| {
            let knocks = Arc::clone(&knocks);
            async move {
                let chain = chain::walk(&mut Examination::new(&patient, &knocks)).await;
                (patient, chain)
            }
        });
        let examined = examined.buffer_unordered(AT_A_TIME).collect().await;
        Diagnosis::new(self.clock.now(), examined)
    }
}
