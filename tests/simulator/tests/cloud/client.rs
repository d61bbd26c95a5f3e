//! A client small enough to see every byte, and the assertions it signs.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tenantry_simulator::{App, Cloud, ContentType, Scenario};
use uuid::Uuid;

pub(crate) const APP: Uuid = Uuid::from_u128(0xa99);
pub(crate) const SECRET: &str = "s3cret &+ü";
pub(crate) const TENANT: Uuid = Uuid::from_u128(0x7c1d_94a2_6b3e_4f05_9a48_2d1e_50c7_b311);
pub(crate) const OTHER: Uuid = Uuid::from_u128(0x12e8_50f7_c3a9_4d62_8b17_f00d_4a96_e825);
pub(crate) const PUBLISHER: Uuid = Uuid::from_u128(0x9b);

/// An answer as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    /// Without transfer coding, still with content coding.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub(crate) fn plain(&self) -> Vec<u8> {
        if self.header("content-encoding") == Some("gzip") {
            let mut plain = Vec::new();
            GzDecoder::new(&self.body[..]).read_to_end(&mut plain).expect("gzip");
            return plain;
        }
        self.body.clone()
    }

    pub(crate) fn json(&self) -> Value {
        let plain = self.plain();
        serde_json::from_slice(&plain).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&plain)))
    }

    /// `error.code` of the Activity API.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends one request on a connection of its own. An error is what a client would report: reset, truncated, timed out.
pub(crate) fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
    send_within(Duration::from_secs(20), method, url, headers, body)
}

/// The same with a limit on each read.
pub(crate) fn send_within(
    limit: Duration,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(limit))?;
    let mut head = format!("{method} /{path} HTTP/1.1\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        head.push_str("Host: ");
        head.push_str(host);
        head.push_str("\r\n");
    }
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    read_answer(&mut stream)
}

fn read_answer(stream: &mut TcpStream) -> io::Result<Answer> {
    let truncated = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let mut all = Vec::new();
    let mut piece = vec![0; 65536];
    let end = loop {
        if let Some(n) = all.windows(4).position(|w| w == b"\r\n\r\n") {
            break n;
        }
        match stream.read(&mut piece)? {
            0 => return Err(truncated()),
            n => all.extend_from_slice(&piece[..n]),
        }
    };
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).expect("a status");
    let headers: Vec<_> = lines.filter_map(|l| l.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
    let mut answer = Answer { status, headers, body: Vec::new() };
    let mut rest = all.split_off(end + 4);
    loop {
        match stream.read(&mut piece)? {
            0 => break,
            n => rest.extend_from_slice(&piece[..n]),
        }
    }
    if let Some(length) = answer.header("content-length") {
        let length: usize = length.parse().expect("a length");
        if rest.len() < length {
            return Err(truncated());
        }
        answer.body = rest;
        return Ok(answer);
    }
    loop {
        let n = rest.windows(2).position(|w| w == b"\r\n").ok_or_else(truncated)?;
        let size = usize::from_str_radix(&String::from_utf8_lossy(&rest[..n]), 16).expect("a chunk size");
        if rest.len() < n + 4 + size {
            return Err(truncated());
        }
        answer.body.extend_from_slice(&rest[n + 2..n + 2 + size]);
        rest.drain(..n + 4 + size);
        if size == 0 {
            return Ok(answer);
        }
    }
}

/// A scenario with one app that has a secret.
pub(crate) fn scenario() -> Scenario {
    Scenario::new(1).app(App::new(APP).secret(SECRET)).publisher(PUBLISHER)
}

/// Percent-encodes everything but letters and digits.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    fields.iter().map(|(n, v)| format!("{n}={}", encoded(v))).collect::<Vec<_>>().join("&")
}

/// A client of one tenant with a token.
pub(crate) struct Client {
    pub(crate) url: String,
    pub(crate) tenant: Uuid,
    pub(crate) token: String,
}

