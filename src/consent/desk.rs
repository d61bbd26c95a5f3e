//! Where customers are received: from the link to the tenant that is collected.
//!
//! ```text
//! link ─► welcome ─► sign-in at Microsoft ─► id_token ─► admin consent at that very tenant ─► proof ─► enrolled
//! ```
//!
//! An invite is used up by the proof alone: whatever ends a way before it, the link is good for another try until it
//! expires. From the consent on, the invite in the store says for which tenant the proof is asked, so that it goes on
//! after a restart.
//!
//! **Invariants:** the tenant comes from a validated `id_token` (with the flow of 2019 from a token that the authority gave
//! us itself), is the one that the invite is pinned to, and is nobody's yet; all of that is looked at once more, by one at
//! a time, before it is taken in. Only a browser that holds a good link, or that we have sent to Microsoft, makes us ask
//! Microsoft anything.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Mutex as Turn;
use tracing::{info, warn};
use url::Url;

use super::address::{self, Challenge};
use super::callback::{Callback, Odd};
use super::case::Case;
use super::ending::{Ending, unavailable};
use super::id_token::SignedIn;
use super::journey::{self, Journey};
use super::keys::KeyRing;
use super::proof::Proof;
use super::proving::Asked;
use super::visits::{Step, VisitId, Visits};
use super::welcome::{Welcome, permissions};
use crate::cloud::TokenEndpoint;
use crate::content::TenantId;
use crate::event;
use crate::secret::Secret;
use crate::store::{Invite, InviteId, InviteStage, StoreError};
use crate::tenant::{Keeper, Shared};
use crate::token::Redeemer;

/// One for the process.
pub struct Desk {
    pub(super) with: Shared,
    pub(super) keeper: Keeper,
    pub(super) redeemer: Redeemer,
    pub(super) keys: KeyRing,
    visits: Visits,
    proofs: Mutex<HashMap<InviteId, Asked>>,
    /// Who decides whose a tenant is decides alone.
    pub(super) deciding: Turn<()>,
}

/// Where a browser goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// To Microsoft.
    Microsoft(Url),
    /// To the page of progress.
    Progress,
}

impl Desk {
    /// Receives nobody's past: [`resume`](Self::resume) goes on with what an earlier process has begun.
    #[must_use]
    pub fn new(with: Shared, keeper: Keeper) -> Arc<Self> {
        let Shared { http, clock, time, apps, .. } = &with;
        let redeemer = Redeemer::new(http.control.clone(), Arc::clone(clock), Arc::clone(time), Arc::clone(apps));
        let keys = KeyRing::new(http.control.clone());
        Arc::new(Self {
            redeemer,
            keys,
            with,
            keeper,
            visits: Visits::default(),
            proofs: Mutex::default(),
            deciding: Turn::default(),
        })
    }

    /// What the page behind a link says before the sign-in.
    pub async fn welcome(&self, secret: &str) -> Result<Welcome, Ending> {
        let case = self.open(secret).await?;
        let public = &case.settings.public;
        Ok(Welcome {
            permissions: permissions(&case.invite),
            customer: case.invite.name,
            organisation: public.organisation.clone(),
            contact: public.contact.clone(),
            sign_in_at: case.cloud.authority.host_str().unwrap_or_default().to_owned(),
            expires: case.invite.expires,
        })
    }

    /// Sends a browser to sign in: where, and with which cookie.
    pub async fn begin(&self, secret: &str) -> Result<(Url, Secret), Ending> {
        let case = self.open(secret).await?;
        let challenge = Challenge::new();
        let url = address::sign_in(&case.cloud, case.flow(), &case.app.client_id, &case.redirect_uri(), &challenge);
        Ok((url, self.visits.begin(case.invite.id, &case.cloud.name, challenge)))
    }

    /// A browser comes back from Microsoft to the address of `cloud`.
    pub async fn come_back(self: &Arc<Self>, cookie: Option<&str>, cloud: &str, query: &str) -> Result<Next, Ending> {
        let Ok(callback) = Callback::read(query).map_err(|Odd| ()) else { return Err(Ending::NotBegunHere) };
        let found = self.visits.come_back(cookie, cloud, callback.state());
        let Some((id, visit)) = found else { return Err(Ending::NotBegunHere) };
        let case = self.case_of(visit.invite).await?;
        let next = match &visit.step {
            Step::SignIn(challenge) if case.flow() == TokenEndpoint::V2 => {
                self.signed_in(&case, &callback, challenge, id).await
            }
            Step::SignIn(challenge) => self.consented_by_signing_in(&case, &callback, challenge, id).await,
            Step::Consent { tenant, .. } => self.consented(&case, &callback, *tenant, id).await,
            Step::Watch | Step::Over => Err(Ending::NotBegunHere),
        };
        told(&case.invite, next)
    }

    /// What the browser that consented watches.
    pub async fn progress(&self, cookie: Option<&str>) -> Result<Journey, Ending> {
        let Some((id, account)) = self.visits.watched(cookie) else { return Err(Ending::NotBegunHere) };
        let invite = self.with.store.invite(id).await.map_err(|error| unavailable(&error))?;
        let Some(invite) = invite else { return Err(Ending::NoSuchInvite) };
        let known = self.proofs().get(&id).map(|asked| asked.proof.borrow().clone());
        let (proof, tenant) = match invite.stage {
            InviteStage::Done { tenant, .. } => (Proof::Given, Some(tenant)),
            InviteStage::Proving { tenant, .. } => (known.unwrap_or(Proof::BEGUN), Some(tenant)),
            // It came to nothing, and the link is good again.
            InviteStage::Open => (known.ok_or(Ending::NotBegunHere)?, None),
        };
        let status = tenant.and_then(|tenant| self.with.report.status_of(tenant));
        let (steps, words, goes_on) = journey::watched(&proof, status.as_ref());
        let public = self.keeper.settings().public.clone();
        Ok(Journey {
            customer: invite.name,
            account,
            organisation: public.organisation,
            contact: public.contact,
            steps,
            words,
            goes_on,
        })
    }

