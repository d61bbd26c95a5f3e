//! The keys of the state: one byte says what it is, the tenant's sixteen follow, save where no tenant is meant.
//!
//! | key | value |
//! |---|---|
//! | `Q` tenant created(8) hash(32) | a queue entry |
//! | `A` tenant created(8) hash(32) | an entry whose content is stored, and is to be looked at again |
//! | `W` tenant content-type(1) | a watermark |
//! | `T` tenant wait | until when |
//! | `D` tenant hash(32) | a dead letter |
//! | `R` tenant hash(32) | a dead letter that does not last: of what is listed wrongly, until it is listed rightly, or of what was set aside, until it is queued again |
//! | `N` tenant | a note for the operator |
//! | `E` tenant | how the tenant was enrolled by consent or by command |
//! | `H` tenant | since when an operator holds the tenant |
//! | `S` tenant language | the names of sensitive information types in a language |
//! | `G` tenant content-type(1) | spans in which it was not listed when it should have been |
//! | `I` id(32) | an invite; its id is the SHA-256 of its secret |
//!
//! `created` is `contentCreated` in microseconds, big-endian with the sign turned, so that keys are ordered as times
//! are: the oldest and the newest entry of a tenant are the two ends of a range. `hash` is the SHA-256 of the content
//! id, whole, so that "is it queued?" is one point read without a second look: nobody can make two ids collide.
//! `C` is left for output cursors.

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::super::{InviteId, WaitKey};
use crate::content::{ContentId, ContentType, TenantId};
use crate::language::Language;

/// What a key's first byte says.
pub(in crate::store) mod kind {
    /// A queue entry.
    pub(in crate::store) const QUEUE: u8 = b'Q';
    /// An entry of what is stored and is to be looked at again.
    pub(in crate::store) const AGAIN: u8 = b'A';
    /// A watermark.
    pub(in crate::store) const WATERMARK: u8 = b'W';
    /// A wait that outlives the process.
    pub(in crate::store) const WAIT: u8 = b'T';
    /// A dead letter.
    pub(in crate::store) const LETTER: u8 = b'D';
    /// A dead letter that a right listing withdraws.
    pub(in crate::store) const REFUSED: u8 = b'R';
    /// The last trouble of a tenant.
    pub(in crate::store) const NOTE: u8 = b'N';
    /// A tenant that came by consent or by command.
    pub(in crate::store) const ENROLMENT: u8 = b'E';
    /// An operator's pause.
    pub(in crate::store) const HELD: u8 = b'H';
    /// What sensitive information types are called.
    pub(in crate::store) const TYPES: u8 = b'S';
    /// Spans that were not listed when they should have been.
    pub(in crate::store) const GAPS: u8 = b'G';
    /// An invite. Its key names no tenant.
    pub(in crate::store) const INVITE: u8 = b'I';
}

/// What a tenant has under its own id, of every kind. An invite can be its too; that stands in the value.
pub(in crate::store) const OF_TENANTS: [u8; 11] = [
    kind::QUEUE,
    kind::AGAIN,
    kind::WATERMARK,
    kind::WAIT,
    kind::LETTER,
    kind::REFUSED,
    kind::NOTE,
    kind::ENROLMENT,
    kind::HELD,
    kind::TYPES,
    kind::GAPS,
];

/// Bytes of the kind and the tenant.
pub(in crate::store) const HEAD: usize = 17;

const SIGN: u64 = 1 << 63;

/// The place of an entry in one of its tenant's two queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::store) struct Place {
    /// In which: that of what is stored, and is to be looked at again.
    pub(in crate::store) again: bool,
    created: [u8; 8],
    hash: [u8; 32],
}

impl Place {
    /// In the queue of what is to be retrieved.
    pub(in crate::store) fn of(created: Timestamp, id: &ContentId) -> Self {
        Self { again: false, created: encode_time(created), hash: hash(id) }
    }

    /// The same in one of the two queues.
    pub(in crate::store) const fn in_queue(self, again: bool) -> Self {
        Self { again, ..self }
    }

    /// When the content was created, to the microsecond.
    pub(in crate::store) fn created(&self) -> Timestamp {
        decode_time(self.created)
    }

    pub(in crate::store) fn key(&self, tenant: TenantId) -> Vec<u8> {
        let mut key = queue(tenant, self.again);
        key.extend_from_slice(&self.created);
        key.extend_from_slice(&self.hash);
        key
    }

    /// Undoes [`key`](Self::key).
    pub(in crate::store) fn from_key(key: &[u8]) -> Option<(TenantId, Self)> {
        let (head, place) = key.split_at_checked(HEAD)?;
        let (created, hash) = place.split_at_checked(8)?;
        let again = match head[0] {
            kind::QUEUE => false,
            kind::AGAIN => true,
            _ => return None,
        };
        Some((tenant(head)?, Self { again, created: created.try_into().ok()?, hash: hash.try_into().ok()? }))
    }
}

/// The kind and the tenant: the beginning of every key that names one, and the prefix of all that a tenant has of a kind.
pub(in crate::store) fn head(kind: u8, tenant: TenantId) -> Vec<u8> {
    let mut key = Vec::with_capacity(HEAD + 40);
    key.push(kind);
    key.extend_from_slice(tenant.as_bytes());
    key
}

/// The tenant in any key that names one.
pub(in crate::store) fn tenant(key: &[u8]) -> Option<TenantId> {
    Some(TenantId::from_bytes(key.get(1..HEAD)?.try_into().ok()?))
}

/// The prefix of all that is in one of a tenant's two queues.
pub(in crate::store) fn queue(tenant: TenantId, again: bool) -> Vec<u8> {
    head(if again { kind::AGAIN } else { kind::QUEUE }, tenant)
}