impl Client {
    /// Gets a token with the secret.
    pub(crate) fn new(cloud: &Cloud, tenant: Uuid) -> Self {
        let answer = token_by_secret(cloud, tenant, SECRET, "https://manage.office.com/.default");
        let token = answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned();
        Self { url: cloud.url(), tenant, token }
    }

    pub(crate) fn root(&self) -> String {
        format!("{}/api/v1.0/{}/activity/feed", self.url, self.tenant)
    }

    pub(crate) fn request(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        let bearer = format!("Bearer {}", self.token);
        let mut all = vec![("Authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        send(method, url, &all, body)
    }

    /// A GET with the publisher added.
    pub(crate) fn try_get(&self, url: &str) -> io::Result<Answer> {
        let joint = if url.contains('?') { '&' } else { '?' };
        self.request(
            "GET",
            &format!("{url}{joint}PublisherIdentifier={PUBLISHER}"),
            &[("Accept-Encoding", "gzip")],
            &[],
        )
    }

    pub(crate) fn get(&self, url: &str) -> Answer {
        self.try_get(url).expect("an answer")
    }

    pub(crate) fn start(&self, content_type: ContentType) -> Answer {
        self.post(&format!("subscriptions/start?contentType={content_type}"), "")
    }

    pub(crate) fn post(&self, operation: &str, body: &str) -> Answer {
        let url = format!("{}/{operation}&PublisherIdentifier={PUBLISHER}", self.root());
        self.request("POST", &url, &[], body.as_bytes()).expect("an answer")
    }

    /// One page of a listing.
    pub(crate) fn list(&self, content_type: ContentType, window: &str) -> Answer {
        self.get(&format!("{}/subscriptions/content?contentType={content_type}{window}", self.root()))
    }

    /// The entries of all pages of a listing.
    pub(crate) fn list_all(&self, content_type: ContentType, window: &str) -> Vec<Value> {
        let mut answer = self.list(content_type, window);
        let mut entries = Vec::new();
        loop {
            assert_eq!(answer.status, 200, "{answer:?}");
            entries.extend(answer.json().as_array().expect("a list").clone());
            match answer.header("NextPageUri").map(str::to_owned) {
                Some(next) => answer = self.get(&next),
                None => return entries,
            }
        }
    }
}

pub(crate) fn token_by_secret(cloud: &Cloud, tenant: Uuid, secret: &str, scope: &str) -> Answer {
    token_request(
        cloud,
        &format!("{tenant}/oauth2/v2.0/token"),
        &[
            ("client_id", &APP.to_string()),
            ("client_secret", secret),
            ("scope", scope),
            ("grant_type", "client_credentials"),
        ],
    )
}

pub(crate) fn token_request(cloud: &Cloud, path: &str, fields: &[(&str, &str)]) -> Answer {
    token_request_at(&cloud.authority_url(), path, fields)
}

pub(crate) fn token_request_at(authority: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    send("POST", &format!("{authority}/{path}"), &headers, form(fields).as_bytes()).expect("an answer")
}

/// A key and its self-signed certificate.
pub(crate) struct Identity {
    key: RsaKeyPair,
    pub(crate) der: Vec<u8>,
}

impl Identity {
    pub(crate) fn new(days_valid: i64) -> Self {
        let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("a key");
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after =
            if days_valid > 0 { rcgen::date_time_ymd(2090, 1, 1) } else { rcgen::date_time_ymd(2021, 1, 1) };
        let der = parameters.self_signed(&key).expect("a certificate").der().to_vec();
        Self { key: RsaKeyPair::from_pkcs8(&key.serialize_der()).expect("the key"), der }
    }

    /// Signs an assertion.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let encoding: &'static dyn RsaEncoding =
            if header["alg"] == "RS256" { &RSA_PKCS1_SHA256 } else { &RSA_PSS_SHA256 };
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The claims of a good assertion.
pub(crate) fn claims(audience: &str, now: i64) -> Value {
    json!({ "aud": audience, "iss": APP, "sub": APP, "jti": Uuid::new_v4(), "nbf": now, "iat": now, "exp": now + 600 })
}
