//! Content blobs: what a tenant's content of one type is made of, and how to ask for one.

use std::time::Duration;

use aws_lc_rs::digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::content_type::ContentType;
use crate::records::Recipe;

/// A blob the cloud has offered or is going to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Blob {
    /// Its number in this cloud, counted from 0; the index in [`crate::Ledger::blobs`].
    pub number: u64,
    /// Whose content it is.
    pub tenant: Uuid,
    /// Its type.
    pub content_type: ContentType,
    /// `contentId`.
    pub content_id: String,
    /// `contentCreated`.
    pub content_created: Timestamp,
    /// `contentExpiration`; afterwards AF20051.
    pub content_expiration: Timestamp,
    /// From when on listings name it.
    pub visible_from: Timestamp,
    /// Until when a fetch gives fewer records.
    pub partial_until: Option<Timestamp>,
    /// It stands for the time from here to its `contentCreated`: a listing whose window cuts that names a part of it
    /// instead, a blob of its own.
    #[serde(default)]
    pub range_from: Option<Timestamp>,
    /// The blob that this is a part of; its records are all in that one.
    #[serde(default)]
    pub part_of: Option<u64>,
    /// Whether no listing may ever name it, because its subscription was stopped when it was created.
    pub withheld: bool,
    /// How often a listing has named it.
    pub listed: u32,
    /// How often its whole, undamaged body has been sent to the end.
    pub fetched: u32,
    /// What its body is made from.
    pub recipe: Recipe,
}

impl Blob {
    /// The whole body, made again.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.recipe.body()
    }

    /// Lower-case hexadecimal SHA-256 of the whole body, made again.
    #[must_use]
    pub fn sha256(&self) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        for chunk in self.recipe.chunks(u32::MAX) {
            context.update(&chunk);
        }
        hex(context.finish().as_ref())
    }

    /// The ids of its records in order, repetitions included.
    #[must_use]
    pub fn record_ids(&self) -> Vec<String> {
        self.recipe.record_ids()
    }
}

/// Blobs to add to a running cloud.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobSpec {
    /// Whose content.
    pub tenant: Uuid,
    /// Which type.
    pub content_type: ContentType,
    /// How many blobs.
    #[serde(default = "one")]
    pub count: u32,
    /// Records of each.
    #[serde(default = "ten")]
    pub records: u32,
    /// Body size to aim at, in bytes of JSON, instead of `records`. Such a body is made while it is sent.
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// How long ago `contentCreated` is, in milliseconds.
    #[serde(default)]
    pub created_ago_ms: i64,
    /// Milliseconds between the `contentCreated` of one blob and the next, forwards.
    #[serde(default)]
    pub apart_ms: i64,
    /// In how many milliseconds from now listings name them. Late blobs have a `created_ago_ms` as well.
    #[serde(default)]
    pub visible_in_ms: i64,
    /// In how many milliseconds from now they expire; `None`: seven days after `contentCreated`.
    #[serde(default)]
    pub expires_in_ms: Option<i64>,
    /// For how many milliseconds from now a fetch gives fewer records.
    #[serde(default)]
    pub partial_for_ms: Option<i64>,
    /// Numbers of blobs of the same tenant and type whose first record each of the new blobs repeats.
    #[serde(default)]
    pub repeats: Vec<u64>,
    /// The `OrganizationId` of one record of each blob.
    #[serde(default)]
    pub foreign_organization: Option<Uuid>,
    /// The value of the fault point carried by one record of each blob.
    #[serde(default)]
    pub fault_point: Option<String>,
    /// The body as it is, instead of records.
    #[serde(default)]
    pub body: Option<String>,
}

impl BlobSpec {
    /// One blob of ten records, created now and listed at once.
    #[must_use]
    pub fn new(tenant: Uuid, content_type: ContentType) -> Self {
        Self {
            tenant,
            content_type,
            count: 1,
            records: 10,
            body_bytes: None,
            created_ago_ms: 0,
            apart_ms: 0,
            visible_in_ms: 0,
            expires_in_ms: None,
            partial_for_ms: None,
            repeats: Vec::new(),
            foreign_organization: None,
            fault_point: None,
            body: None,
        }
    }

    /// Sets how many blobs.
    #[must_use]
    pub fn count(mut self, blobs: u32) -> Self {
        self.count = blobs;
        self
    }

    /// Sets the records of each.
    #[must_use]
    pub fn records(mut self, records: u32) -> Self {
        self.records = records;
        self
    }

    /// Sets the body size to aim at.
    #[must_use]
    pub fn body_bytes(mut self, bytes: u64) -> Self {
        self.body_bytes = Some(bytes);
        self
    }

    /// Puts `contentCreated` in the past.
    #[must_use]
    pub fn created_ago(mut self, ago: Duration) -> Self {
        self.created_ago_ms = millis(ago);
        self
    }

    /// Sets the time between the `contentCreated` of one blob and the next.
    #[must_use]
    pub fn apart(mut self, step: Duration) -> Self {
        self.apart_ms = millis(step);
        self
    }

    /// Lists them only later.
    #[must_use]
    pub fn visible_in(mut self, delay: Duration) -> Self {
        self.visible_in_ms = millis(delay);
        self
    }

    /// Lets them expire.
    #[must_use]
    pub fn expires_in(mut self, delay: Duration) -> Self {
        self.expires_in_ms = Some(millis(delay));
        self
    }

    /// Gives fewer records for a while.
    #[must_use]
    pub fn partial_for(mut self, time: Duration) -> Self {
        self.partial_for_ms = Some(millis(time));
        self
    }

    /// Repeats the first record of these blobs.
    #[must_use]
    pub fn repeats(mut self, blobs: impl IntoIterator<Item = u64>) -> Self {
        self.repeats.extend(blobs);
        self
    }

    /// One record is of another organization.
    #[must_use]
    pub fn foreign_organization(mut self, organization: Uuid) -> Self {
        self.foreign_organization = Some(organization);
        self
    }

    /// One record carries the fault point.
    #[must_use]
    pub fn fault_point(mut self, value: &str) -> Self {
        self.fault_point = Some(value.to_owned());
        self
    }

    /// Sets the body as it is.
    #[must_use]
    pub fn body(mut self, json: &str) -> Self {
        self.body = Some(json.to_owned());
        self
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn one() -> u32 {
    1
}

fn ten() -> u32 {
    10
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(u32::from(n), 16)).collect()
}
