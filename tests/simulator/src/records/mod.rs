//! Audit records, made up after the schema reference of the Management Activity API.
//!
//! A [`Recipe`] is all that is kept of a blob's body: the records follow from it, byte for byte, whenever they are
//! asked for. Each record is a function of its blob's key and its number alone, so a repetition in another blob is the
//! same bytes. People, companies and addresses are invented: names under `.example`, addresses from the
//! documentation ranges.

mod directory;
mod dlp;
mod exchange;
mod general;
mod json;
mod people;
mod sharepoint;

use bytes::Bytes;
use fastrand::Rng;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::shift;
use crate::content_type::ContentType;
use crate::seed::{guid, mix};
pub(crate) use dlp::sensitive_types;
use json::Json;

/// Mean size of a record in bytes, for bodies of a wished size.
pub(crate) const MEAN_BYTES: u64 = 1200;

/// About how many bytes of a body are produced at a time.
const CHUNK: usize = 64 * 1024;

/// The name of the field that makes test builds of a collector fail on purpose.
const FAULT_POINT: &str = "TenantryFaultPoint";

/// What a blob's body is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recipe {
    /// Seed of the blob's records.
    pub key: u64,
    /// The tenant the records belong to.
    pub tenant: Uuid,
    /// Its domain.
    pub domain: String,
    /// What kind of records.
    pub content_type: ContentType,
    /// The blob's `contentCreated`; events happened before it.
    pub created: Timestamp,
    /// Number of records.
    pub records: u32,
    /// Records that depart from the rule, in order of position.
    pub inserts: Vec<Insert>,
    /// A body given as it is, instead of records.
    #[serde(default)]
    pub literal: Option<String>,
}

/// A record that departs from the rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Insert {
    /// Its position in the blob.
    pub at: u32,
    /// The departure.
    pub what: Departure,
}

/// How a record departs from the rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Departure {
    /// It is a record of another blob of the same tenant and type, again.
    Repeats {
        /// The other blob's key.
        key: u64,
        /// The other blob's `contentCreated`.
        created: Timestamp,
        /// The record's position there.
        index: u32,
    },
    /// Its `OrganizationId` is another tenant's.
    Organization(Uuid),
    /// It carries the fault point with this value.
    FaultPoint(String),
}

impl Recipe {
    /// The records' ids in order, repetitions included. Needs no body.
    #[must_use]
    pub fn record_ids(&self) -> Vec<String> {
        match &self.literal {
            Some(text) => literal_ids(text),
            None => (0..self.records).map(|i| self.record_id(i).to_string()).collect(),
        }
    }

    /// The whole body.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in self.chunks(u32::MAX) {
            body.extend_from_slice(&chunk);
        }
        body
    }

    /// The body in pieces of about 64 KiB, with at most `limit` records.
    pub(crate) fn chunks(&self, limit: u32) -> Chunks {
        Chunks { recipe: self.clone(), next: 0, limit: limit.min(self.records), insert: 0, done: false }
    }

    fn record_id(&self, index: u32) -> Uuid {
        match self.inserts.binary_search_by_key(&index, |i| i.at).ok().map(|n| &self.inserts[n].what) {
            Some(Departure::Repeats { key, index, .. }) => guid(*key, u64::from(*index)),
            _ => guid(self.key, u64::from(index)),
        }
    }

    fn write_record(&self, out: &mut Vec<u8>, index: u32, departure: Option<&Departure>) {
        let (key, created, index) = match departure {
            Some(Departure::Repeats { key, created, index }) => (*key, *created, *index),
            _ => (self.key, self.created, index),
        };
        let mut rng = Rng::with_seed(mix(&[key, u64::from(index), 3]));
        let organization = match departure {
            Some(Departure::Organization(other)) => *other,
            _ => self.tenant,
        };
        let happened = happened(created, &mut rng);
        let mut event = Event {
            rng,
            domain: &self.domain,
            tenant: self.tenant,
            organization,
            id: guid(key, u64::from(index)),
            happened,
        };
        let mut json = Json::open(out);
        match self.content_type {
            ContentType::AzureActiveDirectory => directory::write(&mut json, &mut event),
            ContentType::Exchange => exchange::write(&mut json, &mut event),
            ContentType::SharePoint => sharepoint::write(&mut json, &mut event),
            ContentType::General => general::write(&mut json, &mut event),
            ContentType::Dlp => dlp::write(&mut json, &mut event),
        }
        if let Some(Departure::FaultPoint(value)) = departure {
            json.text(FAULT_POINT, value);
        }
        json.close();
    }
}

