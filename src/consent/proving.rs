//! From the consent to the tenant that is collected: the proof is asked for in a task of its own.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::case::Case;
use super::desk::{Desk, tell};
use super::ending::Ending;
use super::proof::{Candidate, Proof};
use crate::content::TenantId;
use crate::event;
use crate::report::Trouble;
use crate::store::{Enrolled, Enrolment, Invite, InviteStage, StoreError};
use crate::tenant::Shared;
use crate::tenant::keeper::KeeperError;
use crate::token::TokenRequest;

/// A proof that is being asked for, or has been.
pub(super) struct Asked {
    pub(super) proof: watch::Receiver<Proof>,
    _task: AbortOnDropHandle<()>,
}

impl Desk {
    /// Goes on asking for the proofs that an earlier process has asked for.
    pub async fn resume(self: &Arc<Self>) -> Result<(), StoreError> {
        for invite in self.with.store.invites().await? {
            if let InviteStage::Proving { tenant, .. } = invite.stage {
                match self.case(invite) {
                    Ok(case) => self.ask_for_proof(case, tenant),
                    Err(refused) => tell(&refused.0, &refused.1),
                }
            }
        }
        Ok(())
    }

    pub(super) fn ask_for_proof(self: &Arc<Self>, case: Case, tenant: TenantId) {
        let (told, proof) = watch::channel(Proof::BEGUN);
        let id = case.invite.id;
        let desk = Arc::clone(self);
        let task = tokio::spawn(async move {
            let outcome = match desk.candidate(&case, tenant).prove(&told).await {
                Ok(()) => desk.enrol(&case, tenant).await,
                Err(trouble) => Err(trouble),
            };
            let proof = match outcome {
                Ok(()) => Proof::Given,
                Err(trouble) => {
                    desk.give_up(case.invite, tenant, &trouble).await;
                    Proof::Failed(trouble)
                }
            };
            told.send_replace(proof);
        });
        self.proofs().insert(id, Asked { proof, _task: AbortOnDropHandle::new(task) });
    }

    fn candidate(&self, case: &Case, tenant: TenantId) -> Candidate {
        let Shared { http, clock, time, .. } = &self.with;
        let request = TokenRequest {
            cloud: Arc::clone(&case.cloud),
            tenant,
            audience: case.cloud.audience().to_owned(),
            endpoint: case.settings.token.endpoint,
            app: case.app.name.clone(),
            client_id: case.app.client_id.clone(),
            credential: case.app.credential.clone(),
            renew_after: case.settings.token.renew_after,
        };
        Candidate {
            request,
            publisher: case.app.publisher_id.unwrap_or_else(|| tenant.uuid()),
            http: http.clone(),
            clock: Arc::clone(clock),
            time: Arc::clone(time),
        }
    }

    /// The proof is there: the tenant is ours.
    async fn enrol(&self, case: &Case, tenant: TenantId) -> Result<(), Trouble> {
        let _alone = self.deciding.lock().await;
        let (Shared { store, time, .. }, keeper) = (&self.with, &self.keeper);
        let (invite, at) = (&case.invite, time.now());
        // A purge of the tenant takes the invite along.
        if store.invite(invite.id).await.map_err(|error| error.trouble())?.is_none() {
            return Err(Trouble::for_operator("invite_gone", "the invite was erased meanwhile", "send another invite"));
        }
        if !self.is_enrolled_by(invite, tenant).await.map_err(|error| error.trouble())? {
            if self.is_bound(tenant, invite.id).await.map_err(|error| error.trouble())? {
                let bound = Ending::AlreadyBound { tenant };
                return Err(bound.trouble().unwrap_or_else(|| Trouble::passing(bound.kind(), "it is bound")));
            }
            let enrolment = Enrolment {
                tenant,
                name: invite.name.clone(),
                cloud: invite.cloud.clone(),
                app: invite.app.clone(),
                content_types: invite.content_types.clone(),
                how: Enrolled::Consent,
                at,
            };
            keeper.enrol(enrolment).await.map_err(|error| of_keeper(&error))?;
        }
        let done = Invite { stage: InviteStage::Done { tenant, at }, ..invite.clone() };
        store.put_invite(done).await.map_err(|error| error.trouble())
    }

    /// Whether this very invite has enrolled the tenant, by a process that ended before it could say so.
    async fn is_enrolled_by(&self, invite: &Invite, tenant: TenantId) -> Result<bool, StoreError> {
        let InviteStage::Proving { since, .. } = invite.stage else { return Ok(false) };
        let enrolments = self.with.store.enrolments().await?;
        Ok(enrolments.iter().any(|known| {
            known.tenant == tenant && known.how == Enrolled::Consent && known.name == invite.name && known.at >= since
        }))
    }

    /// The proof is not to be had: the link is good for another try.
    async fn give_up(&self, invite: Invite, tenant: TenantId, trouble: &Trouble) {
        warn!(
            message_id = event::CONSENT_FAILED,
            invite = invite.id.short(),
            name = invite.name,
            %tenant,
            kind = trouble.kind,
            error_code = trouble.code,
            correlation_id = trouble.correlation_id,
            "{trouble}"
        );
        let store = &self.with.store;
        let opened = match store.invite(invite.id).await {
            Ok(Some(_)) => store.put_invite(Invite { stage: InviteStage::Open, ..invite }).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = opened {
            error!(
                message_id = event::STORE_UNWRITABLE,
                error = &error as &dyn std::error::Error,
                "the invite cannot be opened again"
            );
        }
    }
}

fn of_keeper(error: &KeeperError) -> Trouble {
    match error {
        KeeperError::Store(error) => error.trouble(),
        other => Trouble::for_operator("not_enrolled", other.to_string(), "send another invite"),
    }
}
