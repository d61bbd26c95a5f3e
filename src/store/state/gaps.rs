//! The gaps of listing, as they are written: all of a content type in one value, since they are few.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::super::error::StoreError;
use super::super::{Filled, Gap, Gaps, Why};
use super::keys::{self, kind};
use super::records::{self, Time, Undecodable};
use super::{State, decoded};
use crate::content::{ContentType, TenantId, Tier};

#[derive(Serialize, Deserialize)]
struct GapV1 {
    from: Time,
    to: Time,
    why: u8,
    cause: String,
    /// When, and the tier's code.
    filled: Option<(Time, u8)>,
    lost: bool,
}

fn encode(gaps: &Gaps) -> Vec<u8> {
    let written = |gap: &Gap| {
        // There are five.
        let why = Why::ALL.iter().position(|why| *why == gap.why).and_then(|at| u8::try_from(at).ok());
        GapV1 {
            from: gap.from.into(),
            to: gap.to.into(),
            why: why.unwrap_or(u8::MAX),
            cause: gap.cause.clone(),
            filled: gap.filled.map(|filled| (filled.at.into(), filled.by as u8)),
            lost: gap.lost,
        }
    };
    records::encode(1, &gaps.list().iter().map(written).collect::<Vec<_>>())
}

fn decode(value: &[u8]) -> Result<Gaps, Undecodable> {
    let read = |gap: GapV1| {
        let filled = gap.filled.map(|(at, tier)| {
            let by = Tier::from_code(tier).ok_or_else(|| Undecodable(format!("no tier has the code {tier}")))?;
            Ok(Filled { at: at.get()?, by })
        });
        Ok(Gap {
            from: gap.from.get()?,
            to: gap.to.get()?,
            why: Why::ALL.get(usize::from(gap.why)).copied().unwrap_or(Why::Unknown),
            cause: gap.cause,
            filled: filled.transpose()?,
            lost: gap.lost,
            goes_on: false,
        })
    };
    records::decode::<Vec<GapV1>>(1, value)?.into_iter().map(read).collect()
}

impl State {
    /// The gaps of a tenant.
    pub(in crate::store) async fn gaps(&self, tenant: TenantId) -> Result<BTreeMap<ContentType, Gaps>, StoreError> {
        self.read(move |shared| {
            let database = shared.database();
            let mut gaps = BTreeMap::new();
            for row in database.scan_prefix(keys::head(kind::GAPS, tenant))? {
                let (key, value) = row?;
                if let Some(content_type) = keys::content_type_of(&key) {
                    gaps.insert(content_type, decoded(&database, "the gaps of listing", decode(&value))?);
                }
            }
            Ok(gaps)
        })
        .await
    }

    /// Keeps them, durably.
    pub(in crate::store) async fn put_gaps(
        &self,
        tenant: TenantId,
        content_type: ContentType,
        gaps: &Gaps,
    ) -> Result<(), StoreError> {
        self.register(Some(tenant), keys::gaps(tenant, content_type), Some(encode(gaps))).await
    }

    /// The tenants of which anything was ever listed, or a gap is known.
    pub(in crate::store) async fn listed_tenants(&self) -> Result<BTreeSet<TenantId>, StoreError> {
        self.read(|shared| {
            let database = shared.database();
            let mut tenants: BTreeSet<TenantId> = shared.loose().listed_tenants().collect();
            for row in database.scan_prefix([kind::WATERMARK])?.chain(database.scan_prefix([kind::GAPS])?) {
                tenants.extend(keys::tenant(&row?.0));
            }
            Ok(tenants)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let at = |hour: i64| jiff::Timestamp::from_second(1_790_000_000 + hour * 3600).unwrap();
        let mut gaps = Gaps::default();
        for (hour, why) in (0..).zip(Why::ALL) {
            gaps.note(Gap::new(at(10 * hour), at(10 * hour + 2), why, "a cause"));
        }
        gaps.swept(at(0), at(25));
        gaps.note(Gap { lost: true, ..Gap::new(at(-10), at(-5), Why::Trouble, "") });
        assert_eq!(decode(&encode(&gaps)).unwrap(), gaps);
        assert!(decode(&[9]).is_err() && decode(&encode(&gaps)[..20]).is_err());
    }
}
