//! What hides the tenants that a partition holds and that were purged since.

use std::sync::Arc;

use super::record::Purges;
use crate::content::TenantId;

/// Over a partition's rows. It is asked for every row, so that who has the partition open when somebody is purged does
/// not see them any more.
#[derive(Debug, Clone, Default)]
pub(crate) struct Veil(Option<(Arc<Purges>, u32)>);

impl Veil {
    /// Over the partition with this ordinal.
    pub(crate) fn over(purges: &Arc<Purges>, ordinal: u32) -> Self {
        Self(Some((Arc::clone(purges), ordinal)))
    }

    /// One that hides nobody: for who is to erase what others do not see.
    pub(crate) const fn lifted() -> Self {
        Self(None)
    }

    /// Whether what stands here of this tenant is not to be seen.
    pub(crate) fn hides(&self, tenant: TenantId) -> bool {
        self.0.as_ref().is_some_and(|(purges, ordinal)| purges.hides(tenant, *ordinal))
    }
}
