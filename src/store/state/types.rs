//! What sensitive information types are called. It can be had again from Microsoft at any time, so that no snapshot holds it.

use super::super::SensitiveTypes;
use super::super::error::StoreError;
use super::writer::Task;
use super::{State, decoded, keys, records};
use crate::content::TenantId;
use crate::language::Language;

/// Bytes that the names of one tenant and language may have: Microsoft's own are some 300, of 40 bytes each.
const MAX_TYPES: usize = 256 << 10;

impl State {
    /// Keeps the names of one tenant in one language, durably.
    pub(in crate::store) async fn keep_sensitive_types(
        &self,
        tenant: TenantId,
        language: &Language,
        types: &SensitiveTypes,
    ) -> Result<(), StoreError> {
        let (key, value) = (keys::types(tenant, language), records::encode_types(types));
        if value.len() > MAX_TYPES {
            let path = self.shared.database().directory().to_owned();
            return Err(StoreError::TooLarge { path, bytes: value.len(), most: MAX_TYPES });
        }
        self.ask(|answer| Task::Put { tenant: Some(tenant), key, value: Some(value), answer }).await
    }

    /// The names of one tenant in one language, if there are any. Blocking.
    pub(in crate::store) fn sensitive_types(
        &self,
        tenant: TenantId,
        language: &Language,
    ) -> Result<Option<SensitiveTypes>, StoreError> {
        let database = self.shared.database();
        let read = database.get(keys::types(tenant, language)).and_then(|value| {
            value
                .map(|value| decoded(&database, "the names of sensitive types", records::decode_types(&value)))
                .transpose()
        });
        if let Err(error @ StoreError::Damaged { .. }) = &read {
            self.writer.report_damage(error.clone());
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::super::StateOptions;
    use super::*;

    fn open(dir: &tempfile::TempDir) -> State {
        State::open(dir.path(), &StateOptions::new(Timestamp::UNIX_EPOCH), &|| Ok(None)).unwrap().0
    }

    fn named(number: u8, name: &str) -> SensitiveTypes {
        SensitiveTypes {
            fetched_at: Timestamp::UNIX_EPOCH,
            names: [(Uuid::from_bytes([number; 16]), name.to_owned())].into(),
        }
    }

    #[tokio::test]
    async fn each_tenant_and_language_has_its_own_and_keeps_them_over_a_restart_until_it_is_purged() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (TenantId::from_bytes([1; 16]), TenantId::from_bytes([2; 16]));
        let (en, de): (Language, Language) = ("en-US".parse().unwrap(), "de".parse().unwrap());
        let state = open(&dir);
        state.keep_sensitive_types(one, &en, &named(1, "old")).await.unwrap();
        state.keep_sensitive_types(one, &en, &named(1, "Passport")).await.unwrap();
        state.keep_sensitive_types(one, &de, &named(1, "Reisepass")).await.unwrap();
        state.keep_sensitive_types(other, &en, &named(2, "Badge")).await.unwrap();
        state.close().await.unwrap();
        drop(state);
        let state = open(&dir);
        assert_eq!(state.sensitive_types(one, &en).unwrap(), Some(named(1, "Passport")));
        assert_eq!(state.sensitive_types(one, &de).unwrap(), Some(named(1, "Reisepass")));
        assert_eq!(state.sensitive_types(other, &de).unwrap(), None);
        state.purge(one).await.unwrap();
        assert_eq!(state.sensitive_types(one, &en).unwrap(), None);
        assert!(!state.knows(one).await.unwrap());
        assert_eq!(state.sensitive_types(other, &en).unwrap(), Some(named(2, "Badge")));
    }

    #[tokio::test]
    async fn what_would_fill_the_state_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (state, tenant) = (open(&dir), TenantId::from_bytes([1; 16]));
        let huge = named(1, &"x".repeat(MAX_TYPES));
        let refused = state.keep_sensitive_types(tenant, &Language::default(), &huge).await;
        assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
        assert_eq!(state.sensitive_types(tenant, &Language::default()).unwrap(), None);
    }
}