    /// No proof is asked for any more: the next process goes on with those that were.
    pub fn close(&self) {
        self.proofs().clear();
    }

    /// The hosts that a form may lead to.
    #[must_use]
    pub fn authorities(&self) -> Vec<String> {
        let settings = self.keeper.settings();
        let mut all: Vec<_> =
            settings.clouds.values().map(|cloud| cloud.authority.origin().ascii_serialization()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// The app registration's answer to a sign-in: a code, by which the authority itself says who it was.
    async fn signed_in(
        &self,
        case: &Case,
        callback: &Callback,
        challenge: &Challenge,
        visit: VisitId,
    ) -> Result<Next, Ending> {
        let redeemed = self.redeem(case, callback, challenge).await?;
        let SignedIn { tenant, account } = self.identify(case, redeemed.id_token.as_ref(), challenge).await?;
        self.may_come(case, tenant).await?;
        let state = Secret::random();
        let url = address::admin_consent(&case.cloud, tenant, &case.app.client_id, &case.redirect_uri(), &state);
        self.visits.go_on(visit, Step::Consent { state, tenant }, account);
        Ok(Next::Microsoft(url))
    }

    /// The same with the flow of 2019, where who signs in has consented.
    async fn consented_by_signing_in(
        self: &Arc<Self>,
        case: &Case,
        callback: &Callback,
        challenge: &Challenge,
        visit: VisitId,
    ) -> Result<Next, Ending> {
        let redeemed = self.redeem(case, callback, challenge).await?;
        let SignedIn { tenant, account } = self.identify_by_access(case, redeemed.access_token.as_ref())?;
        self.take_in(case, tenant, visit, account).await
    }

    /// Consent came back for the tenant that was signed for, or not.
    async fn consented(
        self: &Arc<Self>,
        case: &Case,
        callback: &Callback,
        tenant: TenantId,
        visit: VisitId,
    ) -> Result<Next, Ending> {
        let consented =
            callback.consented().map_err(|refused| Ending::of_refusal(&refused, &case.subject(Some(tenant))))?;
        match consented {
            Some(consented) if consented == tenant => self.take_in(case, tenant, visit, None).await,
            Some(_) => Err(Ending::OtherTenant { signed_in: tenant }),
            None => Err(Ending::Declined),
        }
    }

    /// From here on the invite is about this tenant, whose proof is asked for.
    async fn take_in(
        self: &Arc<Self>,
        case: &Case,
        tenant: TenantId,
        visit: VisitId,
        account: Option<String>,
    ) -> Result<Next, Ending> {
        let _alone = self.deciding.lock().await;
        let case = self.case_of(case.invite.id).await?;
        self.may_come(&case, tenant).await?;
        let invite = Invite { stage: InviteStage::Proving { tenant, since: self.with.time.now() }, ..case.invite };
        self.with.store.put_invite(invite.clone()).await.map_err(|error| unavailable(&error))?;
        info!(
            message_id = event::CONSENT_GIVEN,
            invite = invite.id.short(),
            name = invite.name,
            %tenant,
            "an administrator has consented; the proof is asked for"
        );
        self.visits.go_on(visit, Step::Watch, account);
        self.ask_for_proof(Case { invite, ..case }, tenant);
        Ok(Next::Progress)
    }

    /// Whether this tenant may follow this invite.
    async fn may_come(&self, case: &Case, tenant: TenantId) -> Result<(), Ending> {
        match case.invite.stage {
            InviteStage::Open => {}
            InviteStage::Proving { .. } => return Err(Ending::InUse),
            InviteStage::Done { .. } => return Err(Ending::Used),
        }
        if case.invite.tenant.is_some_and(|pinned| pinned != tenant) {
            return Err(Ending::WrongTenant { signed_in: tenant });
        }
        match self.is_bound(tenant, case.invite.id).await {
            Ok(false) => Ok(()),
            Ok(true) => Err(Ending::AlreadyBound { tenant }),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Whether the tenant is collected, or about to be by another invite.
    pub(super) async fn is_bound(&self, tenant: TenantId, invite: InviteId) -> Result<bool, StoreError> {
        if self.keeper.roster().member(tenant).is_ok() {
            return Ok(true);
        }
        let others = self.with.store.invites().await?;
        Ok(others
            .iter()
            .filter(|other| other.id != invite)
            .any(|other| matches!(other.stage, InviteStage::Proving { tenant: proving, .. } if proving == tenant)))
    }

    pub(super) fn proofs(&self) -> MutexGuard<'_, HashMap<InviteId, Asked>> {
        self.proofs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the operator of what has ended.
pub(super) fn told<T>(invite: &Invite, outcome: Result<T, Ending>) -> Result<T, Ending> {
    outcome.inspect_err(|ending| tell(invite, ending))
}

/// The same of what has.
pub(super) fn tell(invite: &Invite, ending: &Ending) {
    let Some(trouble) = ending.trouble() else { return };
    warn!(
        message_id = event::CONSENT_FAILED,
        invite = invite.id.short(),
        name = invite.name.as_str(),
        tenant = invite.tenant.map(tracing::field::display),
        kind = trouble.kind,
        error_code = trouble.code,
        correlation_id = trouble.correlation_id,
        "{trouble}"
    );
}
