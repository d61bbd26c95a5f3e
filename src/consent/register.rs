//! The invites, as operators make, list and withdraw them.

use tracing::info;

use super::desk::Desk;
use super::proof::Proof;
use super::wanted::{self, InviteStatus, Invited, Unwanted, Wanted};
use crate::event;
use crate::store::{InviteId, StoreError};

impl Desk {
    /// Makes an invite; the answer is its link.
    pub async fn invite(&self, request: Wanted) -> Result<Invited, Unwanted> {
        let settings = self.keeper.settings();
        let (invite, link) = wanted::make(request, &settings, self.with.time.now())?;
        if let Some(tenant) = invite.tenant
            && self.is_bound(tenant, invite.id).await?
        {
            return Err(Unwanted::Bound(tenant));
        }
        self.with.store.put_invite(invite.clone()).await?;
        info!(
            message_id = event::INVITED,
            invite = invite.id.short(),
            name = invite.name,
            tenant = invite.tenant.map(tracing::field::display),
            expires = %invite.expires,
            "an invite was made"
        );
        Ok(Invited { id: invite.id, link: link.into(), expires: invite.expires })
    }

    /// All invites, the newest first.
    pub async fn invites(&self) -> Result<Vec<InviteStatus>, StoreError> {
        let now = self.with.time.now();
        let mut invites = self.with.store.invites().await?;
        invites.sort_by_key(|invite| std::cmp::Reverse(invite.made));
        let proofs = self.proofs();
        let trouble = |id| match &*proofs.get(&id)?.proof.borrow() {
            Proof::Asking { trouble, .. } => trouble.clone(),
            Proof::Failed(trouble) => Some(trouble.clone()),
            Proof::Given => None,
        };
        Ok(invites.into_iter().map(|invite| InviteStatus::of(trouble(invite.id), invite, now)).collect())
    }

    /// The link leads nowhere from now on, and no proof is asked for any more. What was enrolled by it stays. False if there
    /// is no such invite.
    pub async fn withdraw(&self, id: InviteId) -> Result<bool, StoreError> {
        let _alone = self.deciding.lock().await;
        let Some(invite) = self.with.store.invite(id).await? else { return Ok(false) };
        self.proofs().remove(&id);
        self.with.store.remove_invite(id).await?;
        info!(message_id = event::INVITE_WITHDRAWN, invite = id.short(), name = invite.name, "an invite was withdrawn");
        Ok(true)
    }
}
