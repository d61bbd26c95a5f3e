use proptest::prelude::*;
use serde_json::Value;
use serde_json::value::RawValue;

use super::*;

/// Any JSON value, with strings that are a trial.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just("\\\"\\\\".to_owned()),
        Just("]}[{,:".to_owned()),
        Just("\u{feff}é𝄞\u{0}\u{7f}".to_owned()),
        any::<String>(),
        "[a-zA-Z]{0,12}",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(text.clone(), inner, 0..5)
                .prop_map(|map| Value::from(map.into_iter().collect::<serde_json::Map<_, _>>())),
        ]
    })
}

/// An array of objects as bytes, compact or pretty, with the fields that matter and without.
pub(crate) fn array() -> impl Strategy<Value = Vec<u8>> {
    let record =
        (prop::collection::vec((any::<String>(), json()), 0..4), prop::option::of(json())).prop_map(|(fields, id)| {
            let mut record: serde_json::Map<_, _> = fields.into_iter().collect();
            record.extend(id.map(|id| ("Id".to_owned(), id)));
            Value::from(record)
        });
    (prop::collection::vec(record, 0..6), any::<bool>()).prop_map(|(records, pretty)| {
        let records = Value::from(records);
        if pretty { serde_json::to_vec_pretty(&records) } else { serde_json::to_vec(&records) }.unwrap()
    })
}

/// Reads a body in pieces of `cut` bytes, checked, and gives each record's place and bytes.
fn read(body: &[u8], cut: usize) -> Result<Vec<(u64, Vec<u8>)>, Malformed> {
    let mut records = Records::new(Vec::new());
    let mut found = Vec::new();
    for piece in body.chunks(cut.max(1)) {
        records.push(piece);
        while let Some(record) = records.next()? {
            let json = record.json.to_vec();
            let start = records.released + (records.at - json.len()) as u64;
            found.push((start, json));
        }
        records.release(records.complete());
    }
    records.finish()?;
    Ok(found)
}

/// What is wrong, and that it is wrong in the same place however the body is cut.
#[track_caller]
fn malformed(body: &[u8]) -> Malformed {
    let whole = read(body, body.len()).unwrap_err();
    for cut in [1, 2, 3, 7] {
        let pieces = read(body, cut).unwrap_err();
        assert_eq!(pieces.at, whole.at, "cut {cut}: {pieces:?}, whole: {whole:?}");
    }
    whole
}

/// What `serde_json` makes of the body: the reference, which also wants UTF-8 throughout and objects only.
fn reference(body: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)).ok()?;
    let records: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let records: Vec<_> = records.into_iter().map(|record| record.get().as_bytes().to_vec()).collect();
    records.iter().all(|record| record[0] == b'{').then_some(records)
}

#[test]
fn one_array_of_objects_is_accepted_with_white_space_anywhere() {
    for (body, expected) in [
        (&b"[]"[..], 0),
        (b" \r\n\t[ ] \n", 0),
        (b"\xef\xbb\xbf[{}]", 1),
        (b"[{},{}]", 2),
        (b" [ { \"a\" : [ 1 , { } ] } , { } ] ", 2),
        (b"[{\"a\":\"]}\\\"\"}]", 1),
        (b"[{\"a\":1e400,\"b\":-0.0,\"c\":123456789012345678901234567890}]", 1),
        (b"[{\"\\ud800\":\"\\udc00\"}]", 1),
    ] {
        for cut in [1, 2, 3, 1000] {
            assert_eq!(read(body, cut).unwrap().len(), expected, "{}", body.escape_ascii());
        }
    }
}

#[test]
fn anything_else_is_refused_with_its_byte() {
    for (body, at) in [
        (&b""[..], 0),
        (b"  ", 2),
        (b"null", 0),
        (b"{}", 0),
        (b"\"x\"", 0),
        (b"<html>", 0),
        (b"\xef\xbb", 2),
        (b"\xef\xbb[]", 0),
        (b" \xef\xbb\xbf[]", 1),
        (b"[", 1),
        (b"[{}", 3),
        (b"[{},", 4),
        (b"[{},]", 4),
        (b"[,{}]", 1),
        (b"[{} {}]", 4),
        (b"[1]", 1),
        (b"[null]", 1),
        (b"[[]]", 1),
        (b"[{}]x", 4),
        (b"[{}][{}]", 4),
        (b"[{}]\0", 4),
        (b"[{\"a\"}]", 5),
        (b"[{\"a\":tru}]", 9),
        (b"[{\"a\":01}]", 7),
        (b"[{\"a\":1]}]", 7),
        (b"[{'a':1}]", 2),
        (b"[{\"a\":\"\n\"}]", 6),
        (b"[{\"\n\":1}]", 4),
        (b"[{\"\\n\n\":1}]", 4),
        (b"[{\"a\":\"\\x\"}]", 8),
        (b"[{\"a\":\"\xff\"}]", 7),
        (b"[{\"Id\":\"\xff\"}]", 8),
        (b"[{\n\"a\":\n,}]", 8),
        (b"[{\"a", 4),
    ] {
        let malformed = malformed(body);
        assert_eq!(malformed.at, at, "{}: {malformed}", body.escape_ascii());
    }
}