/// A body in pieces.
#[derive(Debug)]
pub(crate) struct Chunks {
    recipe: Recipe,
    next: u32,
    limit: u32,
    insert: usize,
    done: bool,
}

impl Iterator for Chunks {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        if let Some(literal) = self.recipe.literal.take() {
            self.done = true;
            return Some(Bytes::from(literal));
        }
        let mut out = Vec::with_capacity(CHUNK + 4096);
        while self.next < self.limit && out.len() < CHUNK {
            out.push(if self.next == 0 { b'[' } else { b',' });
            while self.recipe.inserts.get(self.insert).is_some_and(|i| i.at < self.next) {
                self.insert += 1;
            }
            let departure = self.recipe.inserts.get(self.insert).filter(|i| i.at == self.next).map(|i| &i.what);
            self.recipe.write_record(&mut out, self.next, departure);
            self.next += 1;
        }
        if self.next >= self.limit {
            out.extend_from_slice(if self.limit == 0 { b"[]" } else { b"]" });
            self.done = true;
        }
        Some(Bytes::from(out))
    }
}

/// What the writers of records draw from.
pub(crate) struct Event<'a> {
    pub(crate) rng: Rng,
    pub(crate) domain: &'a str,
    pub(crate) tenant: Uuid,
    organization: Uuid,
    id: Uuid,
    happened: Timestamp,
}

/// The fields every record begins with.
pub(crate) struct Common<'a> {
    pub(crate) operation: &'a str,
    pub(crate) record_type: i64,
    pub(crate) workload: &'a str,
    pub(crate) user: &'a str,
    pub(crate) user_key: &'a str,
    pub(crate) user_type: i64,
    pub(crate) result: Option<&'a str>,
    pub(crate) object: Option<&'a str>,
    pub(crate) client_ip: Option<&'a str>,
}

impl Event<'_> {
    /// Writes the common schema's fields.
    pub(crate) fn common(&self, json: &mut Json<'_>, common: &Common<'_>) {
        json.text("CreationTime", &self.happened.strftime("%Y-%m-%dT%H:%M:%S").to_string());
        json.guid("Id", self.id);
        json.text("Operation", common.operation);
        json.guid("OrganizationId", self.organization);
        json.number("RecordType", common.record_type);
        if let Some(result) = common.result {
            json.text("ResultStatus", result);
        }
        json.text("UserKey", common.user_key);
        json.number("UserType", common.user_type);
        json.number("Version", 1);
        json.text("Workload", common.workload);
        if let Some(ip) = common.client_ip {
            json.text("ClientIP", ip);
        }
        if let Some(object) = common.object {
            json.text("ObjectId", object);
        }
        json.text("UserId", common.user);
    }

    /// Another GUID of this event.
    pub(crate) fn guid(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.rng.u128(..).to_be_bytes()).into_uuid()
    }

    /// A GUID that other events of the tenant have too: an application's, a mailbox's, a site's.
    pub(crate) fn known(&mut self) -> Uuid {
        guid(self.tenant.as_u64_pair().1, self.rng.u64(..24))
    }

    /// Base64-like characters that ids of the tenant have in common.
    pub(crate) fn prefix(&self, characters: usize) -> String {
        let mut rng = Rng::with_seed(self.tenant.as_u64_pair().1);
        (0..characters).map(|_| rng.alphanumeric()).collect()
    }

    /// One of `choices`.
    pub(crate) fn one<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())]
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn percent(&mut self, percent: u32) -> bool {
        self.rng.u32(..100) < percent
    }

    /// So many hexadecimal digits, upper case.
    pub(crate) fn hex(&mut self, digits: usize) -> String {
        (0..digits).map(|_| char::from(b"0123456789ABCDEF"[self.rng.usize(..16)])).collect()
    }

    /// So many base64-like characters.
    pub(crate) fn opaque(&mut self, characters: usize) -> String {
        (0..characters).map(|_| self.rng.alphanumeric()).collect()
    }

    /// When the event happened.
    pub(crate) fn happened(&self) -> Timestamp {
        self.happened
    }
}

