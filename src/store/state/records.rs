//! The values of the state, as they are written: a version byte, then postcard.
//!
//! They are types of their own, not the domain's: a field added to [`QueueEntry`] must not change what is on disk
//! without anybody noticing. A version that this program does not know is an error, never a guess.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::{Enrolled, Enrolment, Invite, InviteStage, QueueEntry, SensitiveTypes, Wait, Watermark};
use super::DeadLetter;
use super::keys::{self, kind};
use crate::content::{ContentBlob, ContentType, TenantId, Tier};

/// An error's text is kept for the operator, not as evidence: that much of it.
const MAX_ERROR: usize = 2_000;

/// A time, in nanoseconds since 1970.
#[derive(Serialize, Deserialize)]
pub(in crate::store) struct Time(i128);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time.as_nanosecond())
    }
}

impl Time {
    pub(in crate::store) fn get(&self) -> Result<Timestamp, Undecodable> {
        Timestamp::from_nanosecond(self.0).map_err(|error| Undecodable(error.to_string()))
    }
}

fn times(time: Option<&Time>) -> Result<Option<Timestamp>, Undecodable> {
    time.map(Time::get).transpose()
}

/// Why a value cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::store) struct Undecodable(pub(in crate::store) String);

#[derive(Serialize, Deserialize)]
pub(in crate::store) struct EntryV1 {
    content_id: String,
    content_type: u8,
    content_uri: String,
    created: Time,
    expiration: Time,
    tier: u8,
    queued_at: Time,
    attempts: u32,
    panics: u32,
    malformed: u32,
    not_before: Option<Time>,
    last_error: Option<String>,
}

impl From<&QueueEntry> for EntryV1 {
    fn from(entry: &QueueEntry) -> Self {
        Self {
            content_id: entry.blob.content_id.as_str().to_owned(),
            content_type: entry.blob.content_type.code(),
            content_uri: entry.blob.content_uri.clone(),
            created: entry.blob.content_created.into(),
            expiration: entry.blob.content_expiration.into(),
            tier: entry.tier as u8,
            queued_at: entry.queued_at.into(),
            attempts: entry.attempts,
            panics: entry.panics,
            malformed: entry.malformed,
            not_before: entry.not_before.map(Into::into),
            last_error: entry.last_error.as_deref().map(|text| shortened(text, MAX_ERROR).to_owned()),
        }
    }
}

