//! Invented people, devices and addresses.

use super::Event;

const PEOPLE: [(&str, &str); 16] = [
    ("amara.okonkwo", "Amara Okonkwo"),
    ("b.lindqvist", "Björn Lindqvist"),
    ("chen.yu", "Chen Yu"),
    ("dmitri.v", "Dmitri Volkonskij"),
    ("elif.kaya", "Elif Kaya"),
    ("f.moreau", "Françoise Moreau"),
    ("g.papadakis", "Γιώργος Παπαδάκης"),
    ("hana.sato", "佐藤 花"),
    ("ines.duarte", "Inês Duarte"),
    ("j.obrien", "Jack O'Brien"),
    ("k.lopez-garcia", "Karina López-García"),
    ("l.wisniewski", "Łukasz Wiśniewski"),
    ("m.von.arx", "Moritz von Arx"),
    ("nadia.rahimi", "Nadia Rahimi"),
    ("o.thorsen", "Øystein Thorsen"),
    ("p.anand", "Priya Anand"),
];

const AGENTS: [&str; 5] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Microsoft SkyDriveSync 24.201.1006.0005 ship; Windows NT 10.0 (22631)",
    "MSWAC",
];

/// Someone of the tenant.
pub(crate) struct Person {
    pub(crate) upn: String,
    pub(crate) name: &'static str,
    pub(crate) local: &'static str,
    /// The person's PUID, 16 hexadecimal digits, always the same.
    pub(crate) puid: String,
}

impl Event<'_> {
    pub(crate) fn person(&mut self) -> Person {
        let n = self.rng.usize(..PEOPLE.len());
        let (local, name) = PEOPLE[n];
        let puid = 0x1003_2000_0000_0000_u64
            | ((self.tenant.as_u64_pair().1 & 0xff_ffff) << 8)
            | u64::try_from(n).unwrap_or(0);
        Person { upn: format!("{local}@{}", self.domain), name, local, puid: format!("{puid:016X}") }
    }

    pub(crate) fn agent(&mut self) -> &'static str {
        self.one(&AGENTS)
    }

    /// An address in one of the forms seen in audit records.
    pub(crate) fn address(&mut self) -> String {
        let block = self.one(&["192.0.2", "198.51.100", "203.0.113"]);
        let host = self.rng.u8(1..255);
        let group = self.rng.u16(..);
        match self.rng.u32(..20) {
            0..=11 => format!("{block}.{host}"),
            12..=13 => format!("{block}.{host}:{}", self.rng.u16(1024..)),
            14..=15 => format!("2001:db8:{group:x}::{host:x}"),
            16 => format!("[2001:db8:{group:x}::{host:x}]:{}", self.rng.u16(1024..)),
            17 => format!("::ffff:{block}.{host}"),
            18 => format!("fe80::{group:x}%4"),
            _ => "<null>".to_owned(),
        }
    }
}