/// Most events become available within 90 minutes, some after hours, a few after days ("Troubleshooting the Office 365
/// Management Activity API").
fn happened(created: Timestamp, rng: &mut Rng) -> Timestamp {
    let seconds = match rng.u32(..100) {
        0..=84 => rng.i64(60..5_400),
        85..=97 => rng.i64(5_400..86_400),
        _ => rng.i64(86_400..4 * 86_400),
    };
    shift(created, -seconds * 1000)
}

fn literal_ids(text: &str) -> Vec<String> {
    let records: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    records.iter().filter_map(|r| r["Id"].as_str()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn recipe(content_type: ContentType, records: u32) -> Recipe {
        Recipe {
            key: 99,
            tenant: Uuid::from_u128(5),
            domain: "contoso.example".to_owned(),
            content_type,
            created: "2026-11-22T10:00:00Z".parse().unwrap(),
            records,
            inserts: Vec::new(),
            literal: None,
        }
    }

    #[test]
    fn bodies_are_json_arrays_with_the_announced_ids() {
        for content_type in ContentType::ALL {
            let recipe = recipe(content_type, 2000);
            let body = recipe.body();
            assert_eq!(body, recipe.body());
            let records: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
            let ids: Vec<String> = records.iter().map(|r| r["Id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(ids, recipe.record_ids());
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 2000);
            for record in &records {
                assert_eq!(record["OrganizationId"], recipe.tenant.to_string());
                assert_eq!(record["CreationTime"].as_str().unwrap().len(), "2026-11-22T10:00:00".len());
            }
            let operations: HashSet<&str> = records.iter().map(|r| r["Operation"].as_str().unwrap()).collect();
            assert!(operations.len() >= 4, "{content_type}: {operations:?}");
        }
    }

    #[test]
    fn records_are_about_as_big_as_real_ones() {
        let mut total = 0;
        for content_type in ContentType::ALL {
            let mut sizes: Vec<usize> = Vec::new();
            let recipe = recipe(content_type, 4000);
            for i in 0..recipe.records {
                let mut out = Vec::new();
                recipe.write_record(&mut out, i, None);
                sizes.push(out.len());
            }
            sizes.sort_unstable();
            total += sizes.iter().sum::<usize>();
            let (p5, p95) = (sizes[200], sizes[3800]);
            assert!(p5 >= 550 && p95 <= 2600, "{content_type}: p5 {p5}, p95 {p95}");
        }
        let mean = total / (5 * 4000);
        assert!((1000..1400).contains(&mean), "mean {mean}");
    }

    #[test]
    fn departures_change_one_record_only() {
        let plain = recipe(ContentType::SharePoint, 5);
        let other = Recipe { key: 100, ..recipe(ContentType::SharePoint, 5) };
        let mut odd = plain.clone();
        odd.inserts = vec![
            Insert { at: 1, what: Departure::Repeats { key: other.key, created: other.created, index: 3 } },
            Insert { at: 2, what: Departure::Organization(Uuid::from_u128(66)) },
            Insert { at: 4, what: Departure::FaultPoint("panic".to_owned()) },
        ];
        let read = |r: &Recipe| serde_json::from_slice::<Vec<serde_json::Value>>(&r.body()).unwrap();
        let (plain_records, other_records, records) = (read(&plain), read(&other), read(&odd));
        assert_eq!(records[0], plain_records[0]);
        assert_eq!(records[1], other_records[3]);
        assert_eq!(odd.record_ids()[1], other.record_ids()[3]);
        assert_eq!(records[2]["OrganizationId"], Uuid::from_u128(66).to_string());
        assert_eq!(records[2]["Id"], plain_records[2]["Id"]);
        assert_eq!(records[4]["TenantryFaultPoint"], "panic");
    }

    #[test]
    fn a_limit_gives_the_first_records() {
        let recipe = recipe(ContentType::Exchange, 300);
        let part: Vec<u8> = recipe.chunks(7).flat_map(|c| c.to_vec()).collect();
        let records: Vec<serde_json::Value> = serde_json::from_slice(&part).unwrap();
        assert_eq!(records.len(), 7);
        assert_eq!(recipe.chunks(0).flat_map(|c| c.to_vec()).collect::<Vec<u8>>(), b"[]");
    }
}
