//! Which of an app's certificates signs, while one replaces another.
//!
//! A new certificate is often configured before it is uploaded, and Entra needs minutes to hand it to all of its sites.
//! One that Entra refuses is therefore put aside for an hour, for all tenants of the app, and the next newest signs
//! meanwhile; after that, one request tries it again, and sooner if the one that signs in its place is refused too: that is
//! how it looks when the new certificate was uploaded and the old one removed. Only when all are refused within minutes is
//! that the app's trouble, and then they take turns, so that a remedy for either is noticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Certificate, Credential};
use crate::event;
use crate::report::Trouble;
use crate::report::announce::{History, Line};
use crate::retry::jittered;

/// For how long a refused certificate is put aside.
const ASIDE: Duration = Duration::from_hours(1);
/// A refusal that is older than this may be over.
const STALE: Duration = Duration::from_mins(5);
/// How long the one request that tries it again may take before another does.
const TRIAL: Duration = Duration::from_mins(2);

/// The certificates of one app that Entra has refused, by their SHA-256 thumbprints.
#[derive(Debug, Default)]
pub(super) struct Rollover {
    aside: Mutex<HashMap<String, Aside>>,
}

#[derive(Debug)]
struct Aside {
    until: Instant,
    refused: Instant,
    history: History,
}

impl Rollover {
    /// The certificate that signs at `at`; `None` if the credential is a secret.
    pub(super) fn choose(&self, credential: &Credential, at: Timestamp) -> Option<Arc<Certificate>> {
        let candidates = credential.candidates(at);
        let now = Instant::now();
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        for certificate in &candidates {
            match aside.get_mut(certificate.sha256_hex()) {
                None => return Some(Arc::clone(certificate)),
                Some(refused) if refused.until <= now => {
                    refused.until = now + TRIAL;
                    return Some(Arc::clone(certificate));
                }
                Some(_) => {}
            }
        }
        // All are refused: the one whose turn comes first.
        candidates
            .into_iter()
            .min_by_key(|certificate| aside.get(certificate.sha256_hex()).map(|refused| refused.until))
            .cloned()
    }

    /// Entra has granted a token to an assertion that `certificate` signed.
    pub(super) fn accepted(&self, certificate: &Certificate, app: &str, client_id: &str) {
        let known = self.aside.lock().unwrap_or_else(PoisonError::into_inner).remove(certificate.sha256_hex());
        if known.is_some() {
            let thumbprint = certificate.sha1_hex();
            info!(
                message_id = event::CERTIFICATE_ACCEPTED,
                app, client_id, thumbprint, "certificate accepted after all"
            );
        }
    }

    /// Entra has refused `certificate`: puts it aside and answers the one that signs instead, if there is one that was
    /// not refused.
    pub(super) fn refused(
        &self,
        certificate: &Certificate,
        credential: &Credential,
        at: Timestamp,
    ) -> Option<Arc<Certificate>> {
        let now = Instant::now();
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = aside.entry(certificate.sha256_hex().to_owned()).or_insert_with(|| Aside {
            until: now,
            refused: now,
            history: History::default(),
        });
        refused.until = now + jittered(ASIDE, 0.1);
        refused.refused = now;
        let candidates = credential.candidates(at);
        let good = |other: &&&Arc<Certificate>| aside.get(other.sha256_hex()).is_none_or(|known| known.until <= now);
        if let Some(good) = candidates.iter().find(good) {
            return Some(Arc::clone(good));
        }
        // None is left but those whose refusals are old news.
        let stale = |other: &&&Arc<Certificate>| {
            aside.get(other.sha256_hex()).is_some_and(|known| now.duration_since(known.refused) >= STALE)
        };
        let again = candidates.iter().find(stale).map(|other| Arc::clone(other))?;
        if let Some(known) = aside.get_mut(again.sha256_hex()) {
            known.until = now;
        }
        Some(again)
    }

    /// Writes to the journal that another certificate signs in its place: when that is new, and then seldom.
    pub(super) fn tell(&self, certificate: &Certificate, app: &str, client_id: &str, trouble: &Trouble, at: Timestamp) {
        let mut aside = self.aside.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(refused) = aside.get_mut(certificate.sha256_hex()) else { return };
        if refused.history.met(None, trouble, Instant::now(), at) == Line::Quiet {
            return;
        }
        warn!(
            message_id = event::CERTIFICATE_REFUSED,
            app,
            client_id,
            thumbprint = certificate.sha1_hex(),
            kind = trouble.kind,
            error_code = trouble.code.as_deref(),
            correlation_id = trouble.correlation_id.as_deref(),
            "{trouble}"
        );
    }
}
