//! The hash under which something is looked up.

use std::fmt;
use std::hash::Hasher;
use std::num::NonZeroU64;

use siphasher::sip::SipHasher13;

use crate::content::{ContentId, TenantId};
use crate::store::ids::RecordId;

/// What is hashed, so that a record and a blob of the same name are two things.
const RECORD: u8 = 1;
const CONTENT: u8 = 2;
const FINGERPRINT: u8 = 3;

/// The hash of a record's or a blob's name in a tenant; never zero.
pub(crate) type SeenHash = NonZeroU64;

/// The store's key: sixteen random bytes, made once. Without it nobody can choose names whose hashes collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenKey([u8; 16]);

impl SeenKey {
    /// The key with these bytes.
    pub(crate) const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Under what a record is looked up.
    pub(crate) fn record(&self, tenant: TenantId, id: &RecordId) -> SeenHash {
        let (tag, bytes) = id.tagged();
        self.hash(&[RECORD, tag], tenant, bytes)
    }

    /// Under what a content blob is looked up.
    pub(crate) fn content(&self, tenant: TenantId, id: &ContentId) -> SeenHash {
        self.hash(&[CONTENT], tenant, id.as_str().as_bytes())
    }

    /// Tells keys apart without telling anything about them: files made with another key answer nothing.
    pub(super) fn fingerprint(&self) -> u64 {
        self.hash(&[FINGERPRINT], TenantId::from_bytes([0; 16]), b"seen").get()
    }

    fn hash(&self, what: &[u8], tenant: TenantId, name: &[u8]) -> SeenHash {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(what);
        hasher.write(tenant.as_bytes());
        hasher.write(name);
        NonZeroU64::new(hasher.finish()).unwrap_or(NonZeroU64::MIN)
    }
}

impl fmt::Debug for SeenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SeenKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenant_kind_name_and_key_all_matter() {
        let (key, other) = (SeenKey::new([1; 16]), SeenKey::new([2; 16]));
        let (a, b) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let mut hashes = vec![
            key.record(a, &RecordId::new("x")),
            key.record(a, &RecordId::new("y")),
            key.record(b, &RecordId::new("x")),
            other.record(a, &RecordId::new("x")),
            key.content(a, &"x".into()),
            key.record(a, &RecordId::Text("0000000000000000".into())),
            key.record(a, &RecordId::Guid(*b"0000000000000000")),
        ];
        let count = hashes.len();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), count);
        assert_ne!(key.fingerprint(), other.fingerprint());
        assert_eq!(format!("{key:?}"), "SeenKey");
    }
}