/// A key after all of that queue and before anything else.
pub(in crate::store) fn after_queue(tenant: TenantId, again: bool) -> Vec<u8> {
    let mut key = queue(tenant, again);
    key.extend_from_slice(&[0xff; 41]);
    key
}

pub(in crate::store) fn watermark(tenant: TenantId, content_type: ContentType) -> Vec<u8> {
    let mut key = head(kind::WATERMARK, tenant);
    key.push(content_type.code());
    key
}

pub(in crate::store) fn gaps(tenant: TenantId, content_type: ContentType) -> Vec<u8> {
    let mut key = head(kind::GAPS, tenant);
    key.push(content_type.code());
    key
}

/// The content type of the key of a watermark, or of gaps.
pub(in crate::store) fn content_type_of(key: &[u8]) -> Option<ContentType> {
    match key.get(HEAD..)? {
        [code] => ContentType::from_code(*code),
        _ => None,
    }
}

pub(in crate::store) fn wait(tenant: TenantId, wait: &WaitKey) -> Vec<u8> {
    let mut key = head(kind::WAIT, tenant);
    match wait {
        WaitKey::SubscriptionStart(content_type) => key.extend_from_slice(&[1, content_type.code()]),
        WaitKey::Throttled => key.push(2),
        WaitKey::Paused => key.push(3),
        WaitKey::Token => key.push(4),
        WaitKey::Health => key.push(5),
    }
    key
}

/// What the wait of this key is for; `None` for one that a later version has added.
pub(in crate::store) fn wait_key(key: &[u8]) -> Option<WaitKey> {
    match key.get(HEAD..)? {
        [1, code] => ContentType::from_code(*code).map(WaitKey::SubscriptionStart),
        [2] => Some(WaitKey::Throttled),
        [3] => Some(WaitKey::Paused),
        [4] => Some(WaitKey::Token),
        [5] => Some(WaitKey::Health),
        _ => None,
    }
}

pub(in crate::store) fn letter(tenant: TenantId, id: &ContentId) -> Vec<u8> {
    let mut key = head(kind::LETTER, tenant);
    key.extend_from_slice(&hash(id));
    key
}

pub(in crate::store) fn refused(tenant: TenantId, id: &ContentId) -> Vec<u8> {
    let mut key = head(kind::REFUSED, tenant);
    key.extend_from_slice(&hash(id));
    key
}

pub(in crate::store) fn types(tenant: TenantId, language: &Language) -> Vec<u8> {
    let mut key = head(kind::TYPES, tenant);
    key.extend_from_slice(language.as_str().as_bytes());
    key
}

pub(in crate::store) fn invite(id: &InviteId) -> Vec<u8> {
    let mut key = Vec::with_capacity(33);
    key.push(kind::INVITE);
    key.extend_from_slice(id.as_bytes());
    key
}

/// The id in an invite's key.
pub(in crate::store) fn invite_id(key: &[u8]) -> Option<InviteId> {
    Some(InviteId::from_bytes(key.get(1..)?.try_into().ok()?))
}

fn hash(id: &ContentId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, id.as_str().as_bytes()).as_ref());
    hash
}

fn encode_time(time: Timestamp) -> [u8; 8] {
    (time.as_microsecond().cast_unsigned() ^ SIGN).to_be_bytes()
}

fn decode_time(bytes: [u8; 8]) -> Timestamp {
    let microseconds = (u64::from_be_bytes(bytes) ^ SIGN).cast_signed();
    // Times that no `Timestamp` can be are written by nobody; damaged ones are clamped rather than lost.
    Timestamp::from_microsecond(microseconds).unwrap_or(if microseconds < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tenant_id() -> TenantId {
        TenantId::from_bytes([7; 16])
    }

    proptest! {
        #[test]
        fn keys_are_ordered_as_times_are(a in any::<i32>(), b in any::<i32>(), x in "[a-z]{0,4}", y in "[a-z]{0,4}") {
            let time = |at: i32| Timestamp::from_microsecond(i64::from(at) * 1_000_003).unwrap();
            let (one, two) = (Place::of(time(a), &x.as_str().into()), Place::of(time(b), &y.as_str().into()));
            if a != b {
                prop_assert_eq!(a < b, one.key(tenant_id()) < two.key(tenant_id()));
                prop_assert_eq!(a < b, one < two);
            }
            prop_assert_eq!(a == b && x == y, one == two);
            prop_assert_eq!(one.created(), time(a));
            for again in [false, true] {
                let one = one.in_queue(again);
                prop_assert_eq!(Place::from_key(&one.key(tenant_id())), Some((tenant_id(), one)));
                prop_assert!(one.key(tenant_id()) < after_queue(tenant_id(), again));
            }
        }
    }

    #[test]
    fn every_wait_and_watermark_is_read_back() {
        let mut waits = vec![WaitKey::Throttled, WaitKey::Paused, WaitKey::Token, WaitKey::Health];
        waits.extend(ContentType::ALL.map(WaitKey::SubscriptionStart));
        for key in waits {
            assert_eq!(wait_key(&wait(tenant_id(), &key)), Some(key));
        }
        for content_type in ContentType::STORED {
            let key = watermark(tenant_id(), content_type);
            assert_eq!((content_type_of(&key), tenant(&key)), (Some(content_type), Some(tenant_id())));
        }
        let id = InviteId::of(b"secret");
        assert_eq!((invite_id(&invite(&id)), invite_id(b"I")), (Some(id), None));
        assert_eq!(Place::from_key(b"Q"), None);
        assert_eq!(Place::from_key(&watermark(tenant_id(), ContentType::Dlp)), None);
    }
}
