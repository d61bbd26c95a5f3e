//! Numbers of bytes as people write them: `512 MiB`, `2 GiB`, `10 GB`.

/// What is wanted.
pub(super) const WANTED: &str = "a number of bytes with its unit, such as `512 MiB` or `4 GiB`";

/// A text that is no number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write {WANTED}")]
pub struct NotASize;

/// The units, the binary ones first, largest first.
const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads a number of bytes. The unit is needed, its case is not.
pub fn parse(text: &str) -> Result<u64, NotASize> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).ok_or(NotASize)?.1;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or(NotASize)
}

/// The number as [`parse`] reads it, in the largest binary unit that fits without a fraction.
#[must_use]
pub fn display(bytes: u64) -> String {
    let (unit, size) =
        UNITS[..4].iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)).unwrap_or(&("B", 1));
    format!("{} {unit}", bytes / size)
}

/// The number as people read it: in the largest binary unit of which there is one, to a tenth, never more than it is.
#[must_use]
pub fn about(bytes: u64) -> String {
    let (unit, size) = UNITS[..4].iter().find(|(_, size)| bytes >= *size).unwrap_or(&("B", 1));
    match (bytes / size, bytes % size * 10 / size) {
        (whole, 0) => format!("{whole} {unit}"),
        (whole, tenths) => format!("{whole}.{tenths} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("4 GiB", 4 << 30),
            ("512MiB", 512 << 20),
            ("1 tib", 1 << 40),
            ("10 GB", 10_000_000_000),
            ("7 B", 7),
            ("0 B", 0),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "4", "GiB", "-4 GiB", "1.5 GiB", "4 GiBs", "99999999999 TiB"] {
            assert_eq!(parse(text), Err(NotASize), "{text}");
        }
        assert_eq!(display(4 << 30), "4 GiB");
        assert_eq!(display(1500), "1500 B");
        assert_eq!(display(1536 << 10), "1536 KiB");
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (1535, "1.4 KiB"), (1536 << 10, "1.5 MiB")]
        {
            assert_eq!(about(bytes), text);
        }
        assert_eq!(about(u64::MAX), "16777215.9 TiB");
    }

    proptest! {
        #[test]
        fn what_is_displayed_is_read_back(bytes: u64) {
            prop_assert_eq!(parse(&display(bytes)), Ok(bytes));
        }
    }
}