impl EntryV1 {
    /// Which queue it is in, its key says.
    pub(in crate::store) fn entry(&self) -> Result<QueueEntry, Undecodable> {
        let content_type = content_type(self.content_type)?;
        let tier =
            Tier::from_code(self.tier).ok_or_else(|| Undecodable(format!("no tier has the code {}", self.tier)))?;
        Ok(QueueEntry {
            blob: ContentBlob {
                content_id: self.content_id.as_str().into(),
                content_type,
                content_uri: self.content_uri.clone(),
                content_created: self.created.get()?,
                content_expiration: self.expiration.get()?,
            },
            tier,
            queued_at: self.queued_at.get()?,
            attempts: self.attempts,
            panics: self.panics,
            malformed: self.malformed,
            not_before: times(self.not_before.as_ref())?,
            last_error: self.last_error.clone(),
            again: false,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct WatermarkV1 {
    listed_to: Option<Time>,
    recent_at: Option<Time>,
    sweep_at: Option<Time>,
}

#[derive(Serialize, Deserialize)]
pub(in crate::store) struct LetterV1 {
    entry: EntryV1,
    reason: String,
    at: Time,
}

impl From<&DeadLetter> for LetterV1 {
    fn from(letter: &DeadLetter) -> Self {
        let reason = shortened(&letter.reason, MAX_ERROR).to_owned();
        Self { entry: (&letter.entry).into(), reason, at: letter.at.into() }
    }
}

impl LetterV1 {
    pub(in crate::store) fn letter(&self) -> Result<DeadLetter, Undecodable> {
        Ok(DeadLetter { entry: self.entry.entry()?, reason: self.reason.clone(), at: self.at.get()? })
    }
}

pub(in crate::store) fn encode_entry(entry: &QueueEntry) -> Vec<u8> {
    encode(1, &EntryV1::from(entry))
}

pub(in crate::store) fn decode_entry(value: &[u8]) -> Result<QueueEntry, Undecodable> {
    decode::<EntryV1>(1, value)?.entry()
}

pub(in crate::store) fn encode_watermark(watermark: &Watermark) -> Vec<u8> {
    let time = |time: Option<Timestamp>| time.map(Time::from);
    encode(
        1,
        &WatermarkV1 {
            listed_to: time(watermark.listed_to),
            recent_at: time(watermark.recent_at),
            sweep_at: time(watermark.sweep_at),
        },
    )
}

pub(in crate::store) fn decode_watermark(value: &[u8]) -> Result<Watermark, Undecodable> {
    let file: WatermarkV1 = decode(1, value)?;
    Ok(Watermark {
        listed_to: times(file.listed_to.as_ref())?,
        recent_at: times(file.recent_at.as_ref())?,
        sweep_at: times(file.sweep_at.as_ref())?,
    })
}

/// How long a wait is at most of which version 1 does not say when it was written.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// When it was written, and until when it lasts. Version 1 has the latter only.
#[derive(Serialize, Deserialize)]
struct WaitV2(Time, Time);

pub(in crate::store) fn encode_wait(wait: Wait) -> Vec<u8> {
    encode(2, &WaitV2(wait.from.into(), wait.until.into()))
}

pub(in crate::store) fn decode_wait(value: &[u8]) -> Result<Wait, Undecodable> {
    if value.first() == Some(&1) {
        let until = decode::<Time>(1, value)?.get()?;
        return Ok(Wait { from: until.checked_sub(LONGEST_WAIT).unwrap_or(Timestamp::MIN), until });
    }
    let WaitV2(from, until) = decode(2, value)?;
    Ok(Wait { from: from.get()?, until: until.get()? })
}

pub(in crate::store) fn encode_letter(letter: &DeadLetter) -> Vec<u8> {
    encode(1, &LetterV1::from(letter))
}

pub(in crate::store) fn decode_letter(value: &[u8]) -> Result<DeadLetter, Undecodable> {
    decode::<LetterV1>(1, value)?.letter()
}

/// The tenant's id is its key's.
#[derive(Serialize, Deserialize)]
struct EnrolmentV1 {
    name: String,
    cloud: String,
    app: String,
    content_types: Vec<u8>,
    how: u8,
    at: Time,
}

pub(in crate::store) fn encode_enrolment(enrolment: &Enrolment) -> Vec<u8> {
    let Enrolment { tenant: _, name, cloud, app, content_types, how, at } = enrolment;
    encode(
        1,
        &EnrolmentV1 {
            name: name.clone(),
            cloud: cloud.clone(),
            app: app.clone(),
            content_types: codes(content_types),
            how: how.code(),
            at: (*at).into(),
        },
    )
}

pub(in crate::store) fn decode_enrolment(key: &[u8], value: &[u8]) -> Result<Enrolment, Undecodable> {
    let file: EnrolmentV1 = decode(1, value)?;
    Ok(Enrolment {
        tenant: keys::tenant(key).ok_or_else(|| Undecodable("its key names no tenant".to_owned()))?,
        name: file.name,
        cloud: file.cloud,
        app: file.app,
        content_types: types(&file.content_types)?,
        how: Enrolled::from_code(file.how)
            .ok_or_else(|| Undecodable(format!("no way to be enrolled has the code {}", file.how)))?,
        at: file.at.get()?,
    })
}

pub(in crate::store) fn encode_held(since: Timestamp) -> Vec<u8> {
    encode(1, &Time::from(since))
}

pub(in crate::store) fn decode_held(value: &[u8]) -> Result<Timestamp, Undecodable> {
    decode::<Time>(1, value)?.get()
}

/// When they were fetched, and the name of each id. The tenant and the language are the key's.
#[derive(Serialize, Deserialize)]
struct TypesV1(Time, Vec<([u8; 16], String)>);

pub(in crate::store) fn encode_types(types: &SensitiveTypes) -> Vec<u8> {
    let names = types.names.iter().map(|(id, name)| (*id.as_bytes(), name.clone())).collect();
    encode(1, &TypesV1(types.fetched_at.into(), names))
}

pub(in crate::store) fn decode_types(value: &[u8]) -> Result<SensitiveTypes, Undecodable> {
    let TypesV1(fetched_at, names) = decode(1, value)?;
    let names = names.into_iter().map(|(id, name)| (Uuid::from_bytes(id), name)).collect();
    Ok(SensitiveTypes { fetched_at: fetched_at.get()?, names })
}

/// The invite's id is its key's.
#[derive(Serialize, Deserialize)]
struct InviteV1 {
    name: String,
    tenant: Option<[u8; 16]>,
    cloud: String,
    app: String,
    content_types: Vec<u8>,
    made: Time,
    expires: Time,
    stage: StageV1,
}

/// How far it has come, who it is about, since when. The order of the variants is part of the format.
#[derive(Serialize, Deserialize)]
enum StageV1 {
    Open,
    Proving([u8; 16], Time),
    Done([u8; 16], Time),
}

pub(in crate::store) fn encode_invite(invite: &Invite) -> Vec<u8> {
    let Invite { id: _, name, tenant, cloud, app, content_types, made, expires, stage } = invite;
    encode(
        1,
        &InviteV1 {
            name: name.clone(),
            tenant: tenant.map(|tenant| *tenant.as_bytes()),
            cloud: cloud.clone(),
            app: app.clone(),
            content_types: codes(content_types),
            made: (*made).into(),
            expires: (*expires).into(),
            stage: match *stage {
                InviteStage::Open => StageV1::Open,
                InviteStage::Proving { tenant, since } => StageV1::Proving(*tenant.as_bytes(), since.into()),
                InviteStage::Done { tenant, at } => StageV1::Done(*tenant.as_bytes(), at.into()),
            },
        },
    )
}

pub(in crate::store) fn decode_invite(key: &[u8], value: &[u8]) -> Result<Invite, Undecodable> {
    let file: InviteV1 = decode(1, value)?;
    Ok(Invite {
        id: keys::invite_id(key).ok_or_else(|| Undecodable("its key is no invite's".to_owned()))?,
        name: file.name,
        tenant: file.tenant.map(TenantId::from_bytes),
        cloud: file.cloud,
        app: file.app,
        content_types: types(&file.content_types)?,
        made: file.made.get()?,
        expires: file.expires.get()?,
        stage: match file.stage {
            StageV1::Open => InviteStage::Open,
            StageV1::Proving(tenant, since) => {
                InviteStage::Proving { tenant: TenantId::from_bytes(tenant), since: since.get()? }
            }
            StageV1::Done(tenant, at) => InviteStage::Done { tenant: TenantId::from_bytes(tenant), at: at.get()? },
        },
    })
}

/// Whose a row is, if it is one of theirs: an invite is whoever's it is for and whoever has followed it.
pub(in crate::store) fn owner(key: &[u8], value: &[u8], is_theirs: impl Fn(TenantId) -> bool) -> Option<TenantId> {
    if key.first() != Some(&kind::INVITE) {
        return keys::tenant(key).filter(|tenant| is_theirs(*tenant));
    }
    let invite = decode_invite(key, value).ok()?;
    let follower = match invite.stage {
        InviteStage::Open => None,
        InviteStage::Proving { tenant, .. } | InviteStage::Done { tenant, .. } => Some(tenant),
    };
    invite.tenant.into_iter().chain(follower).find(|tenant| is_theirs(*tenant))
}

fn codes(content_types: &BTreeSet<ContentType>) -> Vec<u8> {
    content_types.iter().map(|content_type| content_type.code()).collect()
}

fn types(codes: &[u8]) -> Result<BTreeSet<ContentType>, Undecodable> {
    codes.iter().copied().map(content_type).collect()
}

fn content_type(code: u8) -> Result<ContentType, Undecodable> {
    ContentType::from_code(code).ok_or_else(|| Undecodable(format!("no content type has the code {code}")))
}

/// A version byte and postcard.
pub(in crate::store) fn encode<T: Serialize>(version: u8, value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![version]).expect("these types have no maps and no lengths unknown beforehand")
}

/// Undoes [`encode`], and insists on the version and on nothing being left over.
pub(in crate::store) fn decode<T: DeserializeOwned>(version: u8, value: &[u8]) -> Result<T, Undecodable> {
    match value.split_first() {
        Some((found, rest)) if *found == version => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(Undecodable(format!("{} bytes too many", rest.len()))),
            Err(error) => Err(Undecodable(error.to_string())),
        },
        Some((found, _)) => Err(Undecodable(format!("version {found} is not known"))),
        None => Err(Undecodable("it is empty".to_owned())),
    }
}

/// The beginning of a text, at most `most` bytes of it.
fn shortened(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::InviteId;

    fn entry() -> QueueEntry {
        QueueEntry {
            blob: ContentBlob {
                content_id: "20261122$audit_exchange$1".into(),
                content_type: ContentType::Exchange,
                content_uri: "https://manage.office.com/api/v1.0/t/activity/feed/audit/20261122$1".to_owned(),
                content_created: "2026-11-22T10:00:00.123Z".parse().unwrap(),
                content_expiration: "2026-11-29T10:00:00.123Z".parse().unwrap(),
            },
            tier: Tier::Sweep,
            queued_at: "2026-11-22T10:01:00.000000001Z".parse().unwrap(),
            attempts: 3,
            panics: 1,
            malformed: 2,
            not_before: Some("2026-11-22T11:00:00Z".parse().unwrap()),
            last_error: Some("the answer ended early".to_owned()),
            again: false,
        }
    }

    #[test]
    fn values_are_read_back_as_they_were_written() {
        let entry = entry();
        assert_eq!(decode_entry(&encode_entry(&entry)).unwrap(), entry);
        let letter = DeadLetter { entry: entry.clone(), reason: "expired".to_owned(), at: entry.queued_at };
        assert_eq!(decode_letter(&encode_letter(&letter)).unwrap(), letter);
        for watermark in
            [Watermark::default(), Watermark { listed_to: Some(entry.queued_at), recent_at: None, sweep_at: None }]
        {
            assert_eq!(decode_watermark(&encode_watermark(&watermark)).unwrap(), watermark);
        }
        let wait = Wait { from: entry.queued_at, until: Timestamp::MAX };
        assert_eq!(decode_wait(&encode_wait(wait)).unwrap(), wait);
        let before = encode(1, &Time::from(entry.queued_at));
        let day = jiff::SignedDuration::from_hours(24);
        let wait = Wait { from: entry.queued_at - day, until: entry.queued_at };
        assert_eq!(decode_wait(&before).unwrap(), wait, "as version 1 has it");
    }

    #[test]
    fn the_names_of_types_are_read_back_and_another_version_is_no_guess() {
        let of = |number: u8, name: &str| (Uuid::from_bytes([number; 16]), name.to_owned());
        let names = [of(7, "Credit Card Number"), of(8, "Número de tarjeta «ñ»")].into();
        let types = SensitiveTypes { fetched_at: entry().queued_at, names };
        let value = encode_types(&types);
        assert_eq!(decode_types(&value).unwrap(), types);
        assert_eq!(decode_types(&[&[2], &value[1..]].concat()).unwrap_err().to_string(), "version 2 is not known");
    }

    #[test]
    fn enrolments_and_invites_are_read_back_with_what_their_keys_say() {
        let (tenant, at) = (TenantId::from_bytes([7; 16]), entry().queued_at);
        for how in [Enrolled::Consent, Enrolled::Command] {
            let (name, cloud, app) = ("Contoso".to_owned(), "worldwide".to_owned(), String::new());
            let enrolment = Enrolment { tenant, name, cloud, app, content_types: ContentType::ALL.into(), how, at };
            let key = keys::head(keys::kind::ENROLMENT, tenant);
            let value = encode_enrolment(&enrolment);
            assert_eq!(decode_enrolment(&key, &value).unwrap(), enrolment);
            assert!(decode_enrolment(&key, &value[..value.len() - 1]).is_err());
            assert_eq!(decode_enrolment(b"E", &value).unwrap_err().to_string(), "its key names no tenant");
        }
        assert_eq!(decode_held(&encode_held(at)).unwrap(), at);
        for (pinned, stage) in [
            (None, InviteStage::Open),
            (Some(tenant), InviteStage::Proving { tenant, since: at }),
            (None, InviteStage::Done { tenant, at }),
        ] {
            let invite = Invite {
                id: InviteId::of(b"secret"),
                name: "Contoso".to_owned(),
                tenant: pinned,
                cloud: "gcc".to_owned(),
                app: "government".to_owned(),
                content_types: ContentType::AUDIT.into(),
                made: at,
                expires: Timestamp::MAX,
                stage,
            };
            let value = encode_invite(&invite);
            assert_eq!(decode_invite(&keys::invite(&invite.id), &value).unwrap(), invite);
            assert!(decode_invite(b"I", &value).is_err());
        }
    }

    /// What is on disk stays readable: these bytes were written by version 1 of each.
    #[test]
    fn the_bytes_of_enrolments_and_invites_do_not_change() {
        let (tenant, at) = (TenantId::from_bytes([7; 16]), entry().queued_at);
        let enrolment = Enrolment {
            tenant,
            name: "Contoso".to_owned(),
            cloud: "worldwide".to_owned(),
            app: "mssp".to_owned(),
            content_types: ContentType::AUDIT.into(),
            how: Enrolled::Command,
            at,
        };
        assert_eq!(encode_enrolment(&enrolment), ENROLMENT);
        let invite = Invite {
            id: InviteId::of(b"secret"),
            name: "Contoso".to_owned(),
            tenant: Some(tenant),
            cloud: "worldwide".to_owned(),
            app: String::new(),
            content_types: [ContentType::Dlp].into(),
            made: at,
            expires: at,
            stage: InviteStage::Done { tenant, at },
        };
        assert_eq!(encode_invite(&invite), INVITE);
    }

    const ENROLMENT: &[u8] =
        b"\x01\x07Contoso\tworldwide\x04mssp\x04\x01\x02\x03\x04\x02\x82\xe0\x94\xec\xc8\xee\xaa\xea1";
    const INVITE: &[u8] = b"\x01\x07Contoso\x01\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\tworldwide\x00\x01\x05\
        \x82\xe0\x94\xec\xc8\xee\xaa\xea1\x82\xe0\x94\xec\xc8\xee\xaa\xea1\x02\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\x82\xe0\x94\xec\xc8\xee\xaa\xea1";

    #[test]
    fn a_damaged_value_and_a_newer_version_are_errors() {
        let value = encode_entry(&entry());
        for cut in 0..value.len() {
            assert!(decode_entry(&value[..cut]).is_err(), "{cut} bytes of {}", value.len());
        }
        let mut longer = value.clone();
        longer.push(0);
        assert_eq!(decode_entry(&longer).unwrap_err().to_string(), "1 bytes too many");
        let mut newer = value;
        newer[0] = 2;
        assert_eq!(decode_entry(&newer).unwrap_err().to_string(), "version 2 is not known");
    }

    #[test]
    fn a_long_error_text_is_cut_at_a_character() {
        let long = QueueEntry { last_error: Some("ä".repeat(5_000)), ..entry() };
        let read = decode_entry(&encode_entry(&long)).unwrap();
        assert_eq!(read.last_error.unwrap(), "ä".repeat(1_000));
    }

    /// What is on disk stays readable: these bytes were written by format 1.
    #[test]
    fn the_bytes_of_an_entry_do_not_change() {
        assert_eq!(encode_entry(&entry()), GOLDEN);
    }

    const GOLDEN: &[u8] = b"\x01\x1920261122$audit_exchange$1\x02\
        Chttps://manage.office.com/api/v1.0/t/activity/feed/audit/20261122$1\
        \x80\xd3\x80\xdd\x8a\xeb\xaa\xea1\x80\xd3\xc8\xef\x89\xef\xbd\xec1\x03\x82\xe0\x94\xec\xc8\xee\xaa\xea1\x03\x01\x02\x01\x80\x80\x9f\xf3\xcf\xbc\xac\xea1\x01\x16the answer ended early";
}
