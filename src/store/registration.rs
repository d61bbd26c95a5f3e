//! The store's register: who was enrolled, who is held, who was invited.
//!
//! What is changed here is durable when the call returns, and copied into the newest partition soon after, so that even a
//! state that is lost loses none of it (as long as nothing at all was ever stored there is no partition, and the state
//! has it alone).

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::error::StoreError;
use super::facade::Store;
use super::{Enrolment, Invite, InviteId};
use crate::content::TenantId;

impl Store {
    /// The tenants that came by consent or by command, in the order of their ids.
    pub async fn enrolments(&self) -> Result<Vec<Enrolment>, StoreError> {
        self.state().enrolments().await
    }

    /// Enrols a tenant, or puts another enrolment in the place of the one that it has.
    pub async fn enrol(&self, enrolment: Enrolment) -> Result<(), StoreError> {
        // What an earlier purge has yet to remove must not take this along.
        self.clear_purged().await?;
        self.state().enrol(&enrolment).await?;
        self.copy_soon();
        Ok(())
    }

    /// Forgets that a tenant was enrolled. What was collected stays, and so does its state.
    pub async fn forget_enrolment(&self, tenant: TenantId) -> Result<(), StoreError> {
        self.state().forget_enrolment(tenant).await?;
        self.copy_soon();
        Ok(())
    }

    /// The tenants that an operator has paused, and since when.
    pub async fn held(&self) -> Result<BTreeMap<TenantId, Timestamp>, StoreError> {
        self.state().held().await
    }

    /// Holds a tenant since then, or with `None` lets it go.
    pub async fn hold(&self, tenant: TenantId, since: Option<Timestamp>) -> Result<(), StoreError> {
        self.state().hold(tenant, since).await?;
        self.copy_soon();
        Ok(())
    }

    /// All invites, those that have expired included, in the order of their ids.
    pub async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.state().invites().await
    }

    /// The invite with this id.
    pub async fn invite(&self, id: InviteId) -> Result<Option<Invite>, StoreError> {
        self.state().invite(id).await
    }

    /// Keeps an invite, in the place of the one of the same id.
    pub async fn put_invite(&self, invite: Invite) -> Result<(), StoreError> {
        self.state().put_invite(&invite).await?;
        self.copy_soon();
        Ok(())
    }

    /// Removes an invite, if there is one of this id.
    pub async fn remove_invite(&self, id: InviteId) -> Result<(), StoreError> {
        self.state().remove_invite(id).await?;
        self.copy_soon();
        Ok(())
    }
}
