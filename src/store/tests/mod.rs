//! The store as its callers see it: what comes back is what was put in, whatever happens in between.

mod basics;
mod clocks;
mod copies;
mod damage;
mod full;
mod killed;
pub(super) mod model;
mod register;
mod walking;
mod young;

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{BlobWriter, Fetched, IntakeError, Keep, Options, Query, Retained, Store, Stored, TimeBasis};
use crate::clock::{ServiceTime, SetClock};
use crate::content::{ContentBlob, ContentId, ContentType, TenantId, Tier};

pub(super) fn tenant(number: u8) -> TenantId {
    TenantId::from_bytes([number; 16])
}

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(super) fn options(path: &Path) -> Options {
    Options { path: path.to_owned(), partition_bytes: 2 << 30, lock_wait: Duration::from_secs(10), purpose: "test" }
}

pub(super) fn open_at(path: &Path, now: &str) -> Store {
    open_with(&options(path), now)
}

pub(super) fn open_with(options: &Options, now: &str) -> Store {
    Store::open(options, Arc::new(ServiceTime::new(SetClock::new(time(now))))).unwrap()
}

pub(super) fn blob(content_type: ContentType, id: &str, created: &str) -> ContentBlob {
    ContentBlob {
        content_id: ContentId::from(id),
        content_type,
        content_uri: format!("https://manage.office.com/api/v1.0/x/activity/feed/audit/{id}"),
        content_created: time(created),
        content_expiration: time(created) + jiff::SignedDuration::from_hours(7 * 24),
    }
}

pub(super) fn fetched(at: &str) -> Fetched {
    Fetched { at: time(at), from: "https://manage.office.com/x".to_owned(), tier: Tier::Poll }
}

/// A record's id: a GUID that only this number has.
pub(super) fn record_id(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// A body of records with these ids, a second apart.
pub(super) fn body(ids: &[u32]) -> Vec<u8> {
    let mut body = String::from("[");
    for (at, id) in ids.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        let created = time("2026-11-22T08:00:00Z") + jiff::SignedDuration::from_secs(i64::from(*id % 3600));
        write!(
            body,
            "{comma}{{\"CreationTime\":\"{}\",\"Id\":\"{}\",\"Operation\":\"FileAccessed\",\"n\":{id}}}",
            created.strftime("%Y-%m-%dT%H:%M:%S"),
            record_id(*id)
        )
        .unwrap();
    }
    body.push(']');
    body.into_bytes()
}

/// Text that does not compress to less than three quarters.
pub(super) fn noise(length: usize, seed: u64) -> String {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    for byte in &mut bytes {
        *byte = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[usize::from(*byte & 63)];
    }
    String::from_utf8(bytes).unwrap()
}

/// One record that does not compress.
pub(super) fn incompressible(length: usize) -> Vec<u8> {
    format!("[{{\"n\":0,\"filler\":\"{}\"}}]", noise(length, length as u64)).into_bytes()
}

/// Pushes in pieces, and finishes.
pub(super) async fn put(writer: BlobWriter, body: &[u8]) -> Stored {
    try_put(writer, body).await.unwrap()
}

pub(super) async fn try_put(mut writer: BlobWriter, body: &[u8]) -> Result<Stored, IntakeError> {
    for piece in body.chunks(10_000) {
        writer.push(piece).await?;
    }
    writer.finish().await
}

/// The `n` of every record that an export gives, in its order.
pub(super) fn exported(store: &Store, query: &Query) -> Vec<u32> {
    let mut found = Vec::new();
    store
        .for_each_record(query, |record| {
            let value: serde_json::Value = serde_json::from_slice(record.json).unwrap();
            found.push(u32::try_from(value["n"].as_u64().unwrap()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
    found
}

impl Store {
    /// The name of the newest partition.
    pub(super) fn newest_partition(&self) -> String {
        self.holdings().partitions.newest().unwrap().name.to_string()
    }
}

/// A body as it is stored.
pub(super) fn stored_body(store: &Store, tenant: TenantId, content_type: ContentType, seq: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = store.read_blob(tenant, content_type, seq, |part| bytes.extend_from_slice(part)).unwrap().unwrap();
    assert_eq!(header.bytes, bytes.len() as u64);
    bytes
}