#[test]
fn a_record_may_be_deep_but_not_longer_than_the_limit() {
    let deep = [b"[{\"a\":".to_vec(), vec![b'['; 100_000], vec![b']'; 100_000], b"}]".to_vec()].concat();
    assert_eq!(read(&deep, 1000).unwrap().len(), 1);

    let long = |length: usize| {
        let mut body = b"[{\"a\":\"".to_vec();
        body.resize(1 + length - 2, b'x');
        body.extend_from_slice(b"\"}]");
        body
    };
    for cut in [1 << 20, usize::MAX] {
        assert_eq!(read(&long(MAX_RECORD), cut).unwrap()[0].1.len(), MAX_RECORD);
        assert_eq!(read(&long(MAX_RECORD + 1), cut).unwrap_err().at, 1);
    }
    // Without an end, it is refused once the limit is passed, not at the end of the body.
    let mut records = Records::new(Vec::new());
    records.push(&long(MAX_RECORD + 5)[..MAX_RECORD + 2]);
    assert!(records.next().is_err());
}

#[test]
fn bytes_are_released_but_for_the_unfinished_record() {
    let mut records = Records::new(Vec::new());
    records.push(b"[{\"a\":1},{\"b\"");
    assert!(records.next().unwrap().is_some());
    assert!(records.next().unwrap().is_none());
    assert_eq!(records.complete(), 9);
    records.release(9);
    assert_eq!(records.bytes(), b"{\"b\"");
    records.push(b":2}]");
    assert_eq!(records.next().unwrap().unwrap().json, b"{\"b\":2}");
    assert!(records.next().unwrap().is_none());
    records.finish().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_spans_are_those_of_serde_json(body in array(), mark in any::<bool>(), cut in 1_usize..80) {
        let body = if mark { [BYTE_ORDER_MARK, &body].concat() } else { body };
        let found = read(&body, cut).unwrap();
        for (start, record) in &found {
            let start = usize::try_from(*start).unwrap();
            prop_assert_eq!(&body[start..start + record.len()], &record[..]);
        }
        let found: Vec<_> = found.into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(found, reference(&body).unwrap());
    }

    #[test]
    fn mutated_bodies_are_accepted_exactly_if_serde_json_accepts_them(
        body in array(),
        mutations in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..3),
        cut in 1_usize..80,
    ) {
        let mut body = body;
        for (at, mutation) in mutations {
            mutation.apply(&mut body, at);
        }
        let found = read(&body, cut);
        let found = found.ok().map(|found| found.into_iter().map(|(_, record)| record).collect::<Vec<_>>());
        prop_assert_eq!(found, reference(&body), "{}", body.escape_ascii());
    }
}

/// What is done to a body at some place.
#[derive(Debug, Clone)]
enum Mutation {
    Truncate,
    Insert(u8),
    Replace(u8),
    Remove,
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = prop_oneof![prop::sample::select(b"[]{},:\"\\ \n0-.eEtnu\x00\xff\xc3\xef".to_vec()), any::<u8>()];
    prop_oneof![
        Just(Mutation::Truncate),
        Just(Mutation::Remove),
        byte.clone().prop_map(Mutation::Insert),
        byte.prop_map(Mutation::Replace),
    ]
}

impl Mutation {
    fn apply(self, body: &mut Vec<u8>, at: prop::sample::Index) {
        match self {
            Self::Insert(byte) => body.insert(at.index(body.len() + 1), byte),
            _ if body.is_empty() => {}
            Self::Truncate => body.truncate(at.index(body.len())),
            Self::Replace(byte) => *at.get_mut(body) = byte,
            Self::Remove => {
                body.remove(at.index(body.len()));
            }
        }
    }
}
