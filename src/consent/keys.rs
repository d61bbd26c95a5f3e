//! The keys by which a cloud signs, fetched from its own authority and kept for a day.
//!
//! A key that is not among them may be new ("Signing key rollover"): then they are fetched again, but not more often than
//! every five minutes, so that whoever sends made-up tokens cannot make us ask without end.
//!
//! **Invariant:** the address is the cloud's. Nothing that a token or a document says leads anywhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use tokio::sync::Mutex as Turn;
use tokio::time::Instant;
use url::Url;

use super::id_token::SigningKeys;
use crate::cloud::Cloud;
use crate::http::Pool;

/// How long keys are good for without a look.
const KEPT: Duration = Duration::from_hours(24);
/// The least time between two looks.
const APART: Duration = Duration::from_mins(5);
/// Larger than any document of keys by far.
const LARGEST: usize = 1 << 20;

/// Why there are no keys.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum NoKeys {
    #[error("`{host}` does not hand out its signing keys ({why})")]
    Unreachable { host: String, why: String },
    #[error("what `{host}` hands out as its signing keys is none")]
    Unreadable { host: String },
}

/// The keys of all clouds.
#[derive(Debug)]
pub(super) struct KeyRing {
    http: Pool,
    clouds: Mutex<HashMap<Url, Arc<Turn<Option<Kept>>>>>,
}

#[derive(Debug)]
struct Kept {
    keys: Arc<SigningKeys>,
    at: Instant,
}

impl KeyRing {
    pub(super) fn new(http: Pool) -> Self {
        Self { http, clouds: Mutex::default() }
    }

    /// The cloud's keys, with that of this id if it publishes one. One request at a time; the others wait for it.
    pub(super) async fn with(&self, cloud: &Cloud, id: &str) -> Result<Arc<SigningKeys>, NoKeys> {
        let url = cloud.signing_keys();
        let turn = {
            let mut clouds = self.clouds.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(clouds.entry(url.clone()).or_default())
        };
        let mut kept = turn.lock().await;
        if let Some(kept) = &*kept
            && (kept.at.elapsed() < APART || (kept.at.elapsed() < KEPT && kept.keys.has(id)))
        {
            return Ok(Arc::clone(&kept.keys));
        }
        match self.fetch(&url).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *kept = Some(Kept { keys: Arc::clone(&keys), at: Instant::now() });
                Ok(keys)
            }
            // Old keys are better than none: what they do not know is refused anyway.
            Err(error) => match &*kept {
                Some(kept) if kept.at.elapsed() < 7 * KEPT => Ok(Arc::clone(&kept.keys)),
                _ => Err(error),
            },
        }
    }

    async fn fetch(&self, url: &Url) -> Result<SigningKeys, NoKeys> {
        let host = || url.host_str().unwrap_or_default().to_owned();
        let unreachable = |why: String| NoKeys::Unreachable { host: host(), why };
        let failed = |error: reqwest::Error| {
            // Without the address, which is no news.
            unreachable(super::chain(&error.without_url()))
        };
        let mut answer = self.http.request(Method::GET, url.clone()).send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(unreachable(format!("it answers {}", answer.status().as_u16())));
        }
        let mut document = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if document.len() + chunk.len() > LARGEST {
                return Err(NoKeys::Unreadable { host: host() });
            }
            document.extend_from_slice(&chunk);
        }
        SigningKeys::read(&document).map_err(|_| NoKeys::Unreadable { host: host() })
    }
}
