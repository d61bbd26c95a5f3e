//! Who was enrolled, who is held, who was invited: the part of the state that the register of tenants is made of.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::super::error::StoreError;
use super::super::{Enrolment, Invite, InviteId};
use super::keys::{self, kind};
use super::records;
use super::writer::Task;
use super::{State, decoded};
use crate::content::TenantId;

/// Bytes that an enrolment or an invite may have: names come from outside.
const MAX_REGISTERED: usize = 16 << 10;

impl State {
    /// The tenants that came by consent or by command, in the order of their ids.
    pub(in crate::store) async fn enrolments(&self) -> Result<Vec<Enrolment>, StoreError> {
        self.read(|shared| {
            let database = shared.database();
            let rows = database.scan_prefix([kind::ENROLMENT])?;
            let read = rows.map(|row| {
                let (key, value) = row?;
                decoded(&database, "an enrolment", records::decode_enrolment(&key, &value))
            });
            read.collect()
        })
        .await
    }

    /// Enrols a tenant, durably, in the place of the enrolment that it has.
    pub(in crate::store) async fn enrol(&self, enrolment: &Enrolment) -> Result<(), StoreError> {
        let tenant = enrolment.tenant;
        let key = keys::head(kind::ENROLMENT, tenant);
        self.register(Some(tenant), key, Some(records::encode_enrolment(enrolment))).await
    }

    /// Forgets that a tenant was enrolled, durably.
    pub(in crate::store) async fn forget_enrolment(&self, tenant: TenantId) -> Result<(), StoreError> {
        self.register(Some(tenant), keys::head(kind::ENROLMENT, tenant), None).await
    }

    /// The tenants that an operator has paused, and since when.
    pub(in crate::store) async fn held(&self) -> Result<BTreeMap<TenantId, Timestamp>, StoreError> {
        self.read(|shared| {
            let database = shared.database();
            let mut held = BTreeMap::new();
            for row in database.scan_prefix([kind::HELD])? {
                let (key, value) = row?;
                if let Some(tenant) = keys::tenant(&key) {
                    held.insert(tenant, decoded(&database, "an operator's pause", records::decode_held(&value))?);
                }
            }
            Ok(held)
        })
        .await
    }

    /// Holds a tenant since then, or with `None` lets it go, durably.
    pub(in crate::store) async fn hold(&self, tenant: TenantId, since: Option<Timestamp>) -> Result<(), StoreError> {
        self.register(Some(tenant), keys::head(kind::HELD, tenant), since.map(records::encode_held)).await
    }

    /// All invites, in the order of their ids.
    pub(in crate::store) async fn invites(&self) -> Result<Vec<Invite>, StoreError> {
        self.read(|shared| {
            let database = shared.database();
            let rows = database.scan_prefix([kind::INVITE])?;
            let read = rows.map(|row| {
                let (key, value) = row?;
                decoded(&database, "an invite", records::decode_invite(&key, &value))
            });
            read.collect()
        })
        .await
    }

    /// The invite with this id.
    pub(in crate::store) async fn invite(&self, id: InviteId) -> Result<Option<Invite>, StoreError> {
        self.read(move |shared| {
            let (database, key) = (shared.database(), keys::invite(&id));
            let value = database.get(&key)?;
            let read = value.map(|value| decoded(&database, "an invite", records::decode_invite(&key, &value)));
            read.transpose()
        })
        .await
    }

    /// Keeps an invite, durably, in the place of the one of the same id.
    pub(in crate::store) async fn put_invite(&self, invite: &Invite) -> Result<(), StoreError> {
        self.register(None, keys::invite(&invite.id), Some(records::encode_invite(invite))).await
    }

    /// Removes an invite, durably.
    pub(in crate::store) async fn remove_invite(&self, id: InviteId) -> Result<(), StoreError> {
        self.register(None, keys::invite(&id), None).await
    }

    pub(super) async fn register(
        &self,
        tenant: Option<TenantId>,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        if let Some(bytes) = value.as_ref().map(Vec::len).filter(|bytes| *bytes > MAX_REGISTERED) {
            let path = self.shared.database().directory().to_owned();
            return Err(StoreError::TooLarge { path, bytes, most: MAX_REGISTERED });
        }
        self.ask(|answer| Task::Put { tenant, key, value, answer }).await
    }
}
